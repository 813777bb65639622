"""Everything that a resumed run needs beside weights and optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Progress:
    """Where a run stands. Order, noise and dropout are functions of these numbers and the seed.

    step: optimizer steps taken (skipped ones included).
    samples: sequences consumed: the loader's whole state.
    loss_sum, loss_steps: for the mean since the last line of the log.
    skipped, bad_in_row: steps whose loss or gradient was not finite, in all and at the end.
    best_score, best_step: of validation; higher is better (a loss counts negative).
    stale: validations since the best one.
    score, best_scores: of the validation at this step, if any; of the best `keep_best` so far.
    lost: the last step had no finite loss or gradient (the overflow of fp16's scaling aside).
    owes_validation: a stop cut the validation of this step short; a resumed run begins with it.
    """

    step: int = 0
    samples: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    skipped: int = 0
    bad_in_row: int = 0
    best_score: float | None = None
    best_step: int = 0
    stale: int = 0
    score: float | None = None
    best_scores: list[float] = field(default_factory=list)
    lost: bool = False
    owes_validation: bool = False

"""The state that a resumed run needs besides weights and optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Progress:
    """Progress of a run. Data order, noise and dropout are functions of these numbers and the seed.

    Attributes:
        step: number of optimizer steps, including skipped ones.
        samples: number of sequences consumed; this is the loader's entire state.
        loss_sum, loss_steps: sum and number of losses since the last row of the log.
        skipped: steps with a non-finite loss or gradient.
        bad_in_row: how many of these are consecutive and include the last step.
        best_score, best_step: best validation so far. Higher is better; a loss is negated.
        stale: validations since the best one.
        score: validation score of this step; None if it was not validated.
        best_scores: the best `keep_best` scores so far.
        lost: the last loss or gradient was not finite, except for fp16 gradients that overflowed.
        owes_validation: a stop request interrupted the validation of this step; the resumed run
            starts by repeating it.
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

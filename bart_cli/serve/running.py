"""Texts that are decoded together: new ones join at any step, each leaves when it is done.

In: texts with equal decoding settings. Out: a summary for each. A long text is decoded in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bart_cli.config.commands import LongText
from bart_cli.config.generation import GenerationConfig

if TYPE_CHECKING:
    from bart_cli.inference.generate import Hypothesis
    from bart_cli.summarize.summarizer import Rounds, Summarizer, Summary

SIMILAR = 3.0  # largest ratio of lengths of pieces that are encoded together
# Reading this many tokens of padding takes a step as long as reading the weights of the decoder,
# so up to here a larger batch is faster than two.
MOST_PADDING = 8192
# On a GPU, the search for the next tokens takes the time of its kernel launches, however few the
# articles, so that pieces that join one by one would slow down every step.
MOST_COHORTS_ON_GPU = 4


@dataclass
class Progress:
    """A text in progress."""

    rounds: Rounds
    # pieces of this round that have not joined the batch
    waiting: list[int] = field(default_factory=list)
    # pieces in the batch, with their numbers of tokens
    running: dict[int, int] = field(default_factory=dict)
    # hypotheses of the pieces that are done
    found: dict[int, list[Hypothesis]] = field(default_factory=dict)

    def begin_round(self) -> None:
        self.waiting = list(range(len(self.rounds.pieces or ())))
        self.found = {}


class RunningTexts:
    """Texts in progress, by the numbers that the caller gives them.

    For the limits of the batch, see `Summarizer.summarize`.
    """

    def __init__(
        self,
        model: Summarizer,
        generation: GenerationConfig,
        batch_size: int,
        max_tokens: int | None,
    ) -> None:
        from bart_cli.inference.running import RunningBatch

        self.generation = generation
        self._model, self._size, self._max_tokens = model, batch_size, max_tokens
        self._batch = RunningBatch[tuple[int, int]](model.model, generation)
        self._texts: dict[int, Progress] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def numbers(self) -> list[int]:
        return list(self._texts)

    def add(self, number: int, text: str, long: LongText) -> None:
        """Encode a text. Its pieces join the batch with the next steps."""
        (rounds,) = self._model.begin([text], long)
        self._texts[number] = Progress(rounds)
        self._texts[number].begin_round()

    def cancel(self, number: int) -> bool:
        """Remove a text; return whether it was in progress."""
        progress = self._texts.pop(number, None)
        if progress is not None:
            self._batch.drop([(number, piece) for piece in progress.running])
        return progress is not None

    def step(self) -> dict[int, Summary]:
        """Add a token to all hypotheses; return the summaries of the texts that are done.

        Raises:
            NotFiniteError: scores are NaN.
        """
        self._admit()
        for (number, piece), hypotheses in (self._batch.step() if self._batch else {}).items():
            progress = self._texts[number]
            del progress.running[piece]
            progress.found[piece] = hypotheses
        done = {}
        for number, progress in list(self._texts.items()):
            if not progress.waiting and not progress.running:
                results = [progress.found[piece] for piece in range(len(progress.found))]
                self._model.receive(progress.rounds, results)
                progress.begin_round()
                if progress.rounds.pieces is None:
                    assert progress.rounds.summary is not None
                    done[number] = progress.rounds.summary
                    del self._texts[number]
        return done

    def _admit(self) -> None:
        """Let waiting pieces of similar length join the batch.

        The text with the fewest pieces in the batch comes first, so that a short text does not wait
        for all pieces of a long one.
        """
        if self._model.model.static and self._batch.cohorts >= MOST_COHORTS_ON_GPU:
            return
        lengths = [tokens for each in self._texts.values() for tokens in each.running.values()]
        joining: dict[tuple[int, int], Sequence[int]] = {}
        candidates = {n: each for n, each in self._texts.items() if each.waiting}
        first = reserved = 0
        while candidates and len(lengths) + reserved < self._size:
            number = min(
                candidates, key=lambda n: (len(candidates[n].running), len(candidates[n].found))
            )
            progress = candidates[number]
            source = (progress.rounds.pieces or [])[progress.waiting[0]]
            first = first or len(source)
            if not first / SIMILAR <= len(source) <= first * SIMILAR:
                del candidates[number]  # joins with the next step
                reserved += 1
                continue
            if lengths and not self._fits([*lengths, len(source)]):
                break  # until others have left; shorter ones must not overtake it forever
            piece = progress.waiting.pop(0)
            progress.running[piece] = len(source)
            lengths.append(len(source))
            joining[number, piece] = source
            if not progress.waiting:
                del candidates[number]
        if joining:
            self._batch.join(joining)

    def _fits(self, lengths: Sequence[int]) -> bool:
        total = max(lengths) * len(lengths)
        limit = total if self._max_tokens is None else self._max_tokens
        return total <= limit and total - sum(lengths) <= MOST_PADDING

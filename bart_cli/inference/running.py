"""A batch that decodes step by step: articles join it at any step, and leave it when they are done.

Articles that joined together are a *cohort*: they are at the same step, so they share the length of
their hypotheses. Cohorts share only the step of the model. Results do not depend on the batch.
"""

# Legend: A articles of a cohort, K rows (beams or samples) per article, R = A * K rows, T tokens so
# far, V vocabulary, P places of the batch.

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from bart_cli.config.generation import GenerationConfig
from bart_cli.data.batch import pad_rows
from bart_cli.inference import beam
from bart_cli.inference.constraints import Constraints
from bart_cli.inference.decoding import Decoding
from bart_cli.inference.engine import Engine
from bart_cli.inference.sampling import Draws, NotFiniteError, warp

# The batch shrinks when less than this share of its articles is left. A captured step must then be
# captured again, so shrinking pays later.
SHRINK, SHRINK_STATIC = 0.75, 0.5
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Hypothesis:
    """Generated ids without the start token, up to and including </s>."""

    tokens: list[int]
    score: float  # finite; higher is better; beam.WORST if no hypothesis was possible


class RunningBatch(Generic[Key]):
    """Articles that are decoded together with the same settings. Its length is their number."""

    def __init__(self, engine: Engine, generation: GenerationConfig) -> None:
        self._engine, self._device, self._generation = engine, engine.device, generation
        self._rows = generation.return_sequences if generation.beams == 1 else generation.beams
        self._decoding: Decoding | None = None
        self._cohorts: list[Cohort] = []
        self._places: dict[Key, int] = {}
        self._tokens = self._origins = torch.empty(0)  # [P, K]; see `_renumber`

    def __len__(self) -> int:
        return len(self._places)

    @property
    def cohorts(self) -> int:
        """Number of cohorts; the search for the next tokens runs once for each."""
        return len(self._cohorts)

    @torch.inference_mode()
    def join(self, sources: Mapping[Key, Sequence[int]]) -> None:
        """Encode articles, which are decoded from the next step on. Their keys must be new."""
        engine, generation, rows = self._engine, self._generation, list(sources.values())
        padded = pad_rows(
            [list(row) for row in rows],
            engine.config.pad_token_id,
            positions=engine.config.max_position_embeddings,
        )
        lengths = torch.tensor([len(row) for row in rows])
        real = torch.arange(padded.shape[1]) < lengths[:, None]
        mask = None if bool(real.all()) else real.to(engine.device)
        memory = engine.encode(padded.to(engine.device), mask)
        if self._decoding is None:
            self._decoding = Decoding(engine, memory, mask, self._rows, generation.max_length)
            places = list(range(len(rows)))
        else:
            places = self._decoding.join(memory, mask)
        self._places |= zip(sources, places, strict=True)
        kind = Walk if generation.beams == 1 else Search
        self._cohorts.append(kind(engine, generation, rows, places))
        self._renumber(self._decoding.places)

    @torch.inference_mode()
    def step(self) -> dict[Key, list[Hypothesis]]:
        """Add a token to every hypothesis; return the results of the articles that are done."""
        assert self._decoding is not None, "the batch is empty"
        for cohort in self._cohorts:
            self._tokens[cohort.index] = cohort.last_tokens()
        logits_RV = self._decoding.step(self._tokens.flatten())
        logits_PKV = logits_RV.unflatten(0, self._tokens.shape)
        done: dict[int, list[Hypothesis]] = {}
        for cohort in self._cohorts:
            origins_AK = cohort.advance(logits_PKV[cohort.index].flatten(0, 1).float())
            if origins_AK is not None:
                self._origins[cohort.index] = origins_AK
            done |= cohort.done()
        if self._generation.beams > 1:
            self._decoding.reorder(self._origins)
        found = {key: done[place] for key, place in self._places.items() if place in done}
        self.drop(found)
        return found

    @torch.inference_mode()
    def drop(self, keys: Collection[Key]) -> None:
        """Remove articles."""
        places = {self._places.pop(key) for key in keys}
        if not places or self._decoding is None:
            return
        for cohort in self._cohorts:
            if not places.isdisjoint(cohort.places):
                cohort.keep([i for i, place in enumerate(cohort.places) if place not in places])
        self._cohorts = [cohort for cohort in self._cohorts if cohort.places]
        if not self._places:
            self._decoding = None
            return
        self._decoding.drop(places)
        shrink = SHRINK_STATIC if self._engine.static else SHRINK
        if len(self._places) <= shrink * self._decoding.places:
            stay = [place for cohort in self._cohorts for place in cohort.places]
            self._decoding.keep(stay)
            number = {place: i for i, place in enumerate(stay)}
            for cohort in self._cohorts:
                cohort.places = [number[place] for place in cohort.places]
            self._places = {key: number[place] for key, place in self._places.items()}
        self._renumber(self._decoding.places)

    def _renumber(self, places: int) -> None:
        """Prepare the exchange of tokens and logits with `Decoding` after places have changed."""
        self._tokens = torch.zeros(places, self._rows, dtype=torch.int64, device=self._device)
        self._origins = torch.zeros_like(self._tokens)
        for cohort in self._cohorts:
            whole = cohort.places == list(range(places))
            # Indexing with a slice does not copy.
            cohort.index = (
                slice(None) if whole else torch.tensor(cohort.places, device=self._device)
            )


class Cohort(ABC):
    """The hypotheses of articles that joined together."""

    index: Tensor | slice  # `places` as an index of tensors

    def __init__(
        self,
        engine: Engine,
        generation: GenerationConfig,
        sources: Sequence[Sequence[int]],
        places: list[int],
    ) -> None:
        config, device, own = engine.config, engine.device, generation.start_token
        self.places = places  # place of each article in `Decoding`
        self.going = [True] * len(places)  # whether each article needs another step
        self._generation, self._pad_id = generation, config.pad_token_id
        self._start_id = config.decoder_start_token_id if own is None else own
        self._constraints = Constraints(generation, config, sources, device)
        self._ends = frozenset(self._constraints.end_ids.tolist())
        self._draws = Draws(sources, generation.seed, device) if generation.sample else None
        self._start(device)

    def done(self) -> dict[int, list[Hypothesis]]:
        """Return the results of the articles that are done, by place."""
        return {
            place: self._hypotheses(article)
            for article, (place, going) in enumerate(zip(self.places, self.going, strict=True))
            if not going
        }

    def keep(self, articles: list[int]) -> None:
        """Keep only these articles."""
        index = torch.tensor(articles, dtype=torch.int64, device=self._constraints.end_ids.device)
        self.places = [self.places[i] for i in articles]
        self.going = [self.going[i] for i in articles]
        self._constraints.keep(index)
        if self._draws is not None:
            self._draws.keep(articles)
        self._keep(index)

    def _hypotheses(self, article: int) -> list[Hypothesis]:
        """Cut the results of an article after the first token that ends a hypothesis."""
        tokens_KT, scores_K = self._found(article)
        hypotheses = []
        for tokens, score in zip(tokens_KT.tolist(), scores_K.tolist(), strict=True):
            end = next((i for i, token in enumerate(tokens) if token in self._ends), len(tokens))
            hypotheses.append(Hypothesis(tokens[: end + 1], max(score, beam.WORST)))
        return hypotheses

    @abstractmethod
    def _start(self, device: torch.device) -> None: ...

    @abstractmethod
    def last_tokens(self) -> Tensor:
        """Return the last token of every row, [A, K]."""

    @abstractmethod
    def advance(self, logits_RV: Tensor) -> Tensor | None:
        """Add a token to every row; return the beam that each new beam extends, [A, K], if any."""

    @abstractmethod
    def _found(self, article: int) -> tuple[Tensor, Tensor]:
        """Return tokens [K, T] without the start token, and scores [K], best first."""

    @abstractmethod
    def _keep(self, articles: Tensor) -> None: ...

    def _note(self, going: Tensor, bad: Tensor) -> None:
        """Transfer `going` to the host, in one transfer with a flag for scores that are NaN."""
        *self.going, failed = torch.cat((going, bad[None])).tolist()
        if failed:
            raise NotFiniteError


class Search(Cohort):
    """Beam search."""

    def _start(self, device: torch.device) -> None:
        self._state = beam.start(
            len(self.places),
            self._generation,
            start_id=self._start_id,
            pad_id=self._pad_id,
            device=device,
        )

    def last_tokens(self) -> Tensor:
        return self._state.running[:, :, self._state.length - 1]

    def advance(self, logits_RV: Tensor) -> Tensor:
        """Take the best continuations of all beams."""
        state, generation = self._state, self._generation
        tokens_RT = state.running[:, :, : state.length].flatten(0, 1)
        log_probs_RV = self._constraints(logits_RV.log_softmax(-1), tokens_RT)
        if self._draws is not None:
            at_least = 1 + len(self._constraints.end_ids)
            log_probs_RV = warp(log_probs_RV, generation, at_least=at_least)
        if generation.renormalize_logits:
            log_probs_RV = log_probs_RV.log_softmax(-1)
        self._state, origins_AK = beam.advance(
            state,
            log_probs_RV.unflatten(0, (-1, generation.beams)),
            generation,
            end_ids=self._constraints.end_ids,
            draws=self._draws,
        )
        # NaN ranks first, so it always reaches the running beams.
        bad = self._state.running_scores.isnan().any()
        self._note(self._state.open(generation.early_stopping), bad)
        return origins_AK

    def _found(self, article: int) -> tuple[Tensor, Tensor]:
        state, count = self._state, self._generation.return_sequences
        tokens = state.finished[article, :count, 1 : state.length]
        return tokens, state.finished_scores[article, :count]

    def _keep(self, articles: Tensor) -> None:
        self._state = self._state.keep(articles)


class Walk(Cohort):
    """Greedy search or sampling: `return_sequences` independent rows per article."""

    def _start(self, device: torch.device) -> None:
        rows = (len(self.places), self._generation.return_sequences)
        self._tokens = torch.full((*rows, 1), self._start_id, device=device)  # [A, K, T]
        self._scores = torch.zeros(rows, device=device)  # [A, K]
        self._ended = torch.zeros(rows, dtype=torch.bool, device=device)

    def last_tokens(self) -> Tensor:
        return self._tokens[:, :, -1]

    def advance(self, logits_RV: Tensor) -> None:
        """Take the best token of every row, or draw one."""
        logits_RV = self._constraints(logits_RV, self._tokens.flatten(0, 1))
        if self._draws is not None:
            logits_RV = warp(logits_RV, self._generation, at_least=1)
            chosen_R1 = self._draws.multinomial(logits_RV.softmax(-1), 1)
        else:
            chosen_R1 = logits_RV.argmax(-1, keepdim=True)
        scores_AK = logits_RV.log_softmax(-1).gather(1, chosen_R1).view_as(self._scores)
        self._scores = self._scores + torch.where(self._ended, 0.0, scores_AK)
        chosen_AK = chosen_R1.view_as(self._ended)
        chosen_AK = torch.where(self._ended, self._pad_id, chosen_AK)
        self._ended = self._ended | (chosen_AK[..., None] == self._constraints.end_ids).any(-1)
        self._tokens = torch.cat([self._tokens, chosen_AK[..., None]], 2)
        full = self._tokens.shape[2] >= self._generation.max_length
        self._note(~self._ended.all(1) & (not full), self._scores.isnan().any())

    def _found(self, article: int) -> tuple[Tensor, Tensor]:
        return self._tokens[article, :, 1:], self._scores[article]

    def _keep(self, articles: Tensor) -> None:
        self._tokens, self._scores, self._ended = (
            rows[articles] for rows in (self._tokens, self._scores, self._ended)
        )

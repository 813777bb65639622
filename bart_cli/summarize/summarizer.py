"""`Summarizer`: text in, summaries out. The Python API, and what `bart summarize` calls."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, get_args, overload

from bart_cli.config.generation import DecodingPrecision, GenerationConfig, resolve_generation
from bart_cli.config.presets import check_section
from bart_cli.config.summarize import LongText
from bart_cli.data.sentences import AUTO
from bart_cli.errors import UsageError
from bart_cli.inference.generate import Hypothesis, Interrupted, generate
from bart_cli.inference.load import (
    InferenceModel,
    in_language,
    load_for_inference,
    recorded_language,
)
from bart_cli.model.formats import resolve_model
from bart_cli.progress import Reporter
from bart_cli.summarize.long_texts import Encoded, encode_texts
from bart_cli.summarize.windows import windows

Decode = Callable[[list[list[int]]], list[list[Hypothesis]]]

SHORTER = 0.9  # `reduce` goes on while a round leaves at most this share of the tokens


class ArgumentError(UsageError, ValueError):
    """A wrong argument, for callers that expect Python's own kind of error as well."""


@dataclass(frozen=True)
class Summary:
    """A summary of one text.

    text: of the best hypothesis; others: further ones, when `return_sequences` asks for them.
    score: what beams rank by; of several pieces the mean.
    source_tokens: of the whole text; used_tokens: how many of them the model read.
    pieces: in how many parts it read them.
    missing: parts that an interruption left out.
    """

    text: str
    others: tuple[str, ...]
    score: float
    source_tokens: int
    used_tokens: int
    pieces: int = 1
    missing: int = 0

    @property
    def cut(self) -> bool:
        """Whether the model did not see the end of the text."""
        return self.used_tokens < self.source_tokens and not self.missing


class SummariesInterrupted(KeyboardInterrupt):
    """Ctrl-C while summarizing.

    summaries: in the order of the texts, each of the pieces that were decoded.
    """

    def __init__(self, summaries: list[Summary]) -> None:
        super().__init__()
        self.summaries = summaries


class Summarizer:
    """Summarizes texts with one model.

    >>> from bart_cli import Summarizer
    >>> Summarizer.from_pretrained("facebook/bart-large-cnn").summarize([article])[0].text
    """

    def __init__(
        self,
        loaded: InferenceModel,
        generation: GenerationConfig | None = None,
        *,
        sources: Mapping[str, str] | None = None,
        language: str = AUTO,
    ) -> None:
        """Summarize with a loaded model.

        Args:
            generation: default: the settings that the model was saved with.
            sources: where each of these settings came from, by field; default: the caller.
            language: whose rules split long texts into sentences, see `split_sentences`.
        """
        if generation is not None and not isinstance(generation, GenerationConfig):
            raise ArgumentError(
                f"generation is {_named(generation)}: expected a GenerationConfig",
                hint="Import it from bart_cli, or pass single settings to summarize: beams=6.",
            )
        self.model = loaded.model
        self.tokenizer = loaded.tokenizer
        self.folder = loaded.folder
        self.language = language
        if generation is None:
            saved = resolve_generation(loaded.saved.layers() if loaded.saved else ())
            generation = GenerationConfig.model_validate(saved.values)
            sources = saved.sources
        self.generation = in_language(self.tokenizer, generation)
        self.generation_sources = {
            name: (sources or {}).get(name, "argument")
            if getattr(generation, name) == value
            else f"target language {self.tokenizer.target_language}"
            for name, value in self.generation
        }

    def stated(self) -> dict[str, tuple[object, str]]:
        """The decoding settings that are not the default: value and source of each, by field."""
        default = GenerationConfig().model_dump(mode="json")
        return {
            name: (value, self.generation_sources[name])
            for name, value in self.generation.model_dump(mode="json").items()
            if value != default[name] and (name != "top_k" or self.generation.sample)
        }

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        precision: DecodingPrecision = "fp32",
        device: str = "auto",
        generation: GenerationConfig | None = None,
        checkpoint: str | int | None = None,
        source_language: str | None = None,
        target_language: str | None = None,
    ) -> Summarizer:
        """Load a run, a model folder or a hub id.

        Args:
            precision: fp32, tf32, bf16, fp16, int8 on a CPU, or auto: the fastest here.
            device: cpu, cuda, cuda:N, or auto: a GPU when there is one.
            generation: default: the settings that the model was saved with.
            checkpoint: of a run: best, last or a step; default: the best if the run has validated.
            source_language, target_language: of a multilingual model, such as fr_XX.

        Raises:
            UsageError: no model there, or a device or precision that this machine lacks.
            BartError: the hub could not be reached.
        """
        if not isinstance(source, str | Path):
            raise ArgumentError(f"source is {_named(source)}: expected a path or a hub id")
        if checkpoint is not None:
            source = resolve_model(source, str(checkpoint))
        loaded = load_for_inference(
            str(source),
            precision,
            device=device,
            source_language=source_language,
            target_language=target_language,
        )
        return cls(loaded, generation, language=recorded_language(source))

    @property
    def positions(self) -> int:
        """Tokens that the model can read at once, <s> and </s> among them."""
        return self.model.config.max_position_embeddings

    @property
    def source_length(self) -> int:
        """Tokens of a text that are read at once: a run's max_source_length, or all positions."""
        return min(self.positions, self.tokenizer.max_length or self.positions)

    @overload
    def summarize(self, texts: str, **options: Any) -> Summary: ...

    @overload
    def summarize(self, texts: Sequence[str], **options: Any) -> list[Summary]: ...

    def summarize(
        self,
        texts: str | Sequence[str],
        *,
        long: LongText = "truncate",
        batch_size: int = 8,
        max_tokens: int | None = None,
        reporter: Reporter | None = None,
        **changes: object,
    ) -> Summary | list[Summary]:
        """The summary of a text, or of each of several texts, in order.

        A text without words gets an empty summary.

        Args:
            texts: one text (then one `Summary` is returned), or a sequence of texts.
            long: what to do with a text that is longer than the model's positions. truncate: read
                its beginning; chunk: summarize pieces that end with sentences, and join; reduce: as
                chunk, then summarize the joined summaries until one piece holds them (or until that
                makes them no shorter).
            batch_size: texts decoded together at most.
            max_tokens: tokens of them decoded together at most, padding included.
            changes: decoding settings, such as `beams=6`.

        Raises:
            ArgumentError: an argument of the wrong type or out of range; the message names it.
        """
        if isinstance(texts, str):
            return self.summarize(
                [texts],
                long=long,
                batch_size=batch_size,
                max_tokens=max_tokens,
                reporter=reporter,
                **changes,
            )[0]
        texts = _checked_texts(texts)
        if long not in get_args(LongText):
            raise ArgumentError(f"long={long!r}: expected {', '.join(get_args(LongText))}")
        for name, value in (("batch_size", batch_size), ("max_tokens", max_tokens)):
            none = name == "max_tokens" and value is None
            if not none and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ArgumentError(f"{name}={value!r}: expected a whole number of at least 1")
        try:
            generation = check_section(GenerationConfig, self.generation.model_dump() | changes)
        except UsageError as error:
            raise ArgumentError(error.message.removeprefix("options: ")) from None
        decode = partial(
            generate,
            self.model,
            generation=generation,
            batch_size=batch_size,
            max_tokens=max_tokens,
            reporter=reporter,
        )
        encoded = self._encode(texts, long)
        try:
            summaries = self._round(encoded, decode)
        except Interrupted as stop:
            raise SummariesInterrupted(self._join(encoded, stop.results)) from None
        if long == "reduce":
            try:
                self._reduce(summaries, decode)
            except Interrupted:  # what was joined from the pieces is a summary, only a longer one
                raise SummariesInterrupted(summaries) from None
        return summaries

    def stream(
        self,
        texts: Iterable[str],
        *,
        long: LongText = "truncate",
        batch_size: int = 8,
        max_tokens: int | None = None,
        **changes: object,
    ) -> Iterator[Summary]:
        """As `summarize`, for texts without end: summaries come in order, while texts are read.

        Texts are taken in windows that grow from one text to four batches (one text always, when
        `batch_size` is 1); one window is in memory.
        """
        if isinstance(texts, str):
            raise ArgumentError("texts is one string: expected an iterable of strings")
        options = {"long": long, "batch_size": batch_size, "max_tokens": max_tokens} | changes
        for window in windows((_checked(text) for text in texts), batch_size, len):
            yield from self.summarize(window, **options)

    def _encode(self, texts: Sequence[str], long: LongText) -> list[Encoded]:
        return encode_texts(
            texts,
            self.tokenizer,
            self.source_length,
            whole=long != "truncate",
            prefix=self.model.config.prefix,
            language=self.language,
        )

    def _round(self, encoded: Sequence[Encoded], decode: Decode) -> list[Summary]:
        """Decode every piece of every text; a text's summary is its pieces' joined."""
        return self._join(encoded, decode([piece for text in encoded for piece in text.pieces]))

    def _join(
        self, encoded: Sequence[Encoded], results: Sequence[list[Hypothesis]]
    ) -> list[Summary]:
        """The summaries of texts from the hypotheses of all their pieces.

        A piece without hypotheses, which an interruption leaves, is not in the summary, and not
        counted in `pieces`.
        """
        found = iter(results)
        summaries = []
        for text in encoded:
            ranked = list(itertools.islice(found, len(text.pieces)))
            hypotheses = [ranks for ranks in ranked if ranks]
            unread = sum(
                len(piece) for piece, ranks in zip(text.pieces, ranked, strict=True) if not ranks
            )
            # [piece][rank] -> [rank]: the n-th best of every piece together
            best, *others = [
                " ".join(filter(None, (part.strip() for part in self.tokenizer.decode_batch(rows))))
                for rows in zip(*([h.tokens for h in ranks] for ranks in hypotheses), strict=True)
            ] or [""]
            summaries.append(
                Summary(
                    text=best,
                    others=tuple(others),
                    score=fmean(ranks[0].score for ranks in hypotheses) if hypotheses else 0.0,
                    source_tokens=text.tokens,
                    used_tokens=max(0, text.used - unread),
                    pieces=len(hypotheses),
                    missing=len(text.pieces) - len(hypotheses),
                )
            )
        return summaries

    def _reduce(self, summaries: list[Summary], decode: Decode) -> None:
        """Summarize again, in place, what was joined from several pieces."""
        lengths = {i: s.source_tokens for i, s in enumerate(summaries) if s.pieces > 1}
        while lengths:
            encoded = dict(
                zip(
                    lengths,
                    self._encode([summaries[i].text for i in lengths], "reduce"),
                    strict=True,
                )
            )
            shorter = [i for i, text in encoded.items() if 0 < text.tokens <= SHORTER * lengths[i]]
            again = self._round([encoded[i] for i in shorter], decode)
            for i, summary in zip(shorter, again, strict=True):
                summaries[i] = replace(
                    summaries[i], text=summary.text, others=summary.others, score=summary.score
                )
            lengths = {
                i: encoded[i].tokens
                for i, summary in zip(shorter, again, strict=True)
                if summary.pieces > 1
            }


def _checked_texts(texts: object) -> list[str]:
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise ArgumentError(f"texts is {_named(texts)}: expected a string or a list of strings")
    return [_checked(text, i) for i, text in enumerate(texts)]


def _checked(text: object, index: int | None = None) -> str:
    if not isinstance(text, str):
        where = "a text" if index is None else f"texts[{index}]"
        raise ArgumentError(f"{where} is {_named(text)}: expected a string")
    return text


def _named(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"

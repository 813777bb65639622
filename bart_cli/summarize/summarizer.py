"""`Summarizer`: the Python API for summaries, also used by `bart summarize` and `bart serve`."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Self, get_args, overload

from bart_cli.config.commands import LongText
from bart_cli.config.generation import DecodingPrecision, GenerationConfig, resolve_generation
from bart_cli.config.presets import check_section
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

SHORTER = 0.9  # `reduce` stops when a round leaves more than this share of the tokens


class ArgumentError(UsageError, ValueError):
    """An invalid argument. Also a ValueError, for callers that expect a standard exception."""


@dataclass(frozen=True)
class Summary:
    """The summary of one text.

    Attributes:
        text: the best hypothesis.
        others: further hypotheses, if `return_sequences` is greater than 1.
        score: score by which beam search ranks hypotheses; the mean over pieces.
        source_tokens: number of tokens of the text.
        used_tokens: how many of them the model read.
        pieces: number of pieces that were summarized.
        missing: number of pieces that an interruption prevented.
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
        return self.used_tokens < self.source_tokens and not self.missing


@dataclass
class Rounds:
    """The rounds of decoding that summarize one text: one, or several with long="reduce"."""

    long: LongText
    encoded: Encoded | None  # input of the next round; None: there is none
    summary: Summary | None = None  # after the last round; None: there was none

    @property
    def pieces(self) -> list[list[int]] | None:
        """The pieces to decode in the next round; None: there is none."""
        return None if self.encoded is None else self.encoded.pieces


class SummariesInterrupted(KeyboardInterrupt):
    """Ctrl-C during `Summarizer.summarize`.

    summaries: a summary for each text, in order, of the pieces that were decoded.
    """

    def __init__(self, summaries: list[Summary]) -> None:
        super().__init__()
        self.summaries = summaries


class Summarizer:
    """Summarize texts with one model.

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
        """Make a summarizer from a loaded model.

        Args:
            generation: decoding settings. None: those saved with the model.
            sources: origin of each of these settings, for reports. None: the caller.
            language: language of the sentence splitter; see `split_sentences`.

        Raises:
            ArgumentError: `generation` is not a GenerationConfig.
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
            layers = loaded.saved.layers() if loaded.saved else ()
            values, sources, _ = resolve_generation(layers)
            generation = GenerationConfig.model_validate(values)
        self.generation = in_language(self.tokenizer, generation)
        self.generation_sources = {
            name: (sources or {}).get(name, "argument")
            if getattr(generation, name) == value
            else f"target language {self.tokenizer.target_language}"
            for name, value in self.generation
        }

    def stated(self) -> dict[str, tuple[object, str]]:
        """Return the decoding settings that differ from the default: field -> value and source."""
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
    ) -> Self:
        """Load a run, a model folder or a hub id.

        Args:
            precision: fp32, tf32, bf16, fp16, int8 (CPU only), or auto for the fastest one on this
                device.
            device: cpu, cuda, cuda:N, or auto for a GPU if there is one.
            generation: decoding settings. None: those saved with the model.
            checkpoint: checkpoint of a run: best, last or a step. None: best if the run has
                validated, else last.
            source_language, target_language: language codes of a multilingual model, such as fr_XX.

        Raises:
            ArgumentError: `source` is neither a path nor a hub id.
            UsageError: there is no model, or this machine lacks the device or the precision.
            BartError: the hub cannot be reached.
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
        """Largest number of tokens that the model can read, including <s> and </s>."""
        return self.model.config.max_position_embeddings

    @property
    def source_length(self) -> int:
        """Largest number of tokens in a piece: max_source_length of the run, or all positions."""
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
        """Summarize one text or several.

        The summary of a text without words is empty.

        Args:
            texts: one text, for one `Summary`, or a sequence of texts, for a list in this order.
            long: how to read a text that is longer than the model's positions. truncate: read only
                its beginning. chunk: split it at sentence ends, summarize the pieces, and join the
                summaries. reduce: like chunk, but summarize the joined summaries again until they
                fit in one piece or do not get shorter.
            batch_size: largest number of texts (or pieces) to decode together.
            max_tokens: largest number of their tokens to decode together, including padding.
            changes: decoding settings to override, such as `beams=6`.

        Raises:
            ArgumentError: an argument has the wrong type or is out of range.
        """
        single = isinstance(texts, str)
        if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
            raise ArgumentError(f"texts is {_named(texts)}: expected a string or a list of strings")
        texts = [_checked(text, i) for i, text in enumerate([texts] if single else texts)]
        if long not in get_args(LongText):
            raise ArgumentError(f"long={long!r}: expected {', '.join(get_args(LongText))}")
        for name, value in (("batch_size", batch_size), ("max_tokens", max_tokens)):
            none = name == "max_tokens" and value is None
            if not none and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ArgumentError(f"{name}={value!r}: expected an integer of at least 1")
        try:
            generation = check_section(GenerationConfig, self.generation.model_dump() | changes)
        except UsageError as error:
            raise ArgumentError(error.message.removeprefix("options: ")) from None
        tasks, interrupted = self.begin(texts, long), False
        while not interrupted and (going := [each for each in tasks if each.pieces is not None]):
            pieces = [piece for rounds in going for piece in rounds.pieces or ()]
            try:
                found = generate(
                    self.model,
                    pieces,
                    generation,
                    batch_size=batch_size,
                    max_tokens=max_tokens,
                    reporter=reporter,
                )
            except Interrupted as stop:
                found, interrupted = stop.results, True
            results = iter(found)
            for rounds in going:
                part = list(itertools.islice(results, len(rounds.pieces or ())))
                # Without all results, the summary of the round before is valid, only longer.
                if all(part) or rounds.summary is None:
                    self.receive(rounds, part)
        summaries = [rounds.summary for rounds in tasks if rounds.summary is not None]
        if interrupted:
            raise SummariesInterrupted(summaries)
        return summaries[0] if single else summaries

    def stream(
        self,
        texts: Iterable[str],
        *,
        long: LongText = "truncate",
        batch_size: int = 8,
        max_tokens: int | None = None,
        **changes: object,
    ) -> Iterator[Summary]:
        """Summarize a stream of texts, which may be infinite, and yield the summaries in order.

        Texts are read in windows that grow from one text to four batches (with `batch_size=1`,
        always one text). One window is in memory at a time.
        """
        if isinstance(texts, str):
            raise ArgumentError("texts is one string: expected an iterable of strings")
        options = {"long": long, "batch_size": batch_size, "max_tokens": max_tokens} | changes
        for window in windows((_checked(text) for text in texts), batch_size, len):
            yield from self.summarize(window, **options)

    def begin(self, texts: Sequence[str], long: LongText) -> list[Rounds]:
        """Encode texts, whose pieces are then decoded in rounds; see `receive`."""
        return [Rounds(long, text) for text in self._encode(texts, long)]

    def receive(self, rounds: Rounds, results: Sequence[list[Hypothesis]]) -> None:
        """Join the hypotheses of the pieces of a round, and prepare the next round if there is one.

        After an interruption, some pieces have no hypotheses. They are counted in `missing`.
        """
        text = rounds.encoded
        assert text is not None
        joined = self._join(text, results)
        rounds.encoded = None
        if rounds.summary is None:
            rounds.summary = joined
        else:
            rounds.summary = replace(
                rounds.summary, text=joined.text, others=joined.others, score=joined.score
            )
        if rounds.long == "reduce" and joined.pieces > 1:
            (again,) = self._encode([joined.text], "reduce")
            if 0 < again.tokens <= SHORTER * text.tokens:
                rounds.encoded = again

    def _encode(self, texts: Sequence[str], long: LongText) -> list[Encoded]:
        return encode_texts(
            texts,
            self.tokenizer,
            self.source_length,
            whole=long != "truncate",
            prefix=self.model.config.prefix,
            language=self.language,
        )

    def _join(self, text: Encoded, results: Sequence[list[Hypothesis]]) -> Summary:
        """Join the hypotheses of the pieces of a text to its summary."""
        hypotheses = [ranks for ranks in results if ranks]
        unread = sum(
            len(piece) for piece, ranks in zip(text.pieces, results, strict=True) if not ranks
        )
        # [piece][rank] -> [rank]: join the n-th best hypotheses of all pieces.
        best, *others = [
            " ".join(filter(None, (part.strip() for part in self.tokenizer.decode_batch(rows))))
            for rows in zip(*([h.tokens for h in ranks] for ranks in hypotheses), strict=True)
        ] or [""]
        return Summary(
            text=best,
            others=tuple(others),
            score=fmean(ranks[0].score for ranks in hypotheses) if hypotheses else 0.0,
            source_tokens=text.tokens,
            used_tokens=max(0, text.used - unread),
            pieces=len(hypotheses),
            missing=len(text.pieces) - len(hypotheses),
        )


def _checked(text: object, index: int | None = None) -> str:
    if not isinstance(text, str):
        where = "a text" if index is None else f"texts[{index}]"
        raise ArgumentError(f"{where} is {_named(text)}: expected a string")
    return text


def _named(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"

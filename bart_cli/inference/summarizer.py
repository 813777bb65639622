"""`Summarizer`: text in, summaries out. The Python API and the engine of `bart summarize`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bart_cli.config.generation import DecodingPrecision, GenerationConfig
from bart_cli.inference.generate import generate
from bart_cli.inference.load import InferenceModel, load_for_inference
from bart_cli.progress import Reporter


@dataclass(frozen=True)
class Summary:
    """A summary of one text.

    text: of the best hypothesis; others: further ones, when `return_sequences` asks for them.
    source_tokens: of the whole text; used_tokens: how many of them the model read.
    """

    text: str
    others: tuple[str, ...]
    score: float
    source_tokens: int
    used_tokens: int

    @property
    def cut(self) -> bool:
        """Whether the model did not see the end of the text."""
        return self.used_tokens < self.source_tokens


class Summarizer:
    """Summarizes texts with one model.

    >>> from bart_cli import Summarizer
    >>> Summarizer.from_pretrained("facebook/bart-large-cnn").summarize([article])[0].text
    """

    def __init__(self, loaded: InferenceModel, generation: GenerationConfig | None = None) -> None:
        self.model = loaded.model
        self.tokenizer = loaded.tokenizer
        self.generation = generation or loaded.generation or GenerationConfig()

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        precision: DecodingPrecision = "fp32",
        device: str = "auto",
        generation: GenerationConfig | None = None,
    ) -> Summarizer:
        """Load a run, a model folder or a hub id.

        Args:
            precision: fp32, tf32, bf16, fp16, or int8 on a CPU.
            device: cpu, cuda, cuda:N, or auto: a GPU when there is one.
            generation: default: the settings that the model was saved with.

        Raises:
            UsageError: no model there.
            BartError: the hub could not be reached.
        """
        return cls(load_for_inference(str(source), precision, device=device), generation)

    def summarize(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 8,
        max_tokens: int | None = None,
        reporter: Reporter | None = None,
        **changes: object,
    ) -> list[Summary]:
        """A summary of each text, in order; a text without words gets an empty one.

        Args:
            batch_size: texts decoded together at most.
            max_tokens: tokens of them decoded together at most, padding included.
            changes: decoding settings, such as `beams=6`.
        """
        generation = GenerationConfig.model_validate(self.generation.model_dump() | changes)
        limit = self.model.config.max_position_embeddings
        folded = [" ".join(text.split()) for text in texts]
        rows = self.tokenizer.encode_batch(folded)
        sources = [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in rows]
        worded = [i for i, text in enumerate(folded) if text]
        found = generate(
            self.model,
            [sources[i] for i in worded],
            generation,
            batch_size=batch_size,
            max_tokens=max_tokens,
            reporter=reporter,
        )
        summaries = [Summary("", (), 0.0, 0, 0) for _ in texts]
        for i, hypotheses in zip(worded, found, strict=True):
            best, *others = self.tokenizer.decode_batch([h.tokens for h in hypotheses])
            summaries[i] = Summary(
                text=best.strip(),
                others=tuple(other.strip() for other in others),
                score=hypotheses[0].score,
                source_tokens=len(rows[i]),
                used_tokens=len(sources[i]),
            )
        return summaries

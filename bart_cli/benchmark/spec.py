"""What an arm is told: plain settings that travel to its processes as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bart_cli.config.base import Section
from bart_cli.config.benchmark import BenchmarkConfig
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.config.run import FinetuneConfig, PretrainConfig

Side = Literal["bart", "transformers"]
DataStage = Literal["preprocess", "denoise", "shards", "pairs"]


class TrainingSpec(Section):
    """Optimizer steps of a run: its model, optimizer, loop, and data (no path: random tokens)."""

    kind: Literal["training"] = "training"
    run: Annotated[PretrainConfig | FinetuneConfig, Field(discriminator="task")]

    @property
    def length(self) -> int:
        """Longest source in tokens."""
        data = self.run.data
        if isinstance(self.run, PretrainConfig):
            return self.run.data.sequence_length
        return getattr(data, "max_source_length", 0)

    @property
    def target_length(self) -> int:
        """Longest target in tokens."""
        return getattr(self.run.data, "max_target_length", self.length)


class DecodingSpec(Section):
    """Batches of articles to hypotheses. `model_path` None: random weights of `model`.

    With random weights nothing ends early: every hypothesis has `generation.max_length` tokens.
    own_settings: a trained model is decoded as it was saved, but for `changes`.
    """

    kind: Literal["decoding"] = "decoding"
    model: ModelConfig
    model_path: str | None = None
    data: Path | None = None
    length: int = Field(ge=8)
    generation: GenerationConfig
    own_settings: bool = False
    changes: dict[str, object] = Field(default_factory=dict)


class DataSpec(Section):
    """A stage from text to batches. `corpus`: one document per line, id first."""

    kind: Literal["data"] = "data"
    stage: DataStage
    work: Path
    corpus: Path
    pairs: Path
    tokenizer: Path
    length: int = Field(128, ge=8)
    batch: int = Field(64, ge=1)


class ArmSpec(Section):
    """One arm."""

    side: Side = "bart"
    processes: int = Field(1, ge=1)
    precision: str = "fp32"
    sizes: tuple[int, ...] = Field(min_length=1)
    benchmark: BenchmarkConfig = BenchmarkConfig()
    load: Annotated[TrainingSpec | DecodingSpec | DataSpec, Field(discriminator="kind")]

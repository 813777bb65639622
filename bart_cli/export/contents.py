"""Input of every export format, and the result of comparing an export with its model."""

from dataclasses import dataclass

from torch import Tensor

from bart_cli.config.commands import ExportDtype
from bart_cli.config.generation import GenerationConfig
from bart_cli.errors import BartError
from bart_cli.model.bart import Bart
from bart_cli.model.weights import State
from bart_cli.tokenizer import Tokenizer

TOLERANCE = 1e-4  # largest difference of logits, relative to the largest logit (at least 1)


@dataclass(frozen=True)
class Contents:
    """A model to export."""

    model: Bart  # the model in fp32, with weights rounded to `dtype`
    weights: State  # its state dict in `dtype`
    dtype: ExportDtype
    tokenizer: Tokenizer
    generation: GenerationConfig | None


@dataclass(frozen=True)
class Comparison:
    """An export compared with its model."""

    reader: str  # program that loaded the export
    difference: float  # largest difference of logits, for CTranslate2 of log probabilities
    # number of greedy summaries with equal tokens; None: none were decoded
    equal: int | None = None
    sequences: int | None = None  # number of greedy summaries
    articles: str | None = None  # origin of the articles


def require_equal(found: Tensor, expected: Tensor) -> float:
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise BartError(
            f"the export's logits differ by {difference:.3g} from the model's; it was deleted"
        )
    return difference

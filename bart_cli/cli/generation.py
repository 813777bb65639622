"""Decoding options that `bart evaluate` and `bart summarize` share."""

from __future__ import annotations

from typing import Annotated

import typer

from bart_cli.cli.options import field_help
from bart_cli.config.generation import EvaluationConfig, GenerationConfig

BeamsOption = Annotated[int | None, typer.Option(help=field_help(GenerationConfig, "beams"))]
LengthPenaltyOption = Annotated[
    float | None, typer.Option(help=field_help(GenerationConfig, "length_penalty"))
]
MinLengthOption = Annotated[
    int | None, typer.Option(help=field_help(GenerationConfig, "min_length"))
]
MaxLengthOption = Annotated[
    int | None, typer.Option(help=field_help(GenerationConfig, "max_length"))
]
NoRepeatOption = Annotated[
    int | None, typer.Option(help=field_help(GenerationConfig, "no_repeat_ngram"))
]
SequencesOption = Annotated[
    int | None, typer.Option(help=field_help(GenerationConfig, "return_sequences"))
]
BatchSizeOption = Annotated[
    int | None, typer.Option(help=field_help(EvaluationConfig, "batch_size"))
]


def generation_options(
    beams: int | None,
    length_penalty: float | None,
    min_length: int | None,
    max_length: int | None,
    no_repeat_ngram: int | None,
    return_sequences: int | None,
) -> dict[str, object]:
    """Named options as fields of GenerationConfig; only those that were given."""
    values = {
        "beams": beams,
        "length_penalty": length_penalty,
        "min_length": min_length,
        "max_length": max_length,
        "no_repeat_ngram": no_repeat_ngram,
        "return_sequences": return_sequences,
    }
    return {name: value for name, value in values.items() if value is not None}

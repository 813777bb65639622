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
EarlyStoppingOption = Annotated[
    str | None,
    typer.Option(metavar="true|false|never", help=field_help(GenerationConfig, "early_stopping")),
]
SequencesOption = Annotated[
    int | None, typer.Option(help=field_help(GenerationConfig, "return_sequences"))
]
SampleOption = Annotated[
    bool | None, typer.Option("--sample", help=field_help(GenerationConfig, "sample"))
]
TemperatureOption = Annotated[
    float | None, typer.Option(help=field_help(GenerationConfig, "temperature"))
]
TopKOption = Annotated[int | None, typer.Option(help=field_help(GenerationConfig, "top_k"))]
TopPOption = Annotated[float | None, typer.Option(help=field_help(GenerationConfig, "top_p"))]
SampleSeedOption = Annotated[
    int | None, typer.Option("--seed", help=field_help(GenerationConfig, "seed"))
]
BatchSizeOption = Annotated[
    int | None, typer.Option(help=field_help(EvaluationConfig, "batch_size"))
]
MaxTokensOption = Annotated[
    int | None, typer.Option(help=field_help(EvaluationConfig, "max_tokens"))
]
DecodingPrecisionOption = Annotated[
    str | None,
    typer.Option("--precision", metavar="NAME", help=field_help(EvaluationConfig, "precision")),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=field_help(EvaluationConfig, "device")),
]


def decoding_options(**values: object) -> dict[str, object]:
    """Named options as configuration keys; those that were not given are left out.

    Args:
        values: by field of GenerationConfig, `early_stopping` as text.
    """
    if isinstance(stop := values.get("early_stopping"), str):
        values["early_stopping"] = {"true": True, "false": False}.get(stop, stop)
    return {f"generation.{name}": value for name, value in values.items() if value is not None}

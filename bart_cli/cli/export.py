"""`bart export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from bart_cli.cli.console import out, print_json
from bart_cli.cli.options import CheckpointOption, JsonOption, field_help
from bart_cli.config.export import ExportConfig
from bart_cli.errors import UsageError


def command(
    model: Annotated[
        str, typer.Argument(help="Run, model folder, hub id, `.ckpt` or fairseq `model.pt`.")
    ],
    out_folder: Annotated[Path, typer.Option("--out", help="Output folder; must be new or empty.")],
    form: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="huggingface|reference", help=field_help(ExportConfig, "format")
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="fp32|bf16|fp16", help=field_help(ExportConfig, "dtype")),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="NAME", help=field_help(ExportConfig, "tokenizer"))
    ] = None,
    checkpoint: CheckpointOption = None,
    average: Annotated[
        int | None, typer.Option(metavar="N", help=field_help(ExportConfig, "average"))
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Export a model: weights, configuration, tokenizer and decoding settings.

    The result is verified before it gets its final name. A Hugging Face folder is loaded with
    transformers, if installed, which must reproduce logits and token ids; a reference checkpoint is
    read back.

    [bold]bart export runs/finetune --out exports/news-summarizer --dtype bf16[/bold]
    """
    from bart_cli.config.presets import load_config
    from bart_cli.model.export import export_model
    from bart_cli.model.formats import resolve_model

    config = load_config(
        ExportConfig,
        options={"format": form, "dtype": dtype, "tokenizer": tokenizer, "average": average},
    )
    if checkpoint is not None and config.average > 1:
        raise UsageError("--checkpoint and --average cannot be combined")
    if checkpoint is not None:
        model = str(resolve_model(model, checkpoint))
    done = export_model(model, out_folder, config)
    if as_json:
        print_json(asdict(done))
        return
    lines = [
        f"{done.parameters / 1e6:,.1f} million parameters, {done.dtype}, {done.layout} layout, "
        f"{done.size / 1e6:,.1f} MB: {done.out}"
    ]
    reader = "bart" if done.layout == "reference" else "transformers"
    if done.difference is None:
        lines.append("not verified: transformers is not installed")
    else:
        lines.append(f"verified with {reader}: logits differ by at most {done.difference:.1g}")
    for line in lines:
        out.print(Text(line), soft_wrap=True)

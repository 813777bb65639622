"""`bart download`: corpora and data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bart_cli.cli.console import make_reporter, out, print_json
from bart_cli.cli.options import JsonOption

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Get corpora.")


@app.callback()
def group() -> None:
    """Get corpora."""


@app.command()
def sample(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other text.")] = 0,
    megabytes: Annotated[
        float, typer.Option(min=0.001, max=100_000, help="Size of the pre-training corpus.")
    ] = 20.0,
    train: Annotated[int, typer.Option(min=1, help="Training pairs.")] = 5000,
    validation: Annotated[int, typer.Option(min=1, help="Validation pairs.")] = 500,
    test: Annotated[int, typer.Option(min=1, help="Test pairs.")] = 500,
    as_json: JsonOption = False,
) -> None:
    """Write the embedded sample, offline and the same every time.

    A corpus for pre-training in OUT/pretrain and pairs of article and summary in
    OUT/summarization: news of an invented world.

    [bold]bart download sample --out data/sample[/bold]
    """
    from dataclasses import asdict

    from bart_cli.data.download.sample import write_sample

    report = write_sample(
        out_folder,
        seed=seed,
        megabytes=megabytes,
        train=train,
        validation=validation,
        test=test,
        reporter=make_reporter(),
    )
    if as_json:
        print_json(asdict(report))
        return
    pairs = ", ".join(f"{count:,} {split}" for split, count in report.pairs.items())
    out.print(
        f"{report.documents:,} documents ({report.bytes / 1e6:.1f} MB) in {out_folder}/pretrain; "
        f"pairs in {out_folder}/summarization: {pairs}",
        soft_wrap=True,
    )

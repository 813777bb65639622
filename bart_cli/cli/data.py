"""`bart data`: inspect corpora, pairs and shards."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from bart_cli.cli.console import out, print_json, say
from bart_cli.cli.options import (
    ConfigOptions,
    JsonOption,
    SourceFieldOption,
    TargetFieldOption,
    option,
    option_groups,
    setting,
)
from bart_cli.config.data import DenoisingConfig
from bart_cli.config.run import PretrainConfig
from bart_cli.data.fields import Fields
from bart_cli.data.inspect import (
    Piece,
    SourceSummary,
    find_shard_folders,
    has_shards,
    noised_examples,
    summarize_shards,
    summarize_source,
)
from bart_cli.data.shards import find_tokenizer
from bart_cli.progress import printable

app = typer.Typer(no_args_is_help=True, help="Inspect corpora, pairs and shards.")

COLORS = ("green", "cyan", "yellow", "magenta", "blue")


@app.command()
@option_groups
def inspect(
    path: Annotated[
        Path, typer.Argument(help="Shards, raw text or pairs: a file or folder.", metavar="PATH")
    ],
    samples: Annotated[int, option("Samples to show per folder.", min=0)] = 2,
    seed: Annotated[int, option("Seed for the choice of samples.", min=0, max=2**63 - 1)] = 0,
    tokenizer: Annotated[
        str | None, option("Tokenizer folder or hub id. Default: the one saved with the shards.")
    ] = None,
    settings: ConfigOptions = ConfigOptions(),
    schemes: Annotated[
        str | None, setting(DenoisingConfig, "schemes", metavar="NAME,NAME…")
    ] = None,
    mask_ratio: Annotated[float | None, setting(DenoisingConfig, "mask_ratio")] = None,
    poisson_lambda: Annotated[float | None, setting(DenoisingConfig, "poisson_lambda")] = None,
    source_field: SourceFieldOption = None,
    target_field: TargetFieldOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show statistics and some samples of shards, raw text or pairs.

    Samples of shards are shown next to their noised form, with the noise of a preset or with the
    given settings.

    Colors distinguish sentences. In the original, masked and deleted tokens are struck through. In
    the noised form, masks and random tokens are red.

    [bold]bart data inspect shards[/bold]

    [bold]bart data inspect shards --schemes rotate,delete --set denoising.mask_ratio=0.15[/bold]
    """
    if path.exists() and not has_shards(path):
        fields = Fields(source_field, target_field)
        _show_source(summarize_source(path, count=samples, fields=fields), as_json)
        return
    options: dict[str, object] = {"mask_ratio": mask_ratio, "poisson_lambda": poisson_lambda}
    options["schemes"] = None if schemes is None else schemes.split(",")
    options = {f"denoising.{name}": value for name, value in options.items()}
    denoising = settings.load(PretrainConfig, options).denoising
    documents = []
    for folder in find_shard_folders(path):
        words = find_tokenizer(folder, tokenizer, "Pass one with --tokenizer.")
        summary = summarize_shards(folder, words)
        examples = noised_examples(folder, words, denoising, count=samples, seed=seed)
        if as_json:
            document = asdict(summary) | {"denoising": denoising.model_dump(mode="json")}
            documents.append(document | {"examples": [asdict(e) for e in examples]})
            continue
        say(str(folder), "bold")
        say(
            f"{summary.samples:,} samples in {summary.shards:,} shards of {summary.smallest:,} - "
            f"{summary.largest:,}; {summary.mean_tokens:.1f} tokens per sample, at most "
            f"{summary.longest:,}; columns {', '.join(summary.columns)}"
        )
        if summary.corpora:
            mixture = ", ".join(
                f"{c['name']} {c['share']:.1%} (weight {c['weight']:g}, {c['tokens']:,} tokens)"
                for c in summary.corpora
            )
            say(f"corpora: {mixture}")
        if examples:
            noised = f"noised: {', '.join(denoising.schemes)}"
            table = Table("sample", "original", noised, expand=True, show_lines=True)
            for example in examples:
                name = f"{example.shard}\nrow {example.row:,}"
                table.add_row(name, _text(example.original), _text(example.noised))
            out.print(table)
    if as_json:
        print_json(documents)


def _show_source(found: list[SourceSummary], as_json: bool) -> None:
    """Print how raw text or pairs are interpreted, and some examples."""
    if as_json:
        print_json([asdict(summary) for summary in found])
        return
    for summary in found:
        skipped = ", ".join(f"{count:,} {kind}" for kind, count in summary.not_read.items())
        unit = "pairs" if summary.kind == "pairs" else "documents"
        files = "1 file" if summary.files == 1 else f"{summary.files:,} files"
        say(
            f"{summary.path}: {summary.kind}, {summary.form}; {summary.count:,} {unit} in {files}"
            + (f"; skipped: {skipped}" if skipped else "")
        )
        for example in summary.examples:
            for side in example:
                say(f"  {side[:300]}")


def _text(pieces: tuple[Piece, ...]) -> Text:
    text = Text()
    for piece in pieces:
        style = "bold red"
        if piece.sentence is not None:
            style = COLORS[piece.sentence % len(COLORS)] + " strike" * piece.hidden
        text.append(printable(piece.text), style)
    return text

"""`bart export`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bart_cli.cli.console import ConsoleReporter, print_json, say
from bart_cli.cli.options import CheckpointOption, JsonOption, keys, option, option_groups, setting
from bart_cli.config.commands import ExportConfig
from bart_cli.config.presets import load_config
from bart_cli.errors import UsageError

if TYPE_CHECKING:
    from bart_cli.export.contents import Comparison


@dataclass(frozen=True)
class ExportOptions:
    """What to write, and where to push it."""

    form: Annotated[str | None, setting(ExportConfig, "format", "--format")] = None
    dtype: Annotated[str | None, setting(ExportConfig, "dtype")] = None
    tokenizer: Annotated[str | None, setting(ExportConfig, "tokenizer", metavar="NAME")] = None
    checkpoint: CheckpointOption = None
    average: Annotated[int | None, setting(ExportConfig, "average", metavar="N")] = None
    push: Annotated[str | None, setting(ExportConfig, "push", metavar="USER/NAME")] = None
    private: Annotated[bool, setting(ExportConfig, "private", "--private")] = False


@option_groups
def command(
    model: Annotated[
        str,
        typer.Argument(
            help="Run, model folder, hub id, `.ckpt` or fairseq `model.pt`.", metavar="MODEL"
        ),
    ],
    out_folder: Annotated[Path, option("Output folder; must be new or empty.", "--out")],
    options: ExportOptions = ExportOptions(),
    as_json: JsonOption = False,
) -> None:
    """Export a model: weights, configuration, tokenizer, decoding settings and a model card.

    The result is verified before it gets its final name: transformers, if installed, CTranslate2 or
    ONNX Runtime must reproduce bart's results; a reference checkpoint is read back.

    The model card, README.md, lists data, settings and the scores of `bart evaluate` with their
    intervals. --push uploads the folder with the token in HF_TOKEN or of `hf auth login`. Rerun the
    command to repeat a failed upload; a card that you have edited is kept.

    [bold]bart export runs/finetune --out exports/news-summarizer --dtype bf16[/bold]

    [bold]bart export runs/finetune --out exports/news-summarizer --push me/news-summarizer[/bold]
    """
    from bart_cli.export.write import export_model
    from bart_cli.model.formats import resolve_model

    config = load_config(ExportConfig, options=keys(options))
    if options.checkpoint is not None:
        if config.average > 1:
            raise UsageError("--checkpoint and --average cannot be combined")
        model = str(resolve_model(model, options.checkpoint))
    done = export_model(model, out_folder, config, ConsoleReporter())
    if as_json:
        print_json(asdict(done))
        return
    say(
        f"{done.parameters / 1e6:,.1f} million parameters, {done.dtype}, {done.layout} layout, "
        f"{done.size / 1e6:,.1f} MB: {done.out}"
    )
    say(_verified(done.comparison))
    plural = "" if done.evaluations == 1 else "s"
    scores = f"with the scores of {done.evaluations} evaluation{plural}"
    say(f"model card: {done.out / 'README.md'} ({scores if done.evaluations else 'no scores'})")
    if done.pushed is not None:
        seen = "private" if done.pushed.private else "public"
        say(f"pushed to {done.pushed.url} ({seen}), commit {done.pushed.commit[:7]}")


def _verified(found: Comparison | None) -> str:
    if found is None:
        return "not verified: transformers is not installed"
    if found.equal is None:
        return f"verified with {found.reader}: logits differ by at most {found.difference:.1g}"
    return (
        f"verified with {found.reader} on {found.articles}: {found.equal} of {found.sequences} "
        "greedy summaries have equal tokens; log probabilities differ by at most "
        f"{found.difference:.1g}"
    )

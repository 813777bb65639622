"""`bart pretrain`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bart_cli.cli.console import make_reporter, print_json
from bart_cli.cli.groups import option_groups
from bart_cli.cli.options import ConfigOptions, JsonOption, field_help
from bart_cli.cli.training import TrainingOptions, show_result, start_workers, without_options
from bart_cli.config.data import PretrainDataConfig
from bart_cli.config.presets import preset_config
from bart_cli.config.run import PretrainConfig
from bart_cli.errors import UsageError


@option_groups
def command(
    settings: ConfigOptions = ConfigOptions(),
    phases: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET,PRESET…",
            help="Presets to run one after the other, each from the weights of the one before.",
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help=field_help(PretrainDataConfig, "path"))] = None,
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", help="Run folder (of --phases: with one each); default runs/…"),
    ] = None,
    init_from: Annotated[
        str | None, typer.Option(help=field_help(PretrainConfig, "init_from"))
    ] = None,
    training: TrainingOptions = TrainingOptions(),
    as_json: JsonOption = False,
) -> None:
    """Pre-train BART on shards of `bart preprocess pretrain`.

    Sentences are permuted, spans of words masked; the model learns to restore the text. A run that
    was stopped goes on where it was when the same command is given again.

    [bold]bart pretrain --preset dgxa100-1node-phase1 --data shards --out runs/phase1[/bold]

    [bold]bart pretrain --phases dgxa100-1node-phase1,dgxa100-1node-phase2 --data shards[/bold]
    """
    if phases is not None:
        _run_phases(phases, settings.preset, out_folder, init_from)
        return
    config = configure(**locals())
    start_workers(training.processes, training.max_restarts)
    from bart_cli.training.pretrain import run_pretrain

    run = out_folder or settings.default_run("pretrain")
    result = run_pretrain(config, run, resume=training.resume, reporter=make_reporter())
    if not as_json:
        show_result(result)
    elif result.leads:
        print_json(asdict(result))


def configure(
    *,
    settings: ConfigOptions,
    training: TrainingOptions,
    data: Path | None,
    init_from: str | None,
    **_: object,
) -> PretrainConfig:
    """The configuration that these options ask for.

    Raises:
        UsageError: names the setting, its value, and what is allowed.
    """
    return settings.load(
        PretrainConfig, training.settings() | {"data.path": data, "init_from": init_from}
    )


def _run_phases(
    phases: str, preset: str | None, out_folder: Path | None, init_from: str | None
) -> None:
    """This command again for each preset: `--phases a,b` is `--preset a`, then `--preset b`."""
    from bart_cli.training.world import launched

    names = [name for name in phases.split(",") if name]
    if preset is not None or len(names) < 2:
        raise UsageError(f"--phases {phases}: give two presets or more here, and no --preset")
    if launched():
        raise UsageError("--phases starts runs itself: under srun or torchrun give one --preset")
    for name in names:
        preset_config(name)  # a wrong name is told before the first phase has run for days
    folder = out_folder or Path("runs") / "pretrain-phases"
    rest = without_options(sys.argv[1:], ("--phases", "--out", "--init-from"))
    start = init_from
    for name in names:
        run = folder / name
        weights = ["--init-from", str(start)] if start else []
        arguments = [*rest, "--preset", name, "--out", str(run), *weights]
        code = subprocess.call([sys.executable, "-m", "bart_cli", *arguments])
        if code or not (run / "done.json").is_file():
            raise typer.Exit(code)
        start = str(run)

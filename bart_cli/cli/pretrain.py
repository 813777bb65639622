"""`bart pretrain`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from bart_cli.cli.console import make_reporter
from bart_cli.cli.options import ConfigOption, JsonOption, PresetOption, SetOption, field_help
from bart_cli.cli.training import (
    GlobalBatchOption,
    LearningRateOption,
    MaxRestartsOption,
    MaxStepsOption,
    MicroBatchOption,
    PrecisionOption,
    ProcessesOption,
    ResumeOption,
    SeedOption,
    TimeLimitOption,
    WarmupOption,
    default_run,
    show_result,
    start_workers,
    training_options,
    without_options,
)
from bart_cli.config.data import PretrainDataConfig
from bart_cli.config.presets import preset_config
from bart_cli.config.run import PretrainConfig
from bart_cli.errors import UsageError


def command(
    preset: PresetOption = None,
    phases: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET,PRESET…",
            help="Presets to run one after the other, each from the weights of the one before.",
        ),
    ] = None,
    config_file: ConfigOption = None,
    data: Annotated[Path | None, typer.Option(help=field_help(PretrainDataConfig, "path"))] = None,
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", help="Run folder (of --phases: with one each); default runs/…"),
    ] = None,
    init_from: Annotated[
        str | None, typer.Option(help=field_help(PretrainConfig, "init_from"))
    ] = None,
    max_steps: MaxStepsOption = None,
    global_batch: GlobalBatchOption = None,
    micro_batch: MicroBatchOption = None,
    learning_rate: LearningRateOption = None,
    warmup_steps: WarmupOption = None,
    precision: PrecisionOption = None,
    seed: SeedOption = None,
    time_limit: TimeLimitOption = None,
    resume: ResumeOption = "auto",
    processes: ProcessesOption = None,
    max_restarts: MaxRestartsOption = 0,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pre-train BART on shards of `bart preprocess pretrain`.

    Sentences are permuted, spans of words masked; the model learns to restore the text. A run that
    was stopped goes on where it was when the same command is given again.

    [bold]bart pretrain --preset dgxa100-1node-phase1 --data shards --out runs/phase1[/bold]

    [bold]bart pretrain --phases dgxa100-1node-phase1,dgxa100-1node-phase2 --data shards[/bold]
    """
    if phases is not None:
        _run_phases(phases, preset, out_folder, init_from)
        return
    from bart_cli.config.presets import load_config

    options = training_options(
        max_steps,
        global_batch,
        micro_batch,
        learning_rate,
        warmup_steps,
        precision,
        seed,
        time_limit,
    )
    config = load_config(
        PretrainConfig,
        preset=preset,
        config_file=config_file,
        sets=sets or [],
        options=options | {"data.path": data, "init_from": init_from},
    )
    start_workers(processes, max_restarts)
    from bart_cli.training.pretrain import run_pretrain

    run = out_folder or default_run("pretrain", preset, config_file)
    show_result(run_pretrain(config, run, resume=resume, reporter=make_reporter()), as_json)


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

"""`bart pretrain`."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING, Annotated

import typer

from bart_cli.cli.app import VOICES
from bart_cli.cli.console import ConsoleReporter
from bart_cli.cli.options import ConfigOptions, JsonOption, keys, option, option_groups, setting
from bart_cli.cli.training import TrainingOptions, show_result, start_workers
from bart_cli.config.data import PretrainDataConfig
from bart_cli.config.run import PretrainConfig, save_config
from bart_cli.errors import UsageError

if TYPE_CHECKING:
    from bart_cli.training.run import RunResult


@option_groups
def command(
    settings: ConfigOptions = ConfigOptions(),
    phases: Annotated[
        str | None,
        option(
            "Presets to run in sequence, each starting from the weights of the previous one.",
            metavar="PRESET,PRESET…",
        ),
    ] = None,
    data: Annotated[Path | None, setting(PretrainDataConfig, "path")] = None,
    out_folder: Annotated[
        Path | None,
        option(
            "Run folder (with --phases: parent of one run folder per phase). Default: "
            "runs/pretrain-PRESET.",
            "--out",
        ),
    ] = None,
    init_from: Annotated[str | None, setting(PretrainConfig, "init_from")] = None,
    training: TrainingOptions = TrainingOptions(),
    as_json: JsonOption = False,
) -> None:
    """Pre-train BART on shards written by `bart preprocess pretrain`.

    The model learns to restore text in which sentences are permuted and spans of words masked.
    Rerun an interrupted command to resume it.

    [bold]bart pretrain --preset dgxa100-1node-phase1 --data shards --out runs/phase1[/bold]

    [bold]bart pretrain --phases dgxa100-1node-phase1,dgxa100-1node-phase2 --data shards[/bold]
    """
    if phases is not None:
        _run_phases(phases, out_folder, settings, training, data, init_from, as_json)
        return
    config = configure(**locals())
    start_workers(training.processes, training.max_restarts)
    _run(config, out_folder or settings.default_run("pretrain"), training, as_json)


def _run(config: PretrainConfig, run: Path, training: TrainingOptions, as_json: bool) -> RunResult:
    from bart_cli.training.pretrain import run_pretrain

    result = run_pretrain(
        config, run, resume=training.resume, dry_run=training.dry_run, reporter=ConsoleReporter()
    )
    show_result(result, as_json)
    return result


def configure(
    *,
    settings: ConfigOptions,
    training: TrainingOptions,
    data: Path | None,
    init_from: str | None,
    **_: object,
) -> PretrainConfig:
    options = keys(training) | {"data.path": data, "init_from": init_from}
    return settings.load(PretrainConfig, options)


def _run_phases(
    phases: str,
    out_folder: Path | None,
    settings: ConfigOptions,
    training: TrainingOptions,
    data: Path | None,
    init_from: str | None,
    as_json: bool,
) -> None:
    """Run this command for each preset: `--phases a,b` is `--preset a`, then `--preset b`."""
    from bart_cli.runtime.launch import launch, processes_to_start
    from bart_cli.runtime.signals import stopped
    from bart_cli.runtime.world import World, device_of, launched
    from bart_cli.training.pretrain import check_phases

    names = [name for name in phases.split(",") if name]
    if settings.preset is not None or len(names) < 2:
        raise UsageError(f"--phases {phases}: expected two or more presets, and no --preset")
    if len(set(names)) < len(names):
        raise UsageError(f"--phases {phases}: a preset is listed twice")
    if launched():
        raise UsageError(
            "--phases starts its own processes; under srun or torchrun pass one --preset"
        )
    if training.resume not in ("auto", "none"):
        raise UsageError(
            f"--resume {training.resume} cannot be combined with --phases: each phase is a run",
            hint="Pass it with the --preset and --out of its phase.",
        )
    count = processes_to_start(training.processes, training.max_restarts)
    folder = out_folder or Path("runs") / "pretrain-phases"
    runs: dict[Path, PretrainConfig] = {}
    for name in names:
        phase = replace(settings, preset=name)
        config = configure(settings=phase, training=training, data=data, init_from=init_from)
        if runs:  # set after loading: `--set model.…` applies to the first phase, and conflicts
            config = config.model_copy(update={"init_from": str(next(reversed(runs)))})
        runs[folder / name] = config
        init_from = None
    size = max(1, count)
    check_phases(runs, World(0, size, device_of(0, size)))
    words = [*(word for word in sys.argv if word in VOICES), *(["--json"] if as_json else [])]
    words += ["--dry-run"] if training.dry_run else []
    first = next(iter(runs.values())).init_from
    for run, config in runs.items():
        if training.dry_run and not Path(config.init_from or "", "model").is_dir():
            # The previous phase has no weights yet: measure with others of the same architecture.
            config = config.model_copy(update={"init_from": first})
        signals: list[int] = []
        if not count:
            result = _run(config, run, training, as_json)
            finished = result.model is not None
            signals += [] if result.signal is None else [result.signal]
        else:
            with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
                save_config(config, Path(file.name))
                command = ["pretrain", "--config", file.name, "--out", str(run), *words]
                command += ["--resume", training.resume]
                code = launch(command, count, training.max_restarts, signals)
            if code:
                raise typer.Exit(code)
            finished = (run / "done.json").is_file()
        if finished and signals and run.name != names[-1]:
            raise stopped(Signals(signals[-1]).name, f" after {run.name}")
        if signals or not (finished or training.dry_run):
            return

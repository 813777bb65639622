"""`bart sweep`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from bart_cli.cli.console import ConsoleReporter, print_json, print_table
from bart_cli.cli.finetune import require_scores, saved_settings
from bart_cli.cli.generation import load_with_model
from bart_cli.cli.options import ConfigOptions, JsonOption, option, option_groups
from bart_cli.config.run import FinetuneConfig, PretrainConfig
from bart_cli.errors import UsageError


@option_groups
def command(
    settings: ConfigOptions = ConfigOptions(),
    grid: Annotated[
        list[str] | None,
        option(
            "Setting and the values to try; repeatable, to train every combination.",
            metavar="KEY=VALUE,VALUE…",
        ),
    ] = None,
    seeds: Annotated[int, option("Runs of each combination, with consecutive seeds.", min=1)] = 1,
    data: Annotated[Path | None, option("Shards or pairs, as for pretrain or finetune.")] = None,
    init_from: Annotated[
        str | None, option("Run, model folder or hub id with the initial weights.")
    ] = None,
    out_folder: Annotated[
        Path | None, option("Folder of the runs. Default: runs/sweep-PRESET.", "--out")
    ] = None,
    evaluate: Annotated[
        bool, option("After fine-tuning, score the test split, if there is one.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Train every combination of some settings and compare the results.

    The task of the preset determines whether to pre-train or to fine-tune. Runs are executed one
    after another, in separate folders below --out. The table shows mean ± standard deviation over
    the seeds. A failed run is reported, and the sweep continues. Rerun an interrupted sweep to
    resume it.

    [bold]bart sweep --preset tiny-cpu --data shards --grid optimizer.learning_rate=1e-3,3e-3
    --seeds 3[/bold]

    [bold]bart sweep --preset tiny-cpu --data shards
    --grid 'denoising.schemes=[mask],[permute,infill]'[/bold]
    """
    from bart_cli.training.run import RunResult
    from bart_cli.training.sweep import (
        Trial,
        check_trial,
        parse_grid,
        require_own_folder,
        run_sweep,
        train_trial,
        trials_of,
    )

    kind = _kind(settings)
    values = parse_grid(grid or [])
    if not values and seeds == 1:
        raise UsageError("nothing to compare", hint="Pass --grid KEY=VALUE,VALUE or --seeds 3.")
    if "training.seed" in values:
        raise UsageError("--grid does not accept training.seed", hint="Pass --seeds N.")
    out = out_folder or Path("runs") / f"sweep-{settings.name}"
    options = {"data.path": data, "init_from": init_from}
    given = {text.partition("=")[0].strip(): f"--set {text}" for text in settings.sets or []}
    given |= {"data.path": f"--data {data}"} if data else {}
    given |= {"init_from": f"--init-from {init_from}"} if init_from else {}
    if twice := given.keys() & values.keys():
        key = min(twice)
        raise UsageError(f"--grid {key}: {given[key]} sets it as well", hint="Drop one of them.")

    def configure(trial: Trial | None) -> PretrainConfig | FinetuneConfig:
        own = replace(settings, sets=[*(settings.sets or []), *(trial.sets if trial else [])])
        if kind is PretrainConfig:
            return own.load(PretrainConfig, options)
        run = out / trial.name if trial else out
        config, _ = load_with_model(
            own, FinetuneConfig, options, lambda found: saved_settings(run, found.init_from)
        )
        return config

    first = configure(None).training.seed
    trials = trials_of(values, range(first, first + seeds))
    configs = {trial: configure(trial) for trial in trials}  # checks all before training any
    same: dict[str, Trial] = {}
    for trial, config in configs.items():
        other = same.setdefault(config.model_dump_json(), trial)
        if other is not trial:
            raise UsageError(f"--grid: {trial.name} is the same as {other.name}")
    for trial, config in configs.items():
        if isinstance(config, FinetuneConfig):
            require_scores(config, evaluate)
        check_trial(config, out / trial.name)
    require_own_folder(out, trials)
    reporter = ConsoleReporter()

    def train(trial: Trial, run: Path) -> RunResult:
        return train_trial(configs[trial], run, evaluate=evaluate, reporter=reporter)

    rows = run_sweep(trials, train, out, reporter)
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        names = list(dict.fromkeys(name for row in rows for name in row.numbers))
        table = []
        for row in rows:
            cells = [_cell(name, row.numbers.get(name)) for name in names]
            table.append([*row.settings.values(), f"{len(row.runs)}/{seeds}", *cells])
        head = [*(key.rpartition(".")[2] for key in values), "runs", *names]
        print_table(f"Sweep in {out}: mean ± standard deviation over seeds", head, table)
    if any(row.failures for row in rows):
        raise typer.Exit(1)


def _kind(settings: ConfigOptions) -> type[PretrainConfig] | type[FinetuneConfig]:
    if settings.preset is None and settings.config_file is None:
        raise UsageError("no settings", hint="Pass --preset NAME or --config FILE.")
    task = settings.task()
    if task == "pretrain":
        return PretrainConfig
    if task == "finetune":
        return FinetuneConfig
    raise UsageError(
        f"{settings.name} is not a preset for pre-training or fine-tuning",
        hint="Choose one with the task pretrain or finetune from `bart presets list`.",
    )


def _cell(name: str, found: object) -> str:
    from bart_cli.training.sweep import Spread

    if not isinstance(found, Spread):
        return "-"
    digits = 4 if "loss" in name else 2 if name.startswith("rouge") else 0
    deviation = "" if found.deviation is None else f" ± {found.deviation:,.{digits}f}"
    return f"{found.mean:,.{digits}f}{deviation}"

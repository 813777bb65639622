"""`bart finetune`."""

from __future__ import annotations

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
    WarmupOption,
    default_run,
    show_result,
    start_workers,
    training_options,
)
from bart_cli.config.data import SummarizationDataConfig
from bart_cli.config.run import FinetuneConfig


def command(
    preset: PresetOption = None,
    config_file: ConfigOption = None,
    data: Annotated[
        Path | None, typer.Option(help=field_help(SummarizationDataConfig, "path"))
    ] = None,
    init_from: Annotated[
        str | None, typer.Option(help=field_help(FinetuneConfig, "init_from"))
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Run folder; default runs/finetune-PRESET.")
    ] = None,
    max_steps: MaxStepsOption = None,
    global_batch: GlobalBatchOption = None,
    micro_batch: MicroBatchOption = None,
    learning_rate: LearningRateOption = None,
    warmup_steps: WarmupOption = None,
    precision: PrecisionOption = None,
    seed: SeedOption = None,
    resume: ResumeOption = "auto",
    processes: ProcessesOption = None,
    max_restarts: MaxRestartsOption = 0,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a model on pairs of article and summary.

    Without --init-from the model starts from random weights. A run that was stopped goes on where
    it was when the same command is given again.

    [bold]bart finetune --preset cnn-dm-dgxa100-8gpu-bf16 --init-from runs/phase2 --data
    data/cnn_dm[/bold]
    """
    from bart_cli.config.presets import load_config

    options = training_options(
        max_steps, global_batch, micro_batch, learning_rate, warmup_steps, precision, seed
    )
    config = load_config(
        FinetuneConfig,
        preset=preset,
        config_file=config_file,
        sets=sets or [],
        options=options | {"data.path": data, "init_from": init_from},
    )
    start_workers(processes, max_restarts)
    from bart_cli.training.finetune import run_finetune

    run = out_folder or default_run("finetune", preset, config_file)
    show_result(run_finetune(config, run, resume=resume, reporter=make_reporter()), as_json)

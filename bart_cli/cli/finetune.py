"""`bart finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bart_cli.cli.console import make_reporter
from bart_cli.cli.evaluate import show_scores
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
)
from bart_cli.config.data import SummarizationDataConfig
from bart_cli.config.run import FinetuneConfig
from bart_cli.errors import UsageError


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
    time_limit: TimeLimitOption = None,
    max_tokens: Annotated[
        int | None, typer.Option(help=field_help(SummarizationDataConfig, "max_tokens"))
    ] = None,
    keep_encoder_layers: Annotated[
        str | None,
        typer.Option(metavar="0,2,4…", help=field_help(FinetuneConfig, "keep_encoder_layers")),
    ] = None,
    keep_decoder_layers: Annotated[
        str | None,
        typer.Option(metavar="0,2,4…", help=field_help(FinetuneConfig, "keep_decoder_layers")),
    ] = None,
    evaluate: Annotated[
        bool, typer.Option(help="Score the test split at the end, when there is one.")
    ] = True,
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
        FinetuneConfig,
        preset=preset,
        config_file=config_file,
        sets=sets or [],
        options=options
        | {
            "data.path": data,
            "data.max_tokens": max_tokens,
            "init_from": init_from,
            "keep_encoder_layers": _layers("--keep-encoder-layers", keep_encoder_layers),
            "keep_decoder_layers": _layers("--keep-decoder-layers", keep_decoder_layers),
        },
    )
    start_workers(processes, max_restarts)
    from bart_cli.data.pairs import find_split
    from bart_cli.evaluation.evaluate import evaluation_of, run_evaluate
    from bart_cli.training.finetune import run_finetune
    from bart_cli.training.world import join_world

    run = out_folder or default_run("finetune", preset, config_file)
    reporter = make_reporter()
    scores = None
    with join_world():  # once: training and evaluation are of the same processes
        result = run_finetune(config, run, resume=resume, reporter=reporter)
        show_result(result, as_json)
        assert config.data.path is not None
        has_test = config.data.path.is_dir() and find_split(config.data.path, "test") is not None
        if evaluate and has_test and result.model is not None:
            settings = evaluation_of(config, run)
            scores = run_evaluate(settings, run / "final-evaluation", reporter=reporter)
    if scores is not None and not as_json:
        show_scores(scores, run / "final-evaluation")


def _layers(option: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} {text}: expected numbers of layers, as in 0,2,4") from None

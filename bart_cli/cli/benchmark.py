"""`bart benchmark`: measure the speed of training, decoding and data loading."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bart_cli.cli.console import ConsoleReporter, print_json, print_table, say
from bart_cli.cli.generation import BeamsOption, MaxLengthOption
from bart_cli.cli.options import (
    JsonOption,
    SetOption,
    complete_preset,
    keys,
    numbers,
    option,
    option_groups,
    setting,
    words,
)
from bart_cli.config.commands import BenchmarkConfig
from bart_cli.config.presets import load_config

if TYPE_CHECKING:
    from bart_cli.benchmark.cases import Sweep
    from bart_cli.benchmark.run import Report
    from bart_cli.benchmark.session import Group

app = typer.Typer(no_args_is_help=True, help="Measure speed: training, decoding, data.")

CPU_SECONDS, GPU_SECONDS = 5.0, 20.0  # default time to measure a row


@dataclass(frozen=True)
class MeasuringOptions:
    """Number and duration of measurements, and output of the results."""

    repeats: Annotated[int | None, setting(BenchmarkConfig, "repeats")] = None
    seconds: Annotated[float | None, setting(BenchmarkConfig, "seconds")] = None
    warm_up: Annotated[int | None, setting(BenchmarkConfig, "warm_up", "--warmup")] = None
    seed: Annotated[int | None, setting(BenchmarkConfig, "seed")] = None
    out_folder: Annotated[
        Path | None, option("Output folder. Default: runs/benchmark-….", "--out")
    ] = None
    as_json: JsonOption = False

    def config(self, **more: object) -> BenchmarkConfig:
        """Build the settings from these options and `more`; None means not given."""
        import torch

        options = keys(self) | more
        if self.seconds is None:
            options["seconds"] = GPU_SECONDS if torch.cuda.is_available() else CPU_SECONDS
        return load_config(BenchmarkConfig, options=options)


@dataclass(frozen=True)
class SweepOptions:
    """The configurations to compare."""

    batch_sizes: Annotated[
        str | None, option("Sequences per device.", "--batch-size", metavar="N,N…")
    ] = None
    precisions: Annotated[
        str | None, option("fp32, tf32, bf16, fp16 or int8.", "--precision", metavar="NAME,NAME…")
    ] = None
    processes: Annotated[
        str | None,
        option(
            "Number of processes (GPUs), or several to compare.",
            "--processes",
            "--gpus",
            metavar="N,N…",
        ),
    ] = None
    lengths: Annotated[str | None, setting(BenchmarkConfig, "lengths")] = None
    compare: Annotated[str | None, setting(BenchmarkConfig, "compare")] = None
    profile: Annotated[bool, setting(BenchmarkConfig, "profile", "--profile")] = False
    sets: SetOption = None

    def sweep(self) -> Sweep:
        from bart_cli.benchmark.cases import Sweep

        return Sweep(
            sets=self.sets or [],
            batch_sizes=numbers("--batch-size", self.batch_sizes),
            precisions=words(self.precisions),
            processes=numbers("--processes", self.processes),
        )


@app.command()
@option_groups
def train(
    presets: Annotated[
        list[str] | None,
        option(
            "Preset to measure; repeatable. Default: the presets of the reference on a GPU, "
            "tiny-cpu on a CPU.",
            "--preset",
            autocompletion=complete_preset,
        ),
    ] = None,
    data: Annotated[Path | None, option("Shards or pairs. Default: random tokens.")] = None,
    accumulation: Annotated[int | None, setting(BenchmarkConfig, "accumulation")] = None,
    sweep: SweepOptions = SweepOptions(),
    measuring: MeasuringOptions = MeasuringOptions(),
) -> None:
    """Measure training: throughput, speed-up by precision, weak scaling, memory, MFU.

    Runs steps of the training loop on random tokens with realistic lengths, or on a data set. Each
    number of processes and each precision is measured in separate processes.

    [bold]bart benchmark train --preset xsum-dgxa100-8gpu-bf16 --preset xsum-dgxa100-8gpu-tf32
    --gpus 1,8[/bold]
    """
    from bart_cli.benchmark.cases import plan_training

    groups = plan_training(
        [name for text in presets or [] for name in text.split(",")],
        sweep.sweep(),
        benchmark=measuring.config(accumulation=accumulation, **keys(sweep)),
        data=data,
    )
    _run(groups, "Training", Path("runs/benchmark-train"), measuring)


@app.command()
@option_groups
def inference(
    preset: Annotated[
        str | None,
        option(
            "Preset to measure. Default: xsum-dgxa100-1gpu-bf16 on a GPU, tiny-cpu on a CPU.",
            autocompletion=complete_preset,
        ),
    ] = None,
    model: Annotated[
        str | None,
        option("Run, model folder or hub id. Default: the preset's model with random weights."),
    ] = None,
    data: Annotated[Path | None, option("Pairs with a test split. Default: random tokens.")] = None,
    source_length: Annotated[int | None, option("Maximum tokens per article.", min=8)] = None,
    beams: BeamsOption = None,
    max_length: MaxLengthOption = None,
    sweep: SweepOptions = SweepOptions(),
    measuring: MeasuringOptions = MeasuringOptions(),
) -> None:
    """Measure decoding: latency and throughput by batch size, memory, MFU.

    With random weights, every summary has the full length, which makes results comparable.

    [bold]bart benchmark inference --batch-size 1,8,32 --precision bf16 --compare
    transformers[/bold]
    """
    from bart_cli.benchmark.cases import plan_decoding

    groups = plan_decoding(
        preset,
        sweep.sweep(),
        benchmark=measuring.config(**keys(sweep)),
        model=model,
        data=data,
        source_length=source_length,
        options={"generation.beams": beams, "generation.max_length": max_length},
    )
    _run(groups, "Inference", Path("runs/benchmark-inference"), measuring)


@app.command("data")
@option_groups
def data_stages(
    corpus: Annotated[
        Path | None,
        option("Corpus: one document per line, id first. Default: the built-in sample.", "--input"),
    ] = None,
    pairs: Annotated[
        Path | None, option("Pairs. Default: those of the built-in sample.", "--data")
    ] = None,
    tokenizer: Annotated[
        str | None,
        option(
            "Tokenizer folder or hub id. Default: one with 2,500 entries, trained on the corpus."
        ),
    ] = None,
    target_length: Annotated[int, option("Tokens per sample.", min=8)] = 128,
    batch_size: Annotated[int, option("Samples per batch.", min=1)] = 64,
    workers: Annotated[
        str | None,
        option(
            "Number of processes, or several to compare. Default: 1, 2 and all cores.",
            "--workers",
            "--processes",
            metavar="N,N…",
        ),
    ] = None,
    measuring: MeasuringOptions = MeasuringOptions(),
) -> None:
    """Measure preprocessing, denoising and data loading.

    [bold]bart benchmark data --workers 1,2,4,8[/bold]
    """
    from bart_cli.benchmark.data_load import run_data_benchmark

    report = run_data_benchmark(
        measuring.out_folder or Path("runs/benchmark-data"),
        corpus=corpus,
        pairs=pairs,
        tokenizer=tokenizer,
        length=target_length,
        batch=batch_size,
        workers=numbers("--workers", workers),
        benchmark=measuring.config(),
        command=_command(),
        reporter=ConsoleReporter(),
    )
    _show(report, measuring.as_json)


def _run(groups: Sequence[Group], title: str, default: Path, measuring: MeasuringOptions) -> None:
    from bart_cli.benchmark.run import run_benchmark

    out, reporter = measuring.out_folder or default, ConsoleReporter()
    report = run_benchmark(groups, out, title, command=_command(), reporter=reporter)
    _show(report, measuring.as_json)


def _command() -> str:
    return shlex.join(["bart", *sys.argv[1:]])


def _show(report: Report, as_json: bool) -> None:
    if not report.is_main:
        return
    if as_json:
        print_json([row.summary() for row in report.rows])
    else:
        for table in report.tables:
            print_table(table.title, table.header, table.rows)
        say(
            f"measurements in {report.out}/results.jsonl, tables in {report.out}/results.md, "
            f"plot in {report.out}/results.png"
        )
    if report.interrupted:
        raise KeyboardInterrupt

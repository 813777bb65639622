"""`bart benchmark`: speed of training, decoding and data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bart_cli.cli.console import make_reporter, out, print_json, print_table
from bart_cli.cli.generation import BeamsOption, MaxLengthOption
from bart_cli.cli.options import JsonOption, SetOption, complete_preset, field_help, numbers
from bart_cli.config.benchmark import BenchmarkConfig

if TYPE_CHECKING:
    from bart_cli.benchmark.run import Report

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Measure speed: training, decoding, data."
)

CPU_SECONDS, GPU_SECONDS = 5.0, 20.0  # of measuring a row, when the user does not say

OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder of the results; default runs/benchmark-….")
]
BatchSizesOption = Annotated[
    str | None, typer.Option("--batch-size", metavar="N,N…", help="Sequences per device and run.")
]
PrecisionsOption = Annotated[
    str | None,
    typer.Option("--precision", metavar="NAME,NAME…", help="fp32, tf32, bf16, fp16 or int8."),
]
ProcessesOption = Annotated[
    str | None,
    typer.Option(
        "--processes", "--gpus", metavar="N,N…", help="Processes (GPUs); an arm for each number."
    ),
]
RepeatsOption = Annotated[int | None, typer.Option(help=field_help(BenchmarkConfig, "repeats"))]
SecondsOption = Annotated[
    float | None, typer.Option(help="Of measuring, after which a row with 3 measurements ends.")
]
WarmUpOption = Annotated[
    int | None, typer.Option("--warmup", help=field_help(BenchmarkConfig, "warm_up"))
]
LengthsOption = Annotated[
    str | None, typer.Option(metavar="real|full", help=field_help(BenchmarkConfig, "lengths"))
]
CompareOption = Annotated[
    str | None, typer.Option(metavar="transformers", help=field_help(BenchmarkConfig, "compare"))
]
ProfileOption = Annotated[
    bool, typer.Option("--profile", help=field_help(BenchmarkConfig, "profile"))
]
SeedOption = Annotated[int | None, typer.Option(help=field_help(BenchmarkConfig, "seed"))]


@app.command()
def train(
    presets: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            help="Model, lengths, batch, precision and optimizer; may be given many times. "
            "Default: the reference's runs on a GPU, tiny-cpu on a CPU.",
            autocompletion=complete_preset,
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Shards or pairs; default: random tokens.")
    ] = None,
    batch_sizes: BatchSizesOption = None,
    precisions: PrecisionsOption = None,
    processes: ProcessesOption = None,
    accumulation: Annotated[
        int | None, typer.Option(help=field_help(BenchmarkConfig, "accumulation"))
    ] = None,
    lengths: LengthsOption = None,
    repeats: RepeatsOption = None,
    seconds: SecondsOption = None,
    warm_up: WarmUpOption = None,
    compare: CompareOption = None,
    profile: ProfileOption = False,
    seed: SeedOption = None,
    out_folder: OutOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Optimizer steps: throughput, speed-up by precision, weak scaling, memory, MFU.

    Steps of the real training loop, on random tokens of real lengths or on a data set. Every
    number of processes and precision has processes of its own.

    [bold]bart benchmark train --preset xsum-dgxa100-8gpu-bf16 --preset xsum-dgxa100-8gpu-tf32
    --gpus 1,8[/bold]
    """
    from bart_cli.benchmark.plan import plan_training
    from bart_cli.benchmark.run import run_training_benchmark

    settings = _settings(repeats, seconds, warm_up, lengths, compare, profile, seed, accumulation)
    groups = plan_training(
        [name for text in presets or [] for name in text.split(",")],
        benchmark=settings,
        sets=sets or [],
        data=data,
        batch_sizes=numbers("--batch-size", batch_sizes),
        precisions=_words(precisions),
        processes=numbers("--processes", processes),
    )
    report = run_training_benchmark(
        groups,
        out_folder or Path("runs/benchmark-train"),
        command=_command(),
        reporter=make_reporter(),
    )
    _show(report, as_json)


@app.command()
def inference(
    preset: Annotated[
        str | None,
        typer.Option(
            help="Model, lengths, decoding and precision. Default: xsum-dgxa100-1gpu-bf16 on a "
            "GPU, tiny-cpu on a CPU.",
            autocompletion=complete_preset,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Run, model folder or hub id; default: random weights of the preset."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Pairs with a test split; default: random tokens.")
    ] = None,
    batch_sizes: BatchSizesOption = None,
    precisions: PrecisionsOption = None,
    processes: ProcessesOption = None,
    source_length: Annotated[
        int | None, typer.Option(min=8, help="Tokens of an article at most.")
    ] = None,
    beams: BeamsOption = None,
    max_length: MaxLengthOption = None,
    lengths: LengthsOption = None,
    repeats: RepeatsOption = None,
    seconds: SecondsOption = None,
    warm_up: WarmUpOption = None,
    compare: CompareOption = None,
    profile: ProfileOption = False,
    seed: SeedOption = None,
    out_folder: OutOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decoding: latency and throughput by batch size, memory, MFU.

    With random weights every summary has the full length, so that the work is always the same.

    [bold]bart benchmark inference --batch-size 1,8,32 --precision bf16 --compare
    transformers[/bold]
    """
    from bart_cli.benchmark.plan import plan_decoding
    from bart_cli.benchmark.run import run_decoding_benchmark

    changes = {"beams": beams, "max_length": max_length}
    groups = plan_decoding(
        preset,
        benchmark=_settings(repeats, seconds, warm_up, lengths, compare, profile, seed),
        sets=sets or [],
        model=model,
        data=data,
        source_length=source_length,
        generation={name: value for name, value in changes.items() if value is not None},
        batch_sizes=numbers("--batch-size", batch_sizes),
        precisions=_words(precisions),
        processes=numbers("--processes", processes),
    )
    report = run_decoding_benchmark(
        groups,
        out_folder or Path("runs/benchmark-inference"),
        command=_command(),
        reporter=make_reporter(),
    )
    _show(report, as_json)


@app.command("data")
def data_stages(
    corpus: Annotated[
        Path | None,
        typer.Option("--input", help="Corpus: one document a line, id first. Default: the sample."),
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option("--data", help="Pairs; default: those of the sample.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer folder or hub id; default: one of 2,500 entries.")
    ] = None,
    target_length: Annotated[int, typer.Option(min=8, help="Tokens of a sample.")] = 128,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples of a batch.")] = 64,
    workers: Annotated[
        str | None,
        typer.Option(
            "--workers",
            "--processes",
            metavar="N,N…",
            help="Processes; default 1, 2 and all cores.",
        ),
    ] = None,
    repeats: RepeatsOption = None,
    seconds: SecondsOption = None,
    warm_up: WarmUpOption = None,
    seed: SeedOption = None,
    out_folder: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Preprocessing, denoising and the loaders: how fast text becomes batches.

    [bold]bart benchmark data --workers 1,2,4,8[/bold]
    """
    from bart_cli.benchmark.run import run_data_benchmark

    report = run_data_benchmark(
        out_folder or Path("runs/benchmark-data"),
        corpus=corpus,
        pairs=pairs,
        tokenizer=tokenizer,
        length=target_length,
        batch=batch_size,
        workers=numbers("--workers", workers),
        benchmark=_settings(repeats, seconds, warm_up, None, None, False, seed),
        command=_command(),
        reporter=make_reporter(),
    )
    _show(report, as_json)


def _settings(
    repeats: int | None,
    seconds: float | None,
    warm_up: int | None,
    lengths: str | None,
    compare: str | None,
    profile: bool,
    seed: int | None,
    accumulation: int | None = None,
) -> BenchmarkConfig:
    import torch

    from bart_cli.config.presets import check_section

    if seconds is None:
        seconds = GPU_SECONDS if torch.cuda.is_available() else CPU_SECONDS
    values = {
        "repeats": repeats,
        "seconds": seconds,
        "warm_up": warm_up,
        "lengths": lengths,
        "compare": compare,
        "profile": profile,
        "seed": seed,
        "accumulation": accumulation,
    }
    given = {name: value for name, value in values.items() if value is not None}
    return check_section(BenchmarkConfig, given)


def _words(text: str | None) -> list[str]:
    words = [word.strip() for word in (text or "").split(",")]
    return [word for word in words if word]


def _command() -> str:
    return shlex.join(["bart", *sys.argv[1:]])


def _show(report: Report, as_json: bool) -> None:
    if not report.leads:
        return
    if as_json:
        print_json([row.summary() for row in report.rows])
    else:
        for table in report.tables:
            print_table(table.title, table.header, table.rows)
        out.print(
            f"measurements in {report.out}/results.jsonl, tables in {report.out}/results.md, "
            f"picture {report.out}/results.png",
            soft_wrap=True,
        )
    if report.interrupted:
        raise KeyboardInterrupt


@app.callback()
def group() -> None:
    """Measure speed: training, decoding, data."""

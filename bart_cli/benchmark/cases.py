"""Plan the cases of a benchmark from presets and options; defaults are the reference's sizes.

All settings are checked here, before anything runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch

from bart_cli.benchmark.loads import DecodingLoad, TrainingLoad
from bart_cli.benchmark.session import Case, Group
from bart_cli.config.commands import BenchmarkConfig
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.presets import load_config, load_preset
from bart_cli.config.run import EvaluateConfig, FinetuneConfig, PretrainConfig
from bart_cli.errors import UsageError
from bart_cli.inference.engine import int8_problem
from bart_cli.inference.load import DTYPES
from bart_cli.model.formats import saved_generation
from bart_cli.runtime.cores import usable_cores
from bart_cli.runtime.precision import problem_of
from bart_cli.runtime.world import launched
from bart_cli.training.optimizers import backend_problem

# Without a preset: the reference's tables on a GPU, or a model that trains in minutes on a CPU.
GPU_TRAINING = [f"dgxa100-1node-phase{phase}{tf32}" for phase in (1, 2) for tf32 in ("-tf32", "")]
GPU_DECODING = "xsum-dgxa100-1gpu-bf16"
GPU_BATCHES = (1, 4, 8, 16, 32, 64, 128)
CPU_PRESET = "tiny-cpu"
CPU_BATCHES = (1, 4, 8, 16)
CPU_PRECISIONS = ("fp32", "bf16")
DECODING = GenerationConfig(beams=6, length_penalty=1.0, max_length=62, no_repeat_ngram=3)
SOURCE_LENGTH = 1024  # for a preset that only describes a model


@dataclass(frozen=True)
class Sweep:
    """Values to vary (empty: defaults), and settings (`section.key=value`) for every case."""

    batch_sizes: Sequence[int] = ()
    precisions: Sequence[str] = ()
    processes: Sequence[int] = ()
    sets: Sequence[str] = ()


def plan_training(
    presets: Sequence[str], sweep: Sweep, *, benchmark: BenchmarkConfig, data: Path | None = None
) -> list[Group]:
    """Plan a group for each number of processes, preset and precision.

    Raises:
        UsageError: names every setting that cannot work here.
    """
    gpu, cases = torch.cuda.is_available(), []
    for count in _processes(sweep.processes):
        for preset in presets or (GPU_TRAINING if gpu else [CPU_PRESET]):
            own = [_training(preset, sweep).run.training.precision]
            usual = own if gpu or own[0] not in CPU_PRECISIONS else CPU_PRECISIONS
            for precision in sweep.precisions or usual:
                options = {"data.path": data, "training.precision": precision}
                load = _training(preset, sweep, options)
                sizes = ascending(sweep.batch_sizes or [load.run.training.micro_batch_size])
                cases.append(Case(load, sizes, benchmark, processes=count, precision=precision))
    return _groups(cases)


def plan_decoding(
    preset: str | None,
    sweep: Sweep,
    *,
    benchmark: BenchmarkConfig,
    model: str | None = None,
    data: Path | None = None,
    source_length: int | None = None,
    options: Mapping[str, object],
) -> list[Group]:
    """Plan a group for each number of processes and precision.

    Args:
        options: overrides of decoding settings by key. Without a named preset, the settings saved
            with `model` override those of the default preset.

    Raises:
        UsageError: names every setting that cannot work here.
    """
    gpu = torch.cuda.is_available()
    name = preset or (GPU_DECODING if gpu else CPU_PRESET)
    training = _training(name, sweep)
    run, length = training.run, training.length
    settings, usual = DECODING, "bf16" if gpu else "fp32"
    if isinstance(run, FinetuneConfig):
        settings, usual = run.generation, run.evaluation.precision
    if load_preset(name).get("task") == "model":
        length = SOURCE_LENGTH
    saved = saved_generation(model) if model and not preset else None
    layers = [(name, settings.model_dump()), *(saved.layers(stated_only=True) if saved else ())]
    settings = load_config(EvaluateConfig, options=options, saved=layers).generation
    positions = run.model.max_position_embeddings
    if settings.max_length > positions and model is None:
        raise UsageError(f"--max-length {settings.max_length}: the model has {positions} positions")
    length = min(source_length or length, positions)
    load = DecodingLoad("Inference", length, run.model, settings, model, data)
    sizes = ascending(sweep.batch_sizes or (GPU_BATCHES if gpu else CPU_BATCHES))
    cases = [
        Case(load, sizes, benchmark, processes=count, precision=precision)
        for count in _processes(sweep.processes or [1])
        for precision in sweep.precisions or [usual]
    ]
    return _groups(cases)


def _training(
    preset: str, sweep: Sweep, options: Mapping[str, object] | None = None
) -> TrainingLoad:
    """Plan the load of a preset."""
    if load_preset(preset).get("task") == "finetune":
        finetune = load_config(FinetuneConfig, preset=preset, sets=sweep.sets, options=options)
        return TrainingLoad("Fine-tuning", finetune.data.max_source_length, finetune)
    pretrain = load_config(PretrainConfig, preset=preset, sets=sweep.sets, options=options)
    return TrainingLoad("Pre-training", pretrain.data.sequence_length, pretrain)


def _processes(requested: Sequence[int]) -> Sequence[int]:
    """Return the numbers of processes: the launcher's, as requested, or 1 and all GPUs (CPU: 2)."""
    if launched():
        return [int(os.environ.get("WORLD_SIZE") or os.environ["SLURM_STEP_NUM_TASKS"])]
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and max(requested, default=0) > gpus:
        raise UsageError(f"--processes {max(requested)}: this machine has {gpus} GPUs")
    return ascending(requested or {1, gpus or min(2, usable_cores())})


def ascending(sizes: Iterable[int]) -> tuple[int, ...]:
    """Sort sizes, so that a row's peak memory is not that of a previous, larger row."""
    return tuple(sorted(set(sizes)))


def _groups(cases: Sequence[Case]) -> list[Group]:
    """Check all cases, and add the same case with transformers to each that is compared."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compare = cases[0].benchmark.compare == "transformers"
    problems: list[str | None] = []
    for case in cases:
        precision = case.precision
        if isinstance(case.load, DecodingLoad) and precision not in DTYPES:
            problems.append(f"precision={precision}: expected {', '.join(DTYPES)}")
        elif precision == "int8":
            problems.append(int8_problem(device))
        else:
            problems.append(problem_of(precision, device))  # type: ignore[arg-type]
        if compare and precision == "int8":
            problems.append("--compare transformers does not support int8; use fp32 or bf16")
        if isinstance(case.load, TrainingLoad):
            problems.append(backend_problem(case.load.run.optimizer))
    if compare and find_spec("transformers") is None:
        problems.append("--compare transformers: it is not installed")
    if found := dict.fromkeys(filter(None, problems)):
        text = "cannot start:\n  " + "\n  ".join(found)
        text = text.replace("training.precision=", "precision=")
        raise UsageError(text.replace("precision=", "--precision "))
    return [[case, replace(case, side="transformers")] if compare else [case] for case in cases]

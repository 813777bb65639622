"""From presets and options to arms, with the reference's sizes as defaults.

Everything that can be refused is refused here, before anything runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bart_cli.benchmark.spec import ArmSpec, DataSpec, DecodingSpec, TrainingSpec
from bart_cli.config.benchmark import BenchmarkConfig
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.presets import load_config, load_preset
from bart_cli.config.run import FinetuneConfig, PretrainConfig
from bart_cli.errors import UsageError
from bart_cli.inference.engine import int8_problem
from bart_cli.inference.load import DTYPES
from bart_cli.runtime.cores import usable_cores
from bart_cli.runtime.precision import problem_of
from bart_cli.runtime.world import launched
from bart_cli.training.optimizers import backend_problem

TrainingRun = PretrainConfig | FinetuneConfig
# What runs when no preset is named: the reference's tables on a GPU, a model for minutes on a CPU.
GPU_TRAINING = (
    "dgxa100-1node-phase1-tf32",
    "dgxa100-1node-phase1",
    "dgxa100-1node-phase2-tf32",
    "dgxa100-1node-phase2",
)
GPU_DECODING = "xsum-dgxa100-1gpu-bf16"
CPU_PRESET = "tiny-cpu"
GPU_BATCHES = (1, 4, 8, 16, 32, 64, 128)
CPU_BATCHES = (1, 4, 8, 16)
CPU_PRECISIONS = ("fp32", "bf16")
DECODING = GenerationConfig(beams=6, length_penalty=1.0, max_length=62, no_repeat_ngram=3)
SOURCE_LENGTH = 1024  # of a preset that names a model only

Group = list[ArmSpec]  # arms that are measured in turn


@dataclass(frozen=True)
class Sweep:
    """What is varied, empty: the defaults; and settings (`section.key=value`) of every arm."""

    batch_sizes: Sequence[int] = ()
    precisions: Sequence[str] = ()
    processes: Sequence[int] = ()
    sets: Sequence[str] = ()


def plan_training(
    presets: Sequence[str],
    sweep: Sweep,
    *,
    benchmark: BenchmarkConfig,
    data: Path | None = None,
) -> list[Group]:
    """A group for each number of processes, preset and precision, in the order of the table.

    Raises:
        UsageError: names every setting that cannot work here.
    """
    gpu = torch.cuda.is_available()
    presets = presets or (GPU_TRAINING if gpu else (CPU_PRESET,))
    groups: list[Group] = []
    for count in _processes(sweep.processes):
        for preset in presets:
            for precision in sweep.precisions or _precisions(preset, gpu=gpu):
                run = _training_run(preset, sweep.sets, {"data.path": data}, precision)
                sizes = tuple(sweep.batch_sizes) or (run.training.micro_batch_size,)
                arm = ArmSpec(
                    processes=count,
                    precision=precision,
                    sizes=_ascending(sizes),
                    benchmark=benchmark,
                    load=TrainingSpec(run=run),
                )
                groups.append(_with_rival(arm))
    _check([group[0] for group in groups])
    return groups


def plan_decoding(
    preset: str | None,
    sweep: Sweep,
    *,
    benchmark: BenchmarkConfig,
    model: str | None = None,
    data: Path | None = None,
    source_length: int | None = None,
    generation: Mapping[str, object] | None = None,
) -> list[Group]:
    """A group for each number of processes and precision.

    Raises:
        UsageError: names every setting that cannot work here.
    """
    gpu = torch.cuda.is_available()
    name = preset or (GPU_DECODING if gpu else CPU_PRESET)
    run = _run(name, sweep.sets, {})
    is_model = load_preset(name).get("task") == "model"
    if isinstance(run, FinetuneConfig):
        length, settings = run.data.max_source_length, run.generation
        own = run.evaluation.precision
    else:
        length = SOURCE_LENGTH if is_model else run.data.sequence_length
        settings, own = DECODING, "bf16" if gpu else "fp32"
    changes = dict(generation or {})
    length = min(source_length or length, run.model.max_position_embeddings)
    settings = load_generation(settings, changes)
    if settings.max_length > run.model.max_position_embeddings and model is None:
        raise UsageError(
            f"--max-length {settings.max_length}: the model has "
            f"{run.model.max_position_embeddings} positions"
        )
    groups = []
    for count in _processes(sweep.processes or [1]):
        for precision in sweep.precisions or [own]:
            arm = ArmSpec(
                processes=count,
                precision=precision,
                sizes=_ascending(sweep.batch_sizes or (GPU_BATCHES if gpu else CPU_BATCHES)),
                benchmark=benchmark,
                load=DecodingSpec(
                    model=run.model,
                    model_path=model,
                    data=data,
                    length=length,
                    generation=settings,
                    own_settings=model is not None and preset is None,
                    changes=changes,
                ),
            )
            groups.append(_with_rival(arm))
    _check([group[0] for group in groups])
    return groups


def plan_data(spec: DataSpec, workers: Sequence[int], benchmark: BenchmarkConfig) -> list[Group]:
    """A group for each stage; its sizes are numbers of processes."""
    cores = usable_cores()
    counts = _ascending(workers or sorted({1, min(cores, 2), cores}))
    return [
        [
            ArmSpec(
                sizes=counts if stage in ("preprocess", "shards") else (1,),
                benchmark=benchmark,
                load=spec.model_copy(update={"stage": stage}),
            )
        ]
        for stage in ("preprocess", "denoise", "shards", "pairs")
    ]


def load_generation(base: GenerationConfig, changes: Mapping[str, object]) -> GenerationConfig:
    """Decoding settings with some changed.

    Raises:
        UsageError: they do not go together.
    """
    from bart_cli.config.run import EvaluateConfig

    values = base.model_dump() | dict(changes)
    options = {f"generation.{name}": value for name, value in values.items()}
    return load_config(EvaluateConfig, options=options).generation


def _run(preset: str, sets: Sequence[str], options: Mapping[str, object]) -> TrainingRun:
    kind: type[TrainingRun]
    kind = FinetuneConfig if load_preset(preset).get("task") == "finetune" else PretrainConfig
    return load_config(kind, preset=preset, sets=sets, options=options)


def _training_run(
    preset: str, sets: Sequence[str], options: Mapping[str, object], precision: str
) -> TrainingRun:
    chosen = {"training.precision": precision}
    return _run(preset, sets, dict(options) | chosen)


def _precisions(preset: str, *, gpu: bool) -> Sequence[str]:
    own = str(_run(preset, (), {}).training.precision)
    if gpu or own not in CPU_PRECISIONS:
        return [own]
    return CPU_PRECISIONS


def _processes(asked: Sequence[int]) -> Sequence[int]:
    """How many processes: as asked, that of the launcher, or one and all GPUs (two on a CPU)."""
    if launched():
        size = os.environ.get("WORLD_SIZE") or os.environ["SLURM_STEP_NUM_TASKS"]
        return [int(size)]
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked:
        for count in asked:
            if gpus and count > gpus:
                raise UsageError(f"--processes {count}: this machine has {gpus} GPUs")
        return _ascending(asked)
    return sorted({1, gpus or min(2, usable_cores())})


def _ascending(sizes: Sequence[int]) -> tuple[int, ...]:
    """Ascending: a row's peak memory then is its own, not that of a larger one before."""
    return tuple(sorted(set(sizes)))


def _with_rival(arm: ArmSpec) -> Group:
    if arm.benchmark.compare == "none":
        return [arm]
    if arm.precision == "int8":
        raise UsageError("--compare transformers does not support int8 decoding; use fp32 or bf16")
    return [arm, arm.model_copy(update={"side": "transformers"})]


def precision_problem(precision: str, device: torch.device) -> str | None:
    """Why this device cannot compute so, None when it can."""
    if precision == "int8":
        return int8_problem(device)
    return problem_of(precision, device)  # type: ignore[arg-type]


def _check(arms: Sequence[ArmSpec]) -> None:
    """Raise all that cannot work at once."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    problems: list[str] = []
    for arm in arms:
        if isinstance(arm.load, DecodingSpec) and arm.precision not in DTYPES:
            allowed = ", ".join(DTYPES)
            problems.append(f"--precision {arm.precision}: expected {allowed}")
            continue
        if problem := precision_problem(arm.precision, device):
            problems.append(problem.replace("training.", "").replace("precision=", "--precision "))
        if isinstance(arm.load, TrainingSpec) and (
            problem := backend_problem(arm.load.run.optimizer)
        ):
            problems.append(problem)
    if arms and arms[0].benchmark.compare == "transformers":
        try:
            import transformers  # noqa: F401
        except ImportError:
            problems.append("--compare transformers: it is not installed")
    if problems:
        raise UsageError("cannot start:\n  " + "\n  ".join(dict.fromkeys(problems)))

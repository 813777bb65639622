"""Sweep: train every combination of a grid with several seeds, each in a run folder.

In: the values of `--grid`, and a function that trains one run. Out: a row for each combination with
mean and standard deviation over the seeds. They are read from the run folders, so a resumed sweep
gives the same rows.
"""

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from signal import Signals

from bart_cli.config.run import PretrainConfig
from bart_cli.errors import START_ANEW, BartError, UsageError, first_line
from bart_cli.evaluation.evaluate import FINAL_EVALUATION, evaluate_run
from bart_cli.files import strict_json, write_text
from bart_cli.progress import Reporter, log
from bart_cli.runtime.locks import exclusive
from bart_cli.runtime.signals import stopped
from bart_cli.runtime.world import World, device_of
from bart_cli.training.finetune import check_finetune_run, run_finetune
from bart_cli.training.history import read_run
from bart_cli.training.pretrain import check_pretrain_run, run_pretrain
from bart_cli.training.resume import TrainingRun
from bart_cli.training.run import RunResult

SCORES = ("rouge1", "rouge2", "rougeLsum")


@dataclass(frozen=True)
class Trial:
    """One run of a sweep: its settings from the grid, as (key, value), and its seed."""

    values: tuple[tuple[str, str], ...]
    seed: int

    @property
    def name(self) -> str:
        """Name of the run folder."""
        parts = [f"{key.rpartition('.')[2]}={value}" for key, value in self.values]
        return re.sub(r"[^\w.=,+-]", "_", ",".join([*parts, f"seed={self.seed}"]))

    @property
    def sets(self) -> list[str]:
        """Arguments of `--set`."""
        return [f"{key}={value}" for key, value in self.values] + [f"training.seed={self.seed}"]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds (None for a single seed)."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class SweepRow:
    """One combination of the grid."""

    settings: dict[str, str]
    runs: tuple[str, ...]  # folders of the finished runs
    failures: dict[str, str]  # name of a failed run -> error message
    numbers: dict[str, Spread]  # metric -> mean and deviation over the finished runs


def parse_grid(texts: Sequence[str]) -> dict[str, list[str]]:
    """Parse texts of the form `key=value,value`; commas inside brackets do not separate values."""
    grid: dict[str, list[str]] = {}
    for text in texts:
        key, equals, rest = text.partition("=")
        key = key.strip()
        values = [value.strip() for value in re.split(r",(?![^\[{]*[\]}])", rest)]
        if not equals or not key or not all(values):
            raise UsageError(f"--grid {text}: expected section.key=value,value")
        if key in grid or len(set(values)) < len(values):
            raise UsageError(f"--grid {text}: the same key or value is given twice")
        grid[key] = values
    return grid


def trials_of(grid: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> list[Trial]:
    """List every combination of the grid with every seed."""
    trials = [
        Trial(tuple(zip(grid, values, strict=True)), seed)
        for values in product(*grid.values())
        for seed in seeds
    ]
    if len({trial.name for trial in trials}) < len(trials):
        raise UsageError("--grid: two combinations have the same folder name")
    return trials


def require_own_folder(out: Path, trials: Sequence[Trial]) -> None:
    """Check that `out` has no runs except those of this sweep, which may have been extended."""
    if (out / "config.yaml").exists():
        raise UsageError(f"{out} is a run folder", hint=START_ANEW)
    own = {trial.name for trial in trials}
    others = sorted({path.parent.name for path in out.glob("*/config.yaml")} - own)
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise UsageError(
            f"{out} has runs that are not part of this sweep: {others[0]}{more}",
            hint="Choose another --out, or add their values to --grid and --seeds.",
        )


def check_trial(config: TrainingRun, run: Path) -> None:
    """Check what pre-training or fine-tuning checks before it starts."""
    world = World(0, 1, device_of(0, 1))
    if isinstance(config, PretrainConfig):
        check_pretrain_run(config, run, world)
    else:
        check_finetune_run(config, run, world)


def train_trial(config: TrainingRun, run: Path, *, evaluate: bool, reporter: Reporter) -> RunResult:
    """Train or resume a run; if `evaluate`, score a fine-tuned model on the test split."""
    if isinstance(config, PretrainConfig):
        return run_pretrain(config, run, reporter=reporter)
    result = run_finetune(config, run, reporter=reporter)
    if evaluate and result.model is not None and result.signal is None:
        evaluate_run(config, run, reporter=reporter)
    return result


@exclusive
def run_sweep(
    trials: Sequence[Trial],
    train: Callable[[Trial, Path], RunResult],
    out: Path,
    reporter: Reporter,
) -> list[SweepRow]:
    """Train all trials in order and write OUT/sweep.json. A failed trial does not stop the others.

    `train` trains or resumes one run.
    """
    failures: dict[Trial, str] = {}
    for number, trial in enumerate(trials, 1):
        reporter.info(f"run {number} of {len(trials)}: {trial.name}")
        try:
            result = train(trial, out / trial.name)
        except BartError as error:
            if error.exit_code >= 128:  # a signal
                raise
            failures[trial] = error.message
        except Exception as error:  # a bug must not end the other runs
            failures[trial] = f"{type(error).__name__}: {first_line(error)}"
            log.info("traceback of the next warning", exc_info=error)  # shown by --verbose
        else:
            where = f"{trial.name}, run {number} of {len(trials)}"
            if result.signal is not None:
                raise stopped(Signals(result.signal).name, f" in {where}")
            if result.model is None:
                raise BartError(
                    f"the sweep ended in {where}: {result.outcome}",
                    hint="Rerun the command to resume.",
                )
            continue
        reporter.warn(f"{trial.name} failed: {failures[trial]}")
    rows = []
    for values in dict.fromkeys(trial.values for trial in trials):
        own = [trial for trial in trials if trial.values == values]
        runs = [out / trial.name for trial in own if trial not in failures]
        found = [_numbers(run) for run in runs]
        failed = {trial.name: failures[trial] for trial in own if trial in failures}
        numbers = {
            name: spread([numbers[name] for numbers in found])
            for name in (found[0] if found else ())
            if all(name in numbers for numbers in found)
        }
        rows.append(SweepRow(dict(values), tuple(map(str, runs)), failed, numbers))
    content = strict_json([asdict(row) for row in rows], indent=2)
    write_text(out / "sweep.json", content + "\n")
    return rows


def spread(values: Sequence[float]) -> Spread:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation)


def _numbers(run: Path) -> dict[str, float]:
    """Read the results of a finished run: metric -> value."""
    summary = read_run(run)[0]
    found = {"loss": summary.last_loss, "validation loss": summary.best_validation_loss}
    metrics = run / FINAL_EVALUATION / "metrics.json"
    if metrics.is_file():
        rouge = json.loads(metrics.read_text(encoding="utf-8"))["rouge"]
        found |= {name: rouge[name] for name in SCORES}
    found["tokens/s"] = summary.tokens_per_second
    return {name: value for name, value in found.items() if value is not None}

"""Cases in separate processes: what happens when one dies or the user interrupts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bart_cli.benchmark.crew import Crew
from bart_cli.benchmark.plan import Sweep, plan_training
from bart_cli.benchmark.run import run_training_benchmark
from bart_cli.benchmark.spec import ArmSpec, TrainingSpec
from bart_cli.benchmark.sweep import run_sweep
from bart_cli.config.benchmark import BenchmarkConfig
from bart_cli.config.run import PretrainConfig
from bart_cli.errors import BartError, UsageError
from bart_cli.progress import Reporter, Task
from tests.conftest import tiny_model_config

pytestmark = pytest.mark.slow


def tiny_arm(*sizes: int, **changes: object) -> ArmSpec:
    run = PretrainConfig.model_validate(
        {"model": tiny_model_config().model_dump(), "data": {"sequence_length": 16}} | changes
    )
    quick = BenchmarkConfig(repeats=3, warm_up=0)
    return ArmSpec(sizes=sizes, benchmark=quick, load=TrainingSpec(run=run))


class Impatient(Reporter):
    """Raise KeyboardInterrupt after the first row."""

    @contextmanager
    def task(self, name: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        class Stop(Task):
            def advance(self, amount: float = 1, detail: str = "") -> None:
                raise KeyboardInterrupt

        yield Stop()


def test_complete_rows_survive_an_interruption(tmp_path: Path) -> None:
    results = run_sweep([[tiny_arm(1, 2)]], tmp_path, Impatient())
    assert results.interrupted
    assert [(row.size, row.outcome, len(row.seconds)) for row in results.rows] == [(1, "ok", 3)]


def test_a_file_in_place_of_the_results_is_reported_before_measuring(
    tmp_path: Path,
) -> None:
    out = tmp_path / "file"
    out.touch()
    arm = tiny_arm(1, data={"path": str(tmp_path / "none"), "sequence_length": 16})
    with pytest.raises(UsageError, match="is a file; expected a folder"):
        run_training_benchmark([[arm]], out, command="", reporter=Reporter())


def test_a_process_killed_by_the_kernel_is_reported_as_out_of_memory() -> None:
    with Crew(tiny_arm(1)) as crew:
        assert crew.ready() == {"status": "ok"}
        os.kill(crew._processes[0].pid, signal.SIGKILL)
        assert crew.ask({"do": "prepare", "size": 1}) == {"status": "out of memory"}


def test_a_failing_process_reports_the_reason() -> None:
    with Crew(tiny_arm(1)) as crew:
        crew.ready()
        with pytest.raises(BartError, match="the bart arm ended: KeyError: 'size'"):
            crew.ask({"do": "prepare"})


def test_missing_data_ends_the_benchmark_with_the_error_of_the_engine(
    tmp_path: Path,
) -> None:
    arm = tiny_arm(1, data={"path": str(tmp_path / "none"), "sequence_length": 16})
    with pytest.raises(BartError, match="no such folder"):
        run_sweep([[arm]], tmp_path, Reporter())


def test_everything_that_cannot_run_here_is_reported_at_once() -> None:
    with pytest.raises(UsageError) as refused:
        plan_training(
            ["tiny-cpu"],
            Sweep(precisions=["tf32", "fp16"], processes=[1], sets=["optimizer.backend=apex"]),
            benchmark=BenchmarkConfig(),
        )
    for word in ("--precision tf32", "--precision fp16", "apex.optimizers"):
        assert word in refused.value.message


def test_a_preset_sets_the_batch_and_on_a_cpu_both_precisions() -> None:
    groups = plan_training(["tiny-cpu"], Sweep(processes=[1, 2]), benchmark=BenchmarkConfig())
    arms = [group[0] for group in groups]
    assert [(a.processes, a.precision, a.sizes) for a in arms] == [
        (1, "fp32", (16,)),
        (1, "bf16", (16,)),
        (2, "fp32", (16,)),
        (2, "bf16", (16,)),
    ]

"""The text of the job script; the test of the command runs it with bash."""

from __future__ import annotations

import pytest

from bart_cli.errors import UsageError
from bart_cli.runtime.slurm import SlurmJob, slurm_script


def job(*arguments: str, **changes: object) -> SlurmJob:
    settings: dict[str, object] = {
        "name": "tiny-cpu",
        "command": ["bart", "pretrain", "--preset", "tiny-cpu", *arguments],
        "nodes": None,
        "gpus": 2,
        "cpus_per_task": 6,
        "hours": 1.5,
    }
    return SlurmJob(**(settings | changes))  # type: ignore[arg-type]


def test_a_preset_needs_no_other_options() -> None:
    script = slurm_script(job())
    assert "srun --kill-on-bad-exit=1 bart pretrain --preset tiny-cpu || code=$?\n" in script
    assert "runs/pretrain-tiny-cpu/done.json" in script


@pytest.mark.parametrize("arguments", [("--out", "my/run"), ("--data", "x", "--out=my/run")])
def test_the_run_is_found_by_out(arguments: tuple[str, ...]) -> None:
    assert "! -f my/run/done.json ]]" in slurm_script(job(*arguments))


def test_a_task_gets_its_cores_and_the_job_its_nodes() -> None:
    """Without these options, SLURM gives a task one core and a share of the memory."""
    script = slurm_script(job())
    for line in ("#SBATCH --cpus-per-task=6", "#SBATCH --mem=0", "#SBATCH --exclusive"):
        assert f"{line}\n" in script
    assert "export SRUN_CPUS_PER_TASK=6\n" in script


def test_options_of_sbatch_come_last_so_that_they_win() -> None:
    script = slurm_script(
        job(options={"account": "me", "qos": None}, sbatch=["--mem=100G", "--reservation=bart"])
    )
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    assert lines[-2:] == ["#SBATCH --mem=100G", "#SBATCH --reservation=bart"]
    assert "#SBATCH --account=me" in lines
    assert not any("qos" in line for line in lines)


def test_mounts_without_a_container_are_refused() -> None:
    with pytest.raises(UsageError, match="--container"):
        slurm_script(job(mounts="/data:/data"))

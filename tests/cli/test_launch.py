"""`bart launch slurm`: bash runs the script, with simulated SLURM commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bart_cli.config.run import save_config
from bart_cli.training.metrics import read_metrics
from tests.command import bart
from tests.unit.training.test_runs import pretrain_config, shards  # noqa: F401

SRUN = """#!/bin/bash
# The tasks of a job step, with the variables set by srun.
[[ $1 == --kill-on-bad-exit=1 ]] && shift
if [[ -f code ]]; then exit "$(<code)"; fi
for ((rank = 0; rank < TASKS; rank++)); do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODEID=0 SLURM_STEP_NUM_TASKS=$TASKS \\
        SLURM_STEP_TASKS_PER_NODE="$TASKS(x1)" "$@" &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || exit 1; done
"""
SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then echo 127.0.0.1; echo 127.0.0.2; else echo "$@" >> requeued; fi
"""


def test_the_script_of_the_forty_node_run() -> None:
    result = bart(
        *("launch", "slurm", "--preset", "dgxa100-40node-phase1", "--hours", 4),
        *("--data", "/data/my shards", "--container", "nvcr.io/x:1"),
        *("--mounts", "/data:/data,/home:/home"),
    )
    assert result.returncode == 0, result.stderr
    assert "#SBATCH --nodes=40\n#SBATCH --ntasks-per-node=8\n" in result.stdout
    assert "#SBATCH --time=4:00:00\n" in result.stdout
    assert (
        "srun --kill-on-bad-exit=1 --container-image nvcr.io/x:1 "
        "--container-mounts /data:/data,/home:/home bart pretrain --preset dgxa100-40node-phase1 "
        "--data '/data/my shards' || code=$?\n"
    ) in result.stdout
    assert "runs/pretrain-dgxa100-40node-phase1/done.json" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--acount", "me"), "--acount"),
        (("--set", "training.max_step=3"), "Did you mean 'training.max_steps'"),
        (("--precision", "bf61"), "training.precision=bf61"),
        (("--config", "other.yaml"), "either --preset NAME or --config FILE"),
        (("--", "reservation"), "expected sbatch options"),
    ],
)
def test_errors_of_the_run_are_reported_before_the_job_starts(
    arguments: tuple[str, ...], message: str
) -> None:
    result = bart("launch", "slurm", "--preset", "dgxa100-1node-phase1", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert not result.stdout


def test_a_configuration_file_works_like_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "own-2node.yaml"
    file.write_text("task: finetune\ntraining: {max_steps: 5}\n", encoding="utf-8")
    result = bart(
        *("launch", "slurm", "--config", file, "--account", "me", "--data", "pairs"),
        *("--", "--reservation=bart"),
    )
    assert result.returncode == 0, result.stderr
    assert f"bart finetune --config {file} --data pairs || code=$?\n" in result.stdout
    assert "#SBATCH --nodes=2\n" in result.stdout
    assert "#SBATCH --reservation=bart\n" in result.stdout
    assert "runs/finetune-own-2node/done.json" in result.stdout


@pytest.mark.parametrize(
    ("preset", "message"), [("bart-base", "needs no job script"), ("dgxa100", "no preset")]
)
def test_presets_that_do_not_train_are_refused(preset: str, message: str) -> None:
    result = bart("launch", "slurm", "--preset", preset)
    assert result.returncode == 2
    assert message in result.stderr


def test_the_script_runs_and_requeues_itself_until_the_run_is_done(
    shards: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    for name, text in (
        ("srun", SRUN),
        ("scontrol", SCONTROL),
        ("bart", f'#!/bin/bash\nexec {sys.executable} -m bart_cli "$@"\n'),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    save_config(pretrain_config(shards, max_steps=6, checkpoint_every=2), tmp_path / "c.yaml")
    repository = Path(__file__).parents[2]
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(repository),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_ID": str(os.getpid()),
        "OMP_NUM_THREADS": "1",
    }

    def job(tasks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        printed = bart(
            *("launch", "slurm", "--config", tmp_path / "c.yaml", "--nodes", 1, "--gpus", tasks),
            *("--out", "run", *arguments),
        )
        assert printed.returncode == 0, printed.stderr
        script = printed.stdout
        return subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment | {"TASKS": str(tasks)},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    first = job(2, "--set", "training.time_limit=0.00001")
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "requeued").read_text() == f"requeue {os.getpid()}\n"
    # Stopped before the first step or during the final evaluation; failed.
    for code, left in ((143, 2), (1, 2)):
        (tmp_path / "code").write_text(str(code))
        assert job(2).returncode == (0 if code == 143 else code)
        assert len((tmp_path / "requeued").read_text().splitlines()) == left
    (tmp_path / "code").unlink()
    second = job(1, "--set", "training.time_limit=100")
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "run" / "done.json").is_file()
    assert (tmp_path / "requeued").read_text() == f"requeue {os.getpid()}\n" * 2
    assert [row["step"] for row in read_metrics(tmp_path / "run") if "loss" in row] == [2, 4, 6]

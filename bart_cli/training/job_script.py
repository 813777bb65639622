"""The sbatch script of a run: one task per GPU, requeued until the run is finished."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePosixPath

from bart_cli.errors import UsageError

WARNING_SECONDS = 300  # before the time limit: what a checkpoint may take


def slurm_script(
    preset: str,
    task: str,
    arguments: Sequence[str],
    *,
    nodes: int | None,
    gpus: int,
    hours: float,
    partition: str | None,
    container: str | None,
    mounts: str | None = None,
) -> str:
    """The text of the script.

    Args:
        task: pretrain or finetune.
        arguments: options of that command, as the user typed them.
        nodes: None: the number in the preset's name (`…-40node-…`), or 1.
        container: image for Pyxis, None: `bart` is on the nodes' PATH.
        mounts: folders that the container sees, `FROM:TO`, several with commas between them.

    Raises:
        UsageError: the preset is none of a training run.
    """
    if task not in ("pretrain", "finetune"):
        raise UsageError(f"preset {preset} is for `bart {task}`, which needs no job script")
    named = re.search(r"(\d+)node", preset)
    count = nodes or (int(named[1]) if named else 1)
    minutes = round(hours * 60)
    options = {
        "job-name": f"bart-{preset}",
        "nodes": str(count),
        "ntasks-per-node": str(gpus),
        "gpus-per-node": str(gpus),
        "time": f"{minutes // 60}:{minutes % 60:02d}:00",
        "signal": f"TERM@{WARNING_SECONDS}",
        "output": "%x-%j.log",
        "open-mode": "append",
    }
    if partition:
        options["partition"] = partition
    header = [f"#SBATCH --{name}={value}" for name, value in options.items()]
    command = ["bart", task, "--preset", preset, *arguments]
    if mounts and not container:
        raise UsageError("--mounts is for --container, and there is none")
    image = ["--container-image", container] if container else []
    image += ["--container-mounts", mounts] if mounts else []
    done = PurePosixPath(_run_folder(preset, task, arguments)) / "done.json"
    return "\n".join(
        [
            "#!/bin/bash",
            *header,
            "#SBATCH --requeue",
            "set -euo pipefail",
            'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))",
            "",
            "# Before the time limit every task gets SIGTERM and the run writes a checkpoint.",
            f"srun {shlex.join([*image, *command])}",
            "",
            "# Not finished: into the queue again, to go on from the checkpoint.",
            f"if [[ ! -f {shlex.quote(str(done))} ]]; then",
            '    scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            "",
        ]
    )


def _run_folder(preset: str, task: str, arguments: Sequence[str]) -> str:
    """What `--out` says, or the command's default."""
    for word, following in pairwise([*arguments, ""]):
        if word == "--out":
            return following
        if word.startswith("--out="):
            return word.removeprefix("--out=")
    return f"runs/{task}-{preset}"

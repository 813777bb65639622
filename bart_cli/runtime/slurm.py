"""Write the sbatch script of a run: one task per GPU, requeued until the run is finished."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePosixPath

from bart_cli.errors import UsageError

WARNING_SECONDS = 300  # SIGTERM arrives this long before the time limit, to write a checkpoint


@dataclass(frozen=True)
class SlurmJob:
    """A training run as a SLURM job."""

    name: str
    command: Sequence[str]  # the `bart` command of each task
    nodes: int | None  # None: the number in the name (`…-40node-…`), or 1
    gpus: int  # per node
    cpus_per_task: int
    hours: float  # time limit
    options: Mapping[str, str | None] = field(default_factory=dict)  # of sbatch; None: omitted
    sbatch: Sequence[str] = ()  # more of them, as given by the user
    container: str | None = None  # image for Pyxis; None: `bart` is on the PATH of the nodes
    mounts: str | None = None  # folders to mount in the container, `FROM:TO`, with commas between


def slurm_script(job: SlurmJob) -> str:
    """Return the text of the sbatch script."""
    if job.mounts and not job.container:
        raise UsageError("--mounts requires --container")
    named = re.search(r"(\d+)node", job.name)
    minutes = round(job.hours * 60)
    options = {
        "job-name": f"bart-{job.name}",
        "nodes": str(job.nodes or (int(named[1]) if named else 1)),
        "ntasks-per-node": str(job.gpus),
        "gpus-per-node": str(job.gpus),
        "cpus-per-task": str(job.cpus_per_task),
        "mem": "0",  # all memory of the node
        "time": f"{minutes // 60}:{minutes % 60:02d}:00",
        "signal": f"TERM@{WARNING_SECONDS}",
        "output": "%x-%j.log",
        "open-mode": "append",
    } | {name: value for name, value in job.options.items() if value is not None}
    header = [f"#SBATCH --{name}={value}" for name, value in options.items()]
    flags = ["--exclusive", "--requeue", *job.sbatch]
    image = ["--container-image", job.container] if job.container else []
    image += ["--container-mounts", job.mounts] if job.mounts else []
    done = PurePosixPath(_run_folder(job)) / "done.json"
    return "\n".join(
        [
            "#!/bin/bash",
            *header,
            *(f"#SBATCH {flag}" for flag in flags),
            "set -euo pipefail",
            'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "# Below the ports that the kernel gives to outgoing connections.",
            "export MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))",
            "# Since SLURM 22.05, srun does not inherit this from sbatch.",
            f"export SRUN_CPUS_PER_TASK={job.cpus_per_task}",
            "",
            "# Every task gets SIGTERM before the time limit, and the run writes a checkpoint.",
            "code=0",
            f"srun --kill-on-bad-exit=1 {shlex.join([*image, *job.command])} || code=$?",
            "",
            "# If the run is not finished, requeue the job to resume from a checkpoint. Code 143:",
            "# stopped by SIGTERM before the first step or during the final evaluation.",
            f"if [[ $code == 143 || $code == 0 && ! -f {shlex.quote(str(done))} ]]; then",
            '    scontrol requeue "$SLURM_JOB_ID"',
            "    exit 0",
            "fi",
            "exit $code",
            "",
        ]
    )


def _run_folder(job: SlurmJob) -> str:
    """Return the value of `--out`, or the default of the command."""
    for word, following in pairwise([*job.command, ""]):
        if word == "--out":
            return following
        if word.startswith("--out="):
            return word.removeprefix("--out=")
    return f"runs/{job.command[1]}-{job.name}"

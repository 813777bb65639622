"""Start the worker processes of a run on this machine.

Each worker runs the same command again and joins the others in `world.join_world`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch

from bart_cli.errors import BartError, UsageError
from bart_cli.runtime.cores import threads_of_each, usable_cores
from bart_cli.runtime.interrupts import SIGNALS, withheld
from bart_cli.runtime.workers import as_child
from bart_cli.runtime.world import launched, slurm_tasks_on_this_node

CHECKPOINT_SECONDS = 600  # for workers to write a checkpoint after a signal
WRONG_USAGE = 2  # exit code
RANKS_PER_CORE = 16  # more would exhaust the memory of the machine
WORKER = "BART_WORKER"  # environment variable of the processes that `launch` starts


def processes_to_start(asked: int | None, max_restarts: int = 0) -> int:
    """Return the number of workers to start; 0 means that this process trains itself.

    If the user has not asked for a number, it is one per GPU.
    """
    if launched():
        if WORKER in os.environ:
            return 0
        size = os.environ.get("LOCAL_WORLD_SIZE")
        own = slurm_tasks_on_this_node() if size is None else int(size)
        if asked not in (None, own):
            raise UsageError(
                f"--processes {asked} has no effect: torchrun or srun started {own} on this "
                "machine",
                hint="Drop --processes.",
            )
        if max_restarts:
            raise UsageError(
                f"--max-restarts {max_restarts} has no effect under torchrun or srun",
                hint="Pass --max-restarts to torchrun, or let SLURM requeue the job.",
            )
        return 0
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and asked is not None and asked > gpus:
        raise UsageError(f"--gpus {asked}: this machine has {gpus} GPU{'s' if gpus > 1 else ''}")
    cores = usable_cores()
    if not gpus and asked is not None and asked > RANKS_PER_CORE * cores:
        raise UsageError(
            f"--processes {asked}: this machine has {cores} core{'s' if cores > 1 else ''}",
            hint=f"Pass at most {RANKS_PER_CORE * cores}.",
        )
    count = max(1, gpus) if asked is None else asked
    return count if count > 1 or max_restarts else 0


def launch(
    arguments: Sequence[str],
    processes: int,
    max_restarts: int,
    signals: list[int] | None = None,
) -> int:
    """Run `bart ARGUMENTS` in several workers, wait for them and return the exit code.

    SIGTERM and Ctrl-C are forwarded to the workers, which then write a checkpoint, and appended to
    `signals`. If a worker fails, all are restarted from the newest checkpoint, at most
    `max_restarts` times.
    """
    workers: list[subprocess.Popen[bytes]] = []
    signals = [] if signals is None else signals

    def forward(number: int, _: FrameType | None = None) -> None:
        signals.append(number)
        for worker in workers:
            worker.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        for attempt in range(max_restarts + 1):
            # A store for each attempt: a shared one would still have the addresses of workers that
            # are gone.
            store = rendezvous()
            with withheld():  # until a worker can handle them
                for rank in range(processes):
                    workers.append(_start(arguments, rank, processes, store.port, attempt))
            codes = _wait(workers, signals)
            workers.clear()
            failed = next((code for code in codes if code), 0)
            if signals or failed in (0, WRONG_USAGE):
                break
    finally:
        for worker in workers:
            worker.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if failed < 0 and signals:
        return 128 + signals[0]
    if failed < 0:
        raise BartError(
            f"a worker was killed by {signal.Signals(-failed).name}",
            hint="Rerun the command to resume.",
        )
    return failed  # the worker has printed the error


def rendezvous() -> Any:
    """Start the store where ranks of this machine meet; pass its port to `rank_environment`."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def rank_environment(rank: int, size: int, port: int, attempt: int = 0) -> dict[str, str]:
    """Return the environment variables that torchrun sets for a rank of a single machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # rank 0 must not start its own store
        "TORCHELASTIC_RESTART_COUNT": str(attempt),
    }


def _start(
    arguments: Sequence[str], rank: int, size: int, port: int, attempt: int
) -> subprocess.Popen[bytes]:
    """Start one worker."""
    environment = os.environ | rank_environment(rank, size, port, attempt) | {WORKER: "1"}
    environment["OMP_NUM_THREADS"] = threads_of_each(size)
    # Workers need not log that they lost another one: the launcher reports it.
    environment.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    return subprocess.Popen(
        [sys.executable, "-m", "bart_cli", *arguments],
        env=as_child(environment),
        start_new_session=True,  # so that Ctrl-C arrives once, through the launcher
    )


def _wait(workers: Sequence[subprocess.Popen[bytes]], signals: Sequence[int]) -> list[int]:
    """Wait for all workers; return their exit codes, the first failure first.

    If one fails, the others are killed, unless a signal has already asked them to stop.
    """
    deadline = float("inf")
    while True:
        codes = [worker.poll() for worker in workers]
        failures = [code for code in codes if code]
        if signals:
            deadline = min(deadline, time.monotonic() + CHECKPOINT_SECONDS)
        if (failures and not signals) or time.monotonic() > deadline:
            for worker in workers:
                worker.kill()
            return [*failures, *(worker.wait() for worker in workers)]
        if None not in codes:
            return [*failures, *(worker.wait() for worker in workers)]
        time.sleep(0.05)

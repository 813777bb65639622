"""Starting the worker processes of a run on this machine.

Each worker is this same command again; `world.join_world` in it finds the others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

import torch

from bart_cli.errors import BartError, UsageError
from bart_cli.runtime.cores import usable_cores
from bart_cli.runtime.interrupts import SIGNALS, withheld
from bart_cli.runtime.workers import as_child
from bart_cli.runtime.world import launched

CHECKPOINT_SECONDS = 600  # what workers get to write a checkpoint after a signal
WRONG_USAGE = 2  # exit code


def processes_to_start(asked: int | None) -> int:
    """How many workers this command has to start; 1: none, it trains itself.

    Args:
        asked: the user's wish; None: one for each GPU.

    Raises:
        UsageError: more than there are GPUs.
    """
    if launched():
        return 1
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and asked is not None and asked > gpus:
        raise UsageError(f"--gpus {asked}: this machine has {gpus}")
    return max(1, gpus) if asked is None else asked


def launch(arguments: Sequence[str], processes: int, max_restarts: int) -> int:
    """Run `bart ARGUMENTS` in that many workers and wait; the exit code of the run.

    SIGTERM and Ctrl-C reach the workers, which write a checkpoint. When a worker dies, all are
    started again from the newest checkpoint, `max_restarts` times.

    Raises:
        BartError: a worker was killed.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    workers: list[subprocess.Popen[bytes]] = []
    signals: list[int] = []

    def forward(number: int, _: FrameType | None = None) -> None:
        signals.append(number)
        for worker in workers:
            worker.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        for attempt in range(max_restarts + 1):
            # Each attempt gets a store of its own: in a shared one, workers would find the
            # addresses of the dead.
            store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
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
    return failed  # the worker has printed why


def _start(
    arguments: Sequence[str], rank: int, size: int, port: int, attempt: int
) -> subprocess.Popen[bytes]:
    """Start one worker. The variables are those that torchrun sets."""
    environment = os.environ | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # at that port: rank 0 opens none
        "TORCHELASTIC_RESTART_COUNT": str(attempt),
    }
    environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // size)))
    # The end of another worker is no news: the launcher reports it.
    environment.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    return subprocess.Popen(
        [sys.executable, "-m", "bart_cli", *arguments],
        env=as_child(environment),
        start_new_session=True,  # a terminal's Ctrl-C comes through the launcher, once
    )


def _wait(workers: Sequence[subprocess.Popen[bytes]], signals: Sequence[int]) -> list[int]:
    """Wait for all workers; their exit codes, that of the first failure first.

    A failure ends the others at once, unless a signal has told them to end by themselves.
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

"""Starting the worker processes of a run on this machine, through torch elastic.

Each worker is this same command again; `world.join_world` in it finds the others.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from typing import Any

import torch

from bart_cli.errors import BartError, UsageError
from bart_cli.runtime.cores import usable_cores
from bart_cli.training.world import launched

CHECKPOINT_SECONDS = 600  # what workers get to write a checkpoint after a signal


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


def launch(
    arguments: Sequence[str], processes: int, max_restarts: int, *, stopped_is_good: bool = True
) -> int:
    """Run `bart ARGUMENTS` in that many workers and wait; the exit code of the run.

    SIGTERM and Ctrl-C reach the workers, which write a checkpoint. When a worker dies, all are
    started again from the newest checkpoint, `max_restarts` times.

    Args:
        stopped_is_good: a run that a signal has stopped ends with 0, as training does with its
            checkpoint; otherwise with 128 + the signal, as shells count.

    Raises:
        BartError: a worker was killed.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The agent tells of every worker that ends; the workers say themselves what happened.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # Each start gets a store of its own: in a shared one, workers find the addresses of the dead.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    # A connection that another worker's end has cut is no news either.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))
    options: dict[str, Any] = {}
    if "shutdown_timeout" in LaunchConfig.__dataclass_fields__:  # newer than torch 2.10
        options["shutdown_timeout"] = CHECKPOINT_SECONDS
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        **options,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "bart_cli", *arguments)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        spoken = [code for code in codes if code > 0]
        if spoken:
            return spoken[0]  # the worker has said why; the agent has ended the others
        killed = [code for code in codes if code != -signal.SIGTERM] or codes
        name = signal.Signals(-killed[0]).name
        raise BartError(
            f"a worker was killed by {name}", hint="the same command goes on from what is kept"
        ) from None
    except SignalException as stopped:
        # The workers have kept what they had and said so.
        return 0 if stopped_is_good else 128 + int(stopped.sigval)
    return 0

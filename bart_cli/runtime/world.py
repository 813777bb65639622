"""The ranks of a run: this process among the others, and collective operations between them.

Rank and size come from the environment set by `torchrun`, SLURM or our launcher. A process started
without a launcher is the only rank.
"""

import importlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from bart_cli.errors import BartError, UsageError
from bart_cli.progress import Reporter, log
from bart_cli.runtime.cores import bind_cores
from bart_cli.runtime.locks import locked_folder, require_free
from bart_cli.runtime.memory import keep_freed_memory
from bart_cli.runtime.workers import end_with_parent

Item = TypeVar("Item")
LAUNCHER_SECONDS = 3.0  # for a launcher to kill this rank after another one has failed
JOIN_TIME = timedelta(minutes=30)  # for all ranks to start
SILENT_SECONDS = 60.0  # of waiting for them, without a message
RANK_0_TIME = timedelta(days=7)  # for work that only rank 0 does, such as reading a large corpus

_joined: list[Any] = []  # the store of the process group and a counter of the waits for rank 0


@dataclass(frozen=True)
class World:
    """The rank of this process, the number of ranks, and the device of this rank."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and reports progress."""
        return self.rank == 0

    def sum(self, number: float) -> float:
        """Return the sum of a number over all ranks; exact for integers up to 2**53."""
        if self.size == 1:
            return number
        total = torch.tensor([number], dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total.item())

    def summed(self, numbers: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place, without synchronizing with the device."""
        if self.size > 1:
            dist.all_reduce(numbers)
        return numbers

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true on any rank."""
        return self.sum(float(flag)) > 0

    def gather_all(self, item: Item) -> list[Item]:
        """Return the items of all ranks, in order, on every rank."""
        items: list[Any] = [item] * self.size
        if self.size > 1:
            dist.all_gather_object(items, item)
        return items

    def broadcast(self, item: Item) -> Item:
        """Return the item of rank 0 on every rank, however long rank 0 works before this call."""
        if self.size == 1:
            return item
        # A collective call would time out. If rank 0 dies, so does its store or the launcher's.
        store, waits = _joined
        key = f"bart/{next(waits)}"
        if self.is_main:
            store.set(key, "ready")
        else:
            store.wait([key], RANK_0_TIME)
        box = [item]
        dist.broadcast_object_list(box)
        return box[0]

    def on_rank_0(self, action: Callable[[], Item]) -> Item | None:
        """Call `action` on rank 0 and return its result there, None on the others.

        A BartError that it raises is raised on every rank.
        """
        result, problem = None, None
        if self.is_main:
            try:
                result = action()
            except BartError as error:
                problem = error
        if (problem := self.broadcast(problem)) is not None:
            raise problem
        return result

    def from_rank_0(self, action: Callable[[], Item]) -> Item:
        """Do the same, but return the result on every rank."""
        return self.broadcast(cast(Item, self.on_rank_0(action)))

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join_world() -> Iterator[World]:
    """Join the process group of the launcher, and leave it at the end of the block.

    Nested blocks share one group: an evaluation inside a fine-tuning run does not join again.
    """
    _adopt_slurm()
    size = _number("WORLD_SIZE", 1)
    rank = _number("RANK", 0)
    local_rank = _number("LOCAL_RANK", 0)
    local_size = _number("LOCAL_WORLD_SIZE", 1)
    if rank >= size > 1:
        raise UsageError(
            f"RANK={rank}: expected less than WORLD_SIZE={size}",
            hint="Start the command with torchrun or srun, or unset RANK and WORLD_SIZE.",
        )
    device = device_of(local_rank, local_size)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
    if dist.is_initialized():
        yield World(rank, size, device)
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun's workers would survive it if it is killed
        end_with_parent(os.getppid())
    bind_cores(local_rank, local_size, on_gpu=device.type == "cuda")
    if size == 1:
        yield World(0, 1, device)
        return
    # The functions of this module have the current default group as a default argument. Imported
    # later, by FSDP or the compiler, it would keep the threads of the group alive until the process
    # exits, where Python may abort on one of them (pytorch/pytorch#190489).
    importlib.import_module("torch.distributed.nn.functional")
    try:
        _joined[:] = _meet(rank, size), count()
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=_joined[0], rank=rank, world_size=size)
        if device.type == "cpu":
            dist.barrier()  # no rank may leave (after an error, say) while others still connect
        yield World(rank, size, device)
    except RuntimeError as error:
        if "Duplicate GPU" in str(error):  # NCCL
            raise UsageError(
                f"rank {rank} has the GPU of another rank of this node",
                hint="Start one rank per GPU: set --gpus-per-node to --ntasks-per-node.",
            ) from error
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            # The other rank or its launcher prints the cause.
            time.sleep(LAUNCHER_SECONDS)
            raise BartError(
                f"rank {rank} lost its connection to another rank",
                hint="Rerun the command to resume.",
            ) from error
        raise
    dist.destroy_process_group()
    _joined.clear()


def _meet(rank: int, size: int) -> Any:
    """Connect to the store of rank 0 or of the launcher, and wait for all ranks."""
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        raise UsageError(
            f"RANK is set, but {' and '.join(missing)} is not",
            hint="Start the command with torchrun or srun, or unset RANK and WORLD_SIZE.",
        )
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    try:
        socket.getaddrinfo(address, None)  # torch would retry for JOIN_TIME
    except OSError as error:
        raise UsageError(
            f"MASTER_ADDR={address} has no address on {socket.gethostname()}: {error.strerror}",
            hint="Set it to the name or IP address of rank 0's node.",
        ) from None
    warning = (
        f"rank {rank} is still waiting for the {size} ranks of the run to meet at "
        f"{address}:{port}: a rank without this message has not started, or another program "
        "uses this port"
    )
    waits = threading.Timer(SILENT_SECONDS, log.warning, [warning])
    waits.daemon = True
    waits.start()
    try:
        return next(rendezvous("env://", rank, size, timeout=JOIN_TIME))[0]
    except dist.DistError as error:
        if "EADDRINUSE" in str(error):
            raise UsageError(
                f"port {port} is in use on {address}", hint="Set MASTER_PORT to a free port."
            ) from None
        raise BartError(
            f"rank {rank} waited {JOIN_TIME.seconds // 60} minutes for the {size} ranks of the run "
            f"to meet at {address}:{port}",
            hint="Look for ranks that did not start or cannot reach this address.",
        ) from None
    finally:
        waits.cancel()


@contextmanager
def held_by_rank_0(
    folder: Path, world: World, reporter: Reporter, *, writes: bool = True
) -> Iterator[None]:
    """Hold the lock of a folder, on rank 0 for all ranks; they all fail if it is in use.

    Unless this command `writes`, only check that the folder could be locked and written.
    """
    with ExitStack() as stack:
        if writes:
            world.on_rank_0(lambda: stack.enter_context(locked_folder(folder, reporter)))
        else:
            world.on_rank_0(lambda: require_free(folder))
        yield


def device_of(local_rank: int, local_size: int) -> torch.device:
    """Return the device of a rank of this node: its GPU, or the CPU if torch sees no GPU.

    If a scheduler shows each task only its own GPU (`srun --gpus-per-task=1`, or one entry in
    CUDA_VISIBLE_DEVICES), that GPU is `cuda:0` in every task.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not gpus:
        return torch.device("cpu")
    if gpus >= local_size:
        return torch.device("cuda", local_rank)
    # The workers of torchrun share an environment, so a single GPU would be the same for all.
    if gpus == 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        return torch.device("cuda", 0)
    raise UsageError(
        f"this node runs {local_size} ranks, but torch sees {gpus} GPU{'s' if gpus > 1 else ''}",
        hint=f"Start {gpus} rank{'s' if gpus > 1 else ''} per node, or check CUDA_VISIBLE_DEVICES.",
    )


def _number(name: str, default: int) -> int:
    """Read a variable that a launcher sets."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise UsageError(f"{name}={text}: expected a number", hint=f"Unset {name}.")
    return int(text)


def launched() -> bool:
    """Return whether a launcher (torchrun, srun, ours) started this process as a rank.

    WORLD_SIZE=1 alone proves nothing: containers and job templates set it.
    """
    if _number("WORLD_SIZE", 1) > 1 or "LOCAL_RANK" in os.environ:
        return True
    return _number("SLURM_STEP_NUM_TASKS", 1) > 1


def restarted() -> bool:
    """Return whether a launcher (torchrun, SLURM, ours) started this command before."""
    names = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(os.environ.get(name, "0") != "0" for name in names)


def _adopt_slurm() -> None:
    """Set torchrun's variables from those of `srun`, unless they are already set."""
    if "RANK" in os.environ or _number("SLURM_STEP_NUM_TASKS", 1) == 1:
        if _number("WORLD_SIZE", 1) > 1 and "RANK" not in os.environ:
            raise UsageError(
                f"WORLD_SIZE={os.environ['WORLD_SIZE']}, but RANK is not set",
                hint="Start the command with torchrun or srun, or unset WORLD_SIZE.",
            )
        return
    if "MASTER_ADDR" not in os.environ:
        raise UsageError(
            "MASTER_ADDR is not set: under srun the job script must set it to rank 0's node",
            hint="Create such a job script with `bart launch slurm`.",
        )
    os.environ.setdefault("MASTER_PORT", "29500")
    os.environ["WORLD_SIZE"] = os.environ["SLURM_STEP_NUM_TASKS"]
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]
    os.environ["LOCAL_WORLD_SIZE"] = str(slurm_tasks_on_this_node())


def slurm_tasks_on_this_node() -> int:
    """Return the number of tasks of the job step on this node.

    Parses `SLURM_STEP_TASKS_PER_NODE` or similar: `8(x39),4` means 39 nodes with 8 tasks, then one
    with 4 (srun(1), output environment variables).
    """
    names = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE")
    text = next((os.environ[name] for name in names if os.environ.get(name)), "1")
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if found is None:
            raise UsageError(f"cannot read the tasks per node that SLURM gives: {text!r}")
        counts += [int(found[1])] * int(found[2] or 1)
    node = _number("SLURM_NODEID", 0)
    return counts[min(node, len(counts) - 1)]

"""Joining and leaving the process group, and devices of ranks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from bart_cli.errors import BartError, UsageError
from bart_cli.runtime.launch import processes_to_start, rank_environment, rendezvous
from bart_cli.runtime.world import device_of, join_world, launched, slurm_tasks_on_this_node

pytestmark = pytest.mark.slow

LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID", "SLURM_STEP_NUM_TASKS")

LEAVE = """
import time
from datetime import timedelta
from pathlib import Path

from torch.distributed import distributed_c10d as dist

from bart_cli.runtime.world import join_world

def threads():
    return [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]

with join_world() as world:
    assert world.sum(1) == 2
    dist._set_pg_timeout(timedelta(seconds=2), dist._get_default_group())
    world.on_rank_0(lambda: time.sleep(3))  # longer than a collective call may wait
    import torch.distributed.fsdp  # like training with sharding
    assert any("gloo" in name for name in threads()), threads()
assert not any("gloo" in name for name in threads()), threads()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to list threads")
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the group is NCCL's")
def test_ranks_wait_for_rank_0_and_leave_no_thread_to_abort_the_exit() -> None:
    store = rendezvous()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", LEAVE],
            env=os.environ | rank_environment(rank, 2, store.port),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=200)
        assert rank.returncode == 0, errors


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Simulate a machine with 8 GPUs and no launcher, which tests can change."""
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    return monkeypatch


def test_each_rank_uses_the_gpu_of_its_number(gpus: pytest.MonkeyPatch) -> None:
    assert [device_of(rank, 8).index for rank in range(8)] == list(range(8))
    assert device_of(0, 1) == torch.device("cuda", 0)


def test_a_task_that_sees_only_its_own_gpu_uses_it(gpus: pytest.MonkeyPatch) -> None:
    """`srun --gpus-per-task=1`: local rank 5 sees one device, which is cuda:0."""
    gpus.setattr("torch.cuda.device_count", lambda: 1)
    assert device_of(5, 8) == torch.device("cuda", 0)


@pytest.mark.parametrize(("visible", "elastic"), [(2, None), (2, "run"), (1, "run")])
def test_fewer_gpus_than_ranks_are_reported(
    gpus: pytest.MonkeyPatch, visible: int, elastic: str | None
) -> None:
    gpus.setattr("torch.cuda.device_count", lambda: visible)
    if elastic:
        gpus.setenv("TORCHELASTIC_RUN_ID", elastic)
    with pytest.raises(UsageError, match=f"4 ranks, but torch sees {visible} GPU"):
        device_of(0, 4)


def test_a_world_size_of_one_does_not_hide_seven_gpus(gpus: pytest.MonkeyPatch) -> None:
    gpus.setenv("WORLD_SIZE", "1")
    assert not launched()
    assert processes_to_start(None) == 8
    gpus.setenv("LOCAL_RANK", "0")  # torchrun --nproc-per-node 1
    assert processes_to_start(None) == 0


def test_a_mistyped_number_of_processes_does_not_fill_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bart_cli.runtime.launch.usable_cores", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert processes_to_start(32) == 32
    with pytest.raises(UsageError, match="--processes 5000: this machine has 2 cores"):
        processes_to_start(5000)


def test_a_world_size_without_a_rank_is_refused(gpus: pytest.MonkeyPatch) -> None:
    gpus.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="WORLD_SIZE=4, but RANK is not set"), join_world():
        pass


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MASTER_ADDR": "", "MASTER_PORT": "1"}, "RANK is set, but MASTER_ADDR is not"),
        ({"MASTER_ADDR": "no.such.invalid"}, r"MASTER_ADDR=no\.such\.invalid has no address on "),
        ({}, "port {port} is in use on 127.0.0.1"),
        ({"RANK": "2"}, "RANK=2: expected less than WORLD_SIZE=2"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two: expected a number"),
    ],
)
def test_an_address_where_ranks_cannot_meet_is_reported_at_once(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        world = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in (world | variables).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UsageError, match=message.format(port=port)), join_world():
            pass


def test_a_rank_says_that_others_have_not_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
    world = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in world.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("bart_cli.runtime.world.SILENT_SECONDS", 0.0)
    monkeypatch.setattr("bart_cli.runtime.world.JOIN_TIME", timedelta(seconds=0.3))
    with pytest.raises(BartError, match="rank 0 waited 0 minutes for the 2 ranks"), join_world():
        pass
    assert "rank 0 is still waiting for the 2 ranks of the run to meet at 127.0.0.1" in caplog.text


def test_two_ranks_with_one_gpu_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("ncclInvalidUsage\nLast error:\nDuplicate GPU detected : rank 1 and 0")

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("bart_cli.runtime.world._meet", lambda *_: None)
    monkeypatch.setattr("torch.distributed.init_process_group", fail)
    with pytest.raises(UsageError, match="rank 1 has the GPU of another rank"), join_world():
        pass


@pytest.mark.parametrize(
    ("text", "node", "tasks"),
    [("8", 0, 8), ("2(x3)", 2, 2), ("8(x2),4", 1, 8), ("8(x2),4", 2, 4), ("1,7(x2)", 1, 7)],
)
def test_tasks_per_node_are_read_in_every_form(
    monkeypatch: pytest.MonkeyPatch, text: str, node: int, tasks: int
) -> None:
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", text)
    monkeypatch.setenv("SLURM_NODEID", str(node))
    assert slurm_tasks_on_this_node() == tasks


def test_tasks_per_node_may_be_unset_but_not_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STEP_TASKS_PER_NODE", "TASKS_PER_NODE", "NTASKS_PER_NODE", "NODEID"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    assert slurm_tasks_on_this_node() == 1
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "many")
    with pytest.raises(UsageError, match="many"):
        slurm_tasks_on_this_node()

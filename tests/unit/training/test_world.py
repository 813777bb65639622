"""The process group: what is left of it when the world is left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

LEAVE = """
from pathlib import Path

from bart_cli.training.world import join_world

def threads():
    return [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]

with join_world() as world:
    assert world.sum(1) == 2
    import torch.distributed.fsdp  # as training does, once it knows that it shards
    assert any("gloo" in name for name in threads()), threads()
assert not any("gloo" in name for name in threads()), threads()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to list threads")
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the group is NCCL's")
def test_no_thread_of_the_process_group_is_left_to_abort_the_exit(tmp_path: Path) -> None:
    script = tmp_path / "leave.py"
    script.write_text(LEAVE, encoding="utf-8")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    result = subprocess.run(
        [sys.executable, *torchrun, script],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr

"""The Dockerfile: copied files exist and are not ignored, torch is kept, the user is not root."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EVERY = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
STAGES = [stage for stage in EVERY if "COPY" in stage]


@pytest.mark.parametrize("stage", STAGES, ids=["cpu", "gpu"])
def test_copied_files_exist_and_are_not_ignored(stage: str) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = [line[1:] for line in lines if line.startswith("!")]
    copied = [
        w for line in re.findall(r"^COPY (.*) \S+$", stage, re.MULTILINE) for w in line.split()
    ]
    assert {"bart_cli", "presets", "pyproject.toml"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists()
        assert any(fnmatch(name, pattern) for pattern in let_through), name


@pytest.mark.parametrize("stage", STAGES, ids=["cpu", "gpu"])
def test_the_image_runs_the_command_as_an_unprivileged_user(stage: str) -> None:
    assert re.search(r"^USER 10001$", stage, re.MULTILINE)
    assert 'ENTRYPOINT ["bart"]' in stage
    assert "--uid 10001" in stage


def test_the_serve_stage_is_the_cpu_stage_with_another_entry_point() -> None:
    (serve,) = [stage for stage in EVERY if stage not in STAGES]
    assert serve.startswith("cpu AS serve\n")  # and hence its user
    assert "USER" not in serve
    assert 'ENTRYPOINT ["bart", "serve", "--host", "0.0.0.0"]' in serve


def test_nvidias_torch_is_kept_by_a_constraint_and_checked_afterwards() -> None:
    (gpu,) = [stage for stage in STAGES if stage.startswith("nvcr.io/nvidia/pytorch")]
    assert "--constraint /tmp/torch.txt" in gpu
    assert "cmp /tmp/torch.txt /tmp/torch-after.txt" in gpu


def test_the_linter_reports_no_problems() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    program = str(linter) if linter.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (part of the extra `dev`)")
    result = subprocess.run(
        [program, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout

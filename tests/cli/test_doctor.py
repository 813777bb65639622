"""`bart doctor`: its checks, its advice, and its failures."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bart_cli import doctor
from bart_cli.config.presets import preset_names
from tests.cli.test_commands import bart
from tests.servers.hub import serve_hub


def test_doctor_describes_this_machine_and_exits_with_0() -> None:
    result = bart("doctor")
    assert result.returncode == 0, result.stderr
    assert "nothing essential is broken" in result.stdout
    assert "torch" in result.stdout
    found = {row["name"]: row for row in json.loads(bart("doctor", "--json").stdout)}
    import torch

    assert found["torch"]["found"] == torch.__version__
    assert "fp32" in found["precisions"]["found"]
    assert found["presets"]["found"].startswith(f"{len(preset_names())} ")
    # The environment of the tests sets a hub address on which nothing listens.
    assert found["hub"]["state"] == "note"
    assert "127.0.0.1:9 does not respond" in found["hub"]["found"]
    assert "HF_ENDPOINT" in found["hub"]["advice"]


def test_a_broken_package_is_reported_with_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "safetensors.py").write_text("raise ImportError('libfoo.so is missing')\n")
    here = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-m", "bart_cli", "doctor"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{here}", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "broken: safetensors" in result.stdout
    assert "libfoo.so is missing" in result.stdout
    assert "pip install --force safetensors" in result.stdout


def test_what_only_some_commands_need_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("rouge-score", "lddl"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name == "apex" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["extra data"].state == "ok"
    assert found["extra eval"].state == "note"
    assert found["extra eval"].found == "not installed: rouge-score"
    assert "[eval]': for bart evaluate" in found["extra eval"].advice
    assert found["lddl"].state == "ok"
    assert found["hub"].found == "not checked: HF_HUB_OFFLINE is set"
    assert found["apex"].state == "note"
    assert "unrelated project" in found["apex"].found


def test_little_disk_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_DISK", 10**9)
    monkeypatch.setattr(doctor, "LITTLE_SHARED_MEMORY", 10**9)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["disk, this folder"].state == "note"
    assert "--ipc=host" in found["shared memory"].advice


def test_a_hub_that_answers_is_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub(tmp_path) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        found = {finding.name: finding for finding in doctor.examine()}
    assert found["hub"].state == "ok"


@pytest.mark.parametrize("address", ["foo", "http://x:port", "http://[::1", "http://a b"])
def test_an_invalid_hub_address_is_reported(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    finding = doctor._hub()
    assert finding.state == "note"
    assert f"{address} does not respond" in finding.found

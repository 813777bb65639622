"""Preprocessing in processes: killed and restarted, and with manually started workers."""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bart_cli.data.preprocess.pretrain import PreprocessSettings, preprocess_pretrain
from bart_cli.errors import BartError
from bart_cli.progress import Reporter
from bart_cli.tokenizer import Tokenizer
from tests.command import assert_gone, bart, family, start
from tests.conftest import SENTENCES

FILES = 10


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    """Write ten files, hence ten tasks, and a tokenizer."""
    root = tmp_path_factory.mktemp("corpus")
    (root / "source").mkdir()
    for number in range(FILES):
        lines = [
            f"doc-{number}-{i} "
            + " ".join(f"{SENTENCES[(i + k) % 4]} It was day {i * k}." for k in range(12))
            for i in range(150)
        ]
        (root / "source" / f"{number}.txt").write_text("\n".join(lines), encoding="utf-8")
    tiny_tokenizer.save(root / "bpe")
    return root


def command(corpus: Path, out: Path, *more: object) -> list[object]:
    return [
        *("preprocess", "pretrain", "--input", f"x={corpus / 'source'}"),
        *("--tokenizer", corpus / "bpe", "--target-length", 64, "--target-length", 128),
        *("--shards", 4, "--deduplicate", "--out", out, *more),
    ]


def run(corpus: Path, out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return bart(*command(corpus, out, *more))


def has_results(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix != ".tmp" for path in folder.iterdir())


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def undisturbed(corpus: Path) -> Path:
    settings = PreprocessSettings(
        (("x", corpus / "source", "lines"),), (64, 128), 4, deduplicate=True, weights=(1.0,)
    )
    tokenizer, environment = Tokenizer.from_pretrained(str(corpus / "bpe")), dict(os.environ)
    preprocess_pretrain(settings, corpus / "undisturbed", tokenizer, reporter=Reporter())
    # Otherwise Dask would leave OMP_NUM_THREADS=1 set, and torch would train on one core.
    assert dict(os.environ) == environment
    return corpus / "undisturbed"


def test_rerunning_after_kill_9_at_every_stage_gives_the_same_bytes(
    corpus: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for watched in (out / ".work/hashes", out / ".work/reports", out / "128/train"):
        words = command(corpus, out, "--workers", 1)
        started = start(*words).until(functools.partial(has_results, watched))
        children = family(started)
        os.kill(started.pid, signal.SIGKILL)
        started.wait()
        assert_gone(children)
        assert not (out / "report.json").exists()
    result = run(corpus, out, "--workers", 1)
    assert result.returncode == 0, result.stderr
    assert "resuming from the files in" in result.stderr
    assert digest(out) == digest(undisturbed)


def test_workers_started_by_hand_give_the_same_shards(
    corpus: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with dask_cluster(tmp_path, workers=2) as address:
        result = run(corpus, tmp_path / "out", "--scheduler", address)
    assert result.returncode == 0, result.stderr
    assert digest(tmp_path / "out") == digest(undisturbed)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://127.0.0.1:9", "host"])
def test_a_scheduler_that_does_not_answer_is_named(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr("bart_cli.data.preprocess.cluster.SCHEDULER_SECONDS", 0.5)
    settings = PreprocessSettings(inputs=(("x", corpus / "source", "lines"),))
    tokenizer = Tokenizer.from_pretrained(str(corpus / "bpe"))
    with pytest.raises(BartError, match=f"{address} does not respond"):
        preprocess_pretrain(
            settings, tmp_path / "out", tokenizer, scheduler=address, reporter=Reporter()
        )


@contextmanager
def dask_cluster(folder: Path, workers: int) -> Iterator[str]:
    """Start `dask scheduler` and `dask worker` processes as on a cluster."""
    import json

    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    local = ["--host", "127.0.0.1", "--scheduler-file", str(file)]
    commands = [[*dask, "scheduler", *local, "--port", "0", "--no-dashboard"]]
    for number in range(workers):
        place = ["--local-directory", str(folder / f"worker-{number}")]
        commands.append([*dask, "worker", *local, *place, "--nthreads", "1", "--no-dashboard"])
    processes = []
    try:
        for line in commands:
            processes.append(
                subprocess.Popen(line, stderr=subprocess.DEVNULL, start_new_session=True)
            )
            deadline = time.monotonic() + 60
            while not file.is_file() and time.monotonic() < deadline:
                time.sleep(0.05)
        time.sleep(0.5)  # the file takes a moment to appear
        yield json.loads(file.read_text())["address"]
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

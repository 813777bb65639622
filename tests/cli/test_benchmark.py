"""`bart benchmark` through the real command: tables on standard output, files in --out."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from tests.cli.test_commands import bart
from tests.command import decoded, start, start_ranks

TINY = "model.d_model=32 model.encoder_layers=1 model.decoder_layers=1 model.vocab_size=400".split()
SMALL = [word for key in TINY for word in ("--set", key)]
QUICK = ("--repeats", 3, "--warmup", 1, "--seed", 3)


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_two_processes_take_part_in_a_step_and_a_batch_too_large_is_only_a_row(
    tmp_path: Path,
) -> None:
    result = bart(
        *("benchmark", "train", "--preset", "tiny-cpu-finetune", "--precision", "fp32"),
        *("--processes", 2, "--batch-size", "2,1000000000", *SMALL, *QUICK, "--out", tmp_path),
    )
    assert result.returncode == 0, result.stderr
    for words in ("Throughput - fp32", "Weak scaling - fp32", "out of memory"):
        assert words in result.stdout
    small, large = lines(tmp_path)
    assert (small["name"], small["outcome"], small["items"]) == ("Fine-tuning", "ok", [4, 4, 4])
    assert set(small["latency"]) == {"mean", "50%", "90%", "95%", "99%"}  # type: ignore[call-overload]
    assert (large["size"], large["outcome"]) == (1000000000, "out of memory")
    assert (tmp_path / "results.png").is_file()
    assert "| out of memory |" in (tmp_path / "results.md").read_text()


def test_under_a_launcher_the_ranks_measure_themselves(tmp_path: Path) -> None:
    ranks = start_ranks(
        *(2, "benchmark", "train", "--preset", "tiny-cpu", "--precision", "fp32"),
        *("--batch-size", 2, *SMALL, *QUICK, "--out", tmp_path),
    )
    first, second = (decoded(rank.wait()) for rank in ranks)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert "Weak scaling" in first.stdout
    assert "1/1 rows" in first.stderr
    assert second.stdout == ""  # rank 0 reports
    assert [row["items"] for row in lines(tmp_path)] == [[4, 4, 4]]


def test_a_signal_ends_the_workers_with_one_line(tmp_path: Path) -> None:
    command = start(
        *("benchmark", "train", "--preset", "tiny-cpu", "--precision", "fp32", *SMALL),
        *("--processes", 1, "--batch-size", 1, "--repeats", 100_000, "--seconds", 900),
        *("--out", tmp_path),
    )
    workers: set[int] = set()
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    while command.running and not any(_is_worker(pid) for pid in workers):
        workers = set(map(int, children.read_text().split()))
        time.sleep(0.05)
    command.signal(signal.SIGTERM)
    result = decoded(command.wait())
    assert result.returncode == 143
    assert result.stderr.splitlines()[-1] == "error: terminated"
    assert not any(_is_worker(pid) for pid in workers)


def _is_worker(pid: int) -> bool:
    path = Path(f"/proc/{pid}/oom_score_adj")  # a worker asks the kernel to end it first
    try:
        return path.read_text() == "1000\n"
    except OSError:
        return False

"""The log of a run: truncated, damaged, and on a full disk."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from bart_cli.errors import BartError, UsageError
from bart_cli.training.metrics import MetricsLog, read_metrics

ROW = b'{"step": 1, "loss": null}\n'


@pytest.mark.parametrize("tail", [b'{"step": 2, "lo', b"\xff\xfe", b"\0" * 50, b"3"])
def test_a_truncated_tail_is_ignored_and_other_damage_is_reported(
    tmp_path: Path, tail: bytes
) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(ROW + tail)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]
    log.write_bytes(ROW + tail + b"\n" + ROW)
    with pytest.raises(UsageError, match=r"metrics\.jsonl, line 2: not a row"):
        read_metrics(tmp_path)


def test_a_log_can_be_read_while_rows_are_appended(tmp_path: Path) -> None:
    def append() -> None:
        for _ in range(2000):
            with (tmp_path / "metrics.jsonl").open("ab") as log:
                log.write(ROW)

    writer = threading.Thread(target=append)
    writer.start()
    counts = [0]
    while writer.is_alive():
        counts.append(len(read_metrics(tmp_path)))
    writer.join()
    assert counts == sorted(counts)
    assert len(read_metrics(tmp_path)) == 2000


def test_a_full_disk_while_logging_is_reported(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full")
    with pytest.raises(BartError, match=r"cannot write .*metrics\.jsonl.* No space left"):
        log.write({"step": 1})
    log.close()


def test_a_full_disk_names_the_file_of_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = MetricsLog(tmp_path, 0)
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", fail)
    with pytest.raises(BartError, match=r"cannot write .*/tensorboard: .*No space left"):
        log.write({"step": 1, "loss": 1.0})
    log.close()

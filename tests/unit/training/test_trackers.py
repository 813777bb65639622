"""Trackers: the same points as TensorBoard, once each, whatever happens in between.

Judges: TensorBoard's EventAccumulator, MLflow's client over SQLite, Trackio's own storage, and for
W&B the records of its offline file, parsed by its own protocol. It has no reader of that file in
Python; the frames are those of LevelDB's log.
"""

from __future__ import annotations

import errno
import json
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bart_cli.errors import BartError
from bart_cli.files import write_text
from bart_cli.progress import Reporter
from bart_cli.training import trackers
from bart_cli.training.metrics import read_metrics, scalars
from bart_cli.training.pretrain import run_pretrain
from bart_cli.training.trackers import FILE, Trackers
from tests.unit.training.test_runs import pretrain_config, shards  # noqa: F401

Points = Counter[tuple[str, int, float]]  # name, step, value -> how often


class Server:
    """Data received by fake trackers, by the id of their run."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[str, int]]] = {}
        self.outcomes: dict[str, str] = {}
        self.has: int | None = None  # the last step that it claims to have
        self.down = False  # logging fails
        self.unreachable = False  # starting fails
        self.answers = threading.Event()
        self.answers.set()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """Start a server for clients of wandb and mlflow."""
    server = Server()

    class Fake:
        hint = "Start the server."
        place = "at the server"

        @property
        def has(self) -> int | None:
            return server.has

        def __init__(self, run: Path, kept: dict[str, Any] | None, settings: object) -> None:
            if server.unreachable:
                raise ConnectionError("no route to host\nand more")
            self.kept = kept or {"id": f"run{len(server.points)}", "project": "p"}
            server.points.setdefault(self.kept["id"], [])

        def log(self, step: int, values: Mapping[str, float]) -> None:
            server.answers.wait(20)
            if server.down:
                raise ConnectionError("connection reset")
            server.points[self.kept["id"]] += [(name, step) for name in values]

        def finish(self, outcome: str) -> None:
            server.outcomes[self.kept["id"]] = outcome

    monkeypatch.setitem(trackers.KINDS, "wandb", Fake)
    return server


class Told(Reporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def rows(*steps: int) -> list[dict[str, Any]]:
    """Make rows of a log with a validation every ten steps."""
    found: list[dict[str, Any]] = []
    for step in steps:
        found.append({"step": step, "loss": 1.0, "gradient_norm": float("nan")})
        found += [{"step": step, "validation_loss": 2.0}] if step % 10 == 0 else []
    return found


def points(*steps: int) -> list[tuple[str, int]]:
    return [(name, row["step"]) for row in rows(*steps) for name in scalars(row)]


def begin(
    run: Path, log: list[dict[str, Any]], step: int, reporter: Reporter, *, fresh: bool = False
) -> Trackers:
    return Trackers(run, ["wandb"], {}, log, step, reporter, fresh=fresh)


def test_a_killed_run_goes_on_in_the_same_tracker_run_without_a_point_twice(
    tmp_path: Path, server: Server
) -> None:
    told = Told()
    tracking = begin(tmp_path, [], 0, told)
    for row in rows(5, 10, 15):
        tracking.log(row)
    # Killed, then resumed from step 5, and killed again before it has caught up.
    tracking._senders[0].close("")
    tracking = begin(tmp_path, rows(5, 10, 15), 5, told)
    for row in rows(10):
        tracking.log(row)
    tracking = begin(tmp_path, rows(5, 10), 10, told)
    for row in [*rows(10)[1:], *rows(15, 20)]:  # the postponed validation first
        tracking.log(row)
    tracking.close("done")
    assert server.points == {"run0": points(5, 10, 15, 20)}
    assert server.outcomes == {"run0": "done"}
    assert told.warnings == []


def test_rows_that_a_kill_took_from_the_queue_are_sent_where_the_tracker_can_say_so(
    tmp_path: Path, server: Server
) -> None:
    tracking = begin(tmp_path, [], 0, Reporter())
    for row in rows(5, 10):
        tracking.log(row)
    tracking._senders[0].close("")  # 15 is lost, 20 was not logged
    server.has = 10
    tracking = begin(tmp_path, rows(5, 10, 15), 10, Reporter())
    for row in rows(15, 20):
        tracking.log(row)
    tracking.close("done")
    assert server.points == {"run0": points(5, 10, 15, 20)}


def test_a_tracker_that_fails_is_given_up_and_gets_what_it_missed_from_the_next_start(
    tmp_path: Path, server: Server
) -> None:
    told = Told()
    tracking = begin(tmp_path, [], 0, told)
    tracking.log(rows(5)[0])
    while not server.points["run0"]:
        time.sleep(0.01)
    server.down = True
    for row in rows(10, 15):
        tracking.log(row)
    tracking.close("stopped by SIGTERM")
    assert told.warnings == ["wandb failed and gets no more rows: connection reset"]
    server.down, server.unreachable = False, True
    begin(tmp_path, rows(5, 10, 15), 15, told).close("stopped by SIGTERM")
    assert told.warnings[1:] == ["training without wandb: no route to host"]
    server.unreachable = False
    tracking = begin(tmp_path, rows(5, 10, 15, 20), 20, told)
    tracking.log(rows(25)[0])
    tracking.close("done")
    assert server.points == {"run0": points(5, 10, 15, 20, 25)}


def test_a_disk_that_is_full_at_the_end_costs_no_point(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    told = Told()
    tracking = begin(tmp_path, [], 0, told)
    tracking.log(rows(5)[0])
    with monkeypatch.context() as patch:
        patch.setattr(trackers, "write_text", fail)
        tracking.close("failed")
    assert told.warnings == [f"cannot write {tmp_path / FILE}: No space left on device"]
    tracking = begin(tmp_path, rows(5), 5, told)
    tracking.log(rows(15)[0])
    tracking.close("done")
    assert server.points == {"run0": points(5, 15)}


def test_a_rollback_begins_a_new_run_with_the_history_before_it(
    tmp_path: Path, server: Server
) -> None:
    begin(tmp_path, rows(5, 10, 15), 15, Reporter()).close("done")
    begin(tmp_path, rows(5, 10, 15), 10, Reporter(), fresh=True).close("done")
    assert server.points == {"run0": points(5, 10, 15), "run1": points(5, 10)}
    assert json.loads((tmp_path / FILE).read_text())["wandb"]["id"] == "run1"


def test_a_server_that_does_not_answer_holds_nothing_up(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "CLOSE_SECONDS", -4.9)
    told = Told()
    server.answers.clear()
    tracking = begin(tmp_path, [], 0, told)
    tracking.log(rows(5)[0])
    tracking.close("done")
    server.answers.set()
    assert told.warnings == ["wandb has not received the last rows: no answer"]


def test_a_tracker_that_cannot_be_started_stops_a_new_run(tmp_path: Path, server: Server) -> None:
    server.unreachable = True
    with pytest.raises(BartError, match=r"cannot start wandb: no route to host$") as caught:
        begin(tmp_path, [], 0, Reporter())
    assert caught.value.hint == "Start the server. Or remove wandb from training.loggers."
    assert not list(tmp_path.iterdir())


def wandb_records(run: Path) -> Iterator[Any]:
    """Read the records of all offline files of a run, in the order of writing."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(run.glob("wandb/offline-run-*/*.wandb"), key=lambda p: p.stat().st_mtime):
        data, at, parts = path.read_bytes(), 7, b""
        assert data[:4] == b":W&B"
        while at + 7 <= len(data):
            if (left := 32768 - at % 32768) < 7:
                at += left
                continue
            _, length, kind = struct.unpack_from("<IHB", data, at)
            parts += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # a whole record, or its last part
                record = Record()
                record.ParseFromString(parts)
                yield record
                parts = b""


def in_wandb(run: Path, kept: Mapping[str, str]) -> tuple[Points, list[str], str]:
    """Points, settings, outcome."""
    found: Points = Counter()
    settings, outcome = [], ""
    for record in wandb_records(run):
        if record.HasField("run"):
            assert record.run.run_id == kept["id"]
            assert record.run.project == kept["project"] == "bart"
        for item in record.config.update:
            settings.append(item.key or ".".join(item.nested_key))
        for item in record.summary.update:
            outcome = json.loads(item.value_json) if item.key == "outcome" else outcome
        if record.HasField("history"):
            values = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            step = values["_step"]
            found.update((n, step, v) for n, v in values.items() if not n.startswith("_"))
    return found, settings, outcome


def in_mlflow(kept: Mapping[str, str]) -> tuple[Points, list[str], str]:
    from mlflow import MlflowClient

    client = MlflowClient()
    run = client.get_run(kept["id"])
    assert run.info.status == "FINISHED"
    found: Points = Counter()
    for name in run.data.metrics:
        history = client.get_metric_history(kept["id"], name)
        found.update((name, point.step, point.value) for point in history)
    return found, list(run.data.params), run.data.tags["outcome"]


def in_trackio(kept: Mapping[str, str]) -> tuple[Points, list[str], str]:
    from trackio.sqlite_storage import SQLiteStorage

    where = {"project": kept["project"], "run": kept["id"]}
    found: Points = Counter()
    for row in SQLiteStorage.get_logs(**where):
        values = {name: v for name, v in row.items() if name not in ("step", "timestamp")}
        found.update((name, row["step"], v) for name, v in values.items())
    settings = SQLiteStorage.get_run_config(**where) or {}
    alerts = SQLiteStorage.get_alerts(kept["project"], run_name=kept["id"])
    outcome = max(alerts, key=lambda alert: alert["timestamp"])["title"]
    return found, [name for name in settings if not name.startswith("_")], outcome


def in_tensorboard(run: Path) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return Counter(
        (name, point.step, point.value)
        for name in events.Tags()["scalars"]
        for point in events.Scalars(name)
    )


class Boom(Reporter):
    """Fails after the second validation has been reported."""

    reports = 0

    def info(self, text: str) -> None:
        self.reports += "validation loss" in text
        if self.reports == 2:
            raise RuntimeError("boom")


@pytest.mark.slow
def test_every_tracker_has_the_points_of_tensorboard_after_a_failure_and_a_resume(
    shards: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("wandb", "mlflow", "sqlalchemy", "trackio"):
        pytest.importorskip(module, reason=f"{module}: install the test extra")
    for name, value in {
        "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }.items():
        monkeypatch.setenv(name, value)
    run = tmp_path / "run"
    config = pretrain_config(
        shards,
        log_every=1,
        max_steps=6,
        checkpoint_every=3,
        validate_every=2,
        loggers=["tensorboard", "wandb", "mlflow", "trackio"],
    )
    with pytest.raises(RuntimeError, match="boom"):
        run_pretrain(config, run, reporter=Boom())
    kept = json.loads((run / FILE).read_text())
    assert kept["wandb"]["sent"]["loss"] == 4
    # As left by a kill.
    for entry in kept.values():
        entry |= {"sent": {}, "live": True}
    write_text(run / FILE, json.dumps(kept))
    result = run_pretrain(config, run, reporter=Reporter())
    assert result.outcome == "done"
    again = json.loads((run / FILE).read_text())
    assert {n: e["id"] for n, e in again.items()} == {n: e["id"] for n, e in kept.items()}

    log = Counter((name, row["step"]) for row in read_metrics(run) for name in scalars(row))
    assert {step for _, step in log} == {1, 2, 3, 4, 5, 6}
    assert ("validation_loss", 6) in log
    board = in_tensorboard(run)
    assert Counter((name, step) for name, step, _ in board) == log
    loss = {step: value for name, step, value in board if name == "loss"}
    for found, settings, outcome in (
        in_wandb(run, again["wandb"]),
        in_mlflow(again["mlflow"]),
        in_trackio(again["trackio"]),
    ):
        assert Counter((name, step) for name, step, _ in found.elements()) == log
        assert {s: v for n, s, v in found if n == "loss"} == pytest.approx(loss)
        assert any(name.startswith("optimizer") for name in settings)
        assert outcome == "done"

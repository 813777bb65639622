"""The page of `bart runs watch` follows a run, ends with it, and needs no network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bart_cli.config.run import FinetuneConfig, save_config
from bart_cli.errors import UsageError
from bart_cli.figures import SPANS, plot
from bart_cli.files import strict_json, write_text
from bart_cli.progress import Reporter
from bart_cli.runtime.locks import locked_folder
from bart_cli.training import watch
from bart_cli.training.metrics import Row
from bart_cli.training.watch import watch_run, write_run_page
from tests.unit.evaluation.test_report import HOSTILE, Page

SAMPLE = {"article": HOSTILE, "reference": "Rain fell.", "prediction": "It rained."}


def logged(step: int, loss: float) -> Row:
    row: Row = {"step": step, "loss": loss, "learning_rate": 1e-4, "gradient_norm": 0.5}
    return row | {"skipped": 0, "sequences_per_second": 8.0, "tokens_per_second": 99.0}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run & <b>"
    config = FinetuneConfig.model_validate({"description": HOSTILE.replace("\ud800", "")})
    save_config(config, folder / "config.yaml")
    append(folder, logged(10, 5.0), logged(20, math.nan), logged(30, 4.0))
    (folder / "checkpoints").mkdir()
    return folder


def append(run: Path, *rows: Row) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(strict_json(row) + "\n" for row in rows)


def read(page: Path) -> Page:
    return Page(page.read_text(encoding="utf-8"))


def reloads(page: Page) -> bool:
    return ("http-equiv", "refresh") in page.attributes


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], None]]]:
    """Replace sleeping with these actions, one per call."""
    naps: list[Callable[[], None]] = []
    monkeypatch.setattr(watch.time, "sleep", lambda _: naps.pop(0)())
    yield naps
    assert not naps


def test_the_page_follows_a_run_until_it_ends(run: Path, asleep: list[Callable[[], None]]) -> None:
    page = run / "watch.html"
    held = ExitStack()
    held.enter_context(locked_folder(run, Reporter()))

    def nothing_validated() -> None:
        found = read(page)
        assert reloads(found)
        assert "running" in found.text
        assert "None yet" in found.text
        assert found.tags.count("polyline") == 6  # the loss has a gap
        append(run, {"step": 30, "validation_loss": 3.5, "rouge1": 20.25})
        samples = {"step": 30, "samples": [SAMPLE]}
        write_text(run / "samples.json", strict_json(samples, ascii_only=True))

    def validated() -> None:
        found = read(page)
        assert "3.5000" in found.text
        assert "20.2500" in found.text
        assert "It rained." in found.text
        append(run, logged(40, 3.0))
        write_text(run / "done.json", '{"outcome": "done"}\n')
        held.close()

    asleep += [nothing_validated, validated]
    summary = watch_run(run, page, 10, write_run_page(run, page, 10))
    assert (summary.state, summary.step) == ("done", 40)
    found = read(page)
    assert not reloads(found)
    assert "no longer updated" in found.text
    assert not {"script", "img", "link", "iframe", "object", "embed", "base"} & set(found.tags)
    assert not [v for _, v in found.attributes if v and v.startswith(("http", "//"))]
    assert {p.name for p in run.iterdir() if p.suffix == ".tmp"} == set()


def test_ctrl_c_leaves_a_page_that_no_longer_reloads(
    run: Path, asleep: list[Callable[[], None]]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    asleep.append(interrupt)
    with locked_folder(run, Reporter()):
        first = write_run_page(run, run / "watch.html", 10)
        assert watch_run(run, run / "watch.html", 10, first).state == "running"
    assert not reloads(read(run / "watch.html"))


def test_a_dead_run_is_written_once_and_samples_of_abandoned_steps_are_left_out(run: Path) -> None:
    write_text(
        run / "samples.json", strict_json({"step": 31, "samples": [SAMPLE]}, ascii_only=True)
    )
    (run / "evaluation-test").mkdir()
    for name in ("metrics.json", "report.html"):
        (run / "evaluation-test" / name).touch()
    page = run.parent / "pages" / "one.html"
    summary = write_run_page(run, page, 10)
    written = page.stat()
    assert watch_run(run, page, 10, summary).state == "not finished"
    assert page.stat() == written
    found = read(page)
    assert not reloads(found)
    assert "It rained." not in found.text
    assert ("href", "../run%20%26%20%3Cb%3E/evaluation-test/report.html") in found.attributes


def test_a_run_that_has_logged_nothing_has_a_page_and_a_folder_that_is_no_run_has_none(
    run: Path,
) -> None:
    (run / "metrics.jsonl").unlink()
    write_run_page(run, run / "watch.html")
    assert "Nothing logged yet." in read(run / "watch.html").text
    with pytest.raises(UsageError, match="not a run folder"):
        write_run_page(run.parent, run.parent / "watch.html")
    assert not (run.parent / "watch.html").exists()


def test_spikes_of_a_long_line_stay_and_what_is_not_finite_is_a_gap() -> None:
    ys = [1.0] * 10_000
    ys[1234], ys[5678] = 9.0, math.nan
    found = plot("x", {"y": (list(range(10_000)), ys)})
    assert found is not None
    assert (found["low"], found["high"], found["last"]) == ("1", "9", "9,999")
    [line] = found["lines"]
    assert len(" ".join(line["strokes"]).split()) <= 2 * SPANS
    assert " 39.5,0.0 " in line["strokes"][0]
    one = plot("x", {"y": ([1, 2, 3, 4], [1.0, math.nan, math.inf, 1.0])})
    assert one is not None
    assert one["lines"][0]["strokes"] == ["0.0,55.0 0.0,55.0", "320.0,55.0 320.0,55.0"]
    assert plot("x", {"y": ([1], [math.nan])}) is None

"""Tables of measured rows, held against the reference's published ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bart_cli.benchmark.run import Report, write_report
from bart_cli.benchmark.tables import Row, TextTable, make_tables


def row(processes: int, precision: str, size: int, speed: float, **changes: object) -> Row:
    """A row with three measurements around this many sequences per second."""
    values: dict[str, object] = {
        "name": "Pre-training",
        "side": "bart",
        "length": 128,
        "place": 0,
        "seconds": [size / speed * f for f in (0.9, 1.0, 1.2)],
        "items": [float(size)] * 3,
        "tokens": [size * 200] * 3,
    }
    return Row(
        processes=processes,
        precision=precision,
        size=size,
        **(values | changes),  # type: ignore[arg-type]
    )


def test_training_rows_form_the_published_table_of_the_reference() -> None:
    rows = [
        row(1, "tf32", 100, 202.53),
        row(1, "bf16", 200, 326.53),
        row(8, "tf32", 100, 1556.23),
        row(8, "bf16", 200, 2572.86),
    ]
    table, details = make_tables(rows, "GPU")
    assert table.header == [
        "GPUs",
        "Sequence length",
        "Batch size / GPU (tf32, bf16)",
        "Throughput - tf32",
        "Throughput - bf16",
        "Throughput speedup (tf32 - bf16)",
        "Weak scaling - tf32",
        "Weak scaling - bf16",
    ]
    assert table.rows == [
        ["1", "128", "100, 200", "202.53", "326.53", "1.61", "1.00", "1.00"],
        ["8", "128", "100, 200", "1556.23", "2572.86", "1.65", "7.68", "7.88"],
    ]
    assert details.header[0] == "GPUs"


def test_a_row_out_of_memory_is_reported_and_the_others_are_kept() -> None:
    rows = [
        row(1, "fp32", 2, 10.0),
        row(1, "fp32", 4, 10.0, place=1, outcome="out of memory", seconds=[], items=[], tokens=[]),
    ]
    first, details = make_tables(rows, "process")
    assert [line[3] for line in first.rows] == ["10.00", "out of memory"]
    assert "out of memory" in details.rows[1]
    for line in rows:
        line.name = "Inference"
    (inference,) = make_tables(rows, "process")
    assert inference.title.startswith("Inference, FP32, 1 process:")
    for line in rows:
        line.processes = 8
    assert make_tables(rows, "GPU")[0].title.startswith("Inference, FP32, 8 GPUs:")
    assert inference.rows[1][:3] == ["4", "out of memory", "-"]


def test_latencies_are_percentiles_of_the_measurements() -> None:
    columns = {"seconds": [0.1 * i for i in range(1, 101)], "items": [1.0] * 100}
    measured = row(1, "bf16", 1, 1.0, tokens=[200] * 100, **columns)
    latency = measured.summary()["latency"]
    assert latency["mean"] == pytest.approx(5.05)
    assert latency["90%"] == pytest.approx(9.01)
    assert latency["99%"] == pytest.approx(9.901)


def test_utilization_is_the_flops_done_over_the_ceiling_that_was_measured() -> None:
    measured = row(1, "bf16", 1, 1.0, flops=[50.0] * 3, ceiling=[90.0, 100.0, 120.0])
    assert measured.summary()["mfu_measured"] == pytest.approx(0.5)
    assert measured.summary()["mfu_data_sheet"] is None
    measured.peak_flops = 200.0
    assert measured.summary()["mfu_data_sheet"] == pytest.approx(0.25)


def test_a_comparison_uses_the_ratio_of_each_pair_of_measurements() -> None:
    ours = row(1, "fp32", 8, 20.0)
    theirs = row(1, "fp32", 8, 10.0, side="transformers")
    theirs.seconds = [second * f for second, f in zip(theirs.seconds, (1.1, 2.0, 0.5), strict=True)]
    *_, table = make_tables([ours, theirs], "process")
    assert table.rows[0][7:9] == ["2.20", "1.00 - 4.00"]


def test_text_is_counted_in_megabytes() -> None:
    (table,) = make_tables([row(1, "fp32", 2, 4e6, name="preprocess", items=[2.0] * 3)], "process")
    assert table.rows[0][2] == "4.00"


def test_a_report_is_three_files_and_markdown_that_renders(tmp_path: Path) -> None:
    rows = [row(1, "fp32", 2, 10.0), row(1, "fp32", 4, 12.0, place=1)]
    table = TextTable("Title", ["a", "b"], [["1", "2"]])
    report = Report(tmp_path, rows=rows, profiles={"trace.json": table})
    write_report(report, "Training", "bart benchmark train")
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["throughput"] for line in lines] == pytest.approx([10.0, 12.0])
    assert "| a | b |\n| --- | --- |\n| 1 | 2 |" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")

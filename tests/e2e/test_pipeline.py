"""Run the whole pipeline with the real command on little data, and check its output files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bart_cli.model.formats import load_model
from tests.cli.test_commands import bart

SMALL = [
    *("--set", "model.encoder_layers=1", "--set", "model.decoder_layers=1"),
    *("--set", "model.d_model=32", "--set", "model.encoder_ffn_dim=32"),
    *("--set", "model.decoder_ffn_dim=32", "--set", "training.max_steps=12"),
    *("--set", "training.log_every=4", "--set", "training.checkpoint_every=6"),
    *("--set", "schedule.warmup_steps=2", "--set", "training.global_batch=16"),
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("demo")
    small = ("--megabytes", "0.2", "--test", "8", *SMALL)
    result = subprocess.run(  # not forked: torch reads the number of threads when it is imported
        [sys.executable, "-m", "bart_cli", "demo", "--out", str(out), *small, "--json"],
        # Threads that spin while they wait would take the cores from the other tests.
        env=os.environ | {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return out, json.loads(result.stdout)


def test_the_demo_reports_losses_scores_and_examples(demo: tuple[Path, dict]) -> None:
    _, report = demo
    assert report["last_loss"] < report["first_loss"]
    assert set(report["rouge"]) == {
        "lead-2 baseline",
        "fine-tuned, pre-trained",
        "fine-tuned, from scratch",
    }
    assert len(report["examples"]) == 3
    assert all(e["article"] and e["reference"] for e in report["examples"])


def test_no_stage_takes_threads_from_the_next(demo: tuple[Path, dict]) -> None:
    """Dask's workers get OMP_NUM_THREADS=1, but the stages after preprocessing do not."""
    for run in ("finetuned-pre-trained", "finetuned-from-scratch"):
        metrics = json.loads((demo[0] / run / "evaluation-test" / "metrics.json").read_text())
        assert metrics["settings"]["devices"] == ["1 x cpu (2 threads)"]


def test_a_run_folder_has_the_documented_files(demo: tuple[Path, dict]) -> None:
    run = demo[0] / "finetuned-pre-trained"
    for name in ("config.yaml", "metrics.jsonl", "curves.png", "model/model.safetensors"):
        assert (run / name).is_file(), name
    assert (run / "checkpoints/step-00000012/optimizer.safetensors").is_file()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8, 12]
    predictions = (run / "evaluation-test/predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 8
    assert load_model(run).generation is not None


def test_a_second_demo_has_nothing_to_do(demo: tuple[Path, dict]) -> None:
    out, first = demo
    result = bart("demo", "--out", out, "--megabytes", 0.2, "--test", 8, *SMALL, "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("is already finished") == 3
    assert json.loads(result.stdout)["rouge"] == first["rouge"]


def test_a_model_is_evaluated_with_other_beams(demo: tuple[Path, dict], tmp_path: Path) -> None:
    run, pairs = demo[0] / "finetuned-pre-trained", demo[0] / "sample/summarization"
    arguments = ["--model", run, "--data", pairs, "--beams", 6, "--limit", 5, "--out", tmp_path]
    result = bart("evaluate", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["articles"] == 5
    assert set(report["baselines"]) == {"lead-1", "lead-2", "lead-3"}
    again = bart("evaluate", *arguments)
    assert "all 5 articles are already decoded" in again.stderr
    other = bart("evaluate", *arguments, "--max-length", 20)
    assert other.returncode == 2
    assert "holds an evaluation with other settings" in other.stderr


def test_a_file_and_standard_input_give_the_same_summary(
    demo: tuple[Path, dict], tmp_path: Path
) -> None:
    run = demo[0] / "finetuned-pre-trained"
    text = demo[1]["examples"][0]["article"]
    (tmp_path / "a.txt").write_text(text)
    from_file = bart("summarize", tmp_path / "a.txt", "--model", run)
    assert from_file.returncode == 0, from_file.stderr
    assert from_file.stdout.strip()
    piped = bart("summarize", "-", "--model", run, stdin=text)
    assert piped.stdout == from_file.stdout
    (row,) = json.loads(bart("summarize", tmp_path / "a.txt", "--model", run, "--json").stdout)
    assert row["summary"] == from_file.stdout.strip()

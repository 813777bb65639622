"""`bart evaluate` as a user runs it: processes, stops, invalid input."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
import typer

from bart_cli.cli import evaluate as evaluate_command
from bart_cli.cli.app import build_app
from bart_cli.errors import UsageError
from bart_cli.model.bart import Bart
from bart_cli.tokenizer import Tokenizer
from tests.command import bart, decoded, start, start_ranks
from tests.conftest import SENTENCES, save_model, tiny_model_config

ARTICLES = 24
PARAMETERS = inspect.signature(evaluate_command.command).parameters
# The same number of threads everywhere: sums of floats depend on it.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "120"}


def evaluate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return bart("evaluate", *arguments, **ENVIRONMENT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    """Write a model with random weights and pairs of many lengths, in three formats."""
    root = tmp_path_factory.mktemp("evaluate")
    torch.manual_seed(0)
    model = Bart(tiny_model_config(max_position_embeddings=128))
    save_model(root / "model", model, tiny_tokenizer)
    sources = [" ".join((SENTENCES * 2)[i % 4 : i % 4 + 1 + i % 3]) for i in range(ARTICLES)]
    targets = [SENTENCES[i % 4] for i in range(ARTICLES)]
    rows = [
        {"id": f"n{i}", "article": source, "summary": target}
        for i, (source, target) in enumerate(zip(sources, targets, strict=True))
    ]
    pairs = root / "pairs"
    pairs.mkdir()
    (pairs / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (pairs / "val.source").write_text("\n" + "".join(f"{source}\n" for source in sources[1:]))
    (pairs / "val.target").write_text("".join(target + "\n" for target in targets))
    (root / "empty").mkdir()
    (root / "empty" / "test.jsonl").touch()
    return root


def options(folder: Path, out: Path) -> list[object]:
    return [
        *("--model", folder / "model", "--data", folder / "pairs", "--out", out),
        *("--batch-size", 2, "--max-length", 60, "--min-length", 40, "--beams", 2),
        *("--set", "evaluation.bootstrap=50"),
    ]


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run an uninterrupted evaluation."""
    out = tmp_path_factory.mktemp("whole")
    result = evaluate(*options(folder, out), "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == json.loads((out / "metrics.json").read_text()) | {
        "out": str(out)
    }
    return out


def assert_equal_results(one: Path, other: Path) -> None:
    names = ("predictions.jsonl",)
    assert [(one / n).read_bytes() for n in names] == [(other / n).read_bytes() for n in names]
    scores, others = (json.loads((out / "metrics.json").read_text()) for out in (one, other))
    for key in ("rouge", "interval", "baselines", "articles", "cut", "words"):
        assert scores[key] == others[key]


def test_predictions_are_in_order_with_their_scores(whole: Path) -> None:
    rows = [json.loads(line) for line in (whole / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"n{i}" for i in range(ARTICLES)]
    metrics = json.loads((whole / "metrics.json").read_text())
    for kind, mean in metrics["rouge"].items():
        assert sum(row[kind] for row in rows) / ARTICLES == pytest.approx(mean, abs=0.01)
    assert set(metrics["baselines"]) == {"lead-1", "lead-2", "lead-3"}
    assert set(metrics["latency"]) == {"mean", "p50", "p90", "p95", "p99", "max"}
    assert metrics["settings"]["generation"]["beams"] == 2
    assert metrics["settings"]["devices"] == ["1 x cpu (1 thread)"]


def test_other_batches_give_the_same_summaries(folder: Path, whole: Path, tmp_path: Path) -> None:
    result = evaluate(*options(folder, tmp_path), "--batch-size", 5, "--max-tokens", 100)
    assert result.returncode == 0, result.stderr
    for out in (whole, tmp_path):
        assert len((out / "predictions.jsonl").read_text().splitlines()) == ARTICLES
    ours, theirs = (
        [json.loads(line)["prediction"] for line in (out / "predictions.jsonl").open()]
        for out in (whole, tmp_path)
    )
    assert ours == theirs


def stop(arguments: list[object], out: Path, how: signal.Signals) -> tuple[int, str]:
    """Start, send a signal once a round is saved; return the exit code and the output."""
    path = out / "progress.jsonl"
    process = start("evaluate", *arguments, **ENVIRONMENT).until(
        lambda: path.is_file() and path.read_text().count("\n") > 1
    )
    assert process.running, "the evaluation ended before it could be stopped"
    if how == signal.SIGKILL:
        process.signal(how)  # to all processes
    else:
        os.kill(process.pid, how)
    result = decoded(process.wait())
    assert not (out / "metrics.json").exists()
    return result.returncode, result.stderr


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_killed_evaluation_resumes_with_another_number_of_processes(
    folder: Path, whole: Path, tmp_path: Path, before: int, after: int
) -> None:
    arguments = [*options(folder, tmp_path)]
    stop([*arguments, "--processes", before], tmp_path, signal.SIGKILL)
    kept = (tmp_path / "progress.jsonl").read_text().splitlines()
    ranks = start_ranks(after, "evaluate", *arguments, "--json")
    result, *_ = [decoded(rank.wait()) for rank in ranks]
    assert result.returncode == 0, result.stderr
    assert "articles are already decoded" in result.stderr
    assert_equal_results(whole, tmp_path)
    rounds = (tmp_path / "progress.jsonl").read_text().splitlines()
    assert rounds[: len(kept) - 1] == kept[:-1]
    report = json.loads(result.stdout)
    assert report["settings"]["devices"] == [f"{n} x cpu (1 thread)" for n in (before, after)]
    # The numbers are for all articles, not only for those decoded last.
    seconds = [b["seconds"] for line in rounds[1:] for b in json.loads(line)["batches"]]
    assert len(seconds) == report["settings"]["batches"] == ARTICLES / 2
    assert report["latency"]["mean"] == pytest.approx(sum(seconds) / len(seconds))


@pytest.mark.parametrize(
    ("how", "processes"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGTERM, 2)]
)
def test_a_signal_ends_it_with_one_line_and_its_exit_code(
    folder: Path, tmp_path: Path, how: signal.Signals, processes: int
) -> None:
    arguments = [*options(folder, tmp_path), "--processes", processes]
    code, words = stop(arguments, tmp_path, how)
    assert code == 128 + how
    assert words.count("error:") == 1
    assert f"stopped by {how.name}: " in words
    assert f"of {ARTICLES} articles are decoded" in words
    assert "Traceback" not in words


def test_scoring_settings_may_change_without_decoding_again(folder: Path, whole: Path) -> None:
    before = (whole / "progress.jsonl").read_bytes()
    result = evaluate(*options(folder, whole), "--bleu", "--set", "evaluation.stemmer=false")
    assert result.returncode == 0, result.stderr
    assert "all 24 articles are already decoded" in result.stderr
    assert "BLEU" in result.stdout
    assert (whole / "progress.jsonl").read_bytes() == before
    assert "tok:13a" in json.loads((whole / "metrics.json").read_text())["bleu_signature"]
    assert evaluate(*options(folder, whole)).returncode == 0


def test_an_empty_article_has_an_empty_prediction(folder: Path, tmp_path: Path) -> None:
    result = evaluate(
        *options(folder, tmp_path), "--split", "validation", "--limit", 2, "--return-sequences", 2
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").open()]
    assert [row["id"] for row in rows] == ["1", "2"]
    assert [len(row["others"]) for row in rows] == [1, 1]
    assert [bool(row["prediction"]) for row in rows] == [False, True]
    assert "1 of 2 pairs have an empty article (first: " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--data {}/pairs --split dev2", ["no dev2 split", "It has: validation, test"]),
        ("--data {}/empty", ["test.jsonl is empty"]),
        ("--data {}/none", ["no such file or folder"]),
        ("--data {}/pairs --preset tiny-cpu", ["is for `bart pretrain`", "tiny-cpu-finetune"]),
        ("--data {}/pairs --preset bart-base", ["describes a model only"]),
        ("--data {}/pairs --max-length 500", ["max_length=500", "128 positions"]),
        ("--data {}/pairs --beams 2 --return-sequences 3", ["return_sequences=3"]),
        ("--data {}/pairs --out {}/model/..", ["config.yaml belongs to something else"]),
    ],
)
def test_invalid_input_gives_one_line(folder: Path, arguments: str, words: list[str]) -> None:
    (folder / "config.yaml").write_text("task: finetune\n")
    given = arguments.replace("{}", str(folder)).split()
    result = evaluate("--model", folder / "model", *given)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr
    assert (folder / "config.yaml").read_text() == "task: finetune\n"


def test_a_run_whose_data_has_moved_asks_for_the_data(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    settings = "task: finetune\ndata: {path: old/prepared/pairs}\n"
    (tmp_path / "config.yaml").write_text(settings)
    with pytest.raises(UsageError, match="no such file or folder: old/prepared/pairs") as caught:
        build_app("evaluate")(args=["evaluate", "--model", str(tmp_path)], standalone_mode=False)
    assert caught.value.hint
    assert caught.value.hint.startswith("Pass --data: ")


def test_invalid_input_ends_every_rank_with_one_line(
    folder: Path, whole: Path, tmp_path: Path
) -> None:
    sooner = "from bart_cli.cli import app; app.RANK_0_SECONDS = 0.5; app.main()"
    ranks = start_ranks(2, "-c", sooner, "evaluate", *options(folder, whole), "--beams", 3)
    for result in (decoded(rank.wait()) for rank in ranks):  # a launcher prints the first only
        assert result.returncode == 2
        assert result.stderr.count("error:") == 1
        assert "other settings: generation.beams=3 (was 2)" in result.stderr


def test_articles_longer_than_the_model_are_truncated(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "long.jsonl").write_text(json.dumps({"article": "word " * 500, "summary": "s"}))
    model = ["--model", folder / "model", "--data", tmp_path / "long.jsonl", "--max-length", 9]
    cut = evaluate(*model, "--out", tmp_path / "o")
    assert cut.returncode == 0, cut.stderr
    assert "1 of 1 articles are truncated to 128 tokens" in cut.stderr


@pytest.mark.parametrize(
    ("device", "processes", "started"),
    [("cuda:1", None, 1), ("cuda:1", 2, 2), ("cuda", None, None), ("auto", None, None)],
)
def test_a_named_gpu_means_one_process(
    monkeypatch: pytest.MonkeyPatch, device: str, processes: int | None, started: int | None
) -> None:
    """By default, each GPU gets a process; several processes cannot share one GPU."""
    asked: list[int | None] = []

    def start(count: int | None, **_: object) -> None:
        asked.append(count)
        raise typer.Exit

    monkeypatch.setattr(evaluate_command, "start_workers", start)
    with pytest.raises(typer.Exit):
        evaluate_command.command(
            **dict.fromkeys(PARAMETERS) | {"device": device, "processes": processes}
        )
    assert asked == [started]


def test_existing_predictions_are_scored_and_compared_without_a_model(
    folder: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (folder / "pairs" / "test.jsonl").open()]
    few, shuffled = tmp_path / "few.txt", tmp_path / "shuffled.jsonl"
    few.write_text("".join(row["summary"] + "\n" for row in rows[1:]))
    shuffled.write_text(
        "".join(json.dumps({"id": r["id"], "summary": r["summary"]}) + "\n" for r in rows[::-1])
    )
    pairs = ("--data", folder / "pairs")
    result = evaluate("--predictions", few, *pairs, "--out", tmp_path / "few")
    assert result.returncode == 2
    assert "has 23 predictions, but the test split has 24 pairs" in result.stderr
    assert not (tmp_path / "few").exists()
    out = tmp_path / "same"
    result = evaluate(
        "--predictions", shuffled, *pairs, "--out", out, "--metrics", "coverage", "--json"
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["rouge"]["rouge2"] == pytest.approx(100)  # matched by id
    assert found["throughput"] is None
    assert set(found["metrics"]) == {"model", "reference"}
    assert found["metrics"]["model"] == found["metrics"]["reference"]
    result = evaluate("compare", out, shuffled, *pairs, "--json")
    assert result.returncode == 0, result.stderr
    compared = {row["metric"]: row["p"] for row in json.loads(result.stdout)["metrics"]}
    assert set(compared.values()) == {1.0}
    result = evaluate("compare", out, shuffled)
    assert (result.returncode, "has no references" in result.stderr) == (2, True)


def test_an_evaluation_of_predictions_is_not_replaced_by_one_of_a_model(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("task: evaluate\npredictions: old.txt\n")
    arguments = ["evaluate", *map(str, options(folder, tmp_path))]
    with pytest.raises(UsageError, match="holds the evaluation of predictions"):
        build_app("evaluate")(args=arguments, standalone_mode=False)

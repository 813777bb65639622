"""`bart data inspect` through the real command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bart_cli.data.fields import Fields
from bart_cli.data.inspect import summarize_source
from bart_cli.data.preprocess.pretrain import PreprocessSettings, preprocess_pretrain
from bart_cli.progress import Reporter
from bart_cli.tokenizer import Tokenizer
from tests.clusters import scheduler
from tests.command import bart
from tests.conftest import SENTENCES


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    root = tmp_path_factory.mktemp("inspect")
    (root / "a.txt").write_text("\n\n".join([" ".join(SENTENCES)] * 20), encoding="utf-8")
    settings = PreprocessSettings((("a", root / "a.txt", "auto"),), shards=3, validation_share=0)
    preprocess_pretrain(
        settings, root / "out", tiny_tokenizer, scheduler=scheduler(), reporter=Reporter()
    )
    return root / "out"


def test_samples_are_shown_with_their_noised_form(shards: Path) -> None:
    shown = bart("data", "inspect", shards)
    assert shown.returncode == 0, shown.stderr
    assert "in 3 shards of" in shown.stdout
    assert "<mask>" in shown.stdout
    result = bart("data", "inspect", shards, "--samples", 4, "--json")
    (folder,) = json.loads(result.stdout)
    assert folder["shards"] == 3
    assert len(folder["examples"]) == 4
    for example in folder["examples"]:
        kept = [p for p in example["noised"] if p["sentence"] is not None]
        visible = [p for p in example["original"] if not p["hidden"]]
        # The visible words on the left equal the words on the right, sentence by sentence.
        for sentence in {p["sentence"] for p in example["original"]}:
            left, right = (
                "".join(p["text"] for p in side if p["sentence"] == sentence)
                for side in (visible, kept)
            )
            assert left == right
        assert any(p["hidden"] for p in example["original"])


def test_the_same_seed_shows_the_same_samples(shards: Path) -> None:
    first, again, other = (
        bart("data", "inspect", shards, "--json", "--seed", seed).stdout for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_folder_without_shards_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        result = bart("data", "inspect", path)
        assert result.returncode == 2
        assert str(path) in result.stderr
        assert "Traceback" not in result.stderr


def test_raw_text_and_pairs_are_described(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("One is here.\x1b[2J\nTwo is here.\n")
    (tmp_path / "text" / "b.pdf").write_text("x")
    shown = bart("data", "inspect", tmp_path / "text")
    assert shown.returncode == 0, shown.stderr
    assert "text, one document per line; 2 documents in 1 file; skipped: 1 .pdf" in shown.stdout
    assert "One is here.\ufffd[2J\n" in shown.stdout  # never raw to a terminal
    (tmp_path / "pairs").mkdir()
    row = {"article": "A long text.", "summary": "Short."}
    (tmp_path / "pairs" / "train.jsonl").write_text(json.dumps(row))
    (summary,) = summarize_source(tmp_path / "pairs", count=1)
    assert (summary.kind, summary.form, summary.count) == ("pairs", "train", 1)
    assert summary.examples == (("A long text.", "Short."),)
    (tmp_path / "pairs" / "test.csv").write_text("essay,gist\n,Short.\nLong.,\nA.,B.\n")
    shown = bart("data", "inspect", tmp_path / "pairs")
    assert shown.returncode == 2
    assert "test.csv, line 1: no column for the article: expected one of" in shown.stderr
    fields = Fields("essay", "gist")
    (test,) = summarize_source(tmp_path / "pairs" / "test.csv", count=1, fields=fields)
    assert (test.count, test.examples) == (1, (("A.", "B."),))
    assert test.not_read == {"empty article": 1, "empty summary": 1}
    (tmp_path / "ids.txt").write_text("".join(f"id-{i} A text.\n" for i in range(9)))
    (ids,) = summarize_source(tmp_path / "ids.txt", count=1)
    assert (ids.form, ids.examples) == ("one document per line, preceded by an id", (("A text.",),))


@pytest.mark.parametrize(
    "options", [["--poisson-lambda", "51"], ["--poisson-lambda", "inf"], ["--seed", str(2**70)]]
)
def test_invalid_values_of_recipes_are_refused(shards: Path, options: list[str]) -> None:
    result = bart("data", "inspect", shards, *options)
    assert result.returncode == 2
    assert options[0].strip("-").replace("-", "_") in result.stderr
    assert "Traceback" not in result.stderr

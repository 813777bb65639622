"""The built-in sample is reproducible, well-formed, and a task that requires reading."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bart_cli.data.download.sample import write_sample
from bart_cli.data.sentences import split_sentences
from bart_cli.errors import UsageError
from bart_cli.evaluation.scoring import lead
from tests.rouge import rouge_scores


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample")
    write_sample(out, megabytes=0.3, train=300, validation=20, test=100)
    return out


def rows(sample: Path, split: str) -> list[dict[str, str]]:
    path = sample / "summarization" / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(
    sample: Path, tmp_path: Path
) -> None:
    write_sample(tmp_path / "again", megabytes=0.3, train=300, validation=20, test=100)
    write_sample(tmp_path / "other", seed=1, megabytes=0.3, train=300, validation=20, test=100)
    for path in sample.rglob("*.*"):
        name = path.relative_to(sample)
        assert (tmp_path / "again" / name).read_bytes() == path.read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != path.read_bytes()


def test_an_interrupted_sample_resumes_and_is_not_mixed_with_another(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A smaller sample in the folder of a larger one once left files of both, and no manifest."""
    monkeypatch.setattr("bart_cli.data.download.sample.FILE_BYTES", 20_000)
    sizes = {"megabytes": 0.1, "train": 5, "validation": 2, "test": 2}

    def stop(*_: object) -> str:
        raise KeyboardInterrupt

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    report = write_sample(whole, **sizes)  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr("bart_cli.data.download.sample._pair_line", stop)
        with pytest.raises(KeyboardInterrupt):
            write_sample(stopped, **sizes)  # type: ignore[arg-type]
    first = stopped / "pretrain/source/sample-000.txt"
    before = first.stat().st_mtime_ns
    (stopped / "pretrain/source/sample-002.txt").unlink()
    assert write_sample(stopped, **sizes).documents == report.documents  # type: ignore[arg-type]
    assert first.stat().st_mtime_ns == before
    paths = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert paths == sorted(p.relative_to(stopped) for p in stopped.rglob("*") if p.is_file())
    for path in paths:
        assert (stopped / path).read_bytes() == (whole / path).read_bytes()
    assert len(json.loads((whole / "manifest.json").read_text())["files"]) == len(paths) - 1
    with pytest.raises(UsageError, match=r"megabytes=0\.02 \(was 0\.1\)"):
        write_sample(whole, **sizes | {"megabytes": 0.02})  # type: ignore[arg-type]


def test_the_requested_size_does_not_change_a_document(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path, megabytes=0.01, train=2, validation=1, test=1)
    assert rows(tmp_path, "train") == rows(sample, "train")[:2]


def test_the_corpus_has_the_reference_format_and_shares_no_article_with_the_test_split(
    sample: Path,
) -> None:
    lines = (sample / "pretrain/source/sample-000.txt").read_text().splitlines()
    assert all(re.match(r"sample-\d{7} \S", line) for line in lines)
    assert sum(map(len, lines)) > 290_000
    corpus = {line.split(" ", 1)[1] for line in lines}
    assert not corpus & {row["article"] for row in rows(sample, "test")}


def test_summaries_are_consistent_with_their_articles(sample: Path) -> None:
    for row in rows(sample, "train"):
        facts = re.findall(r"[A-Z][a-z]+|\d[\d,]*", row["summary"])
        loose = {"A", "The", "There", "Rival", "Nobody"}
        for fact in facts:
            number = fact.removesuffix(",000") if fact.endswith(",000") else fact
            assert fact in loose or number.rstrip(",") in row["article"], (fact, row)


def test_the_beginning_of_an_article_does_not_contain_its_news(sample: Path) -> None:
    test = rows(sample, "test")
    leads = [lead(row["article"], 2) for row in test]
    score = rouge_scores(leads, [row["summary"] for row in test]).mean["rouge2"]
    assert score < 15
    best = [
        max(
            rouge_scores([sentence], [row["summary"]]).mean["rouge2"]
            for sentence in split_sentences(row["article"])
        )
        for row in test[:30]
    ]
    assert score < sum(best) / len(best) < 60  # extraction helps, but copying is not enough


def test_the_extracted_text_is_clean(sample: Path) -> None:
    for row in rows(sample, "train"):
        for text in (row["article"], row["summary"]):
            assert not re.search(r"  |\b[Aa] [aeiou]|\.\.|,\.| \.|\{|\}", text), text
            for sentence in split_sentences(text):
                assert re.match(r'["“]?[A-Z0-9]', sentence), sentence

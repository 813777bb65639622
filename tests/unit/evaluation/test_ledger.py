"""Resuming a stopped evaluation from its ledger, and refusing others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bart_cli.errors import UsageError
from bart_cli.evaluation.ledger import Decoded, DecodedBatch, Ledger, Origin, open_ledger

ORIGIN = Origin(model="m", pairs="p", settings={"generation.beams": 4})
BATCHES = [
    DecodedBatch(0, 1.5, [Decoded(2, ["c"], [-1.0]), Decoded(0, ["a \ud800"], [-2.0])]),
    DecodedBatch(1, 0.5, [Decoded(1, ["b"], [-3.0])]),
]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Write a ledger of three articles in two rounds."""
    ledger = open_ledger(tmp_path, ORIGIN)
    ledger.begin(articles=3, cut=1)
    ledger.append(BATCHES[:1], 2.0, "1 x cpu")
    ledger.append(BATCHES[1:], 1.0, "2 x cpu")
    return ledger


def test_a_written_table_is_read_back(ledger: Ledger, tmp_path: Path) -> None:
    again = open_ledger(tmp_path, ORIGIN)
    assert again == ledger
    assert again.complete
    assert [article.texts[0] for article in again.in_order()] == ["a \ud800", "b", "c"]
    assert (again.wall, again.devices, again.cut) == (3.0, ["1 x cpu", "2 x cpu"], 1)


def test_a_line_truncated_by_a_crash_is_decoded_again(ledger: Ledger, tmp_path: Path) -> None:
    whole = ledger.path.read_text()
    ledger.path.write_text(whole[:-20])
    again = open_ledger(tmp_path, ORIGIN)
    assert set(again.batches) == {0}
    assert not again.complete
    again.append(BATCHES[1:], 1.0, "2 x cpu")
    assert ledger.path.read_text() == whole


@pytest.mark.parametrize("content", [b"1\n2\n", b'{"model": "m"}\n{}\n', b"[]\n[]\n"])
def test_an_invalid_ledger_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "progress.jsonl").write_bytes(content)
    with pytest.raises(UsageError, match=r"progress\.jsonl is damaged"):
        open_ledger(tmp_path, ORIGIN)


def test_binary_bytes_end_the_readable_part(ledger: Ledger, tmp_path: Path) -> None:
    with ledger.path.open("ab") as file:
        file.write(b"\xff\xfe\0")
    assert open_ledger(tmp_path, ORIGIN) == ledger


def test_a_folder_without_decoded_articles_is_not_bound(tmp_path: Path) -> None:
    open_ledger(tmp_path, ORIGIN).begin(articles=3, cut=0)
    other = open_ledger(tmp_path, replace(ORIGIN, model="n"))
    assert (other.articles, other.done, other.complete) == (0, 0, False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": {"generation.beams": 6}}, "other settings: generation.beams=6 (was 4)"),
        ({"model": "n"}, "other inputs: model has changed"),
        ({"pairs": "q"}, "other inputs: the set of pairs (text or --limit) has changed"),
    ],
)
def test_predictions_of_another_origin_are_refused(
    ledger: Ledger, tmp_path: Path, change: dict, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        open_ledger(tmp_path, replace(ORIGIN, **change))
    assert words in caught.value.message
    assert open_ledger(tmp_path, ORIGIN) == ledger

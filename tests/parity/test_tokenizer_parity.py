"""Our tokenizer with BART's real files against `transformers`' BartTokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import BartTokenizer

from bart_cli.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def paragraphs(shared_data: Path) -> list[str]:
    """Real paragraphs: articles and highlights of CNN-DailyMail."""
    rows = [
        json.loads(line) for line in (shared_data / "cnn_dm" / "train.jsonl").open(encoding="utf-8")
    ]
    return [row[field] for row in rows for field in ("article", "highlights")][:300]


def test_encodes_and_decodes_like_transformers(shared_data: Path, paragraphs: list[str]) -> None:
    folder = shared_data / "bart-tokenizer"
    ours, theirs = Tokenizer.from_pretrained(folder), BartTokenizer.from_pretrained(folder)
    assert len(paragraphs) == 300
    assert ours.encode("Hello world") == [0, 31414, 232, 2]
    assert (ours.pad_id, ours.unk_id, ours.mask_id, ours.vocab_size) == (1, 3, 50264, 50265)
    rows = ours.encode_batch(paragraphs)
    assert rows == theirs(paragraphs)["input_ids"]
    assert ours.decode_batch(rows) == theirs.batch_decode(
        rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    short = theirs(paragraphs, max_length=60, truncation=True)["input_ids"]
    expected = theirs.batch_decode(
        short, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    cut = ours.cut_targets(paragraphs, 60)
    assert [text.strip() for text in cut] == [text.strip() for text in expected]
    assert cut != paragraphs
    assert ours.decode_batch(rows, skip_special=False) == theirs.batch_decode(
        rows, clean_up_tokenization_spaces=False
    )

"""Our tokenizer with BART's real files against `transformers`' BartTokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers
from transformers import BartTokenizer

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.data.pair_ids import load_encoded
from bart_cli.data.pairs import PairSource
from bart_cli.evaluation import decoding
from bart_cli.progress import Reporter
from bart_cli.summarize import long_texts
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES


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


@pytest.mark.parametrize("side", ["left", "right"])
def test_every_command_truncates_the_side_that_transformers_truncates(
    tiny_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    tiny_tokenizer.save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(settings | {"truncation_side": side})
    )
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [*SENTENCES, " ".join(SENTENCES)]
    expected = theirs(texts, truncation=True, max_length=12).input_ids
    ours = Tokenizer.from_pretrained(tmp_path)
    assert ours.encode_batch(texts, max_length=12) == expected
    for part in (long_texts.PART, 30):  # with a small one, the text is tokenized in parts
        monkeypatch.setattr(long_texts, "PART", part)
        encoded = long_texts.encode_texts(texts, ours, 12, whole=False)
        assert [text.pieces for text in encoded] == [[ids] for ids in expected]
    rows, cut = decoding._encode(texts, ours, 12, Reporter())
    assert [row.tolist() for row in rows] == expected
    assert cut == sum(len(ids) > 12 for ids in theirs(texts).input_ids) > 1
    lines = [json.dumps({"article": text, "summary": f"{text} So it is."}) + "\n" for text in texts]
    (tmp_path / "train.jsonl").write_text("".join(lines))
    data = SummarizationDataConfig(path=tmp_path, max_source_length=12, max_target_length=12)
    pairs = load_encoded(PairSource(data), "train", None, data, ours)
    assert [row.tolist() for row in pairs.sources] == expected
    targets = theirs([f"{text} So it is." for text in texts], truncation=True, max_length=12)
    assert [row.tolist() for row in pairs.targets] == targets.input_ids

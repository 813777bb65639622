"""Long texts are split into pieces that fit, at sentence ends, without loss."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bart_cli.data.sentences import split_sentences
from bart_cli.summarize import long_texts
from bart_cli.summarize.long_texts import encode_texts, pack
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES


@given(st.lists(st.integers(1, 30)), st.integers(30, 60))
def test_packing_keeps_the_order_and_uses_the_fewest_groups(lengths: list[int], room: int) -> None:
    groups = pack(lengths, room)
    assert [i for group in groups for i in group] == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in group) for group in groups]
    assert all(0 < total <= room for total in sums)
    fewest, total = 0, room + 1
    for length in lengths:
        if total + length > room:
            fewest, total = fewest + 1, 0
        total += length
    assert len(groups) == fewest


def test_packing_leaves_no_small_remainder() -> None:
    assert [len(group) for group in pack([10] * 11, 100)] == [6, 5]


def test_pieces_of_a_text_hold_all_its_tokens_and_end_with_sentences(
    tiny_tokenizer: Tokenizer,
) -> None:
    text = " ".join(SENTENCES * 5)
    (encoded,) = encode_texts([text], tiny_tokenizer, 64, whole=True)
    assert all(len(piece) <= 64 for piece in encoded.pieces)
    texts = [tiny_tokenizer.decode(piece) for piece in encoded.pieces]
    assert " ".join(texts) == text
    assert encoded.pieces == tiny_tokenizer.encode_batch(texts)
    assert encoded.tokens == encoded.used == sum(map(len, encoded.pieces)) - 2 * len(texts) + 2
    assert all(piece_text.endswith((".", "nobody laughed.")) for piece_text in texts)


def test_pieces_end_where_the_language_ends_sentences(tiny_tokenizer: Tokenizer) -> None:
    sentence = "Am 3. Oktober kam Dr. Weber, z. B. mit Frau Abg. Kern, nach Berlin."
    ends = {}
    for language in ("de", "auto"):
        (encoded,) = encode_texts(
            [f"{sentence} " * 9], tiny_tokenizer, 160, whole=True, language=language
        )
        texts = [tiny_tokenizer.decode(piece) for piece in encoded.pieces]
        assert len(texts) > 1
        ends[language] = {text.rpartition(" ")[2] for text in texts}
    assert ends["de"] == {"Berlin."}
    assert ends["auto"] != ends["de"]


@pytest.mark.parametrize(
    "text", ["x" * 5000, "word " * 2000, "ä" * 3000, "🌉" * 900], ids=lambda t: t[:1]
)
def test_a_sentence_longer_than_the_model_is_split(tiny_tokenizer: Tokenizer, text: str) -> None:
    (encoded,) = encode_texts([text], tiny_tokenizer, 64, whole=True)
    assert all(2 < len(piece) <= 64 for piece in encoded.pieces)
    texts = [tiny_tokenizer.decode(piece) for piece in encoded.pieces]
    assert (" " if " " in text else "").join(texts) == text.strip()


def test_a_text_in_many_parts_is_truncated_and_counted_like_a_single_part(
    tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["The mayor opened the new bridge. " * 40, "short", " ".join(SENTENCES * 20), ""]
    expected = encode_texts(texts, tiny_tokenizer, 64, whole=False)
    assert [row.pieces[0] for row in expected[:3]] == [
        [*row[: min(63, len(row) - 1)], 2] for row in tiny_tokenizer.encode_batch(texts[:3])
    ]
    assert expected[0].tokens == len(tiny_tokenizer.encode(" ".join(texts[0].split())))
    monkeypatch.setattr(long_texts, "PART", 100)
    assert encode_texts(texts, tiny_tokenizer, 64, whole=False) == expected
    assert encode_texts(texts, tiny_tokenizer, 64, whole=True)[3].pieces == []


def test_pieces_keep_the_white_space_of_the_text(tiny_tokenizer: Tokenizer) -> None:
    text = "\n\n".join("\r\n".join(f"Mary:  {line}" for line in SENTENCES) for _ in range(5))
    (encoded,) = encode_texts([text], tiny_tokenizer, 100, whole=True)
    pieces = [tiny_tokenizer.decode(piece) for piece in encoded.pieces]
    assert len(pieces) > 2
    assert all(piece in text and "\r\nMary:  " in piece for piece in pieces)


def test_paragraphs_end_sentences(tiny_tokenizer: Tokenizer) -> None:
    text = "\n\n".join(["a headline without a stop"] * 30)
    (encoded,) = encode_texts([text], tiny_tokenizer, 64, whole=True)
    assert len(encoded.pieces) > 2
    for piece in encoded.pieces:
        assert tiny_tokenizer.decode(piece).strip().endswith("stop")


def test_a_text_of_nothing_but_abbreviations_does_not_stall_the_splitter() -> None:
    text = "Mr. " * 100_000  # quadratic code would take minutes
    assert split_sentences(text) == [text.strip()]


@pytest.mark.parametrize(
    "sentences",
    [
        ["市长昨天开放了新桥。", "人们很高兴。"],
        ["Мэр открыл новый мост. ", "Люди рады, т. е. горожане. "],
    ],
)
def test_pieces_of_other_scripts_end_with_sentences(sentences: list[str]) -> None:
    text = "".join(sentences * 30)
    tokenizer = Tokenizer.train([text], 300)
    (encoded,) = encode_texts([text], tokenizer, 64, whole=True)
    pieces = [tokenizer.decode(piece) for piece in encoded.pieces]
    assert len(pieces) > 2
    for piece in pieces:
        assert piece[-1] in ".。"
        assert not piece.endswith("т. е.")
    assert "".join("".join(pieces).split()) == "".join(text.split())

"""The tokenizer: training, saving, loading, odd text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bart_cli.data.words import word_starts
from bart_cli.errors import UsageError
from bart_cli.tokenizer import SPECIAL_TOKENS, Tokenizer

TEXTS = ["the cat sat on the mat", "a cat and a mat and a hat"] * 20


def test_training_adds_the_special_tokens_like_bart() -> None:
    tokenizer = Tokenizer.train(TEXTS, vocab_size=300)
    ids = (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id)
    assert ids == (0, 1, 2, 3)
    assert tokenizer.mask_id == tokenizer.vocab_size - 1


@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_every_text_survives_the_round_trip(text: str) -> None:
    tokenizer = Tokenizer.train(TEXTS, vocab_size=280)
    if any(token in text for token in SPECIAL_TOKENS):
        return
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_lone_surrogate_becomes_the_replacement_character(tiny_tokenizer: Tokenizer) -> None:
    assert tiny_tokenizer.decode(tiny_tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_truncation_keeps_both_ends(tiny_tokenizer: Tokenizer) -> None:
    whole = tiny_tokenizer.encode("The mayor opened the new bridge")
    cut = tiny_tokenizer.encode("The mayor opened the new bridge", max_length=5)
    assert cut == [*whole[:4], tiny_tokenizer.eos_id]


@pytest.mark.parametrize("files", [("tokenizer.json",), ("vocab.json", "merges.txt")])
def test_a_saved_tokenizer_loads_from_either_format(
    tiny_tokenizer: Tokenizer, tmp_path: Path, files: tuple[str, ...]
) -> None:
    tiny_tokenizer.save(tmp_path)
    for path in tmp_path.iterdir():
        if path.name not in files:
            path.unlink()
    loaded = Tokenizer.from_pretrained(tmp_path)
    text = "Café owners – 24 of them – said “no”."
    assert loaded.encode(text) == tiny_tokenizer.encode(text)
    assert loaded.vocab_size == tiny_tokenizer.vocab_size


def test_word_starts_are_tokens_with_a_leading_space(tiny_tokenizer: Tokenizer) -> None:
    (row,) = tiny_tokenizer.encode_batch(["The mayor"], special=False)
    starts = word_starts(tiny_tokenizer)
    pieces = [tiny_tokenizer.decode([token]) for token in row]
    assert [bool(starts[token]) for token in row] == [piece.startswith(" ") for piece in pieces]
    assert starts[tiny_tokenizer.mask_id]


def test_a_folder_without_a_tokenizer_names_the_expected_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected tokenizer\.json, or vocab\.json"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UsageError, match=r"tokenizer\.json is not a valid tokenizer\.json"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_vocabulary_without_special_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(UsageError, match="lacks the special token"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_vocabulary_too_small_for_the_bytes_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 261"):
        Tokenizer.train(TEXTS, vocab_size=100)


def test_a_vocabulary_too_large_for_memory_is_refused() -> None:
    """The trainer aborts the whole process if it cannot allocate the memory."""
    with pytest.raises(UsageError, match="a vocabulary of 1000000000000 is too large"):
        Tokenizer.train(["a b"], vocab_size=10**12)

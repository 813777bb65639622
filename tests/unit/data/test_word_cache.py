"""The word cache gives the same ids as the tokenizer for any text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, pre_tokenizers

from bart_cli.data.documents import fold
from bart_cli.data.preprocess.word_cache import WordCache
from bart_cli.data.sentences import split_sentences
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES

TOKENIZER = Tokenizer.train(SENTENCES * 50, vocab_size=400)
CACHE = WordCache(TOKENIZER)
MIXED = st.text(
    st.one_of(
        st.sampled_from(" \t\n\r\x0b\x1c\xa0'’“”–…<>/maskéÀßɏαΣ΢яЀ҂Ґ«»№€£²½ªº×١中😀\u0301\u2028"),
        st.characters(max_codepoint=0x250),
        st.characters(),
    ),
    max_size=60,
)


@given(
    st.lists(
        st.one_of(MIXED, st.sampled_from(["a <mask> b", "<s>", "it's we'll", ""])), max_size=5
    ),
    st.sampled_from([1, 2, 256]),
)
def test_ids_equal_those_of_the_tokenizer(texts: list[str], at_once: int) -> None:
    with patch("bart_cli.data.preprocess.word_cache.AT_ONCE", at_once):
        assert CACHE.encode(texts) == TOKENIZER.encode_batch(texts, special=False)


@given(st.lists(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=30), max_size=4))
def test_decoded_texts_equal_the_tokenizer_even_for_partial_characters(
    rows: list[list[int]],
) -> None:
    assert CACHE.decode(rows) == TOKENIZER.decode_batch(rows)


def test_the_word_cache_is_bypassed_for_a_tokenizer_that_splits_differently(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    backend = tokenizers.Tokenizer.from_file(str(file))
    backend.add_tokens([AddedToken("bridge")])
    texts = ["The new bridges opened", "on Monday"]
    for add_prefix_space in (True, False):
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
        backend.save(str(file))
        other = Tokenizer.from_pretrained(file)
        ids = other.encode_batch(texts, special=False)
        assert WordCache(other).encode(texts) == ids
        assert WordCache(other).decode(ids) == other.decode_batch(ids)


def test_a_special_token_in_the_text_is_encoded_as_characters() -> None:
    texts = ["The <mask> opened </s> on <s>Monday", "a<pad>"]
    (row, other) = ids = CACHE.encode(texts)
    assert ids == TOKENIZER.encode_batch(texts, special=False)
    assert not set(row + other) & set(TOKENIZER.special.values())
    assert CACHE.decode(ids) == TOKENIZER.decode_batch(ids) == texts


def test_a_thread_that_clears_the_cache_does_not_affect_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Interrupted(Tokenizer):
        others: tuple[str, ...] = ()

        def encode_batch(self, texts: Sequence[str], **options: Any) -> list[list[int]]:
            others, self.others = self.others, ()
            for text in others:  # lets another thread run
                cache.encode([text])
            return super().encode_batch(texts, **options)

    monkeypatch.setattr("bart_cli.data.preprocess.word_cache.CAPACITY", 2)
    TOKENIZER.save(tmp_path)
    tokenizer = Interrupted.from_pretrained(tmp_path)
    assert isinstance(tokenizer, Interrupted)
    cache = WordCache(tokenizer)
    cache.encode(["The mayor"])
    tokenizer.others = ("opened", "closed")
    text = "The mayor said"
    assert cache.encode([text]) == TOKENIZER.encode_batch([text], special=False)


@pytest.mark.slow
def test_real_text(shared_data: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(shared_data / "bart-tokenizer")
    cache = WordCache(tokenizer)
    for line in (shared_data / "cnn_dm" / "test.jsonl").read_text("utf-8").splitlines()[:100]:
        sentences = [f" {s}" for s in split_sentences(fold(json.loads(line)["article"]))]
        rows = tokenizer.encode_batch(sentences, special=False)
        assert cache.encode(sentences) == rows
        assert cache.decode(rows) == tokenizer.decode_batch(rows) == sentences

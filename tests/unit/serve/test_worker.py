"""Sentences of a text that share words with the sentences of its summary."""

from __future__ import annotations

from bart_cli.serve.worker import overlap


def test_shared_words_and_numbers_name_the_sentences_best_first() -> None:
    source = "Rain closed the bridge. The mayor opened the new bridge in 1998. It was the 4th."
    found = overlap(source, "The mayor opened a bridge in 1998. Cats sleep.")
    assert "".join(found["source"]) == source
    assert found["summary"] == [
        {"text": "The mayor opened a bridge in 1998.", "source": [[1, 1.0], [0, 0.25]]},
        {"text": " Cats sleep.", "source": []},
    ]


def test_characters_are_words_where_no_spaces_are() -> None:
    found = overlap("東京で雨が降った。猫が寝る。", "雨が降った。")
    assert found["summary"][0]["source"][0] == [0, 1.0]

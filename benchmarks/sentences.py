"""Compare sentence splitters: accuracy on golden sentences, speed, and the longest "sentence".

    pip install sentencex
    python benchmarks/sentences.py [PAIRS.jsonl]

The golden sentences are those in tests/unit/data/test_sentences.py, joined to one text per
language; F1 is computed on the boundaries. PAIRS is news with the field `article`, for the speed
and the length of the longest sentence. sentencex keeps quotations together, so an unpaired
quotation mark turns the rest of the text into one sentence; its time is quadratic in the length of
a paragraph.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import sentencex

sys.path.insert(0, str(Path(__file__).parents[1]))
from bart_cli.data.sentences import split_sentences
from tests.unit.data.test_sentences import GOLDEN, UNSPACED

Splitter = Callable[[str, str], list[str]]


def by_sentencex(text: str, language: str) -> list[str]:
    return [s.strip() for s in sentencex.segment(language, text) if s.strip()]


SPLITTERS: dict[str, Splitter] = {"bart": split_sentences, "sentencex": by_sentencex}


def borders(sentences: list[str]) -> set[int]:
    """Return the ends of sentences, counted in characters that are not white space."""
    return set(accumulate(len("".join(sentence.split())) for sentence in sentences[:-1]))


def f1(found: list[str], golden: list[str]) -> float:
    ours, theirs = borders(found), borders(golden)
    return 2 * len(ours & theirs) / max(len(ours) + len(theirs), 1)


def speed(split: Splitter, texts: list[str], language: str) -> float:
    begin = time.perf_counter()
    for text in texts:
        split(text, language)
    return sum(len(text.encode()) for text in texts) / 1e6 / (time.perf_counter() - begin)


def main() -> None:
    print("language", *(f"{name} F1, MB/s" for name in SPLITTERS), sep="\t")
    for language, golden in (GOLDEN | UNSPACED).items():
        space = "" if language in UNSPACED else " "
        text = space.join(golden)
        page = space.join([text] * (4000 // len(text)))
        cells = [
            f"{f1(split(text, language), golden):.2f}, {speed(split, [page] * 20, language):.1f}"
            for split in SPLITTERS.values()
        ]
        print(language, *cells, sep="\t")
    for path in map(Path, sys.argv[1:]):
        lines = path.read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["article"] for line in lines]
        for name, split in SPLITTERS.items():
            longest = max(len(sentence) for text in texts for sentence in split(text, "en"))
            rate = speed(split, texts, "en")
            print(f"{path.name}: {name}: {rate:.1f} MB/s, longest sentence {longest:,} characters")


if __name__ == "__main__":
    main()

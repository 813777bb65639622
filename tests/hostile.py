"""Hostile JSON lines for a summarizer: most of them are broken or odd."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random

from tests.conftest import SENTENCES

KINDS: dict[str, Callable[[Random, int], bytes]] = {
    "empty": lambda rng, big: b"",
    "white": lambda rng, big: rng.choice([b" ", b"\t\t", b" \x0c ", b"\r"]),
    "big": lambda rng, big: _row(rng.choice(["x", "word ", "Mr. ", "\u202e", "😀"]) * (big // 5)),
    "controls": lambda rng, big: _row("".join(chr(rng.randrange(160)) for _ in range(80))),
    "escape": lambda rng, big: _row("\x1b[31m\x1b]0;title\x07" + rng.choice(SENTENCES)),
    "raw controls": lambda rng, big: b'{"text": "a\x00b\x1b[31m"}',
    "emoji": lambda rng, big: _row("👩‍👩‍👧‍👦🤷🏽\u200d♂️🏳️‍🌈 " * rng.randrange(1, 30)),
    "right to left": lambda rng, big: _row("مرحبا بالعالم. שלום עולם. \u202e\u2066" * 5),
    "surrogates": lambda rng, big: b'{"id": "\\udc00", "text": "\\ud800 lone \\udfff\\ud83d"}',
    "nul": lambda rng, big: _row("\x00" * rng.randrange(1, 50)),
    "no JSON": lambda rng, big: rng.choice([b"{", b"nul", b"{'a': 1}", b'{"text": "x"', b"\\"]),
    "deep": lambda rng, big: b"[" * 50_000,
    "number": lambda rng, big: b'{"text": ' + b"9" * 6000 + b"}",
    "no object": lambda rng, big: rng.choice([b"[]", b"1", b'"text"', b"null", b"true", b"NaN"]),
    "no field": lambda rng, big: rng.choice([b"{}", b'{"a": 1}', _row("x", "\x1b[2J")]),
    "no text": lambda rng, big: rng.choice(
        [b'{"text": 1}', b'{"text": null}', b'{"text": ["a"]}', b'{"text": {}}', b'{"text": ""}']
    ),
    "white text": lambda rng, big: _row(" \n\t\u00a0\u2003"),
    "no UTF-8": lambda rng, big: b'{"text": "caf\xe9 \xff\xfe"}',
    "random bytes": lambda rng, big: rng.randbytes(60).replace(b"\n", b""),
    "good": lambda rng, big: _row(" ".join(rng.choices(SENTENCES, k=rng.randrange(1, 8)))),
}


def hostile_lines(count: int, rng: Random, *, big: int) -> Iterator[bytes]:
    """Yield `count` lines of all kinds in turn, with line ends; lines of `big` bytes are rarer."""
    names = list(KINDS)
    for number in range(count):
        name = names[number % len(names)]
        if name == "big" and number // len(names) % 10:
            name = "good"
        yield KINDS[name](rng, big) + b"\n"


def _row(text: str, field: str = "article") -> bytes:
    return json.dumps({field: text}, ensure_ascii=False).encode()

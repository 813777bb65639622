"""Write `report.html`: an evaluation as one self-contained page without scripts.

In: an `Evaluation` and its pairs. The template escapes all text from the data.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bart_cli.config.generation import ROUGE, RougeTokenizer
from bart_cli.config.presets import flatten
from bart_cli.data.pairs import Pair
from bart_cli.evaluation.rouge import normal_form, word_pattern
from bart_cli.evaluation.scoring import MODEL, Evaluation
from bart_cli.figures import HEIGHT, WIDTH, histogram
from bart_cli.pages import write_page

RANKED_BY = "rouge2"
SHOWN = 5  # examples per group
ARTICLE_CHARACTERS = 3000  # shown of an example


@dataclass(frozen=True)
class Piece:
    """A span of a prediction; `shared`: it is part of a bigram that is also in the reference."""

    text: str
    shared: bool


def write_report(result: Evaluation, pairs: Sequence[Pair], path: Path) -> None:
    texts = {
        "Articles": [pair.source for pair in pairs],
        "References": [pair.target for pair in pairs],
        "Predictions": [row["prediction"] for row in result.predictions],
    }
    write_page(
        path,
        "report.html.jinja",
        result=result,
        system=result.settings.get("model") or result.settings["predictions"],
        names=ROUGE,
        systems={MODEL: result.rouge} | result.baselines,
        charts=_charts(result),
        lengths=[
            histogram(title, " words", [len(text.split()) for text in group])
            for title, group in texts.items()
        ],
        distributions=[
            histogram(ROUGE[kind], "", result.each[kind], span=(0, 100))
            for kind in ("rouge1", RANKED_BY)
        ],
        examples=_examples(result, pairs),
        ranked_by=ROUGE[RANKED_BY],
        settings=list(flatten(result.settings)),
        width=WIDTH,
        height=HEIGHT,
    )


def mark_shared(
    prediction: str, reference: str, *, stemmer: bool, tokenizer: RougeTokenizer = "ascii"
) -> list[Piece]:
    """Split a prediction into pieces that do and do not count for ROUGE-2."""
    pattern = word_pattern(tokenizer)
    parts = re.split(f"({pattern.pattern})", prediction)  # words are at odd indices
    words = [normal_form(word, stemmer=stemmer) for word in parts[1::2]]
    theirs = [normal_form(word, stemmer=stemmer) for word in pattern.findall(reference)]
    known = set(pairwise(theirs))
    shared = [False] * len(words)
    for i in range(len(words) - 1):
        if (words[i], words[i + 1]) in known:
            shared[i] = shared[i + 1] = True
    pieces: list[Piece] = []
    for i, text in enumerate(parts):
        if i % 2:
            flag = shared[i // 2]
        else:  # between two shared words
            flag = 0 < i < len(parts) - 1 and shared[i // 2 - 1] and shared[i // 2]
        if pieces and pieces[-1].shared == flag:
            pieces[-1] = Piece(pieces[-1].text + text, flag)
        elif text:
            pieces.append(Piece(text, flag))
    return pieces


def _charts(result: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """Collect the scores of all systems by metric, with the ends of their intervals if known."""
    means = {MODEL: result.rouge} | result.baselines
    intervals = {MODEL: result.interval} | result.baseline_intervals
    charts: dict[str, list[dict[str, Any]]] = {name: [] for name in ROUGE.values()}
    for kind, name in ROUGE.items():
        for system, mean in means.items():
            low, high = intervals[system].get(kind, (None, None))
            row = {"system": system, "value": mean[kind], "low": low, "high": high}
            charts[name].append(row)
    return charts


def _examples(result: Evaluation, pairs: Sequence[Pair]) -> dict[str, list[dict[str, Any]]]:
    """Choose the best, the median and the worst examples, without duplicates."""
    order = np.argsort(-np.array(result.each[RANKED_BY]), kind="stable").tolist()
    best, rest = order[:SHOWN], order[SHOWN:]
    worst, rest = rest[-SHOWN:][::-1], rest[:-SHOWN]
    begin = max(0, (len(rest) - SHOWN) // 2)
    chosen = {"Best": best, "Median": rest[begin : begin + SHOWN], "Worst": worst}
    return {
        title: [_example(result, pairs[index], index) for index in group]
        for title, group in chosen.items()
        if group
    }


def _example(result: Evaluation, pair: Pair, index: int) -> dict[str, Any]:
    row, settings = result.predictions[index], result.settings
    stemmer, tokenizer = settings["stemmer"], settings["tokenizer"]
    return {
        "id": pair.id,
        "article": pair.source[:ARTICLE_CHARACTERS],
        "left_out": max(0, len(pair.source) - ARTICLE_CHARACTERS),  # characters
        "reference": pair.target,
        "prediction": mark_shared(
            row["prediction"], pair.target, stemmer=stemmer, tokenizer=tokenizer
        ),
        "not_in_article": row.get("not_in_article", []),
        "rouge": {name: result.each[kind][index] for kind, name in ROUGE.items()},
    }

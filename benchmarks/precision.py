"""Measure the effect of reduced precision on the summaries of a trained model.

    python benchmarks/precision.py --model RUN --data FOLDER [--limit N] [--beams N]

Decodes the test split in each precision, and prints the share of summaries that are the same as in
fp32, and the ROUGE scores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from measure import run

from bart_cli.config.generation import EvaluationConfig
from bart_cli.data.pairs import read_pairs
from bart_cli.evaluation.rouge import KINDS, score_systems
from bart_cli.summarize.summarizer import Summarizer

PRECISIONS = ("fp32", "bf16", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of pairs")
    parser.add_argument("--limit", type=int, help="first N pairs")
    parser.add_argument("--beams", type=int, default=4)
    options = parser.parse_args()
    pairs = read_pairs(options.data, "test", limit=options.limit)
    texts = {}
    print("| precision | same as fp32 | " + " | ".join(KINDS) + " |")
    print("|---|---:|" + "---:|" * len(KINDS))
    for precision in PRECISIONS:
        summarizer = Summarizer.from_pretrained(options.model, precision=precision)
        summaries = summarizer.summarize(
            [pair.source for pair in pairs], batch_size=16, beams=options.beams
        )
        texts[precision] = [summary.text for summary in summaries]
        systems, references = {"": texts[precision]}, [pair.target for pair in pairs]
        scores = score_systems(systems, references, EvaluationConfig(), workers=2)[""].mean
        same = sum(a == b for a, b in zip(texts[precision], texts["fp32"], strict=True))
        cells = " | ".join(f"{scores[kind]:.2f}" for kind in KINDS)
        print(f"| {precision} | {same / len(pairs):.1%} | {cells} |", flush=True)
    print(f"{len(pairs)} articles, {options.beams} beams")


if __name__ == "__main__":
    run(main)

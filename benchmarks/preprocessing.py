"""Preprocessing on one core beside LDDL's algorithm, on the same text in the same run.

    python benchmarks/preprocessing.py CORPUS TOKENIZER [--megabytes 4] [--repeats 5]

CORPUS: a folder with one document a line, id first. LDDL's algorithm (lddl/dask/bart/pretrain.py):
sentences by nltk's Punkt, chunks of 125 words split at white space, a parquet file of strings. Ours
does the BPE as well, fills samples exactly and writes the ids. Punkt runs with its default
parameters: the trained ones are a download, and the algorithm costs the same without them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core

import pyarrow as pa
import pyarrow.parquet as pq
from nltk.tokenize.punkt import PunktSentenceTokenizer

from bart_cli.data.documents import plan_blocks, read_block
from bart_cli.data.preprocess.blocks import BlockTask, process_block
from bart_cli.tokenizer import Tokenizer


def lddl_chunks(article: str, split: Callable[[str], list[str]]) -> list[str]:
    """The chunks that LDDL makes of an article for a target length of 128."""
    results, chunk, words = [], "", 0
    for sentence in filter(None, (s.strip() for s in split(article))):
        chunk += " " + sentence
        words += len(sentence.split())
        if words >= 125:
            results.append(chunk)
            chunk, words = "", 0
    return [*results, chunk] if words else results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("tokenizer")
    parser.add_argument("--megabytes", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Tokenizer.from_pretrained(options.tokenizer).save(folder / "bpe")
        text = folder / "text.txt"
        with text.open("w", encoding="utf-8") as stream:
            for block in plan_blocks(options.corpus, "lines"):
                for document, content in read_block(block):
                    if stream.tell() < options.megabytes * 1e6:
                        stream.write(f"{document} {content}\n")
        size = text.stat().st_size / 1e6
        (block,) = plan_blocks(text, "lines", size=2**40)
        punkt = PunktSentenceTokenizer()

        def lddl(number: int) -> None:
            chunks = [c for _, t in read_block(block) for c in lddl_chunks(t, punkt.tokenize)]
            pq.write_table(pa.table({"sentences": chunks}), folder / f"lddl-{number}.parquet")

        def ours(number: int) -> None:
            process_block(
                BlockTask(
                    number=number,
                    block=block,
                    work=folder / "work",
                    tokenizer=folder / "bpe",
                    target_lengths=(128,),
                    validation_share=0.01,
                    cross_documents=False,
                )
            )

        speeds: dict[str, list[float]] = {"lddl": [], "bart": []}
        ours(10**5)  # loads the tokenizer
        for number in range(options.repeats):
            for label, function in (("lddl", lddl), ("bart", ours)):
                begin = time.perf_counter()
                function(number)
                speeds[label].append(size / (time.perf_counter() - begin))
    print(f"{size:.1f} MB of text, one core, {options.repeats} runs of each, in turn")
    for label, values in speeds.items():
        print(
            f"{label}: {statistics.median(values):.2f} MB/s ({min(values):.2f} - {max(values):.2f})"
        )
    ratios = [b / a for a, b in zip(speeds["lddl"], speeds["bart"], strict=True)]
    print(f"ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})")


if __name__ == "__main__":
    main()

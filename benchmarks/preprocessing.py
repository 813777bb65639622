"""Compare preprocessing on one core with LDDL's algorithm, on the same text.

    python benchmarks/preprocessing.py CORPUS TOKENIZER [--megabytes 2] [--repeats 5]

CORPUS is a folder with one document per line, starting with an id. LDDL's algorithm
(lddl/dask/bart/pretrain.py) splits sentences with nltk's Punkt, forms chunks of 125 words split at
white space, and writes a Parquet file of strings. Ours also encodes the text with BPE, fills
samples exactly and writes the ids. It is timed on text with only cached words (cached), on new text
that follows other text (new), and with an empty word cache (cold). Punkt runs with its default
parameters: the trained ones would have to be downloaded, and do not change its speed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core

import pyarrow as pa
import pyarrow.parquet as pq
from measure import ratios, run, spread
from nltk.tokenize.punkt import PunktSentenceTokenizer

from bart_cli.data.documents import Block, plan_blocks, read_block
from bart_cli.data.preprocess.blocks import BlockTask, PreprocessSettings, _tools, process_block
from bart_cli.tokenizer import Tokenizer

STATES = ("new", "cached", "cold")  # states of the word cache, in this order


def lddl_chunks(article: str, split: Callable[[str], list[str]]) -> list[str]:
    """Split an article into chunks like LDDL, for a target length of 128."""
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
    parser.add_argument("--megabytes", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--language", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Tokenizer.from_pretrained(options.tokenizer).save(folder / "bpe")
        # One part for each repeat, and a first one for warm-up.
        parts = [folder / f"part-{number}.txt" for number in range(options.repeats + 1)]
        documents = (d for b in plan_blocks(options.corpus, "lines") for d in read_block(b))
        for part in parts:
            with part.open("w", encoding="utf-8") as stream:
                while stream.tell() < options.megabytes * 1e6:
                    stream.write(" ".join(next(documents, ("", ""))) + "\n")
        punkt = PunktSentenceTokenizer()

        def lddl(block: Block) -> None:
            chunks = [c for _, t in read_block(block) for c in lddl_chunks(t, punkt.tokenize)]
            pq.write_table(pa.table({"sentences": chunks}), folder / "lddl.parquet")

        runs = count()

        def ours(block: Block) -> None:
            inputs = (("corpus", block.path, block.form),)
            settings = PreprocessSettings(inputs, language=options.language)
            process_block(
                BlockTask(next(runs), (block,), folder / "work", folder / "bpe", settings)
            )

        speeds: dict[str, list[float]] = {label: [] for label in ("lddl", *STATES)}
        for number, part in enumerate(parts):
            (block,) = plan_blocks(part, "lines", size=2**40)
            for label in speeds:
                if label == "cold":
                    _tools.cache_clear()
                    _tools(folder / "bpe")  # loading the tokenizer is not timed
                begin = time.perf_counter()
                (lddl if label == "lddl" else ours)(block)
                if number:
                    seconds = time.perf_counter() - begin
                    speeds[label].append(part.stat().st_size / 1e6 / seconds)
            # Leave a cache with all words so far, as in a long run.
            for earlier in parts[: number + 1]:
                (block,) = plan_blocks(earlier, "lines", size=2**40)
                ours(block)
    print(f"{options.repeats} parts of {options.megabytes:g} MB, one core, all in turn")
    for label, values in speeds.items():
        times = spread(ratios(values, speeds["lddl"]), unit=" times LDDL")
        print(f"{label}: {spread(values, unit=' MB/s')}, {times}")


if __name__ == "__main__":
    run(main)

"""Measure memory and start-up of fine-tuning from prepared pairs, in several processes at once.

    python benchmarks/pairs.py FOLDER [--pairs 287113] [--processes 2] [--steps 200]

FOLDER is an output folder of `bart preprocess summarization`. If it does not exist, it is filled
with synthetic pairs with the lengths of CNN-DM: 780 tokens per article and 70 per summary on
average. Prints for each process the seconds to the first batch, and memory in bytes per token of
the data: its own memory, and the pages read of the mapped file, which all processes share.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pyarrow as pa
from measure import lists, memory, run, start_arm

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.data.batch import Collate
from bart_cli.data.order import Share
from bart_cli.data.pair_ids import VOCABULARY, load_encoded
from bart_cli.data.pairs import PairSource
from bart_cli.data.summarization_loader import SummarizationLoader
from bart_cli.data.table_digest import ID_COLUMNS
from bart_cli.tokenizer import Tokenizer

CHUNK = 1024  # pairs
VOCABULARY_SIZE = 50_265  # vocabulary size of BART


def write_pairs(folder: Path, count: int) -> None:
    """Write a train split in the format of `bart preprocess summarization`."""
    tokenizer = Tokenizer.train(["A tokenizer for ids without meaning."] * 50, vocab_size=300)
    tokenizer.save(folder / "tokenizer")
    rng = np.random.default_rng(1)
    ids = pa.list_(pa.uint16())
    schema = pa.schema(
        {"id": pa.string(), "article": pa.string(), "summary": pa.string()}
        | dict.fromkeys(ID_COLUMNS, ids),
        metadata={VOCABULARY: tokenizer.fingerprint()},
    )
    with pa.ipc.new_file(folder / "train.arrow", schema) as writer:
        for begin in range(0, count, CHUNK):
            rows = min(CHUNK, count - begin)
            lengths = [
                np.clip(rng.lognormal(np.log(mean) - 0.125, 0.5, rows), 8, 3000).astype(np.int64)
                for mean in (780, 70)
            ]
            texts = [["word" * n for n in side.tolist()] for side in lengths]
            numbers = [str(number) for number in range(begin, begin + rows)]
            sides = [
                lists(rng.integers(4, VOCABULARY_SIZE, side.sum(), dtype=np.uint16), side)
                for side in lengths
            ]
            writer.write_batch(pa.record_batch([numbers, *texts, *sides], schema=schema))


def measure(folder: Path, steps: int, together: Barrier, answer: Connection) -> None:
    """Read the pairs like one process of `bart finetune`."""
    tokenizer = Tokenizer.from_pretrained(folder / "tokenizer")
    data = SummarizationDataConfig(path=folder)
    before = memory()
    together.wait()
    begin = time.perf_counter()
    pairs = load_encoded(PairSource(data), "train", None, data, tokenizer)
    share = Share(global_batch=32, micro_batch=32)
    loader: Iterator[object] = iter(
        SummarizationLoader(pairs, data, share, seed=1, collate=Collate(tokenizer.pad_id, 2))
    )
    next(loader)
    seconds = time.perf_counter() - begin
    first = memory()
    begin = time.perf_counter()
    for _ in islice(loader, steps):
        pass
    rate = steps * 32 / (time.perf_counter() - begin)
    together.wait()
    answer.send((seconds, rate, before, first, memory()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=287_113)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    if not options.folder.exists():
        write_pairs(options.folder, options.pairs)
    with pa.memory_map(str(options.folder / "train.arrow")) as content:
        table = pa.ipc.open_file(content).read_all()
        tokens = sum(sum(len(c.flatten()) for c in table[name].chunks) for name in ID_COLUMNS)
        print(f"{table.num_rows:,} pairs, {tokens:,} tokens")
    together = multiprocessing.get_context("spawn").Barrier(options.processes)
    arguments = options.folder, options.steps, together
    answers = [start_arm(measure, *arguments) for _ in range(options.processes)]
    print("process  first batch s  pairs/s  own bytes/token  own at the end  mapped at the end")
    for number, answer in enumerate(answers):
        seconds, rate, before, first, last = answer.recv()
        own, own_last, mapped = (
            (after[kind] - before[kind]) / tokens
            for after, kind in ((first, 0), (last, 0), (last, 1))
        )
        print(
            f"{number:7}  {seconds:13.2f}  {rate:7,.0f}  {own:15.2f}  {own_last:14.2f}  "
            f"{mapped:17.2f}"
        )


if __name__ == "__main__":
    run(main)

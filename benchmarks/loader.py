"""Measure memory, start-up and speed of the pre-training loader on synthetic shards.

    python benchmarks/loader.py [--shards 5120] [--samples 200] [--epochs 3] [--ranks 320]
        [--folder FOLDER]

First, it measures rank 0 of 1, 8 and --ranks ranks, with the streams of the presets. After each
epoch, it prints the number of open shards and of shards read, the bytes of the ids of open shards
(mapped files) and of their lengths and row orders, and the growth of the process. Then it runs all
ranks in this process and prints the seconds to the first batch of a rank and samples per second. It
starts no loader processes; each would need the same memory again.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa
from measure import lists, memory, run

from bart_cli.config.data import PretrainDataConfig
from bart_cli.config.run import PretrainConfig
from bart_cli.data.batch import Batch, Collate
from bart_cli.data.order import Share
from bart_cli.data.pretrain_loader import PretrainLoader
from bart_cli.data.shards import Samples, shard_schema, write_counts, write_shard
from bart_cli.tokenizer import Tokenizer

BATCH = 200  # samples per rank and step
TOKENS = 126  # per sample, without <s> and </s>
SENTENCES = 6
OPEN: WeakValueDictionary[int, Samples] = WeakValueDictionary()  # shards that loaders keep, by id


def write_shards(folder: Path, shards: int, samples: int, tokenizer: Tokenizer) -> None:
    """Write shards of full samples, with sizes that differ by one as LDDL's loader requires."""
    rng = np.random.default_rng(1)
    schema = shard_schema(tokenizer.vocab_size)
    counts = {}
    for number in range(shards):
        rows = samples + number % 2
        ids = rng.integers(4, tokenizer.vocab_size, (rows, TOKENS), dtype=np.uint16)
        sentences = np.full((rows, SENTENCES), TOKENS // SENTENCES, dtype=np.uint16)
        columns = [pa.array(["text " * (TOKENS - 1)] * rows)]
        columns += [lists(side.ravel(), [side.shape[1]] * rows) for side in (ids, sentences)]
        name = f"shard-{number}.parquet"
        write_shard(folder / name, [pa.table(columns, schema=schema)], schema)
        counts[name] = rows
    write_counts(folder, counts)


class Rank:
    """The loader of one rank, after its first step."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, rank: int, world: int):
        opened, begin = len(OPEN), time.perf_counter()
        self.streams = max(64, 4 * world)  # as in the presets: one for each loader process
        self.loader = PretrainLoader(
            folder,
            PretrainConfig(data=PretrainDataConfig(streams=self.streams, workers=0)),
            tokenizer,
            Share(global_batch=BATCH * world, micro_batch=BATCH, rank=rank, world_size=world),
            Collate(tokenizer.pad_id, 2),
        )
        self.steps: Iterator[list[Batch]] = iter(self.loader)
        next(self.steps)
        self.start_seconds = time.perf_counter() - begin
        self.opened = len(OPEN) - opened


def held() -> tuple[int, int]:
    """Count the bytes of mapped values, and those of lengths, offsets and row orders."""
    parts = [part for shard in OPEN.values() for part in (shard.tokens, shard.sentences)]
    own = sum(part.lengths.nbytes + part.starts.nbytes for part in parts)
    orders = 8 * sum(len(shard.tokens.lengths) for shard in OPEN.values())
    return sum(part.values.nbytes for part in parts), own + orders


def count_reads() -> list[int]:
    """Start counting the shards that are read, and recording those that are open."""
    reads = [0]
    mapped = Samples.mapped

    def counted(read: Samples) -> Samples:
        reads[0] += 1
        kept = mapped(read)
        OPEN[id(kept)] = kept
        return kept

    Samples.mapped = counted  # type: ignore[method-assign]
    return reads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=5120)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=320, help="of the simulation: 40 nodes")
    parser.add_argument("--folder", type=Path, help="keep the shards here, for another run")
    options = parser.parse_args()
    tokenizer = Tokenizer.train(["Words for ids without meaning."] * 50, vocab_size=300)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not any(folder.glob("*.parquet")):
            folder.mkdir(exist_ok=True)
            write_shards(folder, options.shards, options.samples, tokenizer)
        reads = count_reads()
        print("ranks  streams  epoch  shards open  shards read  mapped KB  own KB  process KB more")
        for world in (1, 8, options.ranks):
            before = memory()[0]
            rank = Rank(folder, tokenizer, 0, world)
            steps = rank.loader.samples_per_epoch // (BATCH * world)
            for epoch in range(1, options.epochs + 1):
                for _ in islice(rank.steps, steps):
                    pass
                mapped, own = held()
                print(
                    f"{world:5}  {rank.streams:7}  {epoch:5}  {len(OPEN):11}  {reads[0]:11}  "
                    f"{mapped // 1024:9,}  {own // 1024:6,}  {(memory()[0] - before) // 1024:15,}"
                )
                reads[0] = 0
            del rank
        simulate(folder, tokenizer, reads, options.ranks)


def simulate(folder: Path, tokenizer: Tokenizer, reads: list[int], world: int) -> None:
    """Run all ranks, step by step."""
    before = memory()[0]
    ranks = [Rank(folder, tokenizer, rank, world) for rank in range(world)]
    starts = [rank.start_seconds for rank in ranks]
    opened = max(rank.opened for rank in ranks)
    rates = []
    for rank in ranks:
        begin = time.perf_counter()
        next(rank.steps)
        rates.append(BATCH / (time.perf_counter() - begin))
    print(
        f"{world} ranks: first batch of a rank after {statistics.median(starts):.2f} s (at most "
        f"{max(starts):.2f}), {reads[0] / world:.1f} shards read, {opened} open at most; "
        f"{statistics.median(rates):,.0f} samples/s per rank and core (slowest "
        f"{min(rates):,.0f}); {(memory()[0] - before) / world / 2**20:.1f} MB per rank"
    )


if __name__ == "__main__":
    run(main)

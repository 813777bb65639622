"""Load batches for pre-training: samples of shards in canonical order, noised and padded.

A batch depends only on the number of samples consumed before it, not on ranks, workers or the
point where a run was interrupted. That number is the loader's entire state.
"""

from __future__ import annotations

import os
import signal
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from bart_cli.config.run import PretrainConfig
from bart_cli.data.batch import Batch, Collate, micro_batches
from bart_cli.data.denoising import Denoiser, Ids, Ragged
from bart_cli.data.order import SampleOrder, Share, rank_positions
from bart_cli.data.random_keys import Purpose, derive
from bart_cli.data.shards import Samples, ShardFolder, open_shards
from bart_cli.errors import BartError
from bart_cli.runtime.cores import usable_cores
from bart_cli.runtime.workers import end_with_parent
from bart_cli.tokenizer import Tokenizer

VALIDATED = 2048  # samples


@dataclass
class SampleReader:
    """A reader of noised batches of samples by position, with a cache of the shards in use.

    Each of a rank's streams (see `order`) reads one shard at a time. The reader therefore caches
    one shard per stream, and one more for the moment when a stream moves to its next shard.
    """

    folder: ShardFolder
    config: PretrainConfig  # its training.seed determines order and noise
    tokenizer: Tokenizer
    collate: Collate
    world_size: int = 1  # number of ranks that share the streams

    def __post_init__(self) -> None:
        data, self._seed = self.config.data, self.config.training.seed
        self._kept = -(-data.streams // self.world_size) + 1
        self.order = SampleOrder(self.folder.counts, data.streams, self._seed, kept=self._kept)
        self._ends = self.tokenizer.target_frame
        self._room = data.sequence_length - sum(map(len, self._ends))
        self._denoise = Denoiser(self.config.denoising, self.tokenizer)
        self._cache: OrderedDict[int, Samples] = OrderedDict()

    def batches(self, positions: Ids, size: int) -> list[Batch]:
        """Return micro-batches of up to `size` samples with the samples at `positions`."""
        located = self.order.locate(positions)
        _, shards, rows = located
        keys = derive(self._seed, Purpose.NOISE, *(x.astype(np.uint64) for x in located))
        tokens, sentences = self._gather(shards, rows)
        noised = self._denoise(tokens, sentences, keys)
        sources = self._with_ends(noised, self.collate.positions)
        targets = self._with_ends(tokens)
        lengths = np.array([max(len(s), len(t)) for s, t in zip(sources, targets, strict=True)])
        return [
            self.collate([sources[i] for i in chosen], [targets[i] for i in chosen])
            for chosen in micro_batches(lengths, size)
        ]

    def _gather(self, shards: Ids, rows: Ids) -> tuple[Ragged, Ragged]:
        """Tokens and sentence lengths of samples, truncated to the sequence length."""
        token_rows, sentence_rows = [], []
        for shard, row in zip(shards.tolist(), rows.tolist(), strict=True):
            tokens, sentences = self._shard(shard).row(row)
            if len(tokens) > self._room:
                tokens = tokens[: self._room]
                ends = np.minimum(np.cumsum(sentences), self._room)
                sentences = np.diff(ends, prepend=0)
                sentences = sentences[sentences > 0]
            token_rows.append(tokens)
            sentence_rows.append(sentences)
        return Ragged.of(token_rows), Ragged.of(sentence_rows)

    def _shard(self, number: int) -> Samples:
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        while len(self._cache) >= self._kept:
            self._cache.popitem(last=False)
        samples = self._cache[number] = self.folder.read(number, self.tokenizer).mapped()
        return samples

    def _with_ends(self, rows: Ragged, limit: int | None = None) -> list[Ids]:
        """Add <s> and </s>, truncating rows that insertions made too long for the model."""
        prefix, suffix = (np.array(part, dtype=np.int64) for part in self._ends)
        lengths = rows.lengths
        if limit is not None:
            lengths = np.minimum(lengths, limit - len(prefix) - len(suffix))
        return [
            np.concatenate([prefix, rows.values[start : start + length], suffix])
            for start, length in zip(rows.starts.tolist(), lengths.tolist(), strict=True)
        ]


class PretrainLoader(IterableDataset):
    """An endless iterator; each item is a list of this rank's micro-batches for one optimizer step.

    Args:
        share: this rank's part of each global batch, and the sample at which to start.
    """

    def __init__(
        self,
        folder: Path,
        config: PretrainConfig,
        tokenizer: Tokenizer,
        share: Share,
        collate: Collate,
    ) -> None:
        shards = open_shards(folder)
        self.samples_per_epoch, self.tokens_per_epoch = shards.samples, shards.tokens
        self._reader = SampleReader(shards, config, tokenizer, collate, share.world_size)
        self._share = share
        self._workers = min(config.data.workers, usable_cores())

    def __iter__(self) -> Iterator[Any]:
        if info := get_worker_info():
            return self._in_worker(info.id, info.num_workers)
        return self._from_workers() if self._workers else self._steps(0, 1)

    def _from_workers(self) -> Iterator[list[Batch]]:
        # Unless this is set, `tokenizers` warns in forked processes.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        steps: Any = iter(
            DataLoader(
                self,
                batch_size=None,
                num_workers=self._workers,
                worker_init_fn=partial(_start_worker, os.getpid()),
                prefetch_factor=2,
            )
        )
        try:
            for step in steps:
                if isinstance(step, BartError):
                    raise step
                yield step
        finally:
            # If left to the garbage collector, this may hang when Python exits.
            steps._shutdown_workers()

    def _in_worker(self, number: int, workers: int) -> Iterator[list[Batch] | BartError]:
        """Yield a BartError instead of raising it: DataLoader would put a traceback into it."""
        try:
            yield from self._steps(number, workers)
        except BartError as error:
            yield error

    def _steps(self, first: int, every: int) -> Iterator[list[Batch]]:
        """Yield every n-th step, beginning with step `first`."""
        share = self._share
        start = share.start_sample + first * share.global_batch
        while True:
            positions = rank_positions(start, share.global_batch, share.rank, share.world_size)
            yield self._reader.batches(positions, share.micro_batch)
            start += every * share.global_batch


def share_of_cut_tokens(folder: Path, tokenizer: Tokenizer, sequence_length: int) -> float:
    """Return the fraction of tokens lost by truncation, from 0 to 1, measured on the first shard.

    LDDL measures samples with a different tokenizer; in BPE tokens they are longer.
    """
    lengths = open_shards(folder).read(0, tokenizer).tokens.lengths
    cut = np.maximum(lengths - (sequence_length - 2), 0)
    return float(cut.sum() / max(lengths.sum(), 1))


def validation_batches(
    folder: Path, config: PretrainConfig, tokenizer: Tokenizer, share: Share, collate: Collate
) -> Iterator[Batch]:
    """Yield this rank's part of the first VALIDATED samples of epoch 0, with fixed noise."""
    shards = open_shards(folder)
    reader = SampleReader(shards, config, tokenizer, collate)
    total = min(VALIDATED, shards.samples)
    rows = np.arange(share.rank, total, share.world_size, dtype=np.int64)
    yield from reader.batches(rows, share.micro_batch)


def _start_worker(parent: int, _: int) -> None:
    """End with the parent, and ignore Ctrl-C and the first SIGTERM.

    A terminal, `timeout` or SLURM may send them to the whole process group. The parent writes its
    checkpoint and then stops the workers with a second SIGTERM.
    """
    end_with_parent(parent)  # torch's own watch fails if the parent ends before the worker starts
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))

"""The loader: a pure function of samples consumed."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bart_cli.config.run import PretrainConfig
from bart_cli.data.batch import IGNORE, Batch, Collate
from bart_cli.data.order import SampleOrder, Share
from bart_cli.data.pretrain_loader import PretrainLoader, _start_worker, validation_batches
from bart_cli.data.shards import open_shards, resolve_shards, shard_schema
from bart_cli.errors import BartError, UsageError
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES

COUNTS = (7, 6, 7)


@pytest.fixture
def shards(tmp_path: Path, tiny_tokenizer: Tokenizer) -> Path:
    """Write three shards; every sample contains its number as a word."""
    number = 0
    for shard, count in enumerate(COUNTS):
        texts = []
        for _ in range(count):
            texts.append(f"Number {number} is here. " + SENTENCES[number % len(SENTENCES)])
            number += 1
        pq.write_table(pa.table({"sentences": texts}), tmp_path / f"shard-{shard}.parquet")
    assert tiny_tokenizer.vocab_size
    return tmp_path


def steps(
    folder: Path, tokenizer: Tokenizer, share: Share, count: int, **data: object
) -> list[list[Batch]]:
    loader = loader_of(folder, tokenizer, share, **data)
    return [step for step, _ in zip(loader, range(count), strict=False)]


def loader_of(folder: Path, tokenizer: Tokenizer, share: Share, **data: object) -> PretrainLoader:
    settings = {"data": {"workers": 0, "streams": 4, **data}, "training": {"seed": 5}}
    config = PretrainConfig.model_validate(settings)
    return PretrainLoader(folder, config, tokenizer, share, Collate(tokenizer.pad_id, 2))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_temporary_folder_is_one_line_from_a_loader_process_too(
    shards: Path, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def full(*_: object) -> None:
        raise OSError("517885 requested and 6144 written")

    monkeypatch.setattr("bart_cli.data.shards.tempfile.NamedTemporaryFile", full)
    with pytest.raises(BartError, match="cannot write the ids of a shard") as caught:
        steps(shards, tiny_tokenizer, Share(4, 4), 1, workers=workers)
    assert str(caught.value).endswith(": 517885 requested and 6144 written")


def targets(step: list[Batch]) -> list[tuple[int, ...]]:
    return [tuple(row[row != IGNORE].tolist()) for batch in step for row in batch.labels]


def sources(step: list[Batch]) -> list[tuple[int, ...]]:
    return [
        tuple(row[mask].tolist())
        for batch in step
        for row, mask in zip(batch.source, batch.source_mask, strict=True)
    ]


def content(step: list[Batch]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return sorted(zip(sources(step), targets(step), strict=True))


@pytest.mark.parametrize("streams", [1, 3, 4, 50])
def test_every_sample_occurs_once_per_epoch(streams: int) -> None:
    order = SampleOrder(COUNTS, streams, seed=1)
    epochs = []
    for epoch in range(2):
        positions = np.arange(20 * epoch, 20 * (epoch + 1))
        numbers, shard, row = order.locate(positions)
        assert set(numbers.tolist()) == {epoch}
        found = list(zip(shard.tolist(), row.tolist(), strict=True))
        assert sorted(found) == [(s, r) for s, n in enumerate(COUNTS) for r in range(n)]
        epochs.append(found)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("world_size", [2, 4])
def test_global_batches_do_not_depend_on_ranks_or_micro_batches(
    shards: Path, tiny_tokenizer: Tokenizer, world_size: int
) -> None:
    alone = steps(shards, tiny_tokenizer, Share(8, 8), 6)
    ranks = [
        steps(shards, tiny_tokenizer, Share(8, 3, rank, world_size), 6)
        for rank in range(world_size)
    ]
    for index, step in enumerate(alone):
        together = sorted(pair for rank in ranks for pair in content(rank[index]))
        assert together == content(step)


def test_workers_do_not_change_the_batches(shards: Path, tiny_tokenizer: Tokenizer) -> None:
    here = steps(shards, tiny_tokenizer, Share(4, 2), 5)
    there = steps(shards, tiny_tokenizer, Share(4, 2), 5, workers=2)
    for one, two in zip(here, there, strict=True):
        for a, b in zip(one, two, strict=True):
            assert all(map(torch.equal, vars(a).values(), vars(b).values()))


def test_starting_at_a_later_sample_gives_the_same_tensors(
    shards: Path, tiny_tokenizer: Tokenizer
) -> None:
    whole = steps(shards, tiny_tokenizer, Share(8, 4), 7)
    rest = steps(shards, tiny_tokenizer, Share(8, 4, start_sample=24), 4)
    for one, two in zip(whole[3:], rest, strict=True):
        for a, b in zip(one, two, strict=True):
            assert all(map(torch.equal, vars(a).values(), vars(b).values()))


def test_a_batch_is_well_formed(shards: Path, tiny_tokenizer: Tokenizer) -> None:
    for step in steps(shards, tiny_tokenizer, Share(8, 3), 3):
        assert [batch.sequences for batch in step] == [3, 3, 2]
        for batch in step:
            assert batch.source.shape[1] % 8 == 0
            assert batch.labels.shape[1] % 8 == 0
            for row in range(batch.sequences):
                target = batch.labels[row][batch.labels[row] != IGNORE].tolist()
                assert (target[0], target[-1]) == (tiny_tokenizer.bos_id, tiny_tokenizer.eos_id)
                fed = batch.decoder_input[row, : len(target)].tolist()
                assert fed == [tiny_tokenizer.eos_id, *target[:-1]]
                real = batch.source[row][batch.source_mask[row]].tolist()
                assert (real[0], real[-1]) == (tiny_tokenizer.bos_id, tiny_tokenizer.eos_id)


def test_a_long_sample_is_truncated_to_the_sequence_length(
    shards: Path, tiny_tokenizer: Tokenizer
) -> None:
    for step in steps(shards, tiny_tokenizer, Share(8, 8), 2, sequence_length=16):
        assert max(len(target) for target in targets(step)) == 16


def test_validation_is_deterministic_and_shared_among_ranks(
    shards: Path, tiny_tokenizer: Tokenizer
) -> None:
    def run(share: Share) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        collate = Collate(tiny_tokenizer.pad_id, 2)
        return content(
            list(validation_batches(shards, PretrainConfig(), tiny_tokenizer, share, collate))
        )

    alone = run(Share(4, 4))
    assert len(alone) == sum(COUNTS)
    assert alone == run(Share(4, 4))
    assert alone == sorted(run(Share(4, 2, 0, 2)) + run(Share(4, 2, 1, 2)))


def test_a_batch_not_divisible_by_the_ranks_is_refused() -> None:
    with pytest.raises(UsageError, match="global_batch=10 cannot be divided evenly among 4"):
        Share(10, 2, 0, 4)


def test_missing_shards_name_the_available_lengths(tmp_path: Path) -> None:
    (tmp_path / "512" / "train").mkdir(parents=True)
    with pytest.raises(UsageError) as caught:
        resolve_shards(tmp_path, 128)
    assert "no train shards of 128 tokens" in caught.value.message
    assert "512" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="no shards"):
        open_shards(tmp_path)


IDS = pa.list_(pa.uint16())


@pytest.mark.parametrize(
    ("columns", "counts", "message"),
    [
        ({"sentences": [1]}, None, "column 'sentences' has type int64"),
        ({"input_ids": ["x"], "sentence_lengths": ["x"]}, None, "expected lists of integers"),
        ({"input_ids": [[5], None], "sentence_lengths": [[1], [1]]}, None, "contains nulls"),
        ({"input_ids": [[5], [5]], "sentence_lengths": [[1], [2]]}, None, "row 1: sentence_"),
        ({"input_ids": [[60000]], "sentence_lengths": [[1]]}, None, "token 60000 is out of range"),
        ({"sentences": ["One."]}, '{"shard-0.parquet": 2}', "has 1 samples, but .* says 2"),
        ({"sentences": ["One."]}, "{", "num_samples.json is damaged"),
        ({"sentences": ["One."]}, '{"shard-0.parquet": "x"}', "num_samples.json is damaged"),
        ({"sentences": ["One."]}, "[1]", "num_samples.json is damaged"),
    ],
)
def test_inconsistent_shards_are_reported(
    tmp_path: Path, tiny_tokenizer: Tokenizer, columns: Any, counts: str | None, message: str
) -> None:
    lists = {n: isinstance(rows[0], list) for n, rows in columns.items()}
    table = {n: pa.array(rows, IDS if lists[n] else None) for n, rows in columns.items()}
    pq.write_table(pa.table(table), tmp_path / "shard-0.parquet")
    if counts is not None:
        (tmp_path / ".num_samples.json").write_text(counts)
    with pytest.raises(BartError, match=message):
        open_shards(tmp_path).read(0, tiny_tokenizer)
    with pytest.raises(BartError, match=message):
        steps(tmp_path, tiny_tokenizer, Share(2, 2), 1)


def test_a_null_text_is_an_empty_sample_and_odd_names_are_shards(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    pq.write_table(pa.table({"sentences": ["One. Two.", None]}), tmp_path / "shard-\u00b2.parquet")
    samples = open_shards(tmp_path).read(0, tiny_tokenizer)
    assert (samples.tokens.lengths > 0).tolist() == [True, False]
    assert steps(tmp_path, tiny_tokenizer, Share(2, 2), 1)


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_a_rank_keeps_only_the_shards_of_its_streams_in_every_epoch(
    tmp_path: Path, tiny_tokenizer: Tokenizer, world_size: int
) -> None:
    columns = {"sentences": [""] * 4, "input_ids": [[5, 6, 7]] * 4, "sentence_lengths": [[3]] * 4}
    table = pa.table(columns, schema=shard_schema(tiny_tokenizer.vocab_size))
    for shard in range(24):
        pq.write_table(table, tmp_path / f"shard-{shard}.parquet")
    share = Share(8, 8, world_size - 1, world_size)
    loader = loader_of(tmp_path, tiny_tokenizer, share, streams=8)
    reader = loader._reader
    held = []
    files = len(list(Path("/proc/self/fd").iterdir()))
    for _, _ in zip(loader, range(12 * 5), strict=False):  # 12 steps per epoch
        held.append(len(reader._cache))
        values = next(iter(reader._cache.values())).tokens.values
        assert values.dtype == np.uint16
        maps = Path("/proc/self/maps").read_text().splitlines()
        mapped = sum(line.endswith("(deleted)") and tempfile.gettempdir() in line for line in maps)
        assert mapped >= 2 * held[-1]  # tokens and sentence lengths
    assert max(held) <= 8 // world_size + 1
    assert len(list(Path("/proc/self/fd").iterdir())) <= files + 1  # the maps keep no file open


def test_a_loader_can_be_sent_to_workers_that_are_not_forked(
    shards: Path, tiny_tokenizer: Tokenizer
) -> None:
    """Python 3.14 starts workers by forkserver, which pickles the loader."""
    loader = loader_of(shards, tiny_tokenizer, Share(8, 4))
    first = content(next(iter(loader)))
    assert content(next(iter(pickle.loads(pickle.dumps(loader))))) == first


def _wait_as_worker(parent: int) -> None:
    _start_worker(parent, 0)
    time.sleep(60)


def test_a_worker_that_starts_after_its_parent_was_killed_ends() -> None:
    """Its parent is another process then, here this one, and torch would watch that one."""
    killed = multiprocessing.get_context("fork").Process(target=int)
    killed.start()
    killed.join()
    worker = multiprocessing.get_context("fork").Process(target=_wait_as_worker, args=(killed.pid,))
    worker.start()
    worker.join(30)
    assert worker.exitcode == -signal.SIGKILL

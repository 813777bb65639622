"""The loader of pairs: a pure function of samples consumed, grouped by length."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.data import pair_ids
from bart_cli.data.batch import IGNORE, Batch, Collate
from bart_cli.data.order import Share
from bart_cli.data.pair_ids import (
    VOCABULARY,
    EncodedPairs,
    PackedRows,
    encode_pairs,
    load_encoded,
    load_prepared,
)
from bart_cli.data.pairs import PairSource, read_pairs
from bart_cli.data.preprocess.summarization import preprocess_summarization
from bart_cli.data.summarization_loader import (
    SummarizationLoader,
    summarization_validation_batches,
)
from bart_cli.data.table_digest import ID_COLUMNS
from bart_cli.errors import UsageError
from bart_cli.progress import Reporter
from bart_cli.runtime.world import World
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES
from tests.ranks import in_ranks

Row = tuple[int, ...]
IDS = pa.list_(pa.uint16())
LENGTHS = st.lists(st.integers(3, 60), min_size=1, max_size=40)


def numbered(lengths: list[int], tokenizer: Tokenizer) -> EncodedPairs:
    """Make pairs identified by their targets: pair i is [0, 10 + i, 2]."""
    sources = [[0, *[7] * (length - 2), 2] for length in lengths]
    targets = [[0, 10 + number, 2] for number in range(len(lengths))]
    return EncodedPairs(
        *(
            PackedRows([pa.array(side, IDS)], 1024, ([0], [2]), tokenizer)
            for side in (sources, targets)
        )
    )


def ids_of(pairs: EncodedPairs) -> tuple[list[list[int]], list[list[int]]]:
    return [row.tolist() for row in pairs.sources], [row.tolist() for row in pairs.targets]


def steps(
    pairs: EncodedPairs, tokenizer: Tokenizer, share: Share, count: int, **data: object
) -> list[list[Batch]]:
    config = SummarizationDataConfig.model_validate(data)
    loader = SummarizationLoader(pairs, config, share, seed=3, collate=Collate(tokenizer.pad_id, 2))
    return list(islice(loader, count))


def members(step: list[Batch]) -> list[tuple[Row, int]]:
    """Return source and number of each pair of a step, sorted by number."""
    rows = [
        (tuple(source[mask].tolist()), int(labels[labels != IGNORE][1]))
        for batch in step
        for source, mask, labels in zip(batch.source, batch.source_mask, batch.labels, strict=True)
    ]
    return sorted(rows, key=lambda row: row[1])


@given(lengths=LENGTHS, batch=st.integers(1, 9), grouped=st.booleans())
def test_every_pair_occurs_once_per_epoch_with_its_summary(
    tiny_tokenizer: Tokenizer, lengths: list[int], batch: int, grouped: bool
) -> None:
    pairs = numbered(lengths, tiny_tokenizer)
    share = Share(global_batch=batch, micro_batch=4)
    enough = -(-len(lengths) // batch)
    found = steps(pairs, tiny_tokenizer, share, enough, group_by_length=grouped)
    rows = [row for step in found for row in members(step)]
    numbers = [number - 10 for _, number in rows]
    assert set(numbers) == set(range(len(lengths)))
    assert len(rows) == enough * batch  # the excess belongs to the next epoch
    assert all(len(source) == lengths[number - 10] for source, number in rows)


@given(
    lengths=LENGTHS,
    world=st.sampled_from([1, 2, 4]),
    micro=st.integers(1, 5),
    start=st.integers(0, 6),
    max_tokens=st.sampled_from([None, 64, 128]),
)
def test_global_batches_depend_only_on_the_samples_consumed(
    tiny_tokenizer: Tokenizer,
    lengths: list[int],
    world: int,
    micro: int,
    start: int,
    max_tokens: int | None,
) -> None:
    pairs = numbered(lengths, tiny_tokenizer)
    whole = steps(pairs, tiny_tokenizer, Share(global_batch=8, micro_batch=8), 8)
    shares = [
        Share(8, min(micro, 8 // world), rank, world, start_sample=start * 8)
        for rank in range(world)
    ]
    ranks = [steps(pairs, tiny_tokenizer, s, 2, max_tokens=max_tokens) for s in shares]
    for number in range(2):
        together = [batch for rank in ranks for batch in rank[number]]
        assert members(together) == members(whole[start + number])
        assert all(sum(map(len, map(members, [rank[number]]))) == 8 // world for rank in ranks)


def test_grouping_by_length_saves_padding(tiny_tokenizer: Tokenizer) -> None:
    lengths = np.random.default_rng(0).integers(3, 400, 256).tolist()
    share = Share(global_batch=8, micro_batch=8)
    shares = {}
    for grouped in (False, True):
        pairs = numbered(lengths, tiny_tokenizer)
        found = steps(pairs, tiny_tokenizer, share, 32, group_by_length=grouped)
        batches = [batch for step in found for batch in step]
        real = sum(int(batch.source_mask.sum()) for batch in batches)
        shares[grouped] = 1 - real / sum(batch.source.numel() for batch in batches)
    assert shares[True] < 0.05 < 0.3 < shares[False]


def test_batches_by_tokens_respect_the_limit(tiny_tokenizer: Tokenizer) -> None:
    share = Share(global_batch=32, micro_batch=32)
    pairs = numbered([60] * 8 + [10] * 24, tiny_tokenizer)
    (step,) = steps(pairs, tiny_tokenizer, share, 1, max_tokens=256)
    assert sum(batch.sequences for batch in step) == 32
    assert all(batch.source.numel() <= 256 for batch in step)


def test_validation_reads_all_pairs_once_over_all_ranks(tiny_tokenizer: Tokenizer) -> None:
    pairs = numbered([5, 9, 3, 30, 4], tiny_tokenizer)
    found = [
        batch
        for rank in range(2)
        for batch in summarization_validation_batches(
            pairs, Share(4, 2, rank, 2), Collate(tiny_tokenizer.pad_id, 2)
        )
    ]
    assert [number - 10 for _, number in members(found)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("prepared", [False, True])
def test_pairs_are_truncated_and_limited(
    tmp_path: Path, tiny_tokenizer: Tokenizer, prepared: bool
) -> None:
    rows = [{"article": f"{s} {i}", "summary": s} for i, s in enumerate(SENTENCES)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path
    if prepared:
        folder = tmp_path / "prepared"
        preprocess_summarization(
            SummarizationDataConfig(path=tmp_path), folder, tiny_tokenizer, reporter=Reporter()
        )
    data = SummarizationDataConfig(path=folder, max_source_length=8, max_target_length=6)
    pairs = load_encoded(PairSource(data), "train", 3, data, tiny_tokenizer)
    assert (len(pairs.sources), pairs.sources.cut, pairs.targets.cut) == (3, 3, 3)
    for source, target in zip(pairs.sources, pairs.targets, strict=True):
        assert (len(source), len(target)) == (8, 6)
        assert source[0] == target[0] == tiny_tokenizer.bos_id
        assert source[-1] == target[-1] == tiny_tokenizer.eos_id


def test_one_rank_of_a_machine_tokenizes_for_all(
    tmp_path: Path, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"article": f"{s} {i}", "summary": s} for i, s in enumerate(SENTENCES)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = SummarizationDataConfig(path=tmp_path, max_source_length=8)
    alone = ids_of(load_encoded(PairSource(data), "train", 5, data, tiny_tokenizer))
    calls: list[object] = []
    real = pair_ids.encode_batches

    def encode_batches(*arguments: Any) -> Iterator[Any]:
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(pair_ids, "encode_batches", encode_batches)

    def load(world: World) -> object:
        return ids_of(load_encoded(PairSource(data), "train", 5, data, tiny_tokenizer, world=world))

    assert in_ranks(3, load) == [alone] * 3
    assert len(calls) == 1


def table_of(file: Path) -> pa.Table:
    with pa.memory_map(str(file)) as content:
        return pa.ipc.open_file(content).read_all()


def test_prepared_ids_are_mapped_two_bytes_each_and_equal_those_of_text_and_old_tables(
    tmp_path: Path, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many record batches, a limit inside one, truncated rows, ids without an embedding."""
    for module in ("bart_cli.data.pair_ids", "bart_cli.data.pair_files"):
        monkeypatch.setattr(f"{module}.ROWS", 3)
    rows = [{"article": f"{s} {i}", "summary": s[: 3 + i]} for i, s in enumerate(SENTENCES)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    new, old = tmp_path / "new", tmp_path / "old"
    preprocess_summarization(
        SummarizationDataConfig(path=tmp_path), new, tiny_tokenizer, reporter=Reporter()
    )
    table = table_of(new / "train.arrow")
    assert table.schema.field("source_ids").type == IDS
    old.mkdir()
    ids = [table[name].cast(pa.list_(pa.int32())) for name in ID_COLUMNS]
    metadata = {VOCABULARY: tiny_tokenizer.fingerprint()}
    pq.write_table(
        pa.table(
            [table["article"], table["summary"], *ids], ["article", "summary", *ID_COLUMNS]
        ).replace_schema_metadata(metadata),
        old / "train.parquet",
    )
    digests = {
        str(PairSource(SummarizationDataConfig(path=folder)).digests("train"))
        for folder in (new, old)
    }
    assert len(digests) == 1  # the digest depends on the content, not on the format
    fitted = tiny_tokenizer.fitted(tiny_tokenizer.vocab_size - 40)
    for limit in (None, 1, 5, 6):
        found = []
        for folder in (new, old):
            data = SummarizationDataConfig(path=folder, max_source_length=12, max_target_length=6)
            source, before = PairSource(data), pa.total_allocated_bytes()
            pairs = load_prepared(source, "train", limit, data, fitted)
            assert pairs is not None
            found.append((ids_of(pairs), pairs.sources.cut, pairs.targets.cut))
            if folder is new:
                assert pa.total_allocated_bytes() <= before  # the ids are not copied
            del pairs
        text = PairSource(data).read("train", limit=limit).pairs
        encoded = encode_pairs(text, data, fitted)
        assert found[0] == found[1] == (ids_of(encoded), encoded.sources.cut, encoded.targets.cut)
        assert encoded.sources.lengths.tolist() == [len(row) for row in found[0][0][0]]
    assert any(fitted.unk_id in row[1:-1] for row in found[0][0][0])


def test_ids_of_another_vocabulary_are_not_used_whatever_tokenizer_is_saved_with_them(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    """A second run with another tokenizer is killed before its end."""
    (tmp_path / "train.jsonl").write_text(json.dumps({"article": "A b c.", "summary": "A."}))
    other = Tokenizer.train(SENTENCES[2:], vocab_size=300)
    preprocess_summarization(
        SummarizationDataConfig(path=tmp_path), tmp_path / "out", other, reporter=Reporter()
    )
    tiny_tokenizer.save(tmp_path / "out" / "tokenizer")
    data = SummarizationDataConfig(path=tmp_path / "out")
    pairs = load_encoded(PairSource(data), "train", None, data, tiny_tokenizer)
    assert ids_of(pairs) == ([tiny_tokenizer.encode("A b c.")], [tiny_tokenizer.encode("A.")])
    assert load_prepared(PairSource(data), "train", None, data, tiny_tokenizer) is None
    prepared = load_prepared(PairSource(data), "train", None, data, other)
    assert prepared is not None
    assert ids_of(prepared) == ([other.encode("A b c.")], [other.encode("A.")])


def test_pairs_of_two_sources_are_not_mixed_and_the_input_is_not_overwritten(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    row = json.dumps({"article": "A b c.", "summary": "A."})
    for name in ("both/train", "both/validation", "one/train"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jsonl").write_text(row)

    def prepare(source: str, out: str) -> None:
        preprocess_summarization(
            SummarizationDataConfig(path=tmp_path / source),
            tmp_path / out,
            tiny_tokenizer,
            reporter=Reporter(),
        )

    prepare("both", "out")
    pq.write_table(table_of(tmp_path / "out" / "train.arrow"), tmp_path / "out" / "train.parquet")
    prepare("both", "out")  # replaces the table of an earlier version
    assert not (tmp_path / "out" / "train.parquet").exists()
    with pytest.raises(UsageError, match="out has a validation split"):
        prepare("one", "out")
    with pytest.raises(UsageError, match="is both input and output"):
        prepare("out", "out")
    with pytest.raises(UsageError, match=r"contains train\.jsonl with other pairs"):
        prepare("both", "one")


def test_lone_surrogates_in_json_are_replaced(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    rows = ['{"id": "\\udc00", "article": "a \\ud800 b", "summary": "c"}']
    rows.append('{"id": null, "article": "d e", "summary": "f"}')
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    preprocess_summarization(
        SummarizationDataConfig(path=tmp_path),
        tmp_path / "out",
        tiny_tokenizer,
        reporter=Reporter(),
    )
    pairs = [(p.id, p.source) for p in read_pairs(tmp_path / "out", "train")]
    assert pairs == [("\ufffd", "a \ufffd b"), ("2", "d e")]
    (tmp_path / "train.jsonl").write_text("[" * 100_000)
    with pytest.raises(UsageError, match="line 1: not valid JSON"):
        read_pairs(tmp_path, "train")

"""LDDL's own loader reads our shards, and we read shards with only LDDL's column."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch.utils.data import DataLoader

from bart_cli.data.preprocess.pretrain import PreprocessSettings, preprocess_pretrain
from bart_cli.data.shards import open_shards, read_shard
from bart_cli.progress import Reporter
from bart_cli.tokenizer import Tokenizer
from tests.clusters import scheduler
from tests.conftest import SENTENCES

pytest.importorskip("lddl", reason="lddl is not installed: pip install --no-deps lddl==0.1.0")
SHARDS = 4


@pytest.fixture(scope="module", params=[61, 64], ids=["uneven", "divisible"])
def folder(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_tokenizer: Tokenizer,
) -> Path:
    """Write shards with a number of samples that is, or is not, divisible by four."""
    root = tmp_path_factory.mktemp("lddl")
    lines = [f"doc-{i} Number {i}. {SENTENCES[i % 4]}\n" for i in range(request.param)]
    (root / "a.txt").write_text("".join(lines), encoding="utf-8")
    preprocess_pretrain(
        PreprocessSettings(
            inputs=(("x", root / "a.txt", "lines"),),
            target_lengths=(128,),
            shards=SHARDS,
            validation_share=0.0,
        ),
        root / "out",
        tiny_tokenizer,
        scheduler=scheduler(),
        reporter=Reporter(),
    )
    return root / "out" / "128" / "train"


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_lddl_iterates_over_our_shards(folder: Path, workers: int) -> None:
    from lddl.torch.datasets import ParquetDataset
    from lddl.torch.log import DatasetLogger

    class Sentences(ParquetDataset):
        def _decode_record_batch(self, batch: pa.RecordBatch) -> list[str]:
            return batch.to_pydict()["sentences"]

    paths = sorted(str(path) for path in folder.glob("shard-*.parquet"))
    dataset = Sentences(
        paths, shuffle_buffer_size=16, shuffle_buffer_warmup_factor=2, logger=DatasetLogger()
    )
    seen = list(DataLoader(dataset, batch_size=None, num_workers=workers))
    ours = [t for path in paths for t in pq.read_table(path)["sentences"].to_pylist()]
    smallest = min(json.loads((folder / ".num_samples.json").read_text()).values())
    # LDDL reads as many samples from each shard as the smallest shard has.
    assert len(seen) == len(dataset) == smallest * SHARDS
    assert not Counter(seen) - Counter(ours)
    assert len(set(seen)) > len(seen) // 2


def test_shards_with_ldds_column_only_give_the_same_tokens(
    folder: Path, tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    for path in open_shards(folder).paths:
        table = pq.read_table(path, columns=["sentences"])
        pq.write_table(table, tmp_path / path.name)
        theirs = read_shard(tmp_path / path.name, tiny_tokenizer)
        ours = read_shard(path, tiny_tokenizer)
        if path.name != "shard-0.parquet":  # then one sample may be split inside a sentence
            assert theirs.tokens.values.tolist() == ours.tokens.values.tolist()
            assert theirs.sentences.values.tolist() == ours.sentences.values.tolist()
        assert len(theirs.tokens.lengths) == len(ours.tokens.lengths)

"""The work of one Dask task: a block of documents to samples of every target length.

Runs in worker processes; what it needs comes as plain arguments, what it makes lies in files.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bart_cli.data.documents import Block, read_block
from bart_cli.data.preprocess.packing import Sample, pack
from bart_cli.data.sentences import split_sentences
from bart_cli.data.shards import SCHEMA, write_shard
from bart_cli.files import write_text
from bart_cli.tokenizer import Tokenizer

SPLITS = ("train", "validation")


@dataclass
class BlockReport:
    """What a block held and became. `samples`: by '<length>/<split>'. `fill`: tokens packed."""

    documents: int = 0
    sentences: int = 0
    characters: int = 0
    tokens: int = 0
    samples: dict[str, int] = field(default_factory=dict)
    packed_tokens: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BlockTask:
    """One block and the settings that its result depends on."""

    number: int
    block: Block
    work: Path
    tokenizer: Path
    target_lengths: tuple[int, ...]
    validation_share: float
    cross_documents: bool

    def output(self, length: int, split: str) -> Path:
        """Where the samples of one length and split go."""
        return self.work / f"{length}-{split}" / f"block-{self.number:06d}.parquet"

    @property
    def done(self) -> Path:
        """The report: written last, its presence says that the block is complete."""
        return self.work / "reports" / f"block-{self.number:06d}.json"


def process_block(task: BlockTask) -> BlockReport:
    """Split, tokenise and pack the documents of a block; write one parquet per length and split.

    A block that a previous run completed is not read again.
    """
    if task.done.is_file():
        return BlockReport(**json.loads(task.done.read_text(encoding="utf-8")))
    tokenizer = _tokenizer(task.tokenizer)
    word_starts = tokenizer.word_starts()
    report = BlockReport()
    documents: dict[str, list[list[list[int]]]] = {split: [] for split in SPLITS}
    for name, text in read_block(task.block):
        sentences = split_sentences(text)
        spaced = [s if i == 0 else f" {s}" for i, s in enumerate(sentences)]
        rows = tokenizer.encode_batch(spaced, special=False)
        documents[_split(name, task.validation_share)].append(rows)
        report.documents += 1
        report.sentences += len(rows)
        report.characters += len(text)
        report.tokens += sum(map(len, rows))
    for length in task.target_lengths:
        for split, members in documents.items():
            if task.cross_documents:
                members = [[sentence for document in members for sentence in document]]
            samples = [s for rows in members for s in pack(rows, length - 2, word_starts)]
            _write(task.output(length, split), samples, tokenizer)
            report.samples[f"{length}/{split}"] = len(samples)
            report.packed_tokens[f"{length}/{split}"] = sum(s.tokens for s in samples)
    write_text(task.done, json.dumps(asdict(report)) + "\n")
    return report


def merge_shard(sources: list[tuple[Path, int, int]], path: Path) -> int:
    """Write one balanced shard from row ranges (file, begin, end) of blocks; its sample count."""
    parts = [pq.read_table(file).slice(begin, end - begin) for file, begin, end in sources]
    table = pa.concat_tables(parts).combine_chunks() if parts else SCHEMA.empty_table()
    if not path.is_file():
        write_shard(path, table)
    return int(table.num_rows)


@lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(folder)


def _split(name: str, validation_share: float) -> str:
    """A document's split hangs on its id alone, so that it never changes sides."""
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return "validation" if digest < validation_share * 2**64 else "train"


def _write(path: Path, samples: list[Sample], tokenizer: Tokenizer) -> None:
    rows = [[token for s in sample.sentences for token in s] for sample in samples]
    table = pa.table(
        {
            "sentences": [text.strip() for text in tokenizer.decode_batch(rows)],
            "input_ids": rows,
            "sentence_lengths": [[len(s) for s in sample.sentences] for sample in samples],
        },
        schema=SCHEMA,
    )
    write_shard(path, table)

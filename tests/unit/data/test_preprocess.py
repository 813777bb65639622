"""Preprocessing loses nothing, keeps boundaries, and gives the same bytes for any workers."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.data.documents import plan_blocks, read_block, read_texts
from bart_cli.data.inspect import summarize_shards
from bart_cli.data.pairs import read_pairs
from bart_cli.data.preprocess.blocks import BlockTask, _copies, _halves
from bart_cli.data.preprocess.cluster import run_tasks
from bart_cli.data.preprocess.packing import pack
from bart_cli.data.preprocess.pretrain import PreprocessSettings, preprocess_pretrain
from bart_cli.data.preprocess.summarization import preprocess_summarization
from bart_cli.data.sentences import split_sentences
from bart_cli.data.shards import shard_schema, write_shard
from bart_cli.data.words import character_starts, word_starts
from bart_cli.errors import BartError, UsageError
from bart_cli.progress import Reporter
from bart_cli.tokenizer import Tokenizer
from tests.clusters import scheduler
from tests.conftest import SENTENCES

pytestmark = pytest.mark.slow

WORDS = Tokenizer.train(SENTENCES, vocab_size=400)
STARTS, CHARACTERS = word_starts(WORDS), character_starts(WORDS)


@given(
    st.lists(st.lists(st.integers(0, len(STARTS) - 1), min_size=1, max_size=40), max_size=12),
    st.integers(6, 30),
)
def test_packing_loses_nothing_and_never_overfills(sentences: list[list[int]], room: int) -> None:
    samples = list(pack(sentences, room, STARTS, CHARACTERS))
    packed = [t for sample in samples for sentence in sample for t in sentence]
    assert packed == [token for sentence in sentences for token in sentence]
    for sample in samples:
        assert 0 < sum(map(len, sample)) <= room
        assert all(sample)


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.integers(6, 30))
def test_samples_are_split_between_characters(text: str, room: int) -> None:
    """Text without spaces (Chinese, emoji): readers of `sentences` would lose characters."""
    text = text.translate(dict.fromkeys(map(ord, "<>")))  # no special token
    ids = WORDS.encode_batch([text], special=False)
    parts = [WORDS.decode(s[0]) for s in pack(ids, room, STARTS, CHARACTERS)]
    assert "".join(parts) == text


def test_a_sample_is_split_between_characters(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    tiny_tokenizer.save(tmp_path)
    ids = tiny_tokenizer.encode_batch(["\u4e2d" * 3], special=False)[0]
    assert len(ids) == 9
    halves = _halves({"sentence_lengths": [9], "input_ids": ids}, tmp_path)
    assert halves is not None
    assert halves["sentences"].to_pylist() == ["\u4e2d", "\u4e2d" * 2]


def corpus(folder: Path, documents: int) -> Path:
    lines = [
        f"doc-{i} " + " ".join(SENTENCES[(i + k) % 4] for k in range(1 + i % 7)) + "\n"
        for i in range(documents)
    ]
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "a.txt").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize("size", [1, 40, 300, 10**6])
@pytest.mark.parametrize("form", ["lines", "plain"])
def test_blocks_of_any_size_give_the_same_documents(tmp_path: Path, size: int, form: str) -> None:
    end = "\n" if form == "lines" else "\n\n"
    texts = [f"{SENTENCES[i % 4]} {i}" for i in range(30)]
    (tmp_path / "a.txt").write_text("".join(f"id{i} {t}{end}" for i, t in enumerate(texts)))
    blocks = plan_blocks(tmp_path, form, size)  # type: ignore[arg-type]
    found = [text for block in blocks for _, text in read_block(block)]
    expected = texts if form == "lines" else [f"id{i} {t}" for i, t in enumerate(texts)]
    assert found == expected


@pytest.mark.parametrize("size", [1, 40, 300])
@pytest.mark.parametrize("end", ["\r\n\r\n", "\n \t\n", "\n\n\n\r\n \n"])
def test_any_blank_line_separates_documents_and_blocks(tmp_path: Path, size: int, end: str) -> None:
    texts = [f"{SENTENCES[i % 4]} {i}" for i in range(30)]
    content = end.join(text.replace(" ", end[0] + " ", 1) for text in texts)
    (tmp_path / "a.txt").write_bytes(content.encode())
    blocks = plan_blocks(tmp_path, "plain", size)
    assert len(blocks) > 5
    assert [text for block in blocks for _, text in read_block(block)] == texts


def test_a_boundary_across_two_reads_is_found(tmp_path: Path) -> None:
    for spaces in range(4):
        words = "x" * (65536 - spaces)
        (tmp_path / "a.txt").write_text(f"{words}\n  \nnext\n\nlast", encoding="utf-8")
        blocks = plan_blocks(tmp_path, "plain", 1)
        found = [text for block in blocks for _, text in read_block(block)]
        assert found == [words, "next", "last"]
        assert len(blocks) == 3


def test_a_tab_also_separates_the_id_and_a_byte_order_mark_is_not_text(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffid1\tFirst one.\n id2 \t Second one.\r\nid3\n".encode())
    (block,) = plan_blocks(tmp_path, "lines")
    assert list(read_block(block)) == [("id1", "First one."), ("id2", "Second one.")]
    (block,) = plan_blocks(tmp_path, "plain")
    assert next(iter(read_block(block)))[1].startswith("id1 First")


def test_the_document_id_is_not_text(tmp_path: Path) -> None:
    assert list(read_texts(corpus(tmp_path, 1), "lines")) == [SENTENCES[0]]


def shards(
    tmp_path: Path,
    tokenizer: Tokenizer,
    name: str,
    **settings: object,
) -> Path:
    out = tmp_path / name
    preprocess_pretrain(
        PreprocessSettings(
            inputs=(("x", tmp_path / "corpus", "lines"),),
            target_lengths=(32, 64),
            shards=3,
            **settings,  # type: ignore[arg-type]
        ),
        out,
        tokenizer,
        scheduler=scheduler(),
        reporter=Reporter(),
    )
    return out


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_shards_hold_all_text_and_are_balanced(
    tmp_path: Path, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bart_cli.data.documents.BLOCK_BYTES", 2000)
    corpus(tmp_path / "corpus", 60)
    out = shards(tmp_path, tiny_tokenizer, "one", validation_share=0.2)
    report = json.loads((out / "report.json").read_text())
    assert report["documents"] == 60
    assert report["tokens_lost"] == 0
    texts = []
    for length in (32, 64):
        for split in ("train", "validation"):
            folder = out / str(length) / split
            counts = json.loads((folder / ".num_samples.json").read_text())
            assert max(counts.values()) - min(counts.values()) <= 1
            for name, count in counts.items():
                table = pq.read_table(folder / name)
                assert table.num_rows == count
                for row in table.to_pylist():
                    assert len(row["input_ids"]) == sum(row["sentence_lengths"]) <= length - 2
                    assert "doc-" not in row["sentences"]
                    assert tiny_tokenizer.decode(row["input_ids"]).strip() == row["sentences"]
                    texts.append(row["sentences"])
    assert not (out / ".work").exists()


def test_a_stopped_run_resumes_to_the_same_bytes(
    tmp_path: Path, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus(tmp_path / "corpus", 40)
    whole = shards(tmp_path, tiny_tokenizer, "whole")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bart_cli.data.preprocess.pretrain._balance", stop)
        with pytest.raises(KeyboardInterrupt):
            shards(tmp_path, tiny_tokenizer, "stopped")
    assert not (tmp_path / "stopped" / "report.json").exists()
    assert list((tmp_path / "stopped/.work/reports").iterdir())
    assert digest(shards(tmp_path, tiny_tokenizer, "stopped")) == digest(whole)


def test_exact_duplicates_are_removed_across_inputs(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    source = corpus(tmp_path / "corpus", 5) / "source"
    first = (source / "a.txt").read_text(encoding="utf-8").splitlines()
    again = [f"again-{line}" for line in first[1:3]]
    (source / "b.txt").write_text("\n".join([*again, f"new {SENTENCES[3]}", again[0]]) + "\n")
    report = json.loads(
        (shards(tmp_path, tiny_tokenizer, "out", deduplicate=True) / "report.json").read_text()
    )
    # Documents 0 and 4 of the corpus differ in length, so there are 5 + 1 distinct texts.
    assert (report["documents"], report["duplicates"]) == (6, 3)
    plain = json.loads((shards(tmp_path, tiny_tokenizer, "plain") / "report.json").read_text())
    assert (plain["documents"], plain["duplicates"]) == (9, 0)


@pytest.mark.parametrize("documents", [9, 11])  # of 3 shards
def test_shards_are_never_all_of_one_size(
    tmp_path: Path, tiny_tokenizer: Tokenizer, documents: int
) -> None:
    """LDDL's loader asserts that the largest shard has one sample more than the smallest."""
    folder = tmp_path / "corpus" / "source"
    folder.mkdir(parents=True)
    text = "\n".join(f"d{i} {SENTENCES[0]}" for i in range(documents))
    (folder / "a.txt").write_text(text, encoding="utf-8")
    out = shards(tmp_path, tiny_tokenizer, "out", validation_share=0.0)
    counts = json.loads((out / "32" / "train" / ".num_samples.json").read_text())
    assert max(counts.values()) == min(counts.values()) + 1
    tables = [pq.read_table(out / "32" / "train" / name) for name in counts]
    ids = [i for table in tables for row in table["input_ids"].to_pylist() for i in row]
    assert ids == tiny_tokenizer.encode(SENTENCES[0])[1:-1] * documents
    report = json.loads((out / "report.json").read_text())
    assert report["samples"]["32/train"] == sum(counts.values())
    assert report["tokens_lost"] == 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    """Write a corpus, and its shards to `whole`."""
    folder = tmp_path_factory.mktemp("finished")
    corpus(folder / "corpus", 20)
    shards(folder, tiny_tokenizer, "whole")
    return folder


def test_shards_of_other_or_unknown_settings_are_not_reused(
    finished: Path, tiny_tokenizer: Tokenizer
) -> None:
    def refused(name: str, message: str, **settings: object) -> None:
        before = digest(finished / name)
        with pytest.raises(UsageError, match=message):
            shards(finished, tiny_tokenizer, name, **settings)
        assert digest(finished / name) == before

    def copy(name: str, *without: str) -> Path:
        out = Path(shutil.copytree(finished / "whole", finished / name))
        for file in without:
            (out / file).unlink()
        return out

    other = "holds shards with other settings"
    refused("whole", other, cross_documents=True)
    for number, without in enumerate([("plan.json",), ("plan.json", "report.json")]):
        copy(f"no-plan-{number}", *without)
        refused(f"no-plan-{number}", r"contains .*, but no plan\.json", cross_documents=True)
    unfinished = copy("no-report", "report.json")
    refused("no-report", other, cross_documents=True)
    shards(finished, tiny_tokenizer, "no-report")
    assert digest(unfinished) == digest(finished / "whole")
    for number, content in enumerate(["{", "[1]", '{"shard_sizes": 1}']):
        for record in ("plan.json", "report.json"):
            name = f"damaged-{number}-{record}"
            (copy(name) / record).write_text(content)
            refused(name, f"is damaged|{other}")


def test_leftovers_of_a_kill_at_the_end_are_removed(
    finished: Path, tiny_tokenizer: Tokenizer
) -> None:
    out = Path(shutil.copytree(finished / "whole", finished / "killed"))
    (out / ".work" / "reports").mkdir(parents=True)
    (out / ".work" / "reports" / "block-000000.json").write_text("{}")
    assert digest(shards(finished, tiny_tokenizer, "killed")) == digest(finished / "whole")


def test_a_corpus_without_a_document_is_an_error(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("id0\nid1\n\n")
    with pytest.raises(UsageError, match=r"no documents in .*corpus"):
        shards(tmp_path, tiny_tokenizer, "out")
    (tmp_path / "corpus" / "a.txt").write_text(f"id0 {SENTENCES[0]}\n", encoding="utf-8")
    assert (shards(tmp_path, tiny_tokenizer, "out") / "report.json").is_file()


def test_workers_in_another_folder_find_the_text(
    tmp_path: Path, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus(tmp_path / "corpus", 5)
    monkeypatch.chdir(tmp_path)
    tasks: list[BlockTask] = []

    def record(_: object, function: object, arguments: list[BlockTask], *__: object) -> None:
        tasks.extend(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr("bart_cli.data.preprocess.pretrain.run_tasks", record)
    with pytest.raises(KeyboardInterrupt):
        shards(Path(), tiny_tokenizer, "out")
    assert tasks
    for task in tasks:
        assert task.blocks[0].path.is_absolute()
        assert task.work.is_absolute()
        assert task.tokenizer.is_absolute()


@pytest.mark.parametrize("kind", ["killed", "cancelled", "lost"])
def test_a_failing_cluster_is_reported_in_one_line(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures import CancelledError

    from distributed import Client
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker

    def lose(_: object) -> None:
        raise CommClosedError

    def fail(_: int) -> None:
        if kind == "cancelled":
            raise CancelledError
        if kind == "killed":
            raise KilledWorker("task", SimpleNamespace(address="tcp://x"), 3)  # type: ignore[arg-type]

    with Client(processes=False, n_workers=1, dashboard_address=None) as client:
        monkeypatch.setattr(client, "gather", lose)
        with pytest.raises(
            BartError, match=r"processes were killed|connection to the Dask scheduler"
        ) as error:
            run_tasks(client, fail, [1], "text", "blocks", Reporter())
    assert "Rerun the command to resume" in (error.value.hint or "")


def test_a_refused_text_can_be_fixed_in_place(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"d0 caf\xe9\n")
    with pytest.raises(UsageError, match="not UTF-8"):
        shards(tmp_path, tiny_tokenizer, "out")
    (folder / "a.txt").write_text("d0 café " + " ".join(SENTENCES) + "\n", encoding="utf-8")
    assert (shards(tmp_path, tiny_tokenizer, "out") / "report.json").is_file()


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Hello there. How are you?", ["Hello there.", "How are you?"]),
        (
            "Mr. Smith met Dr. J. K. Rowe. They left.",
            ["Mr. Smith met Dr. J. K. Rowe.", "They left."],
        ),
        ("It rose 1.5 percent. Why?", ["It rose 1.5 percent.", "Why?"]),
        ("In the U.S. Senate it failed. The end.", ["In the U.S. Senate it failed.", "The end."]),
        ("He moved to the U.S. The rest stayed.", ["He moved to the U.S.", "The rest stayed."]),
        ('"Go!" she said. "No." He sat.', ['"Go!" she said.', '"No."', "He sat."]),
        ("no stop at all", ["no stop at all"]),
        ("   ", []),
    ],
)
def test_sentences_are_split_by_the_rules_of_english(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@given(st.text())
def test_splitting_sentences_loses_nothing_but_white_space(text: str) -> None:
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


@pytest.mark.parametrize("layout", ["jsonl", "highlights", "parallel", "prepared"])
def test_every_layout_of_pairs_gives_the_same_pairs(
    tmp_path: Path, tiny_tokenizer: Tokenizer, layout: str
) -> None:
    expected = [("an article", "a summary"), ("another one", "short")]
    path = tmp_path / "raw"
    path.mkdir()
    field = "highlights" if layout == "highlights" else "summary"
    if layout == "parallel":
        for i, side in enumerate(("source", "target")):
            (path / f"val.{side}").write_text("".join(f"{pair[i]}\n" for pair in expected))
    else:
        rows = [{"article": a, field: s} for a, s in expected]
        (path / "validation.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    if layout == "prepared":
        preprocess_summarization(
            SummarizationDataConfig(path=path),
            tmp_path / "out",
            tiny_tokenizer,
            reporter=Reporter(),
        )
        path = tmp_path / "out"
    assert [(p.source, p.target) for p in read_pairs(path, "validation")] == expected
    assert len(read_pairs(path, "validation", limit=1)) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.jsonl", b"", "is empty"),
        ("train.jsonl", b"{", "line 1: not valid JSON"),
        ("train.jsonl", b'{"article": "a"}\n', "no column for the summary.*found article"),
        ("train.jsonl", b'{"article": "\xff"}\n', "is not UTF-8 text: .* in line 1"),
        ("train.source", b"a\nb\n", "no such file: .*train.target"),
        ("test.jsonl", b"{}", "no train split"),
        ("train.parquet", b"nonsense", "not a readable parquet"),
    ],
)
def test_damaged_pairs_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_pairs(tmp_path, "train")


def test_ids_of_a_large_vocabulary_do_not_wrap(tmp_path: Path) -> None:
    rows = pa.table(
        {"sentences": ["a b"], "input_ids": [[3, 250_053]], "sentence_lengths": [[2]]},
        schema=shard_schema(250_054),
    )
    write_shard(tmp_path / "shard-0.parquet", [rows], rows.schema)
    assert pq.read_table(tmp_path / "shard-0.parquet")["input_ids"].to_pylist() == [[3, 250_053]]
    assert shard_schema(2**16).field("input_ids").type == pa.list_(pa.uint16())


def test_corpora_are_mixed_by_weight(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    for name in ("wiki", "news", "web"):
        lines = (f"{name}-{i} The {name} tells of day {i}." for i in range(100))
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    weights = {"wiki": 2.0, "news": 0.5, "web": 1.25}
    settings = PreprocessSettings(
        inputs=tuple((name, tmp_path / f"{name}.txt", "lines") for name in weights),
        weights=tuple(weights.values()),
        shards=11,
        validation_share=0.1,
    )
    out = tmp_path / "out"
    report = preprocess_pretrain(
        settings, out, tiny_tokenizer, scheduler=scheduler(), reporter=Reporter()
    )
    found: dict[str, Counter[str]] = {}
    for split in ("train", "validation"):
        files = sorted((out / "128" / split).glob("*.parquet"))
        found[split] = Counter(t for f in files for t in pq.read_table(f)["sentences"].to_pylist())
    for corpus in report.corpora:
        train, held = (
            {t: n for t, n in found[split].items() if f"The {corpus.name} " in t}
            for split in ("train", "validation")
        )
        assert set(held.values()) == {1}
        assert not set(train) & set(held)
        assert corpus.documents == sum(train.values()) + len(held)
        assert corpus.weight == weights[corpus.name]
        assert corpus.share == corpus.tokens / report.tokens
        if corpus.name == "wiki":
            assert set(train.values()) == {2}
        elif corpus.name == "news":
            assert len(train) + len(held) == 50
        else:
            assert len(train) + len(held) == 100
            assert 15 <= sum(n == 2 for n in train.values()) <= 25
    assert report.tokens_lost == 0
    assert report.tokens == sum(corpus.tokens for corpus in report.corpora)
    shown = summarize_shards(out / "128" / "train", tiny_tokenizer).corpora
    assert [c["weight"] for c in shown] == list(weights.values())
    with pytest.raises(UsageError, match="weight 0"):
        replace(settings, weights=(0.0,))
    with pytest.raises(UsageError, match=r"wiki\.txt is given twice"):
        replace(settings, inputs=(*settings.inputs, ("again", tmp_path / "wiki.txt", "lines")))


@pytest.mark.parametrize("weight", [0.1, 0.5, 2.3])
def test_rounding_of_weights_does_not_add_up_over_small_blocks(weight: float) -> None:
    total = sum(sum(_copies([f"{b}-{i}" for i in range(3)], weight, b)) for b in range(1000))
    assert abs(total - 3000 * weight) < 3
    assert _copies(["a"] * 4, 1.0, 7) == [1] * 4

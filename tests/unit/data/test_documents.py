"""Corpora on disk: separators are found, other files named, every form gives the same documents."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bart_cli.data import documents
from bart_cli.data.documents import (
    find_form,
    group_blocks,
    plan_blocks,
    read_blocks,
    read_texts,
    require_ids,
    scan_corpus,
)
from bart_cli.data.pretrain_loader import share_of_cut_tokens
from bart_cli.data.shards import open_shards
from bart_cli.errors import UsageError
from bart_cli.tokenizer import Tokenizer

TEXTS = [f"Town {i} has a bridge.  It is number {i}." for i in range(40)]
FOLDED = [" ".join(text.split()) for text in TEXTS]


@pytest.mark.parametrize("size", [1, 200, 2**22])
def test_every_format_gives_the_same_documents(tmp_path: Path, size: int) -> None:
    forms = {
        "line.txt": "\n".join(TEXTS),
        "blank.TXT": "\n \n".join(TEXTS),
        "rows.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in TEXTS),
    }
    for name, content in forms.items():
        path = tmp_path / name
        path.write_text(content)
        packed = path.with_name(f"{name.lower()}.gz")
        packed.write_bytes(gzip.compress(content.encode()))
        marked = path.with_name(f"16-{name}")
        marked.write_bytes(content.encode("utf-16"))
        for file in (path, packed, marked):
            found = [text for _, text in read_blocks(plan_blocks(file, "auto", size))]
            assert found == FOLDED, file
    assert len(scan_corpus(tmp_path)[0]) == 9


def test_separation_of_documents_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content, form in (
        ("One.\nTwo.\nThree.\n", "line"),
        ("One.\n\nTwo.\nThree.\n", "plain"),
        ("It is wrapped\nat a few words\nand ends here.\n\n", "plain"),
        ("A title without a dot\n" + "A long line. " * 20 + "and on\n", "line"),
        ("One line.", "plain"),
        ("\u8fd9\u662f\u4e00\u3002\n\u8fd9\u662f\u4e8c\u3002\n", "line"),
    ):
        path.write_text(content, encoding="utf-8")
        assert find_form(path) == form, content


def test_text_is_not_mistaken_for_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("The town is small.\n" * 9)
    with pytest.raises(UsageError, match=r"a\.txt: lines do not begin with an id") as info:
        require_ids(tmp_path)
    assert "--text" in str(info.value.hint)
    path.write_text("".join(f"wiki-{i} The town.\n" for i in range(9)))
    require_ids(tmp_path)


def test_other_files_next_to_the_text_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    for name in ("merges.txt", "vocab.json", "tokenizer.json"):
        (tmp_path / "tokenizer" / name).write_text("{}")
    (tmp_path / "a.pdf").write_text("x")
    (tmp_path / "merges.txt").write_text("A text of this name.")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "b.txt").write_text("Far.")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "near").symlink_to(tmp_path / "far")
    (tmp_path / "corpus" / "again").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus" / "c.txt").symlink_to(tmp_path / "far" / "b.txt")
    files, others = scan_corpus(tmp_path)
    assert tmp_path / "merges.txt" in files
    assert not [f for f in files if f.parent.name == "tokenizer"]
    assert others == {"merges.txt": 1, "vocab.json": 1, "tokenizer.json": 1, ".pdf": 1}
    assert [f.name for f in scan_corpus(tmp_path / "corpus")[0]] == ["c.txt", "b.txt"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.pdf").write_text("")
    with pytest.raises(UsageError, match=r"no text file in .*; found 1 \.pdf"):
        scan_corpus(tmp_path / "other")


def test_json_lines_by_other_names(tmp_path: Path) -> None:
    content = b'{"text": "One."}\n{"text": null}\r\n\n{"text": "Two."}\n'
    (tmp_path / "a.ndjson").write_bytes(content)
    (tmp_path / "c4-train.00000-of-01024.json.gz").write_bytes(gzip.compress(content))
    (tmp_path / "metadata.json").write_text("{}")
    assert list(read_texts(tmp_path, "auto")) == ["One.", "Two."] * 2
    assert scan_corpus(tmp_path)[1] == {".json": 1}
    for wrong, hint in (('{"content": "x"}', "jq -c '{text: .NAME}'"), ("[1]", "jq -c '.[]'")):
        (tmp_path / "a.ndjson").write_text(wrong)
        with pytest.raises(UsageError, match=r"line 1 .*'text' field") as caught:
            list(read_texts(tmp_path / "a.ndjson", "auto"))
        assert hint in str(caught.value.hint)


def test_small_files_share_a_task(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / f"{i:02d}.txt").write_text(TEXTS[i])
    blocks = plan_blocks(tmp_path, "auto")
    groups = group_blocks(blocks, 400)
    assert len(blocks) == 30
    assert len(groups) < 5
    assert [text for group in groups for _, text in read_blocks(group)] == FOLDED[:30]


@pytest.mark.parametrize("text", ["word " * 50_000, "\u8bcd" * 90_000])
def test_an_endless_document_is_split_between_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """A line of 50 MB was once one block; then its parts began with a part of the file name."""
    monkeypatch.setattr(documents, "BLOCK_BYTES", 1000)
    (tmp_path / "a b.txt").write_text(f"id-1 {text}\nid-2 End.\n", encoding="utf-8")
    blocks = plan_blocks(tmp_path, "lines", 1000)
    found = list(read_blocks(blocks))
    assert len(found) > 3
    assert [found[0][0], found[-1]] == ["id-1", ("id-2", "End.")]
    glue = " " if " " in text else ""
    assert glue.join(part for _, part in found[:-1]) == text.strip()


def test_white_space_of_a_long_text_is_folded_in_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A list of all words once took twelve times the memory of the text."""
    monkeypatch.setattr(documents, "LONG", 1000)
    text = "\n a\t b\u2003c" * 50_000 + " end \n"
    tracemalloc.start()
    folded = documents.fold(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert folded == " ".join(text.split())
    assert peak < 4 * len(folded)


@pytest.mark.parametrize("line", ["{", "[1]", '{"article": "x"}'])
def test_a_line_that_is_not_a_document_is_reported(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n' + line)
    with pytest.raises(UsageError, match=r"a\.jsonl, line 2"):
        list(read_texts(tmp_path, "auto"))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"One. " * 999)[:20])
    with pytest.raises(UsageError, match="is damaged"):
        list(read_texts(tmp_path / "b.txt.gz", "auto"))


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("One. Two.\n".encode("utf-16le"), "is UTF-16 without a byte order mark", "iconv"),
        ("It’s one.\nA café.\n".encode("cp1252"), "byte 0x92 at position 2", "windows-1252"),
        (b"%PDF-1.4 x", "is a PDF", "pdftotext"),
    ],
)
def test_invalid_utf8_is_reported(tmp_path: Path, content: bytes, message: str, hint: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        list(read_texts(tmp_path, "auto"))
    assert hint in str(caught.value.hint)


def test_the_share_of_cut_tokens_is_counted(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    """Write text-only shards like LDDL."""
    texts = pa.table({"sentences": ["word " * 200, "word"]})
    pq.write_table(texts, tmp_path / "shard-0.parquet")
    lengths = open_shards(tmp_path).read(0, tiny_tokenizer).tokens.lengths
    share = share_of_cut_tokens(tmp_path, tiny_tokenizer, 102)
    assert share == pytest.approx((lengths[0] - 100) / lengths.sum())
    assert share_of_cut_tokens(tmp_path, tiny_tokenizer, 10_000) == 0


def test_a_compressed_file_is_unpacked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"Document {i} of a corpus." for i in range(20_000)]
    path = tmp_path / "corpus.txt.gz"
    path.write_bytes(gzip.compress("\n".join(texts).encode()))
    begun: list[str] = []
    opening, rewinding = gzip.open, gzip._GzipReader._rewind  # type: ignore[attr-defined]

    def count(name: str, function: Callable) -> Callable:
        return lambda *arguments: (begun.append(name), function(*arguments))[1]

    blocks = plan_blocks(path, "line", 2**16)
    assert len(blocks) > 5
    monkeypatch.setattr(gzip, "open", count("open", opening))
    monkeypatch.setattr(gzip._GzipReader, "_rewind", count("rewind", rewinding))  # type: ignore[attr-defined]
    assert [text for _, text in read_blocks(blocks)] == texts
    assert begun == ["open"]

"""`bart download` of Wikipedia, OpenWebText, CNN-DM and XSum from a local hub and from files."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import re
import subprocess
import tarfile
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bart_cli.data.documents import fold, read_texts
from bart_cli.data.download.http import Fetcher
from bart_cli.data.download.hub_corpus import HubCorpus
from bart_cli.data.download.openwebtext import OpenWebText
from bart_cli.data.download.source import DownloadReport, Source, download
from bart_cli.data.download.summaries import (
    HubPairs,
    Pairs,
    read_stories,
    read_xsum_files,
)
from bart_cli.data.download.wikipedia_dump import (
    WikiPage,
    WikipediaDump,
    _clean_page,
    read_dump,
)
from bart_cli.data.hub_pairs import HubDataset
from bart_cli.data.pairs import read_pairs
from bart_cli.errors import BartError, UsageError
from bart_cli.progress import Reporter
from tests.command import bart as run_bart
from tests.servers.hub import serve_hub
from tests.servers.web import serve_files

ARTICLES = [f"Article {i} tells of the town.\n\nIts second part is short." for i in range(7)]


def write(source: Source, out: Path) -> DownloadReport:
    return download(source, out, reporter=Reporter())


def cnn_dm(folder: Path) -> Pairs:
    return Pairs("cnn-dm", str(folder), partial(read_stories, folder, folder))


def xsum_files(files: Path, splits: Path | None = None) -> Pairs:
    return Pairs("xsum", str(files), partial(read_xsum_files, files, splits))


def bart(
    *arguments: object, endpoint: str = "http://127.0.0.1:9", cache: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {"HF_ENDPOINT": endpoint, "NO_COLOR": "1", "HF_HUB_DISABLE_XET": "1"}
    if cache is not None:
        environment["HF_HOME"] = str(cache)
    return run_bart("download", *arguments, **environment)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write small data sets with the layout and the names of the real ones."""
    root = tmp_path_factory.mktemp("hub")

    def write(path: str, columns: dict[str, list[str]]) -> None:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), file)

    def readme(repository: str, configurations: dict[str, str]) -> None:
        lines = ["---", "configs:"]
        for name, pattern in configurations.items():
            lines += [f"- config_name: {name}", "  data_files:"]
            splits = ("train", "validation", "test") if "SPLIT" in pattern else ("train",)
            for split in splits:
                lines += [f"  - split: {split}", f"    path: {pattern.replace('SPLIT', split)}"]
        (root / repository / "README.md").write_text("\n".join([*lines, "---", ""]))

    wiki = "wikimedia/wikipedia"
    ids = [str(10 + i) for i in range(7)]
    write(f"{wiki}/20231101.en/train-00000-of-00002.parquet", {"id": ids[:4], "text": ARTICLES[:4]})
    write(f"{wiki}/20231101.en/train-00001-of-00002.parquet", {"id": ids[4:], "text": ARTICLES[4:]})
    write(f"{wiki}/20231101.de/train-00000-of-00001.parquet", {"id": ["1"], "text": ["Ein Satz."]})
    readme(wiki, {day: f"{day}/train-*" for day in ("20231101.en", "20231101.de")})
    write("Skylion007/openwebtext/plain_text/train-0.parquet", {"text": [*ARTICLES, "  "]})
    readme("Skylion007/openwebtext", {"plain_text": "plain_text/train-*"})
    for repository, sides, folder in (
        ("abisee/cnn_dailymail", ("article", "highlights"), "3.0.0"),
        ("EdinburghNLP/xsum", ("document", "summary"), "data"),
    ):
        for split in ("train", "validation", "test"):
            rows = {sides[0]: ARTICLES[:3], sides[1]: ["One.\nTwo."] * 3, "id": ["a", "b", "c"]}
            write(f"{repository}/{folder}/{split}-0.parquet", rows)
        name = "3.0.0" if folder == "3.0.0" else "default"
        readme(repository, {name: f"{folder}/SPLIT-*"})
    return root


def test_wikipedia_of_the_hub(hub: Path, tmp_path: Path) -> None:
    command = ["wikipedia", "--out", tmp_path / "wiki"]
    with serve_hub(hub) as endpoint:
        dry = bart(*command, "--dry-run", "--json", endpoint=endpoint, cache=tmp_path / "cache")
        result = bart(*command, endpoint=endpoint, cache=tmp_path / "cache")
        again = bart(*command, endpoint=endpoint, cache=tmp_path / "cache")
        wrong = bart(
            *command,
            "--snapshot",
            "20190101.en",
            "--language",
            "xx",
            endpoint=endpoint,
            cache=tmp_path / "cache",
        )
    size = sum(p.stat().st_size for p in (hub / "wikimedia/wikipedia/20231101.en").iterdir())
    assert json.loads(dry.stdout)["bytes"] == size, dry.stderr
    assert result.returncode == 0, result.stderr
    assert "7 documents" in result.stdout
    assert again.stdout == result.stdout
    assert list(read_texts(tmp_path / "wiki", "lines")) == [" ".join(a.split()) for a in ARTICLES]
    first = next((tmp_path / "wiki" / "source").iterdir()).read_text()
    assert first.startswith("wikipedia-10 Article 0 tells")
    assert wrong.returncode == 2
    assert "holds a download with other settings" in wrong.stderr


def test_openwebtext_of_the_hub(hub: Path, tmp_path: Path) -> None:
    with serve_hub(hub) as endpoint:
        result = bart(
            *("openwebtext", "--out", tmp_path / "owt"), endpoint=endpoint, cache=tmp_path / "c"
        )
        missing = bart(
            *("openwebtext", "--out", tmp_path / "x", "--dataset", "nobody/nothing"),
            endpoint=endpoint,
            cache=tmp_path / "c",
        )
    assert result.returncode == 0, result.stderr
    assert "skipped: 1 empty" in result.stdout
    assert len(list(read_texts(tmp_path / "owt", "lines"))) == 7
    assert missing.returncode == 2
    assert "nobody/nothing" in missing.stderr
    assert "Traceback" not in missing.stderr


@pytest.mark.parametrize("name", ["cnn-dm", "xsum"])
def test_pairs_of_the_hub(hub: Path, tmp_path: Path, name: str) -> None:
    with serve_hub(hub) as endpoint:
        result = bart(
            *(name, "--out", tmp_path / "pairs", "--parallel-text"),
            endpoint=endpoint,
            cache=tmp_path / "cache",
        )
    assert result.returncode == 0, result.stderr
    assert "9 pairs" in result.stdout
    for split in ("train", "validation", "test"):
        pairs = read_pairs(tmp_path / "pairs", split)
        assert [p.id for p in pairs] == ["a", "b", "c"]
        assert pairs[0].source == ARTICLES[0]
        assert pairs[0].target == "One.\nTwo."
        assert (tmp_path / "pairs" / f"{split}.target").read_text() == "One. Two.\n" * 3


def test_an_unreachable_hub_gives_one_line(tmp_path: Path) -> None:
    result = bart("xsum", "--out", tmp_path / "x", cache=tmp_path / "cache")
    assert result.returncode == 1
    assert "127.0.0.1:9" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "x").exists() or not any((tmp_path / "x").iterdir())


DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="en">
<siteinfo><namespaces><namespace key="6">Datei</namespace></namespaces></siteinfo>
<page><title>A</title><ns>0</ns><id>5</id><revision><id>1</id><text xml:space="preserve">{text}
</text></revision></page>
<page><title>R</title><ns>0</ns><id>6</id><redirect title="A" /><revision><id>2</id>
<text>#REDIRECT [[A]]</text></revision></page>
<page><title>Talk:A</title><ns>1</ns><id>7</id><revision><id>3</id><text>Chat</text></revision></page>
</mediawiki>
"""
WIKITEXT = """{{Infobox town|name=A {{nowrap|x}}}}
[[Datei:a.jpg|thumb|A [[photo]] of A]]
'''A''' is a [[town|small town]] on the [[Alda]].{{cite|x}}<ref name="b">Book
[http://x.example y]</ref> See [http://x.example its page]. [[2001: A Space Odyssey]] was shown.
<!-- a comment --> Prices are &lt; 5&nbsp;€.
{| class="wikitable"
|-
| cell || other
|}
== History ==
* It was founded in [[1200]].
== References ==
<references/>
* A book
== External links ==
[http://x.example x]
[[Category:Towns]] [[de:A]]
"""


def test_a_wikipedia_dump_is_cleaned(tmp_path: Path) -> None:
    escaped = WIKITEXT.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    (tmp_path / "www").mkdir()
    dump = tmp_path / "www" / "wiki.xml.bz2"
    dump.write_bytes(bz2.compress(DUMP.format(text=escaped).encode()))
    with serve_files(tmp_path / "www") as web:
        web.faults["wiki.xml.bz2"] = ["cut", 500]
        url = f"{web.url}/wiki.xml.bz2"
        served = bart("wikipedia", "--dump", url, "--out", tmp_path / "a")
    local = bart("wikipedia", "--dump", dump, "--out", tmp_path / "b", "--jobs", 1)
    assert served.returncode == 0, served.stderr
    assert local.returncode == 0, local.stderr
    expected = (
        "wikipedia-5 A is a small town on the Alda. See its page. 2001: A Space Odyssey was shown. "
        "Prices are < 5 €. History. It was founded in 1200.\n"
    )
    for folder in "ab":
        assert (tmp_path / folder / "source" / "wikipedia-00000.txt").read_text() == expected


def test_a_truncated_dump_is_reported(tmp_path: Path) -> None:
    dump = tmp_path / "wiki.xml.bz2"
    dump.write_bytes(bz2.compress(DUMP.format(text="A town. " * 50_000).encode())[:200])
    result = bart("wikipedia", "--dump", dump, "--out", tmp_path / "a")
    assert result.returncode == 2
    assert "is not a complete XML dump" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_web_page_instead_of_a_dump_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "wiki.xml").write_text("<html><body>Please log in<br></body></html>")
    out = tmp_path / "a"
    with serve_files(tmp_path) as web, pytest.raises(BartError, match="not a complete XML dump"):
        write(WikipediaDump(f"{web.url}/wiki.xml", Fetcher()), out)
    assert not any(out.rglob("wiki.xml"))


def test_the_real_dump_leaves_no_markup(shared_data: Path) -> None:
    pages = read_dump(shared_data / "wikipedia" / "enwiki-shortened.xml.bz2")
    texts = [fold(text) for _, text in map(_clean_page, pages)]
    assert len(texts) == 106
    assert all(texts)
    text = "\n".join(texts)
    for mark in ("[[", "]]", "{{", "}}", "{|", "|}", "'''", "<ref", "#REDIRECT", "Category:"):
        assert mark not in text, mark
    assert not re.search(r"</?(ref|br|table|div|span|sup|sub|math)\b[^>]*>", text)
    assert not re.search(r"={2,} ?[A-Z]", text)
    assert len(text) > 2_500_000


def test_openwebtext_archives(tmp_path: Path) -> None:
    folder = tmp_path / "openwebtext"
    folder.mkdir()
    for number in range(2):
        with tarfile.open(folder / f"urlsf_subset0{number}-1_data.xz", "w:xz") as tar:
            for member in range(3):
                content = f"Document {number} {member}.\n\nMore.".encode()
                info = tarfile.TarInfo(f"000{member}-abc.txt")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    damaged = (folder / "urlsf_subset01-1_data.xz").read_bytes()
    (folder / "urlsf_subset02-1_data.xz").write_bytes(damaged[: len(damaged) // 2])
    result = bart("openwebtext", "--archives", folder, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "6 documents" in result.stdout
    assert "urlsf_subset02-1_data.xz" in result.stderr
    first = (tmp_path / "out/source/urlsf_subset00-1_data.txt").read_text().splitlines()[0]
    assert first == "openwebtext-urlsf_subset00-1_data-0000-abc Document 0 0. More."


def archive(files: dict[str, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def test_openwebtext_archives_as_downloaded(tmp_path: Path) -> None:
    """Inner archives once became two documents starting with 7zXZ."""
    inner = {
        f"openwebtext/urlsf_subset00-{n}_data.xz": lzma.compress(
            archive({"._1.txt": b"\0\xff", f"{n}-a.txt": b"One.", f"{n}-b.txt": b"Two.\n\nMore."})
        )
        for n in (1, 2)
    }
    folder = tmp_path / "a"
    (folder / "openwebtext").mkdir(parents=True)
    outer = folder / "openwebtext.tar.xz"
    outer.write_bytes(archive({"openwebtext/._x.xz": b"\0", **inner}, "w:xz"))

    def extract(path: Path, name: str) -> bytes:
        report = write(OpenWebText(path, jobs=1), tmp_path / name)
        assert (report.documents, report.dropped) == (4, {"not text": 2})
        return b"".join(p.read_bytes() for p in sorted((tmp_path / name / "source").iterdir()))

    text = extract(folder, "folder")
    assert text.startswith(b"openwebtext-urlsf_subset00-1_data-1-a One.\n")
    assert extract(outer, "file") == text
    assert extract(outer, "file") == text  # again: nothing to do
    (tmp_path / "b").mkdir()  # packed anew, in other ways and with other files
    tars = {name.replace(".xz", ".tar"): lzma.decompress(inner[name]) for name in inner}
    packed = archive({"openwebtext/README.txt": b"Read me.", **tars}, "w:gz")
    (tmp_path / "b" / "openwebtext.tgz").write_bytes(packed)
    assert extract(tmp_path / "b", "packed") == text
    (tmp_path / "c").mkdir()
    backup = archive({"b/README": b"", "b/owt.tar.xz": outer.read_bytes()}, "w:bz2")
    (tmp_path / "c" / "backup.tbz").write_bytes(backup)
    assert extract(tmp_path / "c", "backup") == text
    for name, content in inner.items():
        (folder / name).write_bytes(content)
    assert extract(folder, "side-by-side") == text
    (folder / "openwebtext/urlsf_subset00-2_data.xz").write_bytes(b"")
    with pytest.raises(UsageError, match="differs from another archive of the same name"):
        write(OpenWebText(folder, jobs=1), tmp_path / "differs")
    (tmp_path / "cut.tar.xz").write_bytes(outer.read_bytes()[:200])
    with pytest.raises(UsageError, match="no readable document"):
        write(OpenWebText(tmp_path / "cut.tar.xz", jobs=1), tmp_path / "c")


def test_a_partial_conversion_is_refused_and_a_script_names_the_complete_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "Someone/openwebtext/plain_text/partial-train"
    part.mkdir(parents=True)
    pq.write_table(pa.table({"text": ["One document.", "Two documents."]}), part / "0000.parquet")
    script = tmp_path / "Someone/wikipedia"
    script.mkdir()
    (script / "wikipedia.py").write_text("x = 1\n")
    with serve_hub(tmp_path) as endpoint:
        partial, scripted = (
            bart(
                *("openwebtext", "--dataset", f"Someone/{name}", "--out", tmp_path / "o"),
                endpoint=endpoint,
                cache=tmp_path / "cache",
            )
            for name in ("openwebtext", "wikipedia")
        )
    assert partial.returncode == 2
    assert "only part of the train split: plain_text/partial-train, 0." in partial.stderr
    assert "such as Skylion007/openwebtext" in partial.stderr
    assert scripted.returncode in (1, 2)
    assert "such as wikimedia/wikipedia" in scripted.stderr
    assert "refs/convert" not in scripted.stderr
    assert "Traceback" not in scripted.stderr + partial.stderr


def test_odd_names_in_an_archive_stay_one_word(tmp_path: Path) -> None:
    """A name that is not UTF-8 once stopped the run; a line feed in a name broke the line."""
    archive = tmp_path / "odd.xz"
    with tarfile.open(archive, "w:xz", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name in ("caf\xe9.txt", "two\n words.txt", "three\t.txt"):
            info = tarfile.TarInfo(name)
            info.size = 5
            tar.addfile(info, io.BytesIO(b"Text."))
    result = bart("openwebtext", "--archives", archive, "--out", tmp_path / "out", "--jobs", 1)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out/source/odd.txt").read_text(encoding="utf-8").splitlines() == [
        "openwebtext-odd-caf? Text.",
        "openwebtext-odd-two_words Text.",
        "openwebtext-odd-three Text.",
    ]


def test_archives_with_equal_names_are_refused(tmp_path: Path) -> None:
    """One of them was once silently lost, because their text files have the same name."""
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.xz").write_bytes(b"")
    result = bart("openwebtext", "--archives", tmp_path, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "two archives have the same name" in result.stderr
    assert str(tmp_path / "a" / "x.xz") in result.stderr
    assert str(tmp_path / "b" / "x.xz") in result.stderr


def test_cnn_dm_from_story_files(tmp_path: Path) -> None:
    stories = tmp_path / "cnn" / "stories"
    stories.mkdir(parents=True)
    for split in ("train", "val", "test"):
        url = f"http://web.archive.org/{split}.html"
        name = hashlib.sha1(url.encode()).hexdigest()
        (stories / f"{name}.story").write_text(
            f"First line of {split}\n\nIt ends.\n\n@highlight\n\nOne thing\n\n@highlight\n\nTwo!\n"
        )
        (tmp_path / f"all_{split}.txt").write_text(f"{url}\nhttp://gone.example/\n")
    command = ["cnn-dm", "--stories", tmp_path / "cnn", "--url-lists", tmp_path]
    result = bart(*command, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "skipped: 3 missing story" in result.stdout
    pair = read_pairs(tmp_path / "out", "validation")[0]
    assert pair.source == "First line of val . It ends."
    assert pair.target == "One thing .\nTwo!"


def test_xsum_from_its_files(tmp_path: Path) -> None:
    files = tmp_path / "xsum"
    files.mkdir()
    for name in "123":
        (files / f"{name}.summary").write_text(
            "[SN]URL[SN]\nhttp://bbc.example\n\n[SN]TITLE[SN]\nT\n\n[SN]FIRST-SENTENCE[SN]\n"
            f"Summary {name}.\n\n[SN]RESTBODY[SN]\nOne.\nTwo.\n"
        )
    splits = {"train": ["1", "9"], "validation": ["2"], "test": ["3"]}
    (files / "XSum-Dataset").mkdir()
    name = "XSum-Dataset/XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json"
    (files / name).write_text(json.dumps(splits))
    result = bart("xsum", "--files", files, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "skipped: 1 missing article" in result.stdout
    pair = read_pairs(tmp_path / "out", "test")[0]
    assert (pair.id, pair.source, pair.target) == ("3", "One.\nTwo.", "Summary 3.")


def test_the_originals_are_read_from_their_archives(tmp_path: Path) -> None:
    """XSum's downloader writes [XSUM] and INTRODUCTION; labels of buttons are not text."""
    body = "[XSUM]URL[XSUM]\nu\n\n[XSUM]INTRODUCTION[XSUM]\nA bridge.\n\n[XSUM]RESTBODY[XSUM]\n"
    data = {f"x/{n}.data": f"{body}Share this with\nOne.\nTwo.\n".encode() for n in "123"}
    (tmp_path / "x.txz").write_bytes(archive(data, "w:xz"))
    splits = {"train": ["1"], "validation": ["2"], "test": ["3"]}
    (tmp_path / "XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json").write_text(json.dumps(splits))
    file, out = tmp_path / "x.txz", tmp_path / "xsum"
    report = write(xsum_files(file), out)
    assert report.documents == 3
    pair = read_pairs(out, "test")[0]
    assert (pair.id, pair.source, pair.target) == ("3", "One.\nTwo.", "A bridge.")
    assert not list(out.glob("*tmp*"))

    words = {"train": "training", "val": "validation", "test": "test"}
    urls = {word: f"http://x.example/{word}".encode() for word in words.values()}
    stories = {
        f"cnn/stories/{hashlib.sha1(url).hexdigest()}.story": b"One.\n\n@highlight\n\nTwo"
        for url in urls.values()
    }
    lists = {f"cnn/wayback_{word}_urls.txt": url + b"\n" for word, url in urls.items()}
    (tmp_path / "c").mkdir()
    (tmp_path / "c/cnn_stories.tgz").write_bytes(archive(stories, "w:gz"))
    (tmp_path / "c/cnn.tgz").write_bytes(archive(lists, "w:gz"))
    folder, out = tmp_path / "c", tmp_path / "cnn"
    report = write(cnn_dm(folder), out)
    assert report.documents == 3
    assert read_pairs(out, "validation")[0].target == "Two ."
    (folder / "cnn_stories.tgz").write_bytes(archive(stories, "w:gz")[:150])
    with pytest.raises(UsageError, match=r"cnn_stories\.tgz is damaged"):
        write(cnn_dm(folder), out)
    (folder / "cnn_stories.tgz").write_text("<html>Sign in</html>")
    with pytest.raises(UsageError, match=r"damaged: not a tar archive, or truncated\Z"):
        write(cnn_dm(folder), out)  # this was once an error of five lines


@pytest.mark.parametrize(
    "content", ['["train"]', '{"train": 3}', '{"train": [["1"]]}', "[" * 100_000, "\xff"]
)
def test_a_split_in_two_formats_is_reported(tmp_path: Path, content: str) -> None:
    (tmp_path / "1.summary").write_text("")
    path = tmp_path / "split.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=r"split\.json"):
        write(xsum_files(tmp_path, path), tmp_path / "out")


def test_bytes_that_are_not_utf8_do_not_stop_the_originals(tmp_path: Path) -> None:
    body = b"[SN]FIRST-SENTENCE[SN]\nCaf\xe9.\n[SN]RESTBODY[SN]\nBody.\n"
    (tmp_path / "1.summary").write_bytes(body)
    splits = tmp_path / "split.json"
    splits.write_text(json.dumps({split: ["1"] for split in ("train", "validation", "test")}))
    write(xsum_files(tmp_path, splits), tmp_path / "x")
    assert read_pairs(tmp_path / "x", "test")[0].target == "Caf\N{REPLACEMENT CHARACTER}."
    url = b"http://x.example/caf\xe9"
    (tmp_path / f"{hashlib.sha1(url).hexdigest()}.story").write_text("One.\n@highlight\nTwo.")
    for name in ("train", "val", "test"):
        (tmp_path / f"all_{name}.txt").write_bytes(url + b"\n")
    write(cnn_dm(tmp_path), tmp_path / "c")
    assert read_pairs(tmp_path / "c", "test")[0].source == "One."


def test_rows_of_the_hub_without_text_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset

    pairs = {"article": ["One.", None, " ", "x"], "summary": ["A.", "B.", "C.", None]}
    monkeypatch.setattr(HubDataset, "load", lambda *_, **__: Dataset.from_dict(pairs))
    report = write(HubPairs("x", HubDataset("x/y"), parallel=True), tmp_path / "p")
    assert [p.source for p in read_pairs(tmp_path / "p", "train")] == ["One."]
    assert report.dropped == {"pair without summary or text": 9}
    texts = {"text": ["One.", None], "id": ["a\n b", "c"]}
    monkeypatch.setattr(HubDataset, "load", lambda *_, **__: Dataset.from_dict(texts))
    folder = tmp_path / "t"
    corpus = write(HubCorpus(HubDataset("x/y"), "x"), folder)
    assert corpus.dropped == {"empty": 1}
    assert (folder / "source/x-00000.txt").read_text() == "x-a_b One.\n"


def test_errors_of_the_library_have_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DatasetNotFoundError

    gated = "Dataset 'a/b' is a gated dataset on the Hub. You must be authenticated to access it."
    config = "Config name is missing.\nPlease pick one: ['en', 'de']\nExample of usage: x"
    errors: dict[Exception, tuple[str, str]] = {
        DatasetNotFoundError(gated): (
            "data set 'a/b' is gated",
            "/datasets/a/b, then set HF_TOKEN",
        ),
        EmptyDatasetError("none"): ("has no files of rows", "Choose a complete copy"),
        ValueError(config): (r"pick one: \['en', 'de'\]$", "Choose a configuration: a/b:NAME."),
    }
    monkeypatch.setattr(HubDataset, "_partial", lambda *_: "")
    for error, (message, hint) in errors.items():
        monkeypatch.setattr("datasets.load_dataset", Mock(side_effect=error))
        with pytest.raises(BartError, match=message) as caught:
            HubDataset("a/b", local=True).load(None)
        assert hint in str(caught.value.hint)


def test_incomplete_pages_do_not_stop_a_dump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "<page><ns>0</ns>{}</page>"
    text = "<revision><text>{}</text></revision>"
    pages = [
        page.format("<id>1</id>"),
        page.format(text.format("No id.")),
        page.format("<id>3</id>" + text.format("Fine.")),
        page.format("<id>4</id>" + text.format("#WEITERLEITUNG [[Fine]]")),
        page.format("<id>5</id>" + text.format("#重定向[[Fine]]")),
    ]
    path = tmp_path / "dump.xml"
    content = f"<mediawiki>{''.join(pages)}</mediawiki>".encode()
    for packed in (
        content,
        bz2.compress(content[:99]) + bz2.compress(content[99:]),
        lzma.compress(content),
    ):
        path.write_bytes(packed)
        found = [(p.id, p.wikitext) for p in read_dump(path)]
        assert found == [("1", ""), ("without-id", "No id."), ("3", "Fine.")]
    path.write_bytes(b"7z\xbc\xaf\x27\x1c")
    with pytest.raises(UsageError, match="it is an archive") as caught:
        list(read_dump(path))
    assert "7z x" in str(caught.value.hint)

    def trip(*_: object) -> str:
        raise RecursionError

    monkeypatch.setattr("bart_cli.data.download.wikipedia_dump.clean_wikitext", trip)
    assert _clean_page(WikiPage("3", "Fine.", frozenset())) == ("wikipedia-3", "")


@pytest.mark.parametrize(
    ("arguments", "endpoint", "message"),
    [
        (
            ("xsum", "--dataset", "a/b/c", "--dry-run"),
            "http://127.0.0.1:9",
            "no such data set: a/b/c",
        ),
        (("xsum",), "nonsense", "HF_ENDPOINT=nonsense: expected"),
        (("wikipedia", "--dump", "http:///x"), "http://127.0.0.1:9", "not the URL of a file"),
        (("wikipedia", "--dump", "ftps://x/y"), "http://127.0.0.1:9", "not the URL of a file"),
    ],
)
def test_an_invalid_address_gives_one_line(
    tmp_path: Path, arguments: tuple[str, ...], endpoint: str, message: str
) -> None:
    result = bart(*arguments, "--out", tmp_path / "out", endpoint=endpoint)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_hub_corpus_is_streamed_by_its_id(tmp_path: Path) -> None:
    folder = tmp_path / "hub/someone/web"
    (folder / "en").mkdir(parents=True)
    for i in range(3):
        table = {
            "content": [f"Page {i}-{j}." for j in range(4)],
            "id": [f"{i}x{j}" for j in range(4)],
        }
        pq.write_table(pa.table(table), folder / f"en/train-0000{i}-of-00003.parquet")
    lines = "".join(json.dumps({"text": t}) + "\n" for t in ("One.", "  ", "Two."))
    packed_folder = tmp_path / "hub/someone/c4"
    (packed_folder / "en").mkdir(parents=True)
    (packed_folder / "en/c4-train.00000.json.gz").write_bytes(gzip.compress(lines.encode()))
    for place, path in ((folder, "en/train-*"), (packed_folder, "en/c4-train.*.json.gz")):
        entry = f"- config_name: en\n  data_files:\n  - split: train\n    path: {path}\n"
        (place / "README.md").write_text(f"---\nconfigs:\n{entry}---\n")
    with serve_hub(tmp_path / "hub") as url:

        def run(name: str, *options: object, data: str = "web") -> subprocess.CompletedProcess[str]:
            place = ("--out", tmp_path / name, "--json")
            where = {"endpoint": url, "cache": tmp_path / "cache"}
            return bart("hub", f"someone/{data}", *options, *place, **where)

        columns = ("--subset", "en", "--text-column", "content")
        result = run("first", *columns, "--limit", 6)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["documents"] == 6
        source = tmp_path / "first/source"
        assert (source / "web-00001.txt").read_text() == (
            "web-1-1x0 Page 1-0.\nweb-1-1x1 Page 1-1.\n"
        )
        kept = (source / "web-00000.txt").stat().st_mtime_ns
        (source / "web-00001.txt").unlink()  # as left by a killed run
        again = run("first", *columns, "--limit", 6)
        assert again.returncode == 0, again.stderr
        assert (source / "web-00000.txt").stat().st_mtime_ns == kept
        gzipped = run("packed", "--subset", "en", data="c4")
        assert gzipped.returncode == 0, gzipped.stderr
        packed = json.loads(gzipped.stdout)
        assert (packed["documents"], packed["dropped"]) == (2, {"empty": 1})
        wrong = run("wrong", "--subset", "en")
        assert wrong.returncode == 2
        assert "no column 'text'; found ['content', 'id']" in wrong.stderr

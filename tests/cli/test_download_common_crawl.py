"""`bart download common-crawl` as a real command, from a server with the layout of CC-NEWS."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest

from bart_cli.data.download.common_crawl import CommonCrawl, NewsFilter, extract_warc
from bart_cli.data.download.http import Fetcher
from bart_cli.data.download.source import DownloadReport, download
from bart_cli.progress import Reporter
from tests.charsets import LETTERS
from tests.command import bart
from tests.servers.cc_news import News, news_page, write_listing, write_warc
from tests.servers.web import Web, serve_files

NAMES = [
    "CC-NEWS-20160926211809-00000.warc.gz",
    "CC-NEWS-20160928100000-00001.warc.gz",
    "CC-NEWS-20161003120000-00002.warc.gz",
]


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two months, three WARCs; 6 articles of September and October that a default run keeps."""
    root = tmp_path_factory.mktemp("crawl")
    paths = write_listing(root, "2016/09", NAMES[:2]) + write_listing(root, "2016/10", NAMES[2:])
    broken = News("https://c.example/x", b"gone", status=404)
    image = News("https://c.example/i", b"\x89PNG", content_type="image/png")
    empty = News("https://c.example/e", b"<html></html>")
    pages = [
        [
            news_page("Ashford", "2016-09-20"),
            broken,
            news_page("Berlin", "2016-09-21", language="de"),
            news_page("Cromer", "2015-01-05"),
            news_page("Derby", "2016-09-22"),
        ],
        [news_page("Ely", "2016-09-27"), image, empty, news_page("Frome", "", dated=False)],
        [news_page(p, "2016-10-02") for p in ("Goole", "Hove", "Ilkley")],
    ]
    for path, members in zip(paths, pages, strict=True):
        write_warc(root / path, members)
    return root


def arguments(web: Web, out: Path, *more: str) -> list[str]:
    period = ["--start", "2016-09-01", "--end", "2016-10-31"]
    place = ["--base-url", web.url, "--out", str(out)]
    return [sys.executable, "-m", "bart_cli", "download", "common-crawl", *period, *place, *more]


def run(web: Web, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return bart(*arguments(web, out, *more)[3:], NO_COLOR="1")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def undisturbed(crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "cc"
    with serve_files(crawl) as web:
        result = run(web, out)
    assert result.returncode == 0, result.stderr
    assert "6 articles" in result.stdout
    return out


def test_articles_of_the_period_and_the_language_are_kept(undisturbed: Path) -> None:
    files = sorted((undisturbed / "source").iterdir())
    assert [f.name for f in files] == [n.replace(".warc.gz", ".txt") for n in NAMES]
    assert [f.read_text().count("\n") for f in files] == [2, 1, 3]
    for file in files:
        for line in file.read_text().splitlines():
            name, _, text = line.partition(" ")
            assert name.startswith("common-crawl-")
            assert "voted on 2016-" in text
            assert "Imprint" not in text
            assert "Home" not in text
    manifest = json.loads((undisturbed / "manifest.json").read_text())["files"]
    first, second, _ = (manifest[f"source/{f.name}"] for f in files)
    assert first["dropped"] == {
        "HTTP status not 200": 1,
        "other language": 1,
        "outside the period": 1,
    }
    assert second["dropped"] == {"no date": 2, "not HTML": 1}
    assert not (undisturbed / "warc").exists()


def test_a_server_that_misbehaves_changes_nothing(
    crawl: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with serve_files(crawl) as web:
        folder = "crawl-data/CC-NEWS/2016"
        web.faults[f"{folder}/09/warc.paths.gz"] = [500, "short"]
        web.faults[f"{folder}/09/{NAMES[0]}"] = ["cut", 503]
        web.faults[f"{folder}/09/{NAMES[1]}"] = [403]
        result = run(web, tmp_path / "cc")
    assert result.returncode == 0, result.stderr
    assert documents(tmp_path / "cc") == documents(undisturbed)


def documents(folder: Path) -> dict[str, bytes]:
    return {k: v for k, v in tree(folder).items() if k.startswith("source")}


def test_rerunning_after_kill_9_gives_the_same_bytes(
    crawl: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cc"
    with serve_files(crawl) as web:
        slow = f"crawl-data/CC-NEWS/2016/10/{NAMES[2]}"
        web.faults[slow] = ["slow"]
        process = subprocess.Popen(
            arguments(web, out), stderr=subprocess.PIPE, start_new_session=True
        )
        deadline = time.monotonic() + 100
        while web.bytes_sent[slow] < 100 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert 0 < web.bytes_sent[slow] < (crawl / slow).stat().st_size
        (out / "source").mkdir(exist_ok=True)
        (out / "source" / ".half.txt.1.tmp").write_text("left by the killed process")
        web.bytes_sent.clear()
        result = run(web, out)
        assert result.returncode == 0, result.stderr
        before = dict(web.requests)
        again = run(web, out)
    assert documents(out) == documents(undisturbed)
    assert set(tree(out)) == set(tree(undisturbed))
    kept, fresh = (
        json.loads((folder / "manifest.json").read_text())["files"] for folder in (out, undisturbed)
    )
    for name, entry in kept.items():
        assert entry | {"url": ""} == fresh[name] | {"url": ""}
    assert again.returncode == 0
    assert "3 of 3 WARCs are already done" in again.stderr
    assert all(web.requests[path] == before[path] for path in before if path.endswith("warc.gz"))


def test_ctrl_c_stops_at_once_and_keeps_finished_results(crawl: Path, tmp_path: Path) -> None:
    with serve_files(crawl) as web:
        slow = f"crawl-data/CC-NEWS/2016/10/{NAMES[2]}"
        web.faults[slow] = ["slow"]
        process = subprocess.Popen(
            arguments(web, tmp_path / "cc"),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 100
        while web.bytes_sent[slow] < 100 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "error: interrupted" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "cc" / "warc" / f"{NAMES[2]}.part").is_file()


def test_broken_records_and_missing_warcs_are_reported_and_the_rest_continues(
    crawl: Path, tmp_path: Path
) -> None:
    root = tmp_path / "www"
    path = write_listing(root, "2016/09", [*NAMES[:2], "CC-NEWS-20160929000000-00009.warc.gz"])[0]
    positions = write_warc(
        root / path, [news_page(p, "2016-09-20") for p in ("Ashford", "Bath", "Cromer")]
    )
    content = bytearray((root / path).read_bytes())
    content[positions[1] + 60 : positions[1] + 90] = bytes(30)
    (root / path).write_bytes(content)
    (root / path).with_name(NAMES[1]).write_bytes(gzip.compress(b"this is not a WARC file"))
    with serve_files(root) as web:
        result = run(web, tmp_path / "cc")
        again = run(web, tmp_path / "cc")
    assert result.returncode == again.returncode == 1, result.stderr
    assert "2 articles" in result.stdout
    assert f"{NAMES[1]} is not a WARC file" in result.stderr
    assert "2 WARCs are missing" in again.stderr
    assert f"{NAMES[0]}: skipped a damaged record after byte {positions[0]:,}" in result.stderr
    assert "CC-NEWS-20160929000000-00009.warc.gz: not found (HTTP 404)" in result.stderr
    assert "no listing for 2016-10" in result.stderr
    assert "Traceback" not in result.stderr


def test_filters_and_dry_run(crawl: Path, tmp_path: Path) -> None:
    with serve_files(crawl) as web:
        dry = run(web, tmp_path / "none", "--dry-run", "--json")
        everything = run(
            web,
            tmp_path / "all",
            *("--no-strict-date", "--language", "all", "--extractor", "resiliparse"),
            *("--warc-end", "2016-09-27", "--keep-warc", "--json", "--metadata"),
        )
        other = run(web, tmp_path / "all", "--language", "de")
        host = run(web, tmp_path / "host", "--host", "derby.example", "--json")
    total = sum(p.stat().st_size for p in crawl.rglob("*.warc.gz"))
    assert json.loads(dry.stdout) == {"what": "3 WARC files", "bytes": total}
    assert not (tmp_path / "none").exists()
    assert json.loads(everything.stdout)["documents"] == 3, everything.stderr
    assert [p.name for p in (tmp_path / "all" / "warc").iterdir()] == NAMES[:1]
    stem = NAMES[0].removesuffix(".warc.gz")
    text = (tmp_path / "all" / "source" / f"{stem}.txt").read_text().splitlines()
    facts = (tmp_path / "all" / "metadata" / f"{stem}.jsonl").read_text().splitlines()
    rows = [json.loads(row) for row in facts]
    assert [row["id"] for row in rows] == [line.partition(" ")[0] for line in text]
    url = "https://www.ashford.example/news/ashford"
    day = {"title": "Ashford", "author": None, "date": "2016-09-20", "url": url}
    assert rows[0] == {"id": rows[0]["id"]} | day
    assert other.returncode == 2
    assert "holds a download with other settings" in other.stderr
    assert json.loads(host.stdout)["documents"] == 1


def die_of_the_second(warc: Path, *more: Any) -> dict[str, Any]:
    """Crash the process, like a parser written in C on a malformed page."""
    if warc.name == NAMES[1]:
        os.abort()
    return extract_warc(warc, *more)


def test_a_page_that_crashes_the_parser_fails_only_its_warc(
    crawl: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Voice(Reporter):
        lines: list[str] = []  # noqa: RUF012

        def warn(self, text: str) -> None:
            self.lines.append(text)

    place = "bart_cli.data.download.common_crawl.extract_warc"
    paths = [str(path.relative_to(crawl)) for path in sorted(crawl.rglob("*.warc.gz"))]
    news = NewsFilter(date(2016, 9, 1), date(2016, 10, 31))

    def run_here(url: str) -> DownloadReport:
        source = CommonCrawl(paths, news, Fetcher(), base_url=url, jobs=1)
        return download(source, tmp_path / "cc", reporter=Voice())

    with serve_files(crawl) as web:
        with monkeypatch.context() as patch:
            patch.setattr(place, die_of_the_second)
            report = run_here(web.url)
        assert (report.files, report.dropped["missing WARC"]) == (2, 1)
        (line,) = Voice.lines
        assert line.startswith(f"skipped: {NAMES[1]}: a worker process was killed")
        run_here(web.url)
    for path in (undisturbed / "source").iterdir():
        assert (tmp_path / "cc" / "source" / path.name).read_bytes() == path.read_bytes()


def test_a_dry_run_continues_after_a_missing_warc(crawl: Path) -> None:
    paths = [str(path.relative_to(crawl)) for path in crawl.rglob("*.warc.gz")]
    total = sum((crawl / path).stat().st_size for path in paths)
    with serve_files(crawl) as web:
        paths.append("none.warc.gz")
        source = CommonCrawl(paths, NewsFilter(date.min, date.max), Fetcher(), base_url=web.url)
        assert source.size() == ("4 WARC files", total)


def test_without_an_end_a_later_run_keeps_the_day_of_the_first(crawl: Path, tmp_path: Path) -> None:
    """The last day defaults to today, so on the next day the command meant another download."""
    from bart_cli.data.download.common_crawl import end_of_first_run

    assert end_of_first_run(tmp_path / "cc") is None
    with serve_files(crawl) as web:
        command = arguments(web, tmp_path / "cc", "--json")
        begun = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
        command = [word for word in command if word not in ("--end", "2016-10-31")]
        again = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert again.returncode == 0, again.stderr
    assert "3 of 3 WARCs are already done" in again.stderr
    assert json.loads(again.stdout) == json.loads(begun.stdout)
    (tmp_path / "cc" / "manifest.json").write_text('{"source": {"end": "x"}}')
    assert end_of_first_run(tmp_path / "cc") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--end", "2016-08-01"], "--end 2016-08-01 is before --start 2016-09-01"),
        (["--start", "yesterday"], "does not match the format"),
        (["--extractor", "magic"], "is not one of"),
        (["--warc-start", "2016-09-29", "--warc-end", "2016-09-30"], "no WARC of CC-NEWS"),
    ],
)
def test_invalid_options_give_one_line(
    crawl: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    with serve_files(crawl) as web:
        result = run(web, tmp_path / "cc", *options)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_pages_in_twelve_charsets_give_their_text(tmp_path: Path) -> None:
    """The charset is declared by HTTP, by <meta>, by both (HTTP wins), or not at all."""
    pages, expected = [], []
    for label, (codec, letters) in LETTERS.items():
        sentence = f"{letters}. {letters}, 1; {letters}, 2."
        body = "".join(f"<p>{number} {sentence}</p>" for number in range(4))
        for meta, header in (
            (None, f'TEXT/HTML; Charset="{label}"'),
            (label, "text/html"),
            ("windows-1257", f"text/html;charset={label}"),
            (None, "text/html"),
            (label, ""),
        ):
            if label == "utf-16le" and (meta == label or "utf-16" not in header):
                continue  # <meta> cannot declare it
            tag = f"<meta http-equiv=Content-Type content='text/html; charset={meta}'>"
            html = f"<html><head>{tag if meta else ''}<title>{letters}</title></head>"
            html += f"<body><article>{body}</article></body></html>"
            url = f"https://a.example/2016/09/20/{len(pages)}"
            pages.append(News(url, html.encode(codec), content_type=header))
            expected.append(sentence)
    write_warc(tmp_path / "a.warc.gz", pages)
    news = NewsFilter(date(2016, 9, 1), date(2016, 10, 31), languages=())
    extract_warc(tmp_path / "a.warc.gz", tmp_path / "a.txt", news, "trafilatura", None)
    texts = (tmp_path / "a.txt").read_text().splitlines()
    assert len(texts) == len(pages)
    wrong = [page for page, text, s in zip(pages, texts, expected, strict=True) if s not in text]
    assert not [(page.content_type, page.html[:90]) for page in wrong]


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse"])
def test_real_news_pages_become_their_articles(
    shared_data: Path, tmp_path: Path, extractor: Literal["trafilatura", "resiliparse"]
) -> None:
    folder = shared_data / "news_html"
    truth = json.loads((folder / "ground-truth.json").read_text(encoding="utf-8"))
    pages = [
        News(row["url"], gzip.decompress((folder / f"{name}.html.gz").read_bytes()))
        for name, row in truth.items()
    ]
    write_warc(tmp_path / "a.warc.gz", pages)
    news = NewsFilter(date(2000, 1, 1), date(2026, 1, 1))
    report = extract_warc(tmp_path / "a.warc.gz", tmp_path / "a.txt", news, extractor, None)
    assert report["documents"] + sum(report["dropped"].values()) == len(pages)
    assert report["dropped"]["other language"] == 8  # as many are not English
    texts = list(truth.values())
    recall = precision = 0.0
    rows = [line.split(" ", 1) for line in (tmp_path / "a.txt").read_text().splitlines()]
    for name, text in rows:
        found = ngrams(text)
        true = ngrams(texts[int(name[-12:-1])]["articleBody"])
        common = sum((found & true).values())
        precision += common / sum(found.values()) / len(rows)
        recall += common / sum(true.values()) / len(rows)
    assert len(rows) > 80
    assert 2 * precision * recall / (precision + recall) > 0.93


def ngrams(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3)))


def test_an_extractor_that_is_not_installed_is_named(crawl: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("newsplease") is not None:
        pytest.skip("news-please is installed")
    with serve_files(crawl) as web:
        result = run(web, tmp_path / "cc", "--extractor", "news-please")
    assert result.returncode == 1
    assert "needs the extra 'news'" in result.stderr
    assert "[news]'" in result.stderr.splitlines()[-1]


def test_news_please_extracts_when_it_is_installed(crawl: Path, tmp_path: Path) -> None:
    pytest.importorskip("newsplease", reason="the extra `news` is not installed")
    with serve_files(crawl) as web:
        result = run(web, tmp_path / "cc", "--extractor", "news-please", "--json")
    assert json.loads(result.stdout)["documents"] == 6, result.stderr

"""Downloads over HTTP from misbehaving servers, and the files that they must leave on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from bart_cli.data.download import http
from bart_cli.data.download.http import CHUNK, Fetcher, MissingError, _retry_after
from bart_cli.errors import BartError
from tests.servers.web import serve_files

CONTENT = bytes(range(256)) * 2000


def fetcher() -> Fetcher:
    return Fetcher(attempts=4, first_wait=0.01)


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [500, 500],
        [403],
        ["doubled"],
        ["cut"],
        ["short", 503, "cut"],
        ["cut"] * 4,
        ["/a.bin", "cut", "/a.bin"],
    ],
    ids=str,
)
def test_a_file_is_complete_whatever_the_server_does(
    tmp_path: Path, faults: list[int | str]
) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "a.bin").write_bytes(CONTENT)
    with serve_files(tmp_path / "www") as web:
        web.faults["a.bin"] = list(faults)
        fetcher().fetch(f"{web.url}/a.bin", tmp_path / "out" / "a.bin")
    assert (tmp_path / "out" / "a.bin").read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.bin"]
    # After a dropped connection, only the rest is requested, except for the chunk in transit.
    cuts = sum(fault in ("cut", "short") for fault in faults)
    assert web.bytes_sent["a.bin"] <= len(CONTENT) + cuts * CHUNK


def test_a_file_that_changed_on_the_server_is_downloaded_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    source = tmp_path / "www" / "a.bin"
    source.write_bytes(CONTENT)
    with serve_files(tmp_path / "www") as web:
        web.faults["a.bin"] = ["cut", 500, 500, 500, 500]
        with pytest.raises(BartError, match=r"HTTP 500 .*\(4 attempts\)"):
            fetcher().fetch(f"{web.url}/a.bin", tmp_path / "a.bin")
        assert (tmp_path / "a.bin.part").stat().st_size > len(CONTENT) // 3
        source.write_bytes(CONTENT[::-1])
        fetcher().fetch(f"{web.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[::-1]


def test_missing_files_are_not_requested_again(tmp_path: Path) -> None:
    with serve_files(tmp_path) as web:
        with pytest.raises(MissingError, match="HTTP 404"):
            fetcher().fetch(f"{web.url}/none", tmp_path / "none")
        assert web.requests["none"] == 1
        web.faults["none"] = [401]
        with pytest.raises(BartError, match="HTTP 401"):
            fetcher().page(f"{web.url}/none")
        assert web.requests["none"] == 2
        web.faults["none"] = [307]
        with pytest.raises(BartError, match="HTTP 307"):  # without an address
            fetcher().fetch(f"{web.url}/none", tmp_path / "none")
        web.faults["none"] = ["/none"] * 40
        with pytest.raises(BartError, match=r"30 redirects\. \(1 attempts\)"):
            fetcher().page(f"{web.url}/none")


def test_an_unreachable_server_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(BartError, match="cannot be reached") as caught:
        fetcher().fetch("http://127.0.0.1:9/a", tmp_path / "a")
    assert "\n" not in caught.value.message
    assert not (tmp_path / "a").exists()


def test_retry_after_is_respected_but_not_forever(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text")
    slept: list[float] = []
    with serve_files(tmp_path) as web:
        web.faults["a"] = [503] * 9
        Fetcher(sleep=slept.append).fetch(f"{web.url}/a", tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == b"text"
        assert max(slept) == 256
        web.faults["a"] = [403] * 99
        with pytest.raises(BartError, match="HTTP 403"):
            Fetcher(sleep=slept.append, patience=100).page(f"{web.url}/a")
        assert web.requests["a"] < 25


def test_a_very_slow_transfer_is_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MIN_SPEED", 1e6)
    monkeypatch.setattr(http, "SPEED_WINDOW", 0.05)
    (tmp_path / "a.bin").write_bytes(CONTENT)
    with serve_files(tmp_path) as web:
        web.faults["a.bin"] = ["slow"]
        fetcher().fetch(f"{web.url}/a.bin", tmp_path / "b")
        assert web.requests["a.bin"] > 1
    assert (tmp_path / "b").read_bytes() == CONTENT


def test_all_threads_pause_for_a_busy_server(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    asked: list[int] = []

    def sleep(seconds: float) -> None:
        asked.append(web.requests["b"])
        if len(asked) == 1:  # while one thread waits, another requests a file
            assert client.page(f"{web.url}/b")[0] == b"b"

    client = Fetcher(sleep=sleep)
    with serve_files(tmp_path) as web:
        web.faults["a"] = [503]
        assert client.page(f"{web.url}/a")[0] == b"a"
    assert asked[:2] == [0, 0]  # the second thread waits as well before its request


def test_retry_after_in_both_formats() -> None:
    assert _retry_after("120") == 120
    assert (_retry_after("Fri, 31 Dec 2199 23:59:59 GMT") or 0) > 3600
    assert _retry_after("soon") is None

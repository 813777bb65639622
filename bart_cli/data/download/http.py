"""Files over HTTP that arrive whole or not at all: retries with back-off, ranges, checks.

A file grows as `NAME.part`; it takes its name when its length (and its checksum, where the server
gives one) is right. A second run goes on where the part ends.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import TypeVar

import requests
from requests import exceptions

from bart_cli import __version__
from bart_cli.errors import BartError, UsageError
from bart_cli.files import write_text

CHUNK = 2**16  # bytes at a time: what a cut connection costs at most
TIMEOUT = (20.0, 60.0)  # seconds to connect, seconds without a byte
PASSING = {403, 408, 425, 429, 500, 502, 503, 504}  # S3 and CloudFront say 403 when too busy
CHECKSUMS = {"content-md5": "md5", "x-amz-checksum-sha256": "sha256"}  # header: base64 digest
HEADERS = {"user-agent": f"bart-cli/{__version__}", "accept-encoding": "identity"}


T = TypeVar("T")


class MissingError(BartError):
    """The server has no such file (404, 410)."""


class Fetcher:
    """A client of one or more servers.

    Args:
        attempts: tries in a row without a new byte before giving up.
        first_wait: seconds before the second try; doubled for each one after it.
    """

    def __init__(self, *, attempts: int = 6, first_wait: float = 1.0) -> None:
        self._attempts, self._first_wait = attempts, first_wait
        self._stopped = Event()

    def stop(self) -> None:
        """Make the transfers of all threads end soon, with an error; what came is kept."""
        self._stopped.set()

    def size(self, url: str) -> int | None:
        """Bytes of a file, None when the server does not say.

        Raises:
            MissingError, UsageError, BartError: as `read`.
        """

        def ask() -> int | None:
            answer = requests.head(url, headers=HEADERS, timeout=TIMEOUT, allow_redirects=True)
            _check_status(answer)
            length = answer.headers.get("content-length")
            return None if length is None else int(length)

        return self._persist(url, ask)

    def page(self, url: str) -> tuple[bytes, str]:
        """A small file in memory, and its content type as the server names it.

        Raises:
            MissingError, UsageError, BartError: as `read`.
        """

        def ask() -> tuple[bytes, str]:
            answer = requests.get(url, headers=HEADERS, timeout=TIMEOUT)
            _check_status(answer)
            _check_length(answer, len(answer.content))
            return answer.content, answer.headers.get("content-type", "")

        return self._persist(url, ask)

    def read(self, url: str) -> bytes:
        """A small file in memory.

        Raises:
            MissingError: the server has no such file.
            UsageError: `url` is no address of the web.
            BartError: the server cannot be reached, or goes on failing.
        """

        return self.page(url)[0]

    def fetch(
        self, url: str, path: Path, *, on_bytes: Callable[[int], None] = lambda _: None
    ) -> None:
        """Download `url` to `path`, or what is missing of it.

        Args:
            on_bytes: called with the number of bytes that came.

        Raises:
            MissingError, UsageError, BartError: as `read`; the part that came is kept.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        self._persist(
            url, lambda: self._continue(url, part, on_bytes), progress=lambda: _size(part)
        )
        part.replace(path)
        _tag_path(part).unlink(missing_ok=True)

    def _persist(
        self, url: str, action: Callable[[], T], progress: Callable[[], int] = lambda: 0
    ) -> T:
        """Try again while the fault may pass; a try that brought bytes does not count."""
        failures, before = 0, progress()
        while True:
            try:
                return action()
            except MissingError:
                raise
            except (exceptions.MissingSchema, exceptions.InvalidSchema, exceptions.InvalidURL) as e:
                raise UsageError(f"{url}: no address of a file: {e}") from None
            except (requests.RequestException, TransferError) as error:
                now = progress()
                failures = 1 if now > before else failures + 1
                before = now
                if failures >= self._attempts or getattr(error, "final", False):
                    raise BartError(
                        f"{url}: {_reason(error)} ({failures} tries)",
                        hint="the same command goes on from here; --base-url sets a mirror",
                    ) from None
                wait = getattr(error, "wait", None) or self._first_wait * 2 ** (failures - 1)
                if self._stopped.wait(min(wait, 60.0)):
                    raise BartError(f"{url}: stopped") from None

    def _continue(self, url: str, part: Path, on_bytes: Callable[[int], None]) -> None:
        """One try: ask for the bytes that `part` does not have, append them, check the whole."""
        have = _size(part)
        headers = dict(HEADERS)
        tag = _tag_path(part)
        if have and tag.is_file():
            headers |= {"range": f"bytes={have}-", "if-range": json.loads(tag.read_text())}
        with requests.get(url, headers=headers, timeout=TIMEOUT, stream=True) as answer:
            if answer.status_code == 416:  # the part is complete, or no part of this file
                total = answer.headers.get("content-range", "").rpartition("/")[2]
                if total == str(have):
                    return
                part.unlink()
                raise TransferError("the server's file is shorter than the part that is here")
            _check_status(answer)
            resumed = answer.status_code == 206
            validator = answer.headers.get("etag") or answer.headers.get("last-modified")
            if not resumed:
                have = 0
                tag.unlink(missing_ok=True)
                if validator and not validator.startswith("W/"):
                    write_text(tag, json.dumps(validator))
            with part.open("ab" if resumed else "wb") as stream:
                for chunk in answer.iter_content(CHUNK):
                    stream.write(chunk)
                    on_bytes(len(chunk))
                    if self._stopped.is_set():
                        raise BartError(f"{url}: stopped")
            _check_length(answer, _size(part) - have)
            _check_digest(answer, part)


class TransferError(Exception):
    """A try that failed. `final`: trying again is of no use. `wait`: seconds, server's wish."""

    def __init__(self, text: str, *, final: bool = False, wait: float | None = None) -> None:
        super().__init__(text)
        self.final, self.wait = final, wait


def _check_status(answer: requests.Response) -> None:
    code = answer.status_code
    if code in (404, 410):
        raise MissingError(f"{answer.url}: not there (HTTP {code})")
    if code >= 400:
        wait = answer.headers.get("retry-after", "")
        raise TransferError(
            f"HTTP {code} {answer.reason}",
            final=code not in PASSING,
            wait=float(wait) if wait.isdigit() else None,
        )


def _check_length(answer: requests.Response, received: int) -> None:
    promised = answer.headers.get("content-length")
    encoded = "content-encoding" in answer.headers
    if promised is not None and not encoded and int(promised) != received:
        raise TransferError(f"the connection ended after {received:,} of {promised} bytes")


def _check_digest(answer: requests.Response, part: Path) -> None:
    for header, algorithm in CHECKSUMS.items():
        expected = answer.headers.get(header)
        if expected is None or (header == "content-md5" and answer.status_code == 206):
            continue  # Content-MD5 of a partial answer is that of the part
        with part.open("rb") as stream:
            found = base64.b64encode(hashlib.file_digest(stream, algorithm).digest()).decode()
        if found != expected:
            part.unlink()
            raise TransferError(f"the {algorithm} checksum is {found}, expected {expected}")


def _tag_path(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _reason(error: Exception) -> str:
    if isinstance(error, requests.ConnectionError):
        return "the server cannot be reached, or cut the connection"
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    return str(error)

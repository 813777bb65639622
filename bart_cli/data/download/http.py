"""Download files over HTTP with retries, back-off, range requests and checksums.

A file is written as `NAME.part` and renamed once its length (and its checksum, if the server sends
one) is verified. A later run resumes a partial file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests import exceptions

from bart_cli import __version__
from bart_cli.errors import BartError, UsageError
from bart_cli.files import write_text

CHUNK = 2**16  # bytes per read: the most that a dropped connection loses
TIMEOUT = (20.0, 60.0)  # seconds to connect, seconds without data
RETRYABLE = {403, 408, 425, 429, 500, 502, 503, 504}  # overloaded S3 and CloudFront send 403
BUSY = {403, 429, 503}  # retried until `patience` is exhausted
LONGEST_WAIT = 600.0  # seconds between attempts, unless the server asks for more
MIN_SPEED, SPEED_WINDOW = 1000, 60.0  # minimum average in bytes/s, over this many seconds
CHECKSUMS = {"content-md5": "md5", "x-amz-checksum-sha256": "sha256"}  # header: base64 digest
HEADERS = {"user-agent": f"bart-cli/{__version__}", "accept-encoding": "identity"}


T = TypeVar("T")


class MissingError(BartError):
    """The server has no such file (404, 410)."""


@dataclass(kw_only=True)
class Fetcher:
    """An HTTP client; thread-safe."""

    attempts: int = 6  # consecutive ones without new data before giving up
    first_wait: float = 1.0  # seconds before the second attempt; doubled for each further one
    patience: float = 3600.0  # total seconds per file to wait for servers that report to be busy
    sleep: Callable[[float], object] | None = None  # replaces the wait, for tests
    on_wait: Callable[[str], None] = lambda _: None  # gets a message before more than a minute

    def __post_init__(self) -> None:
        self._stopped = Event()
        self._sleep = self.sleep or self._stopped.wait
        self._busy_until: dict[str, float] = {}
        self._lock = Lock()

    def stop(self) -> None:
        """Abort the transfers of all threads with an error, keeping partial files."""
        self._stopped.set()

    def size(self, url: str) -> int | None:
        """Return the size of a file in bytes, or None if the server does not report it.

        Raises:
            MissingError, UsageError, BartError: see `page`.
        """

        def ask() -> int | None:
            answer = requests.head(url, headers=HEADERS, timeout=TIMEOUT, allow_redirects=True)
            _check_status(answer)
            return _length(answer)

        return self._persist(url, ask)

    def page(self, url: str) -> tuple[bytes, str]:
        """Read a small file into memory; return its content and its Content-Type header.

        Raises:
            MissingError: the server has no such file.
            UsageError: `url` is not a valid HTTP URL.
            BartError: the server cannot be reached or keeps failing.
        """

        def ask() -> tuple[bytes, str]:
            answer = requests.get(url, headers=HEADERS, timeout=TIMEOUT)
            _check_status(answer)
            _check_length(answer, len(answer.content))
            return answer.content, answer.headers.get("content-type", "")

        return self._persist(url, ask)

    def fetch(
        self, url: str, path: Path, *, on_bytes: Callable[[int], None] = lambda _: None
    ) -> None:
        """Download `url` to `path`, resuming a partial file; `on_bytes` gets the bytes received.

        Raises:
            MissingError, UsageError, BartError: see `page`. The partial file is kept.
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
        """Retry while the error may be transient; attempts that received data do not count."""
        failures, waited, before = 0, 0.0, progress()
        host = urlsplit(url).netloc
        while True:
            waited += self._wait_for(host)
            try:
                return action()
            except MissingError:
                raise
            except (exceptions.MissingSchema, exceptions.InvalidSchema, exceptions.InvalidURL) as e:
                raise UsageError(f"{url}: not the URL of a file: {e}") from None
            except (requests.RequestException, TransferError) as error:
                now = progress()
                if now > before:
                    failures, waited = 0, 0.0
                failures, before = failures + 1, now
                wait = getattr(error, "wait", None)
                if wait is None:
                    wait = min(self.first_wait * 2 ** (failures - 1), LONGEST_WAIT)
                busy = getattr(error, "busy", False)
                spent = waited + wait > self.patience if busy else failures >= self.attempts
                if spent or getattr(error, "final", isinstance(error, exceptions.TooManyRedirects)):
                    raise BartError(
                        f"{url}: {_reason(error)} ({failures} attempts)",
                        hint="Rerun the command to resume, or pass --base-url with a mirror.",
                    ) from None
                if busy:  # all threads stop sending requests to the host
                    with self._lock:
                        ready = time.monotonic() + wait
                        self._busy_until[host] = max(ready, self._busy_until.get(host, 0.0))
                    waited += wait
                if wait > 60:
                    self.on_wait(f"{host}: {_reason(error)}; retrying in {wait:,.0f} s")
                self._sleep(wait)

    def _wait_for(self, host: str) -> float:
        """Wait until requests to the host are allowed; return the seconds waited."""
        if self._stopped.is_set():
            raise BartError(f"{host}: stopped")
        with self._lock:
            wait = self._busy_until.get(host, 0.0) - time.monotonic()
            if wait > 0 and self._sleep != self._stopped.wait:
                self._busy_until.pop(host)  # the replacement for sleep does not take time
        if wait > 0:
            self._sleep(wait)
        return max(wait, 0.0) if wait > 0.5 else 0.0

    def _continue(self, url: str, part: Path, on_bytes: Callable[[int], None]) -> None:
        """Make one attempt: request the bytes missing from `part`, append them, verify the file."""
        have = _size(part)
        headers = dict(HEADERS)
        tag = _tag_path(part)
        if have and tag.is_file():
            headers |= {"range": f"bytes={have}-", "if-range": json.loads(tag.read_text())}
        with requests.get(url, headers=headers, timeout=TIMEOUT, stream=True) as answer:
            if answer.status_code == 416:  # the part is complete, or belongs to another file
                total = answer.headers.get("content-range", "").rpartition("/")[2]
                if total == str(have):
                    return
                part.unlink()
                raise TransferError("the server's file is shorter than the partial download")
            _check_status(answer)
            resumed = answer.status_code == 206
            validator = answer.headers.get("etag") or answer.headers.get("last-modified")
            if not resumed:
                have = 0
                tag.unlink(missing_ok=True)
                if validator and not validator.startswith("W/"):
                    write_text(tag, json.dumps(validator))
            with part.open("ab" if resumed else "wb") as stream:
                begin, received = time.monotonic(), 0
                for chunk in _chunks(answer):
                    stream.write(chunk)
                    received += len(chunk)
                    if time.monotonic() - begin > SPEED_WINDOW:
                        if received < MIN_SPEED * SPEED_WINDOW:
                            raise TransferError(f"the transfer fell below {MIN_SPEED:,} bytes/s")
                        begin, received = time.monotonic(), 0
                    on_bytes(len(chunk))
                    if self._stopped.is_set():
                        raise BartError(f"{url}: stopped")
            _check_length(answer, _size(part) - have)
            _check_digest(answer, part)


class TransferError(Exception):
    """A failed attempt.

    final: do not retry. busy: the server is busy; `wait` is the number of seconds it asks to wait,
    if known.
    """

    def __init__(
        self, text: str, *, final: bool = False, busy: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(text)
        self.final, self.busy, self.wait = final, busy, wait


def _chunks(answer: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives. `read1` returns partial data, which reveals slow transfers."""
    try:
        while chunk := answer.raw.read1(CHUNK, decode_content=True):
            yield chunk
    except urllib3.exceptions.HTTPError as error:
        raise TransferError(f"the connection was lost: {error}") from None


def _retry_after(value: str) -> float | None:
    """Seconds given by a `Retry-After` header, which is a number or an HTTP date."""
    try:
        return urllib3.Retry().parse_retry_after(value) if value else None
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


def _length(answer: requests.Response) -> int | None:
    """The announced length; a proxy may have duplicated the header (`10, 10`)."""
    values = {value.strip() for value in answer.headers.get("content-length", "").split(",")}
    value = values.pop()
    return int(value) if not values and value.isdecimal() else None


def _check_status(answer: requests.Response) -> None:
    code = answer.status_code
    if code in (404, 410):
        raise MissingError(f"{answer.url}: not found (HTTP {code})")
    if code not in (200, 206):  # such as a redirect without an address
        raise TransferError(
            f"HTTP {code} {answer.reason}",
            final=code not in RETRYABLE,
            busy=code in BUSY,
            wait=_retry_after(answer.headers.get("retry-after", "")),
        )


def _check_length(answer: requests.Response, received: int) -> None:
    promised = _length(answer)
    encoded = "content-encoding" in answer.headers
    if promised is not None and not encoded and promised != received:
        raise TransferError(f"the connection ended after {received:,} of {promised} bytes")


def _check_digest(answer: requests.Response, part: Path) -> None:
    for header, algorithm in CHECKSUMS.items():
        expected = answer.headers.get(header)
        if expected is None or (header == "content-md5" and answer.status_code == 206):
            continue  # the Content-MD5 of a partial response covers only that part
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
        return "the server cannot be reached or closed the connection"
    if isinstance(error, requests.Timeout):
        return "the server does not respond"
    return str(error)

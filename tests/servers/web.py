"""A local file server that supports ranges and misbehaves on request."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Web:
    """The server: its address, its faults, and what was asked of it.

    `faults`: path -> what goes wrong at its next requests, one entry each: a status code; 'cut'
    (half of the body comes, then the connection ends); 'short' (less than `content-length`
    promises); 'slow' (the body drips, for a test that kills); 'doubled' (its length comes twice);
    '/PATH' (a redirect to it).
    """

    url: str
    faults: dict[str, list[int | str]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    bytes_sent: Counter[str] = field(default_factory=Counter)


@contextmanager
def serve_files(root: Path) -> Iterator[Web]:
    """Serve the files in `root`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.lstrip("/")
            web.requests[path] += 1
            fault = web.faults[path].pop(0) if with_body and web.faults.get(path) else None
            file = root / path
            if isinstance(fault, int):
                self._head(fault, 0, {})
                return
            if fault and fault.startswith("/"):
                self._head(307, 0, {"location": fault})
                return
            if not file.is_file():
                self._head(404, 0, {})
                return
            content = file.read_bytes()
            headers = {"etag": f'"{hash(content):x}"', "accept-ranges": "bytes"}
            code, begin = 200, 0
            asked = self.headers.get("range")
            if asked and self.headers.get("if-range", headers["etag"]) == headers["etag"]:
                begin = int(asked.removeprefix("bytes=").rstrip("-"))
                if begin >= len(content):
                    self._head(416, 0, {"content-range": f"bytes */{len(content)}"})
                    return
                code = 206
                headers["content-range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            body = content[begin:]
            self._head(code, len(body), headers, twice=fault == "doubled")
            if with_body:
                self._body(path, body, fault)

        def _body(self, path: str, body: bytes, fault: int | str | None) -> None:
            if fault in ("cut", "short"):
                body = body[: len(body) // 2]
            if fault in ("cut", "short", "doubled"):
                self.close_connection = True
            step = max(1, len(body) // 50) if fault == "slow" else len(body)
            for begin in range(0, len(body), max(step, 1)):
                piece = body[begin : begin + step]
                try:
                    self.wfile.write(piece)
                except OSError:  # the client was killed by the test
                    return
                web.bytes_sent[path] += len(piece)
                if fault == "slow":
                    time.sleep(0.1)

        def _head(
            self, code: int, length: int, headers: dict[str, str], *, twice: bool = False
        ) -> None:
            self.send_response(code)
            promised = f"{length}, {length}" if twice else str(length)
            for key, value in {**headers, "content-length": promised}.items():
                self.send_header(key, value)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web = Web(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()

"""A Hugging Face hub on loopback: enough of its protocol for models and data sets.

As on the real one, large files are redirected to another address (`/cdn/…`), which speaks ranges;
their etag is a SHA-256. A gated repository lists its files and refuses to send them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".h5", ".msgpack", ".onnx")


@dataclass
class Faults:
    """How the hub misbehaves, and what was asked of it.

    refuse: repository -> status, x-error-code, x-error-message. gated: repositories that list their
    files but do not send them. cut: large file -> bytes after which the connection breaks, once.
    requests: method, path and range of each.
    """

    refuse: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)


@contextmanager
def serve_hub(repositories: Path, faults: Faults | None = None) -> Iterator[str]:
    """Serve `repositories/<owner>/<name>/…` as models and data sets; yield the endpoint's URL."""
    faults = faults or Faults()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_POST(self) -> None:  # paths-info: a form with the requested paths
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length)
            asked = (
                json.loads(body)["paths"]
                if body.startswith(b"{")
                else parse_qs(body.decode()).get("paths", [])
            )
            _, _, owner, name, *_ = self.path.strip("/").split("/")
            tree = [e for e in _tree(repositories / owner / name) if e["path"] in asked]
            self._json(tree, with_body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            path = unquote(self.path.split("?")[0]).strip("/")
            faults.requests.append((self.command, path, self.headers.get("range")))
            for repository, (code, error, message) in faults.refuse.items():
                if f"/{repository}/" in f"/{path}/":
                    headers = {"x-error-code": error} if error else {}
                    headers |= {"x-error-message": message}
                    self._send(code, b"{}", headers, with_body)
                    return
            if path.startswith("cdn/"):
                self._send_large(repositories / path.removeprefix("cdn/"), with_body)
                return
            if path.startswith("api/") and path.count("/") < 3:  # optional for clients
                self._send(404, b"{}", {}, with_body)
                return
            if path.startswith("api/"):
                _, _, owner, name, *rest = path.split("/")
                self._describe(repositories / owner / name, rest, with_body=with_body)
                return
            owner, name, _, _, file = path.removeprefix("datasets/").split("/", 4)
            target = repositories / owner / name / file
            if not target.is_file():
                known = (repositories / owner / name).is_dir()
                code = "EntryNotFound" if known else "RepoNotFound"
                self._send(404, b"", {"x-error-code": code}, with_body)
                return
            if f"{owner}/{name}" in faults.gated:
                self._send(403, b"", {"x-error-code": "GatedRepo"}, with_body)
                return
            content = target.read_bytes()
            if target.suffix in LARGE:
                headers = {
                    "x-repo-commit": COMMIT,
                    "x-linked-etag": f'"{hashlib.sha256(content).hexdigest()}"',
                    "x-linked-size": str(len(content)),
                    "location": f"http://localhost:{server.server_port}/cdn/{owner}/{name}/{file}",
                }
                self._send(302, b"", headers, with_body)
                return
            headers = {
                "x-repo-commit": COMMIT,
                "etag": f'"{hashlib.sha1(content).hexdigest()}"',
            }
            self._send(200, content, headers, with_body)

        def _send_large(self, target: Path, with_body: bool) -> None:
            content = target.read_bytes()
            asked = self.headers.get("range")
            begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            end = len(content)
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("content-range", f"bytes {begin}-{end - 1}/{end}")
            self.send_header("content-length", str(end - begin))
            self.end_headers()
            if not with_body:
                return
            left = faults.cut.pop(target.name, None)
            self.wfile.write(content[begin : end if left is None else begin + left])
            if left is not None:
                faults.refuse[f"cdn/{target.relative_to(repositories).parent}"] = (503, "", "gone")
                self.close_connection = True

        def _describe(self, folder: Path, rest: list[str], *, with_body: bool) -> None:
            if not folder.is_dir():
                self._send(404, b"{}", {"x-error-code": "RepoNotFound"}, with_body)
                return
            tree = _tree(folder)
            if rest and rest[0] == "tree":
                below = "/".join(rest[2:])
                deep = "recursive=true" in self.path.lower()
                inside = [e for e in tree if deep or str(Path(e["path"]).parent) == (below or ".")]
                inside = [e for e in inside if e["path"].startswith(f"{below}/" if below else "")]
                self._json(inside, with_body=with_body)
                return
            info = {
                "id": f"{folder.parent.name}/{folder.name}",
                "sha": COMMIT,
                "siblings": [
                    {"rfilename": e["path"], "size": e["size"]} for e in tree if e["type"] == "file"
                ],
            }
            self._json(info, with_body=with_body)

        def _json(self, document: object, *, with_body: bool) -> None:
            headers = {"x-repo-commit": COMMIT, "content-type": "application/json"}
            self._send(200, json.dumps(document).encode(), headers, with_body)

        def _send(self, code: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
            self.send_response(code)
            for key, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


def _tree(folder: Path) -> list[dict[str, Any]]:
    return [
        {
            "type": "file" if path.is_file() else "directory",
            "path": str(path.relative_to(folder)),
            "size": path.stat().st_size if path.is_file() else 0,
            "oid": hashlib.sha1(path.read_bytes() if path.is_file() else b"").hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
    ]

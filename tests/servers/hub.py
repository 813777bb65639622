"""A Hugging Face hub on loopback: enough of its protocol to download a model repository."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_hub(repositories: Path) -> Iterator[str]:
    """Serve `repositories/<owner>/<name>/…` as model repositories; gives the endpoint's URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.split("?")[0].strip("/")
            headers = {"x-repo-commit": COMMIT}
            if path.startswith("api/models/"):
                owner, name = path.split("/")[2:4]
                folder = repositories / owner / name
                if not folder.is_dir():
                    self._send(404, b"{}", {"x-error-code": "RepoNotFound"}, with_body)
                    return
                files = sorted(p.name for p in folder.iterdir())
                tree = [
                    {
                        "type": "file",
                        "path": f,
                        "size": (folder / f).stat().st_size,
                        "oid": "0" * 40,
                    }
                    for f in files
                ]
                info = {
                    "id": f"{owner}/{name}",
                    "sha": COMMIT,
                    "siblings": [{"rfilename": f} for f in files],
                }
                document = tree if "/tree/" in path else info
                headers["content-type"] = "application/json"
                self._send(200, json.dumps(document).encode(), headers, with_body)
                return
            owner, name, _, _, file = path.split("/", 4)
            target = repositories / owner / name / file
            if not target.is_file():
                self._send(404, b"", {"x-error-code": "EntryNotFound"}, with_body)
                return
            content = target.read_bytes()
            headers["etag"] = f'"{hashlib.sha1(content).hexdigest()}"'
            self._send(200, content, headers, with_body)

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

"""A Hugging Face hub on loopback: enough of its protocol for models and data sets.

As on the real one, large files are redirected to another address (`/cdn/…`), which speaks ranges;
their etag is a SHA-256. A gated repository lists its files and refuses to send them.

An upload goes as there: the card's metadata are validated, `preupload` says which files are large,
these are stored by their SHA-256 (git LFS, verified), and one commit of JSON lines names all files.
A repository that exists answers 409 with its address, and ignores `private`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote

import yaml

LARGE = (".safetensors", ".bin", ".h5", ".msgpack", ".onnx", ".ckpt")
# Token -> its user, and whether it may write.
TOKENS = {"hf_writer": ("someone", True), "hf_reader": ("someone", False)}
REPOSITORY = re.compile(r"(?:[\w-][\w.-]*/)?[\w-][\w.-]*")
CODE = re.compile(r"[a-z]{2,3}")


@dataclass
class Faults:
    """How the hub misbehaves, and what was asked of it.

    refuse: repository -> status, x-error-code, x-error-message. gated: repositories that list their
    files but do not send them. cut: large file -> bytes after which the connection breaks, once.
    requests: method, path and range of each. private: repositories that only their owner sees.
    moved: repositories that somebody else commits to during the next upload. renamed: old name ->
    new name of a repository, with a relative redirect.
    """

    refuse: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    private: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)


@contextmanager
def serve_hub(repositories: Path, faults: Faults | None = None) -> Iterator[str]:
    """Serve `repositories/<owner>/<name>/…` as models and data sets; yield the endpoint's URL."""
    faults = faults or Faults()
    stored: dict[str, bytes] = {}  # SHA-256 -> content of large files

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            path = unquote(self.path.split("?")[0]).strip("/")
            faults.requests.append(("POST", path, None))
            if self._refused(path, with_body=True):
                return
            if path == "api/repos/create":
                self._create(json.loads(body))
            elif path == "api/validate-yaml":
                errors = _problems_of_card(json.loads(body)["content"])
                self._error(400, errors) if errors else self._json({"warnings": []})
            elif "/preupload/" in path:
                self._preupload(path, json.loads(body)["files"])
            elif path.endswith(".git/info/lfs/objects/batch"):
                self._batch(path, json.loads(body)["objects"])
            elif path == "lfs/verify":
                asked = json.loads(body)
                known = len(stored.get(asked["oid"], b"")) == asked["size"]
                self._json({}) if known else self._error(404, ["not uploaded"])
            elif "/commit/" in path:
                self._commit(path, [json.loads(line) for line in body.splitlines()])
            else:
                self._paths_info(path, body)

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            stored[hashlib.sha256(content).hexdigest()] = content
            self._send(200, b"", {"etag": '"part"'}, with_body=True)

        def _may_write(self, name: str, what: str) -> bool:
            """Whether the request's token may write to `owner/name`; if not, it is answered."""
            token = self.headers.get("authorization", "").removeprefix("Bearer ")
            user, writes = TOKENS.get(token, (None, False))
            if user is None:
                self._error(401, ["Invalid credentials in Authorization header"])
            elif not writes or user != name.partition("/")[0]:
                self._error(403, [f"You don't have the rights to {what} {name!r}"])
            return user is not None and writes and user == name.partition("/")[0]

        def _create(self, asked: dict[str, Any]) -> None:
            name = f"{asked['organization']}/{asked['name']}"
            if not self._may_write(name, "create a model under the namespace of"):
                return
            url = f"http://127.0.0.1:{server.server_port}/{name}"
            if (repositories / name).is_dir():
                message = "You already created this model repo"
                self._answer_json(409, {"error": message, "url": url}, message)
                return
            (repositories / name).mkdir(parents=True)
            (repositories / name / ".gitattributes").write_text(
                "".join(f"*{end} filter=lfs diff=lfs merge=lfs -text\n" for end in LARGE)
            )
            if asked.get("visibility") == "private" or asked.get("private"):
                faults.private.add(name)
            self._json({"url": url, "name": name, "id": "1"})

        def _preupload(self, path: str, files: list[dict[str, Any]]) -> None:
            name = "/".join(path.split("/")[2:4])
            if not self._may_write(name, "write to"):
                return
            answers = []
            for file in files:
                there = repositories / name / file["path"]
                large = there.suffix in LARGE or file["size"] > 10_000_000
                oid = _oid(there.read_bytes(), large=large) if there.is_file() else None
                answers.append(
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if large else "regular",
                        "shouldIgnore": False,
                        **({"oid": oid} if oid else {}),
                    }
                )
            self._json({"files": answers})

        def _batch(self, path: str, objects: list[dict[str, Any]]) -> None:
            if not self._may_write(path.partition(".git/")[0], "write to"):
                return
            host = f"http://127.0.0.1:{server.server_port}"
            answers = []
            for one in objects:
                answer = {"oid": one["oid"], "size": one["size"], "authenticated": True}
                if one["oid"] not in stored:  # a signed address of another host, and a check here
                    upload = {"href": f"{host}/storage/{one['oid']}?X-Amz-Signature=1"}
                    answer["actions"] = {
                        "upload": upload,
                        "verify": {"href": f"{host}/lfs/verify", "header": {}},
                    }
                answers.append(answer)
            self._json({"transfer": "basic", "objects": answers})

        def _commit(self, path: str, lines: list[dict[str, Any]]) -> None:
            name = "/".join(path.split("/")[2:4])
            if not self._may_write(name, "write to"):
                return
            if name in faults.moved:
                self._error(412, ["A commit has happened since. Please refresh and try again."])
                return
            header, *files = lines
            assert header["key"] == "header", header
            assert header["value"]["summary"]
            assert self.headers["content-type"] == "application/x-ndjson"
            for line in files:
                value = line["value"]
                if line["key"] == "lfsFile" and value["oid"] not in stored:
                    self._error(400, ["LFS pointer pointed to a file that does not exist"])
                    return
                content = (
                    stored[value["oid"]]
                    if line["key"] == "lfsFile"
                    else base64.b64decode(value["content"])
                )
                target = repositories / name / value["path"]
                if line["key"] == "file" and target.suffix in LARGE:
                    self._error(400, ["Your push was rejected because it contains binary files."])
                    return
                if value["path"] == "README.md" and (bad := _problems_of_card(content.decode())):
                    self._error(400, bad)
                    return
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            url = f"http://127.0.0.1:{server.server_port}/{name}/commit/"
            oid = _head(repositories / name)
            self._json({"success": True, "commitOid": oid, "commitUrl": url + oid})

        def _paths_info(self, path: str, body: bytes) -> None:  # a form with the paths
            asked = (
                json.loads(body)["paths"]
                if body.startswith(b"{")
                else parse_qs(body.decode()).get("paths", [])
            )
            _, _, owner, name, *_ = path.split("/")
            tree = [e for e in _tree(repositories / owner / name) if e["path"] in asked]
            self._json(tree, with_body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            path = unquote(self.path.split("?")[0]).strip("/")
            faults.requests.append((self.command, path, self.headers.get("range")))
            if self._refused(path, with_body):
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
                    "x-repo-commit": _head(repositories / owner / name),
                    "x-linked-etag": f'"{hashlib.sha256(content).hexdigest()}"',
                    "x-linked-size": str(len(content)),
                    "location": f"http://localhost:{server.server_port}/cdn/{owner}/{name}/{file}",
                }
                self._send(302, b"", headers, with_body)
                return
            headers = {
                "x-repo-commit": _head(repositories / owner / name),
                "etag": f'"{hashlib.sha1(content).hexdigest()}"',
            }
            self._send(200, content, headers, with_body)

        def _refused(self, path: str, with_body: bool) -> bool:
            """Whether the repository is to be refused, or is not for this token; then answered."""
            for old, new in faults.renamed.items():
                if f"/{old}/" in f"/{path}/":
                    self._send(307, b"", {"location": self.path.replace(old, new)}, with_body)
                    return True
            for repository, (code, error, message) in faults.refuse.items():
                if f"/{repository}/" in f"/{path}/":
                    headers = {"x-error-code": error} if error else {}
                    headers |= {"x-error-message": message}
                    self._send(code, b"{}", headers, with_body)
                    return True
            token = self.headers.get("authorization", "").removeprefix("Bearer ")
            for name in faults.private:
                inside = f"/{name}/" in f"/{path}/" and not path.startswith("cdn/")
                if inside and TOKENS.get(token, ("",))[0] != name.partition("/")[0]:
                    headers = {"x-error-code": "RepoNotFound"}
                    self._send(401, b"{}", headers, with_body)
                    return True
            return False

        def _send_large(self, target: Path, with_body: bool) -> None:
            content = target.read_bytes()
            asked = self.headers.get("range")
            first, _, last = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last or len(content)) + 1, len(content))
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("content-range", f"bytes {begin}-{end - 1}/{len(content)}")
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
            if rest and rest[0] == "xet-write-token":  # a mirror with git LFS only
                self._send(404, b"{}", {"x-error-code": "EntryNotFound"}, with_body)
                return
            info = {
                "id": f"{folder.parent.name}/{folder.name}",
                "sha": _head(folder),
                "private": f"{folder.parent.name}/{folder.name}" in faults.private,
                "siblings": [
                    {"rfilename": e["path"], "size": e["size"]} for e in tree if e["type"] == "file"
                ],
            }
            self._json(info, with_body=with_body)

        def _json(self, document: object, *, with_body: bool = True) -> None:
            headers = {"content-type": "application/json"}
            self._send(200, json.dumps(document).encode(), headers, with_body)

        def _error(self, code: int, messages: list[str]) -> None:
            document = {"error": messages[0], "errors": [{"message": m} for m in messages]}
            self._answer_json(code, document, messages[0])

        def _answer_json(self, code: int, document: object, message: str) -> None:
            headers = {"content-type": "application/json", "x-error-message": message}
            self._send(code, json.dumps(document).encode(), headers, with_body=True)

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


def _head(folder: Path) -> str:
    """The commit of a repository: another one when any file changes."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    content = "".join(f"{path} {_oid(path.read_bytes(), large=False)}" for path in files)
    return hashlib.sha1(content.encode()).hexdigest()


def _oid(content: bytes, *, large: bool) -> str:
    """As `preupload` and git name a file: large ones by SHA-256, others by git's SHA-1."""
    if large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _problems_of_card(content: str) -> list[str]:
    """What the hub refuses in the metadata of a card, in its words."""
    found = re.match(r"\s*---\n([\s\S]*?)\n---[ \t]*(\n|$)", content)
    if not found:
        return []
    data = yaml.safe_load(found[1]) or {}
    problems = []

    def check(key: str, value: object, form: re.Pattern[str]) -> None:
        if not isinstance(value, str) or not form.fullmatch(value):
            problems.append(f'"{key}" with value {json.dumps(value)} is not valid')

    for key, form in (("base_model", REPOSITORY), ("datasets", REPOSITORY), ("language", CODE)):
        values = data.get(key, [])
        for i, value in enumerate(values if isinstance(values, list) else [values]):
            check(f"{key}[{i}]", value, form)
    for model in data.get("model-index", []):
        check("model-index.name", model.get("name"), re.compile(".+"))
        for result in model["results"]:
            check("task.type", result["task"].get("type"), re.compile(r"[a-z0-9-]+"))
            check("dataset.type", result["dataset"].get("type"), REPOSITORY)
            check("dataset.name", result["dataset"].get("name"), re.compile(".+"))
            for metric in result["metrics"]:
                check("metrics.type", metric.get("type"), re.compile(".+"))
                if not isinstance(metric.get("value"), int | float | str):
                    problems.append('"metrics.value" is required')
    return problems

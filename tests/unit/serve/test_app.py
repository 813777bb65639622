"""The application without a socket or a worker: limits, access, and format of errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from bart_cli.config.commands import ServeConfig
from bart_cli.config.generation import GenerationConfig

pytest.importorskip("starlette", reason="the extra 'serve' is not installed")
from bart_cli.serve import requests
from bart_cli.serve.app import MOST_FILES, Server, build_app
from bart_cli.serve.batching import Pool
from bart_cli.serve.guard import Access
from bart_cli.serve.requests import chat_document
from bart_cli.serve.worker import Failure, Served, _failure

SERVED = Served("fp32", "cpu", 64, 64, 100, GenerationConfig(max_length=12), 8, 1)
TEXT = {"text": "Rain fell."}
OPEN_TO_ALL = Access(None, loopback=False)


def never(_: int) -> tuple[Any, Served]:
    raise AssertionError("no test here starts a worker")


def make_server(**limits: object) -> Server:
    """Make a server with a model, but without workers, so texts stay in the queue."""
    config = ServeConfig.model_validate(limits)
    pool = Pool(never, max_queue=config.max_queue, warn=print)
    pool.served = SERVED
    return Server(pool, config, "tiny")


def ask(
    server: Server,
    path: str,
    body: object = None,
    *,
    access: Access = OPEN_TO_ALL,
    parts: Sequence[bytes] | None = None,
    leaves: bool = False,
    **headers: str,
) -> tuple[int, Any, dict[str, str]]:
    """Return status, content and headers.

    Args:
        parts: parts of a body without a declared length.
        leaves: disconnect after the body.
    """
    sent = {"host": "localhost", "content-type": "application/json"} | headers
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": "GET" if body is None and parts is None else "POST",
        "path": path,
        "query_string": query.encode(),
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in sent.items()],
    }
    arriving = [{"type": "http.request", "body": part, "more_body": True} for part in parts or ()]
    if parts is None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        arriving.append({"type": "http.request", "body": data, "more_body": False})
    if leaves:
        arriving.append({"type": "http.disconnect"})
    answer: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        return arriving.pop(0) if arriving else await asyncio.Future()

    async def send(message: Any) -> None:
        answer.append(message)

    asyncio.run(build_app(server, access)(scope, receive, send))
    content = b"".join(message.get("body", b"") for message in answer).decode()
    found = {k.decode(): v.decode() for k, v in answer[0]["headers"]}
    is_json = found["content-type"] == "application/json"
    return answer[0]["status"], json.loads(content) if is_json else content, found


def test_a_request_past_the_time_limit_leaves_the_queue() -> None:
    server = make_server(timeout=0.01)
    status, answer, _ = ask(server, "/v1/summarize", TEXT)
    assert (status, answer["error"]["message"]) == (504, "no result within 0.01 s")
    assert server.pool.waiting == 0
    status, content, _ = ask(server, "/v1/summarize/stream", TEXT)
    assert status == 200  # sent before the end of the body
    assert "event: error\n" in content
    assert "no result within 0.01 s" in content


def test_texts_of_a_disconnected_client_leave_the_queue() -> None:
    server = make_server()
    ask(server, "/v1/summarize", {"text": ["a", "b"]}, leaves=True)
    assert server.pool.waiting == 0
    assert 'status="499"' in ask(server, "/metrics")[1]


def test_bodies_that_are_slow_endless_or_large(monkeypatch: pytest.MonkeyPatch) -> None:
    server = make_server(max_bytes=2000)
    status, answer, _ = ask(server, "/v1/summarize", parts=[b"x" * 900] * 3)
    assert (status, answer["error"]["message"]) == (413, "the body has more than 2000 bytes")
    assert ask(server, "/v1/text?name=a.txt", b"", content_length="2001")[0] == 413
    monkeypatch.setattr(requests, "BODY_SECONDS", 0.01)
    status, _, headers = ask(server, "/v1/summarize", parts=[b'{"text"'])
    assert (status, headers["connection"]) == (408, "close")


def test_a_full_queue_returns_when_to_try_again() -> None:
    server = make_server(max_queue=2, max_texts=9)
    status, _, headers = ask(server, "/v1/summarize", {"text": ["a", "b", "c"]})
    assert status == 429
    assert int(headers["retry-after"]) >= 1
    assert server.pool.waiting == 0  # either all texts of a request are queued, or none
    server.reading = MOST_FILES
    assert ask(server, "/v1/text?name=a.txt", b"x")[0] == 429
    server.pool.served = None
    status, _, headers = ask(server, "/v1/summarize", TEXT)
    assert (status, int(headers["retry-after"]) >= 1) == (503, True)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST.:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
        ("[::1", 400),
    ],
)
def test_without_a_key_only_local_names_are_accepted(host: str, status: int) -> None:
    server = make_server()
    assert ask(server, "/healthz", access=Access(None, loopback=True), host=host)[0] == status
    if status != 400:  # --no-auth: any name
        assert ask(server, "/healthz", access=OPEN_TO_ALL, host=host)[0] == 200


def test_pages_of_other_origins_are_rejected() -> None:
    server = make_server()
    assert ask(server, "/v1/models", origin="null")[2]["connection"] == "close"
    for origin, status in (("http://evil.example", 403), ("null", 403), ("http://localhost", 200)):
        assert ask(server, "/v1/models", origin=origin)[0] == status


def test_keys_are_compared_as_bytes() -> None:
    server, access = make_server(), Access("schlüssel", loopback=False)
    for sent, status in (
        ("Bearer schlüssel", 200),
        ("bearer  schlüssel ", 200),
        ("Bearer schlussel", 401),
        ("Basic schlüssel", 401),
        ("", 401),
    ):
        assert ask(server, "/v1/models", access=access, authorization=sent)[0] == status


def test_an_error_is_one_line_of_json_without_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    server = make_server()
    for path, status in (("/v1/summarize/", 404), ("/v1/models/other", 404), ("/../etc", 404)):
        got, answer, _ = ask(server, path)
        assert (got, answer["error"]["message"]) == (status, "no such path; /docs lists the API")
    for body in (b'{"text": "a", "\\ud800": 1}', b'{"text": "a", "long": "\\ud800"}'):
        assert ask(server, "/v1/summarize", body)[0] == 400

    def fail(_: object) -> None:
        raise OSError("/secret/path")

    monkeypatch.setattr(server.pool, "submit", fail)
    with_reason = ask(server, "/v1/summarize", TEXT)
    assert with_reason[0] == 500
    assert "secret" not in json.dumps(with_reason[1])
    assert with_reason[2]["x-content-type-options"] == "nosniff"


def test_out_of_memory_is_not_a_failure_of_the_server() -> None:
    found = _failure(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert found == Failure(503, "out of memory: request fewer beams or send shorter texts")


def test_openais_fields() -> None:
    def own(**fields: object) -> dict[str, Any]:
        message = {"role": "user", "content": "Rain fell."}
        return chat_document({"model": "x", "messages": [message]} | fields, SERVED)

    assert own(stop=None, tools=[], logprobs=False, response_format={"type": "text"}) == TEXT
    assert own(max_tokens=4096) == TEXT | {"max_length": 64}  # an upper bound
    assert own(temperature=0, forced_bos=False) == TEXT | {"forced_bos": False}
    with pytest.raises(Exception, match="the field 'stop' is not supported"):
        own(stop=["."])
    model = {"id": "tiny", "object": "model", "created": 0, "owned_by": "bart"}
    assert ask(make_server(), "/v1/models/tiny")[1] == model

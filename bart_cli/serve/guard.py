"""Everything around a request: access, security headers, metrics, and the form of errors."""

import hmac
import ipaddress
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bart_cli.serve.batching import Pool
from bart_cli.serve.requests import refuse

log = logging.getLogger("bart")

OPEN = frozenset(["/", "/docs", "/openapi.json", "/healthz", "/readyz"])  # paths without a key


@dataclass(frozen=True)
class Access:
    """Access rules."""

    key: str | None  # API key that clients must send; None: no key
    loopback: bool  # accept only Host headers that name this machine


class Metrics:
    """The metrics served at /metrics."""

    def __init__(self, pool: Pool) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("bart_requests", "Requests", ["path", "status"], registry=own)
        self.seconds = Histogram("bart_request_seconds", "Time of requests", ["path"], registry=own)
        self.batch = Histogram(
            "bart_batch_texts",
            "Texts that a worker has when it ends one",
            buckets=[1, 2, 4, 8, 16, 32, 64, 128],
            registry=own,
        )
        self.decoding = Histogram("bart_text_seconds", "Time of a text in a worker", registry=own)
        gauges = [
            ("bart_queue_texts", "Texts in the queue", lambda: pool.waiting),
            ("bart_running_texts", "Texts in the workers", lambda: pool.running),
            ("bart_workers_ready", "Workers with a loaded model", lambda: len(pool.ready)),
            ("bart_worker_restarts", "Worker restarts", lambda: pool.restarts),
        ]
        for name, text, value in gauges:
            Gauge(name, text, registry=own).set_function(value)
        pool.observe = self._observe

    def _observe(self, size: int, seconds: float) -> None:
        self.batch.observe(size)
        self.decoding.observe(seconds)


def guard(app: ASGIApp, metrics: Metrics, paths: Collection[str], access: Access) -> ASGIApp:
    """Check access, add security headers, count requests by path, and log unexpected errors."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the lifespan of the server
            await app(scope, receive, send)
            return
        path, began, status = scope["path"], time.monotonic(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", "default-src 'none'")
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "no-referrer"
                headers["cache-control"] = "no-store"
            await send(message)

        try:
            try:
                _check_access(path, Headers(scope=scope), access)
            except HTTPException as error:
                await refusal(error, Connection="close")(scope, receive, sent)  # body is not read
            else:
                await app(scope, receive, sent)
        except Exception as error:
            log.error("%s: %s: %s", path, type(error).__name__, error)
        finally:
            label = path if path in paths else "other"
            metrics.requests.labels(label, str(status)).inc()
            metrics.seconds.labels(label).observe(time.monotonic() - began)

    return guarded


def _check_access(path: str, headers: Headers, access: Access) -> None:
    """Refuse a request that the rules do not allow."""
    host, origin = headers.get("host", ""), headers.get("origin")
    try:
        name = urlsplit(f"//{host}").hostname or ""
        other = origin is not None and urlsplit(origin).netloc != host
    except ValueError:
        refuse(400, "the header Host or Origin is not an address")
    if access.loopback and not is_loopback(name):
        # Protects against DNS rebinding: a foreign host name that now resolves to this machine.
        line = "this server is only available as localhost: the header Host has another name"
        refuse(403, line)
    if other:
        refuse(403, "requests from pages of other origins are not allowed")
    if access.key is not None and path not in OPEN:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("latin-1"), access.key.encode())
        if scheme.lower() != "bearer" or not same:
            line = "expected the header Authorization: Bearer KEY with the server's key"
            refuse(401, line, WWW_Authenticate="Bearer")


def is_loopback(host: str) -> bool:
    """Return whether a host is `localhost` or a loopback address; names are not resolved."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def refusal(error: HTTPException, **headers: str) -> Response:
    headers |= error.headers or {}
    return JSONResponse(error_document(error), error.status_code, headers)


def error_document(error: HTTPException) -> dict[str, Any]:
    """Describe an error, as in OpenAI's API."""
    code = error.status_code
    line = "no such path; /docs lists the API" if code == 404 else error.detail
    return {"error": {"message": line, "type": "error", "code": code}}

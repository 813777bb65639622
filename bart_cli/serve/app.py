"""The web application: convert requests to jobs for the pool, and results to responses.

The size of everything that a client can send is limited, and no response contains a local path.
"""

import asyncio
import base64
import hashlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from bart_cli.config.commands import ServeConfig
from bart_cli.errors import UsageError
from bart_cli.serve.batching import Job, Pool, QueueFullError
from bart_cli.serve.documents import text_of_upload
from bart_cli.serve.guard import Access, Metrics, error_document, guard, refusal
from bart_cli.serve.openapi import docs_page, openapi
from bart_cli.serve.requests import (
    chat_document,
    read_body,
    read_flag,
    read_json,
    read_settings,
    read_texts,
    refuse,
)
from bart_cli.serve.worker import Failure, Served

GONE = 499  # nginx's status for a client that has disconnected; appears only in metrics
MOST_FILES = 16  # uploads being read or waiting to be read
HEARTBEAT = 15.0  # seconds between comments in an idle stream, so that proxies keep it open
PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


def _digest(tag: str) -> str:
    """Return the CSP hash that allows only the page's own script or style."""
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


PAGE_POLICY = (
    f"default-src 'none'; script-src {_digest('script')}; style-src {_digest('style')}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class Server:
    """The handlers and the state they share."""

    def __init__(self, pool: Pool, config: ServeConfig, name: str) -> None:
        self.pool, self.config, self.name = pool, config, name
        self.metrics = Metrics(pool)
        self.reading = 0  # uploads in progress

    # ---- summaries ------------------------------------------------------------------------------

    async def summarize(self, request: Request) -> Response:
        """Summarize a text or a list of texts."""
        jobs = self._submit(await read_json(request, self.config.max_bytes))
        return JSONResponse({"model": self.name, "results": await self._all(request, jobs)})

    async def stream(self, request: Request) -> Response:
        """Summarize texts; send each summary as a server-sent event when it is finished."""
        jobs = self._submit(await read_json(request, self.config.max_bytes))

        async def events() -> AsyncIterator[str]:
            index = {job: i for i, job in enumerate(jobs)}
            try:
                async for job in self._finished(request, jobs):
                    if job is None:
                        yield ": waiting\n\n"
                    else:
                        yield _event("summary", {"index": index[job]} | _record(job))
                yield _event("done", {"model": self.name})
            except HTTPException as error:
                yield _event("error", error_document(error))

        return StreamingResponse(events(), media_type="text/event-stream")

    async def chat(self, request: Request) -> Response:
        """Summarize a text, compatible with OpenAI's API."""
        document = await read_json(request, self.config.max_bytes)
        streamed = read_flag(document, "stream")
        options = document.get("stream_options")
        with_usage = isinstance(options, dict) and options.get("include_usage") is True
        jobs = self._submit(chat_document(document, self._served()))
        (record,) = await self._all(request, jobs)
        usage = {
            "prompt_tokens": record["used_tokens"],
            "completion_tokens": record["summary_tokens"],
            "total_tokens": record["used_tokens"] + record["summary_tokens"],
        }
        kind, key = "chat.completion", "message"
        if streamed:
            kind, key = "chat.completion.chunk", "delta"
        name = f"chatcmpl-{uuid.uuid4().hex}"
        head = {"id": name, "created": int(time.time()), "model": self.name}
        head |= {"warnings": record["warnings"], "object": kind}
        choices = [
            {"index": i, key: {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for i, text in enumerate([record["summary"], *record["others"]])
        ]
        if not streamed:
            return JSONResponse(head | {"choices": choices, "usage": usage})
        chunks = [head | {"choices": choices}]
        chunks += [head | {"choices": [], "usage": usage}] if with_usage else []
        lines = "".join(f"data: {_dump(chunk)}\n\n" for chunk in chunks)
        return Response(f"{lines}data: [DONE]\n\n", media_type="text/event-stream")

    def _submit(self, document: dict[str, Any]) -> list[Job]:
        served = self._served()
        texts = read_texts(document, self.config)
        settings = read_settings(document, served, self.config.max_beams)
        overlap = read_flag(document, "overlap")
        loop = asyncio.get_running_loop()
        jobs = [Job(text, settings, loop.create_future(), overlap) for text in texts]
        try:
            self.pool.submit(jobs)
        except QueueFullError as error:
            refuse(429, "too many texts are waiting; try again", Retry_After=str(error))
        return jobs

    async def _all(self, request: Request, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        async for _ in self._finished(request, jobs):
            pass
        return [_record(job) for job in jobs]

    async def _finished(self, request: Request, jobs: Sequence[Job]) -> AsyncIterator[Job | None]:
        """Yield jobs as they finish, and None after each HEARTBEAT without one.

        Jobs that are unfinished when the iteration ends are canceled.
        """
        end = time.monotonic() + self.config.timeout
        left = asyncio.create_task(_left(request))
        waiting: dict[asyncio.Future[Any], Job] = {job.result: job for job in jobs}
        try:
            while waiting:
                rest = end - time.monotonic()
                if rest <= 0:
                    refuse(504, f"no result within {self.config.timeout:g} s")
                done, _ = await asyncio.wait(
                    {left, *waiting},
                    timeout=min(rest, HEARTBEAT),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if left in done:
                    refuse(GONE, "the client has left")
                if not done:
                    yield None
                for future in done:
                    yield waiting.pop(future)
        finally:
            left.cancel()
            for job in jobs:
                job.result.cancel()

    async def text(self, request: Request) -> Response:
        """Extract the text of a .txt, .md, .html, .docx or .pdf file in the request body."""
        name = request.query_params.get("name", "")
        if not 0 < len(name) <= 255:
            refuse(400, "name is missing: expected the file name in the query, ?name=FILE.pdf")
        if self.reading >= MOST_FILES:
            refuse(429, "too many files are being read; try again", Retry_After="5")
        self.reading += 1
        try:
            content = await read_body(request, self.config.max_bytes)
            return JSONResponse({"text": await text_of_upload(name, content)})
        except UsageError as error:
            refuse(422, " ".join(error.message.split()))
        finally:
            self.reading -= 1

    async def page(self, _: Request) -> Response:
        """Serve the web page."""
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": PAGE_POLICY})

    # ---- information ----------------------------------------------------------------------------

    def _served(self) -> Served:
        if self.pool.served is None:
            refuse(503, "the model is still being loaded", Retry_After="5")
        return self.pool.served

    async def model(self, _: Request) -> Response:
        """Describe the model: name, precision, device, limits, saved decoding settings."""
        served = self._served()
        answer = {
            "name": self.name,
            "precision": served.precision,
            "device": served.device,
            "workers": len(self.pool.ready),
            "positions": served.positions,
            "source_length": served.source_length,
            "batch_size": served.batch_size,
            "limits": self.config.model_dump(exclude={"host", "port", "name", "workers"}),
            "decoding": served.generation.model_dump(mode="json"),
        }
        return JSONResponse(answer)

    async def models(self, request: Request) -> Response:
        """Describe the model, compatible with OpenAI's API."""
        entry = {"id": self.name, "object": "model", "created": 0, "owned_by": "bart"}
        wanted = request.path_params.get("name")
        if wanted is None:
            return JSONResponse({"object": "list", "data": [entry]})
        if wanted != self.name:
            raise HTTPException(404)
        return JSONResponse(entry)

    async def healthy(self, _: Request) -> Response:
        """Return 200 while the server runs."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """Return 200 if a worker has loaded the model, else 503."""
        ready = bool(self.pool.ready)
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503)

    async def show_metrics(self, _: Request) -> Response:
        """Return metrics in the format of Prometheus."""
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, _: Request) -> Response:
        """Return the OpenAPI description of this API."""
        return JSONResponse(openapi(self.routes()))

    async def docs(self, _: Request) -> Response:
        """Serve the documentation of this API as a web page."""
        return HTMLResponse(docs_page(self.routes()))

    def routes(self) -> list[Route]:
        return [
            Route("/", self.page),
            Route("/healthz", self.healthy),
            Route("/readyz", self.ready),
            Route("/metrics", self.show_metrics),
            Route("/v1/model", self.model),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.models),
            Route("/openapi.json", self.openapi),
            Route("/docs", self.docs),
            Route("/v1/summarize", self.summarize, methods=["POST"]),
            Route("/v1/summarize/stream", self.stream, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/text", self.text, methods=["POST"]),
        ]


def build_app(server: Server, access: Access) -> ASGIApp:
    """Build the application and wrap it in the access checks."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        server.pool.start()
        try:
            yield
        finally:
            await server.pool.stop()

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return refusal(error)

    async def failed(_: Request, __: Exception) -> Response:
        return refusal(HTTPException(500, "internal error; see the server's log"))

    app = Starlette(
        routes=server.routes(),
        lifespan=lifespan,
        exception_handlers={HTTPException: refused, Exception: failed},
    )
    app.router.redirect_slashes = False
    return guard(app, server.metrics, {route.path for route in server.routes()}, access)


async def _left(request: Request) -> None:
    """Wait until the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _record(job: Job) -> dict[str, Any]:
    result = job.result.result()
    if isinstance(result, Failure):
        refuse(result.status, result.message)
    return result


def _event(name: str, document: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {_dump(document)}\n\n"


def _dump(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False)

"""Open the listening socket, and run the server."""

import asyncio
import errno
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from bart_cli.config.commands import ServeConfig
from bart_cli.errors import BartError, UsageError
from bart_cli.progress import Reporter
from bart_cli.serve.app import Server, build_app
from bart_cli.serve.batching import Pool
from bart_cli.serve.guard import Access, is_loopback
from bart_cli.serve.worker import Load

CONNECTIONS = 512  # maximum number of open connections; more get status 503
IDLE_SECONDS = 15.0  # close a connection that has not sent complete request headers by then


@contextmanager
def listen(
    config: ServeConfig, *, key: str | None, open_to_all: bool
) -> Iterator[tuple[socket.socket, Access]]:
    """Bind a socket to the configured address; yield it with its access rules.

    `open_to_all`: allow access from other machines without a key.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(f"--host {config.host}: {error.strerror or error}") from None
    loopback = is_loopback(str(address[0]))
    if not loopback and key is None and not open_to_all:
        raise UsageError(
            f"--host {config.host} can be reached from other machines, and there is no API key",
            hint="Set BART_API_KEY (or pass --api-key), or pass --no-auth to serve everyone.",
        )
    with socket.socket(family, kind) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(CONNECTIONS)  # so that a second server fails to bind the port
        except OSError as error:
            where = f"{config.host}, port {config.port}"
            hint = "Pass another --port." if error.errno == errno.EADDRINUSE else None
            line = f"cannot listen on {where}: {error.strerror or error}"
            raise BartError(line, hint=hint) from None
        yield listener, Access(key, loopback and key is None)


def serve(
    load: Load,
    config: ServeConfig,
    name: str,
    listener: socket.socket,
    access: Access,
    reporter: Reporter,
) -> None:
    """Serve until a signal arrives, finish all requests, and raise the signal again."""
    pool = Pool(load, workers=config.workers, max_queue=config.max_queue, warn=reporter.warn)
    quiet = not logging.getLogger().isEnabledFor(logging.INFO)
    web = uvicorn.Server(
        uvicorn.Config(
            build_app(Server(pool, config, name), access),
            http=_Protocol,
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            log_level="critical" if quiet else "info",
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=int(config.timeout) + 1,
        )
    )

    async def run() -> None:
        watch = asyncio.create_task(_announce(pool, web, listener, name, reporter))
        try:
            await web.serve(sockets=[listener])
        finally:
            watch.cancel()

    asyncio.run(run())
    if pool.error is not None:
        raise pool.error


async def _announce(
    pool: Pool, web: uvicorn.Server, listener: socket.socket, name: str, reporter: Reporter
) -> None:
    """Report when the model is loaded; stop the server if it could not be loaded."""
    await pool.settled.wait()
    if pool.error is not None or pool.served is None:
        web.should_exit = True
        return
    host, port = listener.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    device = f"({pool.served.precision}, {pool.served.device})"
    reporter.info(f"serving {name} at http://{host}:{port} {device}")


class _Protocol(H11Protocol):
    """HTTP/1.1 that closes connections on which no complete request headers arrive in time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._finished: object = None  # the last finished request at the previous check
        self.loop.call_later(IDLE_SECONDS, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        if idle and (self.cycle is None or self._finished is self.cycle):
            self.transport.close()
            return
        self._finished = self.cycle if idle else None
        self.loop.call_later(IDLE_SECONDS, self._look)

"""Run functions on a Dask cluster: worker processes started here, or a running scheduler."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from bart_cli.errors import BartError
from bart_cli.progress import Reporter
from bart_cli.runtime.interrupts import withheld

if TYPE_CHECKING:
    from distributed import Client

SCHEDULER_SECONDS = 20  # timeout for connecting to a Dask scheduler


def run_tasks(
    client: Client,
    function: Callable[[Any], Any],
    arguments: Sequence[Any],
    name: str,
    unit: str,
    reporter: Reporter,
) -> list[Any]:
    """Map a function over arguments on the cluster; the first error cancels the remaining tasks."""
    from concurrent.futures import CancelledError

    from distributed import as_completed
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker

    try:
        futures = client.map(partial(_outcome, function), arguments, pure=False, retries=0)
        with reporter.task(name, total=len(futures), unit=unit) as task:
            for future in as_completed(futures, loop=client.loop):
                error = future.result() if future.status == "finished" else future.exception()
                if isinstance(error, BaseException):
                    client.cancel(futures)
                    raise error
                task.advance()
        results: list[Any] = client.gather(futures)
    except KilledWorker:
        raise BartError(
            "worker processes were killed repeatedly (out of memory?)",
            hint="Rerun the command to resume, with fewer --workers to use less memory.",
        ) from None
    except (CancelledError, CommClosedError):
        raise BartError(
            "lost the connection to the Dask scheduler", hint="Rerun the command to resume."
        ) from None
    return results


def _outcome(function: Callable[[Any], Any], argument: Any) -> Any:
    """Return the result or the BartError: Dask would log the traceback of a raised error."""
    try:
        return function(argument)
    except BartError as error:
        return error


@contextmanager
def cluster(workers: int, scheduler: str | None) -> Iterator[Client]:
    """Connect to a running cluster, or start worker processes that end with the context."""
    import dask
    from distributed import Client, LocalCluster
    from distributed.comm.addressing import parse_address, parse_host_port
    from distributed.comm.registry import get_backend

    # Dask logs every worker that leaves. Errors reach the user through the futures instead.
    for name in ("distributed", "distributed.client"):  # the latter has its own log level
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if scheduler is not None:
        try:
            # Check the address first: a client for a wrong one takes most of a minute to close.
            protocol, place = parse_address(scheduler)
            get_backend(protocol)
            parse_host_port(place)
            client = Client(scheduler, timeout=SCHEDULER_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise BartError(
                f"the Dask scheduler at {scheduler} does not respond: {error}",
                hint="Start one with `dask scheduler`, and workers with `dask worker ADDRESS`.",
            ) from None
        with client:
            yield client
        return
    # Variables passed as `env` would take effect only after the worker has configured logging.
    spawned = "distributed.nanny.pre-spawn-environ"
    settings = {
        "logging.distributed": "critical",
        f"{spawned}.DASK_LOGGING__DISTRIBUTED": "critical",
        f"{spawned}.TOKENIZERS_PARALLELISM": "false",
    }
    with dask.config.set(settings), _same_environment() as restore:
        with withheld():  # threads started here inherit the signal mask, and start the workers
            workers_here = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
                host="127.0.0.1",
            )
        with workers_here, Client(workers_here, set_as_default=False) as client:
            restore()
            yield client


@contextmanager
def _same_environment() -> Iterator[Callable[[], None]]:
    """Yield a function that restores the environment variables; also restore them on exit.

    Before each worker starts, Dask's nanny sets variables meant for the worker (OMP_NUM_THREADS=1,
    PYTHONHASHSEED) in *this* process. If torch were imported afterwards, here or in a child
    process, it would use a single core.
    """
    before = dict(os.environ)

    def restore() -> None:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)

    try:
        yield restore
    finally:
        restore()

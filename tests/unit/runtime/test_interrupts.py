"""Several threads start processes at the same time."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker

import pytest

from bart_cli.runtime.interrupts import start_resource_tracker


def test_threads_may_start_processes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(4)
    monkeypatch.setattr(resource_tracker, "ensure_running", lambda: threading.Event().wait(0.01))
    before = dict(os.environ)

    def start(_: int) -> None:
        together.wait()
        start_resource_tracker()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(4)))
    assert dict(os.environ) == before

"""Ctrl-C and SIGTERM: a command cleans up, prints one line and exits with 128 + the signal.

The first signal raises KeyboardInterrupt in the main thread. Where that has no effect - a library
call does not return, a destructor swallows the exception - the process ends without cleaning up,
as after `kill -9`, which every command survives. A second signal ends it in the same way.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WORDS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
ECHO_SECONDS = 1.0  # a launcher may repeat the signal that the process group already has
LIBRARY_SECONDS = 3.0  # for a library call to return
CLEANUP_SECONDS = 5.0  # for what runs after KeyboardInterrupt, unless it asks for more
EXIT_SECONDS = 3.0  # for what libraries do when Python exits
PR_SET_PDEATHSIG = 1  # linux/prctl.h

_received: list[tuple[signal.Signals, float]] = []  # the first signal and its time
_finishing = threading.Event()  # cleared while something wants to be finished
_finishing.set()
_fork: dict[str, Any] = {}  # who is about to fork
_hooks: dict[str, Any] = {}  # as they were
_tracker = threading.Lock()  # held while the resource tracker is started


def install() -> None:
    """Handle both signals from here on, except one that the caller ignores (nohup).

    Processes that this one forks afterwards end with it, even when it is killed.
    """
    if signal.getsignal(signal.SIGTERM) is not _handle:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _handle)
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(reader,), daemon=True).start()
        os.register_at_fork(before=_note_parent, after_in_child=_become_child)
        _hooks.update(unraisable=sys.unraisablehook, thread=threading.excepthook)
        sys.unraisablehook, threading.excepthook = _swallowed, _thread_failed
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # see `withheld`


def received() -> signal.Signals | None:
    """The signal that ends this process, None when there was none."""
    return _received[0][0] if _received else None


@contextmanager
def finishing() -> Iterator[None]:
    """Let the block take its time, though a signal ends the command."""
    _finishing.clear()
    try:
        yield
    finally:
        _finishing.set()


def end(number: int | None = None) -> NoReturn:
    """Print the line and end at once."""
    number = number or received() or signal.SIGINT
    if os.environ.get("RANK", "0") == "0":
        cursor = "\x1b[?25h\n" if os.isatty(2) else ""  # a live bar hides it
        os.write(2, f"{cursor}error: {WORDS[number]}\n".encode())
    os._exit(128 + number)


def leave_quietly(code: int) -> NoReturn:
    """Exit; what libraries say and do at exit is not shown and does not take long."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    def hurry() -> None:
        time.sleep(EXIT_SECONDS)
        os._exit(code)

    threading.Thread(target=hurry, daemon=True).start()
    # Not by sys.exit: where KeyboardInterrupt has passed through an `exec` of a library, Python
    # ends with the signal in place of the code.
    try:
        atexit._run_exitfuncs()
    finally:
        os._exit(code)


@contextmanager
def withheld() -> Iterator[None]:
    """Keep both signals from the processes that the block starts, until they unblock them.

    Signals may reach the whole process group, but this process alone acts on them. It gets them
    when the block ends.
    """
    start_resource_tracker()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_resource_tracker() -> None:
    """Start the tracker of `multiprocessing` before anything else does.

    Started inside of `withheld`, it would unblock the signals (Python 3.11). It shall not warn of
    the semaphores of a killed process, which it removes.
    """
    from multiprocessing import resource_tracker

    with _tracker:  # several downloads start a pool each, from threads of their own
        before = os.environ.get("PYTHONWARNINGS")
        os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning"
        resource_tracker.ensure_running()
        del os.environ["PYTHONWARNINGS"]
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


def _handle(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if not _received:
        _received.append((signal.Signals(number), now))
        logging.disable(logging.CRITICAL)
        raise KeyboardInterrupt
    if now - _received[0][1] > ECHO_SECONDS:
        end()


def _watch(reader: int) -> None:
    """End the process where KeyboardInterrupt does not."""
    while data := os.read(reader, 1):
        number = data[0]
        # Training and evaluation have a handler of their own, and take their time.
        if number not in SIGNALS or signal.getsignal(number) is not _handle:
            continue
        time.sleep(LIBRARY_SECONDS)
        if not _received and signal.getsignal(number) is _handle:
            end(number)
        if _received:
            time.sleep(CLEANUP_SECONDS)
            _finishing.wait()
            end()


def _note_parent() -> None:
    import ctypes

    in_main = threading.current_thread() is threading.main_thread()
    prctl = ctypes.CDLL(None).prctl if sys.platform.startswith("linux") else None
    _fork.update(parent=os.getpid(), in_main=in_main, prctl=prctl)


def _become_child() -> None:
    """In a forked child: leave signals to the parent, and end with it."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        if signal.getsignal(number) is _handle:
            signal.signal(number, signal.SIG_DFL)
    _received.clear()
    # The kernel takes the end of the thread that forked for that of the parent.
    if _fork["prctl"] is not None and _fork["in_main"]:
        _fork["prctl"](PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != _fork["parent"]:
            os._exit(1)


def _swallowed(problem: Any) -> None:
    if not _received:
        _hooks["unraisable"](problem)
    elif issubclass(problem.exc_type, KeyboardInterrupt):
        end()


def _thread_failed(problem: Any) -> None:
    if not _received:
        _hooks["thread"](problem)

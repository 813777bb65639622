"""Handle Ctrl-C and SIGTERM: clean up, print one line and exit with 128 + the signal number.

The first signal raises KeyboardInterrupt in the main thread. If that has no effect, because a
library call does not return or a destructor swallows the exception, the process exits without
cleanup, as after `kill -9`. All output is safe against that. A second signal has the same effect.
"""

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
ECHO_SECONDS = 1.0  # a launcher may repeat a signal that the process group has already received
LIBRARY_SECONDS = 3.0  # for a library call to return
CLEANUP_SECONDS = 5.0  # for cleanup after KeyboardInterrupt, unless it is in `finishing`
EXIT_SECONDS = 3.0  # for exit handlers of libraries
PR_SET_PDEATHSIG = 1  # linux/prctl.h

_received: list[tuple[signal.Signals, float]] = []  # the first signal and its time
_finishing = threading.Event()  # cleared inside a block of `finishing`
_finishing.set()
_fork: dict[str, Any] = {}  # the process that is about to fork
_hooks: dict[str, Any] = {}  # the original exception hooks
_tracker = threading.Lock()  # held while the resource tracker starts


def install() -> None:
    """Install the signal handlers, except for a signal that is ignored (nohup).

    Processes forked from now on are killed when this process ends, even if it is killed.
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
    """Return the signal that ends this process, or None."""
    return _received[0][0] if _received else None


@contextmanager
def finishing() -> Iterator[None]:
    """Give the block unlimited time for cleanup after a signal."""
    _finishing.clear()
    try:
        yield
    finally:
        _finishing.set()


def end(number: int | None = None) -> NoReturn:
    """Print the error line and exit without cleanup."""
    number = number or received() or signal.SIGINT
    if os.environ.get("RANK", "0") == "0":
        cursor = "\x1b[?25h\n" if os.isatty(2) else ""  # progress bars hide the cursor
        os.write(2, f"{cursor}error: {WORDS[number]}\n".encode())
    os._exit(128 + number)


def leave_quietly(code: int) -> NoReturn:
    """Exit, but suppress the output of exit handlers of libraries and limit their time."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    def hurry() -> None:
        time.sleep(EXIT_SECONDS)
        os._exit(code)

    threading.Thread(target=hurry, daemon=True).start()
    # Not sys.exit: if KeyboardInterrupt has passed through an `exec` in a library, Python would die
    # from the signal instead of exiting with the code.
    try:
        atexit._run_exitfuncs()
    finally:
        os._exit(code)


@contextmanager
def withheld() -> Iterator[None]:
    """Start processes in this block with both signals blocked, until they unblock them.

    A signal to the whole process group is then handled by this process only. Signals that arrive
    during the block are delivered when it ends.
    """
    start_resource_tracker()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_resource_tracker() -> None:
    """Start the resource tracker of `multiprocessing` early.

    Started inside `withheld`, it would unblock the signals (Python 3.11). Its warning about the
    semaphores of a killed process, which it removes, is suppressed.
    """
    from multiprocessing import resource_tracker

    with _tracker:  # downloads may start pools in several threads
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
    """End the process if KeyboardInterrupt did not."""
    while data := os.read(reader, 1):
        number = data[0]
        # Training and evaluation install their own handler and may take longer.
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
    """In a forked child, reset the signal handlers and die with the parent."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        if signal.getsignal(number) is _handle:
            signal.signal(number, signal.SIG_DFL)
    _received.clear()
    # The kernel sends the signal when the thread that forked ends, so only do this for the main
    # thread.
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

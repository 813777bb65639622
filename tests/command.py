"""The real command in a process of its own, as a user without a terminal runs it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

# Most of a short command's time is the import of these. A server imports them once, and each
# command is forked from it; bart itself is imported anew by every command.
IMPORTED = ["numpy", "pydantic", "pyarrow", "rich.console", "torch", "tokenizers", "typer", "yaml"]
TIMEOUT = 300  # seconds


def bart(
    *arguments: object, stdin: str = "", cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`bart ARGUMENTS`: exit code and what it printed. `environment`: variables that it sees."""
    done = run(*arguments, stdin=stdin.encode(), cwd=cwd, **environment)
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def run(
    *arguments: object, stdin: bytes = b"", cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """As `bart`, in bytes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    words = [*map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        for file in files:
            file.write_bytes(stdin if file.name == "stdin" else b"")
        process = context.Process(
            target=_main,
            args=(words, str(cwd or Path.cwd()), dict(os.environ) | environment, files),
        )
        process.start()
        process.join(TIMEOUT)
        code = process.exitcode
        process.kill()
        printed = [file.read_bytes() for file in files[1:]]
    if code is None:
        raise subprocess.TimeoutExpired(words, TIMEOUT, *printed)
    return subprocess.CompletedProcess(words, code, *printed)


def _main(
    words: Sequence[str], cwd: str, environment: Mapping[str, str], files: Sequence[Path]
) -> None:
    """What `python -m bart_cli` does, in a forked process."""
    for number, file in enumerate(files):
        descriptor = os.open(file, os.O_RDWR)
        os.dup2(descriptor, number, inheritable=True)
        os.close(descriptor)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    import bart_cli.__main__ as program

    sys.argv = [program.__file__, *words]
    program.main()

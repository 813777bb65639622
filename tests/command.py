"""Run the real command in a separate process, as a user without a terminal."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

# A short command spends most of its time importing these. A server imports them once, and each
# command is forked from it. Only libraries that read their environment when they are imported,
# like the hub's client, are not here. `python -m bart_cli` itself is run by launched ranks.
IMPORTED = """bart_cli.cli.benchmark bart_cli.cli.data bart_cli.cli.evaluate bart_cli.cli.export
    bart_cli.cli.finetune bart_cli.cli.preprocess bart_cli.cli.pretrain bart_cli.cli.summarize
    bart_cli.data.download.sample bart_cli.data.preprocess.pretrain
    bart_cli.data.preprocess.summarization bart_cli.evaluation.evaluate
    bart_cli.inference.load bart_cli.summarize.summarizer bart_cli.training.finetune
    bart_cli.training.pretrain jinja2 matplotlib.backends.backend_agg matplotlib.figure pandas
    pyarrow.compute pyarrow.parquet pydantic.fields rich.columns rich.markdown rich.traceback
    rouge_score.rouge_scorer tokenizers torch torch._dynamo torch.distributed.fsdp
    torch.distributed.nn.functional torch.utils.tensorboard typer.rich_utils yaml
    tests.frozen""".split()
TIMEOUT = 300  # seconds


class Command:
    """`bart ARGUMENTS`, started in a new session; `signal` reaches all of its processes."""

    def __init__(
        self,
        words: Sequence[str],
        stdin: bytes,
        cwd: Path | None,
        environment: Mapping[str, str],
    ) -> None:
        self.words = words
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name, name) for name in ("stdin", "stdout", "stderr")]
        for file in self._files:
            file.write_bytes(stdin if file.name == "stdin" else b"")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        variables = dict(os.environ) | environment
        self._process = context.Process(
            target=_main, args=(words, str(cwd or Path.cwd()), variables, self._files)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.is_alive()

    def signal(self, number: signal.Signals) -> None:
        os.killpg(self.pid, number)

    def until(self, reached: Callable[[], bool]) -> Command:
        """Wait for a point in its work, and return it; raise with its output if it ends before."""
        deadline = time.monotonic() + TIMEOUT
        while not reached():
            assert self.running, self.wait().stderr.decode()
            assert time.monotonic() < deadline, self.words
            time.sleep(0.002)
        return self

    def wait(self) -> subprocess.CompletedProcess[bytes]:
        try:
            self._process.join(TIMEOUT)
            code = self._process.exitcode
        finally:
            self._process.kill()
        printed = [file.read_bytes() for file in self._files[1:]]
        self._folder.cleanup()
        if code is None:
            raise subprocess.TimeoutExpired([*self.words], TIMEOUT, *printed)
        return subprocess.CompletedProcess([*self.words], code, *printed)


def start(
    *arguments: object, stdin: bytes = b"", cwd: Path | None = None, **environment: str
) -> Command:
    """Start `bart ARGUMENTS`."""
    return Command([*map(str, arguments)], stdin, cwd, environment)


def family(command: Command) -> list[psutil.Process]:
    """Return the descendants of a command."""
    return psutil.Process(command.pid).children(recursive=True)


def assert_gone(processes: list[psutil.Process]) -> None:
    """Wait until processes have ended; kill those that have not, and fail."""
    assert processes
    _, alive = psutil.wait_procs(processes, timeout=30)
    for process in alive:
        process.kill()
    assert alive == []


def start_ranks(processes: int, *arguments: object, **environment: str) -> list[Command]:
    """Start `bart ARGUMENTS` as several ranks, like `srun` on one node."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        start(*arguments, **world, RANK=str(rank), LOCAL_RANK=str(rank), **environment)
        for rank in range(processes)
    ]


def bart(
    *arguments: object, stdin: str = "", cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `bart ARGUMENTS` with these variables; return the exit code and the output."""
    return decoded(run(*arguments, stdin=stdin.encode(), cwd=cwd, **environment))


def python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -c CODE ARGUMENTS` with these variables, forked like a command."""
    return bart("-c", code, *arguments, **environment)


def run(
    *arguments: object, stdin: bytes = b"", cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Do the same as `bart`, with output in bytes."""
    return start(*arguments, stdin=stdin, cwd=cwd, **environment).wait()


def decoded(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[str]:
    """Convert the output to text."""
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def _main(
    words: Sequence[str], cwd: str, environment: Mapping[str, str], files: Sequence[Path]
) -> None:
    """Run `python -m bart_cli` in a forked process."""
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # the system default
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
    if words[:1] == ["-c"]:
        sys.argv = [words[0], *words[2:]]
        exec(words[1], {"__name__": "__main__"})
        return
    import bart_cli.__main__ as program

    sys.argv = [program.__file__, *words]
    program.main()

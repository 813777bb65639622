"""The processes of an arm, seen from the command: start them, ask them, end them.

In: an arm and commands. Out: one answer, that of all its ranks. A process that the kernel killed
for its memory answers `out of memory`; any other death is an error with the process's last words.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from types import TracebackType
from typing import IO

from bart_cli.benchmark.session import Message, Session
from bart_cli.benchmark.spec import ArmSpec
from bart_cli.errors import BartError
from bart_cli.runtime.cores import usable_cores
from bart_cli.runtime.workers import as_child
from bart_cli.runtime.world import World

OUT_OF_MEMORY: Message = {"status": "out of memory"}


class Crew:
    """Processes that live as long as the block."""

    def __init__(self, arm: ArmSpec) -> None:
        self.arm = arm
        self._processes: list[subprocess.Popen[str]] = []
        self._logs: list[IO[str]] = []
        self._answers: queue.Queue[tuple[int, str]] = queue.Queue()

    def __enter__(self) -> Crew:
        port = _free_port()
        for rank in range(self.arm.processes):
            self._start(rank, port)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def ready(self) -> Message:
        """Send the arm and wait until all processes have built their load."""
        return self._collect(self.arm.model_dump_json())

    def ask(self, command: Message) -> Message:
        """One command to all processes, and their answer.

        Raises:
            BartError: a process died of something else than memory, or the command cannot be.
        """
        return self._collect(json.dumps(command))

    def agree(self, flag: bool) -> bool:
        """What all that run this loop agree upon: here it is one alone."""
        return flag

    def stop(self) -> None:
        """End all processes, at once."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        for log in self._logs:
            log.close()
        self._processes, self._logs = [], []

    def _start(self, rank: int, port: int) -> None:
        count = self.arm.processes
        environment = as_child(os.environ | {"TOKENIZERS_PARALLELISM": "false"})
        if count > 1:
            cores = usable_cores()
            environment |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(count),
                "LOCAL_WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": str(max(1, cores // count)),
            }
        log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed by stop()
        self._logs.append(log)
        process = subprocess.Popen(
            [sys.executable, "-m", "bart_cli.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us: we end them
        )
        self._processes.append(process)
        threading.Thread(target=self._listen, args=(rank, process), daemon=True).start()

    def _listen(self, rank: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                self._answers.put((rank, line))
        except ValueError:  # closed by stop()
            return
        self._answers.put((rank, ""))

    def _collect(self, line: str) -> Message:
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # its listener says that it is gone
                process.stdin.write(line + "\n")
                process.stdin.flush()
        messages: dict[int, Message] = {}
        while len(messages) < len(self._processes):
            rank, text = self._answers.get()
            if not text:
                return self._died(rank)
            message = json.loads(text)
            if message["status"] == "wrong":
                raise BartError(message["message"], hint=message["hint"])
            if message["status"] != "ok":
                # The other ranks may wait for this one in a collective, for ever.
                return message
            messages[rank] = message
        whole: Message = messages[0]
        if "seconds" in whole:
            whole["seconds"] = max(message["seconds"] for message in messages.values())
            whole["memory"] = max(message["memory"] for message in messages.values())
        return whole

    def _died(self, rank: int) -> Message:
        if self._processes[rank].wait() == -signal.SIGKILL:
            return OUT_OF_MEMORY
        log = self._logs[rank]
        log.seek(0)
        words = [line.strip() for line in log if line.strip()]
        reason = words[-1] if words else f"exit code {self._processes[rank].returncode}"
        raise BartError(f"a process of the {self.arm.side} arm ended: {reason}")


class Alone:
    """The same for a process that a launcher (srun, torchrun) made one of many: it works itself."""

    def __init__(self, arm: ArmSpec, world: World) -> None:
        self.arm, self._world = arm, world
        self._session: Session | None = None

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None

    def ready(self) -> Message:
        """See Crew."""
        self._session = Session(self.arm, self._world)
        return {"status": "ok"}

    def ask(self, command: Message) -> Message:
        """See Crew. Memory that is short on one rank ends the run: the others cannot go on."""
        assert self._session is not None
        message = self._session.answer(command)
        if message["status"] == "wrong":
            raise BartError(message["message"], hint=message["hint"])
        if message["status"] != "ok" and self._world.size > 1:
            raise BartError(
                f"rank {self._world.rank} ran out of memory", hint="Leave out this batch size."
            )
        return message

    def agree(self, flag: bool) -> bool:
        """See Crew: the clock of one rank would end its loop while the others go on."""
        return self._world.any(flag)


AnyCrew = Crew | Alone


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

"""The run of a benchmark: arm after arm, size after size, each measured again and again.

Arms that are compared have their processes side by side and are measured in turn, so that what
disturbs the machine disturbs both. A size that does not fit the memory leaves a row that says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bart_cli.benchmark.crew import Alone, AnyCrew, Crew
from bart_cli.benchmark.rows import Row, name_of
from bart_cli.benchmark.session import Message
from bart_cli.benchmark.spec import ArmSpec, DataSpec
from bart_cli.progress import Reporter, Task
from bart_cli.runtime.world import World

FEWEST = 3  # measurements of a row, however long they take
CEILINGS = 10  # measurements of the ceiling in a row


@dataclass
class Results:
    """What was measured so far; `interrupted`: Ctrl-C ended the sweep.

    hottest: by trace file, the operators that took most time.
    """

    rows: list[Row] = field(default_factory=list)
    hottest: dict[str, list[Message]] = field(default_factory=dict)
    interrupted: bool = False


def run_sweep(
    groups: Sequence[Sequence[ArmSpec]], out: Path, reporter: Reporter, world: World | None = None
) -> Results:
    """Measure all arms; those of a group in turn.

    Args:
        out: where profiles go.
        world: of a launcher, when this process is one of many; None: processes are started here.

    Raises:
        BartError: an arm cannot run at all.
    """
    results = Results()
    total = sum(len(group[0].sizes) for group in groups)
    with reporter.task("benchmark", total=total, unit="rows") as task:
        try:
            for group in groups:
                for rows in _measure_group(group, out, results, task, world):
                    results.rows += rows
                    task.advance(1)
        except KeyboardInterrupt:
            results.interrupted = True
    return results


def _measure_group(
    group: Sequence[ArmSpec], out: Path, results: Results, task: Task, world: World | None
) -> Iterator[list[Row]]:
    left = list(group[0].sizes)
    while left:
        with _crews(group, world) as crews:
            started = [crew.ready()["status"] for crew in crews]
            while left:
                size = left.pop(0)
                rows = [Row.of(arm, size) for arm in group]
                for row, status in zip(rows, started, strict=True):
                    row.outcome = status
                task.show({name_of(group[0]): _headline(group[0], size)})
                _measure_row(crews, rows)
                whole = all(row.outcome == "ok" for row in rows)
                if whole and group[0].benchmark.profile:
                    _profile(group, crews, out, results)
                yield rows
                if not whole:
                    break  # what ran out of memory is started anew for the sizes that are left


def _measure_row(crews: Sequence[AnyCrew], rows: Sequence[Row]) -> None:
    able = list(zip(crews, rows, strict=True))

    def ask(command: Message) -> None:
        for crew, row in list(able):
            answer = crew.ask(command) if row.outcome == "ok" else {"status": row.outcome}
            row.outcome = answer["status"]
            if row.outcome != "ok":
                able.remove((crew, row))
            elif "seconds" in answer:
                row.add(answer)

    ask({"do": "prepare", "size": rows[0].size})
    settings = crews[0].arm.benchmark
    begin = time.monotonic()
    for number in range(settings.repeats):
        late = number >= FEWEST and time.monotonic() - begin > settings.seconds
        if not able or able[0][0].agree(late):
            break
        ask({"do": "measure", "ceiling": number < CEILINGS})


def _profile(
    group: Sequence[ArmSpec], crews: Sequence[AnyCrew], out: Path, results: Results
) -> None:
    for arm, crew in zip(group, crews, strict=True):
        name = f"trace-{arm.side}-{arm.precision}-{arm.processes}x{arm.load.length}.json"
        answer = crew.ask({"do": "profile", "path": str(out / name)})
        if answer["status"] == "ok":
            results.hottest[name] = answer["operators"]


@contextmanager
def _crews(group: Sequence[ArmSpec], world: World | None) -> Iterator[list[AnyCrew]]:
    with ExitStack() as stack:
        crews: list[AnyCrew] = []
        for arm in group:
            if world is None:
                crews.append(stack.enter_context(Crew(arm)))
            else:
                crews.append(stack.enter_context(Alone(arm, world)))
        yield crews


def _headline(arm: ArmSpec, size: int) -> str:
    if isinstance(arm.load, DataSpec):
        return f"{size} processes"
    processes = "1 process" if arm.processes == 1 else f"{arm.processes} processes"
    return f"{arm.load.length} tokens, batch {size}, {arm.precision}, {processes}"

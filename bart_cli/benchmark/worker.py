"""A process of an arm: `python -m bart_cli.benchmark.worker`, started by `crew`.

The first line of standard input is the arm, every further one a command; an answer goes out for
each. When the input ends, so does the process.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from bart_cli.errors import BartError
from bart_cli.runtime.workers import adopt_parent


def main() -> None:
    """Serve until the parent closes the pipe, or is gone."""
    adopt_parent()  # before torch is imported, which takes a while
    from bart_cli.benchmark.session import Session, is_out_of_memory
    from bart_cli.benchmark.spec import ArmSpec
    from bart_cli.runtime.world import join_world

    # What libraries print must not stand between our answers.
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _die_first()

    def say(message: dict[str, Any]) -> None:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()

    arm = ArmSpec.model_validate_json(sys.stdin.readline())
    with join_world() as world:
        try:
            session = Session(arm, world)
        except BartError as error:
            say({"status": "wrong", "message": error.message, "hint": error.hint})
            return
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            say({"status": "out of memory"})
            return
        say({"status": "ok"})
        for line in sys.stdin:
            say(session.answer(json.loads(line)))


def _die_first() -> None:
    """When the machine runs out of memory, the kernel shall take us, not the user's other work."""
    score = Path("/proc/self/oom_score_adj")
    if score.exists():
        score.write_text("1000")


if __name__ == "__main__":
    main()

"""The real command in a process of its own, as a user without a terminal runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def bart(
    *arguments: object, stdin: str | None = None, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`bart ARGUMENTS`: exit code and what it printed. `environment`: variables that it sees."""
    return subprocess.run(
        [sys.executable, "-m", "bart_cli", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
        timeout=300,
        check=False,
    )

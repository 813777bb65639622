"""Draw docs/terminal.svg: the terminal output of real commands on the result of `make demo`.

python docs/picture.py [DEMO]
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 120
COMMANDS = (
    ("bart data inspect demo/prepared/shards --samples 1", 17),  # lines to show
    ("bart runs list demo", 5),
    ("bart evaluate --model demo/finetuned-pre-trained --data demo/prepared/pairs --beams 6", 6),
    ("bart summarize article.txt --model demo/finetuned-pre-trained", 3),
)


def main(demo: Path) -> None:
    """Run the commands in a temporary folder and write the picture."""
    screen = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), force_terminal=True)  # noqa: PTH123, SIM115
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "demo").symlink_to(demo.resolve())
        with (demo / "sample/summarization/test.jsonl").open(encoding="utf-8") as pairs:
            (Path(folder) / "article.txt").write_text(json.loads(next(pairs))["article"])
        for command, lines in COMMANDS:
            screen.print(Text.assemble(("$ ", "green"), (command, "bold")))
            words = [sys.executable, "-m", "bart_cli", *shlex.split(command)[1:]]
            if words[3] == "evaluate":  # do not write to the demo's folder
                words += ["--out", f"{folder}/scores"]
            environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
            run = subprocess.run(
                words, cwd=folder, env=environment, capture_output=True, text=True, check=True
            )
            for line in run.stdout.splitlines()[:lines]:
                screen.print(Text.from_ansi(line), no_wrap=True)
            screen.print()
    screen.save_svg(str(Path(__file__).with_name("terminal.svg")), title="bart")


if __name__ == "__main__":
    main(Path(*sys.argv[1:] or ["demo"]))

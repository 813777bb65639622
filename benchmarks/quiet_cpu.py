"""Measure most tables of docs/performance.md for this CPU. The machine must be idle.

    python benchmarks/quiet_cpu.py [--minutes 12] [--peers FOLDER]

Compares training with transformers (eager and compiled) and decoding of BART-base and BART-large
with all peers, and measures the floor of a decoding step and the time to the first summary. Each
script runs a few rounds within a time limit. A script that exceeds its limit is ended; its complete
lines are kept.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
LARGE_ARMS = ["transformers fp32", "bart fp32", "bart int8", "ctranslate2 fp32", "ctranslate2 int8"]
BASE_ARMS = [*LARGE_ARMS, "onnxruntime fp32"]
TRAINING = ["--precision", "fp32", "--repeats", "3"]
SHORT = ["--source", "256", "--target", "30", "--repeats", "3"]
LARGE = ["--batches", "1", "4", "--minutes", "2"]
# Share of the time, script, arguments.
STAGES: tuple[tuple[float, str, list[str]], ...] = (
    (0.1, "training_cpu.py", TRAINING),
    (0.36, "inference_cpu.py", [*SHORT, "--minutes", "2.5", "--arms", *BASE_ARMS]),
    (
        0.2,
        "inference_cpu.py",
        ["--model", "bart-large", *LARGE, *SHORT, "--arms", *LARGE_ARMS],
    ),
    (0.08, "floor.py", ["--rounds", "2"]),
    (0.08, "first_summary.py", ["--rounds", "1", "--arms", "bart fp32", "transformers fp32"]),
    (0.18, "training_cpu.py", [*TRAINING, "--compiled"]),  # last: compiling takes minutes
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--peers", type=Path, help="see inference_cpu.py")
    given = parser.parse_args()
    for share, script, arguments in STAGES:
        extra = (
            ["--peers", str(given.peers)] if given.peers and script == "inference_cpu.py" else []
        )
        command = [sys.executable, "-u", str(FOLDER / script), *arguments, *extra]
        print(f"\n## {script} {' '.join(arguments)}\n", flush=True)
        try:
            subprocess.run(command, timeout=share * given.minutes * 60, check=False)
        except subprocess.TimeoutExpired:
            print(f"{script}: out of time", flush=True)


if __name__ == "__main__":
    main()

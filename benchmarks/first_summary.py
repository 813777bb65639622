"""Measure the time to the first summary, and peak memory, of a model stored in bf16.

    python benchmarks/first_summary.py [--model bart-large] [--rounds N] [--tokens N]
        [--arms …]

Compares bart with transformers on random weights. Each arm is a new process that imports, loads,
and summarizes one article with 4 beams; the arms take turns. Prints the seconds from the start of
the process to the summary (median, spread), the peak of its resident memory (including pages of the
weight file), and the stages of bart's last round.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from measure import run, save_random, spread

from bart_cli.config.generation import GenerationConfig
from bart_cli.config.presets import preset_config
from bart_cli.model.bart import Bart

ARTICLE = "The mayor of Glenford opened the new bridge across the river on Monday morning. " * 20
OURS = """
import sys, time
start = time.time()
seconds = {}
def timed(label, call):
    def measured(*given, **named):
        begin = time.time()
        result = call(*given, **named)
        seconds[label] = time.time() - begin
        return result
    return measured
from bart_cli import Summarizer
from bart_cli.inference.engine import Engine
seconds["imports"] = time.time() - start
Engine.__init__ = timed("packing", Engine.__init__)
Engine.encode = timed("encoder", Engine.encode)
load = timed("loading", Summarizer.from_pretrained)
model = load(sys.argv[1], precision=sys.argv[2], device="cpu")
timed("decoder", model.summarize)([sys.argv[3]])
seconds["loading"] -= seconds["packing"]
seconds["decoder"] -= seconds["encoder"]
print(*(f"{label}={value:.2f}" for label, value in seconds.items()))
"""
THEIRS = """
import sys, torch, transformers
dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[sys.argv[2]]
words = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
model = transformers.AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], dtype=dtype).eval()
inputs = words(sys.argv[3], return_tensors="pt", max_length=1024, truncation=True)
words.decode(model.generate(**inputs)[0], skip_special_tokens=True)
"""
# The peak of this process only: the system's peak of a child process includes its parent.
PEAK = """
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
ARMS = {f"{name} {precision}": (code, precision) for precision in ("bf16", "fp32")
        for name, code in (("bart", OURS), ("transformers", THEIRS))}  # fmt: skip


def measure(folder: Path, code: str, precision: str) -> tuple[float, float, str]:
    """Return the seconds, the peak of resident memory in GB, and the seconds of each stage."""
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", code + PEAK, str(folder), precision, ARTICLE],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(process.stderr)
    *stages, peak = process.stdout.split()
    return seconds, int(peak) / 2**20, ", ".join(stages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bart-large", help="preset of the architecture")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=20, help="tokens of the summary")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        torch.manual_seed(0)
        config = preset_config(given.model).model
        length = given.tokens + 1
        generation = GenerationConfig(beams=4, min_length=length, max_length=length)
        save_random(folder, Bart(config).bfloat16(), [ARTICLE], generation)
        found: dict[str, list[tuple[float, float, str]]] = {arm: [] for arm in given.arms}
        for _ in range(given.rounds):
            for arm in given.arms:
                found[arm].append(measure(folder, *ARMS[arm]))
    for arm, rows in found.items():
        seconds, memory, stages = zip(*rows, strict=True)
        print(f"{arm:18} {spread(seconds, '.1f', ' s')}, {max(memory):.2f} GB  {stages[-1]}")


if __name__ == "__main__":
    run(main)

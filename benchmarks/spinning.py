"""Measure how long idle OpenMP threads should spin, on an idle and on a busy machine.

    python benchmarks/spinning.py [--counts default 0 1000 10000] [--rounds N]

Runs a small model (3 + 3 layers of width 256) for each value of GOMP_SPINCOUNT in a separate
process, alone and together with one busy process per core; all of these take turns. Prints seconds
(median, spread) for decoding 4 sources and for 4 training steps, and the ratio to OpenMP's default.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections import defaultdict

from bart_cli.runtime.cores import SPIN_COUNT, usable_cores

PROGRAM = """
import time
import torch
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.inference.engine import Engine
from bart_cli.inference.generate import generate
from bart_cli.model.bart import Bart

torch.manual_seed(0)
config = ModelConfig(
    vocab_size=8000, d_model=256, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4,
    decoder_attention_heads=4, encoder_ffn_dim=1024, decoder_ffn_dim=1024,
)
model = Bart(config)
rows = torch.randint(4, 7990, (8, 128))
settings = GenerationConfig(min_length=30, max_length=30)

def decode():
    generate(Engine(model.eval()), rows[:4].tolist(), settings, batch_size=4)

def train():
    for _ in range(4):
        model.train()
        model.logits(model(rows, None, rows)).float().square().mean().backward()

for task in (decode, train):
    task()
    start = time.perf_counter()
    task()
    print(time.perf_counter() - start)
"""
SPIN = "while True: pass"


def measure(count: str) -> list[float]:
    """Measure the seconds of decoding and training in a new process."""
    environment = dict(os.environ)
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        environment.pop(name, None)
    if count != "default":
        environment["GOMP_SPINCOUNT"] = count
    printed = subprocess.check_output([sys.executable, "-c", PROGRAM], env=environment, text=True)
    return [float(line) for line in printed.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", nargs="+", default=["default", "0", SPIN_COUNT, "10000"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{usable_cores()} cores, {options.rounds} rounds")
    for busy in (0, usable_cores()):
        neighbors = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(busy)]
        seconds = defaultdict(list)
        try:
            for _ in range(options.rounds):
                for count in options.counts:
                    seconds[count].append(measure(count))
        finally:
            for neighbor in neighbors:
                neighbor.kill()
        for number, task in enumerate(("decoding", "training")):
            for count in options.counts:
                own = [row[number] for row in seconds[count]]
                base = [row[number] for row in seconds[options.counts[0]]]
                ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
                print(
                    f"{busy} busy neighbors, {task}, GOMP_SPINCOUNT {count:>8}: "
                    f"{statistics.median(own):7.2f} s ({min(own):.2f} - {max(own):.2f}), "
                    f"{ratio:.2f} x {options.counts[0]}"
                )


if __name__ == "__main__":
    main()

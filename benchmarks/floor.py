"""Compare a decoding step for one article with the lower bound set by memory bandwidth.

    python benchmarks/floor.py [--model bart-base bart-large] [--precision fp32 bf16 int8]

At batch 1, a step reads every weight of the decoder and the caches once, for 4 rows. Prints the
number of bytes, the memory bandwidth (measured between the steps, in the same process), the time to
read these bytes (the floor), the median time of a whole step of beam search, and the floor as a
share of it. Uses random weights, one article of 512 tokens and 60 steps.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time

import torch
from measure import run

from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.config.presets import preset_config
from bart_cli.inference import running
from bart_cli.inference.decoding import Decoding
from bart_cli.inference.engine import Engine
from bart_cli.inference.generate import generate
from bart_cli.model.bart import Bart
from bart_cli.runtime.memory import keep_freed_memory
from bart_cli.runtime.precision import onednn_has_bf16

BEAMS = 4
BYTES = {"fp32": 4, "bf16": 2, "int8": 1}


def step_bytes(
    config: ModelConfig, precision: str, cache_bytes: int, source: int, steps: int
) -> int:
    """Count the bytes of weights, keys and values that a step reads in the middle of a summary."""
    d, ffn = config.d_model, config.decoder_ffn_dim
    layer = 6 * d * d + 2 * d * ffn  # self-attention, cross-attention (q, out), fc1, fc2
    weights = config.decoder_layers * layer + config.vocab_size * d
    caches = config.decoder_layers * 2 * d * (source + BEAMS * steps // 2)
    return weights * BYTES[precision] + caches * cache_bytes


def bandwidth(memory: torch.Tensor) -> float:
    """Measure the bytes per second of a matrix-vector product with a matrix beyond the caches."""
    vector = torch.ones(memory.shape[1])
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        memory @ vector
        times.append(time.perf_counter() - begin)
    return memory.numel() * memory.element_size() / min(times)


def measure(preset: str, precision: str, source: int, steps: int, rounds: int) -> str:
    """Measure one model in one precision, and return its row."""
    torch.manual_seed(0)
    config = preset_config(preset).model.model_copy(update={"init_std": 0.05})
    model = Bart(config).eval()
    engine = Engine(model.bfloat16() if precision == "bf16" else model, int8=precision == "int8")
    del model
    article = [0, *torch.randint(4, config.vocab_size - 1, (source - 2,)).tolist(), 2]
    generation = GenerationConfig(
        beams=BEAMS, min_length=steps + 1, max_length=steps + 1, forced_bos=False, forced_eos=False
    )
    begins: list[float] = []

    class Timed(Decoding):
        def step(self, tokens_R: torch.Tensor) -> torch.Tensor:
            begins.append(time.perf_counter())
            return super().step(tokens_R)

    running.Decoding = Timed  # type: ignore[misc]
    memory = torch.ones(2**17, 1024)  # 512 MB
    rates, times = [], []
    for _ in range(rounds):
        rates.append(bandwidth(memory))
        begins.clear()
        generate(engine, [article], generation)
        times += [after - before for before, after in itertools.pairwise(begins)]
    bytes_read = step_bytes(config, precision, engine.memory_dtype.itemsize, source, steps)
    rate, middle = max(rates), statistics.median(times)
    floor = bytes_read / rate
    return (
        f"| {preset} | {precision} | {bytes_read / 1e6:.0f} MB | {rate / 1e9:.1f} GB/s "
        f"| {floor * 1e3:.1f} ms | {middle * 1e3:.1f} ms | {floor / middle:.0%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["bart-base", "bart-large"])
    parser.add_argument("--precision", nargs="+", choices=BYTES, default=list(BYTES))
    parser.add_argument("--source", type=int, default=512)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    keep_freed_memory()  # like `bart summarize`
    print(f"{torch.get_num_threads()} threads, batch 1, {BEAMS} beams")
    print("| model | precision | read a step | bandwidth | floor | step | share |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for preset in given.model:
        for precision in given.precision:
            if precision == "bf16" and not onednn_has_bf16():
                print(f"| {preset} | bf16 | this CPU has no bf16 instructions | | | | |")
                continue
            print(measure(preset, precision, given.source, given.steps, given.rounds), flush=True)


if __name__ == "__main__":
    run(main)

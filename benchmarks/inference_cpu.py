"""Compare beam search on this CPU with transformers, CTranslate2 and ONNX Runtime.

    pip install ctranslate2
    python benchmarks/inference_cpu.py [--model bart-large] [--batches 1 4 16] [--arms …]

ONNX Runtime is used through optimum, which requires an older transformers. Install its packages in
a separate folder, which only its process uses:

    pip install --no-deps --target PEERS optimum optimum-onnx 'transformers<4.58' \\
        'tokenizers<0.23' 'huggingface_hub<1' onnxruntime onnx protobuf flatbuffers ml_dtypes
    python benchmarks/inference_cpu.py --peers PEERS

Random articles of 512 tokens, 60 generated tokens (hypotheses cannot end earlier), 4 beams, no
repeated 3-gram, length penalty 2, and the same weights in all arms. Each arm runs in a separate
process; the arms take turns for as many rounds as --repeats and --minutes allow. Prints seconds per
batch (median, spread), articles per second, the speed relative to the first arm (median and spread
of the ratio per round), and the number of outputs with the same tokens as the first arm.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from measure import ratios, run, spread, start_arm

from bart_cli.benchmark.loads import twin
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.config.presets import preset_config
from bart_cli.errors import BartError
from bart_cli.model.bart import Bart

SOURCE, TARGET, BEAMS = 512, 60, 4
ARMS = (
    "transformers fp32",
    "compiled fp32",
    "onnxruntime fp32",
    "ctranslate2 fp32",
    "bart fp32",
    "transformers bf16",
    "bart bf16",
    "ctranslate2 int8",
    "bart int8",
)
Rows = list[list[int]]


def architecture() -> ModelConfig:
    return preset_config(os.environ["BENCHMARK_MODEL"]).model


def target() -> int:
    return int(os.environ["BENCHMARK_TARGET"])


def make_model() -> Bart:
    """Make random weights, equal in every process, with sharp distributions to avoid ties."""
    torch.manual_seed(0)
    return Bart(architecture().model_copy(update={"init_std": 0.05})).eval()


def articles(count: int) -> Rows:
    torch.manual_seed(count)
    length = int(os.environ["BENCHMARK_SOURCE"])
    words = torch.randint(4, architecture().vocab_size - 1, (count, length - 2)).tolist()
    return [[0, *row, 2] for row in words]


def our_decoder(precision: str) -> Callable[[Rows], Rows]:
    from bart_cli.inference.engine import Engine
    from bart_cli.inference.generate import generate
    from bart_cli.runtime.memory import keep_freed_memory

    keep_freed_memory()  # like `bart summarize` and `bart evaluate`
    model = make_model()
    engine = Engine(model.bfloat16() if precision == "bf16" else model, int8=precision == "int8")
    length = target() + 1
    generation = GenerationConfig(
        beams=BEAMS, min_length=length, max_length=length, forced_bos=False, forced_eos=False
    )

    def decode(rows: Rows) -> Rows:
        found = generate(engine, rows, generation, batch_size=len(rows))
        return [hypotheses[0].tokens for hypotheses in found]

    return decode


def their_decoder(precision: str) -> Callable[[Rows], Rows]:
    model = twin(make_model()).eval()
    return generate_with(model.bfloat16() if precision == "bf16" else model)


def compiled_decoder(precision: str) -> Callable[[Rows], Rows]:
    """transformers with a compiled forward; each batch size compiles in a run that is not timed."""
    model = twin(make_model()).eval()
    model.forward = torch.compile(model.forward, dynamic=True)
    return generate_with(model)


def onnx_decoder(precision: str) -> Callable[[Rows], Rows]:
    """ONNX Runtime through optimum, exported from the same weights."""
    sys.path.insert(0, os.environ["BENCHMARK_PEERS"])
    from optimum.onnxruntime import ORTModelForSeq2SeqLM

    with tempfile.TemporaryDirectory() as folder:
        twin(make_model()).save_pretrained(folder)
        return generate_with(ORTModelForSeq2SeqLM.from_pretrained(folder, export=True))


def generate_with(model: torch.nn.Module) -> Callable[[Rows], Rows]:
    def decode(rows: Rows) -> Rows:
        ids = torch.tensor(rows)
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            num_beams=BEAMS,
            min_length=target() + 1,
            max_length=target() + 1,
            length_penalty=2.0,
            no_repeat_ngram_size=3,
            early_stopping=True,
            forced_bos_token_id=None,
            forced_eos_token_id=None,
        )
        return output[:, 1:].tolist()

    return decode


def ctranslate2_decoder(precision: str) -> Callable[[Rows], Rows]:
    import ctranslate2
    from ctranslate2.converters.transformers import BartLoader

    loader = BartLoader()
    model = twin(make_model()).eval()
    model.config.normalize_before = False
    spec = loader.get_model_spec(model)
    names = [str(i) for i in range(model.config.vocab_size)]
    loader.set_vocabulary(spec, names)
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "0", "2", "3"
    spec.config.decoder_start_token = "2"
    spec.validate()
    spec.optimize(quantization="int8" if precision == "int8" else None)
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        kind = "int8" if precision == "int8" else "float32"
        translator = ctranslate2.Translator(
            folder, device="cpu", compute_type=kind, intra_threads=torch.get_num_threads()
        )

    def decode(rows: Rows) -> Rows:
        results = translator.translate_batch(
            [[str(i) for i in row] for row in rows],
            beam_size=BEAMS,
            length_penalty=2.0,
            no_repeat_ngram_size=3,
            min_decoding_length=target(),
            max_decoding_length=target(),
        )
        return [[int(name) for name in result.hypotheses[0]] for result in results]

    return decode


DECODERS = {
    "bart": our_decoder,
    "transformers": their_decoder,
    "compiled": compiled_decoder,
    "onnxruntime": onnx_decoder,
    "ctranslate2": ctranslate2_decoder,
}


def serve(arm: str, pipe: Connection) -> None:
    """An arm in a separate process: receives batch sizes and sends seconds and tokens."""
    engine, precision = arm.split()
    try:
        decode = DECODERS[engine](precision)
        decode(articles(1))
    except Exception as error:  # the peer is not installed or cannot run this
        pipe.send(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        return
    pipe.send(None)
    warm = {1}
    with torch.inference_mode():
        while size := pipe.recv():
            rows = articles(size)
            if engine == "compiled" and size not in warm:
                decode(rows)
                warm.add(size)
            begin = time.perf_counter()
            found = decode(rows)
            pipe.send((time.perf_counter() - begin, found))


def start(arms: list[str]) -> dict[str, Connection]:
    pipes = {}
    for arm in arms:
        pipe = start_arm(serve, arm)
        if problem := pipe.recv():
            print(f"{arm} does not run: {problem}\n")
        else:
            pipes[arm] = pipe
    if not pipes:
        raise BartError("no arm runs")
    return pipes


def measure(
    pipes: dict[str, Connection], size: int, repeats: int, seconds_left: float
) -> Iterator[str]:
    """Measure one batch size in at least one round, and return its rows."""
    seconds: dict[str, list[float]] = {arm: [] for arm in pipes}
    tokens: dict[str, Rows] = {}
    start = time.monotonic()
    for number in range(1, repeats + 1):
        for arm, pipe in pipes.items():
            pipe.send(size)
            taken, tokens[arm] = pipe.recv()
            seconds[arm].append(taken)
        used = time.monotonic() - start
        if used / number * (number + 1) > seconds_left:
            break
    base = next(iter(pipes))
    for arm, values in seconds.items():
        same = sum(a == b for a, b in zip(tokens[arm], tokens[base], strict=True))
        yield (
            f"| {size} | {arm} | {spread(values, '.3f')} | {size / statistics.median(values):.2f} "
            f"| {spread(ratios(seconds[base], values))} | {same}/{size} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="bart-base", help="preset of the architecture")
    parser.add_argument("--source", type=int, default=SOURCE, help="tokens of an article")
    parser.add_argument("--target", type=int, default=TARGET, help="tokens of a summary")
    parser.add_argument("--minutes", type=float, default=60.0, help="for all rounds together")
    parser.add_argument("--peers", type=Path, help="folder with the packages of optimum")
    options = parser.parse_args()
    for name in ("model", "source", "target", "peers"):  # read in the processes of the arms
        os.environ[f"BENCHMARK_{name.upper()}"] = str(getattr(options, name))
    if options.peers is None and "onnxruntime fp32" in options.arms:
        options.arms.remove("onnxruntime fp32")
        print("onnxruntime fp32 is left out: no --peers\n")
    begin = time.monotonic()
    pipes = start(options.arms)
    print(f"{options.model}, {options.source} + {options.target} tokens, {BEAMS} beams,", end=" ")
    print(
        f"{torch.get_num_threads()} threads; ratios and equal outputs against {next(iter(pipes))}"
    )
    print("| batch | arm | s a batch | articles/s | times as fast | same |")
    print("|---:|---|---:|---:|---:|---:|")
    work = sum(options.batches)
    for size in options.batches:
        left = options.minutes * 60 - (time.monotonic() - begin)
        for line in measure(pipes, size, options.repeats, left * size / work):
            print(line, flush=True)
        work -= size
    for pipe in pipes.values():
        pipe.send(None)


if __name__ == "__main__":
    run(main)

"""Every script of `benchmarks/` runs from beginning to end, on tiny models and few texts."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from pathlib import Path

import pytest

from bart_cli.model.bart import Bart
from bart_cli.tokenizer import Tokenizer
from tests.command import bart, python
from tests.conftest import save_model, tiny_model_config

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
ARMS = ("inference_cpu.py", "memory.py", "pairs.py", "training_cpu.py")
# Their arms are processes that import torch once more; here, they are threads. The pipe of a thread
# does not close when it fails.
RUN = f"""
import multiprocessing.dummy, os, runpy, sys, threading, traceback
def fail(error):
    traceback.print_exception(error.exc_value)
    os._exit(1)
threading.excepthook = fail
sys.argv = sys.argv[1:]
folder, _, name = sys.argv[0].rpartition("/")
sys.path.insert(0, folder)
if name in {ARMS}:
    multiprocessing.get_context = lambda kind: multiprocessing.dummy
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# A script of quiet_cpu.py ends when it has parsed its arguments.
PARSE = """
import argparse, pathlib, runpy, subprocess, sys
parse = argparse.ArgumentParser.parse_args
def end(parser):
    parse(parser)
    raise SystemExit
def start(command, **options):
    argparse.ArgumentParser.parse_args, sys.argv = end, command[2:]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as error:
        print("arguments accepted" if error.code is None else error.code)
sys.path.insert(0, str(pathlib.Path(sys.argv[1]).parent))
subprocess.run = start
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TINY = "tiny-cpu-model"
TEXTS = [f"Mayor {i} opened a bridge. It rained in town {i}. All came anyway." for i in range(40)]


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return python(RUN, SCRIPTS / name, *arguments)


def output(name: str, *arguments: object) -> str:
    """Run a script, and return its output."""
    done = run(name, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one document per line, after its id."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = [f"{number} {text}\n" for number, text in enumerate(TEXTS * 9)]
    (folder / "text.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def shards(corpus: Path) -> Path:
    """Shards and their tokenizer."""
    words = corpus.parent / "words"
    done = bart("tokenizer", "train", corpus, "--ids", "--vocab-size", 400, "--out", words)
    assert done.returncode == 0, done.stderr
    folder = corpus.parent / "shards"
    settings = ["--target-length", 64, "--shards", 2, "--workers", 1]
    done = bart(
        *("preprocess", "pretrain", "--input", f"tiny={corpus}"),
        *("--tokenizer", words, *settings, "--out", folder),
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, Bart(tiny_model_config()), tiny_tokenizer)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    rows = [{"article": text, "summary": text.partition(".")[0]} for text in TEXTS]
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def test_training_is_compared_on_full_and_real_batches(pairs: Path, shards: Path) -> None:
    real = ["--pairs", pairs, "--tokenizer", shards / "tokenizer", "--batches", 2]
    found = output("training_cpu.py", "--model", TINY, "--repeats", 1, *real)
    assert len(re.findall(r"bart is [\d.]+ times as fast", found)) == 2


def test_decoding_is_compared_and_gives_the_same_tokens() -> None:
    sizes = ["--batches", 2, "--source", 16, "--target", 5, "--repeats", 1]
    arms = ["--arms", "transformers fp32", "bart fp32", "bart int8"]
    rows = output("inference_cpu.py", "--model", TINY, *sizes, *arms).splitlines()[-3:]
    assert [row.split(" | ")[1] for row in rows] == arms[1:]
    assert rows[1].endswith("| 2/2 |")


def test_a_decoding_step_is_compared_with_its_floor() -> None:
    sizes = ["--source", 16, "--steps", 3, "--rounds", 1]
    found = output("floor.py", "--model", TINY, "--precision", "fp32", "int8", *sizes)
    assert re.findall(r"\| (\w+) \| \d+ MB", found) == ["fp32", "int8"]


def test_the_first_summary_is_measured_by_stage() -> None:
    sizes = ["--rounds", 1, "--tokens", 3]
    found = output("first_summary.py", "--model", TINY, *sizes, "--arms", "bart fp32")
    assert re.findall(r"(\w+)=", found) == ["imports", "packing", "loading", "encoder", "decoder"]


def test_precisions_are_compared(pairs: Path, model: Path) -> None:
    found = output("precision.py", "--model", model, "--data", pairs, "--limit", 4, "--beams", 2)
    assert re.findall(r"\| (\w+) \| [\d.]+%", found) == ["fp32", "bf16", "int8"]


def test_denoising_is_compared(shards: Path) -> None:
    found = output("denoising.py", shards / "64" / "train", "--samples", 64, "--repeats", 1)
    assert re.findall(r"(.+): .* samples/s", found) == ["per sample", "bart"]


def test_preprocessing_is_compared(corpus: Path, shards: Path) -> None:
    pytest.importorskip("nltk")
    sizes = ["--megabytes", 0.005, "--repeats", 1]
    found = output("preprocessing.py", corpus, shards / "tokenizer", *sizes)
    assert re.findall(r"(\w+): .* times LDDL", found) == ["lddl", "new", "cached", "cold"]


def test_loaders_are_measured(tmp_path: Path) -> None:
    sizes = ["--shards", 20, "--samples", 100, "--epochs", 1, "--ranks", 2]
    assert "2 ranks: first batch" in output("loader.py", *sizes)
    found = output("pairs.py", tmp_path / "pairs", "--pairs", 64, "--processes", 1, "--steps", 1)
    assert found.startswith("64 pairs")


def test_estimates_of_memory_are_compared() -> None:
    assert len(output("memory.py", "--cases", 1, "--micro-batch", 8).splitlines()) == 3


def test_extractors_are_compared(tmp_path: Path) -> None:
    body = " ".join(TEXTS)
    page = f"<html><body><article><p>{body}</p></article></body></html>"
    truth = {f"page{i}": {"url": "https://a.test/", "articleBody": body} for i in range(8)}
    for name in truth:
        (tmp_path / f"{name}.html.gz").write_bytes(gzip.compress(page.encode()))
    (tmp_path / "ground-truth.json").write_text(json.dumps(truth))
    found = output("extractors.py", tmp_path)
    assert set(re.findall(r"\| ([\w-]+) \| [01] \| 1\.000", found)) >= {"trafilatura"}


def with_serving(code: str) -> subprocess.CompletedProcess[str]:
    return python(f"import sys\nsys.path.append({str(SCRIPTS)!r})\nimport serving\n{code}")


def test_no_percentile_exceeds_the_slowest_request() -> None:
    done = with_serving("""import contextlib
serving.running = lambda *_: contextlib.nullcontext()
serving.measure = lambda *_: (2.0, [1.0, 3.0], ["a", "b"])
serving.compare("model", ["x", "y"], [1], 1)""")
    assert "   2.000   2.900   2.980  1.00 x\n" in done.stdout, done.stderr


def test_a_server_that_ends_early_is_reported() -> None:
    done = with_serving("""def start():
    with serving.running([sys.executable, "-c", ""], serving.free_port()):
        pass
serving.run(start)""")
    assert done.stderr == "error: a server has ended\n"


def test_the_server_withstands_hostile_clients(model: Path) -> None:
    found = output("serving.py", model, "--hostile", 12)
    assert "12 requests" in found
    assert re.search(r"\d+  valid", found)


def test_all_of_them_accept_the_arguments_of_quiet_cpu() -> None:
    done = python(PARSE, SCRIPTS / "quiet_cpu.py")
    assert done.stdout.count("arguments accepted") == done.stdout.count("##") == 6, done.stderr


def test_wrong_input_is_one_line(tmp_path: Path) -> None:
    done = run("denoising.py", tmp_path / "none")
    assert done.returncode == 1
    assert re.fullmatch("error: no .*\n", done.stderr)
    done = run("memory.py", "--cases", 99)
    assert done.returncode == 2
    assert "invalid choice: 99" in done.stderr

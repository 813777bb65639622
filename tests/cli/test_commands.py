"""The real command: its output and exit codes."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path

import pytest

from bart_cli.cli.app import COMMANDS
from bart_cli.tokenizer import Tokenizer
from tests.command import IMPORTED
from tests.command import bart as run_bart
from tests.conftest import SENTENCES

BART = [sys.executable, "-m", "bart_cli"]
TO = "--tokenizer {}/tokenizer --out {}/o"
OFFLINE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_TELEMETRY": "1"}


bart = partial(run_bart, **OFFLINE, OMP_NUM_THREADS="1", COLUMNS="120")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    """Write a tokenizer, a corpus and pairs."""
    folder = tmp_path_factory.mktemp("cli")
    tiny_tokenizer.save(folder / "tokenizer")
    (folder / "empty.txt").touch()
    (folder / "latin1.txt").write_bytes("Café".encode("latin1"))
    (folder / "text.txt").write_text("\n\n".join(" ".join(SENTENCES) for _ in range(30)))
    rows = [{"article": " ".join(SENTENCES), "summary": SENTENCES[0]} for _ in range(4)]
    (folder / "pairs").mkdir()
    (folder / "pairs" / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def test_the_modules_of_the_server_exist() -> None:
    """It ignores those that do not, and every command imports its modules itself again."""
    for name in IMPORTED:
        assert importlib.util.find_spec(name) is not None, name


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_every_command(arguments: tuple[str, ...]) -> None:
    result = bart(*arguments)
    assert result.returncode == 0
    for name in ("download", "preprocess", "pretrain", "finetune", "evaluate", "summarize"):
        assert name in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "pretrain",
        "finetune",
        "evaluate",
        "summarize",
        "presets list",
        "presets diff",
        "preprocess pretrain",
        "preprocess summarization",
        "tokenizer train",
        "download sample",
        "download common-crawl",
        "download wikipedia",
        "download openwebtext",
        "download cnn-dm",
        "download xsum",
        "data inspect",
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    result = bart(*command.split(), "--help")
    assert result.returncode == 0, result.stderr
    assert "Usage: bart" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_in_the_list_exists(command: str) -> None:
    assert bart(command, "--help").returncode == 0


def test_the_version_is_printed() -> None:
    assert bart("--version").stdout.startswith("bart 0.")


def test_presets_are_listed_shown_and_compared() -> None:
    names = {row["name"] for row in json.loads(bart("presets", "list", "--json").stdout)}
    assert {"dgxa100-40node-phase1", "xsum-dgxa100-8gpu-tf32", "bart-large", "tiny-cpu"} <= names
    shown = bart("presets", "show", "dgxa100-40node-phase1").stdout
    assert "global_batch: 64000" in shown
    changed = json.loads(
        bart("presets", "diff", "dgxa100-1node-phase1", "dgxa100-1node-phase2", "--json").stdout
    )
    assert changed["data.sequence_length"] == [128, 512]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("summarise x", 2, ["No such command 'summarise'"]),
        ("pretrain --stepz 3", 2, ["--stepz", "--help"]),
        ("pretrain --preset tiny-cpo", 2, ["no preset 'tiny-cpo'", "'tiny-cpu'"]),
        ("presets show nothing", 2, ["no preset 'nothing'"]),
        ("pretrain --preset tiny-cpu", 2, ["no data", "--data"]),
        ("pretrain --preset tiny-cpu --data {}/none", 2, ["no such folder"]),
        ("pretrain --preset tiny-cpu --data {}/text.txt", 2, ["is a file; expected a folder"]),
        ("pretrain --preset tiny-cpu --set training=3", 2, ["training is a section", "KEY=VALUE"]),
        ("benchmark data --data {}/none --out {}/b", 2, ["no such file or folder"]),
        ("pretrain --set training.max_stepz=3", 2, ["'training.max_steps'"]),
        ("pretrain --max-steps 0", 2, ["training.max_steps=0", "greater than or equal to 1"]),
        ("pretrain --precision int3", 2, ["training.precision=int3", "'bf16'"]),
        ("pretrain --config {}/latin1.txt", 2, ["not UTF-8", "latin1.txt"]),
        ("finetune --data {}/pairs", 2, ["no tokenizer", "--init-from"]),
        ("finetune --preset tiny-cpu", 2, ["is for `bart pretrain`", "tiny-cpu-finetune"]),
        ("evaluate --beams 6", 2, ["no model", "--model"]),
        ("evaluate --model {}/pairs --data {}/pairs", 2, ["no model in", "config.json"]),
        ("summarize {}/none.txt", 2, ["no such file", "none.txt"]),
        ("summarize {}/empty.txt", 2, ["empty.txt is empty"]),
        ("summarize /dev/zero", 2, ["/dev/zero is a device; expected a file or a pipe"]),
        ("pretrain --config /dev/zero", 2, ["/dev/zero is a pipe or device", "to a file first"]),
        ("summarize {}/latin1.txt", 2, ["latin1.txt is not UTF-8", "iconv"]),
        ("summarize {}/text.txt --model {}/pairs", 2, ["no model in", "config.json"]),
        ("summarize {}/text.txt --model {}/none", 2, ["no such model"]),
        ("summarize {}/text.txt", 1, ["facebook/bart-large-cnn", "HF_ENDPOINT"]),
        ("evaluate --early-stopping maybe", 2, ["=maybe", "true, false or 'never'"]),
        ("summarize {}/text.txt --device gpu", 2, ["device=gpu", "cuda:N"]),
        ("summarize {}/text.txt --device cuda:99", 2, ["this machine has", "--device cpu"]),
        ("summarize {}/text.txt --precision fp16 --device cpu", 2, ["fp16 needs", "fp32 or bf16"]),
        ("tokenizer train {}/text.txt --vocab-size 9 --out {}/t", 2, ["261"]),
        (f"preprocess pretrain --text {{}}/empty.txt {TO}", 2, ["is empty"]),
        (f"preprocess pretrain --text {{}}/latin1.txt {TO}", 2, ["not UTF-8", "position 3"]),
        (f"preprocess pretrain {TO}", 2, ["--input"]),
        (f"preprocess pretrain --input wiki {TO}", 2, ["expected NAME=PATH"]),
        (f"preprocess pretrain --text {{}}/text.txt --workers 1000000 {TO}", 2, ["--workers"]),
        (f"preprocess summarization --input {{}}/none {TO}", 2, ["no such file or folder"]),
        ("download sample --out {}/s --megabytes -1", 2, ["--megabytes"]),
    ],
)
def test_bad_input_gets_a_helpful_line_and_the_right_exit_code(
    data: Path, arguments: str, code: int, words: list[str]
) -> None:
    result = bart(*arguments.replace("{}", str(data)).split())
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert "error:" in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


def test_a_tokenizer_is_trained_from_text(data: Path, tmp_path: Path) -> None:
    result = bart(
        "tokenizer", "train", data / "text.txt", "--vocab-size", 300, "--out", tmp_path / "t"
    )
    assert result.returncode == 0, result.stderr
    assert Tokenizer.from_pretrained(tmp_path / "t").vocab_size == 300

"""`bart benchmark` through the real command: tables on standard output, files in --out."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bart_cli.config.generation import GenerationConfig
from bart_cli.model.bart import Bart
from bart_cli.model.formats import save_model
from bart_cli.tokenizer import Tokenizer
from tests.cli.test_commands import bart
from tests.conftest import SENTENCES, tiny_model_config

TINY = "model.d_model=32 model.encoder_layers=1 model.decoder_layers=1 model.vocab_size=400".split()
SMALL = [word for key in TINY for word in ("--set", key)]
QUICK = ("--repeats", 3, "--warmup", 1, "--seed", 3)


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_training_is_compared_with_transformers_and_a_batch_too_large_fails_only_its_row(
    tmp_path: Path,
) -> None:
    result = bart(
        *("benchmark", "train", "--preset", "tiny-cpu", "--precision", "fp32", "--processes", 1),
        *("--batch-size", "2,1000000000", "--compare", "transformers", "--profile"),
        *(*SMALL, *QUICK, "--out", tmp_path),
    )
    assert result.returncode == 0, result.stderr
    for words in ("Throughput - fp32", "Weak scaling - fp32", "measured in turn", "out of memory"):
        assert words in result.stdout
    rows = lines(tmp_path)
    assert [(r["side"], r["size"], r["outcome"]) for r in rows] == [
        ("bart", 2, "ok"),
        ("transformers", 2, "ok"),
        ("bart", 1000000000, "out of memory"),
        ("transformers", 1000000000, "out of memory"),
    ]
    assert rows[0]["tokens"] == rows[1]["tokens"]  # the same batches
    assert 0 < rows[0]["mfu_measured"] < 1  # type: ignore[operator]
    assert "Hottest operators" in result.stdout
    trace = json.loads((tmp_path / "trace-bart-fp32-1x128.json").read_text())
    assert any("aten::" in event.get("name", "") for event in trace["traceEvents"])
    assert (tmp_path / "results.png").is_file()
    assert "| out of memory |" in (tmp_path / "results.md").read_text()


def test_two_processes_take_part_in_one_step(tmp_path: Path) -> None:
    result = bart(
        *("benchmark", "train", "--preset", "tiny-cpu-finetune", "--precision", "fp32"),
        *("--processes", 2, "--batch-size", 2, *SMALL, *QUICK, "--out", tmp_path, "--json"),
    )
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(result.stdout)
    assert row["items"] == [4, 4, 4]
    assert row["name"] == "Fine-tuning"


def test_decoding_is_measured_by_batch_size(tmp_path: Path) -> None:
    result = bart(
        *("benchmark", "inference", "--preset", "tiny-cpu", "--batch-size", "1,3", "--beams", 2),
        *("--max-length", 8, "--compare", "transformers", *SMALL, *QUICK, "--out", tmp_path),
    )
    assert result.returncode == 0, result.stderr
    for words in ("Latency 99%", "Inference, FP32, 1 process:"):
        assert words in result.stdout
    rows = lines(tmp_path)
    assert [(r["side"], r["size"]) for r in rows] == [
        ("bart", 1),
        ("transformers", 1),
        ("bart", 3),
        ("transformers", 3),
    ]
    assert rows[0]["tokens"] == rows[1]["tokens"]
    assert set(rows[2]["latency"]) == {"mean", "50%", "90%", "95%", "99%"}  # type: ignore[call-overload]


def test_the_data_pipeline_is_measured(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    tiny_tokenizer.save(tmp_path / "tokenizer")
    corpus, pairs = tmp_path / "corpus", tmp_path / "pairs"
    corpus.mkdir()
    pairs.mkdir()
    text = " ".join(SENTENCES * 4)
    (corpus / "a.txt").write_text("".join(f"x-{i} {text}\n" for i in range(200)))
    row = json.dumps({"article": text, "summary": SENTENCES[0]}) + "\n"
    (pairs / "train.jsonl").write_text(row * 80)
    result = bart(
        *("benchmark", "data", "--input", corpus, "--data", pairs, "--workers", "1"),
        *("--tokenizer", tmp_path / "tokenizer", *QUICK, "--out", tmp_path / "out"),
    )
    assert result.returncode == 0, result.stderr
    rows = {row["name"]: row for row in lines(tmp_path / "out")}
    assert list(rows) == ["preprocess", "denoise", "shards", "pairs"]
    assert rows["preprocess"]["items"] == [(corpus / "a.txt").stat().st_size] * 3
    assert rows["denoise"]["items"] == [64 * 16] * 3


def test_a_trained_model_and_real_pairs_can_replace_random_ones(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    row = {"article": " ".join(SENTENCES[:2]), "summary": SENTENCES[0]}
    for split in ("train", "test"):
        (pairs / f"{split}.jsonl").write_text((json.dumps(row) + "\n") * 6)
    tiny_tokenizer.save(pairs / "tokenizer")
    model = Bart(tiny_model_config(vocab_size=tiny_tokenizer.vocab_size, init_std=0.3))
    save_model(tmp_path / "model", model, tiny_tokenizer, GenerationConfig(beams=2, max_length=9))
    decoded = bart(
        *("benchmark", "inference", "--model", tmp_path / "model", "--data", pairs, "--json"),
        *("--batch-size", "2,7", "--precision", "fp32", *QUICK, "--out", tmp_path / "i"),
    )
    assert decoded.returncode == 1
    assert "--batch-size 7" in decoded.stderr
    assert "6 test articles" in decoded.stderr
    decoded = bart(
        *("benchmark", "inference", "--model", tmp_path / "model", "--data", pairs, "--json"),
        *("--batch-size", 2, "--precision", "fp32", *QUICK, "--out", tmp_path / "i"),
    )
    assert decoded.returncode == 0, decoded.stderr
    length = len(tiny_tokenizer.encode_batch([row["article"]])[0])
    tokens = [t - 2 * length for t in json.loads(decoded.stdout)[0]["tokens"]]
    assert all(2 <= count <= 2 * 8 for count in tokens)  # the saved settings
    trained = bart(
        *("benchmark", "train", "--preset", "tiny-cpu-finetune", "--data", pairs, "--json"),
        *("--batch-size", 2, "--precision", "fp32", "--processes", 1, *SMALL, *QUICK),
        *("--out", tmp_path / "t"),
    )
    assert trained.returncode == 0, trained.stderr
    target = len(tiny_tokenizer.encode_batch([row["summary"]])[0])
    assert json.loads(trained.stdout)[0]["tokens"] == [2 * (length + target)] * 3


def test_under_a_launcher_the_ranks_measure_themselves(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = f"-m torch.distributed.run --nproc-per-node 2 --master-port {port} -m bart_cli"
    options = "benchmark train --preset tiny-cpu --precision fp32 --batch-size 2 --repeats 3"
    result = subprocess.run(
        [sys.executable, *torchrun.split(), *options.split(), *SMALL, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Weak scaling") == 1  # rank 0 reports
    assert result.stderr.count("1/1 rows") == 1
    assert [row["items"] for row in lines(tmp_path)] == [[4, 4, 4]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train --preset tiny-cpu --precision fp32,tf32", ["--precision tf32", "GPU"]),
        ("train --preset tiny-cpx", ["no preset 'tiny-cpx'"]),
        ("train --preset tiny-cpu --batch-size 2,x", ["--batch-size 2,x", "1,4,8"]),
        ("train --preset tiny-cpu --accumulation 0", ["accumulation=0"]),
        ("inference --preset tiny-cpu --precision int3", ["--precision int3", "bf16"]),
        ("inference --preset tiny-cpu --max-length 9999", ["512 positions"]),
        ("inference --preset tiny-cpu --compare fairseq", ["compare=fairseq", "'transformers'"]),
        ("inference --preset tiny-cpu --lengths long", ["lengths=long", "'full'"]),
        ("data --workers 0", ["--workers 0"]),
    ],
)
def test_unmeasurable_cases_are_refused_before_anything_runs(
    arguments: str, words: list[str]
) -> None:
    result = bart("benchmark", *arguments.split())
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr

"""Training commands as a user runs them: phases, distillation, the final evaluation."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from bart_cli.cli.app import build_app
from bart_cli.errors import BartError, UsageError
from bart_cli.tokenizer import Tokenizer
from bart_cli.training import checkpoint
from bart_cli.training.metrics import read_metrics
from tests.clusters import scheduler
from tests.command import bart, decoded, start_ranks
from tests.conftest import SENTENCES

TINY = [
    f"--set={setting}"
    for setting in (
        "model.d_model=32",
        "model.encoder_layers=2",
        "model.decoder_layers=2",
        "model.encoder_attention_heads=2",
        "model.decoder_attention_heads=2",
        "model.encoder_ffn_dim=64",
        "model.decoder_ffn_dim=64",
        "training.precision=fp32",
        "training.log_every=1",
    )
]
SMALL = ["--max-steps", "3", "--warmup-steps", "1", "--global-batch", "8", "--micro-batch", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    """Write shards of 128 and 512 tokens, pairs, and a tiny tokenizer."""
    root = tmp_path_factory.mktemp("commands")
    (root / "a.txt").write_text("\n\n".join([" ".join(SENTENCES)] * 40), encoding="utf-8")
    tiny_tokenizer.save(root / "bpe")
    result = bart(
        *("preprocess", "pretrain", "--text", root / "a.txt", "--tokenizer", root / "bpe"),
        *("--target-length", 128, "--target-length", 512, "--shards", 2),
        *("--scheduler", scheduler()),
        *("--out", root / "shards"),
    )
    assert result.returncode == 0, result.stderr
    pairs = root / "pairs"
    pairs.mkdir()
    rows = [{"article": " ".join(SENTENCES), "summary": s} for s in SENTENCES]
    for split in ("train", "validation", "test"):
        (pairs / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    tiny_tokenizer.save(pairs / "tokenizer")
    return root


def test_phases_run_in_order_and_resume(folder: Path, tmp_path: Path) -> None:
    command = [
        *("pretrain", "--phases", "dgxa100-1node-phase1,dgxa100-1node-phase2"),
        *("--data", folder / "shards", "--out", tmp_path / "run", *SMALL, *TINY),
        *("--set", "data.streams=4", "--set", "data.workers=0"),
    ]
    result = bart(*command)
    assert result.returncode == 0, result.stderr
    first, second = (tmp_path / "run" / f"dgxa100-1node-phase{i}" for i in (1, 2))
    assert f"init_from: {first}" in (second / "config.yaml").read_text()
    assert "sequence_length: 512" in (second / "config.yaml").read_text()
    end, later = (load_file(run / "model" / "model.safetensors") for run in (first, second))
    assert end.keys() == later.keys()
    again = bart(*command)
    assert again.returncode == 0
    assert again.stderr.count("is already finished") == 2
    more = [*map(str, command), "--max-steps", "4"]
    with pytest.raises(UsageError, match=f"trained from the weights of {first.name}, which"):
        build_app("pretrain")(args=more, standalone_mode=False)
    assert (first / "done.json").is_file()
    shutil.rmtree(second)
    build_app("pretrain")(args=more, standalone_mode=False)
    assert len(read_metrics(second)) == 4


def test_dry_runs_of_phases_and_of_several_ranks_print_one_estimate_each(
    folder: Path, tmp_path: Path
) -> None:
    phases = bart(
        *("pretrain", "--phases", "dgxa100-1node-phase1,dgxa100-1node-phase2", "--dry-run"),
        *("--data", folder / "shards", "--out", tmp_path / "run", *SMALL, *TINY),
        *("--set", "data.streams=4", "--set", "data.workers=0"),
    )
    assert phases.returncode == 0, phases.stderr
    assert phases.stdout.count("length ") == 2
    ranks = start_ranks(
        2,
        *("finetune", "--preset", "tiny-cpu-finetune", "--data", folder / "pairs", *SMALL, *TINY),
        *("--out", tmp_path / "ranks", "--dry-run", "--json", "--set", "generation.max_length=12"),
    )
    first, second = (decoded(rank.wait()) for rank in ranks)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert not second.stdout
    told = json.loads(first.stdout)
    assert (told["ranks"], told["max_steps"], told["samples_per_epoch"]) == (2, 3, 4)
    assert not list(tmp_path.iterdir())


def test_a_signal_during_the_last_checkpoint_ends_the_command_after_the_run(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = checkpoint.write_checkpoint

    def signal_and_write(*arguments: Any) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)  # until the main thread has noticed
        return write(*arguments)

    monkeypatch.setattr(checkpoint, "write_checkpoint", signal_and_write)
    phases = [
        *("pretrain", "--phases", "dgxa100-1node-phase1,dgxa100-1node-phase2"),
        *("--data", str(folder / "shards"), "--out", str(tmp_path / "phases"), *SMALL, *TINY),
        *("--set", "data.streams=4", "--set", "data.workers=0"),
    ]
    with pytest.raises(BartError, match="stopped by SIGINT after dgxa100-1node-phase1") as caught:
        build_app("pretrain")(args=phases, standalone_mode=False)
    assert caught.value.exit_code == 130
    assert (tmp_path / "phases/dgxa100-1node-phase1/done.json").is_file()
    assert not (tmp_path / "phases/dgxa100-1node-phase2").exists()
    pairs = [
        *("finetune", "--preset", "tiny-cpu-finetune", "--data", str(folder / "pairs"), *SMALL),
        *(*TINY, "--out", str(tmp_path / "run")),
    ]
    with pytest.raises(BartError, match="stopped by SIGINT before the evaluation") as caught:
        build_app("finetune")(args=pairs, standalone_mode=False)
    assert caught.value.exit_code == 130
    assert (tmp_path / "run/done.json").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--phases", "tiny-cpu,dgxa100-1node-phase2", "--set", "data.sequence_length=64"),
            "phase tiny-cpu: no train shards of 64 tokens",
        ),
        (
            (
                "--phases",
                "tiny-cpu,dgxa100-1node-phase2",
                *("--set", "model.max_position_embeddings=128"),
            ),
            "phase dgxa100-1node-phase2: cannot start:\n  data.sequence_length=512 exceeds "
            "model.max_position_embeddings=128",
        ),
        (("--phases", "tiny-cpu,dgxa100-1node-phase2", "--resume", "run/x"), "--resume run/x"),
        (("--phases", "tiny-cpu,tiny-cpo"), "tiny-cpo"),
    ],
)
def test_invalid_phases_are_reported_before_anything_runs(
    folder: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = bart("pretrain", *options, "--data", folder / "shards", cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_distilled_student_is_trained_and_scored(folder: Path, tmp_path: Path) -> None:
    pairs = ["finetune", "--preset", "tiny-cpu-finetune", "--data", folder / "pairs", *SMALL]
    sizes = ["--set", "generation.max_length=12", "--set", "generation.min_length=0", *TINY]
    teacher = bart(*pairs, *sizes, "--out", tmp_path / "teacher", "--no-evaluate")
    assert teacher.returncode == 0, teacher.stderr
    assert not (tmp_path / "teacher" / "final-evaluation").exists()
    # The architecture comes with the teacher's weights.
    sizes = [text for text in sizes if "model." not in text]
    student = bart(
        *(*pairs, *sizes, "--init-from", tmp_path / "teacher", "--out", tmp_path / "student"),
        *("--keep-encoder-layers", "1", "--keep-decoder-layers", "0"),
    )
    assert student.returncode == 0, student.stderr
    config = json.loads((tmp_path / "student" / "model" / "config.json").read_text())
    assert (config["encoder_layers"], config["decoder_layers"]) == (1, 1)
    assert "lead-1" in student.stdout
    metrics = tmp_path / "student" / "final-evaluation" / "metrics.json"
    scores = json.loads(metrics.read_text())
    # The teacher is no longer needed. Older versions scored the wrong weights of a run.
    shutil.rmtree(tmp_path / "teacher")
    ledger = metrics.with_name("progress.jsonl")
    ledger.write_text(re.sub('"model": "....', '"model": "0000', ledger.read_text(), count=1))
    again = bart(
        *(*pairs, *sizes, "--init-from", tmp_path / "teacher", "--out", tmp_path / "student"),
        *("--keep-encoder-layers", "1", "--keep-decoder-layers", "0", "--json"),
    )
    told = json.loads(again.stdout)
    assert told["outcome"] == "done"
    assert told["evaluation"]["rouge"] == scores["rouge"]
    wrong = bart(*pairs, *sizes, "--out", tmp_path / "x", "--keep-encoder-layers", "1,a")
    assert wrong.returncode == 2
    assert "--keep-encoder-layers 1,a: expected layer numbers" in wrong.stderr

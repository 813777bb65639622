"""Models and tokenizers by hub id, through a local hub and the real client."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

from bart_cli.config.generation import GenerationConfig
from bart_cli.model.bart import Bart
from bart_cli.tokenizer import Tokenizer
from tests.clusters import scheduler
from tests.command import bart as run_bart
from tests.conftest import SENTENCES, save_model, tiny_model_config
from tests.servers.hub import Faults, serve_hub


def bart(endpoint: str, cache: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return run_bart(*arguments, HF_ENDPOINT=endpoint, HF_HOME=str(cache), OMP_NUM_THREADS="1")


def test_a_cached_hub_model_works_without_the_hub(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    torch.manual_seed(0)
    model = Bart(tiny_model_config(vocab_size=tiny_tokenizer.vocab_size, init_std=0.3))
    folder = tmp_path / "hub" / "someone" / "tiny-bart"
    save_model(folder, model, tiny_tokenizer, GenerationConfig(max_length=12))
    (tmp_path / "a.txt").write_text(SENTENCES[0])
    local = bart(
        "http://127.0.0.1:9", tmp_path / "c", "summarize", tmp_path / "a.txt", "--model", folder
    )
    command = ["summarize", tmp_path / "a.txt", "--model", "someone/tiny-bart"]
    other = tmp_path / "hub" / "google" / "pegasus"
    other.mkdir(parents=True)
    (other / "config.json").write_text('{"model_type": "pegasus"}')
    (other / "pytorch_model.bin").touch()
    faults = Faults()
    with serve_hub(tmp_path / "hub", faults) as endpoint:
        found = bart(endpoint, tmp_path / "cache", *command)
        assert found.returncode == 0, found.stderr
        assert found.stdout == local.stdout
        missing = bart(endpoint, tmp_path / "cache", *command[:-1], "someone/else")
        refused = bart(endpoint, tmp_path / "cache", *command[:-1], "google/pegasus")
    assert "model_type is 'pegasus'" in refused.stderr
    assert not any("pytorch_model.bin" in path for _, path, _ in faults.requests)  # 2 GB there
    assert missing.returncode == 2
    assert "no such model: 'someone/else' is neither an existing path nor" in missing.stderr
    again = bart("http://127.0.0.1:9", tmp_path / "cache", *command)
    assert again.returncode == 0, again.stderr
    assert again.stdout == local.stdout


def test_a_hub_tokenizer_is_used(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    tiny_tokenizer.save(tmp_path / "hub" / "someone" / "bpe")
    (tmp_path / "a.txt").write_text("\n\n".join(SENTENCES))
    command = ["preprocess", "pretrain", "--text", tmp_path / "a.txt", "--out", tmp_path / "out"]
    with serve_hub(tmp_path / "hub") as endpoint:
        command += ["--tokenizer", "someone/bpe", "--scheduler", scheduler()]
        result = bart(endpoint, tmp_path / "cache", *command)
    assert result.returncode == 0, result.stderr
    saved = Tokenizer.from_pretrained(tmp_path / "out" / "tokenizer")
    assert saved.fingerprint() == tiny_tokenizer.fingerprint()


def test_a_pushed_model_gives_the_same_summary_by_its_name(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    torch.manual_seed(0)
    model = Bart(tiny_model_config(vocab_size=tiny_tokenizer.vocab_size, init_std=0.3))
    save_model(tmp_path / "run/model", model, tiny_tokenizer, GenerationConfig(max_length=12))
    (tmp_path / "a.txt").write_text(SENTENCES[0])
    variables = {"HF_TOKEN": "hf_writer"}
    export = ["export", tmp_path / "run", "--out", tmp_path / "out", "--push", "someone/news"]
    summarize = ["summarize", tmp_path / "a.txt", "--model"]
    local = run_bart(*summarize, tmp_path / "run")
    without_hub = run_bart(*export, HF_ENDPOINT="http://127.0.0.1:9", **variables)
    assert without_hub.returncode == 1
    assert "the upload to http://127.0.0.1:9 failed" in without_hub.stderr
    assert "out is kept: rerun the command to push it" in without_hub.stderr
    (tmp_path / "out/LICENSE").write_text("mine")
    with (tmp_path / "out/README.md").open("a") as card:
        card.write("\nAsk me about it.\n")
    hub = tmp_path / "hub"
    with serve_hub(hub) as endpoint:
        variables |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache")}
        pushed = run_bart(*export, "--private", **variables)
        assert pushed.returncode == 0, pushed.stderr
        assert f"pushed to {endpoint}/someone/news (private)" in pushed.stdout
        assert "README.md was edited: it is kept" in pushed.stderr
        found = run_bart(*summarize, "someone/news", **variables)
        assert found.returncode == 0, found.stderr
        assert found.stdout == local.stdout
        variables |= {"HF_TOKEN": "", "HF_HOME": str(tmp_path / "stranger")}
        stranger = run_bart(*summarize, "someone/news", **variables)
    assert "If it is private, set HF_TOKEN" in stranger.stderr
    assert (hub / "someone/news/LICENSE").read_text() == "mine"
    assert (hub / "someone/news/README.md").read_text().endswith("Ask me about it.\n")
    other = run_bart(*export, "--dtype", "bf16", **variables | {"HF_TOKEN": "hf_writer"})
    assert other.returncode == 2
    assert "already exists, and its config.json differs from this export" in other.stderr

"""`bart export` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from bart_cli.model.bart import Bart
from bart_cli.model.formats import load_model
from bart_cli.tokenizer import Tokenizer
from tests.cli.test_commands import bart
from tests.conftest import save_model, tiny_model_config


def test_a_model_is_exported_once_and_verified(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    bart_model = Bart(tiny_model_config(pre_layer_norm=True))
    save_model(tmp_path / "run" / "model", bart_model, tiny_tokenizer)
    command = ["export", tmp_path / "run", "--out", tmp_path / "out", "--dtype", "bf16"]
    first = bart(*command)
    assert first.returncode == 0, first.stderr
    assert "bf16, mBART layout" in first.stdout
    assert "verified with transformers: logits differ by" in first.stdout
    assert first.stderr == ""
    weights = load_model(tmp_path / "out").model.state_dict()
    for name, tensor in bart_model.state_dict().items():
        assert torch.equal(weights[name], tensor.bfloat16().float())
    again = bart(*command)
    assert again.returncode == 2
    assert "already exists" in again.stderr
    other = bart(
        "export", tmp_path / "out", "--out", tmp_path / "r", "--format", "reference", "--json"
    )
    report = json.loads(other.stdout)
    assert (report["layout"], report["difference"]) == ("reference", 0)

"""Defaults of `bart summarize`: standard input, the model of BART_MODEL, a checkpoint of a run."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import torch

from bart_cli.cli.app import main
from bart_cli.config.generation import GenerationConfig
from bart_cli.model.bart import Bart
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES, save_model, tiny_model_config

Capture = pytest.CaptureFixture[str]


def run(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, *arguments: object, stdin: str | None = ""
) -> tuple[int, str, str]:
    stream = io.TextIOWrapper(io.BytesIO((stdin or "").encode()))
    stream.isatty = lambda: stdin is None  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", stream)
    with pytest.raises(SystemExit) as end:
        main(["summarize", *map(str, arguments)])
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


def test_omitted_settings_have_a_default(
    tmp_path: Path, tiny_tokenizer: Tokenizer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, place in enumerate(("model", "best", "checkpoints/step-00000010/model")):
        torch.manual_seed(number)
        model = Bart(tiny_model_config(vocab_size=tiny_tokenizer.vocab_size, init_std=0.3))
        save_model(tmp_path / "run" / place, model, tiny_tokenizer, GenerationConfig(max_length=8))
    monkeypatch.setenv("BART_MODEL", str(tmp_path / "run"))
    code, best, err = run(capsys, monkeypatch, stdin=SENTENCES[0])
    assert code == 0, err
    same = run(capsys, monkeypatch, "-", "--checkpoint", "best", stdin=SENTENCES[0])
    assert same[1] == best
    others = [
        run(capsys, monkeypatch, "--checkpoint", name, stdin=SENTENCES[0])[1]
        for name in ("last", "10")
    ]
    assert len({best, *others}) == 3
    shorter = run(capsys, monkeypatch, "--set", "generation.max_length=4", stdin=SENTENCES[0])
    assert len(shorter[1]) < len(best)
    code, _, err = run(capsys, monkeypatch, stdin=None)
    assert code == 2
    assert "no input: expected a file" in err
    monkeypatch.setenv("BART_MODEL", "/nowhere/model")
    code, _, err = run(capsys, monkeypatch, stdin=SENTENCES[0])
    assert code == 2
    assert "error: BART_MODEL: no such model: /nowhere/model" in err

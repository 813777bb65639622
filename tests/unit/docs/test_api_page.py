"""The code on docs/api.md runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import bart_cli
from bart_cli.config.generation import GenerationConfig
from bart_cli.model.bart import Bart
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES, save_model, tiny_model_config

PAGE = Path(__file__).parents[3] / "docs" / "api.md"


def test_the_code_of_the_page_runs_from_top_to_bottom(
    tmp_path: Path,
    tiny_tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    model = Bart(tiny_model_config(init_std=0.3))
    decoding = GenerationConfig(beams=2, max_length=10)
    save_model(tmp_path / "runs/finetuned/model", model, tiny_tokenizer, decoding)
    (tmp_path / "article.txt").write_text("\n".join(SENTENCES * 3), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) > 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    printed = capsys.readouterr().out
    assert "True False 3 True\n" in printed
    assert "device=cuda:99" in printed
    assert "BART 57" in printed  # the layout and thousands of parameters
    assert (tmp_path / "exports/news/model.safetensors").is_file()


def test_every_name_of_the_api_exists() -> None:
    for name in dir(bart_cli):
        assert getattr(bart_cli, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Sumarizer'"):
        bart_cli.Sumarizer  # noqa: B018

"""Exported models in `transformers` give the same ids, logits and summaries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from bart_cli.config.commands import ExportConfig, ExportDtype
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.errors import BartError
from bart_cli.export.write import export_model
from bart_cli.model.bart import Bart
from bart_cli.summarize.summarizer import Summarizer
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES, save_model


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("forced", [True, False], ids=["forced <s>", "free"])
def test_transformers_generates_the_same_with_the_exported_settings(
    tiny_config: ModelConfig,
    tiny_tokenizer: Tokenizer,
    tmp_path: Path,
    dtype: ExportDtype,
    forced: bool,
) -> None:
    torch.manual_seed(5)
    decoding = GenerationConfig(
        beams=3, max_length=20, min_length=5, length_penalty=1.5, forced_bos=forced
    )
    config = tiny_config.model_copy(update={"init_std": 0.4})
    save_model(tmp_path / "model", Bart(config), tiny_tokenizer, decoding)
    source = (tmp_path / "model/model.safetensors").read_bytes()
    done = export_model(
        str(tmp_path / "model"), tmp_path / "export", ExportConfig.model_validate({"dtype": dtype})
    )
    assert done.difference is not None
    assert done.layout == ("mBART" if config.pre_layer_norm else "BART")
    assert (tmp_path / "model/model.safetensors").read_bytes() == source

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export")
    stored = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "export")
    assert (
        stored.dtype
        == {
            "fp32": torch.float32,
            "bf16": torch.bfloat16,
            "fp16": torch.float16,
        }[dtype]
    )
    theirs = stored.float()
    ours = Summarizer.from_pretrained(tmp_path / "export")
    for text, summary in zip(SENTENCES, ours.summarize(SENTENCES), strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == tiny_tokenizer.encode(text)
        tokens = theirs.generate(**inputs)[0]
        assert tokenizer.decode(tokens, skip_special_tokens=True).strip() == summary.text


@pytest.mark.parametrize("name", ["<mask>", "<pad>"])
def test_an_export_with_another_special_token_is_refused(
    name: str,
    tiny_config: ModelConfig,
    tiny_tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No text contains these ids, so only the comparison of special ids can find this."""
    save_model(tmp_path / "model", Bart(tiny_config), tiny_tokenizer)

    def save(tokenizer: Tokenizer, folder: Path) -> None:
        own_save(tokenizer, folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        settings[f"{name[1:-1]}_token"] = "the"
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")

    own_save = Tokenizer.save
    monkeypatch.setattr(Tokenizer, "save", save)
    with pytest.raises(BartError, match="other token ids"):
        export_model(str(tmp_path / "model"), tmp_path / "export", ExportConfig())
    assert not (tmp_path / "export").exists()

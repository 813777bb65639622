"""`transformers` loads our folders unchanged, and we load its folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BartForConditionalGeneration, MBartForConditionalGeneration

from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.model.bart import Bart
from bart_cli.model.formats import load_model
from bart_cli.tokenizer import Tokenizer
from tests.conftest import save_model


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "sharded"])
def test_folders_are_interchangeable(
    tiny_config: ModelConfig, tiny_tokenizer: Tokenizer, tmp_path: Path, sharded: bool
) -> None:
    torch.manual_seed(1)
    ours = Bart(tiny_config).eval()
    save_model(tmp_path / "ours", ours, tiny_tokenizer, GenerationConfig(beams=2, max_length=20))
    kind = (
        MBartForConditionalGeneration
        if tiny_config.pre_layer_norm
        else BartForConditionalGeneration
    )
    theirs, info = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert theirs.generation_config.num_beams == 2

    source = torch.randint(4, 400, (2, 9))
    target = torch.randint(4, 400, (2, 5))
    expected = theirs(input_ids=source, decoder_input_ids=target).logits
    torch.testing.assert_close(ours.logits(ours(source, None, target)), expected, rtol=0, atol=1e-4)

    size = "20KB" if sharded else "1GB"
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=size)
    assert (tmp_path / "theirs/model.safetensors.index.json").exists() == sharded
    back = load_model(tmp_path / "theirs").model
    assert back.config == ours.config
    torch.testing.assert_close(back.logits(back(source, None, target)), expected, rtol=0, atol=1e-4)


def test_transformers_reads_our_tokenizer(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    tiny_tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "Café owners – 24 of them – said: “nobody laughed” 🤷🏽\n"
    assert theirs(text)["input_ids"] == tiny_tokenizer.encode(text)
    assert theirs.mask_token_id == tiny_tokenizer.mask_id

"""A model and its tokenizer have to fit before anything is decoded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bart_cli.errors import UsageError
from bart_cli.inference.load import load_for_inference
from bart_cli.model.bart import Bart
from bart_cli.model.formats import save_model
from bart_cli.tokenizer import Tokenizer
from tests.conftest import tiny_model_config


def test_ids_without_an_embedding_are_refused(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    vocabulary = tiny_tokenizer.vocab_size
    save_model(tmp_path, Bart(tiny_model_config(vocab_size=vocabulary - 1)), tiny_tokenizer)
    message = f"the tokenizer has {vocabulary} tokens, more than the model's {vocabulary - 1}"
    with pytest.raises(UsageError, match=message):
        load_for_inference(str(tmp_path))


def test_the_way_to_a_tokenizer_is_one_that_every_command_has(tmp_path: Path) -> None:
    torch.save(Bart(tiny_model_config(encoder_attention_heads=1)).state_dict(), tmp_path / "a.ckpt")
    with pytest.raises(UsageError, match=r"has no tokenizer \(tokenizer\.json") as caught:
        load_for_inference(str(tmp_path / "a.ckpt"))
    assert "bart export" in (caught.value.hint or "")

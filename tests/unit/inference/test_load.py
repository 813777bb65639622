"""A model and its tokenizer must match before anything is decoded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bart_cli.errors import UsageError
from bart_cli.inference.load import load_for_inference, recorded_language
from bart_cli.model.bart import Bart
from bart_cli.tokenizer import Tokenizer
from tests.conftest import save_model, tiny_model_config


def test_entries_without_an_embedding_become_unk(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    """facebook/bart-large-cnn has 50,264 rows; its tokenizer's last entry, <mask>, is the 50,265th.

    An ordinary last entry is treated alike.
    """
    rows = tiny_tokenizer.vocab_size - 2
    last = tiny_tokenizer.decode([rows])
    save_model(tmp_path, Bart(tiny_model_config(vocab_size=rows)), tiny_tokenizer)
    tokenizer = load_for_inference(str(tmp_path)).tokenizer
    whole = tiny_tokenizer.encode(f"Rain{last}")
    assert max(whole) == rows
    expected = [3 if i == rows else i for i in whole]
    assert tokenizer.encode(f"Rain{last}") == expected
    assert tokenizer.encode_batch([f"Rain{last}"] * 2, special=False) == [expected[1:-1]] * 2
    assert Tokenizer.from_pretrained(tmp_path).encode(f"Rain{last}") == whole


def test_another_models_tokenizer_is_refused(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_model(tmp_path, Bart(tiny_model_config(vocab_size=300)), tiny_tokenizer)
    message = "but the model has"
    with pytest.raises(UsageError, match=message):
        load_for_inference(str(tmp_path))


def test_every_command_has_the_option_that_the_tokenizer_hint_names(tmp_path: Path) -> None:
    torch.save(Bart(tiny_model_config(encoder_attention_heads=1)).state_dict(), tmp_path / "a.ckpt")
    with pytest.raises(UsageError, match=r"has no tokenizer \(tokenizer\.json") as caught:
        load_for_inference(str(tmp_path / "a.ckpt"))
    assert "bart export" in (caught.value.hint or "")


def test_the_language_of_a_run_is_found_from_its_subfolders(tmp_path: Path) -> None:
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("evaluation: {language: de}")
    assert recorded_language(tmp_path / "run") == "de"
    assert recorded_language(tmp_path / "run" / "best") == "de"
    (tmp_path / "run" / "config.yaml").write_text("evaluation: [x")
    assert recorded_language(tmp_path / "run") == "auto"
    assert recorded_language("someone/model") == "auto"

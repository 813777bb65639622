"""CTranslate2 and ONNX, each in the hands of its own runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from bart_cli.config.commands import ExportConfig
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.errors import BartError
from bart_cli.export import to_ctranslate2, to_onnx
from bart_cli.export.contents import require_equal
from bart_cli.export.write import export_model
from bart_cli.model.bart import Bart
from bart_cli.model.formats import load_model
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES, save_model, tiny_model_config
from tests.unit.export.test_write import damage_weights

pytestmark = pytest.mark.slow


@pytest.fixture
def model(tiny_config: ModelConfig, tiny_tokenizer: Tokenizer, tmp_path: Path) -> str:
    """With fewer embeddings than the tokenizer has entries, as facebook/bart-large-cnn."""
    torch.manual_seed(5)
    config = tiny_config.model_copy(
        update={
            "init_std": 0.4,
            "vocab_size": tiny_tokenizer.vocab_size - 1,
            "decoder_attention_heads": tiny_config.encoder_attention_heads,
        }
    )
    bart = Bart(config)
    bart.final_logits_bias += torch.randn_like(bart.final_logits_bias)
    save_model(tmp_path / "model", bart, tiny_tokenizer, GenerationConfig(beams=2))
    return str(tmp_path / "model")


def test_ctranslate2_decodes_an_export_as_we_do(
    model: str, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    import ctranslate2

    done = export_model(model, tmp_path / "out", ExportConfig(format="ctranslate2"))
    assert done.layout == "CTranslate2"
    assert done.comparison is not None
    assert (done.comparison.equal, done.comparison.sequences) == (3, 3)
    assert done.difference is not None
    assert done.difference < 1e-4
    # As its users call it: with the folder's own tokenizer, and no word about the first token.
    entries = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = entries.encode(SENTENCES[0])
    assert ids == tiny_tokenizer.encode(SENTENCES[0])
    translator = ctranslate2.Translator(str(tmp_path / "out"), device="cpu", intra_threads=1)
    source = entries.convert_ids_to_tokens(ids)
    found = translator.translate_batch([source], beam_size=1, max_decoding_length=12)
    assert found[0].hypotheses[0]
    half = export_model(model, tmp_path / "half", ExportConfig(format="ctranslate2", dtype="bf16"))
    assert half.size < done.size
    assert half.difference is not None


@pytest.mark.parametrize(
    "tiny_config",
    [tiny_model_config(pre_layer_norm=True, encoder_layers=1, decoder_layers=1)],
    ids=["Pre-LN"],
)
def test_an_onnx_graph_takes_any_batch_and_length(model: str, tmp_path: Path) -> None:
    import onnxruntime

    done = export_model(model, tmp_path / "out", ExportConfig(format="onnx"))
    assert done.layout == "ONNX"
    assert done.difference is not None
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx")
    assert [one.name for one in session.get_inputs()] == list(to_onnx.INPUTS)
    own = load_model(model).model
    for batch, source, target in ((1, 1, 1), (5, 64, 2), (2, 3, 64)):
        ids = torch.randint(4, own.config.vocab_size, (batch, source))
        mask = torch.ones_like(ids)
        mask[-1, source // 2 + 1 :] = 0
        begin = torch.randint(4, own.config.vocab_size, (batch, target))
        feed = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": begin}
        (found,) = session.run(None, {name: value.numpy() for name, value in feed.items()})
        with torch.inference_mode():
            expected = own.logits(own(ids, mask.bool(), begin))
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_an_export_that_computes_something_else_is_not_kept(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage_weights(monkeypatch, to_ctranslate2)
    with pytest.raises(BartError, match="log probabilities of our summaries differ by"):
        export_model(model, tmp_path / "out", ExportConfig(format="ctranslate2"))
    settings = json.loads(Path(model, "config.json").read_text())
    Path(model, "config.json").write_text(json.dumps(settings | {"decoder_attention_heads": 2}))
    with pytest.raises(BartError, match="4 attention heads in its encoder and 2 in its decoder"):
        export_model(model, tmp_path / "out", ExportConfig(format="ctranslate2"))
    with pytest.raises(BartError, match="logits differ by"):
        require_equal(torch.tensor([1.0, 2.001]), torch.tensor([1.0, 2.0]))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

"""BERTScore, compared with the `bert-score` package on small encoders with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bart_cli.errors import BartError, UsageError
from bart_cli.evaluation.bertscore import BertScore
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES

CPU = torch.device("cpu")
SUMMARIES = [SENTENCES[0], SENTENCES[1] + " " + SENTENCES[2], "bridge " * 100]
REFERENCES = [SENTENCES[1], SENTENCES[1], SENTENCES[3]]


def encoder_folder(folder: Path, kind: str, tokenizer: Tokenizer) -> Path:
    import transformers

    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
        "initializer_range": 0.5,
    }
    torch.manual_seed(0)
    if kind == "roberta":
        tokenizer.save(folder)
        config = transformers.RobertaConfig(vocab_size=400, pad_token_id=1, **sizes)
        transformers.RobertaModel(config).save_pretrained(folder)
        words = transformers.RobertaTokenizer.from_pretrained(folder, add_prefix_space=True)
    else:
        folder.mkdir(exist_ok=True)
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        pieces += [mark + chr(c) for c in range(33, 127) for mark in ("", "##")]
        (folder / "vocab.txt").write_text("\n".join(pieces))
        words = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
        config = transformers.BertConfig(vocab_size=len(pieces), **sizes)
        transformers.BertModel(config).save_pretrained(folder)
    words.model_max_length = 64  # without it, bert-score fails
    words.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_equal_to_the_package(tmp_path: Path, tiny_tokenizer: Tokenizer, kind: str) -> None:
    judge = pytest.importorskip("bert_score")
    folder = encoder_folder(tmp_path, kind, tiny_tokenizer)
    encoder = BertScore(str(folder), 2, CPU)
    *_, f1 = judge.score(SUMMARIES, REFERENCES, model_type=str(folder), num_layers=2, device="cpu")
    found = encoder.scores(SUMMARIES, [[text] for text in REFERENCES])
    assert found == pytest.approx((100 * f1).tolist(), abs=1e-3)
    assert encoder.scores(["", "a"], [["a"], [""]]) == [0, 0]  # where bert-score fails
    assert 0 < found[0] < 99
    best = encoder.scores(SUMMARIES[:1], [[REFERENCES[0], SUMMARIES[0]]])
    assert best == pytest.approx([100], abs=1e-3)


def test_a_missing_or_unknown_model_gives_one_line(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    folder = str(encoder_folder(tmp_path, "bert", tiny_tokenizer))
    with pytest.raises(UsageError, match="the layer to compare is not known"):
        BertScore(folder, None, CPU)
    with pytest.raises(UsageError, match="has 3 layers"):
        BertScore(folder, 4, CPU)
    with pytest.raises(BartError, match="cannot be loaded"):
        BertScore(str(tmp_path / "nothing"), 1, CPU)

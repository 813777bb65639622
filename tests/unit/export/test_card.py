"""Model cards, read by the hub's own library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from bart_cli.config.commands import ExportConfig
from bart_cli.config.generation import GenerationConfig
from bart_cli.evaluation.ledger import model_hash
from bart_cli.export.card import is_edited, sign
from bart_cli.export.write import export_model
from bart_cli.model.bart import Bart
from bart_cli.tokenizer import Tokenizer
from tests.conftest import save_model, tiny_model_config

ROUGE = {"rouge1": 44.163, "rouge2": 21.28, "rougeL": 30.9, "rougeLsum": 40.95}


def make_run(folder: Path, tokenizer: Tokenizer, settings: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    model = Bart(tiny_model_config(vocab_size=tokenizer.vocab_size))
    save_model(folder / "model", model, tokenizer, GenerationConfig(beams=2))
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def add_evaluation(folder: Path, model: str, data: str, split: str | None, rouge1: float) -> None:
    """A file as `bart evaluate` writes it."""
    folder.mkdir(parents=True)
    rouge = ROUGE | {"rouge1": rouge1}
    made = {"model_sha256": model, "data_sha256": data, "data": data, "split": split}
    made |= {"precision": "bf16", "stemmer": True, "language": "auto"}
    metrics = {
        "articles": 11490,
        "rouge": rouge,
        "interval": {name: [value - 0.25, value + 0.25] for name, value in rouge.items()},
        "baselines": {"lead-3": dict.fromkeys(rouge, 40.0)},
        "bleu": {"model": 12.345, "lead-3": 9.0},
        "metrics": {"model": {"bertscore": 88.1, "novelty": 15.5}},
        "settings": made,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))


def read_card(source: Path, out: Path, **settings: object) -> ModelCard:
    export_model(str(source), out, ExportConfig.model_validate(settings))
    return ModelCard.load(out / "README.md")


def test_a_card_has_data_settings_and_scores_of_exactly_these_weights(
    tiny_tokenizer: Tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "cnn"
    data.mkdir()
    url = "https://huggingface.co/datasets/abisee/cnn_dailymail 3.0.0"
    source = {"corpus": "cnn-dm", "url": url}
    (data / "manifest.json").write_text(json.dumps({"source": source, "files": {}}))
    settings = {
        "task": "finetune",
        "init_from": "facebook/bart-base",
        "data": {"path": str(data), "max_source_length": 512, "tokenizer": str(tmp_path / "bpe")},
        "optimizer": {"learning_rate": 3e-5},
        "evaluation": {"language": "no"},  # a word that YAML takes for false
    }
    run = make_run(tmp_path / "runs/news", tiny_tokenizer, settings)
    own = model_hash(str(run))
    add_evaluation(run / "evaluation-test", own, str(data), "test", 44.163)
    add_evaluation(tmp_path / "runs/others", own, "/home/me/our news", "validation", 30.0)
    add_evaluation(tmp_path / "runs/file", own, "/home/me/own.csv", None, 20.0)
    add_evaluation(run / "evaluation-old", "0" * 64, str(data), "test", 99.0)
    with caplog.at_level("INFO", "bart"):
        card = read_card(run, tmp_path / "out")
    assert "because they scored other weights: evaluation-old\n" in caplog.text
    known = card.data.to_dict()
    assert known["library_name"] == "transformers"
    assert known["pipeline_tag"] == "summarization"
    assert known["base_model"] == "facebook/bart-base"
    assert known["datasets"] == ["abisee/cnn_dailymail"]
    assert known["language"] == ["no"]
    results = {(r.dataset_type, r.dataset_split, r.metric_name): r for r in card.data.eval_results}
    best = results["abisee/cnn_dailymail", "test", "ROUGE-1"]
    assert (best.metric_type, best.metric_value, best.dataset_config) == ("rouge", 44.16, "3.0.0")
    assert results["our-news", "validation", "ROUGE-1"].metric_value == 30.0
    assert results["own.csv", None, "ROUGE-1"].metric_value == 20.0
    assert "\n`own.csv`, 11,490 articles" in card.text
    assert "Validation split of" in card.text
    assert results["abisee/cnn_dailymail", "test", "BLEU"].metric_type == "sacrebleu"
    assert results["abisee/cnn_dailymail", "test", "BERTScore F1"].metric_value == 88.1
    assert len(results) == 18
    assert "| ROUGE-1 | 44.16 | 43.91 - 44.41 | 40.00 |" in card.text
    assert "| novelty | 15.50 |  |  |" in card.text
    assert "learning_rate: 3.0e-05" in card.text
    assert "max_source_length: 512" in card.text
    assert "99.0" not in card.text
    assert str(tmp_path) not in card.content  # no path of this machine
    assert "/home/me" not in card.content
    assert "--model USER/out" in card.text


def test_local_names_are_no_hub_ids(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    """`runs/first` looks like one, and the hub refuses a card with a model that it lacks."""
    first = {
        "task": "pretrain",
        "init_from": "facebook/bart-base@main",
        "data": {"path": "shards/wiki"},
    }
    make_run(tmp_path / "runs/first", tiny_tokenizer, first)
    pretrained = read_card(tmp_path / "runs/first", tmp_path / "a").data.to_dict()
    assert pretrained["pipeline_tag"] == "fill-mask"
    assert pretrained["base_model"] == "facebook/bart-base"
    gone = {"task": "finetune", "init_from": "runs/gone", "data": {"path": "pairs"}}
    run = make_run(tmp_path / "runs/second", tiny_tokenizer, gone)
    card = read_card(run / "model", tmp_path / "b")
    assert not {"base_model", "datasets", "model-index", "language"} & card.data.to_dict().keys()
    assert "on `pairs`" in card.text
    (run / "config.yaml").write_text(
        yaml.safe_dump(gone | {"init_from": str(tmp_path / "runs/first")})
    )
    chained = read_card(run, tmp_path / "c").data.to_dict()
    assert chained["base_model"] == "facebook/bart-base"
    plain = read_card(tmp_path / "a", tmp_path / "d")
    assert plain.data.to_dict()["tags"] == ["bart"]


@pytest.mark.parametrize("change", [b"More.\n", b"", b"\r\n"])
def test_an_edited_card_is_noticed(change: bytes) -> None:
    card = sign("---\ntags: []\n---\n# a\n").encode()
    assert not is_edited(card)
    assert is_edited(card.replace(b"# a\n", change))
    assert is_edited(card + b"\n")
    assert is_edited(b"# mine\n")

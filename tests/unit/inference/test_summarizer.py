"""The Summarizer, and reading what it is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import bart_cli
from bart_cli.config.generation import GenerationConfig
from bart_cli.errors import UsageError
from bart_cli.inference.generate import generate
from bart_cli.inference.inputs import read_documents
from bart_cli.model.bart import Bart
from bart_cli.model.formats import save_model
from bart_cli.tokenizer import Tokenizer
from tests.conftest import SENTENCES, tiny_model_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "m"
    model = Bart(tiny_model_config(vocab_size=tiny_tokenizer.vocab_size, init_std=0.3))
    generation = GenerationConfig(beams=2, max_length=12, length_penalty=1.0)
    save_model(path, model, tiny_tokenizer, generation)
    return path


def test_summaries_come_in_order_and_do_not_depend_on_the_batch(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    texts = [SENTENCES[0], "", SENTENCES[1] * 3, " \n", SENTENCES[2]]
    together = summarizer.summarize(texts)
    assert [summary.text for summary in together][1::2] == ["", ""]
    for text, summary in zip(texts, together, strict=True):
        assert summarizer.summarize([text], batch_size=1)[0].text == summary.text


def test_a_text_that_is_too_long_is_marked_as_cut(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    short, long = summarizer.summarize([SENTENCES[0], SENTENCES[0] * 20])
    assert not short.cut
    assert long.cut
    assert long.used_tokens == 64


def test_decoding_settings_can_be_changed_per_call(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    (summary,) = summarizer.summarize([SENTENCES[0]], beams=3, return_sequences=3)
    assert len({summary.text, *summary.others}) > 1
    with pytest.raises(ValueError, match="beams"):
        summarizer.summarize([SENTENCES[0]], beams=0)


def test_sampling_is_repeatable_and_follows_its_seed(folder: Path) -> None:
    summarizer = bart_cli.Summarizer.from_pretrained(folder)
    options = {"beams": 1, "sample": True, "top_k": 20, "top_p": 0.9, "return_sequences": 4}

    def texts(seed: int) -> tuple[str, ...]:
        (found,) = summarizer.summarize([SENTENCES[0]], **options, seed=seed)
        return (found.text, *found.others)

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_more_positions_than_the_model_has_are_refused(folder: Path) -> None:
    model = bart_cli.Summarizer.from_pretrained(folder).model
    with pytest.raises(UsageError, match="max_length of 65 tokens is more than the model's 64"):
        generate(model, [[0, 5, 2]], GenerationConfig(max_length=65))
    with pytest.raises(UsageError, match="a source of 70 tokens"):
        generate(model, [[0] * 70], GenerationConfig(max_length=10))


def test_files_and_folders_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "c.log"):
        (tmp_path / name).write_text(f"text of {name}")
    documents = read_documents([str(tmp_path / "c.log"), str(tmp_path)])
    assert [d.text for d in documents] == ["text of c.log", "text of a.md", "text of b.txt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b" \n", "is empty"), (b"a\nb\xe9", "byte 0xe9 in line 2")],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "x.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_documents([str(path)])

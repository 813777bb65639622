"""Published models decode as with `transformers`: the folder's own settings, token for token.

The judge is `BartForConditionalGeneration.generate` in fp32: on articles of CNN-DailyMail with the
real vocabulary for two models, where they are at hand, else on a few sentences with a tiny one.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
import transformers

from bart_cli.errors import UsageError
from bart_cli.inference.generate import generate
from bart_cli.inference.load import load_for_inference
from bart_cli.progress import printable
from bart_cli.tokenizer import Tokenizer
from tests.command import bart
from tests.conftest import SENTENCES
from tests.parity.zoo.models import CONFIGS, STORAGES, Files, Storage, build

SHORT = [" ".join(SENTENCES)]
LONG = [" ".join(SENTENCES * 30)]
DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
logging.getLogger("transformers").setLevel(logging.ERROR)
transformers.logging.disable_progress_bar()


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Articles of different lengths; the longest one exceeds 1,024 positions."""
    file = DATA / "cnn_dm/test.jsonl"
    if not file.is_file():
        return SHORT + LONG
    with file.open(encoding="utf-8") as lines:
        articles = [json.loads(next(lines))["article"] for _ in range(40)]
    articles = sorted((" ".join(article.split()) for article in articles), key=len)
    return [articles[0], articles[-1]]


@pytest.fixture(scope="session")
def tokenizer(tiny_tokenizer: Tokenizer) -> Tokenizer:
    real = DATA / "bart-tokenizer"
    return Tokenizer.from_pretrained(real) if real.is_dir() else tiny_tokenizer


def assert_equal(folder: Path, texts: list[str]) -> None:
    """Both sides read only the folder."""
    loaded = load_for_inference(str(folder))
    assert loaded.saved is not None
    positions = loaded.model.config.max_position_embeddings
    sources = loaded.tokenizer.encode_batch(texts, max_length=positions)
    ours = generate(loaded.model, sources, loaded.saved.config)
    theirs = transformers.BartForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    for text, source, found in zip(texts, sources, ours, strict=True):
        inputs = words(text, max_length=positions, truncation=True, return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == source
        tokens = theirs.generate(**inputs)[0].tolist()
        assert found[0].tokens == tokens[1:]


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - {"bart-large-mnli"}))
def test_a_published_model_decodes_like_transformers(
    name: str,
    texts: list[str],
    tokenizer: Tokenizer,
    tiny_tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    files = "new" if name.startswith("bart-large") else "old"
    real = name in ("bart-large-cnn", "distilbart-xsum-12-6")
    folder = build(name, tmp_path / name, tokenizer if real else tiny_tokenizer, files=files)
    assert_equal(folder, texts if name == "bart-large-cnn" else texts[:1])


@pytest.mark.parametrize("storage", STORAGES)
def test_a_way_to_store_weights(
    storage: Storage, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = build("distilbart-xsum-12-6", tmp_path / "m", tiny_tokenizer, storage=storage)
    assert_equal(folder, SHORT)


@pytest.mark.parametrize(
    "changes",
    [
        {"forced_bos_token_id": None},
        {"forced_bos_token_id": 0, "forced_eos_token_id": None},
        {"eos_token_id": [2, 50]},
        {"max_length": None},
        {"extra_pos_embeddings": None, "normalize_before": None, "task_specific_params": None},
        {"num_beams": 1},
        {"num_beams": None, "early_stopping": None},
        {"temperature": 0.0, "top_p": 0.0, "max_length": 5000},
        {"eos_token_id": [2, 60000], "suppress_tokens": [5, 60000]},
    ],
    ids=lambda changes: ", ".join(f"{name}={value}" for name, value in changes.items()),
)
def test_old_and_new_settings_are_read(
    changes: dict[str, object], tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = build("distilbart-xsum-12-6", tmp_path / "m", tiny_tokenizer, **changes)
    assert_equal(folder, SHORT)


@pytest.mark.parametrize("files", ["new", "old"])
def test_a_space_before_the_text_is_added_as_the_settings_say(
    files: Files, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = build("distilbart-xsum-12-6", tmp_path / "m", tiny_tokenizer, files=files)
    settings = {"add_prefix_space": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert_equal(folder, SHORT)


def test_positions_not_divisible_by_8(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    """KoBART has 1,026 positions; its texts are truncated there."""
    build("bart-large-xsum", tmp_path / "m", tiny_tokenizer)
    theirs = transformers.BartForConditionalGeneration.from_pretrained(tmp_path / "m")
    config = transformers.BartConfig.from_pretrained(tmp_path / "m")
    config.max_position_embeddings = 1026
    wider = transformers.BartForConditionalGeneration(config)
    state = theirs.state_dict()
    for side in ("encoder", "decoder"):
        del state[f"model.{side}.embed_positions.weight"]
    wider.load_state_dict(state, strict=False)
    wider.generation_config = theirs.generation_config
    wider.save_pretrained(tmp_path / "wider")
    tiny_tokenizer.save(tmp_path / "wider")
    assert_equal(tmp_path / "wider", LONG)


def test_a_model_that_classifies_is_refused(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = build("bart-large-mnli", tmp_path / "m", tiny_tokenizer)
    with pytest.raises(UsageError, match="BartForSequenceClassification classifies") as caught:
        load_for_inference(str(folder))
    assert "facebook/bart-large-cnn" in (caught.value.hint or "")


def test_the_first_command_of_the_readme_runs(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    build("bart-large-cnn", tmp_path / "bart-large-cnn", tiny_tokenizer)
    (tmp_path / "article.txt").write_text(SHORT[0], encoding="utf-8")
    result = bart("summarize", "article.txt", "--model", "bart-large-cnn", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    theirs = transformers.BartForConditionalGeneration.from_pretrained(tmp_path / "bart-large-cnn")
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "bart-large-cnn")
    tokens = theirs.generate(**words(SHORT[0], return_tensors="pt"))[0]
    summary = words.decode(tokens, skip_special_tokens=True).strip()
    assert result.stdout.strip() == printable(summary)

"""Fixtures that several test files share: tiny models, a tiny tokenizer, the optional real data."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Every command and every worker imports the package again: compile it only once.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

from bart_cli.config.generation import GenerationConfig  # noqa: E402
from bart_cli.config.model import ModelConfig  # noqa: E402
from bart_cli.model.bart import Bart  # noqa: E402
from bart_cli.model.formats import write_weights  # noqa: E402
from bart_cli.tokenizer import Tokenizer  # noqa: E402

# Models this small gain nothing from a second thread, and on busy cores, threads that wait for each
# other are six times slower. The variable is for the commands started by tests.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell starts background jobs with SIGINT ignored, and tests send it to their commands.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Trackio reads its variable when it is imported.
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="bart-tests-")
atexit.register(shutil.rmtree, os.environ["TRACKIO_DIR"], ignore_errors=True)
# No test asserts on time, and 200 ms per example is too little on a busy machine.
settings.register_profile("bart", deadline=None)
settings.load_profile("bart")


def pytest_collection_finish() -> None:
    """Exclude imported modules from garbage collection, here as in forked commands."""
    import tests.frozen  # noqa: F401


SENTENCES = (
    "The mayor opened the new bridge on Monday.",
    "Heavy rain had closed the old one in 1998.",
    "Café owners – 24 of them – said business rose by 12.5%.",
    "“We waited ten years,” Mr. O'Neill said; nobody laughed.",
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data that developers keep next to the checkout; tests skip if it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the optional real data (shared/data beside the checkout) is not here")
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    """A byte-level BPE with 400 entries, trained on a few sentences."""
    return Tokenizer.train(SENTENCES * 50, vocab_size=400)


@pytest.fixture(params=[False, True], ids=["post-LN", "Pre-LN"])
def tiny_config(request: pytest.FixtureRequest) -> ModelConfig:
    """A post-LN and a Pre-LN model without dropout, small enough to run in milliseconds."""
    return tiny_model_config(pre_layer_norm=request.param)


def save_model(
    folder: Path, model: Bart, tokenizer: Tokenizer, generation: GenerationConfig | None = None
) -> None:
    """Write a model folder as training and `bart export` do."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_weights(folder, model.config, model.state_dict(), tokenizer, generation)


def tiny_model_config(**changes: object) -> ModelConfig:
    """Return the configuration of a model with 2 + 2 layers, width 32 and 400 tokens."""
    settings: dict[str, object] = {
        "vocab_size": 400,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 64,
        "init_std": 0.2,
        "dropout": 0.0,
    }
    return ModelConfig.model_validate(settings | changes)

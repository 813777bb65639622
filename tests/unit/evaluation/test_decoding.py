"""Decoding of the articles of an evaluation."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest

from bart_cli.config.data import SummarizationDataConfig
from bart_cli.config.generation import EvaluationConfig
from bart_cli.config.run import EvaluateConfig
from bart_cli.errors import BartError
from bart_cli.evaluation import decoding


def test_out_of_memory_on_a_cpu_names_a_smaller_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(decoding, "in_language", lambda _, generation: generation)
    monkeypatch.setattr(decoding, "generate", full)
    config = EvaluateConfig(
        model_path="m",
        data=SummarizationDataConfig(path=Path("pairs")),
        evaluation=EvaluationConfig(batch_size=8),
    )
    with pytest.raises(BartError, match="out of memory: 1 articles of up to 3 tokens") as caught:
        decoding._decode_batch(0, np.array([0]), [np.arange(3)], MagicMock(), config)
    assert caught.value.hint == "Pass --batch-size 4."

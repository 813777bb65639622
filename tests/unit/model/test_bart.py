"""The model: what does not change its result."""

from __future__ import annotations

import pytest
import torch

from bart_cli.config.model import ModelConfig
from bart_cli.errors import UsageError
from bart_cli.model.bart import Bart


def gradients(model: Bart) -> list[torch.Tensor]:
    source = torch.arange(4, 16).reshape(2, 6)
    model.zero_grad()
    model.logits(model(source, None, source)).square().mean().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_recomputing_activations_gives_the_same_gradients(tiny_config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = Bart(tiny_config).train()
    plain = gradients(model)
    model.activation_checkpointing(True)
    for one, two in zip(plain, gradients(model), strict=True):
        assert torch.equal(one, two)


def test_a_sequence_longer_than_the_positions_is_refused(tiny_config: ModelConfig) -> None:
    with pytest.raises(UsageError, match="65 tokens does not fit the model's 64 positions"):
        Bart(tiny_config).encode(torch.ones(1, 65, dtype=torch.long))

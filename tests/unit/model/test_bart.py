"""Changes that must not affect the results of the model."""

from __future__ import annotations

import pytest
import torch

from bart_cli.config.model import ModelConfig
from bart_cli.errors import UsageError
from bart_cli.model.bart import Bart
from bart_cli.model.hf_config import to_hf


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


@pytest.mark.parametrize("pre_norm", [False, True])
def test_layerdrop_skips_the_layers_that_transformers_skips(
    tiny_config: ModelConfig, pre_norm: bool
) -> None:
    """Judge: BartModel / MBartModel in training mode, same weights and seed, within 1e-5."""
    from transformers import BartConfig, BartModel, MBartConfig, MBartModel

    rates = {"encoder_layerdrop": 0.5, "decoder_layerdrop": 0.4}
    off = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    layers = {"encoder_layers": 6, "decoder_layers": 6, "pre_layer_norm": pre_norm}
    config = tiny_config.model_copy(update=off | rates | layers)
    kinds = (MBartConfig, MBartModel) if pre_norm else (BartConfig, BartModel)
    torch.manual_seed(0)
    ours = Bart(config).train()
    theirs = kinds[1](kinds[0](**to_hf(config))).train()
    weights = {k: v for k, v in ours.model.state_dict().items() if not k.startswith("shared")}
    theirs.load_state_dict(weights, strict=False)
    theirs.shared.weight.data.copy_(ours.model.shared.weight)
    source = torch.arange(4, 16).reshape(2, 6)
    outputs = []
    for seed in range(4):
        torch.manual_seed(seed)
        mine = ours(source, None, source)
        torch.manual_seed(seed)
        outputs.append(theirs(input_ids=source, decoder_input_ids=source).last_hidden_state)
        torch.testing.assert_close(mine, outputs[-1], atol=1e-5, rtol=1e-5)
    assert not torch.equal(outputs[0], outputs[1])
    ours.eval()
    assert torch.equal(ours(source, None, source), ours(source, None, source))

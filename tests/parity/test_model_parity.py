"""Our model against `transformers` on random weights: logits, loss and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MBartConfig,
    MBartForConditionalGeneration,
)

from bart_cli.config.model import ModelConfig
from bart_cli.config.presets import preset_config
from bart_cli.config.run import PretrainConfig
from bart_cli.data.batch import IGNORE
from bart_cli.model.bart import Bart
from bart_cli.model.formats import build
from bart_cli.model.hf_config import to_hf
from bart_cli.model.losses import linear_cross_entropy
from bart_cli.model.weights import rename
from tests.conftest import tiny_model_config


def reference(config: ModelConfig) -> torch.nn.Module:
    """Make a model of `transformers` with our architecture and random weights."""
    settings = {k: v for k, v in to_hf(config).items() if k not in ("architectures", "model_type")}
    if config.pre_layer_norm:
        return MBartForConditionalGeneration(MBartConfig(**settings)).eval()
    return BartForConditionalGeneration(BartConfig(**settings)).eval()


def twin(theirs: torch.nn.Module, config: ModelConfig) -> Bart:
    """Make our model around these weights; every parameter of ours must get one."""
    state = rename(theirs.state_dict(), Path())
    return build(config, state, Path()).eval()


def padded_batch(config: ModelConfig, lengths: list[int], targets: list[int]) -> dict[str, Tensor]:
    """Make random ids with padding of varying length on both sides."""
    generator = torch.Generator().manual_seed(7)

    def ids(rows: list[int]) -> tuple[Tensor, Tensor]:
        full = torch.randint(4, config.vocab_size, (len(rows), max(rows)), generator=generator)
        real = torch.arange(max(rows))[None] < torch.tensor(rows)[:, None]
        return full, real

    source, mask = ids(lengths)
    target, target_mask = ids(targets)
    return {
        "source": source.masked_fill(~mask, config.pad_token_id),
        "mask": mask,
        "decoder_input": target.roll(1, 1),
        "labels": target.masked_fill(~target_mask, IGNORE),
    }


def base_config(*, pre_layer_norm: bool) -> ModelConfig:
    """The blocks of BART-base with a small vocabulary: its table takes most of the time."""
    config = preset_config("bart-base")
    assert isinstance(config, PretrainConfig)
    changes = {"pre_layer_norm": pre_layer_norm, "dropout": 0.0, "vocab_size": 2000}
    return config.model.model_copy(update=changes)


CASES = {
    "tiny": (lambda pre: tiny_model_config(pre_layer_norm=pre), [12, 9, 3], [7, 5, 1]),
    "tiny scaled relu": (
        lambda pre: tiny_model_config(
            pre_layer_norm=pre, scale_embedding=True, activation_function="relu"
        ),
        [12, 12],
        [4, 7],
    ),
    "base": (lambda pre: base_config(pre_layer_norm=pre), [40, 17], [11, 20]),
}


@pytest.mark.parametrize("pre_layer_norm", [False, True], ids=["post-LN", "Pre-LN"])
@pytest.mark.parametrize("case", CASES)
def test_logits_loss_and_gradients_equal_transformers(case: str, pre_layer_norm: bool) -> None:
    torch.manual_seed(0)
    make, lengths, targets = CASES[case]
    config = make(pre_layer_norm)
    theirs = reference(config)
    ours = twin(theirs, config)
    batch = padded_batch(config, lengths, targets)

    expected = theirs(
        input_ids=batch["source"],
        attention_mask=batch["mask"].long(),
        decoder_input_ids=batch["decoder_input"],
        labels=batch["labels"],
    )
    hidden = ours(batch["source"], batch["mask"], batch["decoder_input"])
    torch.testing.assert_close(ours.logits(hidden), expected.logits, rtol=0, atol=1e-4)

    total = linear_cross_entropy(
        hidden, ours.model.shared.weight, ours.final_logits_bias, batch["labels"]
    )
    loss = total / (batch["labels"] != IGNORE).sum()
    torch.testing.assert_close(loss, expected.loss, rtol=1e-5, atol=1e-5)

    loss.backward()
    expected.loss.backward()
    their_gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        gradient = their_gradients[name]
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_padding_does_not_change_what_real_tokens_see(tiny_config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = Bart(tiny_config).eval()
    batch = padded_batch(tiny_config, [12, 5], [6, 6])
    together = model(batch["source"], batch["mask"], batch["decoder_input"])[1]
    alone = model(batch["source"][1:, :5], None, batch["decoder_input"][1:])[0]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)

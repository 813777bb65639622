"""Our training in fp32 against a plain loop with transformers and torch.optim.AdamW."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BartForConditionalGeneration, MBartForConditionalGeneration

from bart_cli.data.batch import Collate
from bart_cli.data.order import Share
from bart_cli.data.pretrain_loader import PretrainLoader
from bart_cli.data.shards import resolve_shards
from bart_cli.model.formats import load_model
from bart_cli.progress import Reporter
from bart_cli.runtime.world import World
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.metrics import read_metrics
from bart_cli.training.optimizers import learning_rate
from bart_cli.training.pretrain import run_pretrain
from bart_cli.training.run import start_model
from tests.conftest import save_model
from tests.unit.training.test_runs import pretrain_config, shards  # noqa: F401

STEPS = 20


@pytest.mark.parametrize("pre_layer_norm", [False, True], ids=["post-LN", "Pre-LN"])
def test_twenty_steps_equal_a_plain_transformers_loop(
    shards: Path,  # noqa: F811
    tmp_path: Path,
    tiny_tokenizer: Tokenizer,
    pre_layer_norm: bool,
) -> None:
    config = pretrain_config(shards, max_steps=STEPS, log_every=1)
    model = {"dropout": 0.0, "attention_dropout": 0.0, "pre_layer_norm": pre_layer_norm}
    config = config.model_copy(
        update={
            "model": config.model.model_copy(update=model),
            # The gradient of a key bias is 0 except for rounding errors: epsilon must be larger.
            "optimizer": config.optimizer.model_copy(
                update={"learning_rate": 1e-3, "weight_decay": 0.1, "epsilon": 1e-6}
            ),
        }
    )
    run_pretrain(config, tmp_path / "run", reporter=Reporter())
    rows = read_metrics(tmp_path / "run")

    tokenizer = Tokenizer.from_pretrained(shards / "tokenizer")
    start = start_model(config, tokenizer, World(0, 1, torch.device("cpu")), Reporter())
    save_model(tmp_path / "start", start, tokenizer)
    kind = MBartForConditionalGeneration if pre_layer_norm else BartForConditionalGeneration
    theirs = kind.from_pretrained(tmp_path / "start").train()
    losses, norms = transformers_loop(theirs, config, shards, tokenizer)
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=1e-4)
    assert [row["gradient_norm"] for row in rows] == pytest.approx(norms, rel=1e-3)
    # Every weight ends with the same value.
    ours = load_model(tmp_path / "run" / "model").model.state_dict()
    for name, tensor in theirs.state_dict().items():
        if name in ours:
            torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=2e-4)
    assert losses[-1] < losses[0] - 1


def transformers_loop(theirs, config, folder: Path, tokenizer: Tokenizer):  # type: ignore[no-untyped-def]
    """Compute losses and gradient norms of STEPS steps in a plain training loop."""
    training, settings = config.training, config.optimizer
    parameters = list(theirs.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
    )
    loader = PretrainLoader(
        resolve_shards(folder, config.data.sequence_length),
        config,
        tokenizer,
        Share(global_batch=training.global_batch, micro_batch=training.global_batch),
        Collate(tokenizer.pad_id, tokenizer.eos_id),
    )
    losses, norms = [], []
    for step, (batch,) in zip(range(STEPS), loader, strict=False):
        output = theirs(
            input_ids=batch.source,
            attention_mask=batch.source_mask.long(),
            decoder_input_ids=batch.decoder_input,
            labels=batch.labels,
        )
        optimizer.zero_grad()
        output.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step + 1, STEPS, settings.learning_rate, config.schedule)
        optimizer.step()
        losses.append(output.loss.item())
        norms.append(norm.item())
    return losses, norms

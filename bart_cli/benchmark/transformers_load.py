"""The same loads with `transformers`, written as its users would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bart_cli.benchmark.cases import TrainingRun
from bart_cli.config.generation import GenerationConfig
from bart_cli.data.batch import Batch, pad_rows
from bart_cli.model.bart import Bart
from bart_cli.model.hf_config import generation_to_hf, to_hf
from bart_cli.runtime.precision import apply_matmul_precision, autocast, make_scaler
from bart_cli.runtime.world import World


def twin(ours: Bart) -> Any:
    """Build the model of `transformers` with the same weights.

    It has no attention dropout, so that it can use its fast kernels.
    """
    import transformers

    config = transformers.AutoConfig.for_model(**to_hf(ours.config))
    model = transformers.AutoModelForSeq2SeqLM.from_config(config)
    model.load_state_dict(ours.state_dict(), strict=False)
    model.tie_weights()
    return model


def transformers_step(
    ours: Bart, run: TrainingRun, world: World, rate: float
) -> Callable[[list[Batch]], None]:
    """Make the step of a plain loop: autocast, fused AdamW, DistributedDataParallel."""
    precision, device, optimizer_config = run.training.precision, world.device, run.optimizer
    apply_matmul_precision(precision)
    inner = twin(ours).to(device).train()
    if run.training.activation_checkpointing:
        inner.gradient_checkpointing_enable()
    inner.config.use_cache = False
    model: nn.Module = inner
    if world.size > 1:
        devices = [device] if device.type == "cuda" else None
        model = nn.parallel.DistributedDataParallel(inner, device_ids=devices)
    decay = optimizer_config.weight_decay
    optimizer = torch.optim.AdamW(inner.parameters(), lr=rate, weight_decay=decay, fused=True)
    scaler = make_scaler(precision, device)

    def step(micro: list[Batch]) -> None:
        optimizer.zero_grad(set_to_none=True)
        for batch in micro:
            here = batch.to(device)
            with autocast(precision, device):
                loss = model(
                    input_ids=here.source,
                    attention_mask=here.source_mask.long(),
                    decoder_input_ids=here.decoder_input,
                    labels=here.labels,
                ).loss
            scaler.scale(loss / len(micro)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(inner.parameters(), optimizer_config.clip_norm or float("inf"))
        scaler.step(optimizer)
        scaler.update()
        loss.item()

    return step


def transformers_decoder(
    ours: Bart, generation: GenerationConfig
) -> Callable[[list[list[int]]], list[int]]:
    """Make a function that decodes sources with `model.generate`; it returns target lengths."""
    import transformers

    config, weights = ours.config, next(ours.parameters())
    model = twin(ours).to(device=weights.device, dtype=weights.dtype).eval()
    settings = transformers.GenerationConfig(**generation_to_hf(config, generation))

    @torch.inference_mode()
    def decode(sources: list[list[int]]) -> list[int]:
        ids = pad_rows(sources, config.pad_token_id, positions=config.max_position_embeddings)
        ids = ids.to(weights.device)
        mask = (ids != config.pad_token_id).long()
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        lengths: list[int] = (output[:, 1:] != config.pad_token_id).sum(1).tolist()
        return lengths

    return decode

"""The same work done by `transformers`, as its users would write it: what ours is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from bart_cli.benchmark.decoding_load import (
    article_batches,
    decoding_model,
    decoding_shape,
    decoding_work,
)
from bart_cli.benchmark.loads import Shape, Work
from bart_cli.benchmark.spec import ArmSpec, DecodingSpec, TrainingSpec
from bart_cli.benchmark.training_load import RATE, training_shape, training_steps, work_of
from bart_cli.data.batch import Batch
from bart_cli.data.collate import pad_rows
from bart_cli.model.bart import Bart
from bart_cli.model.hf_config import to_hf
from bart_cli.runtime.precision import apply_matmul_precision, autocast, make_scaler
from bart_cli.runtime.world import World


def twin(ours: Bart) -> Any:
    """The model of `transformers` with the same weights; a Pre-LN BART is its MBart.

    Attention weights have no dropout there, so that it may use the fast kernels.
    """
    import transformers

    config = ours.config
    settings = {k: v for k, v in to_hf(config).items() if k not in ("architectures", "model_type")}
    model: Any
    if config.pre_layer_norm:
        model = transformers.MBartForConditionalGeneration(transformers.MBartConfig(**settings))
    else:
        model = transformers.BartForConditionalGeneration(transformers.BartConfig(**settings))
    model.load_state_dict(ours.state_dict(), strict=False)
    model.tie_weights()
    return model


class TheirTraining:
    """A plain loop: autocast, AdamW fused, DistributedDataParallel."""

    def __init__(self, spec: TrainingSpec, arm: ArmSpec, world: World) -> None:
        self._spec, self._arm, self._world = spec, arm, world
        self._steps: Iterator[list[Batch]] = iter(())
        self._size = 0
        self._training = spec.run.training
        apply_matmul_precision(self._training.precision)
        torch.manual_seed(arm.benchmark.seed)
        self._inner = twin(Bart(spec.run.model)).to(world.device).train()
        if self._training.activation_checkpointing:
            self._inner.gradient_checkpointing_enable()
        self._inner.config.use_cache = False
        self._model: nn.Module = self._inner
        if world.size > 1:
            devices = [world.device] if world.device.type == "cuda" else None
            self._model = nn.parallel.DistributedDataParallel(self._inner, device_ids=devices)
        self._optimizer = torch.optim.AdamW(
            self._inner.parameters(),
            lr=RATE,
            weight_decay=spec.run.optimizer.weight_decay,
            fused=True,
        )
        self._scaler = make_scaler(self._training.precision, world.device)

    def prepare(self, size: int) -> None:
        """See Load: the very batches of our side."""
        self._size = size
        self._steps = training_steps(self._spec, self._arm, self._world, size)

    def run(self) -> Work:
        """See Load."""
        micro = next(self._steps)
        self._optimizer.zero_grad(set_to_none=True)
        for batch in micro:
            here = batch.to(self._world.device)
            with autocast(self._training.precision, self._world.device):
                loss = self._model(
                    input_ids=here.source,
                    attention_mask=here.source_mask.long(),
                    decoder_input_ids=here.decoder_input,
                    labels=here.labels,
                ).loss
            self._scaler.scale(loss / len(micro)).backward()
        self._scaler.unscale_(self._optimizer)
        clip = self._spec.run.optimizer.clip_norm or float("inf")
        nn.utils.clip_grad_norm_(self._inner.parameters(), clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        loss.item()
        return work_of(micro, self._spec, self._world)

    def shape(self) -> Shape:
        """See Load."""
        return training_shape(self._spec, self._size)


class TheirDecoding:
    """`model.generate` with the same settings."""

    def __init__(self, spec: DecodingSpec, arm: ArmSpec, world: World) -> None:
        self._spec, self._arm, self._world = spec, arm, world
        ours, self._tokenizer, self._generation = decoding_model(spec, arm, world)
        self._config = ours.config
        weights = next(ours.parameters())
        self._model = twin(ours).to(device=weights.device, dtype=weights.dtype).eval()
        self._batches: Iterator[list[list[int]]] = iter(())
        self._size = 0

    def prepare(self, size: int) -> None:
        """See Load: the very articles of our side."""
        self._size = size
        self._batches = article_batches(
            self._spec, self._arm, self._world, size, self._config, self._tokenizer
        )

    @torch.inference_mode()
    def run(self) -> Work:
        """See Load."""
        sources = next(self._batches)
        generation, config = self._generation, self._config
        ids = pad_rows(sources, config.pad_token_id, positions=config.max_position_embeddings).to(
            self._world.device
        )
        mask = (ids != config.pad_token_id).long()
        beams = generation.beams
        output = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            num_beams=beams,
            max_length=generation.max_length,
            min_length=generation.min_length,
            length_penalty=generation.length_penalty if beams != 1 else None,
            no_repeat_ngram_size=generation.no_repeat_ngram,
            early_stopping=generation.early_stopping if beams != 1 else None,
            forced_bos_token_id=config.bos_token_id if generation.forced_bos else None,
            forced_eos_token_id=config.eos_token_id if generation.forced_eos else None,
            repetition_penalty=generation.repetition_penalty,
        )
        lengths = (output[:, 1:] != config.pad_token_id).sum(1).tolist()
        return decoding_work(config, sources, lengths, beams, self._world)

    def shape(self) -> Shape | None:
        """See Load."""
        return decoding_shape(self._spec, self._arm, self._size, self._config)

"""Estimate the memory of a training run, by part.

In: a model on its device and the settings of a run. Out: bytes per device (on a CPU: per process).
"""

# Legend: S source and T target tokens of a sequence, V vocabulary, D model.

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bart_cli.config.training import OptimizerConfig, TrainingConfig
from bart_cli.data.batch import Batch
from bart_cli.model.bart import Bart
from bart_cli.model.losses import CHUNK_LOGITS
from bart_cli.runtime.precision import AUTOCAST, autocast, fast_products, is_emulated
from bart_cli.runtime.world import World
from bart_cli.training.parallel import reduce_dtype

GIB = 2**30
# Heap fragmentation (glibc's malloc) on a CPU: memory used per byte of activations.
# Measured with benchmarks/memory.py: from 1.2 for BART-base to 1.7 for a tiny model.
FRAGMENTATION = 1.5
# The same where bf16 products are computed in fp32 (`fast_products`), with their temporaries:
# 2.1 to 2.4 for a tiny model, more for BART-large.
FRAGMENTATION_ROUNDED = 2.4
# Lengths (S, T) at which saved activations are counted, one for each of 1, S, T, S^2, T^2 and S T.
PROBES = ((16, 16), (32, 16), (48, 16), (16, 32), (16, 48), (32, 32))


@dataclass(frozen=True)
class Footprint:
    """Bytes that a run needs."""

    weights: int
    gradients: int
    optimizer: int  # its state
    copy: int  # of weights and optimizer state in host memory while a checkpoint is written
    update: int  # temporaries of an update, after the activations have been freed
    shared: int  # activations independent of the micro-batch: half-precision copies of the weights
    sequence: int  # activations of one sequence of the largest length
    logits: int  # of such a sequence
    chunk: int  # largest size of logits in memory at a time

    def activations(self, micro_batch: int) -> int:
        """Bytes of forward and backward, without the gradients of the weights."""
        logits = min(micro_batch * self.logits, self.chunk)
        return self.shared + micro_batch * self.sequence + logits

    def total(self, micro_batch: int) -> int:
        """Peak memory of a step in bytes, including the weights."""
        lasting = self.weights + self.gradients + self.optimizer + self.copy
        return lasting + max(self.activations(micro_batch), self.update)

    def largest(self, available: float, most: int) -> int:
        """Return the largest micro-batch up to `most` that fits in `available` bytes; 0: none.

        The weights do not count: they are already allocated.
        """
        numbers = range(1, most + 1)
        return bisect_right(numbers, available, key=lambda n: self.total(n) - self.weights)

    def parts(self, micro_batch: int) -> dict[str, int]:
        """Return the bytes of each part."""
        return {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "copy for checkpoints": self.copy,
            "activations": self.activations(micro_batch),
        }


def footprint(
    model: Bart,
    training: TrainingConfig,
    optimizer: OptimizerConfig,
    lengths: tuple[int, int],
    world: World,
) -> Footprint:
    """Estimate the memory to train this model on sequences of at most these lengths (S, T).

    Runs a few short forward passes; weights and random state do not change.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    shards = world.size if training.sharding == "fsdp" else 1
    weights = sum(p.nbytes for p in model.parameters()) // shards
    gradients = sum(p.nbytes for p in trained) // shards
    state, update = _optimizer_bytes(trained, optimizer)
    state, update = state // shards, update // shards
    if world.size > 1 and training.sharding == "none":  # the buckets of the all-reduce
        size = reduce_dtype(training).itemsize
        update = max(update, sum(p.numel() for p in trained) * size)
    shared, sequence = _saved_activations(model, training, lengths, world.device)
    # The loss, which is slow to run: hidden states with their gradient, and the table's gradient.
    item = AUTOCAST.get(training.precision, torch.float32).itemsize
    table = model.model.shared.weight
    shared += 4 * table.numel() * table.requires_grad
    sequence += 2 * item * lengths[1] * model.config.d_model
    on_gpu = world.device.type == "cuda"
    rounded = is_emulated(training.precision, world.device)
    growth = 1.0 if on_gpu else FRAGMENTATION_ROUNDED if rounded else FRAGMENTATION
    # A chunk of logits in the compute dtype; on a GPU also copies in fp32.
    size = item + (8 if on_gpu else 0)
    product = 4 * table.numel() * table.requires_grad  # gradient of the table from one chunk
    if rounded:
        product += 4 * table.numel()  # its copy in fp32
    return Footprint(
        weights=weights,
        gradients=gradients,
        optimizer=state,
        copy=0 if on_gpu else (weights + state) * shards,
        update=update,
        shared=round(growth * shared) + product,
        sequence=round(growth * sequence),
        logits=lengths[1] * model.config.vocab_size * size,
        chunk=CHUNK_LOGITS * size,
    )


def _optimizer_bytes(trained: list[nn.Parameter], config: OptimizerConfig) -> tuple[int, int]:
    """Return the bytes of the optimizer state and of the temporaries of an update."""
    if config.name == "adafactor":
        sizes = [p.shape[0] + p.numel() // p.shape[0] for p in trained]
        return 4 * sum(sizes), 16 * max((p.numel() for p in trained), default=0)
    numbers = sum(p.numel() for p in trained)
    if config.name == "adamw":
        return 8 * numbers, 0
    half = sum(p.numel() for p in trained if p.element_size() < 4)  # have fp32 master weights
    return 8 * numbers + 4 * half, 8 * numbers + 4 * half


def _saved_activations(
    model: Bart, training: TrainingConfig, lengths: tuple[int, int], device: torch.device
) -> tuple[int, int]:
    """Return the bytes saved for backward: those that do not grow, and those per sequence.

    Counting at the real lengths would be slow. The bytes are a linear combination of 1, S, T, S^2,
    T^2 and S T, so six counts at short lengths determine it.
    """
    counts = [_count(model, training, s, t, device) for s, t in PROBES]
    *points, longest = torch.tensor(
        [[1, s, t, s * s, t * t, s * t] for s, t in (*PROBES, lengths)], dtype=torch.float64
    )
    factors = torch.linalg.solve(torch.stack(points), torch.tensor(counts, dtype=torch.float64))
    sequence = float(factors[1:] @ longest[1:])
    return max(0, round(float(factors[0]))), round(sequence)


def _count(model: Bart, training: TrainingConfig, s: int, t: int, device: torch.device) -> int:
    """Count the bytes that forward of one sequence saves for backward, without the parameters."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with as_in_training(model, device), hooks:
        batch = longest_batch(model, 1, (s, t), device)
        with autocast(training.precision, device), fast_products(training.precision, device):
            hidden = model(batch.source, batch.source_mask, batch.decoder_input)
    del hidden  # frees the saved tensors
    recomputed = 0
    if training.activation_checkpointing:  # backward recomputes one block at a time
        plain = training.model_copy(update={"activation_checkpointing": False})
        model.activation_checkpointing(False)
        whole = _count(model, plain, s, t, device)
        model.activation_checkpointing(True)
        stacks = (model.model.encoder, model.model.decoder)
        recomputed = (whole - sum(seen.values())) // min(len(stack.layers) for stack in stacks)
    return sum(seen.values()) + recomputed


@contextmanager
def as_in_training(model: Bart, device: torch.device) -> Iterator[None]:
    """Enable dropout but not LayerDrop; restore mode and random state afterwards."""
    before = model.training
    stacks = (model.model.encoder, model.model.decoder)
    layerdrops = [stack.layerdrop for stack in stacks]
    model.train()
    try:
        for stack in stacks:
            stack.layerdrop = 0.0
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        model.train(before)
        for stack, layerdrop in zip(stacks, layerdrops, strict=True):
            stack.layerdrop = layerdrop


def longest_batch(model: Bart, n: int, lengths: tuple[int, int], device: torch.device) -> Batch:
    """Make a micro-batch of n dummy sequences of S and T tokens."""
    source, target = (
        torch.full((n, size), model.config.eos_token_id, device=device) for size in lengths
    )
    return Batch(source, torch.ones_like(source, dtype=torch.bool), target, target)

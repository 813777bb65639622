"""Train on several ranks: sum gradients while backward is running, or shard the model (FSDP2).

In: parameters with the gradients accumulated on each rank. Out: the sums, on every rank. With
`fully_shard`, for models that do not fit on one device, each rank holds 1/N of each tensor and
gathers a block's parameters when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bart_cli.config.training import TrainingConfig
from bart_cli.model.bart import Bart
from bart_cli.runtime.precision import AUTOCAST
from bart_cli.runtime.world import World

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

BUCKET_ELEMENTS = 2**23  # per bucket: 32 MB in fp32


class GradientSum:
    """Sum gradients in buckets, in the order in which backward finishes them (last layer first).

    Every rank sends its buckets in the same order, whatever the timing, so they always match.
    Only the last backward of a step sends, so ranks may have different numbers of micro-batches.

    Example with parameters e (2 elements), a (3), b (1) and buckets of at least 4 elements. In
    reverse order, bucket 0 is [b, a] and bucket 1 is [e]:

        backward finishes    missing    action
        b                    [1, 1]     none
        a                    [0, 1]     all_reduce [b, a a a] while backward computes e
        e                    [0, 0]     all_reduce [e e]

    If e finishes before a on some rank, bucket 1 waits there until bucket 0 has been sent. At the
    end of the block the sums are copied back into `grad`: with b.grad = 1 on rank 0 and 2 on rank
    1, both ranks hold 3.

    With FSDP, which sums gradients itself, there are no buckets. The trainable `parameters` are in
    the model's order.
    """

    def __init__(self, world: World, parameters: Sequence[nn.Parameter], training: TrainingConfig):
        self._dtype = reduce_dtype(training)
        self._active = world.size > 1 and training.sharding == "none"
        summed = parameters if training.sharding == "none" else []
        self._buckets = list(_buckets(summed))
        self._bucket_of = {p: i for i, bucket in enumerate(self._buckets) for p in bucket}
        self._missing: list[int] = []  # gradients per bucket; empty before the last backward
        self._sent: list[tuple[Tensor, dist.Work]] = []
        if self._active:
            for parameter in summed:
                parameter.register_post_accumulate_grad_hook(self._finished)

    @contextmanager
    def during_backward(self) -> Iterator[None]:
        """Wrap the last backward of a step; gradients hold the sums when the block ends."""
        self._missing = [len(bucket) for bucket in self._buckets]
        yield
        self._missing = []
        # Missing gradients (LayerDrop) are zero, so that all ranks make the same update.
        for parameter in self._bucket_of:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if not self._active:
            return
        for bucket in self._buckets[len(self._sent) :]:  # have a parameter without gradient
            self._send(bucket)
        for bucket, (flat, work) in zip(self._buckets, self._sent, strict=True):
            work.wait()
            parts = flat.split([parameter.numel() for parameter in bucket])
            for parameter, part in zip(bucket, parts, strict=True):
                assert parameter.grad is not None
                parameter.grad.copy_(part.view_as(parameter))
        self._sent = []

    def _finished(self, parameter: Tensor) -> None:
        if not self._missing:
            return
        self._missing[self._bucket_of[parameter]] -= 1  # type: ignore[index]
        while len(self._sent) < len(self._buckets) and not self._missing[len(self._sent)]:
            self._send(self._buckets[len(self._sent)])

    def _send(self, bucket: list[nn.Parameter]) -> None:
        flat = torch.cat([p.grad.flatten().to(self._dtype) for p in bucket if p.grad is not None])
        work = dist.all_reduce(flat, async_op=True)
        assert work is not None
        self._sent.append((flat, work))


def reduce_dtype(training: TrainingConfig) -> torch.dtype:
    """Return the dtype of exchanged gradients; half precision halves the traffic."""
    if training.half_precision_allreduce:
        return AUTOCAST.get(training.precision, torch.bfloat16)
    return torch.float32


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    elements = 0
    for parameter in reversed(parameters):
        bucket.append(parameter)
        elements += parameter.numel()
        if elements >= BUCKET_ELEMENTS:
            yield bucket
            bucket, elements = [], 0
    if bucket:
        yield bucket


def shard_model(model: Bart, world: World, training: TrainingConfig) -> None:
    """Shard the model over all ranks, block by block. Gradients are summed over ranks."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(reduce_dtype=reduce_dtype(training), cast_forward_inputs=False)
    for stack in (model.model.encoder, model.model.decoder):
        for layer in stack.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy)
    # The root module has the embedding, which the loss reads after forward.
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)  # Gloo cannot scale while it sums
            module.set_gradient_divide_factor(1.0)


def release(model: Bart) -> None:
    """Free the parameters gathered by a forward without backward, if the model is sharded."""
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()  # type: ignore[operator]


def is_sharded(tensor: object) -> TypeGuard[DTensor]:
    """Return whether a tensor is sharded over ranks."""
    module = sys.modules.get("torch.distributed.tensor")  # takes a second to import
    return module is not None and isinstance(tensor, module.DTensor)


def full_tensor(tensor: Any) -> Tensor:
    """Return the full tensor on every rank. A collective call if the tensor is sharded."""
    if is_sharded(tensor):
        return tensor.full_tensor()
    return torch.as_tensor(tensor)


def local_shard(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a sharded tensor, and any other tensor unchanged."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def shard_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Shard a full tensor like the parameter, if that is sharded and has the same shape."""
    if is_sharded(parameter) and tensor.shape == parameter.shape:
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
    return tensor

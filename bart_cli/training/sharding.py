"""Shard parameters, gradients and optimizer state over ranks (FSDP2, `fully_shard`).

This is for models that do not fit on one device: each rank holds 1/N of each tensor and gathers a
block's parameters when it runs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from bart_cli.model.bart import Bart
from bart_cli.runtime.world import World

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def shard_model(model: Bart, world: World, reduce_dtype: torch.dtype) -> None:
    """Shard the model over all ranks, block by block. Gradients are summed over ranks."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(reduce_dtype=reduce_dtype, cast_forward_inputs=False)
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

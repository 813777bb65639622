"""Parameters, gradients and optimizer state divided among ranks (FSDP2, `fully_shard`).

For models that do not fit a device; a rank holds 1/N of each tensor and gathers a block when it
is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from bart_cli.model.bart import Bart
from bart_cli.runtime.world import World


def shard_model(model: Bart, world: World, reduce_dtype: torch.dtype) -> None:
    """Divide the model among all ranks, block by block. Gradients become sums over ranks."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(reduce_dtype=reduce_dtype, cast_forward_inputs=False)
    for stack in (model.model.encoder, model.model.decoder):
        for layer in stack.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy)
    # The root holds the embedding, which the loss reads after forward.
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)  # Gloo cannot scale as it adds
            module.set_gradient_divide_factor(1.0)


def release(model: Bart) -> None:
    """Give back what a forward without backward has gathered; nothing to do without sharding."""
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()  # type: ignore[operator]


def whole(tensor: Any) -> Tensor:
    """The whole tensor, on every rank (a collective when it is divided)."""
    if isinstance(tensor, DTensor):
        return tensor.full_tensor()
    return torch.as_tensor(tensor)


def own_part(tensor: Tensor) -> Tensor:
    """This rank's part of a divided tensor, as plain memory; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def divided_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """This rank's part of a whole tensor, when the parameter is divided and has its shape."""
    if isinstance(parameter, DTensor) and tensor.shape == parameter.shape:
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
    return tensor

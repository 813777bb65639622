"""Shrink and fine-tune (Shleifer and Rush 2020): a student made of some of its teacher's layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from bart_cli.errors import UsageError
from bart_cli.model.bart import Bart


def keep_layers(
    model: Bart, encoder_layers: Sequence[int] | None, decoder_layers: Sequence[int] | None
) -> Bart:
    """Keep only these layers (counted from 0), in this order. Modifies and returns the model.

    Raises:
        UsageError: a layer does not exist or is given twice.
    """
    changes = {}
    for side, keep in (("encoder", encoder_layers), ("decoder", decoder_layers)):
        if keep is None:
            continue
        stack = getattr(model.model, side)
        count = len(stack.layers)
        if not keep or len(set(keep)) != len(keep) or not all(0 <= i < count for i in keep):
            raise UsageError(
                f"keep_{side}_layers={','.join(map(str, keep))}: expected distinct layers "
                f"from 0 to {count - 1}"
            )
        stack.layers = nn.ModuleList([stack.layers[i] for i in keep])
        changes[f"{side}_layers"] = len(keep)
    model.config = model.config.model_copy(update=changes)
    return model

"""Layer-dropping distillation: a student of some of its teacher's layers (Shleifer & Rush 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from bart_cli.errors import UsageError
from bart_cli.model.bart import Bart


def keep_layers(
    model: Bart, encoder_layers: Sequence[int] | None, decoder_layers: Sequence[int] | None
) -> Bart:
    """Keep only the named layers (from 0, in the given order), in place; the model comes back.

    Raises:
        UsageError: a layer that the model does not have, or the same one twice.
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

"""Names and shapes of weights in the formats that we read, and their way to ours.

Ours are Hugging Face's names. In: a state dict of any known format. Out: ours, and the architecture
that its shapes tell, for formats that come without a `config.json`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bart_cli.config.model import ModelConfig
from bart_cli.errors import UsageError

State = dict[str, Tensor]

# The one embedding, under all the names that it has in one format or the other.
EMBEDDING = (
    "model.shared.weight",
    "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "model.decoder.output_projection.weight",
    "lm_head.weight",
)
# Buffers of fairseq and of old versions of transformers that hold nothing learned.
IGNORED = re.compile(r"(\.version|\._float_tensor|\.embed_scale|position_ids)$")
# fairseq 0.12 keeps fused copies of a block's matrices beside them.
COPIES = re.compile(r"\.layers\.\d+\.(in_proj_\w+|out_proj\.\w+|fc\d_\w+)$")
FUSED = re.compile(r"(.+)\.in_proj_(weight|bias)$")
# Wrappers of torch.compile, DDP, FSDP and activation checkpointing: between any two parts.
WRAPPERS = re.compile(
    r"(?<![^.])(_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# Other tools put the name of their attribute before ours, Lightning often `model.`.
PREFIX = re.compile(
    r"^(?:[^.]+\.)*?(?=(?:shared|encoder|decoder|lm_head|final_logits_bias)(?:\.|$))"
)
HEAD_WIDTH = 64  # of every published BART: the number of heads is not visible in the shapes


def rename(state: Mapping[str, Tensor], path: Path) -> State:
    """Bring a state dict of Hugging Face, the reference or fairseq to our names.

    Raises:
        UsageError: the output layer is not the embedding (untied), there is no embedding, or there
            are two models.
    """
    renamed: State = {}
    places: dict[str, str] = {}
    owner = _owner(state)
    for place, tensor in state.items():
        if IGNORED.search(place) or COPIES.search(place) or "classification_head" in place:
            continue
        whole = WRAPPERS.sub("", place)
        if owner and not PREFIX.match(whole) and not whole.startswith(owner):
            continue
        name = PREFIX.sub("", whole)
        if name.startswith(("encoder.", "decoder.", "shared.")):
            name = f"model.{name}"
        name = name.replace(".last_layernorm.", ".layer_norm.")
        if name in renamed:
            raise UsageError(
                f"{path}: two models in one checkpoint: {places[name]} and {place}",
                hint="Save the state dict of one of them on its own.",
            )
        places[name] = place
        for part, piece in _split(name, tensor):
            renamed[part] = piece
    copies = [renamed.pop(name) for name in EMBEDDING if name in renamed]
    if not copies:
        raise UsageError(f"{path}: these are not BART weights: no token embedding")
    for copy in copies[1:]:
        if copy.shape != copies[0].shape or not torch.equal(copy, copies[0]):
            raise UsageError(
                f"{path}: input and output embeddings differ; only tied embeddings are supported"
            )
    renamed["model.shared.weight"] = copies[0]
    if "final_logits_bias" not in renamed:
        renamed["final_logits_bias"] = torch.zeros(1, copies[0].shape[0])
    return renamed


def _owner(state: Mapping[str, Tensor]) -> str:
    """Name of the module that has the embedding, such as `model.`; others hold losses, metrics."""
    for place in state:
        if place.endswith(EMBEDDING):
            return WRAPPERS.sub("", place).partition(".")[0] + "."
    return ""


def _split(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """The three projections of a fused matrix, as fairseq had it before 0.8; others as they are."""
    if not (fused := FUSED.match(name)):
        return [(name, tensor)]
    names = [f"{fused[1]}.{part}_proj.{fused[2]}" for part in "qkv"]
    return list(zip(names, tensor.chunk(3), strict=True))


def is_pre_layer_norm(state: Mapping[str, Tensor]) -> bool:
    """Whether the stacks end with a LayerNorm, as those of Pre-LN models do."""
    return "model.encoder.layer_norm.weight" in state


def infer_config(
    state: Mapping[str, Tensor], path: Path, heads: Mapping[str, int | None]
) -> ModelConfig:
    """The architecture of weights under our names.

    Args:
        heads: attention heads of encoder and decoder, which no shape tells. None: 64 wide, as in
            all published models.

    Raises:
        UsageError: a tensor that every BART has is missing, or of a shape that none has.
    """

    def layers(side: str) -> int:
        pattern = re.compile(rf"model\.{side}\.layers\.(\d+)\.")
        return 1 + max((int(m[1]) for name in state if (m := pattern.match(name))), default=-1)

    try:
        vocabulary, width = state["model.shared.weight"].shape
        positions = state["model.encoder.embed_positions.weight"].shape[0] - 2
        ffn = {
            side: state[f"model.{side}.layers.0.fc1.weight"].shape[0]
            for side in ("encoder", "decoder")
        }
    except KeyError as missing:
        raise UsageError(f"{path}: these are not BART weights: no {missing}") from None
    except (ValueError, IndexError):
        raise UsageError(f"{path}: these are not BART weights: no matrices") from None
    usual = max(1, width // HEAD_WIDTH)
    fields = {
        "vocab_size": vocabulary,
        "d_model": width,
        "encoder_layers": layers("encoder"),
        "decoder_layers": layers("decoder"),
        "encoder_attention_heads": heads["encoder"] or usual,
        "decoder_attention_heads": heads["decoder"] or usual,
        "encoder_ffn_dim": ffn["encoder"],
        "decoder_ffn_dim": ffn["decoder"],
        "max_position_embeddings": positions,
        "pre_layer_norm": is_pre_layer_norm(state),
    }
    try:
        return ModelConfig.model_validate(fields)
    except ValueError:
        shapes = ", ".join(f"{name}={value}" for name, value in fields.items())
        raise UsageError(f"{path}: these shapes do not belong to a BART: {shapes}") from None

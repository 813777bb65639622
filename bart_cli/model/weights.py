"""Rename weights of other formats to ours (Hugging Face's names), and infer the architecture.

In: a state dict in any supported format. Out: a state dict with our names and, for formats without
a `config.json`, the architecture inferred from the shapes.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bart_cli.config.model import ModelConfig
from bart_cli.errors import UsageError

State = dict[str, Tensor]

# Names of the shared embedding in the various formats.
EMBEDDING = (
    "model.shared.weight",
    "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "model.decoder.output_projection.weight",
    "lm_head.weight",
)
# Buffers of fairseq and of old versions of transformers that are not learned.
IGNORED = re.compile(r"(\.version|\._float_tensor|\.embed_scale|position_ids)$")
# fairseq 0.12 also stores fused copies of a block's matrices.
COPIES = re.compile(r"\.layers\.\d+\.(in_proj_\w+|out_proj\.\w+|fc\d_\w+)$")
FUSED = re.compile(r"(.+)\.in_proj_(weight|bias)$")
# Added by torch.compile, DDP, FSDP and activation checkpointing, anywhere in a name.
WRAPPERS = re.compile(
    r"(?<![^.])(_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# Other tools prepend the name of their attribute; with Lightning this is often `model.`.
PREFIX = re.compile(
    r"^(?:[^.]+\.)*?(?=(?:shared|encoder|decoder|lm_head|final_logits_bias)(?:\.|$))"
)
HEAD_WIDTH = 64  # in every published BART; the shapes do not tell the number of heads


def rename(state: Mapping[str, Tensor], path: Path) -> State:
    """Rename a state dict of Hugging Face, the reference or fairseq to our names."""
    renamed: State = {}
    originals: dict[str, str] = {}  # our name -> name in the file
    # Prefix of the module with the embedding, such as `model.`; others hold losses or metrics.
    embeddings = (WRAPPERS.sub("", name) for name in state if name.endswith(EMBEDDING))
    owner = next((f"{name.partition('.')[0]}." for name in embeddings), "")
    for original, tensor in state.items():
        if IGNORED.search(original) or COPIES.search(original) or "classification_head" in original:
            continue
        whole = WRAPPERS.sub("", original)
        if owner and not PREFIX.match(whole) and not whole.startswith(owner):
            continue
        name = PREFIX.sub("", whole)
        if name.startswith(("encoder.", "decoder.", "shared.")):
            name = f"model.{name}"
        name = name.replace(".last_layernorm.", ".layer_norm.")
        if name in renamed:
            raise UsageError(
                f"{path}: two models in one checkpoint: {originals[name]} and {original}",
                hint="Save the state dict of one of them on its own.",
            )
        originals[name] = original
        if fused := FUSED.match(name):  # q, k and v of fairseq before 0.8
            names = [f"{fused[1]}.{part}_proj.{fused[2]}" for part in "qkv"]
            renamed.update(zip(names, tensor.chunk(3), strict=True))
        else:
            renamed[name] = tensor
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


def is_pre_layer_norm(state: Mapping[str, Tensor]) -> bool:
    """Return whether the encoder ends with a LayerNorm, as in Pre-LN models."""
    return "model.encoder.layer_norm.weight" in state


def infer_config(
    state: Mapping[str, Tensor], path: Path, heads: Mapping[str, int | None]
) -> ModelConfig:
    """Infer the architecture from the shapes of weights with our names.

    The shapes do not tell the number of attention heads of `encoder` and `decoder`. None: they are
    64 wide, as in all published models.
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

"""`Engine`: a model prepared for decoding.

The encoder is used unchanged. The decoder becomes a list of matrix products whose weights are laid
out for one token per row; `decoding` runs them step by step.
"""

# Legend: A articles, S source, D model, V vocabulary.

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bart_cli.errors import UsageError
from bart_cli.inference.products import Product, has_onednn, make_product
from bart_cli.model.bart import Bart, key_mask
from bart_cli.model.layers import DecoderLayer, PositionEmbedding
from bart_cli.runtime.precision import onednn_has_bf16

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Layer:
    """One decoder block; names follow the model."""

    heads: int
    self_qkv: Product
    self_out: Product
    self_norm: nn.LayerNorm
    cross_q: Product
    cross_k: nn.Linear  # used once per article, so packing does not pay
    cross_v: nn.Linear
    cross_out: Product
    cross_norm: nn.LayerNorm
    fc1: Product
    activation: Callable[[Tensor], Tensor]
    fc2: Product
    final_norm: nn.LayerNorm


class Engine:
    """Encode sources and hold the packed weights of a decoding step.

    The decoder's weights are copied: create a new engine after further training. With `int8`, for
    CPUs with oneDNN, its products are in int8 and the rest in bf16 if the processor supports it.
    Error messages call the model by `name`.
    """

    def __init__(self, model: Bart, *, int8: bool = False, name: str = "the model") -> None:
        core, self.config, self.name = model.model, model.config, name
        self.device = core.shared.weight.device
        self.static = self.device.type == "cuda"  # fixed shapes, for CUDA graphs
        if int8:
            if problem := int8_problem(self.device):
                raise UsageError(problem)
            native = torch.cpu._is_avx512_bf16_supported() and onednn_has_bf16()
            self.memory_dtype = torch.bfloat16 if native else torch.float32  # emulated bf16 is slow
            self.dtype = torch.float32
        else:
            self.memory_dtype = self.dtype = core.shared.weight.dtype
        self._encoder = _as(core.encoder, self.memory_dtype).eval()
        self._shared = core.shared.weight.detach().to(self.memory_dtype)
        decoder = core.decoder
        self._scale = decoder.scale
        self._positions = decoder.embed_positions.weight.detach().to(self.dtype)
        self._embedding_norm = _as(decoder.layernorm_embedding, self.dtype)
        self.pre_norm = self.config.pre_layer_norm
        self.last_norm = None if decoder.layer_norm is None else _as(decoder.layer_norm, self.dtype)
        self.layers = [self._layer(layer, int8) for layer in decoder.layers]
        self.output = make_product(
            core.shared.weight.detach(),
            model.final_logits_bias[0].to(core.shared.weight.dtype),
            int8=int8,
        )

    def _layer(self, layer: nn.Module, int8: bool) -> Layer:
        assert isinstance(layer, DecoderLayer)
        own, cross = layer.self_attn, layer.encoder_attn

        def product(*linears: nn.Linear) -> Product:
            """Make one product of layers that share their input."""
            weight_ND = torch.cat([linear.weight for linear in linears])
            return make_product(weight_ND, torch.cat([x.bias for x in linears]), int8=int8)

        return Layer(
            heads=own.heads,
            self_qkv=product(own.q_proj, own.k_proj, own.v_proj),
            self_out=product(own.out_proj),
            self_norm=_as(layer.self_attn_layer_norm, self.dtype),
            cross_q=product(cross.q_proj),
            cross_k=_as(cross.k_proj, self.memory_dtype),
            cross_v=_as(cross.v_proj, self.memory_dtype),
            cross_out=product(cross.out_proj),
            cross_norm=_as(layer.encoder_attn_layer_norm, self.dtype),
            fc1=product(layer.fc1),
            activation=layer.activation,
            fc2=product(layer.fc2),
            final_norm=_as(layer.final_layer_norm, self.dtype),
        )

    def encode(self, source_AS: Tensor, mask_AS: Tensor | None) -> Tensor:
        """Encode ids [A, S] to [A, S, D]. `mask_AS`: bool, True at real tokens; None: all."""
        return self._encoder(F.embedding(source_AS, self._shared), key_mask(mask_AS))

    def embed(self, tokens_R: Tensor, position_R: Tensor) -> Tensor:
        """Embed ids [R] at these positions [R] for the first block [R, D]."""
        position_RD = F.embedding(position_R + PositionEmbedding.OFFSET, self._positions)
        x = F.embedding(tokens_R, self._shared).to(self.dtype) * self._scale + position_RD
        return self._embedding_norm(x)


def int8_problem(device: torch.device) -> str | None:
    """Reason this device cannot decode in int8, or None."""
    if device.type != "cpu":
        return "precision=int8 is for CPUs; on a GPU use bf16 or fp16"
    if not has_onednn() or not hasattr(torch.ops.onednn, "qlinear_prepack"):
        return "precision=int8 needs a torch with oneDNN (x86 builds have it); use fp32 or bf16"
    return None


def _as(module: Module, dtype: torch.dtype) -> Module:
    """Return the module itself if it has this dtype, else a converted copy."""
    if next(module.parameters()).dtype == dtype:
        return module
    return copy.deepcopy(module).to(dtype).requires_grad_(False)

"""BART (Lewis et al. 2020): an encoder, a decoder, and one embedding tied to the output layer.

Parameters have the names of Hugging Face's `BartForConditionalGeneration` (post-LN) or
`MBartForConditionalGeneration` (Pre-LN), so loading a checkpoint at most renames tensors.
"""

# Legend: B batch, S source, T target, D model, V vocabulary.

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bart_cli.config.model import ModelConfig
from bart_cli.errors import UsageError
from bart_cli.model.cpu import dropout
from bart_cli.model.layers import DecoderLayer, EncoderLayer, PositionEmbedding
from bart_cli.runtime.precision import as_computed


class Stack(nn.Module):
    """Position embedding, LayerNorm, the blocks, and a final LayerNorm if the model is Pre-LN."""

    def __init__(self, config: ModelConfig, layers: Sequence[nn.Module], layerdrop: float) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.layerdrop = layerdrop
        self.scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        self.positions = config.max_position_embeddings
        self.embed_positions = PositionEmbedding(config.max_position_embeddings, config.d_model)
        self.layernorm_embedding = nn.LayerNorm(config.d_model)
        self.layers = nn.ModuleList(layers)
        self.layer_norm = nn.LayerNorm(config.d_model) if config.pre_layer_norm else None
        self.activation_checkpointing = False

    def forward(self, tokens_BTD: Tensor, *inputs: Tensor | None) -> Tensor:
        """Add positions to token embeddings and run all blocks on them and `inputs`: [B, T, D].

        In training, LayerDrop (Fan et al. 2020) skips each block with probability `layerdrop`.
        """
        length = tokens_BTD.shape[1]
        if length > self.positions:
            raise UsageError(
                f"a sequence of {length} tokens does not fit the model's {self.positions} "
                "positions (max_position_embeddings)"
            )
        x = tokens_BTD * self.scale + self.embed_positions(length)
        x = dropout(self.layernorm_embedding(x), self.dropout, self.training)
        for layer in self.layers:
            if self.training and self.layerdrop and float(torch.rand([])) < self.layerdrop:
                continue
            if self.activation_checkpointing and self.training:
                x = checkpoint(layer, x, *inputs, use_reentrant=False)
            else:
                x = layer(x, *inputs)
        return x if self.layer_norm is None else self.layer_norm(x)


class EncoderDecoder(nn.Module):
    """The two stacks and the shared embedding (Hugging Face's `BartModel`)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.shared = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        encoder = [EncoderLayer(config) for _ in range(config.encoder_layers)]
        self.encoder = Stack(config, encoder, config.encoder_layerdrop)
        decoder = [DecoderLayer(config) for _ in range(config.decoder_layers)]
        self.decoder = Stack(config, decoder, config.decoder_layerdrop)


class Bart(nn.Module):
    """BART with its output layer.

    The initial weights are drawn from torch's global random generator.
    """

    final_logits_bias: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = EncoderDecoder(config)
        self.register_buffer(
            "final_logits_bias", self.model.shared.weight.new_zeros(1, config.vocab_size)
        )
        self.apply(self._initialize)

    def _initialize(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.init_std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])

    def grow(self, vocab_size: int) -> None:
        """Extend the embedding table to `vocab_size` rows, initialized like a new table."""
        old = self.model.shared.weight
        rows_ND = old.new_empty(vocab_size - len(old), old.shape[1])
        nn.init.normal_(rows_ND, std=self.config.init_std)
        self.model.shared.weight = nn.Parameter(torch.cat([old.detach(), rows_ND]))
        self.model.shared.num_embeddings = vocab_size
        bias = self.final_logits_bias
        self.final_logits_bias = torch.cat([bias, bias.new_zeros(1, len(rows_ND))], 1)
        self.config = self.config.model_copy(update={"vocab_size": vocab_size})

    def encode(self, source_BS: Tensor, source_mask_BS: Tensor | None = None) -> Tensor:
        """Encode ids into memory [B, S, D]. The mask is True at real tokens; None: no padding."""
        return self.model.encoder(self.model.shared(source_BS), key_mask(source_mask_BS))

    def decode(
        self, decoder_input_BT: Tensor, memory_BSD: Tensor, source_mask_BS: Tensor | None = None
    ) -> Tensor:
        """Decode ids and memory into the hidden states [B, T, D] of the last block."""
        tokens = self.model.shared(decoder_input_BT)
        return self.model.decoder(tokens, memory_BSD, key_mask(source_mask_BS))

    def forward(
        self, source_BS: Tensor, source_mask_BS: Tensor | None, decoder_input_BT: Tensor
    ) -> Tensor:
        """Compute the hidden states [B, T, D] under teacher forcing, for `logits` or a loss."""
        ids = (source_BS, decoder_input_BT)
        both = self._lookup(torch.cat([part.flatten() for part in ids]))
        pieces = both.split([part.numel() for part in ids])
        source_BSD, target_BTD = (
            piece.view(*part.shape, -1) for piece, part in zip(pieces, ids, strict=True)
        )
        mask = key_mask(source_mask_BS)
        memory_BSD = as_computed(self.model.encoder(source_BSD, mask))
        return self.model.decoder(target_BTD, memory_BSD, mask)

    def _lookup(self, ids_N: Tensor) -> Tensor:
        """Look up embeddings [N, D] of source and target at once.

        The gradient of a lookup is as large as the table, so two lookups would cost twice. On a
        CPU it is sparse; torch adds it to the dense gradient of the output layer.
        """
        table = self.model.shared
        sparse = ids_N.device.type == "cpu" and torch.is_grad_enabled()
        sparse = sparse and not torch.compiler.is_compiling()  # no sparse tensors in the compiler
        return F.embedding(ids_N, table.weight, table.padding_idx, sparse=sparse)

    def logits(self, hidden: Tensor) -> Tensor:
        """Project hidden states [..., D] to logits [..., V]."""
        return F.linear(hidden, self.model.shared.weight) + self.final_logits_bias.to(hidden.dtype)

    def activation_checkpointing(self, enabled: bool) -> None:
        """Recompute the blocks' activations in backward instead of storing them."""
        self.model.encoder.activation_checkpointing = enabled
        self.model.decoder.activation_checkpointing = enabled


def key_mask(mask_BS: Tensor | None) -> Tensor | None:
    """Add dimensions for heads and queries to a mask: [B, S] -> [B, 1, 1, S]."""
    return None if mask_BS is None else mask_BS[:, None, None, :]

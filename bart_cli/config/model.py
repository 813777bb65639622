"""The shape of a BART model, named as in Hugging Face's `BartConfig`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bart_cli.config.base import Section

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
DROPOUTS = ("dropout", "attention_dropout", "activation_dropout")  # of training, not of weights


class ModelConfig(Section):
    """Architecture (Lewis et al. 2020). The defaults are BART-base, post-LN."""

    vocab_size: int = Field(50265, ge=8, description="entries of the embedding table")
    d_model: int = Field(768, ge=8, description="width of the residual stream")
    encoder_layers: int = Field(6, ge=1, description="blocks of the encoder")
    decoder_layers: int = Field(6, ge=1, description="blocks of the decoder")
    encoder_attention_heads: int = Field(12, ge=1, description="attention heads of the encoder")
    decoder_attention_heads: int = Field(12, ge=1, description="attention heads of the decoder")
    encoder_ffn_dim: int = Field(3072, ge=8, description="inner width of the encoder's FFN")
    decoder_ffn_dim: int = Field(3072, ge=8, description="inner width of the decoder's FFN")
    activation_function: Activation = Field("gelu", description="non-linearity of the FFN")
    max_position_embeddings: int = Field(
        1024, ge=8, description="longest sequence in tokens (the table has 2 rows more)"
    )
    pre_layer_norm: bool = Field(
        False,
        description="LayerNorm inside each residual branch and at the end of both stacks (Pre-LN)",
    )
    scale_embedding: bool = Field(False, description="multiply embeddings by sqrt(d_model)")
    init_std: float = Field(0.02, gt=0, le=1, description="standard deviation of new weights")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on embeddings and branches")
    attention_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on attention weights")
    activation_dropout: float = Field(0.0, ge=0, lt=1, description="dropout inside the FFN")
    bos_token_id: int = Field(0, ge=0, description="id of <s>")
    pad_token_id: int = Field(1, ge=0, description="id of <pad>")
    eos_token_id: int = Field(2, ge=0, description="id of </s>")
    decoder_start_token_id: int = Field(2, ge=0, description="first input of the decoder (</s>)")

    prefix: str = Field("", description="text that the model expects before every article")

    @property
    def training_start_id(self) -> int | None:
        """First input of the decoder in training; None: the last token of the target.

        mBART (Pre-LN) moves that to the front: a target's language code, or </s>.
        """
        return None if self.pre_layer_norm else self.decoder_start_token_id

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for side in ("encoder", "decoder"):
            heads = getattr(self, f"{side}_attention_heads")
            if self.d_model % heads:
                raise ValueError(
                    f"{side}_attention_heads={heads} does not divide d_model={self.d_model}"
                )
        for name in ("bos", "pad", "eos", "decoder_start"):
            token = getattr(self, f"{name}_token_id")
            if token >= self.vocab_size:
                raise ValueError(
                    f"{name}_token_id={token} lies outside vocab_size={self.vocab_size}"
                )
        return self

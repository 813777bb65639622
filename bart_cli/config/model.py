"""Settings of the architecture, with the names of Hugging Face's `BartConfig`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bart_cli.config.base import Section

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
# Settings of training, which do not affect the shapes of the weights.
LAYERDROPS = ("encoder_layerdrop", "decoder_layerdrop")
DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", *LAYERDROPS)


class ModelConfig(Section):
    """Architecture (Lewis et al. 2020). The defaults are BART-base, post-LN."""

    vocab_size: int = Field(50265, ge=8, description="rows of the embedding table")
    d_model: int = Field(768, ge=8, description="width of the residual stream")
    encoder_layers: int = Field(6, ge=1, description="encoder layers")
    decoder_layers: int = Field(6, ge=1, description="decoder layers")
    encoder_attention_heads: int = Field(12, ge=1, description="encoder attention heads")
    decoder_attention_heads: int = Field(12, ge=1, description="decoder attention heads")
    encoder_ffn_dim: int = Field(
        3072, ge=8, description="inner width of the encoder's feed-forward layers"
    )
    decoder_ffn_dim: int = Field(
        3072, ge=8, description="inner width of the decoder's feed-forward layers"
    )
    activation_function: Activation = Field(
        "gelu", description="activation function of the feed-forward layers"
    )
    max_position_embeddings: int = Field(
        1024, ge=8, description="maximum sequence length in tokens (the table has 2 more rows)"
    )
    pre_layer_norm: bool = Field(
        False, description="Pre-LN: LayerNorm inside each residual branch and after the last layer"
    )
    scale_embedding: bool = Field(False, description="multiply embeddings by sqrt(d_model)")
    init_std: float = Field(0.02, gt=0, le=1, description="standard deviation of initial weights")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="dropout on embeddings and residual branches"
    )
    attention_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on attention weights")
    activation_dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout inside the feed-forward layers"
    )
    encoder_layerdrop: float = Field(
        0.0, ge=0, lt=1, description="probability that a training step skips an encoder layer"
    )
    decoder_layerdrop: float = Field(
        0.0, ge=0, lt=1, description="probability that a training step skips a decoder layer"
    )
    bos_token_id: int = Field(0, ge=0, description="token id of <s>")
    pad_token_id: int = Field(1, ge=0, description="token id of <pad>")
    eos_token_id: int = Field(2, ge=0, description="token id of </s>")
    decoder_start_token_id: int = Field(
        2, ge=0, description="token id of the decoder's first input (</s>)"
    )

    prefix: str = Field("", description="text to prepend to every article")

    @property
    def training_start_id(self) -> int | None:
        """First input of the decoder in training; None: the last token of the target.

        mBART (Pre-LN) moves the last token, a language code or </s>, to the front.
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
                    f"{name}_token_id={token} is out of range for vocab_size={self.vocab_size}"
                )
        return self

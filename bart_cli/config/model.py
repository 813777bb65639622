"""Settings of the architecture, with the names of Hugging Face's `BartConfig`."""

from typing import Literal, Self

from pydantic import model_validator

from bart_cli.config.base import Section, entry

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
# Settings of training, which do not affect the shapes of the weights.
LAYERDROPS = ("encoder_layerdrop", "decoder_layerdrop")
DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", *LAYERDROPS)


class ModelConfig(Section):
    """Architecture (Lewis et al. 2020). The defaults are BART-base, post-LN."""

    vocab_size: int = entry(50265, "rows of the embedding table", ge=8)
    d_model: int = entry(768, "width of the residual stream", ge=8)
    encoder_layers: int = entry(6, "encoder layers", ge=1)
    decoder_layers: int = entry(6, "decoder layers", ge=1)
    encoder_attention_heads: int = entry(12, "encoder attention heads", ge=1)
    decoder_attention_heads: int = entry(12, "decoder attention heads", ge=1)
    encoder_ffn_dim: int = entry(3072, "inner width of the encoder's feed-forward layers", ge=8)
    decoder_ffn_dim: int = entry(3072, "inner width of the decoder's feed-forward layers", ge=8)
    activation_function: Activation = entry(
        "gelu", "activation function of the feed-forward layers"
    )
    max_position_embeddings: int = entry(
        1024, "maximum sequence length in tokens (the table has 2 more rows)", ge=8
    )
    pre_layer_norm: bool = entry(
        False, "Pre-LN: LayerNorm inside each residual branch and after the last layer"
    )
    scale_embedding: bool = entry(False, "multiply embeddings by sqrt(d_model)")
    init_std: float = entry(0.02, "standard deviation of initial weights", gt=0, le=1)
    dropout: float = entry(0.1, "dropout on embeddings and residual branches", ge=0, lt=1)
    attention_dropout: float = entry(0.0, "dropout on attention weights", ge=0, lt=1)
    activation_dropout: float = entry(0.0, "dropout inside the feed-forward layers", ge=0, lt=1)
    encoder_layerdrop: float = entry(
        0.0, "probability that a training step skips an encoder layer", ge=0, lt=1
    )
    decoder_layerdrop: float = entry(
        0.0, "probability that a training step skips a decoder layer", ge=0, lt=1
    )
    bos_token_id: int = entry(0, "token id of <s>", ge=0)
    pad_token_id: int = entry(1, "token id of <pad>", ge=0)
    eos_token_id: int = entry(2, "token id of </s>", ge=0)
    decoder_start_token_id: int = entry(2, "token id of the decoder's first input (</s>)", ge=0)

    prefix: str = entry("", "text to prepend to every article")

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

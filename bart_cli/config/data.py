"""Settings of the data: pre-training shards and their noise, and summarization pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, StrictBool, model_validator

from bart_cli.config.base import Section, refuse_idle
from bart_cli.errors import UsageError

# ISO 639-1.
LANGUAGES = frozenset(
    """
    aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy
    da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu
    hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb
    lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om
    or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw
    ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
    """.split()
)
# Languages with abbreviations in `data/abbreviations.py`, and English.
ABBREVIATED = "cs, da, de, el, en, es, fi, fr, hu, id, it, nl, no, pl, pt, ro, ru, sv, tr, uk"
LANGUAGE_HELP = (
    "language of the sentence splitter: an ISO 639-1 code such as de, or auto: chosen by the "
    "script of each text (Latin script: English)"
)


def check_language(code: str) -> str:
    """Validate a language code, and return it.

    Raises:
        ValueError: neither auto nor an ISO 639-1 code.
    """
    if code != "auto" and code not in LANGUAGES:
        raise ValueError(
            f"input should be auto or an ISO 639-1 code such as de (abbreviations are known for "
            f"{ABBREVIATED})"
        )
    return code


def require_language(code: str) -> None:
    """Validate the value of `--language`.

    Raises:
        UsageError: neither auto nor an ISO 639-1 code.
    """
    try:
        check_language(code)
    except ValueError as error:
        raise UsageError(f"--language {code}: {error}") from None


Scheme = Literal["permute", "mask", "delete", "infill", "insert", "rotate"]
MASKING = ("mask", "delete", "infill")


class DenoisingConfig(Section):
    """Noise for pre-training: a list of schemes, applied in this order (docs/noise.md)."""

    schemes: tuple[Scheme, ...] = Field(
        ("permute", "infill"),
        description="noising schemes in order: permute (shuffle sentences), infill (replace spans "
        "with <mask>), mask (replace single tokens with <mask>), delete (delete single tokens), "
        "insert (insert <mask>), rotate (start at a random token)",
    )
    permute_sentences: StrictBool | None = Field(
        None, exclude=True, description="deprecated: false removes permute from schemes"
    )
    permute_ratio: float = Field(
        1.0, gt=0, le=1, description="share of sentences that permute shuffles"
    )
    mask_ratio: float = Field(
        0.3, ge=0, lt=1, description="share of tokens that are masked or deleted"
    )
    mask_length: Literal["subword", "word", "span-poisson"] = Field(
        "span-poisson",
        description="units of infill: single tokens, single words, or spans of Poisson length",
    )
    poisson_lambda: float = Field(
        3.5,
        ge=0.1,
        le=50,
        description="mean span length in words (paper: 3.0, fairseq's models: 3.5)",
    )
    replace_length: Literal[0, 1, -1] = Field(
        1,
        description="replacement of a unit by infill: 0: nothing, 1: one <mask>, -1: one <mask> "
        "per token",
    )
    random_ratio: float = Field(
        0.1, ge=0, le=1, description="share of spans replaced with a random token instead of <mask>"
    )
    insert_ratio: float = Field(
        0.1, gt=0, le=1, description="tokens to insert, as a share of the sample's tokens"
    )
    rotate_ratio: float = Field(1.0, gt=0, le=1, description="share of samples to rotate")
    whole_words: bool = Field(True, description="mask whole words only")
    sampling: Literal["exact", "fairseq"] = Field(
        "exact",
        description="exact: spans never overlap and mask_ratio holds on average; fairseq: counts "
        "are rounded up and spans may overlap, as in fairseq's DenoisingDataset",
    )

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, values: object) -> object:
        """Convert `permute_sentences` of older files: it is the scheme `permute` now."""
        if not isinstance(values, dict) or not isinstance(values.get("permute_sentences"), bool):
            return values
        values = dict(values)
        shuffle = values.pop("permute_sentences")
        schemes = values.get("schemes", cls.model_fields["schemes"].default)
        if not shuffle and isinstance(schemes, list | tuple):
            values["schemes"] = [name for name in schemes if name != "permute"]
        return values

    @model_validator(mode="after")
    def _no_idle_settings(self) -> Self:
        schemes = self.schemes
        if not schemes:
            raise ValueError("schemes: at least 1 scheme is required")
        if len(set(schemes)) < len(schemes):
            raise ValueError(f"schemes: a scheme occurs twice in {list(schemes)}")
        condition = f"schemes={','.join(schemes)}"
        for name in ("permute", "insert", "rotate"):
            if name not in schemes:
                refuse_idle(self, (f"{name}_ratio",), condition)
        if not set(MASKING) & set(schemes):
            refuse_idle(self, ("mask_ratio",), condition)
        infill_only = ("poisson_lambda", "whole_words", "mask_length", "replace_length")
        if "infill" not in schemes:
            refuse_idle(self, infill_only, condition)
        elif not self.mask_ratio:
            refuse_idle(self, infill_only, "mask_ratio=0")
        elif self.mask_length != "span-poisson":
            refuse_idle(self, infill_only[:2], f"mask_length={self.mask_length}")
        if self.mask_ratio == 0:
            condition = "mask_ratio=0"
        writes_masks = bool(self.mask_ratio) and ({"mask", "infill"} & set(schemes))
        if not writes_masks and "insert" not in schemes:
            refuse_idle(self, ("random_ratio",), condition)
        if schemes == ("permute",):
            refuse_idle(self, ("sampling",), condition)
        return self


class PretrainDataConfig(Section):
    """Shards written by `bart preprocess pretrain` (or by LDDL)."""

    path: Path | None = Field(None, description="folder of training shards")
    validation_path: Path | None = Field(
        None, description="folder of validation shards; default: `validation` next to `path`"
    )
    tokenizer: str | None = Field(
        None, description="tokenizer folder or hub id; default: the one saved with the shards"
    )
    sequence_length: int = Field(
        128,
        ge=8,
        description="maximum tokens per sample, including <s> and </s>; longer samples are "
        "truncated",
    )
    streams: int = Field(
        64,
        ge=1,
        description="streams that determine the order of samples; must be divisible by the number "
        "of ranks",
    )
    workers: int = Field(
        1, ge=0, description="data loader processes per rank; 0: load in the training process"
    )


class SummarizationDataConfig(Section):
    """Pairs of article and summary: a folder, a file or a hub data set."""

    path: Path | None = Field(
        None,
        description="article-summary pairs: a folder with train, validation and test files, one "
        "file, or a hub data set such as abisee/cnn_dailymail:3.0.0",
    )
    source_field: str | None = Field(
        None,
        description="column with the articles, such as article or, in an object, article.text; "
        "default: detected (article, document, text …)",
    )
    target_field: str | None = Field(
        None, description="column with the summaries; default: detected (summary, highlights …)"
    )
    list_targets: Literal["sentences", "references"] = Field(
        "sentences",
        description="meaning of a list in the column of summaries: sentences: the sentences of one "
        "summary; references: several summaries (training uses the first one, scores are the "
        "best over all)",
    )
    validation_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of pairs to hold out for validation if the data has no validation split",
    )
    test_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of pairs to hold out for testing if the data has no test split",
    )
    tokenizer: str | None = Field(
        None, description="tokenizer folder or hub id; default: the model's own"
    )
    source_language: str | None = Field(
        None,
        description="language code of mBART for the articles, such as fr_XX; default: the model's",
    )
    target_language: str | None = Field(
        None,
        description="language code of mBART for the summaries, such as fr_XX; default: the model's",
    )
    max_source_length: int = Field(
        1024, ge=8, description="maximum tokens per article; longer articles are truncated"
    )
    max_target_length: int = Field(
        142, ge=4, description="maximum tokens per summary; longer summaries are truncated"
    )
    max_validation_target_length: int | None = Field(
        None,
        ge=4,
        description="maximum tokens per summary of the validation split, for the loss and for "
        "ROUGE; default: max_target_length for the loss, full references for ROUGE",
    )
    max_test_target_length: int | None = Field(
        None,
        ge=4,
        description="maximum tokens per reference of the test split; default: full references",
    )
    prefix: str | None = Field(
        None, description="text to prepend to every article; default: the model's"
    )
    n_train: int | None = Field(None, ge=1, description="use only the first N training pairs")
    n_validation: int | None = Field(
        None, ge=1, description="use only the first N validation pairs"
    )
    n_test: int | None = Field(None, ge=1, description="use only the first N test pairs")
    group_by_length: bool = Field(True, description="batch articles of similar length together")
    max_tokens: int | None = Field(
        None,
        ge=64,
        description="maximum source tokens per micro-batch, including padding; micro_batch is "
        "then the maximum number of pairs",
    )

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share={self.validation_share} and test_share={self.test_share} "
                "leave no pair for training"
            )
        return self

"""Settings of the data: pre-training shards and their noise, and summarization pairs."""

from pathlib import Path
from typing import Literal, Self

from pydantic import StrictBool, model_validator

from bart_cli.config.base import Section, entry, refuse_idle
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
    if code != "auto" and code not in LANGUAGES:
        raise ValueError(
            f"input should be auto or an ISO 639-1 code such as de (abbreviations are known for "
            f"{ABBREVIATED})"
        )
    return code


def require_language(code: str) -> None:
    """Validate the value of `--language`."""
    try:
        check_language(code)
    except ValueError as error:
        raise UsageError(f"--language {code}: {error}") from None


Scheme = Literal["permute", "mask", "delete", "infill", "insert", "rotate"]
MASKING = ("mask", "delete", "infill")


class DenoisingConfig(Section):
    """Noise for pre-training: a list of schemes, applied in this order (docs/noise.md)."""

    schemes: tuple[Scheme, ...] = entry(
        ("permute", "infill"),
        "noising schemes in order: permute (shuffle sentences), infill (replace spans "
        "with <mask>), mask (replace single tokens with <mask>), delete (delete single tokens), "
        "insert (insert <mask>), rotate (start at a random token)",
    )
    permute_sentences: StrictBool | None = entry(
        None, "deprecated: false removes permute from schemes", exclude=True
    )
    permute_ratio: float = entry(1.0, "share of sentences that permute shuffles", gt=0, le=1)
    mask_ratio: float = entry(0.3, "share of tokens that are masked or deleted", ge=0, lt=1)
    mask_length: Literal["subword", "word", "span-poisson"] = entry(
        "span-poisson", "units of infill: single tokens, single words, or spans of Poisson length"
    )
    poisson_lambda: float = entry(
        3.5, "mean span length in words (paper: 3.0, fairseq's models: 3.5)", ge=0.1, le=50
    )
    replace_length: Literal[0, 1, -1] = entry(
        1, "replacement of a unit by infill: 0: nothing, 1: one <mask>, -1: one <mask> per token"
    )
    random_ratio: float = entry(
        0.1, "share of spans replaced with a random token instead of <mask>", ge=0, le=1
    )
    insert_ratio: float = entry(
        0.1, "tokens to insert, as a share of the sample's tokens", gt=0, le=1
    )
    rotate_ratio: float = entry(1.0, "share of samples to rotate", gt=0, le=1)
    whole_words: bool = entry(True, "mask whole words only")
    sampling: Literal["exact", "fairseq"] = entry(
        "exact",
        "exact: spans never overlap and mask_ratio holds on average; fairseq: counts "
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

    path: Path | None = entry(None, "folder of training shards")
    validation_path: Path | None = entry(
        None, "folder of validation shards; default: `validation` next to `path`"
    )
    tokenizer: str | None = entry(
        None, "tokenizer folder or hub id; default: the one saved with the shards"
    )
    sequence_length: int = entry(
        128, "maximum tokens per sample, including <s> and </s>; longer samples are truncated", ge=8
    )
    streams: int = entry(
        64,
        "streams that determine the order of samples; must be divisible by the number of ranks",
        ge=1,
    )
    workers: int = entry(1, "data loader processes per rank; 0: load in the training process", ge=0)


class SummarizationDataConfig(Section):
    """Pairs of article and summary: a folder, a file or a hub data set."""

    path: Path | None = entry(
        None,
        "article-summary pairs: a folder with train, validation and test files, one "
        "file, or a hub data set such as abisee/cnn_dailymail:3.0.0",
    )
    source_field: str | None = entry(
        None,
        "column with the articles, such as article or, in an object, article.text; "
        "default: detected (article, document, text …)",
    )
    target_field: str | None = entry(
        None, "column with the summaries; default: detected (summary, highlights …)"
    )
    list_targets: Literal["sentences", "references"] = entry(
        "sentences",
        "meaning of a list in the column of summaries: sentences: the sentences of one summary; "
        "references: several summaries (training uses the first one, scores are the best over all)",
    )
    validation_share: float = entry(
        0.0,
        "share of pairs to hold out for validation if the data has no validation split",
        ge=0,
        lt=1,
    )
    test_share: float = entry(
        0.0, "share of pairs to hold out for testing if the data has no test split", ge=0, lt=1
    )
    tokenizer: str | None = entry(None, "tokenizer folder or hub id; default: the model's own")
    source_language: str | None = entry(
        None, "language code of mBART for the articles, such as fr_XX; default: the model's"
    )
    target_language: str | None = entry(
        None, "language code of mBART for the summaries, such as fr_XX; default: the model's"
    )
    max_source_length: int = entry(
        1024, "maximum tokens per article; longer articles are truncated", ge=8
    )
    max_target_length: int = entry(
        142, "maximum tokens per summary; longer summaries are truncated", ge=4
    )
    max_validation_target_length: int | None = entry(
        None,
        "maximum tokens per summary of the validation split, for the loss and for "
        "ROUGE; default: max_target_length for the loss, full references for ROUGE",
        ge=4,
    )
    max_test_target_length: int | None = entry(
        None, "maximum tokens per reference of the test split; default: full references", ge=4
    )
    prefix: str | None = entry(None, "text to prepend to every article; default: the model's")
    n_train: int | None = entry(None, "use only the first N training pairs", ge=1, le=10**9)
    n_validation: int | None = entry(None, "use only the first N validation pairs", ge=1, le=10**9)
    n_test: int | None = entry(None, "use only the first N test pairs", ge=1, le=10**9)
    group_by_length: bool = entry(True, "batch articles of similar length together")
    max_tokens: int | None = entry(
        None,
        "maximum source tokens per micro-batch, including padding; micro_batch is "
        "then the maximum number of pairs",
        ge=64,
    )

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share={self.validation_share} and test_share={self.test_share} "
                "leave no pair for training"
            )
        return self

"""Load, train, save and apply any tokenizer supported by the `tokenizers` library.

Text in, ids out, and back. Trained tokenizers are byte-level BPE (Radford et al. 2019) with BART's
special tokens `<s> <pad> </s> <unk> <mask>`.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bart_cli.errors import UsageError
from bart_cli.files import atomic_file, write_text
from bart_cli.tokenizer_files import (
    HUB_FILES,
    LANGUAGE,
    ROLES,
    SETTINGS,
    SPECIAL_TOKENS,
    assemble,
    find_roles,
    frame,
    read_files,
    special_tokens,
    text_encoder,
)

LARGEST_VOCABULARY = 2**20  # the trainer allocates memory for the requested size in advance
# Settings that describe where a tokenizer was loaded from.
ORIGINS = ("name_or_path", "special_tokens_map_file", "tokenizer_file", "backend", "is_local")


class Tokenizer:
    """A tokenizer with the special tokens defined by its files.

    Unlike in `transformers`, special tokens spelled out in a text are encoded as ordinary text.

    bos_id, pad_id, eos_id, unk_id, mask_id: None if the vocabulary has no such token (pad_id and
    eos_id always exist). prefix, suffix: ids before and after a source, as defined by the
    post-processor. languages: language codes in mBART's vocabulary -> ids; empty for others.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, roles: dict[str, str], settings: dict[str, Any]
    ) -> None:
        self.backend, self._roles, self._settings = backend, roles, settings
        self._text = text_encoder(backend)
        self.special = special_tokens(backend)
        ids: dict[str, Any] = {role: backend.token_to_id(token) for role, token in roles.items()}
        self.pad_id: int = ids["pad"]
        self.eos_id: int = ids["eos"]
        self.bos_id, self.unk_id, self.mask_id = (ids.get(r) for r in ("bos", "unk", "mask"))
        self._rows: int | None = None  # ids from this one on become <unk>
        self.prefix, self.suffix = frame(backend)
        self.languages = {t: i for t, i in self.special.items() if LANGUAGE.fullmatch(t)}
        self.target_language: str | None = None
        if self.languages:
            self._frame_with_language()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._text.encode_special_tokens = True  # not preserved by pickling

    # ---- load, train, save ------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Tokenizer:
        """Load from a folder, a `tokenizer.json` file or a hub id such as `facebook/bart-base`.

        A folder contains `tokenizer.json`, or `vocab.json` and `merges.txt`, or `vocab.txt`.

        Raises:
            UsageError: there is no tokenizer, it is damaged, or it lacks special tokens.
            BartError: the hub cannot be reached.
        """
        path = Path(source)
        if path.exists():
            return cls(*read_files(path))
        from bart_cli.hub import fetch  # huggingface_hub is slow to import

        return cls(*read_files(fetch(str(source), HUB_FILES, what="tokenizer")))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Train a byte-level BPE tokenizer.

        The ids of <s> <pad> </s> <unk> are 0 to 3; <mask> has the last id.

        Raises:
            UsageError: `vocab_size` is too small for 256 bytes and the special tokens, or larger
                than LARGEST_VOCABULARY.
        """
        least, most = 256 + len(SPECIAL_TOKENS), LARGEST_VOCABULARY
        if vocab_size < least:
            raise UsageError(f"a vocabulary of {vocab_size} is too small; at least {least}")
        if vocab_size > most:
            raise UsageError(f"a vocabulary of {vocab_size} is too large; at most {most}")
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1,  # <mask> is added at the end, as in BART
            special_tokens=list(SPECIAL_TOKENS[:4]),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer=trainer)
        assemble(backend)
        return cls(backend, find_roles(backend, {}, "training"), {})

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and the other files that `transformers` reads, atomically each."""
        with atomic_file(folder / "tokenizer.json") as temporary:
            try:
                self.backend.save(str(temporary))
            except Exception as error:  # of a full disk too: the library raises no other
                raise OSError(str(error)) from None
        settings = {name: value for name, value in self._settings.items() if name not in ORIGINS}
        # Whether `vocab.json` and `merges.txt` describe the tokenizer completely.
        is_bart = (
            isinstance(self.backend.model, models.BPE)
            and self.cuts_like_gpt2()
            and tuple(self._roles.values()) == SPECIAL_TOKENS
            and (self.prefix, self.suffix) == ([self.bos_id], [self.eos_id])
        )
        kind = "BartTokenizer" if is_bart else "PreTrainedTokenizerFast"
        settings.setdefault("tokenizer_class", kind)
        for role, token in self._roles.items():
            for name in ROLES[role][0]:
                settings.setdefault(name, token)
        if is_bart:
            settings |= {"add_prefix_space": False, "clean_up_tokenization_spaces": False}
            self._save_merges(folder)
        if self.languages:
            settings |= {"src_lang": self.source_language, "tgt_lang": self.target_language}
        write_text(folder / SETTINGS, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")

    def _save_merges(self, folder: Path) -> None:
        """Write the files of GPT-2's tokenizer, for older programs."""
        ordered = dict(sorted(self.entries.items(), key=itemgetter(1)))
        write_text(folder / "vocab.json", json.dumps(ordered, ensure_ascii=False))
        pairs = json.loads(self.backend.to_str())["model"]["merges"]
        merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in pairs)
        lines = "".join(f"{pair}\n" for pair in merges)
        write_text(folder / "merges.txt", f"#version: 0.2\n{lines}")

    # ---- properties, encode, decode ---------------------------------------------------------

    @property
    def entries(self) -> dict[str, int]:
        """All tokens -> their ids, in arbitrary order."""
        return self.backend.get_vocab(with_added_tokens=True)

    @cached_property
    def vocab_size(self) -> int:
        """The largest id plus one."""
        return max(self.entries.values()) + 1

    def fitted(self, rows: int) -> Tokenizer:
        """Return a copy for a model with `rows` embeddings: ids beyond them become <unk>."""
        fitted = copy.copy(self)
        fitted._rows = rows if rows < self.vocab_size else None
        return fitted

    def tokens_from(self, first: int) -> list[str]:
        """Return the tokens with ids from `first`, in order."""
        entries = self.entries
        return sorted((t for t, i in entries.items() if i >= first), key=entries.__getitem__)

    def known(self, row: np.ndarray) -> np.ndarray:
        """Replace ids for which the model has no embedding (see `fitted`) by <unk>."""
        return row if self._rows is None else np.where(row < self._rows, row, self._unknown)

    @property
    def _unknown(self) -> int:
        return self.pad_id if self.unk_id is None else self.unk_id

    def fingerprint(self) -> str:
        """Return a SHA-256 of the tokenizer's definition, which determines the ids."""
        digest = hashlib.sha256(self.backend.to_str().encode())
        if self.languages:
            digest.update(f"{self.source_language} {self.target_language}".encode())
        return digest.hexdigest()

    @property
    def max_length(self) -> int | None:
        """Length to which `transformers` truncates texts, in tokens; None if unlimited."""
        length = self._settings.get("model_max_length")
        return length if isinstance(length, int) and 2 < length < 2**31 else None

    @property
    def truncates_left(self) -> bool:
        """Whether texts are truncated at their beginning, as in `transformers`."""
        return self._settings.get("truncation_side") == "left"

    def truncate(self, row: list[int], room: int) -> list[int]:
        """Return at most `room` ids of a text without special tokens."""
        return row[max(len(row) - room, 0) :] if self.truncates_left else row[:room]

    def with_max_length(self, length: int) -> Tokenizer:
        """Return a copy with another `max_length`, which `save` records."""
        changed = copy.copy(self)
        changed._settings = self._settings | {"model_max_length": length}
        return changed

    def with_languages(self, source: str | None, target: str | None) -> Tokenizer:
        """Return a copy with other language codes for sources and targets; None keeps the code.

        Raises:
            UsageError: the tokenizer does not have the language code.
        """
        for code in (source, target):
            if code is not None and code not in self.languages:
                known = ", ".join(sorted(self.languages)) or "none: the model is not multilingual"
                raise UsageError(f"no language {code} in the tokenizer; it has {known}")
        if source is target is None:
            return self
        changed = copy.copy(self)
        changed.source_language = source or self.source_language
        changed.target_language = target or self.target_language
        changed.prefix, changed.suffix = self._framing(changed.source_language)
        return changed

    @property
    def language_first(self) -> bool:
        """Whether the language code comes before the text (mBART-50) rather than after (mBART)."""
        return bool(set(self.prefix) & set(self.languages.values()))

    @property
    def target_frame(self) -> tuple[list[int], list[int]]:
        """Ids before and after a target: as for a source, and always with an end token."""
        prefix, suffix = self.prefix, self.suffix
        if self.languages:
            prefix, suffix = self._framing(self.target_language or self.source_language)
        return prefix, suffix if self.eos_id in suffix else [*suffix, self.eos_id]

    def _frame_with_language(self) -> None:
        """Add the source language to prefix or suffix, depending on the tokenizer class."""
        codes = {index: code for code, index in self.languages.items()}
        found = [codes[i] for i in (*self.prefix, *self.suffix) if i in codes]
        self.source_language = self._settings.get("src_lang") or (found or ["en_XX"])[0]
        self.target_language = self._settings.get("tgt_lang")
        for code in (self.source_language, self.target_language):
            if code is not None and code not in self.languages:
                raise UsageError(
                    f"{SETTINGS} names the language {code}, which the vocabulary lacks"
                )
        kind = str(self._settings.get("tokenizer_class", ""))
        if not found and kind.startswith("MBart"):
            code, before = self.languages[self.source_language], kind.startswith("MBart50")
            self.prefix = [code] if before else []
            self.suffix = [self.eos_id] if before else [self.eos_id, code]
        self.prefix, self.suffix = self._framing(self.source_language)

    def _framing(self, language: str) -> tuple[list[int], list[int]]:
        """Return prefix and suffix with their language code replaced."""
        codes, new = set(self.languages.values()), self.languages[language]
        prefix, suffix = ([new if i in codes else i for i in p] for p in (self.prefix, self.suffix))
        return prefix, suffix

    def cuts_like_gpt2(self) -> bool:
        """Whether text is split by GPT-2's pattern, without prior normalization."""
        content = json.loads(self.backend.to_str())
        cutter = content["pre_tokenizer"] or {}
        return (
            content["normalizer"] is None
            and content["model"]["type"] == "BPE"
            and cutter.get("type") == "ByteLevel"
            and not cutter.get("add_prefix_space")
            and cutter.get("use_regex", True)
        )

    def gpt2_ids(self) -> dict[str, str]:
        """Return the ids that GPT-2 gives to tokens (bytes, then merges), as texts -> tokens."""
        if not self.cuts_like_gpt2():
            return {}
        merges = json.loads(self.backend.to_str())["model"]["merges"]
        merged = ("".join(m.split(" ") if isinstance(m, str) else m) for m in merges)
        tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *merged]
        return {str(index): token for index, token in enumerate(tokens)}

    def added_tokens(self) -> list[str]:
        """Return the tokens added to the model's vocabulary, special and ordinary."""
        return [token.content for token in self.backend.get_added_tokens_decoder().values()]

    def encode(self, text: str, *, max_length: int | None = None) -> list[int]:
        """Encode a source with special tokens, truncated to `max_length` ids including them."""
        return self.encode_batch([text], max_length=max_length)[0]

    def encode_batch(
        self, texts: Sequence[str], *, special: bool = True, max_length: int | None = None
    ) -> list[list[int]]:
        """Encode texts in parallel on all cores.

        Args:
            special: add the special tokens of a source.
            max_length: truncate to this number of ids, including special tokens.
        """
        ends = (self.prefix, self.suffix) if special else ([], [])
        return self._encode(texts, *ends, max_length)

    def encode_targets(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode targets with their special tokens."""
        return self._encode(texts, *self.target_frame)

    def cut_targets(self, texts: Sequence[str], max_length: int) -> list[str]:
        """Truncate the texts of targets to `max_length` ids, including special tokens."""
        before, after = self.target_frame
        rows = self.encode_batch(texts, special=False)
        room = max(max_length - len(before) - len(after), 0)
        cut = self.decode_batch([self.truncate(row, room) for row in rows])
        return [
            text if len(row) <= room else short.strip()
            for text, row, short in zip(texts, rows, cut, strict=True)
        ]

    def _encode(
        self,
        texts: Sequence[str],
        prefix: list[int],
        suffix: list[int],
        max_length: int | None = None,
    ) -> list[list[int]]:
        clean = [encodable(text) for text in texts]
        encodings = self._text.encode_batch_fast(clean, add_special_tokens=False)
        rows = [encoding.ids for encoding in encodings]
        if (end := self._rows) is not None:
            rows = [[i if i < end else self._unknown for i in row] for row in rows]
        if max_length is not None:
            room = max(max_length - len(prefix) - len(suffix), 0)
            rows = [self.truncate(row, room) for row in rows]
        return [[*prefix, *row, *suffix] for row in rows] if prefix or suffix else rows

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Decode ids to text; bytes that are not valid UTF-8 become U+FFFD."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def decode_batch(self, rows: Sequence[Sequence[int]], skip_special: bool = True) -> list[str]:
        """Decode rows of ids; see `decode`."""
        return self.backend.decode_batch([list(row) for row in rows], skip_special)


def encodable(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode, by U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text

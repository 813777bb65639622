"""BART's byte-level BPE (Radford et al. 2019) on the `tokenizers` library: load, train, save.

Text in, ids out, and back. The five special tokens are `<s> <pad> </s> <unk> <mask>`.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from bart_cli.errors import BartError, UsageError
from bart_cli.files import atomic_file, write_text

LARGEST_VOCABULARY = 2**20  # the trainer reserves memory for what it is asked for
# How byte-level BPE writes bytes: as the character of that number where it can be seen, the others
# in their order from U+0100 on.
SEEN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
UNSEEN = sorted(set(range(0x100)).difference(SEEN))
BYTES = {chr(byte): byte for byte in SEEN} | {chr(0x100 + i): b for i, b in enumerate(UNSEEN)}
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
HUB_FILES = ("tokenizer.json", "vocab.json", "merges.txt")


class Tokenizer:
    """Byte-level BPE with BART's special tokens.

    Ids are the loaded vocabulary's; in BART's own <s>=0 <pad>=1 </s>=2 <unk>=3 <mask>=50264.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        entries = backend.get_vocab(with_added_tokens=True)
        _require_special_tokens(entries)
        self.bos_id, self.pad_id, self.eos_id, self.unk_id, self.mask_id = (
            entries[token] for token in SPECIAL_TOKENS
        )
        self._rows: int | None = None  # ids from here on become <unk>
        backend.no_padding()
        backend.no_truncation()

    # ---- making one -------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Tokenizer:
        """Load from a folder, a `tokenizer.json` file or a hub id such as `facebook/bart-base`.

        A folder holds `tokenizer.json`, or `vocab.json` and `merges.txt`.

        Raises:
            UsageError: nothing there is a tokenizer, or it lacks BART's special tokens.
            BartError: the hub could not be reached.
        """
        path = Path(source)
        if path.is_file():
            return cls._from_file(path)
        if path.is_dir():
            if (path / "tokenizer.json").is_file():
                return cls._from_file(path / "tokenizer.json")
            if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
                return cls._from_vocabulary(path / "vocab.json", path / "merges.txt")
            raise UsageError(
                f"no tokenizer in {path}: expected tokenizer.json, or vocab.json and merges.txt"
            )
        return cls._from_hub(str(source))

    @classmethod
    def _from_file(cls, path: Path) -> Tokenizer:
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except BartError:
            raise
        except Exception as error:  # `tokenizers` raises bare Exception
            raise UsageError(f"{path} is not a tokenizer.json: {error}") from None

    @classmethod
    def _from_vocabulary(cls, vocabulary: Path, merges: Path) -> Tokenizer:
        try:
            bpe = models.BPE.from_file(str(vocabulary), str(merges))
        except Exception as error:  # `tokenizers` raises bare Exception
            raise UsageError(f"{vocabulary} and {merges} are not a BPE: {error}") from None
        backend = tokenizers.Tokenizer(bpe)
        with vocabulary.open(encoding="utf-8") as file:
            entries = json.load(file)
        _assemble(backend, entries)
        return cls(backend)

    @classmethod
    def _from_hub(cls, name: str) -> Tokenizer:
        from bart_cli.hub import fetch  # huggingface_hub is slow to import

        folder = fetch(name, HUB_FILES, what="tokenizer")
        return cls.from_pretrained(folder)

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, *, show_progress: bool = False
    ) -> Tokenizer:
        """Learn a byte-level BPE from texts; ids of <s> <pad> </s> <unk> are 0-3, <mask> is last.

        Raises:
            UsageError: `vocab_size` has no room for the 256 bytes and the special tokens, or is
                larger than LARGEST_VOCABULARY.
        """
        smallest = 256 + len(SPECIAL_TOKENS)
        if vocab_size < smallest:
            raise UsageError(f"a vocabulary of {vocab_size} is too small; at least {smallest}")
        if vocab_size > LARGEST_VOCABULARY:
            raise UsageError(
                f"a vocabulary of {vocab_size} is too large; at most {LARGEST_VOCABULARY}"
            )
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1,  # <mask> comes after, where BART has it
            special_tokens=list(SPECIAL_TOKENS[:4]),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=show_progress,
        )
        backend.train_from_iterator(texts, trainer=trainer)
        entries = backend.get_vocab(with_added_tokens=True)
        entries["<mask>"] = len(entries)
        _assemble(backend, entries)
        return cls(backend)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and what `transformers` wants beside it, each file at once."""
        with atomic_file(folder / "tokenizer.json") as temporary:
            self._backend.save(str(temporary))
        bos, pad, eos, unk, mask = SPECIAL_TOKENS
        settings = {
            "tokenizer_class": "BartTokenizer",
            "bos_token": bos,
            "cls_token": bos,
            "pad_token": pad,
            "eos_token": eos,
            "sep_token": eos,
            "unk_token": unk,
            "mask_token": mask,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
        }
        write_text(folder / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")
        backend = json.loads(self._backend.to_str())["model"]
        entries = self._backend.get_vocab(with_added_tokens=True)  # in no fixed order
        ordered = dict(sorted(entries.items(), key=lambda e: e[1]))
        write_text(folder / "vocab.json", json.dumps(ordered, ensure_ascii=False))
        merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in backend["merges"])
        lines = "".join(f"{pair}\n" for pair in merges)
        write_text(folder / "merges.txt", f"#version: 0.2\n{lines}")

    # ---- using it ---------------------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """Ids lie in [0, vocab_size)."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    def fitted(self, rows: int) -> Tokenizer:
        """This tokenizer for a model of `rows` embeddings: ids beyond them become <unk>."""
        fitted = copy.copy(self)
        fitted._rows = rows if rows < self.vocab_size else None
        return fitted

    def tokens_from(self, first: int) -> list[str]:
        """The entries with this id and larger ones, in their order."""
        entries = self._backend.get_vocab(with_added_tokens=True)
        return sorted((t for t, i in entries.items() if i >= first), key=lambda t: entries[t])

    def known(self, rows: list[list[int]]) -> list[list[int]]:
        """The ids, with <unk> for those that the model has no embedding for (see `fitted`)."""
        end = self._rows
        if end is None:
            return rows
        return [
            [i if i < end else self.unk_id for i in row] if max(row, default=0) >= end else row
            for row in rows
        ]

    def fingerprint(self) -> str:
        """SHA-256 of vocabulary and merges: equal for tokenizers that give equal ids."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()

    def cuts_like_gpt2(self) -> bool:
        """Whether words are cut by GPT-2's pattern and nothing is done to the text before."""
        content = json.loads(self._backend.to_str())
        cutter = content["pre_tokenizer"] or {}
        return (
            content["normalizer"] is None
            and cutter.get("type") == "ByteLevel"
            and not cutter.get("add_prefix_space")
            and cutter.get("use_regex", True)
        )

    def added_tokens(self) -> list[str]:
        """Strings that are tokens wherever they are in a text: the special ones, and others."""
        return [token.content for token in self._backend.get_added_tokens_decoder().values()]

    def encode(self, text: str, *, max_length: int | None = None) -> list[int]:
        """`<s> text </s>`, cut to `max_length` ids with both ends kept."""
        return self.encode_batch([text], max_length=max_length)[0]

    def encode_batch(
        self, texts: Sequence[str], *, special: bool = True, max_length: int | None = None
    ) -> list[list[int]]:
        """Ids of many texts, on all cores. `special`: with <s> and </s> around each."""
        clean = [encodable(text) for text in texts]
        rows = [
            encoding.ids
            for encoding in self._backend.encode_batch_fast(clean, add_special_tokens=False)
        ]
        rows = self.known(rows)
        if special:
            room = None if max_length is None else max(max_length - 2, 0)
            return [[self.bos_id, *row[:room], self.eos_id] for row in rows]
        return rows if max_length is None else [row[:max_length] for row in rows]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ids; bytes that are no UTF-8 become U+FFFD."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def decode_batch(
        self, rows: Sequence[Sequence[int]], *, skip_special: bool = True
    ) -> list[str]:
        """Texts of many rows of ids."""
        return self._backend.decode_batch([list(row) for row in rows], skip_special)

    def word_starts(self) -> np.ndarray:
        """[vocabulary] bool: tokens that begin a word (a leading space), and special tokens."""
        starts = np.zeros(self.vocab_size, dtype=bool)
        for token, index in self._backend.get_vocab(with_added_tokens=True).items():
            starts[index] = token.startswith(("Ġ", "Ċ")) or token in SPECIAL_TOKENS
        return starts

    def character_starts(self) -> np.ndarray:
        """[vocabulary] bool: tokens that do not begin in the middle of a character."""
        starts = np.ones(self.vocab_size, dtype=bool)
        for token, index in self._backend.get_vocab(with_added_tokens=True).items():
            starts[index] = not 0x80 <= BYTES.get(token[:1], 0) < 0xC0  # these go on with one
        return starts

    def token_bytes(self) -> list[bytes] | None:
        """The bytes of every id, none for special tokens: joined, they are what `decode` gives.

        None: this tokenizer decodes in another way.
        """
        added = self._backend.get_added_tokens_decoder()
        plain = isinstance(self._backend.decoder, decoders.ByteLevel)
        plain = plain and all(token.special for token in added.values())
        table = [b""] * self.vocab_size
        for token, index in self._backend.get_vocab(with_added_tokens=True).items():
            if index not in added:
                plain = plain and all(character in BYTES for character in token)
                table[index] = bytes(BYTES.get(character, 0) for character in token)
        return table if plain else None


def _assemble(backend: tokenizers.Tokenizer, entries: dict[str, int]) -> None:
    """Give a BPE the pieces around it that make it BART's."""
    _require_special_tokens(entries)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        # As in the original: a <mask> in the text swallows the space before it.
        [AddedToken(token, lstrip=token == "<mask>", normalized=False) for token in SPECIAL_TOKENS]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", entries["<s>"]), ("</s>", entries["</s>"])],
    )


def _require_special_tokens(entries: dict[str, int]) -> None:
    missing = [token for token in SPECIAL_TOKENS if token not in entries]
    if missing:
        raise UsageError(
            f"the vocabulary lacks the special token(s) {' '.join(missing)}",
            hint="BART needs " + " ".join(SPECIAL_TOKENS),
        )


def encodable(text: str) -> str:
    """Text without lone surrogates, which have no UTF-8 form: each becomes U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text

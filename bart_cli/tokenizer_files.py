"""Read tokenizers of any kind from disk.

In: a folder with `tokenizer.json` (BPE, Unigram, WordPiece, … with any normalizer, pre-tokenizer,
post-processor and decoder), GPT-2's `vocab.json` and `merges.txt`, or BERT's `vocab.txt`. Out: a
backend of `tokenizers`, and the tokens that begin, end, pad and mask. These are read from
`tokenizer_config.json` and `special_tokens_map.json`, or else recognized by the names that BART,
BERT and mBART use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from bart_cli.errors import UsageError

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
# Role -> its names in the settings of `transformers`, and its tokens in BART and BERT.
ROLES = {
    "bos": (("bos_token", "cls_token"), ("<s>", "[CLS]")),
    "pad": (("pad_token",), ("<pad>", "[PAD]")),
    "eos": (("eos_token", "sep_token"), ("</s>", "[SEP]")),
    "unk": (("unk_token",), ("<unk>", "[UNK]")),
    "mask": (("mask_token",), ("<mask>", "[MASK]")),
}
FILES = ("tokenizer.json", "vocab.json", "vocab.txt")  # any of these indicates a tokenizer
HUB_FILES = (
    *("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "*.model"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
SETTINGS = "tokenizer_config.json"
# Classes of transformers that take everything from tokenizer.json.
GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
LANGUAGE = re.compile(r"[a-z]{2,3}_[A-Z]{2}")  # mBART's codes, such as en_XX
HIDDEN = "\0 "  # prefix that no piece of text has after pre-tokenization


def read_files(path: Path) -> tuple[tokenizers.Tokenizer, dict[str, str], dict[str, Any]]:
    """Read a tokenizer from a folder or a `tokenizer.json` file.

    Returns:
        the backend; the token of each role (see ROLES) in the vocabulary; the content of
        `tokenizer_config.json`, to write it back.

    Raises:
        UsageError: there is no tokenizer, a file is damaged, or it has no end or padding token.
    """
    folder = path if path.is_dir() else path.parent
    names: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    if path.is_dir() or path.name == "tokenizer.json":
        names = _read_json(folder / "special_tokens_map.json")
        settings = _read_json(folder / SETTINGS)
    if path.is_file():
        backend = _from_json(path)
    elif (folder / "tokenizer.json").is_file():
        backend = _from_json(folder / "tokenizer.json")
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        backend = _from_merges(folder, settings)
    elif (folder / "vocab.txt").is_file():
        backend, settings = _from_wordpieces(folder, settings)
    elif pieces := sorted(folder.glob("*.model")):
        raise UsageError(
            f"{pieces[0]} is a sentencepiece model, and {folder} has no tokenizer.json",
            hint="Create one: `pip install transformers sentencepiece protobuf`, then `python -c "
            f"\"from transformers import AutoTokenizer as A; A.from_pretrained('{folder}')"
            f".save_pretrained('{folder}')\"`.",
        )
    else:
        raise UsageError(
            f"no tokenizer in {path}: expected tokenizer.json, or vocab.json and merges.txt, "
            "or vocab.txt"
        )
    spaced, cutter = settings.get("add_prefix_space"), backend.pre_tokenizer
    follows = spaced is not None and settings.get("tokenizer_class") not in GENERIC
    if follows and isinstance(cutter, pre_tokenizers.ByteLevel):
        cutter.add_prefix_space = bool(spaced)
    roles = find_roles(backend, names | settings, folder)
    tokens = list(roles.values())
    for source in (names, settings):
        for name in ("additional_special_tokens", "extra_special_tokens"):
            listed = source.get(name)  # a list or, in newer files, an object
            values = list(listed.values()) if isinstance(listed, dict) else listed
            tokens += filter(None, map(_content, values if isinstance(values, list) else []))
    special = special_tokens(backend)
    known = [t for t in tokens if backend.token_to_id(t) is not None and t not in special]
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in known])
    return backend, roles, settings


def find_roles(
    backend: tokenizers.Tokenizer, names: dict[str, Any], where: object
) -> dict[str, str]:
    """Find the token of each role, as given in the settings or else by its usual name.

    Raises:
        UsageError: there is no token for end or padding.
    """
    roles = {}
    for role, (keys, spellings) in ROLES.items():
        candidates = [*(_content(names.get(key)) for key in keys), *spellings]
        found = next((t for t in candidates if t and backend.token_to_id(t) is not None), None)
        if found is not None:
            roles[role] = found
    lacking = [role for role in ("pad", "eos") if role not in roles]
    if lacking:
        wanted = ", ".join(" or ".join(ROLES[role][1]) for role in lacking)
        entries = ", ".join(f'"{ROLES[role][0][0]}": "…"' for role in lacking)
        raise UsageError(
            f"{where}: the vocabulary lacks the special token(s) {wanted}",
            hint=f"Name its own in {SETTINGS}: {entries}",
        )
    return roles


def special_tokens(backend: tokenizers.Tokenizer) -> dict[str, int]:
    """Return special tokens -> ids."""
    added = backend.get_added_tokens_decoder()
    return {token.content: index for index, token in added.items() if token.special}


def text_encoder(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return a backend that encodes special tokens spelled out in a text as ordinary text.

    `encode_special_tokens` keeps `tokenizers` from extracting special tokens from the text. The
    model may still match them if they are in its vocabulary (Unigram, WordPiece). In this case,
    rename them to strings that no text contains.
    """
    special = special_tokens(backend)
    if any(i in {p.id for p in backend.model.tokenize(token)} for token, i in special.items()):
        content = _hide(json.loads(backend.to_str()), special)
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    backend.encode_special_tokens = True
    return backend


def _hide(content: dict[str, Any], special: dict[str, int]) -> dict[str, Any]:
    def name(token: str) -> str:
        return f"{HIDDEN}{token}" if token in special else token

    model = content["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {name(token): index for token, index in model["vocab"].items()}
    else:
        model["vocab"] = [[name(token), score] for token, score in model["vocab"]]
    if "merges" in model:
        pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        model["merges"] = [[a, b] for a, b in pairs if not special.keys() & {a, b, a + b}]
    if model.get("unk_token") is not None:
        model["unk_token"] = name(model["unk_token"])
    for token in content["added_tokens"]:
        token["content"] = name(token["content"])
    content["post_processor"] = None
    return content


def frame(
    backend: tokenizers.Tokenizer, texts: Iterable[str] = ("a", "1", ".", "가", "中")
) -> tuple[list[int], list[int]]:
    """Return the ids that the post-processor adds before and after a text.

    If none of the texts can be encoded, entries of the vocabulary are used.
    """
    for text in texts:
        if backend.encode(text, add_special_tokens=False).ids:
            encoded = backend.encode(text)
            mask = encoded.special_tokens_mask
            begin = mask.index(0)
            end = len(mask) - mask[::-1].index(0)
            return encoded.ids[:begin], encoded.ids[end:]
    return frame(backend, backend.get_vocab(False)) if isinstance(texts, tuple) else ([], [])


def assemble(backend: tokenizers.Tokenizer) -> None:
    """Set pre-tokenizer, decoder, special tokens and post-processor of a BPE model as in BART."""
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        # As in the original, <mask> includes the space before it.
        [AddedToken(token, lstrip=token == "<mask>", normalized=False) for token in SPECIAL_TOKENS]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("<s>", "</s>")],
    )


def _from_json(path: Path) -> tokenizers.Tokenizer:
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises bare Exception
        raise UsageError(f"{path} is not a valid tokenizer.json: {error}") from None
    backend.no_padding()
    backend.no_truncation()
    return backend


def _from_merges(folder: Path, settings: dict[str, Any]) -> tokenizers.Tokenizer:
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    try:
        backend = tokenizers.Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    except Exception as error:  # `tokenizers` raises bare Exception
        raise UsageError(f"{vocabulary} and {merges} are not a BPE vocabulary: {error}") from None
    _add_tokens(backend, folder, settings)
    missing = [token for token in SPECIAL_TOKENS if backend.token_to_id(token) is None]
    if missing:
        raise UsageError(
            f"{vocabulary}: the vocabulary lacks the special token(s) {' '.join(missing)}",
            hint="BART needs " + " ".join(SPECIAL_TOKENS),
        )
    assemble(backend)
    return backend


def _from_wordpieces(
    folder: Path, settings: dict[str, Any]
) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """Build BERT's tokenizer, with the defaults of BertTokenizer in `transformers`."""
    path = folder / "vocab.txt"
    defaults: dict[str, Any] = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    settings = defaults | settings
    try:
        model = models.WordPiece.from_file(str(path), unk_token="[UNK]")
    except Exception as error:  # `tokenizers` raises bare Exception
        raise UsageError(f"{path} is not a WordPiece vocabulary: {error}") from None
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings["do_lower_case"],
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    _add_tokens(backend, folder, settings)
    roles = find_roles(backend, settings, folder)
    if "bos" not in roles:
        raise UsageError(f"{path}: the vocabulary lacks [CLS]")
    first, last = roles["bos"], roles["eos"]
    backend.post_processor = processors.TemplateProcessing(
        single=[first, "$A", last],
        pair=[first, "$A", last, "$B", last],
        special_tokens=[(token, backend.token_to_id(token)) for token in (first, last)],
    )
    return backend, settings


def _add_tokens(backend: tokenizers.Tokenizer, folder: Path, settings: dict[str, Any]) -> None:
    """Add the tokens listed in `added_tokens.json` and the settings, and check their ids."""
    path = folder / "added_tokens.json"
    listed = {index: AddedToken(token) for token, index in _read_json(path).items()}
    for index, token in dict(settings.get("added_tokens_decoder") or {}).items():
        listed[int(index)] = AddedToken(**token)
    for index, token in sorted(listed.items()):
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
        if backend.token_to_id(token.content) != index:
            raise UsageError(
                f"{folder}: the added token {token.content!r} has id {index}, "
                f"but its position in the vocabulary is {backend.token_to_id(token.content)}"
            )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a JSON object")
    return content


def _content(token: object) -> str | None:
    """The content of a special token, given as a string or an object with properties."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None

"""KoBART, bart-base-chinese, BARThez, mBART and mBART-50, in miniature, against `transformers`.

Each folder has the real one's special tokens, ids, normalizer, pre-tokenizer, post-processor and
settings; vocabularies are trained on a few lines, weights are random.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers import Tokenizer as Backend

from bart_cli.cli.generation import load_with_model, saved_with
from bart_cli.cli.options import ConfigOptions
from bart_cli.config.run import EvaluateConfig, FinetuneConfig
from bart_cli.data.batch import Collate
from bart_cli.data.words import word_starts
from bart_cli.errors import UsageError
from bart_cli.inference.generate import generate
from bart_cli.inference.load import load_for_inference
from bart_cli.progress import Reporter
from bart_cli.summarize.summarizer import Summarizer
from bart_cli.tokenizer import Tokenizer
from bart_cli.training.finetune import run_finetune

ENGLISH = "The mayor opened the new bridge on Monday. Şeful a deschis podul la 7."
FRENCH = "Le maire a inauguré le nouveau pont lundi. C'était « très attendu »."
KOREAN = "서울시는 월요일에 새 다리를 열었다. 시민들은 10년을 기다렸다."
CHINESE = "市长星期一为新大桥剪彩。The old one closed in 1998。"
MASK = AddedToken("<mask>", lstrip=True, normalized=False)
CODES = ["en_XX", "fr_XX", "ro_RO"]
SMALL = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "init_std": 0.4,
}


def kobart(folder: Path) -> transformers.PreTrainedModel:
    """BPE with metaspaces, without a post-processor, so texts get no special tokens; </s> is 1."""
    special = ["<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>"]
    backend = Backend(models.BPE(unk_token="<unk>"))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.train_from_iterator(
        [KOREAN] * 9, trainers.BpeTrainer(vocab_size=150, special_tokens=special)
    )
    backend.save(str(folder / "tokenizer.json"))
    write(folder / "special_tokens_map.json", roles("<s>", "</s>", "<unk>", "<pad>", "<mask>"))
    ids = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 3, "decoder_start_token_id": 1}
    config = transformers.BartConfig(
        vocab_size=backend.get_vocab_size(),
        max_position_embeddings=1026,
        forced_eos_token_id=1,
        tokenizer_class="PreTrainedTokenizerFast",
        **ids,
        **SMALL,
    )
    return transformers.BartForConditionalGeneration(config)


def chinese(folder: Path) -> transformers.PreTrainedModel:
    """BERT's tokenizer: WordPiece with only vocab.txt; texts are enclosed in [CLS] and [SEP]."""
    pieces = ["[PAD]", *(f"[unused{i}]" for i in range(1, 20)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces += [*sorted(set(CHINESE.lower()) - {" "}), "the", "##e", "clos", "##ed", "##d", "##9"]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), "utf-8")
    write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    at = pieces.index
    config = transformers.BartConfig(
        vocab_size=len(pieces),
        bos_token_id=at("[CLS]"),
        eos_token_id=at("[SEP]"),
        pad_token_id=at("[PAD]"),
        decoder_start_token_id=at("[SEP]"),
        forced_eos_token_id=at("[SEP]"),
        max_position_embeddings=512,
        tokenizer_class="BertTokenizer",
        **SMALL,
    )
    return transformers.BartForConditionalGeneration(config)


def barthez(folder: Path) -> transformers.PreTrainedModel:
    """Unigram; mBART's architecture with BART's special tokens."""
    backend = unigram(FRENCH, [])
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "),
            normalizers.NFC(),
            normalizers.Strip(left=False, right=True),
        ]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    backend.save(str(folder / "tokenizer.json"))
    settings = roles("<s>", "</s>", "<unk>", "<pad>", "<mask>")
    write(folder / "tokenizer_config.json", settings | {"tokenizer_class": "BarthezTokenizer"})
    size = backend.get_vocab_size()
    return mbart(size, decoder_start_token_id=2, forced_eos_token_id=2)


def mbart25(folder: Path) -> transformers.PreTrainedModel:
    """Unigram; </s> and the language follow the text, and the decoder starts with the language."""
    backend = unigram(ENGLISH, CODES)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    code = backend.token_to_id("en_XX")
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s> en_XX", special_tokens=[("</s>", 2), ("en_XX", code)]
    )
    backend.save(str(folder / "tokenizer.json"))
    settings = roles("<s>", "</s>", "<unk>", "<pad>", "<mask>")
    write(folder / "tokenizer_config.json", settings | {"tokenizer_class": "MBartTokenizer"})
    return mbart(backend.get_vocab_size(), decoder_start_token_id=code, forced_eos_token_id=2)


def mbart50(folder: Path) -> transformers.PreTrainedModel:
    """Unigram; the language precedes the text, and is the first generated token."""
    backend = unigram(ENGLISH, CODES)
    backend.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    code = backend.token_to_id("en_XX")
    backend.post_processor = processors.TemplateProcessing(
        single="en_XX $A </s>", special_tokens=[("</s>", 2), ("en_XX", code)]
    )
    backend.save(str(folder / "tokenizer.json"))
    settings = roles("<s>", "</s>", "<unk>", "<pad>", "<mask>")
    settings |= {"tokenizer_class": "MBart50Tokenizer", "src_lang": "en_XX"}
    write(folder / "tokenizer_config.json", settings)
    return mbart(
        backend.get_vocab_size(),
        decoder_start_token_id=2,
        forced_eos_token_id=2,
        forced_bos_token_id=backend.token_to_id("ro_RO"),
    )


def mbart(size: int, **ids: int) -> transformers.PreTrainedModel:
    config = transformers.MBartConfig(
        vocab_size=size, max_position_embeddings=1024, scale_embedding=True, **ids, **SMALL
    )
    return transformers.MBartForConditionalGeneration(config)


def unigram(text: str, codes: list[str]) -> Backend:
    backend = Backend(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>")
    backend.train_from_iterator([text, "<s> <m>"] * 9, trainer)
    model = json.loads(backend.to_str())["model"]
    # As in the real files, special tokens are pieces with the best score.
    pieces = [(token, score) for token, score in model["vocab"]]
    pieces += [(token, 0.0) for token in [*codes, "<mask>"]]
    backend.model = models.Unigram(pieces, unk_id=3)
    backend.add_special_tokens([*special, *codes, MASK])
    return backend


def roles(bos: str, eos: str, unk: str, pad: str, mask: str) -> dict[str, str]:
    return {
        "bos_token": bos,
        "eos_token": eos,
        "unk_token": unk,
        "pad_token": pad,
        "mask_token": mask,
        "cls_token": bos,
        "sep_token": eos,
    }


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


KINDS: dict[str, tuple[Callable[[Path], transformers.PreTrainedModel], str]] = {
    "kobart": (kobart, KOREAN),
    "chinese": (chinese, CHINESE),
    "barthez": (barthez, FRENCH),
    "mbart25": (mbart25, ENGLISH),
    "mbart50": (mbart50, ENGLISH),
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make a folder for each type of tokenizer."""
    folders = {}
    for name, (make, _) in KINDS.items():
        folder = folders[name] = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        model = make(folder)
        model.generation_config.num_beams = 3
        model.generation_config.max_length = 24
        model.save_pretrained(folder)
    return folders


def their_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerBase:
    """Load the files as they are, not through a class that rebuilds the tokenizer from parts."""
    if not (folder / "tokenizer.json").is_file():
        return transformers.BertTokenizer.from_pretrained(folder)
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_summaries_equal_transformers(zoo: dict[str, Path], kind: str) -> None:
    folder, text = zoo[kind], KINDS[kind][1]
    texts = [text, text.split(". ")[0], f"{text}  {text} 𝕏"]
    loaded = load_for_inference(str(folder))
    ours, theirs = loaded.tokenizer, their_tokenizer(folder)
    rows = ours.encode_batch(texts)
    assert rows == [theirs(t)["input_ids"] for t in texts]
    cut = len(rows[0]) // 2
    assert (
        ours.encode(text, max_length=cut)
        == (theirs(text, truncation=True, max_length=cut)["input_ids"])
    )
    assert loaded.saved is not None
    found = [best.tokens for best, *_ in generate(loaded.model, rows, loaded.saved.config)]
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    for row, tokens in zip(rows, found, strict=True):
        expected = model.generate(torch.tensor([row]))[0].tolist()[1:]
        assert tokens == expected
        assert ours.decode(tokens) == theirs.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_a_text_are_characters(zoo: dict[str, Path], kind: str) -> None:
    tokenizer = Tokenizer.from_pretrained(zoo[kind])
    special = list(tokenizer.special)
    for text in (" ".join(special), "a".join(special)):
        (row,) = tokenizer.encode_batch([text], special=False)
        assert row
        assert not set(row) & (set(tokenizer.special.values()) - {tokenizer.unk_id})


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_is_the_same(zoo: dict[str, Path], kind: str, tmp_path: Path) -> None:
    text = KINDS[kind][1]
    before = Tokenizer.from_pretrained(zoo[kind])
    before.save(tmp_path)
    after = Tokenizer.from_pretrained(tmp_path)
    assert after.fingerprint() == before.fingerprint()
    assert after.encode(text) == before.encode(text) == their_tokenizer(tmp_path)(text)["input_ids"]
    names = ("bos_id", "pad_id", "eos_id", "unk_id", "mask_id", "target_frame")
    assert [getattr(after, n) for n in names] == [getattr(before, n) for n in names]


@pytest.mark.parametrize("kind", ["kobart", "barthez", "mbart25", "mbart50"])
def test_words_begin_at_metaspaces(zoo: dict[str, Path], kind: str) -> None:
    tokenizer = Tokenizer.from_pretrained(zoo[kind])
    text = KINDS[kind][1]
    (row,) = tokenizer.encode_batch([text], special=False)
    assert word_starts(tokenizer)[row].sum() == len(text.split())


def test_words_of_wordpiece_begin_at_tokens_without_a_mark(zoo: dict[str, Path]) -> None:
    tokenizer = Tokenizer.from_pretrained(zoo["chinese"])
    (row,) = tokenizer.encode_batch(["closed市长"], special=False)
    assert word_starts(tokenizer)[row].tolist() == [True, False, True, True]


@pytest.mark.parametrize("kind", ["mbart25", "mbart50"])
def test_languages_frame_sources_and_targets(zoo: dict[str, Path], kind: str) -> None:
    folder = zoo[kind]
    ours = Tokenizer.from_pretrained(folder).with_languages("fr_XX", "ro_RO")
    fr, ro = ours.languages["fr_XX"], ours.languages["ro_RO"]
    (source,), (target,) = ours.encode_batch(["a"]), ours.encode_targets(["a"])
    if kind == "mbart50":
        assert (source[0], source[-1], target[0], target[-1]) == (fr, 2, ro, 2)
    else:
        assert (source[-2:], target[-2:]) == ([2, fr], [2, ro])
    batch = Collate(1, None)([source, source], [target, [*target[:-2], *target]])
    labels = batch.labels.masked_fill(batch.labels < 0, 1)
    expected = transformers.models.mbart.modeling_mbart.shift_tokens_right(labels, 1)
    assert torch.equal(batch.decoder_input, expected)
    with pytest.raises(UsageError, match="no language xx_XX"):
        ours.with_languages("xx_XX", None)


@pytest.mark.parametrize("kind", ["mbart25", "mbart50"])
def test_a_target_language_starts_the_summary_as_in_transformers(
    zoo: dict[str, Path], kind: str
) -> None:
    folder = zoo[kind]
    summarizer = Summarizer.from_pretrained(folder, target_language="fr_XX")
    code = summarizer.tokenizer.languages["fr_XX"]
    (row,) = summarizer.tokenizer.encode_batch([ENGLISH])
    ((best,),) = generate(summarizer.model, [row], summarizer.generation)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    first = "forced_bos_token_id" if kind == "mbart50" else "decoder_start_token_id"
    expected = model.generate(torch.tensor([row]), **{first: code})[0].tolist()
    assert best.tokens == expected[1:]
    with pytest.raises(UsageError, match="no language de_DE in the tokenizer; it has en_XX"):
        Summarizer.from_pretrained(folder, target_language="de_DE")


def test_fine_tuning_mbart50_and_decoding_in_its_language(
    zoo: dict[str, Path], tmp_path: Path
) -> None:
    lines = [json.dumps({"article": ENGLISH, "summary": "Şeful a deschis podul."})] * 4
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    config = FinetuneConfig.model_validate(
        {
            "init_from": str(zoo["mbart50"]),
            "data": {
                "path": tmp_path,
                "source_language": "en_XX",
                "target_language": "ro_RO",
                "max_source_length": 512,
                "max_target_length": 64,
            },
            "model": {"dropout": 0.0},
            "schedule": {"warmup_steps": 1},
            "training": {
                "label_smoothing": 0.0,
                "log_every": 1,
                "max_steps": 2,
                "micro_batch": 2,
                "global_batch": 2,
                "precision": "fp32",
                "validate_every": None,
            },
        }
    )
    result = run_finetune(config, tmp_path / "run", reporter=Reporter())
    assert result.model is not None
    assert result.first_loss is not None
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(zoo["mbart50"]).eval()
    tokenizer = Tokenizer.from_pretrained(zoo["mbart50"]).with_languages("en_XX", "ro_RO")
    source, target = tokenizer.encode(ENGLISH), tokenizer.encode_targets(["Şeful a deschis podul."])
    labels = torch.tensor(target)
    loss = theirs(input_ids=torch.tensor([source]), labels=labels).loss.item()
    assert result.first_loss == pytest.approx(loss, rel=1e-4)
    summarizer = Summarizer.from_pretrained(result.model)
    assert summarizer.tokenizer.target_language == "ro_RO"
    ((best,),) = generate(summarizer.model, [source], summarizer.generation)
    assert best.tokens[0] == summarizer.tokenizer.languages["ro_RO"]


@pytest.mark.parametrize(("kind", "forced"), [("kobart", False), ("barthez", True)])
def test_fine_tuning_forces_the_first_token_of_the_targets(
    zoo: dict[str, Path], tmp_path: Path, kind: str, forced: bool
) -> None:
    """KoBART's <s> equals its </s>: if it were forced, every summary would be empty."""
    text = KINDS[kind][1]
    line = json.dumps({"article": text, "summary": text[:20]}, ensure_ascii=False)
    (tmp_path / "train.jsonl").write_text(f"{line}\n", "utf-8")
    config = FinetuneConfig.model_validate(
        {
            "init_from": str(zoo[kind]),
            "data": {"path": tmp_path},
            "schedule": {"warmup_steps": 0},
            "training": {"max_steps": 1, "micro_batch": 1, "global_batch": 1, "precision": "fp32"}
            | {"validate_every": None},
        }
    )
    result = run_finetune(config, tmp_path / "run", reporter=Reporter())
    assert result.model is not None
    summarizer = Summarizer.from_pretrained(result.model)
    assert summarizer.generation.forced_bos is forced
    assert summarizer.summarize(text).text
    preset = ConfigOptions(preset="cnn-dm-dgxa100-1gpu-bf16")  # for models that start with <s>
    for source, asked in ((zoo[kind], None), (result.model, None), (zoo[kind], True)):
        options = {"model_path": str(source), "generation.forced_bos": asked}
        evaluated, _ = load_with_model(
            preset, EvaluateConfig, options, lambda config: saved_with(config.model_path)
        )
        assert evaluated.generation.forced_bos is (forced or asked is True)

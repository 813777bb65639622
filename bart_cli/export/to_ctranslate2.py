"""Export to CTranslate2, with its own converter, and compare the results with ours.

In: the contents of an export. Out: `model.bin`, `config.json`, `shared_vocabulary.json` and the
tokenizer; and `generation_config.json` for callers, since CTranslate2 reads no decoding settings.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bart_cli.config.commands import ExportDtype
from bart_cli.config.generation import GenerationConfig
from bart_cli.errors import BartError, first_line
from bart_cli.export.contents import Comparison, Contents
from bart_cli.inference.generate import generate
from bart_cli.model import hf_config
from bart_cli.model.bart import Bart
from bart_cli.model.formats import write_json, write_weights
from bart_cli.summarize.long_texts import encode_texts

QUANTIZATION: dict[ExportDtype, str] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
ARTICLES = 8
LENGTHS = (512, 64)  # maximum tokens of an article and of a summary
# Largest difference of a token's log probability. Equal tokens are not required: two tokens may be
# almost equally likely.
TOLERANCE = 1e-3
BUILT_IN = (
    "The mayor of Marlow opened a new bridge over the river on Monday. The old bridge was closed "
    "in 1998 after heavy rain had damaged two of its pillars. Shop owners said that business had "
    "already improved, and the council expects 12,000 cars a day.",
    "A museum in the north of the country has received a collection of 340 maps from the estate of "
    "a teacher. The oldest was drawn in 1587. An exhibition will open in May, and entry is free "
    "for children under twelve.",
    "Researchers counted 5,600 seabirds on the islands this summer, a third more than in the year "
    "before. “We had not expected that,” said one of them. Fishing near the cliffs was banned in "
    "2019.",
)


def write_ctranslate2(
    folder: Path, contents: Contents, articles: Callable[[int], list[str]]
) -> Comparison:
    """Convert a model, and compare greedy search and log probabilities."""
    import transformers
    from ctranslate2.converters import TransformersConverter

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = contents.model
    heads = (model.config.encoder_attention_heads, model.config.decoder_attention_heads)
    if heads[0] != heads[1]:
        raise BartError(
            f"this model has {heads[0]} attention heads in its encoder and {heads[1]} in its "
            "decoder; CTranslate2 allows one number only"
        )
    with tempfile.TemporaryDirectory(dir=folder) as name:
        source, converted = Path(name, "source"), Path(name, "converted")
        write_weights(source, model.config, model.state_dict(), contents.tokenizer, None)
        try:
            TransformersConverter(str(source)).convert(
                str(converted), quantization=QUANTIZATION[contents.dtype]
            )
        except (KeyError, ValueError, RuntimeError, NotImplementedError) as error:
            raise BartError(
                f"CTranslate2 cannot convert this model: {first_line(error)}"
            ) from error
        for file in converted.iterdir():
            shutil.move(file, folder / file.name)
    vocabulary = json.loads((folder / "shared_vocabulary.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # For mBART the converter leaves this open: it expects callers to pass a language.
    settings["decoder_start_token"] = vocabulary[model.config.decoder_start_token_id]
    write_json(folder / "config.json", settings)
    decoding = hf_config.generation_to_hf(model.config, contents.generation)
    write_json(folder / "generation_config.json", decoding)
    contents.tokenizer.save(folder)
    return _compare(folder, contents, vocabulary, articles(ARTICLES))


def _compare(
    folder: Path, contents: Contents, vocabulary: Sequence[str], articles: Sequence[str]
) -> Comparison:
    import ctranslate2

    model, tokenizer = contents.model, contents.tokenizer
    positions = model.config.max_position_embeddings
    read, written = (min(length, positions) for length in LENGTHS)
    words, prefix = tokenizer.fitted(model.config.vocab_size), model.config.prefix
    encoded = encode_texts(articles or BUILT_IN, words, read, whole=False, prefix=prefix)
    sources = [text.pieces[0] for text in encoded if text.pieces]
    eos = model.config.eos_token_id
    greedy = GenerationConfig(
        beams=1, max_length=written, no_repeat_ngram=0, forced_bos=False, forced_eos=False
    )
    ours = [best.tokens for best, *_ in generate(model, sources, greedy)]
    ours = [tokens[:-1] if tokens[-1:] == [eos] else tokens for tokens in ours]
    translator = ctranslate2.Translator(str(folder), device="cpu", compute_type="float32")

    def named(rows: Sequence[Sequence[int]]) -> list[list[str]]:
        return [[vocabulary[token] for token in row] for row in rows]

    theirs = translator.translate_batch(
        named(sources),
        beam_size=1,
        max_input_length=0,
        min_decoding_length=0,
        max_decoding_length=written - 1,
    )
    equal = sum(
        result.hypotheses[0] == row for result, row in zip(theirs, named(ours), strict=True)
    )
    scored: list[Any] = translator.score_batch(named(sources), named(ours), max_input_length=0)
    difference = 0.0
    for source, tokens, result in zip(sources, ours, scored, strict=True):
        found = torch.tensor(result.log_probs)
        expected = _log_probabilities(model, source, [*tokens, eos])
        if len(found) != len(expected):
            raise BartError(f"CTranslate2 scores {len(found)} of {len(expected)} tokens")
        difference = max(difference, float((found - expected).abs().max()))
    if not difference <= TOLERANCE:
        raise BartError(
            f"CTranslate2's log probabilities of our summaries differ by {difference:.3g} from the "
            "model's; the export was deleted"
        )
    where = "the run's data" if articles else "built-in articles"
    return Comparison("CTranslate2", difference, equal, len(sources), where)


@torch.inference_mode()
def _log_probabilities(model: Bart, source: list[int], tokens: list[int]) -> torch.Tensor:
    """Return the log probability of each token given its predecessors, [T]."""
    begin = [model.config.decoder_start_token_id, *tokens[:-1]]
    hidden = model(torch.tensor([source]), None, torch.tensor([begin]))
    every_TV = model.logits(hidden)[0].log_softmax(-1)
    return every_TV.gather(1, torch.tensor(tokens)[:, None])[:, 0]

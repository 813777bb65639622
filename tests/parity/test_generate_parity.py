"""Decoding against `transformers`' generate: token for token, in fp32, over random options."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, MBartConfig
from transformers import MBartForConditionalGeneration as MBart

from bart_cli.config.generation import GenerationConfig
from bart_cli.inference.generate import generate
from bart_cli.model.bart import Bart
from bart_cli.model.hf_config import to_hf
from tests.conftest import tiny_model_config

CASES_PER_SEED = 25
VOCABULARY = 60


def models(seed: int, *, pre_layer_norm: bool) -> tuple[Bart, torch.nn.Module]:
    """Random twins. Large weights make sharp distributions, so that ties do not decide."""
    torch.manual_seed(seed)
    config = tiny_model_config(vocab_size=VOCABULARY, pre_layer_norm=pre_layer_norm, init_std=0.3)
    ours = Bart(config).eval()
    with torch.no_grad():
        ours.final_logits_bias[0, config.eos_token_id] = 4.0  # some hypotheses end early
    settings = {k: v for k, v in to_hf(config).items() if k not in ("architectures", "model_type")}
    theirs = (
        MBart(MBartConfig(**settings))
        if pre_layer_norm
        else BartForConditionalGeneration(BartConfig(**settings))
    )
    theirs.load_state_dict(ours.state_dict(), strict=False)
    theirs.tie_weights()
    return ours, theirs.eval()


def random_options(pick: random.Random) -> dict[str, object]:
    """Options under our names."""
    beams = pick.choice([1, 2, 4, 6])
    longest = pick.choice([2, 4, 9, 16, 24])
    return {
        "beams": beams,
        "max_length": longest,
        "min_length": pick.choice([0, 0, min(3, longest), longest // 2]),
        "length_penalty": pick.choice([0.0, 0.6, 1.0, 2.0, -1.0]),
        "no_repeat_ngram": pick.choice([0, 0, 1, 2, 3]),
        "early_stopping": pick.choice([True, False, "never"]),
        "forced_bos": pick.random() < 0.5,
        "forced_eos": pick.random() < 0.5,
        "repetition_penalty": pick.choice([1.0, 1.0, 1.3]),
        "return_sequences": pick.choice([1, beams]),
    }


def their_tokens(
    theirs: torch.nn.Module, sources: list[list[int]], options: dict[str, object]
) -> list[list[int]]:
    """Generated ids without start token and padding, `return_sequences` rows per source."""
    width = max(map(len, sources))
    ids = torch.tensor([row + [1] * (width - len(row)) for row in sources])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in sources])
    beams = options["beams"]
    output = theirs.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        num_beams=beams,
        max_length=options["max_length"],
        min_length=options["min_length"],
        length_penalty=options["length_penalty"] if beams != 1 else None,
        no_repeat_ngram_size=options["no_repeat_ngram"],
        early_stopping=options["early_stopping"] if beams != 1 else None,
        forced_bos_token_id=0 if options["forced_bos"] else None,
        forced_eos_token_id=2 if options["forced_eos"] else None,
        repetition_penalty=options["repetition_penalty"],
        num_return_sequences=options["return_sequences"],
    )
    rows = []
    for row in output[:, 1:].tolist():
        end = row.index(2) + 1 if 2 in row else len(row)
        rows.append(row[:end])
    return rows


@pytest.mark.parametrize("pre_layer_norm", [False, True], ids=["post-LN", "Pre-LN"])
@pytest.mark.parametrize("seed", range(10))
def test_equals_transformers_token_for_token(seed: int, pre_layer_norm: bool) -> None:
    ours, theirs = models(seed, pre_layer_norm=pre_layer_norm)
    pick = random.Random(f"{seed}-{pre_layer_norm}")
    ended = 0
    for _ in range(CASES_PER_SEED):
        options = random_options(pick)
        sources = [
            [0, *(pick.randrange(4, VOCABULARY) for _ in range(pick.randint(1, 14))), 2]
            for _ in range(pick.randint(1, 4))
        ]
        expected = their_tokens(theirs, sources, options)
        found = generate(ours, sources, GenerationConfig.model_validate(options), batch_size=3)
        # Padding and the unfinished look alike behind a cut row: compare what was generated.
        flat = [h.tokens for hypotheses in found for h in hypotheses]
        width = min(len(row) for row in expected)
        assert width >= 1
        trimmed = [
            row if row[-1] == 2 else row[: len(mine)]
            for row, mine in zip(expected, flat, strict=True)
        ]
        assert flat == trimmed, options
        ended += sum(row[-1] == 2 and len(row) < options["max_length"] - 1 for row in flat)
    assert ended, "no hypothesis ended early: the cases test too little"

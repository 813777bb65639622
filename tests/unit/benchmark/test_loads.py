"""What is timed: random tokens of real lengths, the real engines, and arithmetic counted right."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bart_cli.benchmark.decoding_load import DecodingLoad, decoding_work
from bart_cli.benchmark.random_tokens import (
    ARTICLES,
    check_memory,
    draw_lengths,
    random_articles,
    random_pairs,
    random_samples,
)
from bart_cli.benchmark.session import is_out_of_memory
from bart_cli.benchmark.spec import ArmSpec, DecodingSpec, TrainingSpec
from bart_cli.benchmark.training_load import TrainingLoad
from bart_cli.config.benchmark import BenchmarkConfig
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.config.run import PretrainConfig
from bart_cli.data.batch import IGNORE
from bart_cli.runtime.world import World
from tests.conftest import tiny_model_config

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)


def arm(load: TrainingSpec | DecodingSpec, **benchmark: object) -> ArmSpec:
    return ArmSpec(sizes=(2,), benchmark=BenchmarkConfig.model_validate(benchmark), load=load)


def test_lengths_are_distributed_as_in_the_real_articles() -> None:
    rng = np.random.default_rng(0)
    drawn = draw_lengths(rng, ARTICLES, 20_000, 10_000, "real")
    found = np.percentile(drawn, range(0, 101, 10))
    assert found[1:-1] == pytest.approx(ARTICLES[1:-1], rel=0.03)
    assert draw_lengths(rng, ARTICLES, 50, 1024, "real").max() <= 1024
    assert set(draw_lengths(rng, ARTICLES, 50, 1024, "full").tolist()) == {1024}


def test_random_batches_look_like_those_of_the_loaders() -> None:
    config, rng = tiny_model_config(), np.random.default_rng(0)
    for batch in (
        random_samples(rng, 4, 62, config, "real"),
        random_pairs(rng, 4, (50, 20), config, "real"),
    ):
        assert batch.source.shape[1] % 8 == 0
        assert torch.equal(batch.source_mask, batch.source != config.pad_token_id)
        assert (batch.source[:, 0] == config.bos_token_id).all()
        assert (batch.decoder_input[:, 0] == config.decoder_start_token_id).all()
        lengths = (batch.labels != IGNORE).sum(1)
        ends = batch.labels[torch.arange(4), lengths - 1]
        assert (ends == config.eos_token_id).all()
    sources = random_articles(rng, 3, 40, config, "full")
    assert [len(row) for row in sources] == [40, 40, 40]


def test_a_batch_larger_than_memory_is_refused_at_once() -> None:
    check_memory(8, 1024)
    with pytest.raises(MemoryError):
        check_memory(10**12, 1024)


def test_a_training_step_of_the_benchmark_moves_the_weights_and_counts_its_work() -> None:
    run = PretrainConfig.model_validate(
        {"model": tiny_model_config().model_dump(), "data": {"sequence_length": 32}}
    )
    load = TrainingLoad(TrainingSpec(run=run), arm(TrainingSpec(run=run)), ALONE)
    load.prepare(2)
    before = load._job.model.model.shared.weight.clone()
    work = load.run()
    assert not torch.equal(before, load._job.model.model.shared.weight)
    assert work.items == 2
    assert work.tokens == 2 * (32 + int(32 * (0.7 + 0.3 / 3.5)))
    shape = load.shape()
    assert (shape.rows, shape.inner, shape.columns) == (64, 32, 64)


def test_random_weights_decode_to_the_full_length_every_time() -> None:
    spec = DecodingSpec(
        model=tiny_model_config(),
        length=32,
        generation=GenerationConfig(beams=2, max_length=12, no_repeat_ngram=0),
    )
    load = DecodingLoad(spec, arm(spec, lengths="full"), ALONE)
    load.prepare(2)
    assert load.run().tokens == 2 * (32 + 11)  # without the start token


def test_flops_of_decoding_agree_with_torchs_counter() -> None:
    config = tiny_model_config(d_model=64, encoder_ffn_dim=256, decoder_ffn_dim=256)
    source, target, beams = [0] * 48, 24, 3
    work = decoding_work(config, [source], [target], beams, ALONE)
    with sdpa_kernel(SDPBackend.MATH):  # whose products the counter sees
        counted = _counted(config, len(source), target, beams)
    assert work.flops == pytest.approx(counted, rel=0.05)


def _counted(config: ModelConfig, source: int, target: int, beams: int) -> float:
    """The encoder once, its keys and values once, and the decoder's passes over all beams."""
    from bart_cli.model.bart import Bart

    model = Bart(config).eval()
    ids = torch.zeros(1, source, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as encoder:
        model.encode(ids)
    with torch.no_grad(), FlopCounterMode(display=False) as decoder:
        hidden = model.decode(torch.zeros(1, target, dtype=torch.long), model.encode(ids), None)
        model.logits(hidden)
    once = encoder.get_total_flops()
    pass_over = decoder.get_total_flops() - once
    keys = config.decoder_layers * 2 * 2 * source * config.d_model**2
    d, layers = config.d_model, config.decoder_layers
    upper_half = layers * 2 * target * target * d  # masked scores and values, which torch counts
    return once + keys + beams * (pass_over - keys - upper_half)


WATCHED = """
import torch
from bart_cli.benchmark.session import peak_memory, reset_peak

cpu = torch.device("cpu")
reset_peak(cpu)
print(peak_memory(cpu))
block = torch.ones(40_000_000)
del block
print(peak_memory(cpu))
reset_peak(cpu)
print(peak_memory(cpu))
"""


def test_peak_memory_is_measured_separately_for_every_row() -> None:
    # In a process of its own: other tests tell theirs to keep freed memory.
    result = subprocess.run(
        [sys.executable, "-c", WATCHED], capture_output=True, text=True, check=True
    )
    before, high, anew = map(int, result.stdout.split())
    assert high - before > 100_000_000
    assert anew < high - 50_000_000


def test_failed_allocations_are_distinguished_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))

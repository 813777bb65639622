"""What is timed: random tokens of real lengths, the real engines, and arithmetic counted right."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bart_cli.benchmark import loads
from bart_cli.benchmark.loads import (
    ARTICLES,
    DecodingLoad,
    TrainingLoad,
    draw_lengths,
    pool_of,
    random_rows,
)
from bart_cli.benchmark.session import Case, Load, Product, Units
from bart_cli.config.commands import BenchmarkConfig
from bart_cli.config.generation import GenerationConfig
from bart_cli.config.model import ModelConfig
from bart_cli.config.run import FinetuneConfig, PretrainConfig
from bart_cli.data.batch import IGNORE, Batch
from bart_cli.model.bart import Bart
from bart_cli.runtime.flops import decoding_flops
from bart_cli.runtime.memory import is_out_of_memory
from bart_cli.runtime.world import World
from tests.conftest import tiny_model_config

ALONE = World(0, 1, torch.device("cpu"))
MODEL = tiny_model_config().model_dump()


def started(load: Load, **benchmark: object) -> tuple[Product | None, Units]:
    return load.start(Case(load, (2,), BenchmarkConfig.model_validate(benchmark)), ALONE)


def test_lengths_are_distributed_as_in_the_real_articles() -> None:
    rng = np.random.default_rng(0)
    drawn = draw_lengths(rng, ARTICLES, 20_000, 10_000, "real")
    found = np.percentile(drawn, range(0, 101, 10))
    assert found[1:-1] == pytest.approx(ARTICLES[1:-1], rel=0.03)
    assert draw_lengths(rng, ARTICLES, 50, 1024, "real").max() <= 1024
    lengths = draw_lengths(rng, ARTICLES, 5, 40, "full")
    config = tiny_model_config()
    for row in random_rows(rng, lengths, config):
        assert len(row) == 40
        assert (row[0], row[-1]) == (config.bos_token_id, config.eos_token_id)
        assert set(row[1:-1]).isdisjoint({0, 1, 2})


def test_a_batch_beyond_the_memory_of_the_machine_is_refused_before_it_is_made() -> None:
    assert list(zip(range(3), pool_of(2**21, 2, lambda: "batch"), strict=False))
    with pytest.raises(MemoryError):
        pool_of(10**12, 1024, lambda: pytest.fail("made"))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_units_of_training_are_steps_on_batches_as_loaders_make_them(
    accumulation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_model_config()
    data = {"max_source_length": 50, "max_target_length": 20}
    run = FinetuneConfig.model_validate({"model": MODEL, "data": data})
    seen: list[Batch] = []
    monkeypatch.setattr(loads, "bart_step", lambda *inputs: seen.extend)
    _, units = started(TrainingLoad("Fine-tuning", 50, run), accumulation=accumulation)
    work = next(units(2))
    assert work.items == 2 * accumulation == 2 * len(seen)
    assert work.tokens == sum(int(b.source_mask.sum() + (b.labels != IGNORE).sum()) for b in seen)
    for batch in seen:
        assert batch.source.shape[1] % 8 == 0
        assert torch.equal(batch.source_mask, batch.source != config.pad_token_id)
        assert (batch.decoder_input[:, 0] == config.decoder_start_token_id).all()


def test_a_training_step_of_the_benchmark_moves_the_weights_and_counts_its_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = PretrainConfig.model_validate({"model": MODEL, "data": {"sequence_length": 32}})
    model = Bart(run.model)
    before = model.model.shared.weight.clone()
    monkeypatch.setattr(loads, "Bart", lambda config: model)
    monkeypatch.setattr(loads, "RATE", 1e-3)
    product, units_of = started(TrainingLoad("Pre-training", 32, run))
    units = units_of(2)
    assert next(units).tokens == next(units).tokens == 2 * (32 + int(32 * (0.7 + 0.3 / 3.5)))
    assert not torch.equal(before, model.model.shared.weight)
    assert product == (32, 64, torch.float32)


def test_random_weights_decode_to_the_full_length_every_time() -> None:
    decoding = GenerationConfig(beams=2, max_length=12, no_repeat_ngram=0)
    load = DecodingLoad("Inference", 32, tiny_model_config(), decoding)
    _, units = started(load, lengths="full")
    assert next(units(2)).tokens == 2 * (32 + 11)  # without the start token


def test_flops_of_decoding_agree_with_torchs_counter() -> None:
    config = tiny_model_config(d_model=64, encoder_ffn_dim=256, decoder_ffn_dim=256)
    source, target, beams = [0] * 48, 24, 3
    lengths = torch.tensor([len(source)]), torch.tensor([target])
    flops = decoding_flops(config, *lengths, beams)
    with sdpa_kernel(SDPBackend.MATH):  # whose products the counter sees
        counted = _counted(config, len(source), target, beams)
    assert flops == pytest.approx(counted, rel=0.05)


def _counted(config: ModelConfig, source: int, target: int, beams: int) -> float:
    """The encoder once, its keys and values once, and the decoder's passes over all beams."""
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
import numpy
from bart_cli.runtime.memory import peak_resident_memory, reset_peak_memory

reset_peak_memory()
print(peak_resident_memory())
block = numpy.ones(20_000_000)
del block
print(peak_resident_memory())
reset_peak_memory()
print(peak_resident_memory())
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
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))

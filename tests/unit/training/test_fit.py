"""Memory of a run: exact estimates, the check before the start, and `--micro-batch auto`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bart_cli.config.data import PretrainDataConfig
from bart_cli.config.model import ModelConfig
from bart_cli.config.presets import preset_config
from bart_cli.config.training import OptimizerConfig, TrainingConfig
from bart_cli.errors import BartError, UsageError
from bart_cli.model.bart import Bart
from bart_cli.progress import Reporter
from bart_cli.runtime.world import World
from bart_cli.training import fit as fitting
from bart_cli.training import footprint as counting
from bart_cli.training.checks import compiler_problem
from bart_cli.training.footprint import Footprint, footprint
from bart_cli.training.pretrain import run_pretrain
from bart_cli.training.setup import equip, place
from tests.conftest import tiny_model_config
from tests.unit.training.test_runs import comparable, pretrain_config, shards  # noqa: F401

CPU = torch.device("cpu")
WORLD = World(0, 1, CPU)


def tiny(training: TrainingConfig, **changes: object) -> Bart:
    return place(Bart(tiny_model_config(dropout=0.1, **changes)), training, WORLD)


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        ({}, {}),
        ({"precision": "bf16"}, {"attention_dropout": 0.1}),
        ({"activation_checkpointing": True}, {"pre_layer_norm": True}),
        ({"freeze_encoder": True, "freeze_embeddings": True}, {"attention_dropout": 0.1}),
    ],
)
def test_activations_are_estimated_from_short_sequences(
    settings: dict[str, object], model: dict[str, object]
) -> None:
    training = TrainingConfig.model_validate(settings)
    bart = tiny(training, max_position_embeddings=256, **model)
    state = torch.random.get_rng_state()
    shared, sequence = counting._saved_activations(bart, training, (200, 120), CPU)
    counted = counting._count(bart, training, 200, 120, CPU)
    assert shared + sequence == pytest.approx(counted, rel=1e-3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.grad is None for p in bart.parameters())


def test_products_in_fp32_need_more_memory_than_those_in_bf16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = TrainingConfig(precision="bf16")
    needs = []
    for has_bf16 in (True, False):
        monkeypatch.setattr("bart_cli.runtime.precision.onednn_has_bf16", lambda: has_bf16)  # noqa: B023
        needs.append(footprint(tiny(training), training, OptimizerConfig(), (16, 16), WORLD))
    assert needs[1].sequence > 1.5 * needs[0].sequence
    assert needs[1].shared > needs[0].shared


@pytest.mark.parametrize(
    ("name", "settings"),
    [("adamw", {}), ("nvlamb", {"parameters": "bf16"}), ("adafactor", {})],
)
def test_weights_gradients_and_optimizer_are_counted_as_they_are(
    name: str, settings: dict[str, object]
) -> None:
    training = TrainingConfig.model_validate(settings | {"freeze_embeddings": True})
    config = OptimizerConfig.model_validate({"name": name})
    model = tiny(training)
    needs = footprint(model, training, config, (16, 16), WORLD)
    optimizer, _ = equip(model, training, config, WORLD)
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    bytes_of: Callable[[torch.Tensor], int] = lambda t: t.numel() * t.element_size()  # noqa: E731
    assert needs.weights == sum(map(bytes_of, model.parameters()))
    assert needs.gradients == sum(bytes_of(p.grad) for p in trained if p.grad is not None)
    state = [t for s in optimizer.state.values() for key, t in s.items() if key != "step"]
    assert needs.optimizer == pytest.approx(sum(map(bytes_of, state)), rel=0.05)


NEEDS = Footprint(
    weights=100, gradients=100, optimizer=200, copy=0, update=0, shared=50, sequence=10, logits=4,
    chunk=20,
)  # fmt: skip


def test_the_largest_micro_batch_is_the_last_that_fits() -> None:
    for available in range(340, 600):
        number = NEEDS.largest(available, 40)
        fits = [n for n in range(1, 41) if NEEDS.total(n) - NEEDS.weights <= available]
        assert number == max(fits, default=0)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 40, 100, 400, 1000])
@pytest.mark.parametrize("guess", [1, 50, 400])
def test_trials_find_the_largest_that_fits_in_few_steps(limit: int, guess: int) -> None:
    tried: list[int] = []

    def fits(number: int) -> bool:
        tried.append(number)
        return number <= limit

    found = fitting.largest_that_fits(guess, 400, fits)
    limit = min(limit, 400)
    assert limit - max(1, limit // 7) <= found <= limit
    assert len(tried) <= 12
    assert all(number <= 400 for number in tried)


def test_a_trial_has_no_side_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    training = TrainingConfig()
    model = tiny(training)
    needs = footprint(model, training, OptimizerConfig(), (16, 8), WORLD)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    real = fitting.batch_loss

    def of_three(model, batch, training):  # type: ignore[no-untyped-def]
        if batch.sequences > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, batch, training)

    monkeypatch.setattr(fitting, "batch_loss", of_three)
    assert [fitting._tried(model, training, (16, 8), n, needs, WORLD) for n in (3, 4)] == [1, 0]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(weights[name], t) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


class Told(Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(f"warning: {text}")


def leave(monkeypatch: pytest.MonkeyPatch, micro_batch: int, share: float) -> None:
    """Make this share of what a micro-batch needs available."""
    found: list[Footprint] = []

    def estimated(*arguments: Any) -> Footprint:
        found.append(footprint(*arguments))
        return found[-1]

    def available() -> int:
        return int((found[-1].total(micro_batch) - found[-1].weights) * share) + 1

    monkeypatch.setattr(fitting, "footprint", estimated)
    monkeypatch.setattr(fitting, "available_memory", available)


def test_auto_is_the_same_run_in_micro_batches_that_fit_and_resume_keeps_it(
    shards: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"max_steps": 2, "log_every": 1}
    auto, four, told = tmp_path / "auto", tmp_path / "four", Told()
    leave(monkeypatch, 5, 1 / fitting.SPARE)
    run_pretrain(pretrain_config(shards, micro_batch="auto", **settings), auto, reporter=told)
    assert "micro-batch 4, 2 per step" in told.lines  # 5 fit; 8 are divided evenly
    assert "micro_batch: 4" in (auto / "config.yaml").read_text()
    run_pretrain(pretrain_config(shards, micro_batch=4, **settings), four, reporter=Reporter())
    assert comparable(auto) == comparable(four)
    leave(monkeypatch, 8, 9)
    told.lines.clear()
    longer = pretrain_config(shards, micro_batch="auto", max_steps=3, log_every=1)
    run_pretrain(longer, auto, reporter=told)
    assert "micro-batch 4, 2 per step" in told.lines


@pytest.mark.parametrize("share", [0.6, 0.9])
def test_too_little_memory_is_reported_by_part_before_the_start(
    shards: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
) -> None:
    config = pretrain_config(shards, micro_batch=8, max_steps=2)
    leave(monkeypatch, 8, share)
    told = Told()
    if share < 1 / fitting.CERTAIN:
        with pytest.raises(UsageError) as caught:
            run_pretrain(config, tmp_path / "run", reporter=told)
        text = f"{caught.value.message} {caught.value.hint}"
        assert not (tmp_path / "run").exists()
    else:
        run_pretrain(config, tmp_path / "run", reporter=told)
        text = next(line for line in told.lines if line.startswith("warning: not enough"))
    for word in ("gradients", "optimizer", "(micro-batch 8)", "Pass --micro-batch"):
        assert word in text


def test_out_of_memory_names_a_micro_batch_that_fits(
    shards: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("bart_cli.training.loop.batch_loss", full)
    with pytest.raises(BartError, match="out of memory on cpu with micro-batch 8") as caught:
        run_pretrain(pretrain_config(shards, micro_batch=8), tmp_path / "run", reporter=Reporter())
    assert caught.value.hint is not None
    assert "Pass --micro-batch 4 (estimated to fit)" in caught.value.hint
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    problem = compiler_problem(CPU)
    assert problem is not None
    assert "a compiler (g++; CXX names another)" in problem


@pytest.mark.slow
@pytest.mark.parametrize("root", ["finetune-base", "finetune-large", "pretrain-base"])
def test_the_presets_for_one_gpu_leave_room_on_it(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "FRAGMENTATION", 1.0)
    monkeypatch.setattr(counting, "FRAGMENTATION_ROUNDED", 1.0)
    config = preset_config(f"{root}-24gb")
    # The fused attention of a GPU keeps no probabilities, with dropout either.
    found = footprint_of(config, attention_dropout=0.0)
    # A GPU holds no copy for checkpoints, and logits (2 bytes) with copies in fp32 (8 bytes).
    needs = replace(found, copy=0, logits=5 * found.logits, chunk=5 * found.chunk)
    for size in (16, 24, 80):
        preset = preset_config(f"{root}-{size}gb")
        other = preset.training.model_copy(update={"micro_batch": config.training.micro_batch})
        assert (preset.model, preset.data, other) == (config.model, config.data, config.training)
        assert needs.total(preset.training.micro_batch_size) < 0.75 * size * 1e9, size


def test_the_preset_for_a_cpu_leaves_room_in_its_memory() -> None:
    config = preset_config("finetune-base-cpu")
    assert "16 GB" in config.description
    assert footprint_of(config).total(config.training.micro_batch_size) < 0.75 * 16e9


def footprint_of(config: Any, **changes: object) -> Footprint:
    """That of a preset's model, from models of 1 + 1 and 2 + 2 layers: each adds the same."""
    data = config.data
    lengths = (
        (data.sequence_length,) * 2
        if isinstance(data, PretrainDataConfig)
        else (data.max_source_length, data.max_target_length)
    )
    one, two = (
        asdict(
            footprint(
                empty_model(config, changes, n), config.training, config.optimizer, lengths, WORLD
            )
        )
        for n in (1, 2)
    )
    more = config.model.encoder_layers - 1
    return Footprint(**{name: one[name] + more * (two[name] - one[name]) for name in one})


def empty_model(config: Any, changes: dict[str, object], layers: int) -> Bart:
    sizes = {"encoder_layers": layers, "decoder_layers": layers}
    shape = ModelConfig.model_validate(config.model.model_dump() | changes | sizes)
    with torch.device("meta"):
        model = Bart(shape)
    return model.to_empty(device=CPU)

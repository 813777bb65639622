"""A training step never waits for the device: on `meta` tensors, reading a number is an error."""

from __future__ import annotations

import math
from collections import deque
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from torch import nn

from bart_cli.config.training import OptimizerConfig, TrainingConfig
from bart_cli.data.batch import IGNORE, Batch
from bart_cli.model.bart import Bart
from bart_cli.runtime.precision import make_scaler
from bart_cli.runtime.world import World
from bart_cli.training import setup
from bart_cli.training.checkpoint import Progress
from bart_cli.training.loop import (
    Job,
    StepNumbers,
    batch_loss,
    forward_backward,
    read_numbers,
    update,
)
from bart_cli.training.optimizers import build_optimizer
from bart_cli.training.validation import NotFinite
from tests.conftest import tiny_model_config


class Skipping(torch.optim.SGD):
    """Skips a step on the device like fused AdamW, which has no kernel for `meta`."""

    _step_supports_amp_scaling = True
    found_inf: torch.Tensor

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.sub_(torch.where(self.found_inf > 0, 0.0, group["lr"] * p.grad))


def make_job(model: nn.Module, optimizer: torch.optim.Optimizer, **training: object) -> Job:
    device = next(model.parameters()).device
    return Job(
        run=Path(),
        world=World(0, 1, device),
        model=model,  # type: ignore[arg-type]
        tokenizer=None,  # type: ignore[arg-type]
        optimizer=optimizer,
        scaler=make_scaler("fp32", torch.device("cpu")),
        batches=iter(()),
        training=TrainingConfig.model_validate(training),
        optimizer_config=OptimizerConfig(),
        schedule=lambda step: 1e-3,
        progress=Progress(),
    )


def random_batch(*, padded: bool) -> Batch:
    ids = torch.randint(4, 50, (2, 16))
    mask = torch.ones_like(ids, dtype=torch.bool)
    labels = ids.clone()
    if padded:
        mask[1, 10:] = False
        labels[1, 12:] = IGNORE
    return Batch(source=ids, source_mask=mask, decoder_input=ids, labels=labels)


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("pre_layer_norm", [False, True])
def test_a_step_leaves_its_numbers_on_the_device(pre_layer_norm: bool, recomputed: bool) -> None:
    with torch.device("meta"):
        model = Bart(tiny_model_config(pre_layer_norm=pre_layer_norm)).train()
    model.activation_checkpointing(recomputed)
    parameters = list(model.parameters())
    job = make_job(model, Skipping(parameters, lr=1e-3))
    micro = [random_batch(padded=True), random_batch(padded=False)]
    loss, tokens = forward_backward(job, micro)
    norm = update(job, 1e-3)
    assert tokens == 28 + 32
    assert {tensor.device.type for tensor in (loss, norm, *(p.grad for p in parameters))} == {  # type: ignore[union-attr]
        "meta"
    }
    with pytest.raises((RuntimeError, NotImplementedError)):
        StepNumbers(1, job.world, loss, norm).read()


@pytest.mark.parametrize("name", ["nvlamb", "adafactor"])
def test_our_optimizers_do_not_wait_for_the_device(name: str) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        model(torch.zeros(2, 4)).sum().backward()
    optimizer = build_optimizer(model, OptimizerConfig.model_validate({"name": name}))
    for _ in range(2):
        optimizer.step()


def test_a_gradient_that_is_not_finite_leaves_weights_and_moments_alone() -> None:
    torch.manual_seed(0)
    models = [nn.Linear(3, 3), nn.Linear(3, 3)]
    models[1].load_state_dict(models[0].state_dict())
    jobs = [make_job(m, build_optimizer(m, OptimizerConfig()), max_bad_steps=2) for m in models]
    bad = [(), (1, 3)]  # the second job has two more steps, with an infinite gradient
    gradients = [torch.randn(3, 3) for _ in range(3)]
    for job, extra in zip(jobs, bad, strict=True):
        parameters = list(job.model.parameters())
        todo = list(gradients)
        for at in extra:
            todo.insert(at, torch.full((3, 3), math.inf))
        for gradient in todo:
            parameters[0].grad, parameters[1].grad = gradient.clone(), torch.ones(3)
            update(job, 1e-2)
    for one, two in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, two)
        states = [job.optimizer.state[p] for job, p in zip(jobs, (one, two), strict=True)]
        for name in states[0]:
            assert torch.equal(states[0][name], states[1][name])


def test_numbers_read_late_end_the_run_at_their_own_step() -> None:
    model = nn.Linear(1, 1)
    job = make_job(model, Skipping(model.parameters()), max_bad_steps=2)
    unread: deque[StepNumbers] = deque()
    losses = [1.0, math.nan, 3.0, math.nan, math.nan, 6.0]

    def launch(step: int) -> None:
        job.progress.step = step
        loss, norm = torch.tensor(losses[step - 1]), torch.tensor(float(step))
        unread.append(StepNumbers(step, job.world, loss, norm))

    for step in range(1, 6):
        launch(step)
        asked, norm = read_numbers(job, unread, keep=1)
        assert not asked
        assert len(unread) == 1
        assert math.isnan(norm) if step == 1 else norm == step - 1
    assert (job.progress.loss_sum, job.progress.loss_steps, job.progress.skipped) == (4.0, 2, 2)
    launch(6)
    with pytest.raises(NotFinite, match="for 2 steps in a row, up to step 5"):
        read_numbers(job, unread, keep=1)
    assert job.progress.step - job.progress.bad_in_row == 3  # the last good step


@pytest.mark.slow
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("pre_layer_norm", [False, True])
def test_forward_and_loss_are_one_graph_for_the_compiler(
    pre_layer_norm: bool, padded: bool
) -> None:
    torch.manual_seed(0)
    config = tiny_model_config(
        pre_layer_norm=pre_layer_norm, encoder_layers=1, decoder_layers=1, dropout=0.0
    )
    model = Bart(config).train()
    batch = random_batch(padded=padded)
    training = TrainingConfig(label_smoothing=0.1)

    def step(batch: Batch) -> torch.Tensor:
        return batch_loss(model, batch, training)

    found = []
    for run in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        loss = run(batch)
        loss.backward()
        found.append([loss.detach(), *(p.grad.to_dense() for p in model.parameters())])  # type: ignore[union-attr]
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(plain, compiled, rtol=1e-4, atol=1e-4)


def test_a_model_that_does_not_compile_trains_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: object, inputs: object) -> object:
        raise RuntimeError("no kernel for this GPU\nmore")

    monkeypatch.setattr(setup, "compiles_by_default", lambda *_: True)
    monkeypatch.setattr(setup, "compiler_problem", lambda device: None)
    monkeypatch.setattr(Bart, "compile", partialmethod(Bart.compile, backend=broken))
    model = Bart(tiny_model_config(encoder_layers=1, decoder_layers=1))
    state = torch.get_rng_state()
    warnings: list[str] = []
    world, config = World(0, 1, torch.device("cpu")), OptimizerConfig()
    setup.equip(model, TrainingConfig(), config, world, warnings.append)
    (line,) = warnings
    assert line.startswith("training without torch.compile: ")
    assert "no kernel for this GPU" in line
    assert "\n" not in line
    assert torch.equal(torch.get_rng_state(), state)
    batch_loss(model, random_batch(padded=False), TrainingConfig()).backward()

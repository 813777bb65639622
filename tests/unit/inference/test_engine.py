"""Parts of decoding: products, top tokens, steps with static shapes, precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import MagicMock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from bart_cli.config.generation import GenerationConfig
from bart_cli.errors import UsageError
from bart_cli.inference import beam
from bart_cli.inference.constraints import forbid_ngrams
from bart_cli.inference.decoding import Decoding, Graph
from bart_cli.inference.engine import Engine, int8_problem
from bart_cli.inference.load import find_device
from bart_cli.inference.products import Int8Product, has_onednn, make_product
from bart_cli.model.bart import Bart
from tests.conftest import tiny_model_config

STEPS, BEAMS = 7, 3
needs_onednn = pytest.mark.skipif(not has_onednn(), reason="this torch has no oneDNN")


@given(seed=st.integers(0, 99), width=st.integers(1, 1500), count=st.integers(1, 12))
def test_the_best_of_a_row_equal_topk(seed: int, width: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(3, width, generator=generator)
    scores[scores < 0.3] = float("-inf")
    count = min(count, width)
    best, index = beam.best_of_rows(scores, count)
    assert torch.equal(best, scores.topk(count)[0])
    assert torch.equal(scores.gather(1, index), best)
    for row, wanted in zip(index.tolist(), best.isfinite().sum(1).tolist(), strict=True):
        assert len(set(row[:wanted])) == wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_product_equals_the_ordinary_one(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(40, 24).to(dtype), torch.randn(40).to(dtype)
    x = torch.randn(2, 3, 24).to(dtype)
    expected = F.linear(x, weight, bias)
    torch.testing.assert_close(make_product(weight, bias)(x), expected)


@needs_onednn
def test_a_row_in_int8_does_not_depend_on_its_neighbors() -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(40, 64), torch.randn(40)
    x = torch.randn(5, 64) * torch.tensor([1e-3, 1.0, 1e3, 0.0, 7.0])[:, None]
    product = Int8Product(weight, bias)
    together = product(x)
    for row, alone in zip(x, together, strict=True):
        assert torch.equal(product(row[None])[0], alone)
    exact = F.linear(x, weight)
    error = (together - bias - exact).norm(dim=1) / exact.norm(dim=1).clamp_(min=1e-9)
    assert error.max() < 0.02


def logits_of(engine: Engine, reorder: bool) -> torch.Tensor:
    """Compute logits [STEPS, R, V] of fixed tokens; `reorder`: permute beams in between."""
    torch.manual_seed(1)
    source = torch.randint(4, 400, (2, 16))
    mask = torch.arange(16) < torch.tensor([[16], [9]])
    with torch.inference_mode():
        decoding = Decoding(engine, engine.encode(source, mask), mask, BEAMS, STEPS)
        rows = []
        for _ in range(STEPS):
            rows.append(decoding.step(torch.randint(4, 400, (2 * BEAMS,))).float().clone())
            if reorder:
                decoding.reorder(torch.randint(0, BEAMS, (2, BEAMS)))
        return torch.stack(rows)


def test_steps_agree_with_teacher_forcing() -> None:
    """Histories are reordered as in beam search; every row is compared with its own prefix."""
    torch.manual_seed(0)
    for pre_layer_norm in (False, True):
        model = Bart(tiny_model_config(pre_layer_norm=pre_layer_norm)).eval()
        engine = Engine(model)
        source = torch.randint(4, 400, (2, 16))
        mask = torch.arange(16) < torch.tensor([[16], [9]])
        with torch.inference_mode():
            memory = model.encode(source, mask)
            decoding = Decoding(engine, engine.encode(source, mask), mask, BEAMS, STEPS)
            prefixes = torch.empty(2, BEAMS, 0, dtype=torch.int64)
            for _ in range(STEPS):
                tokens = torch.randint(4, 400, (2, BEAMS, 1))
                prefixes = torch.cat([prefixes, tokens], 2)
                found = decoding.step(tokens.flatten()).view(2, BEAMS, -1)
                for k in range(BEAMS):
                    hidden = model.decode(prefixes[:, k], memory, mask)
                    torch.testing.assert_close(
                        found[:, k], model.logits(hidden[:, -1]), atol=1e-4, rtol=1e-4
                    )
                origins = torch.randint(0, BEAMS, (2, BEAMS))
                decoding.reorder(origins)
                prefixes = prefixes.gather(1, origins[:, :, None].expand_as(prefixes))


def test_steps_with_static_shapes_give_the_same_logits() -> None:
    torch.manual_seed(0)
    engine = Engine(Bart(tiny_model_config()).eval())
    growing = logits_of(engine, reorder=True)
    engine.static = True
    torch.testing.assert_close(logits_of(engine, reorder=True), growing, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pre_layer_norm", [False, True])
def test_a_static_step_of_beam_search_never_waits_for_the_device(pre_layer_norm: bool) -> None:
    """On `meta` tensors, reading a number and mixing devices are errors."""
    generation = GenerationConfig(beams=BEAMS, max_length=STEPS)
    with torch.device("meta"), torch.inference_mode():
        engine = Engine(Bart(tiny_model_config(pre_layer_norm=pre_layer_norm)).eval())
        engine.static = True
        mask = torch.ones(2, 9, dtype=torch.bool)
        memory = engine.encode(torch.zeros(2, 9, dtype=torch.long), mask)
        decoding = Decoding(engine, memory, mask, BEAMS, STEPS)
        state = beam.start(2, generation, start_id=2, pad_id=1, device=engine.device)
        for _ in range(2):
            tokens = state.running[:, :, : state.length].flatten(0, 1)
            scores = decoding.step(tokens[:, -1]).log_softmax(-1)
            scores = forbid_ngrams(scores, tokens, tokens, 2).unflatten(0, (-1, BEAMS))
            state, origins = beam.advance(
                state, scores, generation, end_ids=torch.zeros(1, dtype=torch.long)
            )
            decoding.reorder(origins)
        assert state.open(early_stopping=True).device == engine.device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_captured_step_gives_the_same_result_on_a_gpu() -> None:
    torch.manual_seed(0)
    model = Bart(tiny_model_config()).eval().cuda()
    found = {}
    with torch.inference_mode(), torch.device("cuda"):
        for static in (False, True):
            engine = Engine(model)
            engine.static = static
            found[static] = logits_of(engine, reorder=True)
    torch.testing.assert_close(found[True], found[False], atol=1e-4, rtol=1e-4)


def test_a_step_is_captured_on_the_device_that_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two GPUs, the current one may differ from `--device cuda:1`."""
    current: list[torch.device] = []
    captured: list[tuple[list[torch.device], object]] = []

    @contextmanager
    def device(chosen: torch.device) -> Iterator[None]:
        current.append(chosen)
        yield
        current.pop()

    @contextmanager
    def graph(_: object, stream: object = None) -> Iterator[None]:
        captured.append((list(current), stream))
        yield

    side = MagicMock()
    cuda = {"device": device, "graph": graph, "Stream": lambda *_, **__: side}
    for name, fake in cuda.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    for name in ("current_stream", "stream", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    tokens, position = torch.tensor([3, 4]), torch.zeros(1, dtype=torch.int64)
    Graph(lambda given: given * 2, tokens, position)
    assert captured == [([tokens.device], side)]


@needs_onednn
@pytest.mark.parametrize("pre_layer_norm", [False, True], ids=["post-LN", "Pre-LN"])
def test_reduced_precision_stays_near_fp32(pre_layer_norm: bool) -> None:
    torch.manual_seed(0)
    config = tiny_model_config(pre_layer_norm=pre_layer_norm)
    model = Bart(config).eval()
    exact = logits_of(Engine(model), reorder=False)
    int8 = logits_of(Engine(model, int8=True), reorder=False)
    assert torch.equal(exact, logits_of(Engine(model), reorder=False)), "the model was changed"
    bf16 = logits_of(Engine(model.bfloat16()), reorder=False)
    for reduced in (int8, bf16):
        error = (reduced - exact).norm() / exact.norm()
        assert 0 < error < 0.05


def test_missing_devices_are_reported() -> None:
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="device=cuda:99: this machine has"):
        find_device("cuda:99")
    with pytest.raises(UsageError, match="device=tpu: expected auto, cpu, cuda or cuda:N"):
        find_device("tpu")
    assert "CPUs" in (int8_problem(torch.device("cuda")) or "")

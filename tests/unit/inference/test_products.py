"""Integer products equal the floating-point products of the quantized values on any CPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bart_cli.inference.engine import int8_problem
from bart_cli.inference.products import BytesTimesInt8, Int8Product, measure_products

pytestmark = pytest.mark.skipif(
    int8_problem(torch.device("cpu")) is not None, reason="this torch has no int8 products"
)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 20), inputs=st.integers(1, 130), outputs=st.integers(1, 70))
def test_close_to_the_fp32_product(rows: int, inputs: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(rows * 10_000 + inputs * 100 + outputs)
    x = torch.randn(rows, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    found = Int8Product(weight, bias)(x)
    # Half a step of 1/63 for each row and of 1/127 for each weight, in the worst case.
    largest_x, largest_w = x.abs().amax(1, keepdim=True), weight.abs().amax(1)
    bound = inputs * largest_x * largest_w * (0.5 / 63 + 0.5 / 127 + 0.25 / 63 / 127)
    assert ((found - (x @ weight.T + bias)).abs() <= bound + 1e-4).all()


def test_pairs_of_the_largest_products_do_not_saturate() -> None:
    """16-bit sums of two products, as computed by CPUs without VNNI, would saturate here."""
    product = BytesTimesInt8(torch.full((32, 64), 127, dtype=torch.int8))
    found = product(torch.tensor([[1.0], [-1.0]]).expand(2, 64).contiguous())
    assert torch.allclose(found, torch.tensor([[127.0 * 64], [-127.0 * 64]]).expand(2, 32))


def test_a_row_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    product = Int8Product(torch.randn(48, 96), torch.randn(48))
    x = torch.randn(16, 96)
    alone = torch.cat([product(row[None]) for row in x])
    assert torch.equal(product(x), alone)


def test_zero_rows_give_the_bias() -> None:
    bias = torch.randn(8)
    assert torch.equal(Int8Product(torch.randn(8, 16), bias)(torch.zeros(2, 16))[1], bias)


def test_a_measurement_names_fp32_and_int8() -> None:
    seconds = measure_products()
    assert {"fp32", "int8"} <= seconds.keys() <= {"fp32", "bf16", "int8"}
    assert all(value > 0 for value in seconds.values())

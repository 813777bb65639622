"""How fast this device multiplies matrices, measured: the ceiling that a load is held against."""

from __future__ import annotations

import statistics
import time

import torch

from bart_cli.benchmark.loads import Shape

SQUARE = {"cpu": 1024, "cuda": 8192}  # side of a product large enough to fill the device
PRODUCTS = 5  # of each shape in a measurement


def measure_ceiling(shape: Shape, device: torch.device) -> float:
    """FLOP/s of the faster of two products in the load's dtype: its own shape, and a large square.

    tf32 is fp32 here, with the process set to run fp32 products so.
    """
    side = SQUARE[device.type]
    sizes = [(side, side, side), (shape.rows, shape.inner, shape.columns)]
    return max(_rate(*size, shape.dtype, device) for size in sizes)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def _rate(rows: int, inner: int, columns: int, dtype: torch.dtype, device: torch.device) -> float:
    a = torch.randn(rows, inner, dtype=dtype, device=device)
    b = torch.randn(inner, columns, dtype=dtype, device=device)
    times = []
    for number in range(PRODUCTS + 1):
        synchronize(device)
        begin = time.perf_counter()
        a @ b
        synchronize(device)
        if number:  # the first one chooses a kernel
            times.append(time.perf_counter() - begin)
    return 2 * rows * inner * columns / statistics.median(times)

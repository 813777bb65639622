"""FLOPs of a training step and peak FLOP/s of a device, for the MFU.

Model FLOPs utilization (Chowdhery et al. 2022, PaLM, appendix B) is the FLOPs per second of forward
and backward over real tokens, without recomputation, divided by the peak of the device.
"""

import statistics
import time

import torch
from torch import Tensor

from bart_cli.config.model import ModelConfig
from bart_cli.config.training import Precision

# Dense tensor-core TFLOP/s in bf16 and fp16, then in tf32 (data sheets). The first match counts.
PEAKS = (
    ("GB200", 2500, 1250),
    ("B200", 2250, 1125),
    ("H200", 989, 494),
    ("GH200", 989, 494),
    ("H100 PCIe", 756, 378),
    ("H100 NVL", 835, 417),
    ("H100", 989, 494),
    ("H800", 989, 494),
    ("A100", 312, 156),
    ("A800", 312, 156),
    ("A40", 150, 75),
    ("A30", 165, 82),
    ("A10", 125, 62),
    ("L40S", 362, 183),
    ("L40", 181, 90),
    ("L4", 121, 60),
    ("V100", 125, None),
    ("T4", 65, None),
)

SQUARE = {"cpu": 1024, "cuda": 8192}  # side of a product large enough to fill the device
PRODUCTS = 5  # measured products of each shape, fewer if they take longer than LONG seconds
LONG = 1.0


def training_flops(config: ModelConfig, source_B: Tensor, target_B: Tensor) -> float:
    """Count the FLOPs of forward and backward for sequences of these lengths in tokens.

    Backward counts as twice the forward, and a multiply-add as two FLOPs.
    """
    d = config.d_model
    s, t = source_B.double(), target_B.double()
    encoder = s * (4 * d * d + 2 * d * config.encoder_ffn_dim) + 2 * d * s * s
    decoder = (
        t * (6 * d * d + 2 * d * config.decoder_ffn_dim)
        + s * (2 * d * d)  # keys and values of cross-attention
        + d * t * t  # causal: half of the scores
        + 2 * d * t * s
    )
    output = t * (d * config.vocab_size)
    products = config.encoder_layers * encoder + config.decoder_layers * decoder + output
    return float(3 * 2 * products.sum())


def decoding_flops(config: ModelConfig, source_B: Tensor, target_B: Tensor, beams: int) -> float:
    """Count the FLOPs of decoding, as a third of training: encode once, decode each beam."""
    encoder = training_flops(config, source_B, torch.zeros_like(target_B)) / 3
    decoder = training_flops(config, source_B, target_B) / 3 - encoder
    return encoder + beams * decoder


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """Return the peak FLOP/s of a GPU in this precision, or None if it is not in the table."""
    if device.type != "cuda" or precision == "fp32":
        return None
    name = torch.cuda.get_device_name(device)
    for model, half, tf32 in PEAKS:
        if model in name:
            teraflops = tf32 if precision == "tf32" else half
            return None if teraflops is None else teraflops * 1e12
    return None


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def measured_flops(device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]) -> float:
    """Measure the FLOP/s of a matrix product and of a large square one; return the larger.

    The shape is rows, inner dimension and columns. For tf32, pass fp32 after
    `apply_matmul_precision`.
    """
    rates = []
    for rows, inner, columns in (shape, (SQUARE[device.type],) * 3):
        a = torch.randn(rows, inner, dtype=dtype, device=device)
        b = torch.randn(inner, columns, dtype=dtype, device=device)
        seconds = []
        for _ in range(PRODUCTS + 1):
            synchronize(device)
            begin = time.perf_counter()
            a @ b
            synchronize(device)
            seconds.append(time.perf_counter() - begin)
            if len(seconds) > 1 and sum(seconds) > LONG:
                break
        # Skip the first product, which selects a kernel.
        rates.append(2 * rows * inner * columns / statistics.median(seconds[1:]))
    return max(rates)

"""FLOPs of a training step and peak FLOP/s of a device; their ratio over time is the MFU.

Model FLOP utilization (Chowdhery et al. 2022, PaLM, appendix B): FLOPs of the model's forward and
backward over real tokens, without recomputation, per second, divided by the device's peak.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bart_cli.config.model import ModelConfig
from bart_cli.config.training import Precision

# Dense tensor-core TFLOP/s by data sheet: bf16 and fp16, then tf32. First match in the name counts.
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


def training_flops(config: ModelConfig, source_B: Tensor, target_B: Tensor) -> float:
    """FLOPs of forward and backward of sequences with so many tokens on both sides.

    Backward counts twice the forward; a multiplication and an addition are two FLOPs.
    """
    d = config.d_model
    s, t = source_B.double(), target_B.double()
    encoder = s * (4 * d * d + 2 * d * config.encoder_ffn_dim) + 2 * d * s * s
    decoder = (
        t * (6 * d * d + 2 * d * config.decoder_ffn_dim)
        + s * (2 * d * d)  # keys and values of the encoder's output
        + d * t * t  # causal: half of the positions
        + 2 * d * t * s
    )
    output = t * (d * config.vocab_size)
    products = config.encoder_layers * encoder + config.decoder_layers * decoder + output
    return float(3 * 2 * products.sum())


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """Data-sheet FLOP/s of a GPU in this precision; None when we do not know it."""
    if device.type != "cuda" or precision == "fp32":
        return None
    name = torch.cuda.get_device_name(device)
    for model, half, tf32 in PEAKS:
        if model in name:
            teraflops = tf32 if precision == "tf32" else half
            return None if teraflops is None else teraflops * 1e12
    return None

"""Arithmetic of forward and backward: fp32, tf32, bf16 or fp16."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from bart_cli.config.training import Precision

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def problem_of(precision: Precision, device: torch.device) -> str | None:
    """Why this device cannot compute so, None when it can."""
    if device.type == "cpu" and precision in ("tf32", "fp16"):
        return f"training.precision={precision} needs an NVIDIA GPU; on this CPU use fp32 or bf16"
    if device.type == "cuda" and precision in ("tf32", "bf16"):
        major, minor = torch.cuda.get_device_capability(device)
        if major < 8:
            return (
                f"training.precision={precision} needs compute capability 8.0 (Ampere), "
                f"this GPU has {major}.{minor}; use fp16 or fp32"
            )
    return None


def apply_matmul_precision(precision: Precision) -> None:
    """Let fp32 matrix products run in tf32 or not; affects the whole process."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass."""
    if precision in AUTOCAST:
        return torch.autocast(device.type, AUTOCAST[precision])
    return nullcontext()


def make_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling for fp16; for the others it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")

"""Every instruction set uses fast kernels: oneDNN's reference code is 100 times slower."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Limits below what the machine has, and a flag of /proc/cpuinfo of processors that they affect.
LIMITS = {
    "AVX2": "avx512f",
    "AVX512_CORE": "avx512_vnni",
    "AVX512_CORE_VNNI": "avx512_bf16",
    "AVX512_CORE_BF16": "amx_tile",
}
PRODUCTS = ("matmul", "inner_product", "convolution")

PROGRAM = """
import torch
from bart_cli.config.generation import GenerationConfig
from bart_cli.inference.engine import Engine
from bart_cli.inference.generate import generate
from bart_cli.inference.load import DTYPES, choose_precision
from bart_cli.model.bart import Bart
from bart_cli.runtime.precision import apply_matmul_precision, autocast
from tests.conftest import tiny_model_config

torch.set_num_threads(1)
cpu = torch.device("cpu")
model = Bart(tiny_model_config(d_model=64, encoder_ffn_dim=256, vocab_size=401))
source = torch.arange(4, 28).view(2, 12)
decoded = 0
for asked in ("fp32", "bf16", "int8"):
    precision, _ = choose_precision(asked, cpu)
    engine = Engine(model.eval().to(DTYPES[precision]), int8=precision == "int8")
    found = generate(engine, source.tolist(), GenerationConfig(max_length=8), batch_size=2)
    decoded += len(found)
    model.float()
for precision in ("fp32", "bf16"):
    apply_matmul_precision(precision)
    with autocast(precision, cpu):
        logits = model.logits(model.train()(source, None, source))
    logits.float().square().mean().backward()
print("decoded", decoded)
"""


@pytest.mark.parametrize("limit", [None, *LIMITS])
def test_no_product_runs_reference_code(limit: str | None) -> None:
    environment = os.environ | {"ONEDNN_VERBOSE": "1"}
    if limit is not None:
        if LIMITS[limit] not in Path("/proc/cpuinfo").read_text():
            pytest.skip(f"this processor has nothing above {limit}")
        environment["ONEDNN_MAX_CPU_ISA"] = limit
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "decoded 6" in done.stdout
    # onednn_verbose,v1,primitive,exec,cpu,matmul,brg_matmul:avx512_core,…
    fields = [line.split(",") for line in done.stdout.splitlines() if ",exec," in line]
    products = [f for f in fields if f[5] in PRODUCTS]
    assert products
    slow = [",".join(f[5:9]) for f in products if f[6].startswith("ref")]
    assert not slow

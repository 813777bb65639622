"""Run all GPU benchmarks in less than 25 minutes: BART-large compared with transformers.

    python benchmarks/gpu.py [--out FOLDER] [--minutes N] [--tiny]

Runs `bart benchmark` on one GPU for training at 128 and 512 tokens in tf32 and bf16, and for
decoding 1,024 source tokens to 60 target tokens with 6 beams at batch sizes 1 to 128. The tables,
with device, versions and date, are written to OUT/gpu.md and standard output. A stage that runs out
of time is interrupted and keeps its complete rows. --tiny tests the script on a CPU.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

PRESETS = (
    "dgxa100-1node-phase1-tf32",
    "dgxa100-1node-phase1",
    "dgxa100-1node-phase2-tf32",
    "dgxa100-1node-phase2",
)
BESIDE = ["--gpus", "1", "--compare", "transformers"]
SHORT = ["--seconds", "15"]
DECODING = ["--batch-size", "1,2,4,8,16,32,64,128", "--lengths", "full", "--source-length", "1024"]
DECODING += ["--max-length", "61", "--beams", "6", "--warmup", "1", "--repeats", "5"]
DECODING += ["--seconds", "10"]
# Share of the minutes: eight training arms compile and warm up, 14 rows of decoding are short.
STAGES = {
    "training": (
        0.6,
        ["train", *(word for name in PRESETS for word in ("--preset", name)), *BESIDE, *SHORT],
    ),
    "decoding": (
        0.4,
        ["inference", *DECODING, *BESIDE],
    ),
}
TINY = ["--preset", "tiny-cpu", "--processes", "1", "--compare", "transformers"]
TINY += ["--warmup", "1", "--repeats", "3", "--seconds", "1", "--precision", "fp32"]
TINY_STAGES = {
    "training": (0.5, ["train", *TINY, "--batch-size", "2"]),
    "decoding": (0.5, ["inference", *TINY, "--batch-size", "1,2", "--max-length", "8"]),
}


def run_stage(arguments: list[str], out: Path, seconds: float) -> None:
    """Run one `bart benchmark`, and interrupt it when its time is over."""
    command = [sys.executable, "-m", "bart_cli", "benchmark", *arguments, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()


def device_line() -> str:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    date = datetime.datetime.now(datetime.UTC).date()
    return f"{gpu}, torch {torch.__version__}, CUDA {torch.version.cuda}, {date}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--tiny", action="store_true", help="a tiny model on any device")
    given = parser.parse_args()
    if not given.tiny and not torch.cuda.is_available():
        parser.error("no GPU here; --tiny tries the script on a CPU")
    parts = [device_line()]
    for name, (share, arguments) in (TINY_STAGES if given.tiny else STAGES).items():
        begin = time.monotonic()
        run_stage(arguments, given.out / name, share * given.minutes * 60)
        results = given.out / name / "results.md"
        found = results.read_text(encoding="utf-8") if results.is_file() else "no complete row"
        parts.append(f"## {name} ({(time.monotonic() - begin) / 60:.1f} minutes)\n\n{found}")
    text = "\n\n".join(parts) + "\n"
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "gpu.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

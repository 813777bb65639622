"""Check this machine and suggest fixes.

In: the machine. Out: findings, each with one of three states; only `broken` prevents all work.
"""

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from bart_cli import __version__
from bart_cli.config.training import Precision
from bart_cli.extras import EXTRAS, install_line
from bart_cli.runtime.cores import usable_cores

State = Literal["ok", "note", "broken"]
HUB_SECONDS = 3.0
LITTLE_DISK = 20  # GB; a model, its checkpoints and a corpus need more
LITTLE_SHARED_MEMORY = 1  # GB; loader processes pass batches through shared memory

# Required packages: all commands need those in ESSENTIAL, some commands those in NEEDED.
ESSENTIAL = ("torch", "numpy", "pydantic", "typer", "rich", "PyYAML", "tokenizers", "safetensors")
NEEDED = {
    "pyarrow": "shards, parquet pairs",
    "huggingface-hub": "models and data sets on the hub",
    "tensorboard": "training logs",
    "matplotlib": "plots of training, shards and benchmarks",
}
# Optional packages outside the extras: package -> advice.
OPTIONAL = {
    "transformers": "pip install transformers: for bart benchmark --compare transformers",
    "lddl": "pip install --no-deps lddl==0.1.0: for reading shards with LDDL's own loader (tests)",
}


@dataclass(frozen=True)
class Finding:
    """The result of one check. `advice`: how to fix or improve it; may be empty."""

    name: str
    state: State
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Run all checks. They change nothing, and make one request to the hub (at most 3 seconds)."""
    python = Finding("Python", "ok", f"{platform.python_version()}, {sys.executable}")
    findings = [python, *_packages()]
    if not any(f.name == "torch" and f.state == "broken" for f in findings):
        findings += [*_devices(), _apex(), _threads()]
    return [*findings, *_memory(), _presets(), _hub(), *_disk()]


def _packages() -> Iterator[Finding]:
    yield Finding("bart", "ok", f"{__version__}, {Path(__file__).parent}")
    for name in ESSENTIAL:
        version = _version(name)
        if version is None:
            yield Finding(name, "broken", "not installed", f"pip install {name}")
        else:
            try:
                importlib.import_module({"PyYAML": "yaml"}.get(name, name))
                yield Finding(name, "ok", version)
            except (ImportError, OSError) as error:
                found = f"{version}, cannot be imported: {str(error).splitlines()[0]}"
                yield Finding(name, "broken", found, f"pip install --force {name}")
    for name, use in NEEDED.items():
        version = _version(name)
        advice = "" if version else f"pip install {name}: needed by {use}"
        yield Finding(name, "ok" if version else "note", version or "not installed", advice)
    yield from map(_extra, EXTRAS)
    for name, advice in OPTIONAL.items():
        version = _version(name)
        yield Finding(name, "ok", version or "not installed (optional)", "" if version else advice)


def _extra(name: str) -> Finding:
    """Check the packages of an extra; its state is "note" if only some are installed."""
    packages = EXTRAS[name].packages
    versions = {package: _version(package) for package in packages}
    found = ", ".join(f"{package} {version}" for package, version in versions.items() if version)
    missing = [package for package, version in versions.items() if version is None]
    title = f"extra {name}"
    if not missing:
        return Finding(title, "ok", found)
    advice = f"{install_line(name)}: for {EXTRAS[name].use}"
    if not found:
        return Finding(title, "ok", "not installed (optional)", advice)
    return Finding(title, "note", f"not installed: {', '.join(missing)}", advice)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> Iterator[Finding]:
    import torch

    from bart_cli.inference.engine import int8_problem
    from bart_cli.inference.products import measure_products
    from bart_cli.runtime.precision import EMULATED, is_emulated, problem_of

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for number in range(gpus):
        properties = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        yield Finding(
            f"GPU {number}",
            "ok",
            f"{properties.name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free, compute "
            f"capability {properties.major}.{properties.minor}, CUDA {torch.version.cuda}",
        )
    if not gpus:
        built = torch.version.cuda
        advice = "training BART-large requires an NVIDIA GPU; everything else works without one"
        if built is None and shutil.which("nvidia-smi"):
            advice = "an NVIDIA driver is installed, but torch lacks CUDA support: reinstall torch"
        elif built is not None:
            advice = f"torch supports CUDA {built} but finds no GPU: check the driver (nvidia-smi)"
        yield Finding("GPU", "ok" if built is None else "note", "none", advice)
    device = torch.device("cuda" if gpus else "cpu")
    supported = [p for p in get_args(Precision) if problem_of(p, device) is None]
    if int8_problem(device) is None:
        supported.append("int8 (decoding)")
    advice = EMULATED if is_emulated("bf16", device) else ""
    yield Finding("precisions", "ok", ", ".join(supported), advice)
    if not gpus:
        seconds = measure_products()
        ranked = sorted(seconds, key=lambda name: seconds[name])
        ratios = ", ".join(f"{name} {seconds['fp32'] / seconds[name]:.1f} x" for name in ranked)
        yield Finding(
            "decoding speed", "ok", f"{ratios} as fast as fp32; --precision auto uses {ranked[0]}"
        )


def _apex() -> Finding:
    import torch

    from bart_cli.training.optimizers import apex_optimizers

    kernels = apex_optimizers()
    if kernels is not None:
        lamb = getattr(kernels, "FusedMixedPrecisionLamb", None) is not None
        found = "NVIDIA's" + (", with its mixed-precision LAMB" if lamb else "")
        return Finding("apex", "ok", found)
    if _version("apex") is not None:
        found = "an unrelated project of the same name, from PyPI"
        advice = "pip uninstall apex; build NVIDIA's from github.com/NVIDIA/apex"
        return Finding("apex", "note", found, advice)
    advice = "the built-in NVLAMB is used; NVIDIA's apex (in NGC images) has a fused kernel"
    advice = advice if torch.cuda.is_available() else ""
    return Finding("apex", "ok", "not installed (optional)", advice)


def _threads() -> Finding:
    import torch

    cores = usable_cores()
    threads = torch.get_num_threads()
    advice = ""
    if threads < cores and "OMP_NUM_THREADS" in os.environ:
        advice = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} leaves cores idle; unset it"
    return Finding("cores", "note" if advice else "ok", f"{cores}; torch uses {threads}", advice)


def _memory() -> Iterator[Finding]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("memory", "ok", f"{total / 2**30:.0f} GiB")
    folder = Path("/dev/shm")
    if folder.is_dir():
        size = shutil.disk_usage(folder).total / 1e9
        if size >= LITTLE_SHARED_MEMORY:
            yield Finding("shared memory", "ok", f"{size:.0f} GB in {folder}")
        else:
            advice = "loader processes need more: pass docker run --ipc=host (or --shm-size=8g)"
            yield Finding("shared memory", "note", f"{size:.2f} GB in {folder}", advice)


def _presets() -> Finding:
    from bart_cli.config.presets import preset_folder, preset_names

    count, folder = len(preset_names()), preset_folder()
    if not count:
        return Finding("presets", "broken", f"none in {folder}", "reinstall bart")
    return Finding("presets", "ok", f"{count} in {folder}")


def _hub() -> Finding:
    import http.client
    import urllib.error
    import urllib.request

    from bart_cli.hub import address

    endpoint = address()
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        return Finding("hub", "ok", "not checked: HF_HUB_OFFLINE is set")
    try:
        with urllib.request.urlopen(f"{endpoint}/api/models?limit=1", timeout=HUB_SECONDS):
            return Finding("hub", "ok", f"{endpoint} responds")
    except urllib.error.HTTPError as error:
        if error.code in (401, 404):  # a mirror that only serves files
            return Finding("hub", "ok", f"{endpoint} responds ({error.code})")
        reason = f"HTTP {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:  # not a URL, or not HTTP
        reason = str(getattr(error, "reason", error))
    advice = (
        "use local models and tokenizers, or set HF_ENDPOINT to a mirror; behind a proxy, set "
        "HTTPS_PROXY"
    )
    return Finding("hub", "note", f"{endpoint} does not respond: {reason}", advice)


def _disk() -> Iterator[Finding]:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    for name, folder, advice in (
        ("disk, this folder", Path.cwd(), "choose --out on a larger disk for large runs"),
        ("disk, hub cache", cache, "set HF_HOME to move the cache of models and data sets"),
    ):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free / 1e9
        writable = os.access(existing, os.W_OK)
        found = f"{free:,.0f} GB free in {folder}" + ("" if writable else ", not writable")
        enough = writable and free >= LITTLE_DISK
        yield Finding(name, "ok" if enough else "note", found, "" if enough else advice)

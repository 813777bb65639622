"""Shared by the scripts of this folder: arms that take turns, medians with ranges, and inputs."""

from __future__ import annotations

import multiprocessing
import statistics
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bart_cli.config.generation import GenerationConfig
from bart_cli.errors import BartError
from bart_cli.model.bart import Bart
from bart_cli.model.formats import write_weights
from bart_cli.tokenizer import Tokenizer


def run(main: Callable[[], None]) -> None:
    """Run a script; wrong input is reported in one line, as by `bart`."""
    try:
        main()
    except (BartError, OSError) as error:
        sys.exit(f"error: {error}")
    except EOFError:  # an arm printed its traceback
        sys.exit("error: the process of an arm has ended")


def spread(values: Sequence[float], form: str = ".2f", unit: str = "") -> str:
    """Format the median and the range of values, such as "1.31 s (1.28 - 1.33)"."""
    low, middle, high = (f"{f(values):{form}}" for f in (min, statistics.median, max))
    return f"{middle}{unit} ({low} - {high})"


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Divide the values of each round."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def start_arm(serve: Callable[..., None], *arguments: Any) -> Connection:
    """Start `serve(*arguments, pipe)` in a separate process; return the other end of the pipe."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(*arguments, theirs))
    process.daemon = True
    process.start()
    theirs.close()  # the arm has its own copy; without this one, its end is noticed
    return ours


def memory() -> tuple[int, int]:
    """Return the bytes of this process: its own, and resident pages of mapped files."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(size) for name, size, *_ in (line.split() for line in lines)}
    own = sizes["Anonymous:"] * 1024
    return own, sizes["Rss:"] * 1024 - own


def lists(values: np.ndarray, lengths: Sequence[int] | np.ndarray) -> pa.ListArray:
    """Divide flat values into lists of these lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def save_random(
    folder: Path, model: Bart, texts: Sequence[str], generation: GenerationConfig
) -> None:
    """Write a model with a small tokenizer trained on the texts."""
    tokenizer = Tokenizer.train(texts, 400)
    write_weights(folder, model.config, model.state_dict(), tokenizer, generation)

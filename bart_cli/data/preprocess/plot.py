"""The picture of a preprocessing run: how long documents are, how full samples are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bart_cli.files import atomic_file


def plot_lengths(path: Path, documents: Sequence[int], fill: Mapping[str, Sequence[int]]) -> None:
    """Write a PNG with two panels.

    Args:
        documents: number of documents with [2^i, 2^(i+1)) tokens, for i = 0, 1, …
        fill: per kind of shard, the number of samples in equal bins of their fill from 0 to 100%.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.bar(range(len(documents)), documents, width=0.9)
    left.set_xticks(
        range(len(documents)), [f"{2**i:,}" for i in range(len(documents))], rotation=60
    )
    left.set(title="Documents", xlabel="tokens, from", ylabel="documents")
    for label, counts in fill.items():
        total = max(1, sum(counts))
        edges = [i / len(counts) * 100 for i in range(len(counts) + 1)]
        right.stairs([100 * c / total for c in counts], edges, label=label)
    right.set(
        title="Samples", xlabel="fill (%)", ylabel="share of the samples (%)", yscale="symlog"
    )
    right.legend()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)

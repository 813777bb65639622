"""Draw all figures of the package, in a common style.

PNG files with panels side by side are drawn with matplotlib. For the HTML report, whose template
draws SVG plots, compute their geometry in units of the SVG view box.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bart_cli.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 320.0, 110.0
BINS = 24
SPANS = 400  # of a line that is too long to draw whole

Points = tuple[Sequence[float], Sequence[float]]  # x and y


@contextmanager
def panels(
    path: Path,
    count: int,
    height: float = 3.5,
    caption: str = "",
    layout: Literal["constrained"] | None = "constrained",
) -> Iterator[list[Axes]]:
    """Yield the axes of `count` panels side by side, and write them to a PNG file on exit.

    The constrained layout takes as long as drawing; None: fixed margins.
    """
    # It warns if HOME is not writable, which does no harm.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * count, height), layout=layout)
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for axis in axes:
        axis.grid(alpha=0.3)
    yield axes
    if caption:
        figure.suptitle(caption, fontsize=7)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def draw_curves(path: Path, curves: Mapping[str, Mapping[str, Points]]) -> None:
    """Draw the curves of a training run, given as panel title -> label -> (steps, values)."""
    with panels(path, len(curves), layout=None) as axes:
        for axis, (title, lines) in zip(axes, curves.items(), strict=True):
            for label, (steps, values) in lines.items():
                axis.plot(steps, values, label=label, marker="o" if "validation" in label else None)
            axis.set(title=title, xlabel="step")
            axis.locator_params(nbins=5)  # a tick takes as long to draw as a curve
            if len(lines) > 1:
                axis.legend()


def draw_lengths(path: Path, documents: Sequence[int], fill: Mapping[str, Sequence[int]]) -> None:
    """Draw histograms of document lengths and of the fill of samples.

    Args:
        documents: number of documents with [2^i, 2^(i+1)) tokens, for i = 0, 1, …
        fill: label -> number of samples in equal bins of their fill, from 0 to 100%.
    """
    with panels(path, 2, height=4) as (left, right):
        left.bar(range(len(documents)), documents, width=0.9)
        ticks = range(len(documents))
        left.set_xticks(ticks, [f"{2**i:,}" for i in ticks], rotation=60)
        left.set(title="Documents", xlabel="tokens, from", ylabel="documents")
        for label, counts in fill.items():
            edges = [i / len(counts) * 100 for i in range(len(counts) + 1)]
            right.stairs([100 * c / max(1, sum(counts)) for c in counts], edges, label=label)
        right.set(title="Samples", xlabel="fill (%)", ylabel="share of samples (%)")
        right.set_yscale("symlog")
        right.legend()


def draw_throughput(
    path: Path,
    lines: Mapping[str, Mapping[str, Sequence[tuple[int, Sequence[float]]]]],
    labels: Mapping[str, tuple[str, str]],
    caption: str,
) -> None:
    """Draw the medians of benchmark results, with error bars from the slowest to the fastest.

    Args:
        lines: panel title -> label of a line -> sizes and their measured rates.
        labels: panel title -> labels of the x and y axes.
    """
    with panels(path, len(lines), height=4.2, caption=caption) as axes:
        for axis, (title, members) in zip(axes, lines.items(), strict=True):
            for label, points in members.items():
                sizes, rates = zip(*points, strict=True)
                median = np.array([np.median(each) for each in rates])
                ends = np.array([(min(each), max(each)) for each in rates]).T
                spread = abs(ends - median)
                axis.errorbar(sizes, median, yerr=spread, marker="o", capsize=3, label=label)
            axis.set_xscale("log", base=2)
            ticks = sorted({size for points in members.values() for size, _ in points})
            axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
            axis.minorticks_off()
            axis.set_ylim(bottom=0)
            x, y = labels[title]
            axis.set(title=title, xlabel=x, ylabel=y)
            axis.legend(fontsize=7)


def histogram(
    title: str, unit: str, values: Sequence[float], *, span: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Compute a histogram of size WIDTH x HEIGHT with about BINS bins of equal width.

    Args:
        span: ends of the axis; default: the extremes of the values, which are integers.

    Returns:
        bars (x, y, width, height, and a label with range and count), labels of the ends of the
        axis, of mean and median, and the position of the median.
    """
    data = np.asarray(values, dtype=np.float64)
    low, high = span or (float(data.min()), float(data.max()))
    if span is None:
        step = max(1.0, float(np.ceil((high - low + 1) / BINS)))
        edges = np.arange(low, high + step + 0.5, step)
    else:
        edges = np.linspace(low, high, BINS + 1)
    counts, _ = np.histogram(data, bins=edges)
    slot, top = WIDTH / len(counts), max(int(counts.max()), 1)
    last = 1 if span is None else 0  # an integer bin ends before the edge
    bars = []
    for i, count in enumerate(counts.tolist()):
        height = HEIGHT * count / top
        ends = dict.fromkeys(f"{edge:,.0f}" for edge in (edges[i], edges[i + 1] - last))
        place = {"x": slot * i, "y": HEIGHT - height, "width": slot * 0.9, "height": height}
        bars.append(place | {"label": f"{'–'.join(ends)}{unit}: {count:,}"})
    middle = float(np.median(data))
    return {
        "title": title,
        "unit": unit,
        "bars": bars,
        "low": f"{edges[0]:,.0f}",
        "high": f"{edges[-1] - last:,.0f}",
        "mean": f"{data.mean():,.1f}",
        "median": f"{middle:,.0f}",
        "median_x": float(WIDTH * (middle + last / 2 - edges[0]) / (edges[-1] - edges[0])),
    }


def plot(title: str, lines: Mapping[str, Points]) -> dict[str, Any] | None:
    """Lay out lines over a common range within WIDTH x HEIGHT. Long lines are thinned.

    Returns:
        lines (label, last value, and strokes, the `points` of SVG polylines between gaps), and
        labels of the ends of the y axis (low, high) and of the x axis (first, last); None when no
        value is finite.
    """
    every = np.concatenate([np.asarray(points, dtype=np.float64) for points in lines.values()], 1)
    xs, ys = every[:, np.isfinite(every[1])]
    if not len(ys):
        return None
    (left, right), (low, high) = (xs.min(), xs.max()), (ys.min(), ys.max())
    width, height = max(right - left, 1e-9), high - low

    def place(x: float, y: float) -> str:
        up = (y - low) / height if height else 0.5
        return f"{WIDTH * (x - left) / width:.1f},{HEIGHT * (1 - up):.1f}"

    drawn = []
    for label, points in lines.items():
        x, y = (np.asarray(values, dtype=np.float64) for values in points)
        finite = np.isfinite(y)
        y = np.where(finite, y, np.nan)
        if not finite.any():
            continue
        strokes: list[list[str]] = [[]]
        for i in _thinned(y):
            if finite[i]:
                strokes[-1].append(place(x[i], y[i]))
            elif strokes[-1]:
                strokes.append([])
        # A stroke of one point is drawn as a dot, which takes two.
        texts = [" ".join(s if len(s) > 1 else s * 2) for s in strokes if s]
        drawn.append({"label": label, "strokes": texts, "last": _short(y[finite][-1])})
    ends = {"low": _short(low), "high": _short(high), "first": f"{left:,.0f}"}
    return {"title": title, "lines": drawn, "last": f"{right:,.0f}"} | ends


def _short(value: float) -> str:
    """A number as text, without an exponent where it is large."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _thinned(values: np.ndarray) -> list[int]:
    """Places of at most 2 * SPANS values: the extremes of equal spans, so that spikes stay."""
    if len(values) <= 2 * SPANS:
        return list(range(len(values)))
    chosen: set[int] = set()
    for span in np.array_split(np.arange(len(values)), SPANS):
        part = values[span]
        if np.isnan(part).all():
            chosen.add(int(span[0]))
        else:
            chosen |= {int(span[np.nanargmin(part)]), int(span[np.nanargmax(part)])}
    return sorted(chosen)

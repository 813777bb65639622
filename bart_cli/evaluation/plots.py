"""Geometry of the report's plots, in the units of an SVG's view box; drawing is the template's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 320.0, 110.0
BINS = 24


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram; `label` tells its range and count."""

    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """Bars within WIDTH x HEIGHT; low, high: ends of the axis; median: value and place."""

    title: str
    unit: str
    bars: list[Bar]
    low: str
    high: str
    mean: str
    median: str
    median_x: float


@dataclass(frozen=True)
class Interval:
    """A score on an axis from 0 to 100%: its place, and where its interval begins and ends."""

    system: str
    value: float
    low: float | None
    high: float | None


def histogram(
    title: str,
    unit: str,
    values: Sequence[float],
    *,
    span: tuple[float, float] | None = None,
    digits: int = 0,
) -> Histogram:
    """Count values in about BINS ranges of equal width.

    Args:
        span: ends of the axis; default: the extremes. Whole numbers get ranges of whole numbers.
        digits: decimals of the labels.
    """
    data = np.asarray(values, dtype=np.float64)
    low, high = span or (float(data.min()), float(data.max()))
    if span is None and digits == 0:
        step = max(1.0, float(np.ceil((high - low + 1) / BINS)))
        edges = np.arange(low, high + step + 0.5, step)
    else:
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    counts, _ = np.histogram(data, bins=edges)
    slot, top = WIDTH / len(counts), max(int(counts.max()), 1)
    whole = span is None and digits == 0
    bars = []
    for i, count in enumerate(counts.tolist()):
        height = HEIGHT * count / top
        last = edges[i + 1] - 1 if whole else edges[i + 1]
        ends = dict.fromkeys(f"{edge:,.{digits}f}" for edge in (edges[i], last))
        label = f"{'–'.join(ends)}{unit}: {count:,}"
        bars.append(Bar(slot * i, HEIGHT - height, slot * 0.9, height, label))
    middle = float(np.median(data))
    return Histogram(
        title=title,
        unit=unit,
        bars=bars,
        low=f"{edges[0]:,.{digits}f}",
        high=f"{edges[-1] - (1 if whole else 0):,.{digits}f}",
        mean=f"{data.mean():,.{max(digits, 1)}f}",
        median=f"{middle:,.{digits}f}",
        median_x=float(
            WIDTH * (middle + (0.5 if whole else 0) - edges[0]) / (edges[-1] - edges[0])
        ),
    )

"""Figures of a table before training; the look is that of `steepest.diagnosis.plots`.

Every function takes a part of what an exploration recorded and returns a `matplotlib.figure.Figure`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from steepest.diagnosis.svg import TRAINING, WIDTH, clean, style
from steepest.exploration.describing import TIMES, written

SMALL = (WIDTH, 1.6)

NAME = 26
"""Characters of a name that are drawn."""


@style()
def distribution(histogram: Mapping[str, Any], kind: str) -> Figure:
    """Draw how many rows have values in each bin.

    Parameters
    ----------
    histogram
        See `steepest.exploration.describing.histogram`.
    kind
        The column's type: bounds of times are written as times.
    """
    figure = Figure(figsize=SMALL)
    axes = figure.add_subplot()
    edges = np.asarray(histogram["edges"], np.float64)
    axes.bar(edges[:-1], histogram["rows"], np.diff(edges), align="edge", color=TRAINING, alpha=0.75)
    axes.xaxis.set_major_locator(MaxNLocator(3 if kind in TIMES else 6, integer=kind == "integer"))
    if kind in TIMES:
        # A timestamp's date says enough on an axis.
        shown = "time" if kind == "time" else "date"
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, shown)))
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    _rows_axis(axes)
    return figure


@style()
def values(names: Sequence[object], shares: ArrayLike) -> Figure:
    """Draw the share of each of a category's most frequent values."""
    figure = Figure(figsize=(WIDTH, max(SMALL[1], 0.5 + 0.17 * len(names))))
    axes = figure.add_subplot()
    _bars(axes, names, np.asarray(shares, np.float64))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    return figure


@style()
def relations(names: Sequence[str], explained: ArrayLike) -> Figure:
    """Draw the share of the target's entropy that each column alone explains."""
    figure = Figure(figsize=(WIDTH, 0.7 + 0.19 * max(len(names), 3)))
    axes = figure.add_subplot()
    _bars(axes, names, np.asarray(explained, np.float64))
    axes.set_xlabel("share of the target's entropy that it explains")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.3g}"))
    return figure


@style()
def associations(names: Sequence[str], strength: ArrayLike) -> Figure:
    """Draw how strongly each two columns go together; a darker cell is a stronger association."""
    square = np.asarray(strength, np.float64)
    size = len(names)
    side = 1.2 + max(0.13 * size, 1.4)
    figure = Figure(figsize=(side, side))
    axes = figure.add_subplot()
    for row, column in np.ndindex(size, size):
        shade = 0.04 + 0.86 * square[row, column]
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=TRAINING, alpha=shade, linewidth=0)
        )
    shown = [clean(name, 16) for name in names]
    axes.set_xticks(range(size), shown, rotation=90, fontsize=6.5)
    axes.set_yticks(range(size), shown, fontsize=6.5)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _bars(axes: Axes, names: Sequence[object], lengths: NDArray[np.float64]) -> None:
    axes.barh(range(len(names)), lengths, height=0.66, color=TRAINING, alpha=0.85)
    axes.set_yticks(range(len(names)), [clean(name, NAME) for name in names])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _rows_axis(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _tick(value: float, _position: int | None = None) -> str:
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.4g}".replace("-", "−")

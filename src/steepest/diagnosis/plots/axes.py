"""What figures share: axes in the project's look, series thinned to what a screen shows, short numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from steepest.diagnosis.svg import VARIANTS, WIDTH, clean
from steepest.errors import SteepestError

Floats = NDArray[np.float64]

SCREEN_BINS = 200  # about two pixels each
MOST_MARKED = 20


@dataclass(frozen=True)
class Look:
    """A line's colour and its dashes, as Matplotlib takes them."""

    colour: str
    line: Any


LINES: tuple[Any, ...] = (
    "-", (0, (5, 2)), (0, (1.2, 1.5)), (0, (6, 1.5, 1.2, 1.5)),
    (0, (10, 3)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 3)), (0, (8, 1, 3, 1)),
)  # fmt: skip
LOOKS = tuple(Look(colour, line) for colour, line in zip(VARIANTS, LINES, strict=True))
"""Lines that can be told apart by their colour, and by their dashes alone."""


def looks_of(variants: int) -> tuple[Look, ...]:
    """Return a look for each variant.

    Raises
    ------
    SteepestError
        If there are more than can be told apart (8).
    """
    if variants > len(LOOKS):
        raise SteepestError(
            f"{variants} variants can't be told apart in one figure.", hint=f"Draw at most {len(LOOKS)}."
        )
    return LOOKS[:variants]


def by_bin(
    steps: ArrayLike, values: ArrayLike, bins: int = SCREEN_BINS, *, geometric: bool = False
) -> pd.DataFrame:
    """Aggregate a long series to what a screen can show, keeping its extremes.

    Parameters
    ----------
    steps, values
        Shape [steps], in order, at least one; values that are not finite count as missing.
    bins
        The most rows to return.
    geometric
        Whether bins grow by the same factor, for a logarithmic axis, and not all hold as many steps.

    Returns
    -------
    pandas.DataFrame
        ``step`` (the bin's last), ``mean``, ``lowest`` and ``highest`` of the bin's finite values, NaN where
        it has none. Series of up to 100 steps are returned step by step.

    Examples
    --------
    >>> by_bin(range(1, 401), [5.0] + [1.0] * 399, bins=2)
       step  mean  lowest  highest
    0   200  1.02     1.0      5.0
    1   400  1.00     1.0      1.0
    """
    number = np.asarray(steps)
    value = np.asarray(values, np.float64)
    finite = np.isfinite(value)
    # At least four steps to a bin, or the band between lowest and highest would say little.
    wanted = len(value) if len(value) <= 100 else min(bins, len(value) // 4)
    if geometric and len(value) > 100:
        spaced = np.geomspace(1, len(value) + 1, wanted, endpoint=False) - 1
    else:
        spaced = np.linspace(0, len(value), wanted, endpoint=False)
    starts = np.unique(spaced.astype(np.int64))
    ends = np.append(starts[1:], len(value)) - 1
    count = np.add.reduceat(finite, starts, dtype=np.int64)

    def reduced(how: np.ufunc, missing: float) -> Floats:
        filled = np.where(finite, value, missing)
        return np.where(count > 0, how.reduceat(filled, starts), np.nan)

    return pd.DataFrame(
        {
            "step": number[ends],
            "mean": reduced(np.add, 0.0) / np.maximum(count, 1),
            "lowest": reduced(np.minimum, np.inf),
            "highest": reduced(np.maximum, -np.inf),
        }
    )


def dress(axes: Axes, x_label: str, y_label: str) -> None:
    """Give axes their labels, short numbers and a faint grid."""
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.yaxis.set_major_formatter(FuncFormatter(tick))


def make_axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes."""
    figure = Figure()
    axes = figure.add_subplot()
    dress(axes, x_label, y_label)
    return figure, axes


def series(
    axes: Axes,
    at: ArrayLike,
    values: ArrayLike,
    name: str,
    look: Look = LOOKS[0],
    *,
    band: float = 0.22,
    geometric: bool = False,
) -> Floats:
    """Draw a long series as the mean of each bin in the band of its extremes; return what is drawn."""
    drawn = by_bin(at, values, geometric=geometric)
    marker = "o" if np.isfinite(drawn["mean"]).sum() <= MOST_MARKED else ""
    axes.plot(
        drawn["step"], drawn["mean"], marker=marker, markersize=3, color=look.colour,
        linestyle=look.line, label=name,
    )  # fmt: skip
    if len(drawn) < np.size(values):
        axes.fill_between(
            drawn["step"], drawn["lowest"], drawn["highest"], color=look.colour, alpha=band, linewidth=0
        )
    return drawn[["mean", "lowest", "highest"]].to_numpy().ravel()


def whole_numbers(axes: Axes, most: int = 6) -> None:
    """Let the ticks along x be whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=most, steps=[1, 2, 5, 10]))


def finite_column(table: pd.DataFrame, name: str) -> Floats:
    """Return a column as numbers, all NaN where the table lacks it, NaN for infinities."""
    values = table[name].to_numpy(np.float64) if name in table else np.full(len(table), np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def finite(values: Iterable[float | None]) -> Floats:
    """Return numbers from JSON, NaN where there is none."""
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def scale(axes: Axes, *values: Floats) -> None:
    """Use a logarithmic axis where positive values span more than a factor of 50."""
    together = np.concatenate(values)
    finite = together[np.isfinite(together)]
    if len(finite) and finite.min() > 0 and finite.max() > 50 * finite.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(tick))
        axes.yaxis.set_minor_formatter(NullFormatter())


def label(name: object, most: int = 32) -> str:
    """Shorten a name from data for a key; Matplotlib would leave out one that begins with an underscore."""
    text = clean(name, most)
    return f" {text}" if text.startswith("_") else text


def key(axes: Axes) -> None:
    """Name the lines in their own colours above the axes, where they hide nothing; the figure grows."""
    labels = axes.get_legend_handles_labels()[1]
    if len(labels) > 1:
        columns = next(count for count in (3, 2, 1) if count == 1 or _fits(labels, count))
        figure = axes.figure.get_figure(root=True)
        figure.set_figheight(figure.get_figheight() + 0.17 * (-(-len(labels) // columns) - 1))
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, fontsize=8, columnspacing=1.2
        )


def _fits(labels: list[str], columns: int) -> bool:
    """Tell whether a key's labels, each beside its line, fit above the axes in so many columns."""
    letters = FontProperties(size=8)
    widths = [
        # Letters that the font lacks count as question marks.
        text_to_path.get_text_width_height_descent(
            label.encode("ascii", "replace").decode(), letters, ismath=False
        )[0]
        for label in labels
    ]
    beside = 28  # points: the line, and the room around
    taken = sum(float(max(part)) + beside for part in np.array_split(widths, columns) if len(part))
    return taken <= 72 * WIDTH - 50


def unit_square(axes: Axes) -> None:
    """Show shares from 0 to 1."""
    axes.set(xlim=(0, 1), ylim=(0, 1.02))


def tick(value: float, _position: int | None = None) -> str:
    """Write an axis' number short: 0.25, 1,500, 2M, 1e-07."""
    for size, suffix in ((1e9, "B"), (1e6, "M")):
        if size <= abs(value) < 1e12:
            return f"{value / size:.4g}{suffix}"
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.4g}".replace("-", "−")

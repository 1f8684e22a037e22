"""Figures of choices: the learning rates that a search tried, and variants of a descent side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from steepest.diagnosis.plots.axes import (
    LOOKS,
    finite,
    key,
    label,
    looks_of,
    make_axes,
    scale,
    series,
    whole_numbers,
)
from steepest.diagnosis.svg import TEXT, TRAINING, VALIDATION, style
from steepest.errors import SteepestError, nearest

AGAINST = {"step": "step", "rows": "rows seen", "seconds": "seconds"}
"""What variants can be compared over, and what the axis calls it."""


@style()
def rate_against_loss(search: Mapping[str, Any]) -> Figure:
    """Draw the loss that each learning rate reached, the interval of rates that work, and the choice.

    Losses far above the start's are off the picture; rates that diverged are crosses at its upper edge.

    Parameters
    ----------
    search
        ``rates`` and their ``losses`` (``None`` where the descent diverged), ``start_loss``, ``interval``
        (two rates or ``None``), ``choice`` and ``limit`` (the largest stable rate by the measured curvature;
        a rate or ``None`` each).
    """
    figure, axes = make_axes("learning rate", "loss reached")
    order = np.argsort(search["rates"])
    rates = np.asarray(search["rates"], np.float64)[order]
    losses, start = finite(search["losses"])[order], search["start_loss"]
    if search["interval"]:
        axes.axvspan(*search["interval"], color=TRAINING, alpha=0.12, linewidth=0, label="rates that work")
    axes.plot(rates, losses, "o-", markersize=3, color=TRAINING, label="loss reached")
    axes.axhline(start, color=TEXT, alpha=0.8, linewidth=1, linestyle=LOOKS[2].line, label="loss at start")
    if search["limit"] is not None:
        axes.axvline(search["limit"], color=TEXT, linestyle=LOOKS[1].line, label="curvature limit")
    if search["choice"] is not None:
        axes.axvline(search["choice"], color=VALIDATION, label=f"choice: {search['choice']:.3g}")
    diverged = rates[np.isnan(losses)]
    if len(diverged):
        axes.plot(
            diverged, np.full(len(diverged), 0.97), "x", color=VALIDATION, markersize=5,
            transform=axes.get_xaxis_transform(), label="diverged",
        )  # fmt: skip
    _log_x(axes)
    # Where some losses fell, the axis ends a little above the start's.
    lowest = np.nanmin(losses, initial=start)
    top = start + 0.5 * (start - lowest) if lowest < start else np.inf
    scale(axes, losses[losses <= top], np.array([start]))
    if np.nanmax(losses, initial=start) > top:
        logarithmic = axes.get_yscale() == "log"
        axes.set_ylim(lowest / 1.2 if logarithmic else lowest - 0.05 * (top - lowest), top)
    key(axes)
    return figure


@style()
def loss_by(history: pd.DataFrame, against: str = "step") -> Figure:
    """Draw the training loss of several variants of a descent against the same measure of effort.

    Parameters
    ----------
    history
        A row for each step of each variant, in order: ``variant``, ``loss``, and ``against``; see `measured`.
    against
        ``"step"``, ``"rows"`` (seen so far) or ``"seconds"``.

    Raises
    ------
    SteepestError
        If it is none of these, or there are more variants than can be told apart (8).
    """
    if against not in AGAINST:
        raise SteepestError(
            f"Variants can't be compared over {against!r}.",
            hint=nearest(against, AGAINST),
        )
    history = measured(history)
    variants = list(dict.fromkeys(history["variant"]))
    look = dict(zip(variants, looks_of(len(variants)), strict=True))
    figure, axes = make_axes(AGAINST[against], "loss")
    parts = {variant: history[history["variant"] == variant] for variant in variants}
    ends = np.array([part[against].iloc[-1] for part in parts.values()], np.float64)
    geometric = bool(ends.max() > 50 * ends.min() > 0)
    drawn = []
    for variant, part in parts.items():
        values = series(
            axes, part[against], part["loss"], label(variant), look[variant], band=0.1,
            geometric=geometric,
        )  # fmt: skip
        drawn.append(values[::3])  # the means: the lowest loss of a single row says little
    if geometric:
        _log_x(axes)
    elif against != "seconds":
        whole_numbers(axes)
    scale(axes, *drawn)
    key(axes)
    return figure


def measured(history: pd.DataFrame) -> pd.DataFrame:
    """Return the rows and the loss that variants are compared by.

    That is ``sample_loss``, the loss on the same rows for all, where it was measured; a batch's own loss is
    as noisy as the batch is small.
    """
    if "sample_loss" not in history:
        return history
    known = history[history["sample_loss"].notna()]
    return known.assign(loss=known["sample_loss"])


def _log_x(axes: Axes) -> None:
    ticks = axes.xaxis.get_major_formatter()
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=7))
    axes.xaxis.set_major_formatter(ticks)
    axes.xaxis.set_minor_formatter(NullFormatter())

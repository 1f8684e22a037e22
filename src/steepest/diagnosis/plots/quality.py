"""Figures of what a descent learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from steepest.diagnosis.plots.axes import key, make_axes, tick, unit_square
from steepest.diagnosis.svg import TEXT, TRAINING, VALIDATION, WIDTH, clean, style

MOST_BARS = 20
IMPORTANCES = {"permutation": "increase of the loss when shuffled", "weights": "weight"}


@style()
def roc(curves: Mapping[str, Any]) -> Figure:
    """Draw the share of positives found against the share of false alarms, over all thresholds."""
    figure, axes = make_axes("share of negatives wrongly called positive", "share of positives found")
    axes.plot([0, 1], [0, 1], color=TEXT, alpha=0.5, linewidth=0.7, linestyle=(0, (4, 3)))
    axes.text(0.62, 0.56, "chance", alpha=0.7, fontsize=8)
    axes.plot(curves["roc"]["false_positive_rate"], curves["roc"]["true_positive_rate"], color=TRAINING)
    unit_square(axes)
    return figure


@style()
def precision_recall(curves: Mapping[str, Any]) -> Figure:
    """Draw precision against recall, and the precision of guessing: the share of positives."""
    rate = curves["precision_recall"]["precision"][0]  # there every row is called positive
    figure, axes = make_axes("share of positives found (recall)", "share right when called positive")
    axes.axhline(rate, color=TEXT, alpha=0.5, linewidth=0.7, linestyle=(0, (4, 3)))
    axes.text(0.01, rate + 0.015, f"chance: {rate:.1%}", alpha=0.7, fontsize=8, verticalalignment="bottom")
    axes.plot(curves["precision_recall"]["recall"], curves["precision_recall"]["precision"], color=TRAINING)
    unit_square(axes)
    return figure


@style()
def calibration(curves: Mapping[str, Any]) -> Figure:
    """Draw the observed share of positives against the predicted one, with its 95 % interval.

    The interval is Wilson's, "Probable inference, the law of succession, and statistical inference", Journal
    of the American Statistical Association 22 (1927), at two standard errors.
    """
    figure, axes = make_axes("predicted probability", "observed share")
    predicted, observed, rows = (
        np.asarray(curves["calibration"][name], np.float64) for name in ("predicted", "observed", "rows")
    )
    end = min(1.02, 1.1 * max(predicted.max(), observed.max(), 0.01))
    axes.plot([0, end], [0, end], color=TEXT, alpha=0.5, linewidth=0.7, linestyle=(0, (4, 3)))
    centre = (observed + 2 / rows) / (1 + 4 / rows)
    half = 2 * np.sqrt(observed * (1 - observed) / rows + 1 / rows**2) / (1 + 4 / rows)
    error = np.maximum([observed - centre + half, centre + half - observed], 0)
    axes.errorbar(predicted, observed, error, fmt="o-", markersize=3.5, color=TRAINING, elinewidth=0.8)
    axes.set(xlim=(0, end), ylim=(0, end))
    return figure


@style()
def confusion(curves: Mapping[str, Any]) -> Figure:
    """Draw the confusion matrix; a cell's shade is its share of the rows of its true class."""
    labels, counts = curves["confusion"]["labels"], np.asarray(curves["confusion"]["rows"])
    size = len(labels)
    figure = Figure(figsize=(WIDTH, 2.8 if size <= 4 else 3.8))
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for row, column in np.ndindex(size, size):
        share, count = shares[row, column], counts[row, column]
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=TRAINING, alpha=0.04 + 0.5 * share)
        )
        if size <= 12 and (count or size <= 4):
            words = f"{count:,}\n{share:.1%}" if size <= 4 else f"{count:,}"
            axes.text(
                column, row, words, horizontalalignment="center", verticalalignment="center",
                fontsize=9 if size <= 4 else 7,
            )  # fmt: skip
    names = [clean(label, 14) for label in labels]
    axes.set_xticks(range(size), names, rotation=0 if size <= 4 or max(map(len, names)) <= 2 else 90)
    axes.set_yticks(range(size), names)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="predicted", ylabel="true")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@style()
def residuals(curves: Mapping[str, Any]) -> Figure:
    """Draw how many rows were missed by how much (true minus predicted)."""
    figure, axes = make_axes("true minus predicted", "rows")
    edges = np.asarray(curves["residuals"]["edges"], np.float64)
    axes.bar(
        edges[:-1], curves["residuals"]["rows"], np.diff(edges), align="edge", color=TRAINING, alpha=0.75
    )
    axes.axvline(0, color=TEXT, alpha=0.6, linewidth=0.7)
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
    return figure


@style()
def predicted_against_true(curves: Mapping[str, Any]) -> Figure:
    """Draw a sample of rows, and the mean true value at each twentieth of the predictions."""
    figure, axes = make_axes("predicted", "true")
    recorded = curves["predicted_against_true"]
    sample = recorded["sample"]
    axes.plot(
        sample["predicted"], sample["true"], "o", markersize=2.2, markeredgewidth=0, color=TRAINING,
        alpha=0.5, label="a row",
    )  # fmt: skip
    axes.plot(
        recorded["predicted"], recorded["observed"], "o-", markersize=3.5, color=VALIDATION, label="mean"
    )
    shown = np.asarray([*sample["predicted"], *sample["true"], *recorded["predicted"]], np.float64)
    axes.axline(
        (shown.min(), shown.min()), slope=1, color=TEXT, alpha=0.5, linewidth=0.7, linestyle=(0, (4, 3))
    )
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    key(axes)
    return figure


@style()
def importances(entries: Sequence[Mapping[str, Any]], kind: str) -> Figure:
    """Draw the first importances as bars with their spread.

    Parameters
    ----------
    entries
        ``{"name", "value", "spread"}``, the largest first; the spread may be missing.
    kind
        What a value is: ``"permutation"`` (increase of the loss) or ``"weights"`` (with their sign).
    """
    shown = entries[:MOST_BARS]
    figure = Figure(figsize=(WIDTH, 0.7 + 0.19 * max(len(shown), 3)))
    axes = figure.add_subplot()
    axes.barh(
        range(len(shown)), [entry["value"] for entry in shown], height=0.66, color=TRAINING, alpha=0.85,
        xerr=[entry.get("spread") or 0.0 for entry in shown],
        error_kw={"ecolor": TEXT, "elinewidth": 0.7, "alpha": 0.7},
    )  # fmt: skip
    axes.set_yticks(range(len(shown)), [clean(entry["name"], 28) for entry in shown])
    axes.invert_yaxis()
    axes.axvline(0, color=TEXT, alpha=0.6, linewidth=0.5)
    axes.set_xlabel(IMPORTANCES[kind])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return figure

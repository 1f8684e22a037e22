"""Figures of a descent and of what it learned.

Every function takes what a run recorded and returns a `matplotlib.figure.Figure`; none needs a display or
changes Matplotlib's own settings. ``steps`` is a table with one row per step (``step`` and ``epoch`` from 1,
``loss``, ``gradient_norm``, ``learning_rate``); ``epochs`` has one row per epoch (``epoch``, ``loss``, and
``validation_loss`` where rows were held out); ``curves`` is that part of `steepest.evaluation.evaluate`'s
result. Gaps (NaN, infinities) are left blank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from steepest.diagnosis.svg import TEXT, TRAINING, VALIDATION, WIDTH, clean, style

Floats = NDArray[np.float64]

SCREEN_BINS = 200  # about two pixels each
MOST_BARS = 20
IMPORTANCES = {"permutation": "increase of the loss when shuffled", "weights": "weight"}


def by_bin(steps: ArrayLike, values: ArrayLike, bins: int = SCREEN_BINS) -> pd.DataFrame:
    """Aggregate a long series to what a screen can show, keeping its extremes.

    Parameters
    ----------
    steps, values
        Shape [steps], in order, at least one; values that are not finite count as missing.
    bins
        The most rows to return.

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
    starts = np.linspace(0, len(value), wanted, endpoint=False).astype(np.int64)
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


@style()
def loss_by_step(steps: pd.DataFrame, epochs: pd.DataFrame) -> Figure:
    """Draw the training loss of every step, and the validation loss at the ends of epochs."""
    figure, axes = _axes("step", "loss")
    drawn = [_series(axes, steps, "loss", "training, per step")]
    last_step = steps.groupby("epoch")["step"].max()
    validation = _column(epochs, "validation_loss")
    at = epochs["epoch"].map(last_step).to_numpy(np.float64)
    if np.isfinite(validation).any():
        axes.plot(
            at, validation, "o-", markersize=3, color=VALIDATION, label="held out, after each epoch", zorder=3
        )
    _scale(axes, *drawn, validation)
    _key(axes)
    return figure


@style()
def loss_by_epoch(epochs: pd.DataFrame) -> Figure:
    """Draw each epoch's training and validation loss, and mark the lowest validation loss."""
    figure, axes = _axes("epoch", "loss")
    epoch, training = epochs["epoch"].to_numpy(), _column(epochs, "loss")
    validation = _column(epochs, "validation_loss")
    marker = "o" if len(epochs) <= 60 else ""
    axes.plot(epoch, training, marker=marker, markersize=3, color=TRAINING, label="training")
    if np.isfinite(validation).any():
        axes.plot(epoch, validation, marker=marker, markersize=3, color=VALIDATION, label="held out")
        best = int(np.nanargmin(validation))
        axes.plot(
            epoch[best], validation[best], "o", markersize=8, markerfacecolor="none", color=VALIDATION,
            label=f"lowest: epoch {epoch[best]:,}",
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    _scale(axes, training, validation)
    _key(axes)
    return figure


@style()
def learning_rate(steps: pd.DataFrame) -> Figure:
    """Draw the learning rate of every step."""
    figure, axes = _axes("step", "learning rate")
    values = _series(axes, steps, "learning_rate", "learning rate")
    _scale(axes, values)
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    return figure


@style()
def gradient_norm(steps: pd.DataFrame) -> Figure:
    """Draw the norm of the gradient at every step."""
    figure, axes = _axes("step", "norm of the gradient")
    _scale(axes, _series(axes, steps, "gradient_norm", "norm of the gradient"))
    _key(axes)
    return figure


@style()
def roc(curves: Mapping[str, Any]) -> Figure:
    """Draw the share of positives found against the share of false alarms, over all thresholds."""
    figure, axes = _axes("share of negatives wrongly called positive", "share of positives found")
    axes.plot([0, 1], [0, 1], color=TEXT, alpha=0.5, linewidth=0.7, linestyle=(0, (4, 3)))
    axes.text(0.62, 0.56, "chance", alpha=0.7, fontsize=8)
    axes.plot(curves["roc"]["false_positive_rate"], curves["roc"]["true_positive_rate"], color=TRAINING)
    _unit_square(axes)
    return figure


@style()
def precision_recall(curves: Mapping[str, Any]) -> Figure:
    """Draw precision against recall, and the precision of guessing: the share of positives."""
    rate = curves["precision_recall"]["precision"][0]  # there every row is called positive
    figure, axes = _axes("share of positives found (recall)", "share right when called positive")
    axes.axhline(rate, color=TEXT, alpha=0.5, linewidth=0.7, linestyle=(0, (4, 3)))
    axes.text(0.01, rate + 0.015, f"chance: {rate:.1%}", alpha=0.7, fontsize=8, verticalalignment="bottom")
    axes.plot(curves["precision_recall"]["recall"], curves["precision_recall"]["precision"], color=TRAINING)
    _unit_square(axes)
    return figure


@style()
def calibration(curves: Mapping[str, Any]) -> Figure:
    """Draw the observed share of positives against the predicted one, with its 95 % interval.

    The interval is Wilson's, "Probable inference, the law of succession, and statistical inference", Journal
    of the American Statistical Association 22 (1927), at two standard errors.
    """
    figure, axes = _axes("predicted probability", "observed share")
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
    figure, axes = _axes("true minus predicted", "rows")
    edges = np.asarray(curves["residuals"]["edges"], np.float64)
    axes.bar(
        edges[:-1], curves["residuals"]["rows"], np.diff(edges), align="edge", color=TRAINING, alpha=0.75
    )
    axes.axvline(0, color=TEXT, alpha=0.6, linewidth=0.7)
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
    return figure


@style()
def predicted_against_true(curves: Mapping[str, Any]) -> Figure:
    """Draw a sample of rows, and the mean true value at each twentieth of the predictions."""
    figure, axes = _axes("predicted", "true")
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
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    _key(axes)
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
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return figure


def _axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure()
    axes = figure.add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    return figure, axes


def _series(axes: Axes, steps: pd.DataFrame, column: str, label: str) -> Floats:
    """Draw one value per step as the mean of each bin in the band of its extremes; return what is drawn."""
    drawn = by_bin(steps["step"], steps[column])
    single = len(drawn) == 1
    axes.plot(drawn["step"], drawn["mean"], "o" if single else "-", markersize=4, color=TRAINING, label=label)
    if len(drawn) < len(steps):
        axes.fill_between(
            drawn["step"], drawn["lowest"], drawn["highest"], color=TRAINING, alpha=0.22, linewidth=0
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
    return drawn[["mean", "lowest", "highest"]].to_numpy().ravel()


def _column(table: pd.DataFrame, name: str) -> Floats:
    """Return a column as numbers, all NaN where the table lacks it, NaN for infinities."""
    values = table[name].to_numpy(np.float64) if name in table else np.full(len(table), np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _scale(axes: Axes, *values: Floats) -> None:
    """Use a logarithmic axis where positive values span more than a factor of 50."""
    together = np.concatenate(values)
    finite = together[np.isfinite(together)]
    if len(finite) and finite.min() > 0 and finite.max() > 50 * finite.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _key(axes: Axes) -> None:
    """Name the lines in their own colours above the axes, where they hide nothing."""
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, fontsize=8, columnspacing=1.2)


def _unit_square(axes: Axes) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02))


def _tick(value: float, _position: int | None = None) -> str:
    """Write an axis' number short: 0.25, 1,500, 2M, 1e-07."""
    for size, suffix in ((1e9, "B"), (1e6, "M")):
        if size <= abs(value) < 1e12:
            return f"{value / size:.4g}{suffix}"
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.4g}".replace("-", "−")

"""Figures of how a descent went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from steepest.diagnosis.plots.axes import (
    LOOKS,
    Floats,
    dress,
    finite,
    finite_column,
    key,
    label,
    make_axes,
    scale,
    series,
    whole_numbers,
)
from steepest.diagnosis.svg import TRAINING, VALIDATION, WIDTH, style

RATIO = "update_ratio"
MOST_LAYERS = 7
MOST_EPOCHS = 60  # that are marked
PANELS = {
    "loss": "loss",
    "learning_rate": "learning rate",
    "gradient_norm": "norm of the gradient",
    RATIO: "update ÷ weights",
}
"""A step's figures and what an axis calls them."""


@style()
def loss_by_step(steps: pd.DataFrame, epochs: pd.DataFrame) -> Figure:
    """Draw the training loss of every step, and the validation loss at the ends of epochs."""
    figure, axes = make_axes("step", "loss")
    drawn = [series(axes, steps["step"], steps["loss"], "training, per step")]
    last_step = steps.groupby("epoch")["step"].max()
    validation = finite_column(epochs, "validation_loss")
    at = epochs["epoch"].map(last_step).to_numpy(np.float64)
    if np.isfinite(validation).any():
        _draw_held_out(axes, at, validation, "held out, after each epoch")
    whole_numbers(axes)
    scale(axes, *drawn, validation)
    key(axes)
    return figure


@style()
def loss_by_epoch(epochs: pd.DataFrame) -> Figure:
    """Draw each epoch's training and validation loss, and mark the lowest validation loss."""
    figure, axes = make_axes("epoch", "loss")
    epoch, training = epochs["epoch"].to_numpy(), finite_column(epochs, "loss")
    validation = finite_column(epochs, "validation_loss")
    marker = "o" if len(epochs) <= MOST_EPOCHS else ""
    axes.plot(epoch, training, marker=marker, markersize=3, color=TRAINING, label="training")
    if np.isfinite(validation).any():
        _draw_held_out(axes, epoch, validation, "held out")
        best = int(np.nanargmin(validation))
        axes.plot(
            epoch[best], validation[best], "o", markersize=8, markerfacecolor="none", color=VALIDATION,
            label=f"lowest: epoch {epoch[best]:,}",
        )  # fmt: skip
    whole_numbers(axes, 8)
    scale(axes, training, validation)
    key(axes)
    return figure


@style()
def learning_rate(steps: pd.DataFrame) -> Figure:
    """Draw the learning rate of every step."""
    figure = Figure()
    _draw(figure.add_subplot(), steps, "learning_rate")
    return figure


@style()
def gradient_norm(steps: pd.DataFrame) -> Figure:
    """Draw the norm of the gradient at every step."""
    figure = Figure()
    _draw(figure.add_subplot(), steps, "gradient_norm")
    return figure


@style()
def update_ratio(steps: pd.DataFrame) -> Figure:
    """Draw how far each measured step moved the weights, by layer, above the learning rate.

    ``update_ratio`` is the norm of the applied update over the norm of the weights, ``update_ratio.NAME`` the
    same within a layer. Of many layers, seven are drawn, spread evenly from the first to the last.
    """
    figure = Figure(figsize=(WIDTH, 3.6))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    dress(above, "", PANELS[RATIO])
    layers = [name for name in steps if str(name).startswith(f"{RATIO}.")]
    shown = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), MOST_LAYERS)).round().astype(int))
    names = [RATIO] if len(layers) <= 1 else [RATIO, *(layers[place] for place in shown)]
    drawn = [
        series(above, *_measured(steps, name), _layer_label(name), look, band=0.1)
        for name, look in zip(names, LOOKS, strict=False)
    ]
    scale(above, *drawn)
    key(above)
    _draw(below, steps, "learning_rate")
    return figure


@style()
def curvature(points: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the largest curvature against the limit beyond which the rate is not stable.

    Parameters
    ----------
    points
        ``{"step", "curvature", "limit_curvature"}`` at each place where it was measured, in order.
    """
    figure, axes = make_axes("step", "largest curvature")
    step = [point["step"] for point in points]
    measured, limit = (
        finite(point.get(name) for point in points) for name in ("curvature", "limit_curvature")
    )
    axes.plot(step, measured, "o-", markersize=3, color=TRAINING, label="measured")
    axes.plot(
        step, limit, marker="o" if len(points) == 1 else "", markersize=3, linestyle=LOOKS[1].line,
        color=VALIDATION, label="stable below",
    )  # fmt: skip
    whole_numbers(axes)
    scale(axes, measured, limit)
    key(axes)
    return figure


def curvature_points(
    evidence: Mapping[str, Any], steps: pd.DataFrame, epochs: pd.DataFrame
) -> list[dict[str, Any]]:
    """Return where the curvature was measured, as `curvature` draws it: at start and end, or by epoch.

    Parameters
    ----------
    evidence
        What `steepest.diagnosis.examination` measured, a run's ``evidence.json``.
    steps, epochs
        The history; its epochs have ``curvature`` and ``curvature_limit`` where that was asked for.

    Examples
    --------
    >>> evidence = {"course": {"steps": 9}, "start": {}, "end": {"curvature": 3.0, "limit": 20.0}}
    >>> curvature_points(evidence, pd.DataFrame(), pd.DataFrame())
    [{'step': 9, 'curvature': 3.0, 'limit_curvature': 20.0}]
    """
    if "curvature" in epochs:
        measured = epochs[np.isfinite(epochs["curvature"])]
        last = steps.groupby("epoch")["step"].max()
        return [
            {"step": int(step), "curvature": value, "limit_curvature": limit if np.isfinite(limit) else None}
            for step, value, limit in zip(
                measured["epoch"].map(last), measured["curvature"], measured["curvature_limit"], strict=True
            )
        ]
    places = ((0, evidence.get("start")), (evidence["course"]["steps"], evidence.get("end")))
    return [
        {"step": step, "curvature": measured["curvature"], "limit_curvature": measured.get("limit")}
        for step, measured in places
        if measured and measured.get("curvature") is not None
    ]


@style()
def overview(steps: pd.DataFrame, epochs: pd.DataFrame) -> Figure:
    """Draw a descent's main figures side by side: those of `PANELS` that were recorded."""
    names = [name for name in PANELS if name == "loss" or np.isfinite(finite_column(steps, name)).any()]
    rows = -(-len(names) // 2)
    figure = Figure(figsize=(1.9 * WIDTH, 2.6 * rows))
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(rows, 2 if len(names) > 1 else 1, place)
        _draw(axes, steps, name)
        if name == "loss" and "validation_loss" in epochs:
            last_step = epochs["epoch"].map(steps.groupby("epoch")["step"].max())
            _draw_held_out(axes, last_step, finite_column(epochs, "validation_loss"), "held out")
            key(axes)
    return figure


def _draw_held_out(axes: Axes, at: ArrayLike, losses: Floats, name: str) -> None:
    marker = "o" if len(losses) <= MOST_EPOCHS else ""
    axes.plot(at, losses, marker=marker, markersize=3, color=VALIDATION, label=name, zorder=3)


def _draw(axes: Axes, steps: pd.DataFrame, name: str) -> None:
    """Draw one of `PANELS` over the steps."""
    dress(axes, "step", PANELS[name])
    scale(axes, series(axes, *_measured(steps, name), PANELS[name]))
    whole_numbers(axes)
    if name == "learning_rate" and axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)


def _measured(steps: pd.DataFrame, name: str) -> tuple[pd.Series[Any], pd.Series[Any]]:
    """Return the steps' numbers and a column; of one that is measured now and then, only where it was."""
    if name.startswith(RATIO) and np.isfinite(steps[name]).any():
        steps = steps[np.isfinite(steps[name])]
    return steps["step"], steps[name]


def _layer_label(name: str) -> str:
    return "all layers" if name == RATIO else label(name.removeprefix(f"{RATIO}."), 14)

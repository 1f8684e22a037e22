"""The descent seen from above: the loss as a landscape, and the paths that were taken through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from steepest.diagnosis.plots.axes import Floats, Look, dress, finite, key, label, looks_of
from steepest.diagnosis.svg import TEXT, WIDTH, style

if TYPE_CHECKING:
    from steepest.diagnosis.landscape import Landscape

LEVELS = 13


@style()
def from_above(landscape: Landscape) -> Figure:
    """Draw contours of the loss, and each variant's path from its start (ring) to its end (disc).

    Each contour is the same factor higher above the lowest loss than the one inside it. Of one parameter the
    loss is a curve, and the paths run along it.
    """
    figure, axes = ground(landscape)
    looks = looks_of(len(landscape.paths))
    for name, look in zip(landscape.paths, looks, strict=True):
        place = places(landscape, name)
        axes.plot(*place.T, color=look.colour, linestyle=look.line, label=label(name), zorder=3)
        draw_start(axes, place, look)
        axes.plot(*_known(place)[-1:].T, "o", markersize=5, color=look.colour, zorder=4)
    key(axes)
    return figure


@style()
def ground(landscape: Landscape) -> tuple[Figure, Axes]:
    """Draw the loss alone: contours, or a curve where there is one parameter."""
    figure = Figure(figsize=(WIDTH, 3.4))
    axes = figure.add_subplot()
    x, y = landscape.x, landscape.y
    losses = np.array([finite(row) for row in landscape.losses])
    if len(y) == 1:
        dress(axes, landscape.labels[0], "loss")
        axes.plot(x, losses[0], color=TEXT, alpha=0.5, linewidth=0.8)
        axes.set_xlim(x[0], x[-1])
        return figure, axes
    dress(axes, *landscape.labels)
    axes.grid(visible=False)
    levels = _levels(losses)
    if len(levels):
        shades = [to_rgba(TEXT, 0.22 * place / len(levels)) for place in range(len(levels) + 1)]
        axes.contourf(x, y, losses, levels, colors=shades, extend="both")
        axes.contour(x, y, losses, levels, colors=TEXT, alpha=0.35, linewidths=0.5)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    return figure, axes


def places(landscape: Landscape, name: str) -> Floats:
    """Return where a path's snapshots are on the picture, ``[snapshots, 2]``, NaN where not finite."""
    trail = landscape.paths[name]
    return np.stack([finite(trail.x), finite(trail.loss if len(landscape.y) == 1 else trail.y)], axis=1)


def draw_start(axes: Axes, place: Floats, look: Look) -> None:
    """Draw the ring where a path begins."""
    axes.plot(*_known(place)[:1].T, "o", markersize=6, markerfacecolor="none", color=look.colour, zorder=3)


def _known(place: Floats) -> Floats:
    return place[np.isfinite(place).all(axis=1)]


def _levels(losses: Floats) -> Floats:
    """Return heights of contours: the same factor between each and the next, above the lowest loss."""
    known = losses[np.isfinite(losses)]
    lowest = known.min(initial=np.inf)
    heights = (known - lowest)[known > lowest]
    if not len(heights):
        return np.array([])
    bottom, top = np.quantile(heights, [0.005, 0.98])
    return np.unique(lowest + np.geomspace(bottom, top, LEVELS))

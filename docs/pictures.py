"""Draw the pictures of gradient-descent.md, from seeds, into docs/pictures.

python docs/pictures.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import steepest
from steepest.diagnosis.plots.axes import LOOKS, key, make_axes
from steepest.diagnosis.svg import style

FOLDER = Path(__file__).with_name("pictures")

RULES = {
    "SGD": steepest.SGD(0.018),
    "momentum": steepest.Momentum(0.006, momentum=0.85),
    "AdaGrad": steepest.AdaGrad(0.6),
    "RMSProp": steepest.RMSProp(0.03),
    "Adam": steepest.Adam(0.08),
}
"""The rules at rates that suit them in the ravine."""

RATES = {"0.002: too low": 0.002, "0.05: good": 0.05, "0.098: high": 0.098, "0.101: too high": 0.101}
"""Rates for `bowl`, whose largest curvature is 20; so the limit 2/L is 0.1."""

SCHEDULES = {
    "constant": steepest.schedules.constant(0.1),
    "step": steepest.schedules.step(0.1, every=25, factor=0.5),
    "exponential": steepest.schedules.exponential(0.1, decay_steps=25, decay_rate=0.5),
    "cosine, warm-up": steepest.schedules.cosine(0.1, steps=100, warmup_steps=10),
    "one cycle": steepest.schedules.one_cycle(0.1, steps=100),
}


def bowl(point: jax.Array) -> jax.Array:
    """A quadratic with curvatures 1 and 20."""
    return 0.5 * (point[0] ** 2 + 20 * point[1] ** 2)


def ravine(point: jax.Array) -> jax.Array:
    """A quadratic with curvatures 1 and 100."""
    return 0.5 * (point[0] ** 2 + 100 * point[1] ** 2)


def two_valleys(place: jax.Array) -> jax.Array:
    """A function of one parameter with a valley near -1 and a deeper one near 1."""
    return (place**2 - 1) ** 2 - 0.3 * place


def saddle(point: jax.Array) -> jax.Array:
    """A saddle at 0 between minima at (1, 0) and (-1, 0)."""
    return 0.25 * (point[0] ** 2 - 1) ** 2 + 0.5 * point[1] ** 2


def line(parameters: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    """The squared error of a straight line."""
    return (parameters[0] + parameters[1] * batch["x"] - batch["y"]) ** 2


def points() -> dict[str, np.ndarray]:
    """Return 256 points scattered around the line 1 + 2x."""
    draws = np.random.default_rng(0)
    x = draws.normal(size=256).astype(np.float32)
    y = 1 + 2 * x + 0.7 * draws.normal(size=256).astype(np.float32)
    return {"x": x, "y": y}


def descend(loss: Callable[..., Any], start: Any, rule: Any, steps: int, **more: Any) -> steepest.Result:
    """Descend for so many epochs, and keep the path."""
    return steepest.minimize(
        loss, jnp.asarray(start), optimizer=rule, epochs=steps, tolerance=0, snapshots=100, **more
    )


def variants() -> dict[str, steepest.Result]:
    """Descend on the points with all rows a step, with 16, and with one."""
    sizes = {"batch": "all", "mini-batch of 16": 16, "stochastic": 1}
    epochs = {"batch": 40, "mini-batch of 16": 5, "stochastic": 1}
    return {
        name: descend(line, [-1.0, -0.5], steepest.SGD(0.05), epochs[name], data=points(), batch_size=size)
        for name, size in sizes.items()
    }


def _path(result: steepest.Result) -> Any:
    return result.path.parameters


def _steps() -> Figure:
    starts = np.random.default_rng(3).uniform(-3, 3, 3).round(2)
    paths = {
        f"start at {start}": _path(
            descend(lambda p: (p - 0.5) ** 2 + 0.4, float(start), steepest.SGD(0.15), 25)
        )
        for start in starts
    }
    return _above(lambda p: (p - 0.5) ** 2 + 0.4, paths, dots=True)


def _variants() -> Figure:
    return _above(
        lambda p, batch: line(p, batch).mean(),
        {name: _path(run) for name, run in variants().items()},
        points(),
    )


def _rates() -> Figure:
    runs = {name: descend(bowl, [1.0, 1.0], steepest.SGD(rate), 60) for name, rate in RATES.items()}
    losses = [
        pd.DataFrame({"variant": name, "step": run.history["step"], "loss": run.history["loss"]})
        for name, run in runs.items()
    ]
    return steepest.plot.loss_by(pd.concat(losses))


def _rules() -> Figure:
    paths = {name: _path(descend(ravine, [-3.0, 0.6], rule, 60)) for name, rule in RULES.items()}
    return _above(ravine, paths)


def _valleys() -> Figure:
    paths = {
        f"start at {start}": _path(descend(two_valleys, start, steepest.SGD(0.03), 60))
        for start in (-0.3, 0.1)
    }
    return _above(two_valleys, paths, dots=True)


def _saddle() -> Figure:
    paths = {
        "SGD": _path(descend(saddle, [0.001, 1.2], steepest.SGD(0.1), 120)),
        "momentum": _path(descend(saddle, [0.001, 1.2], steepest.Momentum(0.1, momentum=0.8), 120)),
    }
    return _above(saddle, paths)


def _above(
    loss: Callable[..., Any], paths: Mapping[str, Any], batch: Any = None, *, dots: bool = False
) -> Figure:
    figure = steepest.plot.from_above(steepest.plot.landscape(loss, paths, batch))
    for drawn in figure.axes[0].lines if dots else ():
        if len(drawn.get_xdata()) > 2 and drawn.get_linewidth() > 1:
            drawn.set(marker="o", markersize=2.5)
    return figure


@style()
def _schedules() -> Figure:
    figure, axes = make_axes("step", "learning rate")
    steps = np.arange(100)
    for (name, schedule), look in zip(SCHEDULES.items(), LOOKS, strict=False):
        axes.plot(steps, schedule(steps), color=look.colour, linestyle=look.line, label=name)
    key(axes)
    return figure


@style()
def _losses() -> Figure:
    figure, axes = make_axes("prediction minus truth", "loss")
    errors = jnp.linspace(-3, 3, 121)
    shown = {
        "squared error": steepest.losses.mean_squared_error(),
        "absolute error": steepest.losses.mean_absolute_error(),
        "Huber's": steepest.losses.huber(),
        "quantile 0.9": steepest.losses.quantile(0.9),
    }
    for (name, loss), look in zip(shown.items(), LOOKS, strict=False):
        losses = loss.per_row(errors, jnp.zeros_like(errors))
        axes.plot(errors, losses, color=look.colour, linestyle=look.line, label=name)
    axes.set_ylim(0, 4)
    key(axes)
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    "steps": _steps,
    "variants": _variants,
    "rates": _rates,
    "schedules": _schedules,
    "rules": _rules,
    "losses": _losses,
    "valleys": _valleys,
    "saddle": _saddle,
}


def main(folder: Path = FOLDER) -> None:
    """Draw all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        draw().savefig(folder / f"{name}.png", dpi=150, facecolor="white", metadata={"Software": None})
        print(folder / f"{name}.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

"""Descents seen from above: rules, rates and batch sizes on the surface of a loss with two parameters.

    python examples/seen_from_above.py --pictures docs/examples

The first surface is a formula; the second is the loss of a regression on scikit-learn's diabetes data.
`docs/examples/seen_from_above.md` tells what to learn from it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from sklearn.datasets import load_diabetes

import steepest
from drawing import save

CURVATURES = jnp.array([1.0, 20.0])
START = jnp.array([-9.0, 1.5])


def bowl(point: jax.Array) -> jax.Array:
    """½ (c₁ x² + c₂ y²): twenty times as curved along y as along x."""
    return 0.5 * (CURVATURES * point**2).sum()


ROOT = 20**0.5
RULES = {  # the first two at the best that theory has for these curvatures
    "plain descent": steepest.SGD(2 / (1 + 20)),
    "momentum": steepest.Momentum((2 / (ROOT + 1)) ** 2, momentum=((ROOT - 1) / (ROOT + 1)) ** 2),
    "Adam": steepest.Adam(0.3),
}


def descend(optimizer: Any, steps: int) -> steepest.Result:
    """Walk down the bowl, and keep every place on the way."""
    return steepest.minimize(bowl, START, optimizer=optimizer, epochs=steps, tolerance=0, snapshots=steps + 1)


def steps_until(result: steepest.Result, loss: float) -> int | None:
    """Return how many steps it took until the loss was that low for good."""
    above = np.flatnonzero(np.asarray(jax.vmap(bowl)(result.path.parameters)) > loss)
    return int(above[-1]) + 1 if above[-1] < result.steps else None


def three_rules(pictures: Path | None) -> None:
    """Compare update rules on the bowl."""
    results = {name: descend(rule, steps=200) for name, rule in RULES.items()}
    print("Steps until the loss stays below 0.001:")
    for name, result in results.items():
        print(f"  {name:14} {steps_until(result, 0.001)}")
    if pictures is not None:
        paths = {name: result.path.parameters[:60] for name, result in results.items()}
        seen = steepest.plot.landscape(bowl, paths)
        save(steepest.plot.from_above(seen), pictures, "seen_from_above-rules")


def three_rates(pictures: Path | None) -> None:
    """Compare rates on both sides of the limit 2/η that plain descent is stable at."""
    limit = 2 / float(CURVATURES.max())
    print(
        f"\nThe largest curvature is {CURVATURES.max():g}: plain descent is stable up to a rate of {limit:g}:"
    )
    paths = {}
    for share in (0.25, 0.95, 1.01):
        result = descend(steepest.SGD(share * limit), steps=40)
        losses = result.history["loss"]
        paths[f"{share:g} of the limit"] = result.path.parameters
        print(f"  rate {share * limit:.4f}: from {losses.iloc[0]:.1f} to {bowl(result.parameters):.3g}")
    if pictures is not None:
        seen = steepest.plot.landscape(bowl, paths)
        save(steepest.plot.from_above(seen), pictures, "seen_from_above-rates")


LIMITS = {  # curvature × rate, at the edge: see steepest.diagnosis.curvature
    "plain descent": (steepest.SGD, {}, 2.0),
    "momentum 0.9": (steepest.Momentum, {"momentum": 0.9}, 2 + 2 * 0.9),
    "Nesterov 0.9": (steepest.Nesterov, {"momentum": 0.9}, (2 + 2 * 0.9) / (1 + 2 * 0.9)),
}


def grows(optimizer: Any) -> bool:
    """Tell whether a descent ends further out along the steep axis than it began."""
    end = steepest.minimize(bowl, START, optimizer=optimizer, epochs=1000, tolerance=0)
    return end.failure is not None or abs(float(end.parameters[1])) > float(START[1])


def limits() -> None:
    """Find by bisection the rate from which on each rule diverges, and hold it against the formula."""
    print("\nThe rate from which on each rule diverges, found and by its formula:")
    for name, (rule, settings, factor) in LIMITS.items():
        low, high = 0.01, 0.4
        while high - low > 1e-4:
            middle = (low + high) / 2
            low, high = (low, middle) if grows(rule(middle, **settings)) else (middle, high)
        print(f"  {name:14} {middle:.4f}   {factor / float(CURVATURES.max()):.4f}")


def patients() -> dict[str, np.ndarray]:
    """Return the body mass index and the progression of 442 patients, both standardised."""
    table, progression = load_diabetes(return_X_y=True, as_frame=True)
    columns = {"index": table["bmi"], "progression": progression}
    return {
        name: ((column - column.mean()) / column.std()).to_numpy(np.float32)
        for name, column in columns.items()
    }


def squared_error(line: dict[str, jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
    """Return the squared error of each patient; of two parameters, so that the picture is exact."""
    return (line["slope"] * batch["index"] + line["offset"] - batch["progression"]) ** 2


def mean_squared_error(line: dict[str, jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
    """Return the height of the surface."""
    return squared_error(line, batch).mean()


VARIANTS = {
    "batch": ("all", 0.05),
    "mini-batch of 32": (32, 0.05),
    "stochastic": (1, 0.05),
    "stochastic, falling rate": (1, steepest.schedules.inverse_time(0.05, decay_steps=44)),
}


def three_variants(pictures: Path | None) -> None:
    """Compare batch, mini-batch and stochastic descent on real data: ten passes of each."""
    data = patients()
    with_ones = np.stack([data["index"], np.ones(len(data["index"]))], axis=1)
    slope, offset = np.linalg.lstsq(with_ones, data["progression"])[0]
    print(f"\nLeast squares in closed form: slope {slope:.3f}, offset {offset:.3f}")
    start, paths = {"slope": jnp.float32(-0.6), "offset": jnp.float32(1.0)}, {}
    for name, (batch_size, rate) in VARIANTS.items():
        result = steepest.minimize(
            squared_error, start, data, batch_size=batch_size, optimizer=steepest.SGD(rate), epochs=10,
            tolerance=0, snapshots=80,
        )  # fmt: skip
        line = result.parameters
        paths[name] = result.path.parameters
        print(f"  {name:24} {result.steps:5,} steps: {line['slope']:.3f}, {line['offset']:+.3f}")
    if pictures is not None:
        seen = steepest.plot.landscape(mean_squared_error, paths, data)
        save(steepest.plot.from_above(seen), pictures, "seen_from_above-variants")


def main(pictures: Path | None = None) -> None:
    """Compare rules, rates and batch sizes on two surfaces."""
    three_rules(pictures)
    three_rates(pictures)
    limits()
    three_variants(pictures)


if __name__ == "__main__":
    sys.exit(typer.run(main))

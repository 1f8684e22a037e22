"""What watching a descent costs: the looks at steps on the way, and a measurement of the curvature.

The looks are timed on the listing's network, with and without them; the curvature on the flights' mlp, 20
products with the Hessian of the loss on 4,096 rows.
"""

from __future__ import annotations

import statistics
import time
from typing import Any
from unittest.mock import patch

from listing import BATCH, STEPS, Data, make_data, steepest
from measure import Goal, Report, Train, Turn, take_turns

FEATURES, HIDDEN, ROWS, PRODUCTS = 160, (64, 32), 2**12, 20
"""The shape of the flights' mlp, and what its curvature is measured on."""


def descents(data: Data, watched: bool) -> Train:
    """Return a contestant whose epochs count by their mean: a look falls into some of them only."""
    train = steepest(data, middle=statistics.fmean)

    def unwatched(epochs: int) -> Turn:
        never = patch("steepest.descent.loop.is_watched", lambda *_: False)
        with never, patch("steepest.descent.loop.EVERY", 1e99):
            return train(epochs)

    return train if watched else unwatched


def curvature() -> Train:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from steepest import losses, models
    from steepest.diagnosis.curvature import largest_curvature

    model, loss = models.multilayer(FEATURES, HIDDEN), losses.binary_cross_entropy()
    draws = np.random.default_rng(0)
    x = draws.normal(size=(ROWS, FEATURES)).astype(np.float32)
    batch = x, (x[:, 0] > 0).astype(np.float32)
    parameters, key = model.init(jax.random.key(0)), jax.random.key(1)

    def mean_loss(parameters: Any, batch: Any) -> jax.Array:
        return jnp.mean(loss.per_row(model.apply(parameters, batch[0]), batch[1]))

    def timed(times: int) -> Turn:
        began = time.perf_counter()
        for _ in range(times):
            found = largest_curvature(mean_loss, parameters, batch, key=key, products=PRODUCTS)
        return Turn((time.perf_counter() - began) / times, float("nan"), found.value)

    return timed


def run(rounds: int) -> Report:
    data = make_data()
    without, watched = take_turns(
        {"without": descents(data, False), "watched": descents(data, True)}, rounds, 20
    ).values()
    (measured,) = take_turns({"curvature": curvature()}, rounds, 2).values()
    rows = [
        ["a step without looks", without.seconds / STEPS * 1e6, None],
        ["a step with looks", watched.seconds / STEPS * 1e6, watched.over(without)],
        [
            f"curvature, {PRODUCTS} products on {ROWS:,} rows of the flights' mlp",
            measured.seconds * 1e6,
            None,
        ],
    ]
    goals = [
        Goal("Time of a descent that is looked at, over one that is not", 1.03, watched.over(without)),
        Goal("Seconds of a curvature", 0.5, measured.seconds),
    ]
    title = f"Watching a descent (the listing's network, Adam, batch {BATCH})"
    return Report(title, ("", "µs", "over without"), rows, goals)

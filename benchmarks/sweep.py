"""Time of a sweep of 16 learning rates as one program, beside 16 descents one after the other.

The network is that of the listing; the linear models have its features, and those of the logistic regression.
All is compiled before; both run over the same windows, in memory, and record the loss of every step.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from listing import BATCH, FEATURES, HIDDEN, STEPS
from measure import Goal, Report, Turn, take_turns

RATES = 16


def contestants(features: int, hidden: tuple[int, ...]) -> dict[str, Any]:
    """Return an epoch of a sweep, and one of each of so many descents."""
    import jax

    from steepest import Adam, losses, models
    from steepest.descent.epoch import try_window
    from steepest.descent.state import start
    from steepest.descent.step import Batches, Constants, Program
    from steepest.descent.sweep import sweep

    model, loss, rule = models.multilayer(features, hidden), losses.binary_cross_entropy(), Adam()

    def objective(parameters: Any, batch: Any, key: Any) -> Any:  # noqa: ARG001
        return loss.per_row(model.apply(parameters, batch[0]), batch[1])

    draws = np.random.default_rng(0)
    x = draws.normal(size=(STEPS, BATCH, features)).astype(np.float32)
    rows = x, (x[..., 0] > 0).astype(np.float32)
    ones, rates = np.ones((STEPS, BATCH), np.float32), np.geomspace(1e-4, 1e-2, RATES)
    tree = model.init(jax.random.key(0))
    flat, unravel = jax.flatten_util.ravel_pytree(tree)
    constants = Constants(jax.random.key(0), None)
    together = Program(objective, rule.transformation, rule.preconditioner, as_it_is)
    alone = together._replace(unravel=unravel)
    all_rates = Batches(rows, ones, np.tile(rates, (STEPS, 1)))

    def swept() -> float:
        begun = start(tree, rule.transformation.init(tree))
        return float(sweep(together, constants, begun, [all_rates], RATES, True).losses.mean())

    def in_turn() -> float:
        found = []
        for rate in rates:
            begun = start(flat, rule.transformation.init(flat))
            _, record = try_window(alone, constants, begun, Batches(rows, ones, np.full(STEPS, rate)))
            found.append(np.asarray(record.loss).mean())
        return float(np.mean(found))

    return {"one program": partial(timed, swept), "one after the other": partial(timed, in_turn)}


def as_it_is(parameters: Any) -> Any:
    return parameters


def timed(epoch: Any, epochs: int) -> Turn:
    took, loss = [], float("nan")
    for _ in range(epochs):
        before = time.perf_counter()
        loss = epoch()
        took.append(time.perf_counter() - before)
    return Turn(float(np.median(took)), took[0], loss)


def run(rounds: int) -> Report:
    rows, goals = [], []
    for name, features, hidden, wanted in (
        ("network 20 → 64 relu → 1", FEATURES, (HIDDEN,), 0.65),
        ("linear, 20 features", FEATURES, (), 0.4),
        ("linear, 54 features", 54, (), 0.4),
    ):
        together, alone = take_turns(contestants(features, hidden), rounds, 2).values()
        ratio = together.over(alone)
        rows.append([name, together.seconds / STEPS * 1e6, alone.seconds / STEPS * 1e6, ratio])
        goals.append(Goal(f"{RATES} rates of the {name}, over {RATES} descents", wanted, ratio))
    columns = ("", "µs per step of 16, one program", "one after the other", "ratio")
    return Report("A sweep of 16 learning rates (Adam, batch 32)", columns, rows, goals)

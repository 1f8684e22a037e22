"""Time per row of a logistic regression: 54 float32 columns, 2^19 rows, SGD, a new order each epoch.

scikit-learn's SGDClassifier takes one row a step and knows no mini-batches. The Numba loop is what a person
would write by hand for this one model: it draws an order, gathers the rows (visiting them where they lie
takes longer), and goes through them once, recording each step's loss, as Steepest does; on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from measure import Report, Train, clocked, descending, enter, take_turns

ROWS, FEATURES, RATE = 2**19, 54, 0.01
BATCHES = (1, 32, 256, 4096)
ROW_BYTES = 4 * (FEATURES + 1)
WARM_UP = 2


def make_data() -> tuple[np.ndarray, np.ndarray]:
    """Rows whose class a random plane decides, with noise."""
    draws = np.random.default_rng(0)
    x = draws.standard_normal((ROWS, FEATURES), dtype=np.float32)
    plane = draws.standard_normal(FEATURES, dtype=np.float32) / np.sqrt(FEATURES)
    y = (x @ plane + 0.5 * draws.standard_normal(ROWS, dtype=np.float32) > 0).astype(np.float32)
    return x, y


def steepest(x: np.ndarray, y: np.ndarray, batch: int) -> Train:
    import jax
    import jax.numpy as jnp

    from steepest import SGD, losses, models

    model, loss = models.linear(FEATURES), losses.binary_cross_entropy()
    zeros = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0)))

    def objective(parameters: Any, batch: Any) -> jax.Array:
        return loss.per_row(model.apply(parameters, batch[0]), batch[1])

    return descending(objective, zeros, (x, y), optimizer=SGD(RATE), batch_size=batch)


def numba_loop(x: np.ndarray, y: np.ndarray, batch: int) -> Train:
    import numba

    one, zero, rate = np.float32(1), np.float32(0), np.float32(RATE)

    @numba.njit(fastmath=True)
    def descend(x: np.ndarray, y: np.ndarray, parameters: np.ndarray, losses: np.ndarray) -> None:
        gradient = np.zeros(FEATURES + 1, np.float32)
        for step in range(len(losses)):
            gradient[:] = zero
            total = zero
            for row in range(step * batch, (step + 1) * batch):
                logit = parameters[FEATURES]
                for column in range(FEATURES):
                    logit += x[row, column] * parameters[column]
                power = np.exp(-abs(logit))
                total += max(logit, zero) - logit * y[row] + np.log(one + power)
                slope = (one if logit >= zero else power) / (one + power) - y[row]
                for column in range(FEATURES):
                    gradient[column] += slope * x[row, column]
                gradient[FEATURES] += slope
            losses[step] = total / batch
            for column in range(FEATURES + 1):
                parameters[column] -= rate / batch * gradient[column]

    parameters, losses = np.zeros(FEATURES + 1, np.float32), np.empty(ROWS // batch, np.float32)
    draws, shuffled_x, shuffled_y = np.random.default_rng(0), np.empty_like(x), np.empty_like(y)

    def epoch() -> float:
        order = draws.permutation(ROWS)
        np.take(x, order, axis=0, out=shuffled_x, mode="clip")
        np.take(y, order, out=shuffled_y, mode="clip")
        descend(shuffled_x, shuffled_y, parameters, losses)
        return float(losses.mean())

    return partial(clocked, epoch)


def scikit_learn(x: np.ndarray, y: np.ndarray) -> Train:
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(
        loss="log_loss", penalty=None, learning_rate="constant", eta0=RATE, shuffle=True, random_state=0
    )

    def epoch() -> float:
        model.partial_fit(x, y, classes=(0.0, 1.0))
        return float("nan")

    return partial(clocked, epoch)


OURS, LOOP, SKLEARN = "Steepest", "Numba loop", "scikit-learn SGDClassifier"


def run(rounds: int) -> Report:
    x, y = make_data()
    rows: list[list[Any]] = []
    missing: list[str] = []
    for batch in BATCHES:
        makers: dict[str, Callable[[], Train]] = {
            OURS: partial(steepest, x, y, batch),
            LOOP: partial(numba_loop, x, y, batch),
        }
        if batch == 1:
            makers[SKLEARN] = partial(scikit_learn, x, y)
        contestants, left_out = enter(makers)
        missing += [name for name in left_out if name not in missing]
        standings = take_turns(contestants, rounds, WARM_UP)
        for name, each in standings.items():
            nanoseconds = each.seconds / ROWS * 1e9
            rows.append(
                [name, batch, nanoseconds, ROW_BYTES / nanoseconds, each.over(standings[OURS]), each.loss]
            )
    columns = ("", "batch", "ns per row", "GB/s", "times Steepest", f"training loss, epoch {WARM_UP + 1}")
    return Report("Logistic regression: time per row", columns, rows, missing=missing)

"""A descent that goes on where another one ended, over whatever data it is given."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest
from steepest import schedules
from steepest.errors import SteepestError
from test_lookups import DATA, START, looked_up

RNG = np.random.default_rng(0)
ROWS = {"x": RNG.normal(size=(50, 3)).astype(np.float32), "y": RNG.normal(size=50).astype(np.float32)}
ORIGIN = {"w": np.zeros(3, np.float32)}


def squares(parameters, batch):
    return (batch["x"] @ parameters["w"] - batch["y"]) ** 2


def noisy(parameters, batch, key=None):
    shaken = parameters["w"] if key is None else parameters["w"] + 0.1 * jax.random.normal(key, (3,))
    return (batch["x"] @ shaken - batch["y"]) ** 2


def plain(standing):
    """Return a standing of NumPy's arrays, as it may be stored."""
    return standing.with_states(lambda state: jax.tree.map(np.asarray, state))


def both(objective, start, data, epochs=6, **options):
    """Return the parameters of one descent, and of as many as it has epochs."""
    options = {"batch_size": 16, "tolerance": 0, **options}
    whole = steepest.minimize(objective, start, data, epochs=epochs, **options)
    standing, results = None, []
    for epoch in range(1, epochs + 1):
        results.append(steepest.minimize(objective, start, data, epochs=epoch, standing=standing, **options))
        standing = plain(results[-1].standing)
    return whole, results


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (squares, {"optimizer": steepest.Adam(schedules.cosine(0.1, steps=24))}),
        (squares, {"optimizer": steepest.SGD(0.01, momentum=0.9), "l1": 0.01}),
        (squares, {"optimizer": steepest.Adam(0.1), "batch_size": "all"}),
        (squares, {"optimizer": "adam", "validation_data": ROWS, "patience": 3}),
        (squares, {"optimizer": steepest.Adam(schedules.reduce_on_plateau(1.0, patience=1))}),
        (noisy, {"optimizer": "adam"}),
    ],
)
def test_going_on_is_never_having_stopped(objective, options) -> None:
    whole, parts = both(objective, ORIGIN, ROWS, **options)
    assert np.array_equal(whole.parameters["w"], parts[-1].parameters["w"])
    assert whole.steps == parts[-1].steps
    losses = np.concatenate([part.history["loss"] for part in parts])
    assert np.array_equal(losses, whole.history["loss"])
    assert parts[-1].history["step"].iloc[-1] == whole.steps
    assert [part.epochs["epoch"].tolist() for part in parts] == [[epoch] for epoch in range(1, 7)]


def test_going_on_with_lookups() -> None:
    whole, parts = both(looked_up, START, DATA, optimizer="adam", lookups={"words": "weights"})
    assert np.array_equal(whole.parameters["weights"], parts[-1].parameters["weights"])


def test_the_schedule_goes_on_over_other_data() -> None:
    rate = schedules.exponential(0.1, decay_steps=1, decay_rate=0.9)
    options = {"optimizer": steepest.SGD(rate), "batch_size": 10, "tolerance": 0}
    first = steepest.minimize(squares, ORIGIN, ROWS, epochs=1, **options)  # five steps
    fewer = {name: rows[:20] for name, rows in ROWS.items()}  # two
    second = steepest.minimize(squares, ORIGIN, fewer, epochs=2, standing=first.standing, **options)
    third = steepest.minimize(squares, ORIGIN, ROWS, epochs=3, standing=second.standing, **options)
    rates = [rate for part in (first, second, third) for rate in part.history["learning_rate"]]
    assert np.allclose(rates, rate(np.arange(12)), rtol=1e-6)


def test_patience_that_is_at_an_end_stays_so() -> None:
    options = {"optimizer": "adam", "batch_size": 16, "patience": 1, "monitor": "loss", "tolerance": 0}
    away = steepest.minimize(lambda p, b: -(p["w"].sum()) * jnp.ones(len(b["y"])), ORIGIN, ROWS, **options)
    rising = steepest.minimize(
        lambda p, b: (p["w"].sum() + 1) * jnp.ones(len(b["y"])),
        ORIGIN, ROWS, epochs=12, standing=away.standing, **options,
    )  # fmt: skip
    assert rising.why_it_stopped.startswith("stopped at epoch 11: loss was lowest")
    after = steepest.minimize(squares, ORIGIN, ROWS, epochs=13, standing=rising.standing, **options)
    assert after.steps == rising.steps
    assert after.history.empty
    assert np.array_equal(after.parameters["w"], away.parameters["w"])


def test_what_converged_goes_on() -> None:
    options = {"optimizer": steepest.SGD(0.1), "batch_size": "all"}
    first = steepest.minimize(squares, ORIGIN, ROWS, epochs=2000, **options)
    other = {"x": ROWS["x"], "y": ROWS["y"] + ROWS["x"][:, 0]}
    second = steepest.minimize(squares, ORIGIN, other, epochs=4000, standing=first.standing, **options)
    assert first.converged
    assert second.converged
    assert np.allclose(second.parameters["w"] - first.parameters["w"], [1, 0, 0], atol=1e-3)


def test_a_standing_of_another_descent_is_refused(tmp_path) -> None:
    first = steepest.minimize(squares, ORIGIN, ROWS, epochs=1, optimizer="adam")
    with pytest.raises(SteepestError, match="other parameters, or another optimizer"):
        steepest.minimize(squares, ORIGIN, ROWS, epochs=2, optimizer="adagrad", standing=first.standing)
    with pytest.raises(SteepestError, match="A checkpoint and a standing"):
        steepest.minimize(squares, ORIGIN, ROWS, epochs=2, checkpoint=tmp_path, standing=first.standing)

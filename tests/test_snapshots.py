"""The path of a descent: `steepest.minimize(..., snapshots=N)`."""

from __future__ import annotations

import numpy as np
import pytest

import steepest
from steepest import SGD, Adam, SteepestError, minimize

ROWS = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
DATA = (ROWS, ROWS @ np.array([1, 2, 3], np.float32))
START = {"w": np.zeros(3, np.float32)}


def objective(parameters, batch):
    return (batch[0] @ parameters["w"] - batch[1]) ** 2


@pytest.mark.parametrize("most", [2, 3, 10, 11, 100])
@pytest.mark.parametrize(("batch_size", "epochs"), [(32, 1), (32, 7), ("all", 60), (1000, 3), (1, 1)])
def test_snapshots_are_few_and_even_and_each_is_where_a_shorter_descent_ends(most, batch_size, epochs):
    def descend(epochs, snapshots=0):
        return minimize(
            objective, START, DATA, batch_size=batch_size, epochs=epochs, tolerance=0, optimizer=Adam(0.01),
            snapshots=snapshots,
        )  # fmt: skip

    result = descend(epochs, most)
    steps, places = result.path.steps, result.path.parameters["w"]
    assert 2 <= len(steps) <= most
    assert places.shape == (len(steps), 3)
    assert (steps[0], steps[-1]) == (0, result.steps)
    assert len(set(np.diff(steps)[:-1].tolist())) <= 2 or batch_size == 32
    assert (places[0] == 0).all()
    assert places[-1].tobytes() == np.asarray(result.parameters["w"]).tobytes()
    per_epoch = result.steps // epochs
    for shorter in range(1, epochs):
        if shorter * per_epoch in steps[:: max(1, len(steps) // 3)]:
            expected = descend(shorter).parameters["w"]
            np.testing.assert_allclose(places[steps == shorter * per_epoch][0], expected, rtol=1e-5)


def test_without_data_and_where_it_converges_early():
    result = minimize(lambda p: 2 * (p - 3) ** 2, 0.0, optimizer=SGD(0.1), epochs=2000, snapshots=50)
    steps, places = result.path
    assert result.converged
    assert steps[-1] == result.steps < 100
    np.testing.assert_allclose(places, 3 * (1 - 0.6**steps), rtol=1e-4, atol=1e-6)


def test_as_many_as_there_are_places_are_all_of_them():
    result = minimize(
        lambda p: 2 * (p - 3) ** 2, 0.0, optimizer=SGD(0.1), epochs=10, tolerance=0, snapshots=11
    )
    assert result.path.steps.tolist() == list(range(11))


def test_the_path_of_a_descent_that_backed_off_has_no_step_twice():
    result = minimize(
        objective, START, DATA, batch_size="all", epochs=90, optimizer=SGD(90.0), on_divergence="back-off",
        snapshots=12,
    )  # fmt: skip
    assert result.setbacks
    assert (np.diff(result.path.steps) > 0).all()
    assert np.isfinite(result.path.parameters["w"]).all()


def test_there_is_none_unless_asked_for():
    assert minimize(objective, START, DATA, epochs=1).path is None


def test_what_can_not_be_is_refused(tmp_path):
    with pytest.raises(SteepestError, match="two snapshots at least"):
        minimize(objective, START, DATA, snapshots=1)
    with pytest.raises(SteepestError, match="keeps no snapshots"):
        minimize(objective, START, DATA, snapshots=5, checkpoint=tmp_path / "kept")


def test_a_path_can_be_drawn():
    result = minimize(objective, START, DATA, epochs=1, snapshots=20)
    seen = steepest.plot.landscape(
        lambda p, batch: objective(p, batch).mean(), {"Adam": result.path.parameters}, DATA, points=5
    )
    assert len(seen.paths["Adam"].loss) == len(result.path.steps)

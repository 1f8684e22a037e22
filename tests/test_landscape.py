"""The descent seen from above: the plane, the loss upon it, and the paths."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steepest.diagnosis.landscape import Landscape, landscape, landscape_from_json
from steepest.errors import SteepestError


def generator(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([11, *seed])))


def bowl(p):
    return p[0] ** 2 + 4 * p[1] ** 2 - p[0] * p[1]


def positions(seen: Landscape, name: str) -> np.ndarray:
    return np.array([seen.paths[name].x, seen.paths[name].y], np.float64).T


def test_two_parameters_are_seen_as_they_are():
    paths = {
        "a": np.array([[3.0, 1.0], [0.5, -0.25], [0.0, 0.0]], np.float32),
        "b": np.array([[3.0, 1.0], [2.0, 2.0]], np.float32),
    }
    seen = landscape(bowl, paths, points=17)
    for name, path in paths.items():
        np.testing.assert_array_equal(positions(seen, name), path)
        np.testing.assert_allclose(seen.paths[name].loss, [bowl(point) for point in path], rtol=1e-6)
    x, y = np.meshgrid(seen.x, seen.y)
    np.testing.assert_allclose(seen.losses, bowl([x, y]), rtol=1e-5, atol=1e-5)
    assert seen.explained == 1.0
    assert (min(seen.x), max(seen.x)) == pytest.approx((-0.6, 3.6))
    assert (min(seen.y), max(seen.y)) == pytest.approx((-0.7, 2.45))


def test_in_many_dimensions_the_grid_is_the_true_loss(x64):
    # A quadratic on a plane is a polynomial of six terms: those of the grid must give the path's own losses.
    noise = generator(1)
    basis = np.linalg.qr(noise.standard_normal((50, 2)))[0].T
    root = noise.standard_normal((50, 50))
    matrix, centre = jnp.asarray(root @ root.T), noise.standard_normal(50)
    path = centre + noise.standard_normal((30, 2)) * [5.0, 0.7] @ basis
    path = path[np.argsort([-point @ matrix @ point for point in path])]  # a descent
    seen = landscape(lambda p: p @ matrix @ p, {"path": path}, points=8)
    assert seen.explained == pytest.approx(1.0, abs=1e-12)

    def terms(x, y):
        return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)

    x, y = (part.ravel() for part in np.meshgrid(seen.x, seen.y))
    factors = np.linalg.lstsq(terms(x, y), np.ravel(seen.losses), rcond=None)[0]
    place = positions(seen, "path")
    np.testing.assert_allclose(terms(*place.T) @ factors, seen.paths["path"].loss, rtol=1e-9)
    distances = np.linalg.norm(path - path[-1], axis=1)
    np.testing.assert_allclose(np.linalg.norm(place, axis=1), distances, rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(3, 12))
def test_the_plane_is_that_of_the_singular_vectors(first, second, width):
    noise = generator(first, second, width)
    paths = {"a": noise.standard_normal((first, width)), "b": noise.standard_normal((second, width))}
    seen = landscape(lambda p: jnp.sum(p) * 0, paths, points=2)
    difference = np.concatenate([*paths.values()]) - paths["a"][-1]
    _, singular, vectors = np.linalg.svd(difference)
    squares = singular**2
    place = np.abs(np.concatenate([positions(seen, "a"), positions(seen, "b")]))
    if squares.sum() == 0:
        assert seen.explained == 1.0
        return
    assert seen.explained == pytest.approx(squares[:2].sum() / squares.sum(), rel=1e-9)
    np.testing.assert_allclose(place[:, 0], np.abs(difference @ vectors[0]), rtol=1e-6, atol=1e-6)
    if len(squares) > 1 and squares[1] > 1e-9 * squares[0]:
        np.testing.assert_allclose(place[:, 1], np.abs(difference @ vectors[1]), rtol=1e-6, atol=1e-6)


def test_the_start_is_to_the_upper_left_of_the_end():
    for seed in range(8):
        path = generator(seed).standard_normal((6, 5))
        place = positions(landscape(lambda p: 0 * p[0], {"path": path}, points=2), "path")
        np.testing.assert_allclose(place[-1], 0, atol=1e-6)
        assert place[0, 0] < 0 < place[0, 1]


@pytest.mark.parametrize(
    "path",
    [
        np.ones((1, 4)),
        np.ones((5, 4)),
        np.outer(np.arange(6.0), [1.0, 0.0, 0.0]),
        np.outer(np.arange(6.0), [1.0, 1.0, 1.0]),
        np.outer(np.arange(6.0), [1e-30, 0.0, 0.0]),
        np.ones((4, 1)),
        np.ones((4, 2)),
    ],
)
def test_a_path_that_spans_no_plane_has_room_around_it(path):
    seen = landscape(lambda p: jnp.sum(p**2), {"path": path}, points=5)
    assert np.ptp(seen.x) > 0
    assert len(seen.y) == 1 or np.ptp(seen.y) > 0
    assert np.isfinite(seen.losses).all()
    assert seen.explained == pytest.approx(1.0)
    place = positions(seen, "path")
    assert ((min(seen.x) < place[:, 0]) & (place[:, 0] < max(seen.x))).all()


def test_one_parameter_is_a_curve():
    seen = landscape(lambda p: (p["w"] - 1) ** 2, {"a": {"w": np.array([3.0, 2.0, 1.5])}}, points=7)
    assert (seen.y, seen.labels) == ([0.0], ["w", ""])
    np.testing.assert_allclose(seen.losses, [(np.array(seen.x) - 1) ** 2], rtol=1e-5, atol=1e-6)
    assert seen.paths["a"].x == [3.0, 2.0, 1.5]


def test_trees_and_batches_are_given_as_the_loss_takes_them():
    noise = generator(3)
    rows, target = noise.standard_normal((40, 3)), noise.standard_normal(40)
    tree = {"bias": noise.standard_normal(7), "weights": noise.standard_normal((7, 3))}

    def loss(p, batch):
        return jnp.mean((batch[0] @ p["weights"] + p["bias"] - batch[1]) ** 2)

    seen = landscape(loss, {"a": tree}, (rows, target), points=3)
    expected = np.mean((rows @ tree["weights"].T + tree["bias"] - target[:, None]) ** 2, axis=0)
    np.testing.assert_allclose(seen.paths["a"].loss, expected, rtol=1e-5)
    flat = np.concatenate([tree["bias"][:, None], tree["weights"]], axis=1)
    same = landscape(
        lambda p, batch: loss({"bias": p[0], "weights": p[1:]}, batch), {"a": flat}, (rows, target), points=3
    )
    np.testing.assert_allclose(same.losses, seen.losses, rtol=1e-5)


def test_a_descent_that_left_does_not_shrink_the_picture():
    stays = np.array([[2.0, 1.0], [1.0, 0.2], [0.0, 0.0]])
    leaves = np.array([[2.0, 1.0], [-30.0, 9.0], [1e20, 1e20], [np.inf, np.nan]])
    alone = landscape(bowl, {"stays": stays}, points=4)
    both = landscape(bowl, {"stays": stays, "leaves": leaves}, points=4)
    assert (both.x, both.y, both.losses) == (alone.x, alone.y, alone.losses)
    assert both.paths["leaves"].x == [2.0, -30.0, pytest.approx(1e20), None]
    assert both.paths["leaves"].loss[-2:] == [None, None]
    wide = landscape(lambda p: p @ p, {"a": np.ones((2, 3)), "b": np.full((2, 3), np.nan)}, points=3)
    assert wide.paths["b"].x == [None, None]


def test_it_is_json_and_back():
    path = np.array([[3.0, 1.0], [np.nan, 0.0], [0.1, 0.0]])
    seen = landscape(lambda p: jnp.log(p[0]) + p[1] ** 2, {"a": path}, points=4)
    assert None in seen.losses[0]
    stored = json.dumps(seen.to_json(), allow_nan=False)
    assert landscape_from_json(json.loads(stored)) == seen


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ({}, "no path"),
        ({"a": np.zeros((0, 2))}, "'a' has no snapshots"),
        ({"a": {}}, "'a' has no snapshots"),
        ({"a": 3.0}, "'a' has no snapshots"),
        ({"a": [np.zeros(2), np.zeros(3)]}, "not as many"),
        ({"a": np.zeros((2, 2)), "b": np.zeros((2, 3))}, "'a' 2, 'b' 3"),
        ({"a": np.full((2, 2), np.nan)}, "finite loss"),
    ],
)
def test_what_can_not_be_seen_is_said(paths, said):
    with pytest.raises(SteepestError, match=said):
        landscape(bowl, paths)

"""Models: shapes, what they compute, how they start, and dropout."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from steepest.descent.models import glorot_uniform, he_normal, linear, multilayer
from steepest.errors import SteepestError

KEY = jax.random.key(0)
TRUNCATED = 0.87962566103423978
"""Standard deviation of a standard normal that is truncated at two deviations."""


@pytest.mark.parametrize(
    ("hidden", "outputs", "shape"), [((), 1, (7,)), ((), 3, (7, 3)), ((4,), 1, (7,)), ((4, 6), 2, (7, 2))]
)
def test_shapes(hidden, outputs, shape) -> None:
    model = multilayer(5, hidden, outputs)
    parameters = jax.jit(model.init)(KEY)
    assert model.apply(parameters, jnp.ones((7, 5))).shape == shape
    sizes = [5, *hidden, outputs]
    assert [layer["weights"].shape for layer in parameters.values()] == [*pairwise(sizes)]
    assert [layer["bias"].shape for layer in parameters.values()] == [(size,) for size in sizes[1:]]


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_the_network_is_kerass(activation) -> None:
    features = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    model = multilayer(5, (4, 6), 2, activation=activation, output_bias=[1.0, -1.0])
    parameters = jax.jit(model.init)(KEY)
    act = {"gelu": lambda x: keras.activations.gelu(x, approximate=True)}.get(activation, activation)
    theirs = keras.Sequential(
        [keras.Input((5,)), *(keras.layers.Dense(n, a) for n, a in ((4, act), (6, act), (2, None)))]
    )
    theirs.set_weights([layer[name] for layer in parameters.values() for name in ("weights", "bias")])
    ours = model.apply(parameters, jnp.asarray(features))
    np.testing.assert_allclose(ours, theirs(features), rtol=1e-5, atol=1e-6)


def test_the_linear_model() -> None:
    features = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    model = linear(5, output_bias=3.0)
    layer = jax.jit(model.init)(KEY)["layer_1"]
    expected = features @ np.asarray(layer["weights"])[:, 0] + 3.0
    np.testing.assert_allclose(
        model.apply({"layer_1": layer}, jnp.asarray(features)), expected, rtol=1e-5, atol=1e-6
    )


def test_glorot_and_he_have_their_variances() -> None:
    """240,000 draws: the variance is known to about 0.3 %."""
    glorot = np.asarray(glorot_uniform(KEY, 400, 600))
    bound = np.sqrt(6 / 1000)
    assert glorot.var() == pytest.approx(2 / 1000, rel=0.015)
    assert 0.999 * bound < np.abs(glorot).max() <= bound
    he = np.asarray(he_normal(KEY, 400, 600))
    bound = 2 * np.sqrt(2 / 400) / TRUNCATED
    assert he.var() == pytest.approx(2 / 400, rel=0.015)
    assert 0.98 * bound < np.abs(he).max() <= bound * (1 + 1e-6)
    for weights in (glorot, he):
        assert abs(weights.mean()) < 5 * weights.std() / np.sqrt(weights.size)


@pytest.mark.parametrize(
    ("activation", "hidden_variance"), [("relu", 2 / 300), ("gelu", 2 / 300), ("tanh", 2 / 800)]
)
def test_each_layer_starts_by_its_rule(activation, hidden_variance) -> None:
    parameters = multilayer(300, (500,), 400, activation=activation).init(KEY)
    assert parameters["layer_1"]["weights"].var() == pytest.approx(hidden_variance, rel=0.02)
    assert parameters["layer_2"]["weights"].var() == pytest.approx(2 / 900, rel=0.02)


def test_biases_start_at_zero_and_the_last_where_it_is_told() -> None:
    parameters = multilayer(3, (4,), 2, output_bias=[0.5, -2.0]).init(KEY)
    assert parameters["layer_1"]["bias"].tolist() == [0.0] * 4
    assert parameters["layer_2"]["bias"].tolist() == [0.5, -2.0]
    assert linear(3).init(KEY)["layer_1"]["bias"].tolist() == [0.0]


def test_the_key_decides_the_start() -> None:
    model = multilayer(4, (4,), 4)
    first, again, other = (jax.jit(model.init)(jax.random.key(seed)) for seed in (3, 3, 4))
    for name in first:
        np.testing.assert_array_equal(first[name]["weights"], again[name]["weights"])
        assert not np.allclose(first[name]["weights"], other[name]["weights"])
    correlation = np.corrcoef(
        *(np.ravel(layer["weights"]) for layer in multilayer(99, (99,), 99).init(KEY).values())
    )
    assert abs(correlation[0, 1]) < 0.05, "layers draw from keys of their own"


def test_dropout_is_off_without_a_key() -> None:
    features = jax.random.normal(KEY, (6, 5))
    plain, dropping = multilayer(5, (8,)), multilayer(5, (8,), dropout=0.5)
    parameters = jax.jit(plain.init)(KEY)
    expected = plain.apply(parameters, features)
    np.testing.assert_array_equal(dropping.apply(parameters, features), expected)
    np.testing.assert_array_equal(plain.apply(parameters, features, KEY), expected)
    dropped = dropping.apply(parameters, features, KEY)
    assert not np.allclose(dropped, expected)
    np.testing.assert_array_equal(dropped, dropping.apply(parameters, features, KEY))


@pytest.mark.parametrize("dropout", [0.2, 0.5])
def test_dropout_keeps_the_mean(dropout) -> None:
    model = multilayer(5, (16,), dropout=dropout)
    parameters, features = jax.jit(model.init)(KEY), jax.random.normal(KEY, (3, 5))
    keys = jax.random.split(jax.random.key(1), 4000)
    outputs = np.asarray(jax.jit(jax.vmap(lambda key: model.apply(parameters, features, key)))(keys))
    error = outputs.std(axis=0) / np.sqrt(len(outputs))
    assert (error > 0).all()
    assert (np.abs(outputs.mean(axis=0) - model.apply(parameters, features)) < 4 * error).all()


def test_dropout_leaves_out_its_share_of_each_layer_on_its_own() -> None:
    """Two layers of one unit that pass a 1 on: an output is left if both units of its row are."""
    model = multilayer(1, (1, 1), dropout=0.25)
    ones = jax.tree.map(jnp.ones_like, jax.jit(model.init)(KEY))
    parameters = {name: layer | {"bias": jnp.zeros(1)} for name, layer in ones.items()}
    outputs = np.asarray(model.apply(parameters, jnp.ones((20_000, 1)), KEY))
    assert np.unique(outputs) == pytest.approx([0.0, 1 / 0.75**2])
    assert (outputs > 0).mean() == pytest.approx(0.75**2, abs=0.015)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "relo"}, "no activation 'relo'.*mean 'relu'"),
        ({"dropout": 1.0}, r"in \[0, 1\), not 1.0"),
        ({"dropout": -0.1}, r"in \[0, 1\), not -0.1"),
        ({"hidden": (4, 0)}, "at least one unit.*4, 0"),
        ({"inputs": 0}, "at least one unit"),
        ({"outputs": 0}, "at least one unit"),
    ],
)
def test_errors(settings, message) -> None:
    with pytest.raises(SteepestError, match=message):
        multilayer(**({"inputs": 3} | settings))

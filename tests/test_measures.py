"""Measures at one point of a descent, and of a table, against closed forms and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import steepest
from steepest.descent.models import multilayer
from steepest.diagnosis import tables
from steepest.diagnosis.curvature import Curvature
from steepest.diagnosis.measures import against_limit, ahead, gradient_noise, layers, scale_of, slope


def squares(parameters, batch):
    return (batch["x"] @ parameters - batch["y"]) ** 2


def rows(count, seed=0, noise=1.0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 3))
    return {"x": x, "y": x @ np.array([1.0, -2.0, 0.5]) + noise * generator.normal(size=count)}


def test_a_slope_is_the_gradient_of_the_mean(x64):
    batch, theta = rows(128), jnp.array([0.3, 0.1, -0.2])
    found = slope(squares, theta, batch)
    mean = lambda theta: jnp.mean(squares(theta, batch))  # noqa: E731
    np.testing.assert_allclose(found.gradient, jax.grad(mean)(theta), rtol=1e-12)
    assert found.loss == pytest.approx(float(mean(theta)))
    assert (found.rows, found.group_rows) == (128, 2)


def test_the_noise_is_the_trace_of_the_rows_covariance(x64):
    batch, theta = rows(64), jnp.array([0.3, 0.1, -0.2])
    scale = jnp.array([1.0, 0.5, 2.0])
    each = np.asarray(
        jax.vmap(jax.grad(lambda t, x, y: (x @ t - y) ** 2), (None, 0, 0))(theta, batch["x"], batch["y"])
    )
    found = gradient_noise(slope(squares, theta, batch, scale), scale)
    trace = each.var(axis=0, ddof=1)
    assert found["noise"] == pytest.approx(trace.sum())
    assert found["scaled_noise"] == pytest.approx((trace * np.asarray(scale)).sum())
    true = (each.mean(axis=0) ** 2).sum() - trace.sum() / 64
    assert found["noise_scale"] == pytest.approx(trace.sum() / true)


def test_the_noise_scale_of_groups_is_about_that_of_rows(x64):
    batch, theta = rows(4096), jnp.zeros(3)
    x, y = batch["x"], batch["y"]
    each = -2 * y[:, None] * x
    exact = each.var(axis=0).sum() / (each.mean(axis=0) ** 2).sum()
    assert gradient_noise(slope(squares, theta, batch))["noise_scale"] == pytest.approx(exact, rel=0.3)


def test_at_the_minimum_the_gradient_is_noise(x64):
    batch = rows(512)
    best = jnp.asarray(np.linalg.lstsq(batch["x"], batch["y"])[0])
    assert gradient_noise(slope(squares, best, batch))["noise_scale"] is None


def test_momentum_has_no_scale_and_adam_one_after_its_first_step():
    theta = jnp.ones(3)
    for rule, scaled in ((steepest.Momentum(), False), (steepest.Adam(), True), (steepest.SGD(), False)):
        state = rule.transformation.init(theta)
        assert scale_of(rule, state, 0) is None
        state = rule.transformation.update(jnp.array([1.0, 2.0, 4.0]), state, theta)[1]
        assert (scale_of(rule, state, 1) is not None) == scaled
    lion = optax.lion(1e-3)
    from steepest.descent.optimizers import as_optimizer

    assert scale_of(as_optimizer(lion), lion.init(theta), 1) is None


def test_nothing_curved_has_no_limit():
    for curvature in (Curvature(-1.0, 0.0, 3), Curvature(float("nan"), float("nan"), 3)):
        assert against_limit(curvature, steepest.SGD(0.1), 0.1)["limit_rate"] is None


def test_ahead_reaches_the_minimum_that_is_left(x64):
    batch, others = rows(512), rows(512, seed=1)
    found = ahead(squares, jnp.zeros(3), batch, others, None, 2.5)
    assert found == pytest.approx(1.0, rel=0.15)
    best = jnp.asarray(np.linalg.lstsq(batch["x"], batch["y"])[0])
    assert ahead(squares, best, batch, others, None, 2.5) == pytest.approx(slope(squares, best, others).loss)
    assert ahead(squares, best, batch, others, None, -1.0) is None


def test_dead_and_saturated_units_and_what_reaches_back():
    features = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    for activation, name, bias in (("relu", "dead", -100.0), ("tanh", "saturated", 100.0)):
        model = multilayer(3, (4, 2), activation=activation)
        parameters = model.init(jax.random.key(0))
        gradient = np.zeros(ravel_pytree(parameters)[0].size)
        assert layers(parameters, gradient, features, activation)[0][name] == 0.0
        parameters["layer_1"]["bias"] = jnp.array([bias, 0.0, 0.0, bias])
        assert layers(parameters, gradient, features, activation)[0][name] == 0.5

        def through(shift, model=model, parameters=parameters):
            moved = parameters | {
                "layer_1": parameters["layer_1"] | {"bias": parameters["layer_1"]["bias"] + shift}
            }
            return jax.vmap(lambda row: model.apply(moved, row[None])[0])(features)

        jacobian = np.asarray(jax.jacobian(through)(jnp.zeros(4)))
        found = layers(parameters, gradient, features, activation)[0]["backward"]
        assert found == pytest.approx(np.sqrt((jacobian**2).sum(axis=1).mean()), rel=1e-5)


def test_conditioning_is_numpys_without_null_directions():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(500, 3)) * [1.0, 5.0, 0.1] + [0.0, 0.0, 2.0]
    groups = {name: slice(index, index + 1) for index, name in enumerate("abc")}
    with_bias = np.column_stack([x, np.ones(500)])
    found = tables.conditioning(x, groups)
    assert found["condition"] == pytest.approx(np.linalg.cond(with_bias) ** 2, rel=1e-6)
    assert found["largest_columns"] == ["b"]
    assert "c" in found["smallest_columns"]
    twice = np.column_stack([x, x[:, 1]])
    doubled = tables.conditioning(twice, groups | {"b again": slice(3, 4)})
    assert doubled["condition"] == pytest.approx(2 * found["condition"], rel=0.01)
    one_hot = np.eye(3)[generator.integers(0, 3, 500)]
    assert tables.conditioning(one_hot, {"category": slice(0, 3)}) == {"condition": None}
    assert tables.conditioning(np.column_stack([x, one_hot]), groups | {"category": slice(3, 6)}) == found


def test_a_column_that_predicts_alone_is_seen():
    generator = np.random.default_rng(0)
    category = generator.integers(0, 4, 2000)
    x = np.column_stack([generator.normal(size=(2000, 2)), np.eye(4)[category]])
    target = (np.isin(category, (1, 3))).astype(float)[:, None]
    groups = {"noise": slice(0, 1), "more noise": slice(1, 2), "category": slice(2, 6)}
    found = tables.column_skills(x[:1500], target[:1500], x[1500:], target[1500:], groups)
    assert found["category"] > 0.99
    assert max(found["noise"], found["more noise"]) < 0.05


@pytest.mark.parametrize("kind", ["number", "binary", "classes"])
def test_trees_tell_signal_from_noise(kind):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1500, 3))
    groups = {name: slice(index, index + 1) for index, name in enumerate("abc")}
    plain = x[:, 0] * x[:, 1]
    target = {
        "number": plain[:, None],
        "binary": (plain > 0).astype(float)[:, None],
        "classes": np.eye(4)[np.digitize(plain, [-0.5, 0.5])],  # a fourth class that no row has
    }[kind]
    noise = target[generator.permutation(1500)]
    for values, least, most in ((target, 0.4, 1.0), (noise, -1.0, 0.05)):
        found = tables.signal(x[:1000], values[:1000], x[1000:], values[1000:], groups, {}, seed=0)
        assert least < found["trees"] < most
        assert 0 < found["error"] < 0.2

"""`steepest.keras.find_learning_rate`: several rates at once over a Keras model's own steps."""

from __future__ import annotations

import random
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from keras.src.random.seed_generator import global_seed_generator

import steepest.keras
from expecting import fails
from keras_manners import assert_same, bits, network, table

ROWS, BATCH, EPOCHS = 64, 8, 3
X, Y = table(rows=ROWS)
PLANNED = {"batch_size": BATCH, "epochs": EPOCHS, "seed": 4}


def small(optimizer: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    hidden = keras.layers.Dense(2, "tanh")
    model = keras.Sequential([keras.layers.Input((3,)), hidden, keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    return model


def decay(rate: float) -> keras.optimizers.schedules.LearningRateSchedule:
    return keras.optimizers.schedules.ExponentialDecay(rate, 5, 0.7)


@pytest.mark.parametrize(
    ("make", "build"),
    [
        pytest.param(lambda rate: keras.optimizers.SGD(rate, momentum=0.9), network, marks=pytest.mark.slow),
        (lambda rate: keras.optimizers.Adam(decay(rate)), small),
    ],
    ids=["momentum, with dropout and normalization", "adam, with a schedule"],
)
def test_each_rate_reaches_what_a_fit_with_it_reaches(make, build) -> None:
    """The oracle is the fit itself, weights, dropout, moving averages and schedule included."""
    weights = np.linspace(0.5, 1.5, ROWS, dtype="float32")
    search = steepest.keras.find_learning_rate(build(make(0.05)), X, Y, sample_weight=weights, **PLANNED)
    assert search.decided
    assert (search.steps, search.planned_steps, search.rows) == (24, 24, ROWS)
    for place in (4, search.rates.index(search.choice)):
        model = build(make(search.rates[place]))
        history = steepest.keras.fit(model, X, Y, sample_weight=weights, verbose=0, **PLANNED)
        each = np.asarray(keras.losses.get(model.loss)(Y, model.predict(X, verbose=0)))
        assert search.losses[place] == pytest.approx((each * weights).mean(), rel=2e-3)
        np.testing.assert_allclose(search.curves[place], history.steps["loss"], rtol=2e-3)


def test_the_limit_is_that_of_the_exact_hessian_where_the_choice_led() -> None:
    search = steepest.keras.find_learning_rate(small(keras.optimizers.SGD()), X, Y, **PLANNED)
    model = small(keras.optimizers.SGD(search.choice))
    steepest.keras.fit(model, X, Y, verbose=0, **PLANNED)
    flat, unravel = ravel_pytree([variable.value for variable in model.trainable_variables])

    def loss(theta: jax.Array) -> jax.Array:
        return jnp.mean((model.stateless_call(unravel(theta), [], X)[0] - Y) ** 2)

    largest = np.linalg.eigvalsh(np.asarray(jax.hessian(loss)(flat), np.float64))[-1]
    assert search.curvature == pytest.approx(largest, rel=1e-2)
    assert search.limit == pytest.approx(2 / largest, rel=1e-2)
    low, high = search.interval
    assert low <= search.choice <= high


def states(model: keras.Model) -> list[Any]:
    seeds = [np.array(global_seed_generator().state.value)]
    metrics = [np.array(variable.value) for variable in model.metrics_variables]
    return [*bits(model), *metrics, *seeds]


def test_everything_is_as_it_was_and_the_answer_is_the_same_again() -> None:
    model, twin = network(), network()
    for each in (model, twin):
        steepest.keras.fit(each, X, Y, epochs=1, verbose=0)
    before = states(model)
    generators = random.getstate(), np.random.get_state()[1].tobytes(), model.get_config()  # noqa: NPY002
    search = steepest.keras.find_learning_rate(model, X, Y, **PLANNED)
    assert_same(before, states(model))
    assert generators == (random.getstate(), np.random.get_state()[1].tobytes(), model.get_config())  # noqa: NPY002
    assert steepest.keras.find_learning_rate(model, X, Y, **PLANNED) == search
    for each in (model, twin):
        steepest.keras.fit(each, X, Y, epochs=2, verbose=0)
    assert_same(bits(model), bits(twin))


class Own(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.out = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.out(x)

    def train_step(self, state: Any, data: Any) -> Any:
        return super().train_step(state, data)


def own() -> keras.Model:
    model = Own()
    model.compile("sgd", "mse")
    return model


def eager() -> keras.Model:
    model = small("sgd")
    model.compile("sgd", "mse", run_eagerly=True)
    return model


@pytest.mark.parametrize(
    ("build", "more", "why"),
    [
        (own, {}, "it has a train_step of its own"),
        (eager, {}, "step by step in Python"),
        (lambda: small(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())), {}, "scales the loss"),
        (lambda: small("sgd"), {"epochs": 1, "batch_size": 16}, "a descent of 4 steps is too short"),
        (lambda: small("sgd"), {"sample_weight": np.full(ROWS, np.nan, "float32")}, "the start is nan"),
        (lambda: small("sgd"), {"sample_weight": np.zeros(ROWS, "float32")}, "lowers the loss"),
    ],
)
def test_what_cant_be_tried_or_decided_is_said(build, more, why) -> None:
    search = steepest.keras.find_learning_rate(build(), X, Y, **(PLANNED | more))
    assert not search.decided
    assert why in search.why
    assert search.to_json()["choice"] is None


def test_streams_are_declined_and_errors_are_those_of_fit() -> None:
    search = steepest.keras.find_learning_rate(
        small("sgd"), ((X, Y) for _ in range(9)), shuffle=False, epochs=30
    )
    assert "the rows are a stream" in search.why
    with fails("batch_size is 0"):
        steepest.keras.find_learning_rate(small("sgd"), X, Y, batch_size=0)
    with pytest.raises(ValueError, match="call `compile"):
        steepest.keras.find_learning_rate(keras.Sequential([keras.layers.Dense(1)]), X, Y)


def test_convolutions_are_tried_one_after_the_other() -> None:
    images = np.random.default_rng(0).normal(size=(48, 6, 6, 1)).astype("float32")
    layers = [keras.layers.Input((6, 6, 1)), keras.layers.Conv2D(2, 3), keras.layers.Flatten()]
    keras.utils.set_random_seed(1)
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    targets = images[:, 2:4, 2:4].mean(axis=(1, 2))
    search = steepest.keras.find_learning_rate(model, images, targets, **PLANNED)
    assert search.decided
    place = search.rates.index(search.choice)
    model.optimizer.learning_rate = search.choice
    history = steepest.keras.fit(model, images, targets, verbose=0, **PLANNED)
    np.testing.assert_allclose(search.curves[place], history.steps["loss"], rtol=2e-3)

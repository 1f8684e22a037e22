"""Pairs of equal, small Keras models: one for `keras.Model.fit`, one for `steepest.keras.fit`.

A pair is compiled once and goes back to its first state before each use, so that a test costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import keras
import numpy as np

import steepest.keras

Fit = Callable[..., keras.callbacks.History]
FITS: dict[str, Fit] = {"keras": keras.Model.fit, "ours": steepest.keras.fit}
ROWS, BATCH = 90, 8  # eleven batches and a short one
STEPS = 12


def table(rows: int = ROWS, width: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features, and a target that only half depends on them."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, width)).astype("float32")
    y = (x[:, :1] + random.normal(size=(rows, 1)) > 0).astype("float32")
    return x, y


def network(optimizer: Any = None, width: int = 3, policy: str = "float32", **compiled: Any) -> keras.Model:
    """A model with random and other state besides its weights; each call gives the very same one."""
    keras.backend.clear_session(free_memory=False)
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.layers.Input((width,)),
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    keras.config.set_dtype_policy("float32")
    optimizer = optimizer or keras.optimizers.SGD(0.3, momentum=0.9)
    model.compile(optimizer, **({"loss": "binary_crossentropy", "metrics": ["accuracy"]} | compiled))
    model.optimizer.build(model.trainable_variables)
    return model


def variables(model: keras.Model) -> list[Any]:
    return [*model.trainable_variables, *model.non_trainable_variables, *model.optimizer.variables]


def bits(model: keras.Model) -> list[np.ndarray]:
    """The values of all variables but those of metrics."""
    return [np.array(variable.value) for variable in variables(model)]


def assert_same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right, strict=True)


class Pair:
    """Two models in the same state."""

    def __init__(self, build: Callable[[], keras.Model] = network) -> None:
        self.models = {name: build() for name in FITS}
        self.start = bits(self.models["keras"])
        assert_same(self.start, bits(self.models["ours"]))

    def fit(
        self, callbacks: Callable[[], list[Any]] = list, x: Any = None, y: Any = None, **arguments: Any
    ) -> dict[str, keras.callbacks.History]:
        """Train both in the same way, each with callbacks of its own; their weights are the same then."""
        if x is None:
            x, y = table()
        arguments = {"batch_size": BATCH, "verbose": 0, "shuffle": False} | arguments
        histories = {}
        for name, model in self.models.items():
            for variable, value in zip(variables(model), self.start, strict=True):
                variable.assign(jnp.array(value))  # a copy: Keras takes the arrays of variables over
            data = x() if callable(x) else x  # a generator can be used but once
            histories[name] = FITS[name](model, data, y, callbacks=callbacks(), **arguments)
        self.assert_same()
        assert histories["ours"].epoch == histories["keras"].epoch
        assert_close(histories["ours"].history, histories["keras"].history)
        return histories

    def assert_same(self) -> None:
        assert_same(*map(bits, self.models.values()))


def assert_close(ours: dict[str, Any], keras: dict[str, Any]) -> None:
    assert list(ours) == list(keras)
    for name, value in keras.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-6, atol=1e-7, err_msg=name)

"""Twins: two equal Keras models, one trained by `keras.Model.fit`, the other by `steepest.keras.fit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

import steepest.keras

GROUPS = ("trainable_variables", "non_trainable_variables", "metrics_variables")
ROWS = 104
SETTINGS = {"batch_size": 32, "epochs": 2, "shuffle": False, "verbose": 0}
"""104 rows in batches of 32: the last batch is a short one of 8."""

Build = Callable[[], keras.Model]
Script = Callable[[keras.Model, Callable[..., Any]], object]
"""``(model, fit)``: what is done with a model; ``fit(model, ...)`` is Keras' or ours."""


@dataclass(frozen=True)
class Trained:
    """A model that was trained, every value of its variables, and each fit's history."""

    model: keras.Model
    variables: dict[str, list[np.ndarray]]
    histories: list[dict[str, list[float]]]


def born(build: Build, seed: int = 7) -> keras.Model:
    """Build a model; each call with a seed gives the same one, down to the names that Keras counts up."""
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    return build()


def values(model: keras.Model) -> dict[str, list[np.ndarray]]:
    """Return copies of all values, by the groups that Keras has."""
    groups = {name: getattr(model, name) for name in GROUPS}
    groups["optimizer_variables"] = model.optimizer.variables
    return {name: [np.array(each.value) for each in variables] for name, variables in groups.items()}


def trained(build: Build, script: Script, fit: Callable[..., Any], seed: int = 7) -> Trained:
    """Build a model and do with it what the script says."""
    histories = []

    def recorded(model: keras.Model, *data: Any, **settings: Any) -> Any:
        history = fit(model, *data, **(SETTINGS | settings))
        histories.append(history.history)
        return history

    model = born(build, seed)
    before = values(model)["trainable_variables"]
    script(model, recorded)
    after = values(model)
    assert not same(before, after["trainable_variables"]), "nothing was learned, so nothing is compared"
    return Trained(model, after, histories)


def train_twins(build: Build, script: Script) -> tuple[Trained, Trained]:
    """Train one twin with Keras' loop, the other with ours."""
    return trained(build, script, keras.Model.fit), trained(build, script, steepest.keras.fit)


def same(one: list[Any], other: list[Any]) -> bool:
    """Tell whether two lists of arrays are the same to the last bit."""
    pairs = zip(map(np.asarray, one), map(np.asarray, other), strict=False)
    return len(one) == len(other) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs
    )


def assert_same(plain: Trained, ours: Trained, rounded: tuple[str, ...] = ()) -> None:
    """Expect equal bits in all variables and in all histories.

    XLA may sum the rows of a metric in another order within a loop than outside: the metrics that are named
    as rounded may be off by that.
    """
    for group, expected in plain.variables.items():
        for at, (one, other) in enumerate(zip(expected, ours.variables[group], strict=True)):
            if not (rounded and group == "metrics_variables"):
                assert same([one], [other]), f"{group}[{at}] is off by {np.abs(one - other).max()}"
    assert len(plain.histories) == len(ours.histories)
    for expected, history in zip(plain.histories, ours.histories, strict=True):
        assert list(expected) == list(history)
        for name, figures in expected.items():
            if name in rounded:
                np.testing.assert_allclose(history[name], figures, rtol=3e-7)
            else:
                assert same([figures], [history[name]]), (name, figures, history[name])


def parity(
    build: Build, *data: Any, rounded: tuple[str, ...] = (), **settings: Any
) -> tuple[Trained, Trained]:
    """Expect that a fit leaves the same bits as Keras' own."""
    plain, ours = train_twins(build, lambda model, fit: fit(model, *data, **settings))
    assert_same(plain, ours, rounded)
    return plain, ours


def rows(count: int = ROWS, columns: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Make rows of a binary target that a model can learn."""
    draw = np.random.Generator(np.random.Philox(1))
    x = draw.normal(size=(count, columns)).astype(np.float32)
    y = x @ draw.normal(size=columns) + draw.normal(size=count) > 0
    return x, y.astype(np.float32)[:, None]

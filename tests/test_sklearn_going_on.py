"""Estimators that go on: partial fits, warm starts, early stopping."""

from __future__ import annotations

import copy
import pickle

import jax
import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.model_selection import train_test_split

import steepest
from steepest.descent import schedules
from steepest.sklearn import DescentClassifier, DescentRegressor, InvalidError

CANCER, BENIGN = load_breast_cancer(return_X_y=True)
IRIS, SPECIES = load_iris(return_X_y=True)
DIABETES, PROGRESS = load_diabetes(return_X_y=True)


def assert_same(one, other) -> None:
    assert jax.tree.all(jax.tree.map(np.array_equal, one.parameters_, other.parameters_))


def chunks(X, y, parts):
    return zip(np.array_split(X, parts), np.array_split(y, parts), strict=True)


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 0.05, "schedule": "cosine"},
        {"learning_rate": 0.05, "optimizer": "momentum", "l1": 0.01},
        {"learning_rate": 0.01, "hidden": (8,), "dropout": 0.2},
        {"learning_rate": 0.05, "batch_size": "all"},
        {"learning_rate": 0.01, "early_stopping": True, "patience": 2, "optimizer": "sgd"},
    ],
)
@pytest.mark.parametrize("sparse", [False, True])
def test_partial_fit_is_a_descent_that_was_never_interrupted(options, sparse) -> None:
    X, y = (csr_array(CANCER), BENIGN) if sparse else (CANCER, BENIGN)
    whole = DescentClassifier(epochs=5, tolerance=0, **options).fit(X, y)
    parts = DescentClassifier(epochs=5, tolerance=0, **options)
    for call in range(5):
        parts.partial_fit(X, y, classes=[0, 1])
        if call == 2:
            parts = pickle.loads(pickle.dumps(parts))
    assert_same(whole, parts)
    assert parts.loss_curve_ == whole.loss_curve_
    assert parts.validation_curve_ == whole.validation_curve_
    assert parts.n_iter_ == whole.n_iter_


def test_partial_fit_keeps_the_place_in_the_schedule() -> None:
    class Rates(steepest.Callback):
        def __init__(self):
            self.last = []

        def on_epoch_end(self, figures):
            self.last.append(figures["learning_rate"])

    model = DescentClassifier(learning_rate=0.1, schedule="exponential", epochs=3, batch_size=10)
    steps, seen = 0, []
    for X, y in ((IRIS[::5], SPECIES[::5]), (IRIS[::3], SPECIES[::3]), (IRIS[::2], SPECIES[::2])):
        rates = Rates()
        model.set_params(callbacks=[rates]).partial_fit(X, y, classes=[0, 1, 2])
        steps += -(-len(y) // 10)
        seen.append((steps - 1, rates.last[0]))
    expected = schedules.schedule_by_name("exponential", 0.1, 9)(np.array([step for step, _ in seen]))
    assert np.allclose([rate for _, rate in seen], expected, rtol=1e-6)


def test_partial_fit_over_chunks_learns() -> None:
    model = DescentClassifier(learning_rate=0.02, epochs=30)
    for _ in range(30):
        for X, y in chunks(CANCER, BENIGN, 4):
            model.partial_fit(X, y, classes=[0, 1])
    assert model.score(CANCER, BENIGN) > 0.97
    assert model.n_iter_ == len(model.loss_curve_) == 120


def test_partial_fit_goes_on_after_early_stopping_only_as_it_was() -> None:
    model = DescentClassifier(learning_rate=30.0, optimizer="sgd", early_stopping=True, patience=1)
    before = None
    for _ in range(30):
        model.partial_fit(CANCER, BENIGN, classes=[0, 1])
        if before is not None and before.n_iter_ == model.n_iter_:
            break
        before = copy.deepcopy(model)
    assert before.n_iter_ == model.n_iter_ < 30
    assert_same(before, model)


def test_a_rate_that_was_found_is_kept() -> None:
    model = DescentClassifier(epochs=20).partial_fit(IRIS, SPECIES, classes=[0, 1, 2])
    found = model.learning_rate_
    assert found == DescentClassifier(epochs=20).fit(IRIS, SPECIES).learning_rate_
    assert model.partial_fit(IRIS[:40], SPECIES[:40]).learning_rate_ == found


def test_going_on_with_other_parameters() -> None:
    model = DescentClassifier(learning_rate=0.1, hidden=(4,), epochs=2, warm_start=True).fit(IRIS, SPECIES)
    with pytest.raises(InvalidError, match="layers that were fitted are of other sizes"):
        model.set_params(hidden=(5,)).fit(IRIS, SPECIES)
    with pytest.raises(InvalidError, match="another optimizer"):
        model.set_params(hidden=(4,), optimizer="adagrad").partial_fit(IRIS, SPECIES)
    before = copy.deepcopy(model.set_params(optimizer="adam"))
    slow, fast = copy.deepcopy(before).set_params(learning_rate=1e-9), copy.deepcopy(before)
    first = before.parameters_["layer_1"]["weights"]
    assert np.allclose(slow.partial_fit(IRIS, SPECIES).parameters_["layer_1"]["weights"], first, atol=1e-6)
    moved = fast.partial_fit(IRIS, SPECIES).parameters_["layer_1"]["weights"]
    assert not np.allclose(moved, first, atol=1e-2)
    with pytest.raises(InvalidError, match="two rows at least"):
        DescentClassifier(early_stopping=True).partial_fit(IRIS[:1], SPECIES[:1], classes=[0, 1, 2])


def test_a_warm_start_begins_where_the_last_fit_ended() -> None:
    model = DescentRegressor(learning_rate=0.01, epochs=20, warm_start=True).fit(DIABETES, PROGRESS)
    first = model.loss_curve_
    model.fit(DIABETES, PROGRESS)
    assert len(model.loss_curve_) == model.n_iter_ == 20
    assert model.loss_curve_[0] < first[0] - 0.1
    cold = DescentRegressor(learning_rate=0.01, epochs=20).fit(DIABETES, PROGRESS)
    assert cold.loss_curve_ == first
    assert cold.fit(DIABETES, PROGRESS).loss_curve_ == first


def test_early_stopping_keeps_the_best_epoch() -> None:
    X, X_test, y, y_test = train_test_split(CANCER, BENIGN, random_state=0)
    options = {"learning_rate": 0.1, "hidden": (32,), "epochs": 200, "l2": 0.0}
    model = DescentClassifier(early_stopping=True, patience=3, **options)
    model.fit(X, y, validation_data=(X_test, y_test))
    curve = model.validation_curve_
    assert len(curve) == model.n_iter_ == int(np.argmin(curve)) + 4 < 200
    chosen = model.predict_proba(X_test)[np.arange(len(y_test)), y_test]
    assert -np.log(chosen).mean() == pytest.approx(min(curve), rel=1e-4)
    held_out = DescentClassifier(early_stopping=True, patience=3, validation=0.3, **options).fit(X, y)
    assert held_out.n_iter_ < 200
    assert len(held_out.validation_curve_) == held_out.n_iter_

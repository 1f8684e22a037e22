"""Runs as estimators of scikit-learn."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import cross_val_score

from exporting import RUNS, fitted, predicted, run_of
from real_data import demand
from steepest import export
from steepest.errors import SteepestError
from steepest.sklearn import DescentClassifier, DescentRegressor


@pytest.mark.parametrize("name", RUNS)
def test_an_estimator_predicts_real_rows_as_the_run_does(name):
    run, table = run_of(name)
    estimator, expected = export.to_sklearn(run), predicted(run, table)
    rows = table.drop(columns=run.task.target)
    found = pickle.loads(pickle.dumps(estimator)).predict(rows[rows.columns[::-1]])
    if run.task.labels:
        assert isinstance(estimator, DescentClassifier)
        assert estimator.classes_.tolist() == list(run.task.labels)
        assert np.mean(found == expected["prediction"]) > 0.999
        of_labels = estimator.predict_proba(rows)[:, 1 - len(expected.columns) :]
        np.testing.assert_allclose(of_labels, expected.iloc[:, 1:], atol=1e-5)
    else:
        assert isinstance(estimator, DescentRegressor)
        np.testing.assert_allclose(found, expected["prediction"], rtol=1e-5, atol=1e-5 * run.task.deviation)
    assert sorted(estimator.feature_names_in_) == sorted(rows.columns)
    assert estimator.loss_curve_ == run.epochs["loss"].tolist()


def test_a_run_that_looks_back_is_refused(tmp_path):
    run = fitted(tmp_path, demand().head(500), "value", lags={"value": (48,)})
    with pytest.raises(SteepestError, match="looks back at the rows before; estimators"):
        export.to_sklearn(run)


def test_it_is_at_home_among_scikit_learns_own():
    run, table = run_of("penguins")
    estimator = export.to_sklearn(run)
    rows, species = table.drop(columns="species"), table["species"]
    calibrated = CalibratedClassifierCV(FrozenEstimator(estimator)).fit(rows, species)
    assert calibrated.predict_proba(rows).shape == (len(rows), 3)
    assert clone(estimator).get_params() == estimator.get_params()
    estimator.set_params(epochs=20)
    assert cross_val_score(estimator, rows, species, cv=2).min() > 0.9


def test_its_parameters_are_the_settings_of_the_run(tmp_path):
    table = load_breast_cancer(as_frame=True).frame
    settings = {"l2": 0.01, "seed": 7, "class_weight": "1=3", "patience": 4, "validation": 0.25, "epochs": 3}
    run = fitted(tmp_path, table, "target", optimizer="sgd", **settings)
    found = export.to_sklearn(run).get_params()
    expected = {"l2": 0.01, "random_state": 7, "class_weight": {0: 1.0, 1: 3.0}, "patience": 4, "hidden": ()}
    expected |= {
        "validation": 0.25,
        "early_stopping": True,
        "optimizer": "sgd",
        "batch_size": 64,
        "epochs": 3,
    }
    expected |= {"loss": "binary_cross_entropy", "learning_rate": 0.01}
    assert {name: found[name] for name in expected} == expected


def test_coefficients_are_of_the_columns_as_given(tmp_path):
    table = load_diabetes(as_frame=True).frame
    table = table.assign(
        old=table["age"] > 0, age=60 + 10 * table["age"], constant=1, target=table["target"] / 7
    )
    run = fitted(tmp_path, table, "target", epochs=20)
    estimator = export.to_sklearn(run)
    rows = table[estimator.feature_names_in_]
    by_hand = rows.to_numpy(np.float64) @ estimator.coef_ + estimator.intercept_
    np.testing.assert_allclose(by_hand, predicted(run, table)["prediction"], rtol=1e-5)
    assert estimator.coef_[estimator.feature_names_in_ == "constant"] == 0
    assert not hasattr(export.to_sklearn(run_of("adult")[0]), "coef_")


def test_it_fits_anew_or_from_its_parameters_but_goes_on_from_no_descent():
    run, table = run_of("penguins")
    estimator = export.to_sklearn(run)
    rows, species = table.drop(columns="species"), table["species"]
    with pytest.raises(ValueError, match=r"made of a run, and has nothing .* steepest fit --from RUN"):
        estimator.partial_fit(rows, species)
    before = estimator.score(rows, species)
    estimator.set_params(warm_start=True, epochs=10).fit(rows, species)
    assert estimator.score(rows, species) >= before
    estimator.partial_fit(rows, species)

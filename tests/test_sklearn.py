"""The estimators against scikit-learn's own, against closed forms, and against each other."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from scipy.sparse import random_array
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from steepest.descent.epoch import run_window, try_window
from steepest.errors import SteepestError
from steepest.sklearn import DescentClassifier, DescentRegressor, InvalidError
from steepest.sklearn.descending import outputs


def assert_same(one, other) -> None:
    assert jax.tree.all(jax.tree.map(np.array_equal, one.parameters_, other.parameters_))


EXACT = {"optimizer": "lbfgs", "batch_size": "all", "epochs": 2000, "tolerance": 1e-7}
"""To the optimum, as near as float32 comes."""

CANCER, BENIGN = load_breast_cancer(return_X_y=True)
IRIS, SPECIES = load_iris(return_X_y=True)
DIABETES, PROGRESS = load_diabetes(return_X_y=True)
STRENGTH = 0.01


def reference(l2: float, rows: int) -> dict[str, float]:
    """Return scikit-learn's strength of the same penalty: its losses are summed, and its squares halved."""
    return {"C": 1 / (2 * l2 * rows), "tol": 1e-8, "max_iter": 5000}


@pytest.mark.parametrize(("X", "y"), [(CANCER, BENIGN), (IRIS, SPECIES)])
def test_the_optimum_of_logistic_regression(X, y) -> None:
    ours = DescentClassifier(l2=STRENGTH, **EXACT).fit(X, y)
    scaler = StandardScaler().fit(X)
    theirs = LogisticRegression(**reference(STRENGTH, len(y))).fit(scaler.transform(X), y)
    assert ours.coef_.shape == theirs.coef_.shape
    assert np.allclose(ours.coef_ * scaler.scale_, theirs.coef_, atol=2e-3)
    probabilities = theirs.predict_proba(scaler.transform(X))
    assert np.allclose(ours.predict_proba(X), probabilities, atol=2e-3)
    assert np.allclose(ours.decision_function(X), X @ ours.coef_.T.squeeze() + ours.intercept_)


def test_the_optimum_with_row_and_class_weights() -> None:
    weights = np.random.default_rng(0).uniform(0.1, 3, len(SPECIES))
    of_classes = {0: 1.0, 1: 5.0, 2: 0.5}
    ours = DescentClassifier(l2=STRENGTH, class_weight=of_classes, **EXACT).fit(IRIS, SPECIES, weights)
    total = weights * np.array([1.0, 5.0, 0.5])[SPECIES]
    shares = total / total.sum()
    mean = shares @ IRIS
    scale = np.sqrt(shares @ (IRIS - mean) ** 2)
    theirs = LogisticRegression(**reference(STRENGTH, 1)).fit((IRIS - mean) / scale, SPECIES, shares)
    assert np.allclose(ours.coef_ * scale, theirs.coef_, atol=2e-3)


def test_balanced_classes_weigh_the_same_together() -> None:
    weights = np.random.default_rng(0).uniform(0.1, 3, len(BENIGN))
    balanced = DescentClassifier(class_weight="balanced", **EXACT, l2=0.1).fit(CANCER, BENIGN, weights)
    totals = np.bincount(BENIGN, weights)
    each = weights / totals[BENIGN]
    by_hand = DescentClassifier(**EXACT, l2=0.1).fit(CANCER, BENIGN, each)
    assert np.allclose(balanced.coef_, by_hand.coef_, atol=1e-4)


@pytest.mark.parametrize(
    "target", [pytest.param(PROGRESS, marks=pytest.mark.slow), np.stack([PROGRESS, np.sin(PROGRESS)], axis=1)]
)
def test_the_optimum_of_ridge_regression(target) -> None:
    ours = DescentRegressor(l2=STRENGTH, **EXACT).fit(DIABETES, target)
    scaler = StandardScaler().fit(DIABETES)
    theirs = Ridge(alpha=STRENGTH * len(target)).fit(scaler.transform(DIABETES), target)
    spread = target.std(axis=0)[..., None]
    assert ours.coef_.shape == theirs.coef_.shape
    assert np.allclose(ours.coef_ * scaler.scale_ / spread, theirs.coef_ / spread, atol=2e-4)
    assert np.allclose(ours.predict(DIABETES), DIABETES @ ours.coef_.T + ours.intercept_)
    assert ours.predict(DIABETES).shape == target.shape


def test_the_median_and_a_rate_of_counts() -> None:
    nothing = np.zeros((101, 1))
    target = np.r_[np.arange(100.0), 1e4]
    options = {"batch_size": "all", "epochs": 500, "learning_rate": 0.01, "schedule": "cosine"}
    median = DescentRegressor(loss="mean_absolute_error", **options).fit(nothing, target)
    assert median.intercept_ == pytest.approx(50, abs=3)
    counts = DescentRegressor(loss="poisson", **EXACT).fit(IRIS, SPECIES)
    assert counts.predict(IRIS).mean() == pytest.approx(SPECIES.mean(), rel=1e-3)  # Poisson's likelihood does
    assert (counts.predict(IRIS) > 0).all()
    assert np.allclose(np.log(counts.predict(IRIS)), IRIS @ counts.coef_ + counts.intercept_)


def test_hinge_is_one_against_the_rest() -> None:
    options = {"loss": "hinge", "l2": STRENGTH, "learning_rate": 0.01, "schedule": "cosine", "epochs": 200}
    ours = DescentClassifier(**options).fit(IRIS, SPECIES)
    one = DescentClassifier(**options).fit(IRIS, SPECIES == 1)
    assert np.allclose(ours.decision_function(IRIS)[:, 1], one.decision_function(IRIS), atol=0.05)
    assert not hasattr(ours, "predict_proba")
    theirs = make_pipeline(StandardScaler(), SGDClassifier(alpha=2 * STRENGTH, random_state=0))
    assert ours.score(IRIS, SPECIES) > theirs.fit(IRIS, SPECIES).score(IRIS, SPECIES) - 0.03


def test_labels_of_an_indicator_matrix_are_learned_each_by_itself() -> None:
    labels = np.stack([SPECIES == 0, SPECIES == 2, IRIS[:, 0] > 5.8], axis=1).astype(int)
    ours = DescentClassifier(l2=STRENGTH, **EXACT).fit(IRIS, labels)
    scaled = StandardScaler().fit_transform(IRIS)
    each = MultiOutputClassifier(LogisticRegression(**reference(STRENGTH, len(labels)))).fit(scaled, labels)
    theirs = np.stack([probability[:, 1] for probability in each.predict_proba(scaled)], axis=1)
    assert np.allclose(ours.predict_proba(IRIS), theirs, atol=2e-3)
    assert np.array_equal(ours.predict(IRIS), theirs > 0.5)
    assert ours.predict(IRIS).dtype.kind == "i"


@pytest.mark.parametrize(
    ("X", "y"), [(CANCER, BENIGN), pytest.param(*load_digits(return_X_y=True), marks=pytest.mark.slow)]
)
def test_networks_are_as_good_as_scikit_learns(X, y) -> None:
    X, X_test, y, y_test = train_test_split(X, y, random_state=0)
    ours = DescentClassifier(hidden=(64,), learning_rate=0.001, epochs=60).fit(X, y)
    theirs = make_pipeline(StandardScaler(), MLPClassifier((64,), batch_size=32, max_iter=60, random_state=0))
    with pytest.warns(Warning, match="Maximum iterations"):
        theirs.fit(X, y)
    assert ours.score(X_test, y_test) > theirs.score(X_test, y_test) - 0.015
    assert not hasattr(ours, "coef_")
    with pytest.raises(AttributeError, match="linear model"):
        _ = ours.intercept_


def test_a_network_of_several_outputs() -> None:
    X, y = load_linnerud(return_X_y=True)
    ours = DescentRegressor(hidden=(32,), learning_rate=0.01, epochs=300).fit(X, y)
    theirs = MLPRegressor(hidden_layer_sizes=(32,), learning_rate_init=0.01, max_iter=300, random_state=0)
    scaled = StandardScaler().fit_transform(y)
    with pytest.warns(Warning, match="Maximum iterations"):
        theirs.fit(StandardScaler().fit_transform(X), scaled)
    assert ours.score(X, y) > theirs.score(StandardScaler().fit_transform(X), scaled) - 0.1


def sparse_rows():
    matrix = random_array((300, 400), density=0.05, rng=0, format="csr")
    true = np.random.default_rng(0).normal(size=400)
    return matrix, (matrix @ true > 0).astype(int)


def test_sparse_matrices_have_the_optimum_of_dense_ones() -> None:
    X, y = sparse_rows()
    ours = DescentClassifier(l2=1e-3, **EXACT).fit(X, y)
    theirs = LogisticRegression(**reference(1e-3, len(y))).fit(X, y)
    assert np.allclose(ours.coef_, theirs.coef_, atol=5e-3)
    assert np.allclose(ours.decision_function(X), ours.decision_function(X.toarray()))
    lazily = DescentClassifier(l2=1e-3, learning_rate=0.05, schedule="cosine", epochs=200).fit(X, y)
    assert np.allclose(lazily.predict_proba(X), theirs.predict_proba(X), atol=0.03)


def test_a_network_on_a_sparse_matrix() -> None:
    X, y = sparse_rows()
    ours = DescentClassifier(hidden=(8,), embedding=4, learning_rate=0.01, epochs=60).fit(X, y)
    assert ours.parameters_["table"].shape == (400, 5)
    assert ours.score(X, y) > 0.95


# At home among scikit-learn's tools


def test_pipelines_grids_folds_and_calibration() -> None:
    model = DescentClassifier(learning_rate=0.02, epochs=20)
    piped = make_pipeline(StandardScaler(), model)
    assert cross_val_score(piped, CANCER, BENIGN, cv=3).min() > 0.93
    grid = {"l2": np.logspace(-4, 0, 3), "batch_size": np.array([32, 64]), "hidden": [(), (8,)]}
    found = GridSearchCV(model, grid, cv=2).fit(CANCER, BENIGN)
    assert found.best_params_["l2"] < 1
    assert found.best_score_ > 0.93
    calibrated = CalibratedClassifierCV(DescentClassifier(loss="hinge", learning_rate=0.02, epochs=20), cv=3)
    probabilities = calibrated.fit(CANCER, BENIGN).predict_proba(CANCER)[:, 1]
    assert probabilities[BENIGN == 1].mean() > 0.9
    assert cross_val_score(DescentRegressor(epochs=20, learning_rate=0.05), DIABETES, PROGRESS).mean() > 0.4


def test_states_are_plain() -> None:
    model = DescentClassifier(hidden=(4,), learning_rate=0.01, epochs=3, early_stopping=True)
    stored = pickle.dumps(model.fit(IRIS, SPECIES))
    assert b"jax" not in stored
    again = pickle.loads(stored)
    assert np.array_equal(again.predict_proba(IRIS), model.predict_proba(IRIS))
    copied = copy.deepcopy(model).partial_fit(IRIS, SPECIES)
    assert_same(copied, again.partial_fit(IRIS, SPECIES))


def test_a_second_fit_compiles_nothing() -> None:
    def programs() -> int:
        return run_window._cache_size() + try_window._cache_size()

    X = np.random.default_rng(0).normal(size=(77, 5))
    y = X[:, 0] > 0
    before = programs()
    DescentClassifier(epochs=3, learning_rate=0.01).fit(X, y)
    assert programs() == before + 1
    DescentClassifier(epochs=4, learning_rate=0.02, l2=1e-3, random_state=3).fit(X + 1, y)
    assert programs() == before + 1


def test_double_precision_outputs_are_those_of_the_coefficients() -> None:
    model = DescentClassifier(epochs=20, learning_rate=0.05).fit(CANCER, BENIGN)
    by_model = outputs(model._shape, model.parameters_, model._inputs.encode(CANCER))
    assert by_model.dtype == np.float64
    assert np.allclose(by_model, model.decision_function(CANCER), atol=1e-5)


def test_a_column_without_variation_counts_for_nothing() -> None:
    X = np.column_stack([IRIS, np.full(len(IRIS), 1e6)])
    model = DescentClassifier(epochs=20, learning_rate=0.05).fit(X, SPECIES)
    assert (model.coef_[:, 4] == 0).all()
    without = DescentClassifier(epochs=20, learning_rate=0.05).fit(IRIS, SPECIES)
    assert np.allclose(model.predict_proba(X), without.predict_proba(IRIS), atol=1e-5)


def test_importing_steepest_does_not_import_the_estimators() -> None:
    code = (
        "import sys, steepest; print('steepest.sklearn' in sys.modules);"
        "import steepest.sklearn; print(steepest.sklearn.DescentClassifier.__name__)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "DescentClassifier"]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"loss": "hing"}, "Did you mean 'hinge'"),
        ({"loss": "huber"}, "no loss 'huber' for classes"),
        ({"optimizer": "adm"}, "Did you mean 'adam'"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"hidden": (0,)}, "at least one unit"),
        ({"hidden": ("a",)}, "whole number"),
        ({"batch_size": 0}, "batch size is a whole number from 1"),
        ({"learning_rate": -1.0}, "learning rate is a number above zero"),
        ({"validation": 1.5, "early_stopping": True}, "share of the rows, between 0 and 1"),
        ({"random_state": -1}, "seed is a whole number from 0"),
        ({"class_weight": "balance"}, "class_weight is 'balanced'"),
        ({"class_weight": {7: 1.0}}, "names 7, which is no class"),
        ({"activation": "rel", "hidden": (4,)}, "Did you mean 'relu'"),
        ({"optimizer": "lbfgs"}, "L-BFGS needs the loss of all rows"),
    ],
)
def test_parameters_that_make_no_sense(parameters, said) -> None:
    with pytest.raises(InvalidError, match=said) as caught:
        DescentClassifier(**{"learning_rate": 0.1, "epochs": 1, **parameters}).fit(IRIS, SPECIES)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, SteepestError)


def test_rows_that_make_no_sense() -> None:
    model = DescentClassifier(learning_rate=0.1, epochs=1)
    for weights in (-np.ones(150), np.full(150, np.nan), np.ones(3)):
        with pytest.raises(InvalidError, match=r"[Ww]eight"):
            model.fit(IRIS, SPECIES, weights)
    with pytest.raises(InvalidError, match="needs classes"):
        DescentClassifier().partial_fit(IRIS, SPECIES)
    model.partial_fit(IRIS, SPECIES, classes=[0, 1, 2])
    with pytest.raises(InvalidError, match="holds the class 7"):
        model.partial_fit(IRIS, SPECIES + 7)
    with pytest.raises(InvalidError, match="not those of the first call"):
        model.partial_fit(IRIS, SPECIES, classes=[0, 1])
    with pytest.raises(InvalidError, match="numbers from 0 up"):
        DescentRegressor(loss="poisson").fit(IRIS, SPECIES - 1.0)
    with pytest.raises(InvalidError, match="validation_data is"):
        model.fit(IRIS, SPECIES, validation_data=IRIS)
    with pytest.raises(InvalidError, match="multiclass-multioutput"):
        model.fit(IRIS, np.stack([SPECIES, SPECIES], axis=1))
    with pytest.raises(InvalidError, match="No row weighs anything"):
        DescentClassifier(class_weight={0: 0, 1: 0, 2: 0}).fit(IRIS, SPECIES)
    with pytest.raises(InvalidError, match="Column 3 of X holds numbers too large"):
        model.fit(IRIS * [1, 1, 1, 1e200], SPECIES)
    with pytest.raises(InvalidError, match="y holds numbers too large"):
        DescentRegressor().fit(IRIS, SPECIES * 1e200)
    with pytest.raises(InvalidError, match="diverged"):
        DescentRegressor(optimizer="sgd", learning_rate=1e30, epochs=5).fit(DIABETES, PROGRESS)


@pytest.mark.slow
def test_at_its_defaults_it_is_no_surer_than_the_rows_allow():
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    losses = [
        -cross_val_score(model, IRIS, SPECIES, cv=3, scoring="neg_log_loss").mean()
        for model in (DescentClassifier(), DescentClassifier(l2=0.0), regression)
    ]
    assert losses[0] < losses[2] < losses[1]

"""scikit-learn's own account of what an estimator is, with no exception made."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from steepest.sklearn import DescentClassifier, DescentRegressor

BRIEF = {"learning_rate": 0.05, "epochs": 60}
"""The descents of the fast tests; the defaults find each rate, which compiles a search for each shape."""


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([DescentClassifier(**BRIEF), DescentRegressor(**BRIEF)])
def test_the_contract(estimator, check) -> None:
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        DescentClassifier(),
        DescentRegressor(),
        DescentClassifier(hidden=(8,), learning_rate=0.01),
        DescentRegressor(hidden=(8,), learning_rate=0.01),
    ]
)
def test_the_contract_as_it_comes(estimator, check) -> None:
    check(estimator)

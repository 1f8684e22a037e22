"""The same descent as scikit-learn estimators: `DescentClassifier` and `DescentRegressor`."""

from steepest.sklearn.estimators import DescentClassifier as DescentClassifier
from steepest.sklearn.estimators import DescentRegressor as DescentRegressor
from steepest.sklearn.faults import InvalidError as InvalidError

__all__ = ["DescentClassifier", "DescentRegressor", "InvalidError"]

"""The same descent on Spark: `fit`, and Spark ML's estimators `DescentClassifier` and `DescentRegressor`.

The names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from steepest.errors import SteepestError

try:
    import pyspark
except ModuleNotFoundError as error:
    raise SteepestError(
        f"steepest.spark needs PySpark ({error}).", hint="Install it: pip install 'steepest[spark]'."
    ) from error

if tuple(map(int, pyspark.__version__.split(".")[:2])) < (4, 1):
    raise SteepestError(
        f"steepest.spark needs PySpark 4.1 or later; this is {pyspark.__version__}.",
        hint="Install it: pip install 'steepest[spark]'.",
    )

if TYPE_CHECKING:
    from steepest.spark.calls import fit as fit
    from steepest.spark.estimators import DescentClassifier as DescentClassifier
    from steepest.spark.estimators import DescentRegressor as DescentRegressor
    from steepest.spark.models import DescentClassificationModel as DescentClassificationModel
    from steepest.spark.models import DescentRegressionModel as DescentRegressionModel

_WHERE = {
    "fit": "calls",
    "DescentClassifier": "estimators",
    "DescentRegressor": "estimators",
    "DescentClassificationModel": "models",
    "DescentRegressionModel": "models",
}

__all__ = [*_WHERE]  # noqa: PLE0604 - the names stand above


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'steepest.spark' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"steepest.spark.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

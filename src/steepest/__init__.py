"""Gradient descent you can see, on data of any size.

The public names are loaded when they are first used, because JAX takes a second to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steepest import export as export
    from steepest import plot as plot
    from steepest.callbacks import Callback as Callback
    from steepest.data.pairs import Strips as Strips
    from steepest.data.rows import Rejected as Rejected
    from steepest.data.rows import RowSource as RowSource
    from steepest.data.rows import Stretch as Stretch
    from steepest.data.source import open_source as open_source
    from steepest.descent import losses as losses
    from steepest.descent import models as models
    from steepest.descent import schedules as schedules
    from steepest.descent.failure import Failure as Failure
    from steepest.descent.loop import Interrupted as Interrupted
    from steepest.descent.loop import StopDescent as StopDescent
    from steepest.descent.optimizers import LBFGS as LBFGS
    from steepest.descent.optimizers import SGD as SGD
    from steepest.descent.optimizers import AdaGrad as AdaGrad
    from steepest.descent.optimizers import Adam as Adam
    from steepest.descent.optimizers import AdamW as AdamW
    from steepest.descent.optimizers import Momentum as Momentum
    from steepest.descent.optimizers import Nesterov as Nesterov
    from steepest.descent.optimizers import Optimizer as Optimizer
    from steepest.descent.optimizers import RMSProp as RMSProp
    from steepest.descent.schedules import Schedule as Schedule
    from steepest.diagnosing import diagnose as diagnose
    from steepest.diagnosis.learning_rate import find_learning_rate as find_learning_rate
    from steepest.diagnosis.rates import RateSearch as RateSearch
    from steepest.errors import SteepestError as SteepestError
    from steepest.explaining import Contribution as Contribution
    from steepest.explaining import Explanation as Explanation
    from steepest.explaining import explain as explain
    from steepest.exploration.exploring import Exploration as Exploration
    from steepest.exploration.exploring import explore as explore
    from steepest.fitting import fit as fit
    from steepest.minimization import minimize as minimize
    from steepest.predicting import predict as predict
    from steepest.result import Result as Result
    from steepest.run import Run as Run
    from steepest.run import open_run as open_run

__version__ = "0.1.0"

_WHERE = {
    "Callback": "callbacks",
    "Strips": "data.pairs",
    "Rejected": "data.rows",
    "RowSource": "data.rows",
    "Stretch": "data.rows",
    "open_source": "data.source",
    "export": "export",
    "losses": "descent.losses",
    "models": "descent.models",
    "plot": "plot",
    "schedules": "descent.schedules",
    "Failure": "descent.failure",
    "Interrupted": "descent.loop",
    "StopDescent": "descent.loop",
    "SGD": "descent.optimizers",
    "AdaGrad": "descent.optimizers",
    "Adam": "descent.optimizers",
    "AdamW": "descent.optimizers",
    "LBFGS": "descent.optimizers",
    "Momentum": "descent.optimizers",
    "Nesterov": "descent.optimizers",
    "Optimizer": "descent.optimizers",
    "RMSProp": "descent.optimizers",
    "Schedule": "descent.schedules",
    "RateSearch": "diagnosis.learning_rate",
    "find_learning_rate": "diagnosis.learning_rate",
    "SteepestError": "errors",
    "diagnose": "diagnosing",
    "Contribution": "explaining",
    "Explanation": "explaining",
    "explain": "explaining",
    "Exploration": "exploration.exploring",
    "explore": "exploration.exploring",
    "fit": "fitting",
    "Result": "result",
    "Run": "run",
    "open_run": "run",
    "minimize": "minimization",
    "predict": "predicting",
}

_MODULES = ("export", "losses", "models", "plot", "schedules")

__all__ = [*_WHERE]  # noqa: PLE0604 - the names stand above


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'steepest' has no attribute {name!r}")
    module = importlib.import_module(f"steepest.{_WHERE[name]}")
    value: object = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

"""A run's model as an estimator of scikit-learn that is fitted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from steepest.combining import read_settings
from steepest.errors import SteepestError
from steepest.run import Run, Shape
from steepest.settings import Settings
from steepest.sklearn import DescentClassifier, DescentRegressor
from steepest.sklearn.inputs import Columns
from steepest.sklearn.targets import Classes, Numeric
from steepest.tasks import Task, class_weights

Estimator = DescentClassifier | DescentRegressor


def estimator(run: Run, shape: Shape) -> Estimator:
    """Return the estimator: see `steepest.export.to_sklearn`."""
    if run.plan.lags is not None and run.plan.lags.columns:
        raise SteepestError(
            f"The run {run.name} looks back at the rows before; estimators see each row by itself.",
            hint="Predict with steepest predict; ONNX and Keras take lags as columns.",
        )
    task = run.task
    settings = replace(Settings(), **read_settings(str(run.path / "settings.toml")))
    made = DescentClassifier() if task.labels else DescentRegressor()
    made.set_params(**_parameters(settings, task, made.get_params(deep=False)))
    target = _target(task)
    if isinstance(target, Classes):
        made.classes_ = target.labels
    names = dict.fromkeys([*run.plan.reads, *(each["name"] for each in run.record["dropped"])])
    made.feature_names_in_ = np.array([*names], object)
    made.n_features_in_ = len(names)
    made.parameters_, made._shape, made._inputs = run.parameters, shape, Columns(run.plan)
    made._target, made._memory = target, None
    made.learning_rate_ = float(run.record["descent"]["learning_rate"])
    made.n_iter_, made.loss_curve_ = len(run.epochs), run.epochs["loss"].tolist()
    made.validation_curve_ = run.epochs.get("validation_loss", np.empty(0)).tolist()
    return made


def _parameters(settings: Settings, task: Task, known: dict[str, Any]) -> dict[str, Any]:
    """Return the estimator's parameters by which it would fit as the run did."""
    found = {name: getattr(settings, name) for name in known if hasattr(settings, name)}
    found |= {
        "random_state": settings.seed,
        "loss": task.loss,
        "early_stopping": settings.patience is not None,
    }
    if settings.model == "linear":
        found["hidden"] = ()
    if settings.patience is None:
        del found["patience"]
    if isinstance(settings.validation, str) or not settings.validation:
        del found["validation"]
    if settings.class_weight not in (None, "balanced"):
        weights = class_weights(task, settings.class_weight)
        assert weights is not None  # noqa: S101 - some are asked for
        found["class_weight"] = dict(zip(task.labels, weights.tolist(), strict=True))
    return found


def _target(task: Task) -> Classes | Numeric:
    if task.labels:
        return Classes(np.array(task.labels), task.kind, task.loss)
    return Numeric(np.array([task.center]), np.array([task.deviation]), task.loss, single=True)

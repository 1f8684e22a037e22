"""Figures of a descent and of what it learned.

Every function takes what a run recorded and returns a `matplotlib.figure.Figure`; none needs a display or
changes Matplotlib's own settings. ``steps`` is a table with one row per step (``step`` and ``epoch`` from 1,
``loss``, ``gradient_norm``, ``learning_rate``, ``update_ratio``); ``epochs`` has one row per epoch
(``epoch``, ``loss``, and ``validation_loss`` where rows were held out); ``curves`` is that part of
`steepest.evaluation.evaluate`'s result. Gaps (NaN, infinities) are left blank.
"""

from steepest.diagnosis.plots.above import from_above
from steepest.diagnosis.plots.axes import by_bin
from steepest.diagnosis.plots.choices import loss_by, measured, rate_against_loss
from steepest.diagnosis.plots.descent import (
    curvature,
    curvature_points,
    gradient_norm,
    learning_rate,
    loss_by_epoch,
    loss_by_step,
    overview,
    update_ratio,
)
from steepest.diagnosis.plots.quality import (
    calibration,
    confusion,
    importances,
    precision_recall,
    predicted_against_true,
    residuals,
    roc,
)

__all__ = [
    "by_bin",
    "calibration",
    "confusion",
    "curvature",
    "curvature_points",
    "from_above",
    "gradient_norm",
    "importances",
    "learning_rate",
    "loss_by",
    "loss_by_epoch",
    "loss_by_step",
    "measured",
    "overview",
    "precision_recall",
    "predicted_against_true",
    "rate_against_loss",
    "residuals",
    "roc",
    "update_ratio",
]

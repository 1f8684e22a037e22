"""What every exported model says of itself."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import steepest
from steepest.errors import SteepestError
from steepest.run import Run, Shape

LINKS = {"binary": "sigmoid", "classes": "softmax", "counts": "exponential", "number": "linear"}
"""Kind of a task -> the function that makes predictions of a model's outputs, as Keras calls it."""


def described(run: Run) -> dict[str, Any]:
    """Return who made a model, and what it predicts; nothing about the machine."""
    task = run.task
    return {
        "steepest_version": steepest.__version__,
        "run": PurePosixPath(run.name.replace("\\", "/")).name,
        "target": task.target,
        "kind": task.kind,
        "loss": task.loss,
        "link": LINKS[task.kind],
        "labels": list(task.labels),
        "center": task.center,
        "deviation": task.deviation,
    }


def own_shape(run: Run, what: str, hint: str = "Export .keras.") -> Shape:
    """Return the shape of a linear or multilayer model.

    Raises
    ------
    SteepestError
        If the run's model is of Keras, which ``what`` can't be made of.
    """
    if run.shape is None:
        raise SteepestError(
            f"The run {run.name} is of a Keras model, of which {what} can't be made.", hint=hint
        )
    return run.shape

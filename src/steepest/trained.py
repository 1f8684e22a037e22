"""What a descent over a table leaves behind, whichever front end ran it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from steepest.descent.models import Model
from steepest.errors import SteepestError

if TYPE_CHECKING:
    import pandas as pd

    from steepest.descent.failure import Failure
    from steepest.descent.standing import Setback
    from steepest.diagnosis.examination import Descended

MODELS = ("linear", "mlp")
"""Steepest's own models."""


def trained_by(model: str) -> ModuleType:
    """Return the module that trains a model; Keras is imported for its own models only."""
    return import_module("steepest.networks" if model in MODELS else "steepest.keras.tables")


class DivergenceError(SteepestError):
    """The descent met a step that was not finite: going on from a checkpoint would meet it again."""


@dataclass(frozen=True)
class Trained:
    """A trained model, how its descent went, and what a run stores of both.

    Attributes
    ----------
    model, parameters
        Its outputs for rows are ``model.apply(parameters, features)``, on the scale of the task's loss.
    form
        What ``model.json`` says of it: how to build the model without its parameters.
    arrays
        What ``model.safetensors`` holds.
    history, epochs
        A row for each step, and for each epoch; see `steepest.Result`.
    steps, seconds, why_it_stopped, converged
        See `steepest.Result`.
    layers, rule
        What the record says of the model's layers, and of loss, optimizer, rate and schedule.
    failure, setbacks
        See `steepest.Result`.
    seconds_alone
        See `steepest.Result`.
    descended
        What an examination needs to know of the descent; ``None`` where it can't be examined.
    """

    model: Model
    parameters: Any
    form: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]
    history: pd.DataFrame
    epochs: pd.DataFrame
    steps: int
    seconds: float
    why_it_stopped: str
    converged: bool
    layers: dict[str, Any]
    rule: dict[str, Any]
    failure: Failure | None = None
    setbacks: tuple[Setback, ...] = ()
    seconds_alone: float | None = None
    descended: Descended | None = None

"""A Keras model as the model of a table: ``steepest fit DATA --target C --model package.module:build``.

``build(columns)`` gets the column plan (``columns.width`` features, ``columns.feature_names``) and returns a
Keras model of ``[rows, columns.width]``. It says what Keras models usually say: a probability, a probability
for each class, or a number (in standard deviations from the mean of the training rows); logits, where its
loss is compiled ``from_logits``. A model that is not compiled gets the task's loss and the settings'
optimizer.

``build(columns, sparse)`` gets the sparse columns, too: a dictionary of `steepest.keras.sparse.KerasColumn`
by name, whose inputs the model may have besides that of the dense features, which is named ``"features"``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from steepest.callbacks import Callback, notifier
from steepest.data.columns import Plan
from steepest.descent.failure import Failure
from steepest.descent.loop import StopDescent
from steepest.descent.step import PATIENCE
from steepest.descent.stopping import Best, Patience, unchanged
from steepest.diagnosis.examination import Descended
from steepest.diagnosis.rates import RateSearch
from steepest.errors import SteepestError, nearest
from steepest.keras.building import build, compile_for, rule_of
from steepest.keras.examining import descended_of, failure_of, why_unmeasured
from steepest.keras.failures import NotFiniteError
from steepest.keras.fitting import fit, fit_over, steps_taken
from steepest.keras.hooks import Watches
from steepest.keras.program import State, state_of
from steepest.keras.resume import REMEMBERED
from steepest.keras.rows import Rows, rows_over
from steepest.keras.rules import rates_of
from steepest.keras.searching import find_learning_rate, search_over
from steepest.keras.sparse import arranged, leaves_of
from steepest.keras.stored import arrays_of, form_of, gist, model_from_json, nested
from steepest.keras.together import fit_together, require_alike, rows_together
from steepest.memory import memory_budget
from steepest.prepared import Prepared
from steepest.prepared import Rows as Held
from steepest.settings import Settings
from steepest.trained import Trained

NOT_FOR_KERAS = ("hidden", "activation", "dropout", "embedding", "l1", "l2", "curvature")
FOR_COMPILING = ("loss", "optimizer", "learning_rate", "clip_norm", "schedule")


def train(
    settings: Settings,
    prepared: Prepared,
    epochs: int,
    callbacks: Sequence[Callback],
    checkpoint: Path,
    start: Any = None,
) -> Trained:
    """Train the Keras model that the settings name; see `steepest.networks.train`.

    It is saved after each epoch.

    Raises
    ------
    SteepestError
        If it can't be built or does not fit the table, or if settings are of no use to it.
    """
    model, size = _model(settings, prepared, epochs, start)
    task, rows = prepared.task, prepared.descended.training
    form = form_of(model, settings.model)
    rule = None if settings.patience is None else Patience(settings.patience, settings.monitor)
    stopping = early_stopping(rule)
    notes = _Notes(len(rows.target), epochs, settings.tolerance, rule, callbacks)
    notes.notify("settings", settings=rule_of(model, settings, epochs * -(-len(rows.target) // size)))
    backup = keras.callbacks.BackupAndRestore(
        str(checkpoint), double_checkpoint=True, delete_checkpoint=False
    )
    began = time.perf_counter()
    before = jax.tree.map(np.array, state_of(model))
    failure = None
    try:
        history = _fit(model, prepared, size, epochs, [notes, backup, *stopping], settings)
    except NotFiniteError as error:
        if task.loss == "poisson":
            hint = "A count needs an output above zero: activation='softplus' in the last layer."
            raise SteepestError(error.what, hint=hint) from error
        if error.blame is None:
            raise
        history, failure = error.steps, failure_of(model, error)
    seconds = time.perf_counter() - began
    arrays = arrays_of(model)
    history = history.assign(learning_rate=rates_of(model.optimizer, len(history)))
    rows_of_epochs = pd.DataFrame(notes.epochs or {"epoch": [], "rows": [], "loss": []})
    why = notes.why or _why(len(notes.epochs), rule, stopping)
    trained = Trained(
        model=model_from_json(form, task, prepared.plan),
        parameters=nested(arrays),
        form={"keras": form},
        arrays=arrays,
        history=history,
        epochs=rows_of_epochs,
        steps=len(history),
        seconds=seconds,
        why_it_stopped=failure.describe(by_epoch=True) if failure else why,
        converged=notes.converged,
        layers={"layers": [type(layer).__name__ for layer in model.layers], "hidden": []},
        rule=rule_of(model, settings, len(history)),
        failure=failure,
        descended=None
        if prepared.plan.layout.sparse
        else _descended(model, before, history, rows_of_epochs, size, len(rows.target), failure),
    )
    notes.begin()
    notes.notify("descent_end", result=trained)
    return trained


def search_rate(settings: Settings, prepared: Prepared, epochs: int, start: Any = None) -> RateSearch:
    """Find the learning rate for a fit of a model that its builder does not compile; see `train`."""
    model, size = _model(settings, prepared, epochs, start)
    if prepared.together:
        training = prepared.together.training
        rows = rows_together(model, training, batch_size=size, shuffle=True, seed=settings.seed)
        return search_over(model, rows, epochs, settings.seed)
    if prepared.plan.layout.sparse:
        rows = _rows(model, prepared.plan, prepared.training, size, shuffle=True, seed=settings.seed)
        return search_over(model, rows, epochs, settings.seed)
    features, target, weights = _arrays(prepared.training, memory_budget(settings.memory) // 4)
    return find_learning_rate(
        *(model, features, target),
        batch_size=size,
        epochs=epochs,
        sample_weight=weights,
        seed=settings.seed,
    )


def takes_rate(settings: Settings, prepared: Prepared) -> bool:
    """Tell whether the learning rate is the settings' to decide: whether the builder leaves it open."""
    return not build(settings.model, prepared.plan, prepared.task).compiled


def _model(settings: Settings, prepared: Prepared, epochs: int, start: Any) -> tuple[keras.Model, int]:
    """Return the model where its descent starts, compiled, and the rows of a batch."""
    _refuse(settings, NOT_FOR_KERAS, "is of no use to a Keras model", "Put it into the model that you build.")
    _refuse(
        settings,
        ("on_divergence",),
        "back-off is not for Keras models, whose optimizer is Keras' own",
        "Leave it out: --learning-rate auto finds a rate that holds, and --clip-norm 1 bounds the steps.",
    )
    _refuse(
        settings, ("local_steps",), "is not for Keras models: all workers take each step", "Leave it out."
    )
    keras.utils.set_random_seed(settings.seed)
    model = build(settings.model, prepared.plan, prepared.task)
    rows = len(prepared.descended.training.target)
    size = rows if settings.batch_size == "all" else int(settings.batch_size)
    if model.compiled:
        _refuse(
            settings, FOR_COMPILING, f"is of no use: {settings.model} compiles its model", "Leave it out."
        )
    else:
        compile_for(model, settings, prepared.task, -(-rows // size) * epochs)
    if start is not None:
        _start_from(model, start, settings)
    return model, size


def _descended(
    model: keras.Model,
    before: State,
    steps: pd.DataFrame,
    epochs: pd.DataFrame,
    size: int,
    rows: int,
    failure: Failure | None,
) -> Descended | None:
    """Return what an examination needs to know; ``None`` for a model whose loss of a row is not known."""
    if why_unmeasured(model):
        return None
    return descended_of(model, before, steps, epochs, size, rows, failure.to_json() if failure else None)


def _refuse(settings: Settings, names: tuple[str, ...], why: str, hint: str) -> None:
    for name in names:
        if getattr(settings, name) != getattr(Settings(), name):
            raise SteepestError(f"--{name.replace('_', '-')} {why}.", hint=hint)


class _Notes(keras.callbacks.Callback, Watches):  # type: ignore[misc]
    """Writes the epochs down, tells Steepest's callbacks, and sees when the loss has converged."""

    def __init__(
        self, rows: int, epochs: int, tolerance: float, rule: Patience | None, callbacks: Sequence[Callback]
    ) -> None:
        super().__init__()
        self.rows, self.tolerance, self.rule, self.notify = rows, tolerance, rule, notifier(callbacks)
        self.most, self.step, self.begun = epochs, 0, False
        self.epochs: list[dict[str, float]] = []
        self.watched = (math.inf, 0)
        self.converged = False
        self.why = ""

    def begin(self) -> None:
        """Tell once that the descent begins; what a backup remembers is known by then."""
        if self.begun:
            return
        self.begun = True
        if self.epochs:
            self.notify("resume", epochs=self.epochs, step=int(self.epochs[-1]["step"]), setbacks=0)
        self.notify("descent_begin", epochs=self.most, rows=self.rows)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.begin()
        self.began = time.perf_counter()

    def on_steps(self, first: int, losses: npt.NDArray[Any]) -> None:
        self.step = first + len(losses) - 1
        self.notify("steps_taken", first=first, figures={"loss": losses})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = time.perf_counter() - self.began
        logs = dict(logs or {})
        figures = {
            "epoch": epoch + 1,
            "step": self.step,
            "rows": self.rows,
            "loss": logs.pop("loss"),
            "learning_rate": float(np.asarray(self.model.optimizer.learning_rate)),
            **{_in_full(name): float(value) for name, value in logs.items()},
            "seconds": seconds,
            "rows_per_second": self.rows / seconds,
        }
        if self.rule and self.rule.monitor not in figures:
            known = [name for name in figures if name == "loss" or name.startswith("validation_")]
            raise SteepestError(
                f"No epoch has a figure {self.rule.monitor!r} to monitor.",
                hint=nearest(self.rule.monitor, known),
            )
        self.epochs.append(figures)
        self.watched = unchanged(self.watched, figures["loss"], self.tolerance)
        try:
            self.notify("epoch_end", figures=figures)
        except StopDescent as reason:
            self._stop(str(reason) or "a callback stopped it")
        if self.watched[1] >= PATIENCE:
            self.converged = True
            self._stop(
                f"converged at epoch {epoch + 1:,}: the loss changed by at most {self.tolerance:g} of itself "
                f"in {PATIENCE} epochs running"
            )

    def _stop(self, why: str) -> None:
        self.why = why
        self.model.stop_training = True


REMEMBERED[_Notes] = ("epochs", "watched", "why", "converged")


def _start_from(model: keras.Model, start: Any, settings: Settings) -> None:
    """Give the model the variables of another run."""
    groups = {"trainable": model.trainable_variables, "other": model.non_trainable_variables}
    for group, variables in groups.items():
        values = start.get(group, {})
        if [tuple(np.shape(values.get(str(index)))) for index in range(len(values))] != [
            tuple(variable.shape) for variable in variables
        ]:
            raise SteepestError(
                f"The run {settings.from_} has another model: its layers are of other sizes.",
                hint="Leave --model as it was there.",
            )
        for index, variable in enumerate(variables):
            variable.assign(values[str(index)])


def early_stopping(rule: Patience | None) -> list[keras.callbacks.EarlyStopping]:
    """Return what ends a descent by the rule of patience, if there is one, with the best epoch's weights."""
    if rule is None:
        return []
    monitor = rule.monitor.replace("validation_", "val_", 1)
    mode = "max" if rule.rises else "min"
    return [
        keras.callbacks.EarlyStopping(monitor, patience=rule.epochs, mode=mode, restore_best_weights=True)
    ]


def _why(epochs: int, rule: Patience | None, stopping: list[keras.callbacks.EarlyStopping]) -> str:
    """Say why a descent that nobody stopped was over after so many epochs."""
    last = f"the last epoch ({epochs:,}) was reached"
    if rule is None:
        return last
    (watcher,) = stopping
    best = Best(float(watcher.best), watcher.best_epoch + 1)
    if watcher.stopped_epoch:
        return rule.describe(best, epochs)
    return last if best.epoch == epochs else f"{last}; {rule.describe_best(best)}"


def _arrays(rows: Held, most: int) -> tuple[Any, Any, Any]:
    """Return features, targets and weights as Keras takes them; features of many bytes in a mapped file."""
    weights = None if rows.weights is None else rows.weights[:]
    return rows.features.dense(most), rows.target[:], weights


def _rows(model: keras.Model, plan: Plan, rows: Held, batch_size: int, **order: Any) -> Rows:
    """Return rows with sparse features as the model takes them, gathered a window at a time."""
    x = arranged(model, leaves_of(plan, rows.features))
    weights = None if rows.weights is None else rows.weights[:]
    return rows_over((x, rows.target[:], weights), batch_size=batch_size, **order, taken=steps_taken(model))


def _in_full(name: str) -> str:
    return f"validation_{name.removeprefix('val_')}" if name.startswith("val_") else name


def _fit(
    model: keras.Model,
    prepared: Prepared,
    size: int,
    epochs: int,
    callbacks: list[keras.callbacks.Callback],
    settings: Settings,
) -> pd.DataFrame:
    """Train; return every step's epoch, number and loss."""
    try:
        history = _fitted(model, prepared, callbacks, settings, batch_size=size, epochs=epochs)
    except ValueError as error:
        raise SteepestError(
            f"--model {settings.model}: Keras can't train it: {gist(error)}",
            hint="--debug shows where.",
        ) from error
    steps: pd.DataFrame = history.steps
    return steps


def _fitted(
    model: keras.Model,
    prepared: Prepared,
    callbacks: list[keras.callbacks.Callback],
    settings: Settings,
    **asked: Any,
) -> keras.callbacks.History:
    """Train on the rows of this process, or together with all others."""
    asked |= {"seed": settings.seed}
    if prepared.together:
        group, training, validation = prepared.together
        require_alike(group, model)
        return fit_together(model, group, training, validation, callbacks=callbacks, **asked)
    if prepared.plan.layout.sparse:
        size, epochs = asked["batch_size"], asked["epochs"]
        rows = _rows(model, prepared.plan, prepared.training, size, shuffle=True, seed=settings.seed)
        held = prepared.validation and _rows(model, prepared.plan, prepared.validation, size)
        return fit_over(model, rows, held, callbacks, epochs)
    most = memory_budget(settings.memory) // 4
    features, target, weights = _arrays(prepared.training, most)
    held_out = _arrays(prepared.validation, most) if prepared.validation else ()
    return fit(
        *(model, features, target),
        verbose=0,
        callbacks=callbacks,
        validation_data=tuple(part for part in held_out if part is not None) or None,
        sample_weight=weights,
        **asked,
    )

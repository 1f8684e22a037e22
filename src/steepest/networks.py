"""Steepest's own models on a table: linear and multilayer, trained by `steepest.minimize`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from steepest import tasks
from steepest.callbacks import Callback
from steepest.descent.models import Model
from steepest.descent.optimizers import Optimizer, optimizer_by_name
from steepest.descent.schedules import schedule_by_name
from steepest.errors import SteepestError
from steepest.minimization import Result, minimize
from steepest.preparation import Prepared
from steepest.run import Shape
from steepest.settings import Settings
from steepest.trained import Trained


def train(
    settings: Settings,
    prepared: Prepared,
    epochs: int,
    callbacks: Sequence[Callback],
    checkpoint: Path,
    start: Any = None,
) -> Trained:
    """Train a linear or a multilayer model.

    Parameters
    ----------
    settings, prepared, epochs, callbacks
        What to do, with what, how long at most, and who is told.
    checkpoint
        The folder to save to and go on from.
    start
        Parameters to start from; ``None`` draws them.

    Raises
    ------
    SteepestError
        If the parameters to start from are those of another model.
    """
    hidden = settings.hidden if settings.model == "mlp" else ()
    task = prepared.task
    shape = Shape(prepared.plan.width, hidden, task.outputs, settings.activation, settings.dropout)
    model = shape.build(tasks.output_bias(task))
    optimizer = _optimizer(settings, len(prepared.training.target), epochs)
    drawn = jax.jit(model.init)(jax.random.key(settings.seed))
    if start is None:
        start = drawn
    elif jax.tree.map(np.shape, start) != jax.tree.map(np.shape, drawn):
        raise SteepestError(
            f"The run {settings.from_} has another model: its layers are of other sizes.",
            hint="Leave --model and --hidden as they were there.",
        )
    result = _descend(settings, prepared, model, optimizer, epochs, callbacks, checkpoint, start)
    arrays = {
        f"{layer}.{name}": np.asarray(values)
        for layer, parts in result.parameters.items()
        for name, values in parts.items()
    }
    return Trained(
        model=model,
        parameters=result.parameters,
        form={"shape": asdict(shape)},
        arrays=arrays,
        history=result.history,
        epochs=result.epochs,
        steps=result.steps,
        seconds=result.seconds,
        why_it_stopped=result.why_it_stopped,
        converged=result.converged,
        layers={"hidden": list(hidden), "activation": shape.activation},
        rule={
            "loss": task.loss,
            "optimizer": optimizer.name,
            "learning_rate": optimizer.schedule.settings["learning_rate"],
            "schedule": optimizer.schedule.name,
        },
        failure=result.failure,
        setbacks=result.setbacks,
    )


def _optimizer(settings: Settings, rows: int, epochs: int) -> Optimizer:
    """Return the update rule with its schedule."""
    make = optimizer_by_name(settings.optimizer)
    steps = 1 if settings.batch_size == "all" else -(-rows // int(settings.batch_size))
    rate = settings.learning_rate or float(make().schedule.settings["learning_rate"])
    schedule = schedule_by_name(settings.schedule, rate, steps * epochs)
    return make(schedule, clip_norm=settings.clip_norm)


def _descend(
    settings: Settings,
    prepared: Prepared,
    model: Model,
    optimizer: Optimizer,
    epochs: int,
    callbacks: Sequence[Callback],
    checkpoint: Path,
    start: Any,
) -> Result:
    """Minimise the task's loss over the training rows."""
    task, loss = prepared.task, tasks.loss_of(prepared.task)

    def objective(parameters: Any, batch: Any, key: jax.Array | None = None) -> jax.Array:
        return loss.per_row(model.apply(parameters, batch["features"], key), batch["target"])

    def measure(parameters: Any, batch: Any) -> jax.Array:
        return tasks.metric(task, model.apply(parameters, batch["features"]), batch["target"])

    penalised = jax.tree.map(lambda leaf: float(leaf.ndim > 1), start)  # weights, not biases
    validation = prepared.validation
    return minimize(
        objective,
        start,
        prepared.training.data,
        optimizer=optimizer,
        batch_size=settings.batch_size,
        epochs=epochs,
        tolerance=settings.tolerance,
        seed=settings.seed,
        weights=prepared.training.weights,
        l1=jax.tree.map(lambda counted: settings.l1 * counted, penalised),
        l2=jax.tree.map(lambda counted: settings.l2 * counted, penalised),
        validation_data=validation.data if validation else None,
        validation_weights=validation.weights if validation else None,
        metrics={tasks.METRICS[task.kind]: measure} if validation else None,
        callbacks=callbacks,
        patience=settings.patience,
        monitor=settings.monitor,
        on_divergence=settings.on_divergence,
        checkpoint=checkpoint,
        checkpoint_every=settings.checkpoint_every,
    )

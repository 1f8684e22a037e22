"""Steepest's own models on a table: linear and multilayer, trained by `steepest.minimize`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from steepest import tasks
from steepest.callbacks import Callback
from steepest.data.layout import Layout
from steepest.data.packed import Inputs
from steepest.descent.models import Model
from steepest.descent.optimizers import LINE_SEARCH, AdaGrad, Optimizer, default_rate, optimizer_by_name
from steepest.descent.schedules import schedule_by_name
from steepest.diagnosis.examination import table_objective
from steepest.diagnosis.learning_rate import find_learning_rate
from steepest.diagnosis.measures import layers
from steepest.diagnosis.rates import RateSearch
from steepest.errors import SteepestError
from steepest.minimization import minimize
from steepest.prepared import Prepared, Rows, SharedRows
from steepest.result import Result
from steepest.run import Shape
from steepest.settings import AUTO, Settings
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
    asked = problem(settings, prepared, epochs, start)
    result = descend(
        asked,
        validation=prepared.descended.validation,
        callbacks=callbacks,
        patience=settings.patience,
        monitor=settings.monitor,
        curvature=settings.curvature,
        on_divergence=settings.on_divergence,
        checkpoint=checkpoint,
        checkpoint_every=settings.checkpoint_every,
    )
    optimizer = asked.descent["optimizer"]
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(values)
        for path, values in jax.tree_util.tree_leaves_with_path(result.parameters)
    }
    return Trained(
        model=asked.model,
        parameters=result.parameters,
        form={"shape": asdict(asked.shape)},
        arrays=arrays,
        history=result.history,
        epochs=result.epochs,
        steps=result.steps,
        seconds=result.seconds,
        why_it_stopped=result.why_it_stopped,
        converged=result.converged,
        layers={"hidden": list(asked.shape.hidden), "activation": asked.shape.activation},
        rule={
            "loss": prepared.task.loss,
            "optimizer": optimizer.name,
            "learning_rate": optimizer.schedule.settings["learning_rate"],
            "schedule": optimizer.schedule.name,
        },
        failure=result.failure,
        setbacks=result.setbacks,
        seconds_alone=result.seconds_alone,
        descended=None
        if prepared.plan.layout.sparse
        else replace(
            result.descended(),
            objective=table_objective(asked.model, prepared.task, settings.l2),
            layers=lambda parameters, gradient, batch: layers(
                parameters, gradient, batch["features"], asked.shape.activation
            ),
        ),
    )


@dataclass(frozen=True)
class Problem:
    """What a descent over a table minimises, and how.

    Parameters
    ----------
    shape, model
        The model.
    objective, start, data
        The first arguments of `steepest.minimize`.
    descent
        Those of its other arguments that decide where a descent leads.
    metric
        What else is measured on held-out rows, by name.
    """

    shape: Shape
    model: Model
    objective: Callable[..., jax.Array]
    start: Any
    data: Any
    descent: dict[str, Any]
    metric: dict[str, Callable[..., jax.Array]]


def problem(settings: Settings, prepared: Prepared, epochs: int, start: Any = None) -> Problem:
    """Return what a fit minimises; see `train`."""
    hidden = settings.hidden if settings.model == "mlp" else ()
    task, loss, rows = prepared.task, tasks.loss_of(prepared.task), prepared.descended.training
    shape = shape_of(settings, prepared.plan.layout, hidden, task.outputs)
    model = shape.build(tasks.output_bias(task))
    drawn = _drawn(shape, tuple(np.atleast_1d(tasks.output_bias(task)).tolist()), settings.seed)
    if start is None:
        start = drawn
    elif jax.tree.map(np.shape, start) != jax.tree.map(np.shape, drawn):
        raise SteepestError(
            f"The run {settings.from_} has another model: its layers are of other sizes.",
            hint="Leave --model and --hidden as they were there.",
        )

    def objective(parameters: Any, batch: Any, key: jax.Array | None = None) -> jax.Array:
        return loss.per_row(model.apply(parameters, inputs_of(batch), key), batch["target"])

    def measure(parameters: Any, batch: Any) -> jax.Array:
        return tasks.metric(task, model.apply(parameters, inputs_of(batch)), batch["target"])

    penalised = jax.tree.map(lambda leaf: float(leaf.ndim > 1), start)  # weights, not biases
    descent = {
        "optimizer": optimizer_of(settings, len(rows.target), epochs, prepared.plan.layout.sparse > 0),
        "batch_size": settings.batch_size,
        "epochs": epochs,
        "tolerance": settings.tolerance,
        "seed": settings.seed,
        "weights": rows.weights,
        "lookups": lookups_in(settings, rows.data),
        "l1": jax.tree.map(lambda counted: settings.l1 * counted, penalised),
        "l2": jax.tree.map(lambda counted: settings.l2 * counted, penalised),
    }
    metric = {tasks.METRICS[task.kind]: measure}
    return Problem(shape, model, objective, start, rows.data, descent, metric)


def shape_of(settings: Settings, layout: Layout, hidden: tuple[int, ...], outputs: int) -> Shape:
    """Return the shape of the model that the settings ask for, on rows of this layout."""
    shape = Shape(layout.width, hidden, outputs, settings.activation, settings.dropout)
    if not layout.sparse:
        return shape
    columns, embedding = layout.categories + layout.lists, settings.embedding if hidden else 0
    return replace(shape, features=layout.sparse, columns=columns, embedding=embedding)


def lookups_in(settings: Settings, data: dict[str, Any]) -> dict[str, str] | None:
    """Return which data are places in the model's table; a line search moves the table as a whole."""
    if settings.optimizer == LINE_SEARCH:
        return None
    return {name: "table" for name in ("places", "lists") if name in data} or None


def inputs_of(batch: Any) -> Any:
    """Return what the model sees of a batch."""
    if "places" not in batch:
        return batch["features"]
    return Inputs(batch["features"], batch["places"], batch.get("lists"))


NOTHING = 1e-14
"""Where AdaGrad's sums begin with sparse features, of which most have been seen in few rows: sums of their
squared gradients stay far below the usual 0.1, which would make plain descent of it."""


@lru_cache(maxsize=1)
def _drawn(shape: Shape, output_bias: tuple[float, ...], seed: int) -> Any:
    """Draw a model's parameters; those that the rate was sought with are those of the descent."""
    return jax.jit(shape.build(output_bias).init)(jax.random.key(seed))


def descend(asked: Problem, *, validation: Rows | SharedRows | None, **more: Any) -> Result:
    """Minimise by `steepest.minimize`, which takes ``more`` as well."""
    return minimize(
        asked.objective,
        asked.start,
        asked.data,
        **asked.descent,
        validation_data=validation.data if validation else None,
        validation_weights=validation.weights if validation else None,
        metrics=asked.metric if validation else None,
        **more,
    )


def search_rate(settings: Settings, prepared: Prepared, epochs: int, start: Any = None) -> RateSearch:
    """Find the learning rate for a fit; see `train`."""
    asked = problem(settings, prepared, epochs, start)
    return find_learning_rate(asked.objective, asked.start, asked.data, **asked.descent)


def optimizer_of(settings: Settings, rows: int, epochs: int, sparse: bool) -> Optimizer:
    """Return the update rule with its schedule; where the rate is to be found, of the rule's own rate."""
    make = optimizer_by_name(settings.optimizer)
    if sparse and settings.optimizer == "adagrad":
        make = partial(AdaGrad, initial_accumulator=NOTHING, epsilon=NOTHING)
    steps = 1 if settings.batch_size == "all" else -(-rows // int(settings.batch_size))
    rate = settings.learning_rate
    rate = default_rate(settings.optimizer) if rate == AUTO else float(rate)
    return make(schedule_by_name(settings.schedule, rate, steps * epochs), clip_norm=settings.clip_norm)

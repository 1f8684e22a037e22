"""From a descent that has ended to the evidence that findings are made of.

`examine_descent` takes any objective; `examine` a model of a table, and looks at the table as well. Both give
parts of the dict that `steepest.diagnosis.findings` describes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.flatten_util import ravel_pytree

from steepest.data.order import generator
from steepest.descent.optimizers import Optimizer
from steepest.diagnosis import tables
from steepest.diagnosis.course import course
from steepest.diagnosis.curvature import Curvature, largest_curvature
from steepest.diagnosis.measures import (
    ADAPTIVE,
    Objective,
    against_limit,
    ahead,
    gradient_noise,
    number,
    scale_of,
    slope,
)

if TYPE_CHECKING:
    import pandas as pd

    from steepest.descent.models import Model
    from steepest.prepared import Rows
    from steepest.tasks import Task

Array = npt.NDArray[Any]

MEASURED, LEARNED = 2**12, 10_000
"""Rows of a sample to measure a descent on, and of one that trees learn from, at most ..."""

MOST_BYTES = 2**26
"""... and bytes of their features."""

EXAMINING = 0x3E7A
"""The purpose of the stream that draws the samples, and of the key that draws Lanczos' first vector."""

NAMED = 10
"""Columns whose skill is kept as evidence, the best first."""

MEANS = ("mean_squared_error", "poisson", "binary_cross_entropy", "categorical_cross_entropy")
"""Losses whose prediction is the target's mean, so that skill measures it."""


@dataclass(frozen=True)
class Descended:
    """A descent that has ended.

    Parameters
    ----------
    objective
        ``(parameters, batch) -> losses [rows]``.
    start, end
        Parameters before the first and after the last good step.
    rule, optimizer_state
        The update rule, and its state at the end.
    steps, epochs
        The history: see `steepest.Result`.
    batch_size, rows
        Rows of a step (``None``: all), and of the training data.
    failure
        Of a step that was not finite: ``step``, ``epoch``, ``learning_rate``, ``rows``, ``layer``.
    layers
        ``(parameters, gradient, batch) -> layers``, the gradient being flat: what is seen of each layer, as
        `steepest.diagnosis.measures.layers` gives it. ``None`` where there are no layers.
    """

    objective: Objective
    start: Any
    end: Any
    rule: Optimizer
    optimizer_state: Any
    steps: pd.DataFrame
    epochs: pd.DataFrame
    batch_size: int | None
    rows: int
    failure: Mapping[str, Any] | None = None
    layers: Callable[[Any, Array, Any], list[dict[str, Any]]] | None = None


class Point(NamedTuple):
    """What `examine_point` finds.

    Attributes
    ----------
    measured
        Plain JSON types: see ``start`` and ``end`` in `steepest.diagnosis.findings`.
    gradient, scale
        Of the sample, and what the rule multiplies it by; flat vectors.
    curvature
        Of the sample's loss in that scale.
    """

    measured: dict[str, Any]
    gradient: Array
    scale: jax.Array
    curvature: Curvature


def examine_point(
    objective: Objective,
    parameters: Any,
    rule: Optimizer,
    batch: Any,
    held_out: Any,
    *,
    rate: float,
    seed: int,
    optimizer_state: Any = None,
    steps: int = 0,
) -> Point:
    """Measure one point of a descent; a second point of the same objective compiles nothing.

    Parameters
    ----------
    objective, parameters, rule
        See `Descended`.
    batch, held_out
        Samples of the training rows and of others, as the objective takes them.
    rate
        The learning rate to hold against the curvature.
    seed
        Draws Lanczos' first vector.
    optimizer_state, steps
        The rule's state there and the steps before; a rule that scales by its state has no curvature to be
        held against a limit before its first step.
    """
    scaled = scale_of(rule, optimizer_state, steps)
    flat = ravel_pytree(parameters)[0]
    scale = jnp.ones_like(flat) if scaled is None else ravel_pytree(scaled)[0]
    key = jax.random.fold_in(jax.random.key(seed), EXAMINING)
    found = slope(objective, parameters, batch, scale)
    curvature = largest_curvature(_mean(objective), parameters, batch, scale, key=key)
    measured = {
        "loss": number(found.loss),
        "held_out_loss": number(slope(objective, parameters, held_out, scale).loss),
        **gradient_noise(found, scale),
    }
    if scaled is not None or rule.name not in ADAPTIVE:
        measured |= against_limit(curvature, rule, rate)
    return Point(measured, found.gradient, scale, curvature)


@lru_cache(maxsize=8)
def _mean(objective: Objective) -> Callable[..., jax.Array]:
    """Return the objective's mean, the same function each time, so that it compiles once."""

    def mean_loss(parameters: Any, batch: Any) -> jax.Array:
        return jnp.mean(objective(parameters, batch))

    return mean_loss


def examine_descent(descended: Descended, batch: Any, held_out: Any = None, seed: int = 0) -> dict[str, Any]:
    """Return what a descent shows: ``course``, ``rule``, ``start``, ``end`` and ``failure``.

    Parameters
    ----------
    descended
        The descent.
    batch, held_out
        Samples of the training rows and of others, as the objective takes them; without the second the
        first serves.
    seed
        Draws Lanczos' first vector.
    """
    rule, objective = descended.rule, descended.objective
    went = course(descended.steps, descended.epochs)
    others = batch if held_out is None else held_out
    measure = partial(examine_point, objective, rule=rule, batch=batch, held_out=others, seed=seed)
    start = measure(descended.start, rate=went["rate_first"])
    end = measure(
        descended.end,
        rate=went["rate_last"],
        optimizer_state=descended.optimizer_state,
        steps=len(descended.steps),
    )
    if descended.layers:
        for point, parameters in ((start, descended.start), (end, descended.end)):
            point.measured["layers"] = descended.layers(parameters, point.gradient, batch)
    if not descended.failure:
        end.measured["ahead"] = ahead(objective, descended.end, batch, others, end.scale, end.curvature.value)
    return {
        "course": went,
        "rule": {
            "name": rule.name,
            "momentum": float(rule.settings.get("momentum", rule.settings.get("beta_1", 0.0))),
            "batch_size": descended.batch_size,
            "rows": descended.rows,
        },
        "start": start.measured,
        "end": end.measured,
        "failure": descended.failure and dict(descended.failure),
    }


def examine(
    descended: Descended,
    model: Model,
    task: Task,
    groups: Mapping[str, slice],
    training: Rows,
    validation: Rows | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return all the evidence of a descent over a table.

    Parameters
    ----------
    descended
        The descent; its objective takes batches of ``features``, ``target`` and ``weights`` (of mean 1): see
        `table_objective`.
    model, task
        What was trained, and for what.
    groups
        Name of a column -> the place of its features: `steepest.data.columns.Plan.groups`.
    training, validation
        The rows.
    settings
        The settings of the run; ``seed`` is read here, rules may read others.
    """
    seed = int(settings["seed"])
    sample = _sample(training, MEASURED, seed)
    held = _sample(validation, MEASURED, seed) if validation else None
    evidence = examine_descent(descended, sample, held, seed)
    evidence["settings"] = dict(settings)
    evidence["target"] = target_of(task.kind, sample["target"])
    evidence["inputs"] = tables.conditioning(sample["features"], groups)
    if held is not None and task.loss in MEANS and not descended.failure:
        evidence |= _judged(model, task, descended.end, groups, training, sample, held, seed)
    return evidence


def table_objective(model: Model, task: Task, l2: float = 0.0) -> Objective:
    """Return the loss of each row of a table, with the penalty ``Σ l2·θ²`` on weights added."""
    from steepest.tasks import loss_of

    loss = loss_of(task)

    def objective(parameters: Any, batch: Any) -> jax.Array:
        outputs = model.apply(parameters, batch["features"])
        values: jax.Array = loss.per_row(outputs, batch["target"]) * batch["weights"]
        squares = [jnp.sum(leaf**2) for leaf in jax.tree.leaves(parameters) if leaf.ndim > 1]
        return values + l2 * sum(squares) if l2 else values

    return objective


def _sample(rows: Rows, most: int, seed: int) -> dict[str, Array]:
    """Return at most so many rows, drawn with the seed, with weights of mean 1."""
    count, width = rows.features.shape
    most = min(most, max(1, MOST_BYTES // (4 * max(1, width))))
    chosen = np.arange(count)
    if count > most:
        chosen = np.sort(generator(seed, EXAMINING).choice(count, most, replace=False))
    features, target = rows.features[chosen], np.asarray(rows.target[chosen])
    weights = np.ones(len(chosen), np.float32)
    if rows.weights is not None:
        weights = np.asarray(rows.weights[chosen])
        weights = weights / max(float(weights.mean()), 1e-30)
    return {"features": features, "target": target, "weights": weights}


def target_of(kind: str, target: Array) -> dict[str, Any]:
    """Return what is seen of the target of a sample, as the loss sees it."""
    values = target.astype(np.float64)
    squares = (values - values.mean()) ** 2
    total = float(squares.sum())
    return {
        "kind": kind,
        "mean": float(values.mean()),
        "deviation": float(values.std()),
        "extreme": float(squares.max() / total) if total > 0 else None,
    }


def _judged(
    model: Model,
    task: Task,
    parameters: Any,
    groups: Mapping[str, slice],
    training: Rows,
    sample: Mapping[str, Array],
    held: Mapping[str, Array],
    seed: int,
) -> dict[str, Any]:
    """Return how well model, trees and single columns predict held-out rows, and which classes are."""
    more = _sample(training, LEARNED, seed)
    target, held_target, seen = (_matrix(task, each["target"]) for each in (more, held, sample))
    mean = target.mean(axis=0)
    predicted = _predicted(model, task, parameters, held["features"])
    alone = tables.column_skills(more["features"], target, held["features"], held_target, groups)
    best = sorted(alone, key=lambda name: -alone[name])[:NAMED]
    trees = tables.signal(more["features"], target, held["features"], held_target, groups, alone, seed)
    found: dict[str, Any] = {
        "columns": {name: alone[name] for name in best},
        "skill": {
            "training": tables.skill(_predicted(model, task, parameters, sample["features"]), seen, mean),
            "validation": tables.skill(predicted, held_target, mean),
            **trees,
        },
    }
    if task.labels:
        found["classes"] = {
            "labels": [str(label) for label in task.labels],
            "true": _counts(held_target, len(task.labels)),
            "predicted": _counts(predicted, len(task.labels)),
        }
    return found


def _matrix(task: Task, target: Array) -> npt.NDArray[np.float64]:
    if task.kind == "classes":
        return np.asarray(np.eye(len(task.labels))[target.astype(int)])
    return target.astype(np.float64)[:, None]


def _predicted(model: Model, task: Task, parameters: Any, features: Array) -> npt.NDArray[np.float64]:
    from steepest.tasks import loss_of

    outputs = np.asarray(loss_of(task).predict(model.apply(parameters, features)), np.float64)
    return outputs if outputs.ndim == 2 else outputs[:, None]


def _counts(values: Array, classes: int) -> list[int]:
    codes = values.argmax(axis=1) if values.shape[1] > 1 else (values[:, 0] > 0.5).astype(int)
    return [int(count) for count in np.bincount(codes, minlength=classes)]

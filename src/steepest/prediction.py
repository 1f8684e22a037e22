"""What a trained model predicts, how good that is, and which columns it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steepest import tasks
from steepest.data.columns import Plan
from steepest.data.source import read_table
from steepest.descent.models import Model
from steepest.evaluation import evaluate, permutation_importance
from steepest.preparation import labelled_rows
from steepest.run import Run
from steepest.tasks import Task
from steepest.trained import Trained

CHUNK = 2**16
"""Rows that are predicted at a time."""

LINEAR = {"layer_1.weights", "layer_1.bias"}
"""The parameters of Steepest's linear model."""

MOST_WEIGHTS = 30
"""Weights that the record keeps, the largest first."""

Floats = npt.NDArray[np.floating[Any]]


@partial(jax.jit, static_argnames="apply")
def _apply(apply: Callable[..., jax.Array], parameters: Any, features: jax.Array) -> jax.Array:
    return apply(parameters, features)


def outputs_of(model: Model, parameters: Any, features: npt.NDArray[np.float32]) -> Floats:
    """Return the model's outputs, ``[rows]`` or ``[rows, outputs]``."""
    parts = [
        np.asarray(_apply(model.apply, parameters, features[first : first + CHUNK]))
        for first in range(0, len(features), CHUNK)
    ]
    return np.concatenate(parts)


def figures_of(task: Task, outputs: Floats, target: npt.NDArray[Any]) -> dict[str, Any]:
    """Return the figures that fit the task; ``target`` is encoded as by `steepest.tasks.encode_target`."""
    baseline = task.baseline[-1] if task.kind == "binary" else task.baseline
    return evaluate(
        task.kind,
        tasks.true_values(task, target),
        tasks.predictions(task, outputs),
        baseline=baseline if task.kind in ("binary", "classes") else task.baseline[0],
        labels=[str(label) for label in task.labels],
    )


def importances(
    task: Task,
    trained: Trained,
    plan: Plan,
    features: npt.NDArray[np.float32],
    target: npt.NDArray[Any],
    seed: int,
) -> dict[str, Any]:
    """Return a linear model's largest weights, or what permuting each column costs another model."""
    if set(trained.arrays) == LINEAR and task.outputs == 1:
        return _largest_weights(np.asarray(trained.arrays["layer_1.weights"])[:, 0], plan)
    loss = tasks.loss_of(task)

    def mean_loss(rows: npt.NDArray[np.float32], chosen: npt.NDArray[np.int64]) -> float:
        return float(
            np.mean(
                loss.per_row(
                    jnp.asarray(outputs_of(trained.model, trained.parameters, rows)),
                    jnp.asarray(target[chosen]),
                )
            )
        )

    return {
        "how": "How much the loss grows when one column's values are shuffled among the rows",
        "kind": "permutation",
        "entries": permutation_importance(mean_loss, features, plan.groups, seed=seed),
    }


def _largest_weights(weights: Floats, plan: Plan) -> dict[str, Any]:
    order = np.argsort(-np.abs(weights), kind="stable")[:MOST_WEIGHTS]
    return {
        "how": "The largest weights: what one deviation, or belonging to a category, adds to the output",
        "kind": "weights",
        "entries": [{"name": plan.feature_names[index], "value": float(weights[index])} for index in order],
    }


def predict(run: Run, rows: pa.Table, locate: Callable[[int], str] | None = None) -> Floats:
    """Return a run's predictions for rows, in their order: see `steepest.tasks.predictions`."""
    features = run.plan.encode(rows, locate)
    return tasks.predictions(run.task, outputs_of(run.model, run.parameters, features))


def prediction_table(task: Task, predicted: Floats) -> pa.Table:
    """Return predictions as a table: ``prediction``, and for classes the probability of each.

    Examples
    --------
    >>> task = Task("y", "binary", "binary_cross_entropy", "", ("no", "yes"))
    >>> prediction_table(task, np.array([0.25, 0.75])).to_pydict()
    {'prediction': ['no', 'yes'], 'probability of yes': [0.25, 0.75]}
    """
    if not task.labels:
        return pa.table({"prediction": predicted})
    labels = np.asarray(task.labels, object)
    if task.kind == "binary":
        chosen = (predicted > 0.5).astype(int)
        probabilities = {f"probability of {task.labels[1]}": predicted}
    else:
        chosen = predicted.argmax(axis=1)
        probabilities = {
            f"probability of {label}": predicted[:, code] for code, label in enumerate(task.labels)
        }
    return pa.table({"prediction": pa.array(labels[chosen].tolist()), **probabilities})


def evaluate_run(run: Run, patterns: Sequence[str]) -> dict[str, Any]:
    """Return the figures of a run's model on labelled files, and which rows were left out.

    Raises
    ------
    SteepestError
        If the files can't be read, or have no such target.
    """
    table = read_table(patterns, columns=[run.task.target, *(column.name for column in run.plan.columns)])
    part, left_out = labelled_rows(table, run.task.target)
    target = tasks.encode_target(run.task, part.rows[run.task.target], part.locate)
    outputs = outputs_of(run.model, run.parameters, run.plan.encode(part.rows, part.locate))
    return figures_of(run.task, outputs, target) | {"left_out": left_out}

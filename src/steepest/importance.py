"""Which columns a model's predictions come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from steepest import tasks
from steepest.data.column import Column
from steepest.data.columns import Plan
from steepest.data.layout import DENSE, Run, layout_of
from steepest.data.order import Rows
from steepest.data.packed import PackedRows
from steepest.data.sparse import sparse_value
from steepest.evaluation import permutation_importance
from steepest.prediction import outputs_of
from steepest.tasks import Task
from steepest.trained import Trained

LINEAR = {"layer_1.weights", "layer_1.bias"}
"""The parameters of Steepest's linear model, but for the table of sparse features."""

MOST_WEIGHTS = 30
"""Weights that the record keeps, the largest first."""

MOST_WORDS, MOST_WORDS_OF_CLASS = 20, 10
"""Values of a column that the record names for and against each; and for each of several classes."""

Floats = npt.NDArray[np.floating[Any]]


def importances(
    task: Task,
    trained: Trained,
    plan: Plan,
    features: PackedRows,
    target: npt.NDArray[Any],
    seed: int,
) -> dict[str, Any]:
    """Return a linear model's largest weights, or what permuting each column costs another model."""
    if {*trained.arrays} - {"table"} == LINEAR and task.outputs == 1:
        return _largest_weights(trained.arrays, plan)
    per_row = tasks.loss_of(task).per_row

    def mean_loss(rows: Any, chosen: Rows) -> float:
        if isinstance(rows, _Sampled):
            outputs = jnp.asarray(outputs_of(trained.model, trained.parameters, rows.packed))
            return float(jnp.mean(per_row(outputs, jnp.asarray(target[chosen]))))
        return float(_mean_loss(trained.model.apply, per_row, trained.parameters, rows, target[chosen]))

    return {
        "how": "How much the loss grows when one column's values are shuffled among the rows",
        "kind": "permutation",
        "entries": permutation_importance(mean_loss, _Columns(features), groups_of(plan), seed=seed)
        if plan.layout.sparse
        else permutation_importance(mean_loss, features, plan.groups, seed=seed),
    }


@partial(jax.jit, static_argnames=("apply", "per_row"))
def _mean_loss(
    apply: Callable[..., jax.Array],
    per_row: Callable[..., jax.Array],
    parameters: Any,
    features: Any,
    target: jax.Array,
) -> jax.Array:
    return jnp.mean(per_row(apply(parameters, features), target))


@dataclass(frozen=True)
class Group:
    """Where a column's features are: some of the dense ones, a category, a list."""

    dense: slice
    category: int | None = None
    list: int | None = None


def groups_of(plan: Plan) -> dict[str, Group]:
    """Return where the features of each column are."""
    groups: dict[str, Group] = {}
    sources = iter(run.source for run in plan.layout.runs if run.source in ("category", "list"))
    counts = {"category": 0, "list": 0}
    for column in plan.columns:
        groups[column.name] = Group(plan.groups.get(column.name, slice(0, 0)))
        if column.name in plan.sparse_groups:
            source = next(sources)
            groups[column.name] = Group(groups[column.name].dense, **{source: counts[source]})
            counts[source] += 1
    return groups


@dataclass(frozen=True)
class _Columns:
    """Rows of which a sample is taken for `permutation_importance`."""

    features: PackedRows

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: Rows) -> _Sampled:
        some = self.features.subset(np.sort(rows))
        place = np.argsort(np.argsort(rows, kind="stable"), kind="stable")
        sparse = (run for run in some.layout.runs if run.source not in DENSE)
        layout = layout_of([Run("numbers", some.layout.width), *sparse])
        nothing = layout.empty(len(rows))
        packed = nothing._replace(numbers=some[place], places=some.packed.places[place])
        return _Sampled(PackedRows(layout, packed, some.lists and some.lists.subset(place)))


@dataclass(frozen=True)
class _Sampled:
    """Rows in memory, whose dense features are all numbers, so that columns can be shuffled."""

    packed: PackedRows

    def shuffled(self, group: Group, order: Rows) -> _Sampled:
        """Return the same with a column's values in another order."""
        lists, kept = self.packed.lists, self.packed.packed
        dense, places = kept.numbers.copy(), kept.places.copy()
        dense[:, group.dense] = dense[order, group.dense]
        if group.category is not None:
            places[:, group.category] = places[order, group.category]
        if group.list is not None and lists is not None:
            lists = lists.shuffled(group.list, order)
        return _Sampled(PackedRows(self.packed.layout, kept._replace(numbers=dense, places=places), lists))


def _largest_weights(arrays: dict[str, Floats], plan: Plan) -> dict[str, Any]:
    """Return the largest weights; of sparse features those that stand for and against."""
    dense = np.asarray(arrays["layer_1.weights"])[:, 0]
    sparse = np.asarray(arrays["table"])[:, 0] if "table" in arrays else dense[:0]
    weights = np.concatenate([dense, sparse])
    most = min(MOST_WEIGHTS, len(weights))
    order = np.argpartition(-np.abs(weights), most - 1)[:most] if most else np.arange(0)
    order = order[np.lexsort((order, -np.abs(weights[order])))]
    return {
        "how": "The largest weights: what one deviation, or having a value or a word, adds to the output",
        "kind": "weights",
        "entries": [{"name": name_of(plan, int(place)), "value": float(weights[place])} for place in order],
    }


def words_of(task: Task, trained: Trained, plan: Plan) -> list[dict[str, Any]]:
    """Return the words and values of sparse columns that have a linear model's largest weights.

    Returns
    -------
    list of dict
        For each such column, and of several classes each, ``{"column", "class", "for", "against"}``. The
        class is that whose output the weights raise, ``None`` for numbers. The others are
        ``{"name", "value"}``, the largest weights first: those above 0, and those below (none where there
        are several classes). Empty for models that are not linear: what a word adds there depends on the
        rest of the row.
    """
    if {*trained.arrays} != {*LINEAR, "table"}:
        return []
    several = task.kind == "classes"
    classes = task.labels if several else (task.labels[-1] if task.labels else None,)
    most = MOST_WORDS_OF_CLASS if several else MOST_WORDS
    table = np.asarray(trained.arrays["table"])
    sparse = [
        (column, plan.sparse_groups[column.name])
        for column in plan.columns
        if column.name in plan.sparse_groups
    ]
    return [
        {
            "column": column.name,
            "class": None if label is None else str(label),
            "for": _strongest(column, table[group, output], most),
            "against": [] if several else _strongest(column, -table[group, output], most, -1.0),
        }
        for column, group in sparse
        for output, label in enumerate(classes)
    ]


def _strongest(column: Column, weights: Floats, most: int, sign: float = 1.0) -> list[dict[str, Any]]:
    """Return the features of the largest weights that are above 0, each with its weight times ``sign``."""
    found = np.argpartition(-weights, min(most, len(weights)) - 1)[:most]
    found = found[weights[found] > 0]
    return [
        {"name": sparse_value(column, int(place)), "value": sign * float(weights[place])}
        for place in found[np.lexsort((found, -weights[found]))]
    ]


def name_of(plan: Plan, place: int) -> str:
    """Return the name of a feature, where sparse ones come after all dense ones."""
    return plan.feature_names[place] if place < plan.width else plan.sparse_name(place - plan.width)

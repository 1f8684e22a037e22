"""What a trained model predicts, and how good that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest import tasks
from steepest.data.columns import Plan
from steepest.data.lags import LaggedSource
from steepest.data.order import generator
from steepest.data.packed import PackedRows, packed_rows
from steepest.data.rows import RowSource, settled
from steepest.data.source import open_source
from steepest.descent.models import Model
from steepest.dividing import Table
from steepest.evaluation import evaluate
from steepest.merging import Count
from steepest.prepared import Rows
from steepest.run import Run
from steepest.tasks import Task

CHUNK = 2**25
"""Bytes of features that are predicted at a time."""

MOST_JUDGED = 2**20
"""Rows by which a model is judged at most: so many are drawn of more ..."""

JUDGED_BYTES = 2**26
"""... and no more bytes of packed rows, where that many rows are larger."""

JUDGING = 0x3D6E
"""The purpose of the stream that draws the rows to judge by."""

Floats = npt.NDArray[np.floating[Any]]


@partial(jax.jit, static_argnames="apply")
def _apply(apply: Callable[..., jax.Array], parameters: Any, features: jax.Array) -> jax.Array:
    return apply(parameters, features)


def outputs_of(model: Model, parameters: Any, features: PackedRows) -> Floats:
    """Return the model's outputs, ``[rows]`` or ``[rows, outputs]``."""
    taken = model.takes(features)
    row_bytes = max(4 * taken.shape[1], taken.row_bytes, 1)
    most = 1 << max(0, (CHUNK // row_bytes).bit_length() - 1)
    parts = []
    for first in range(0, len(taken), most):
        rows = np.arange(first, min(first + most, len(taken)))
        # Sizes are powers of two, so that few are compiled.
        size = min(most, 1 << (len(rows) - 1).bit_length())
        padded = taken.inputs(np.pad(rows, (0, size - len(rows)), constant_values=-1))
        parts.append(np.asarray(_apply(model.apply, parameters, padded))[: len(rows)])
    return np.concatenate(parts)


def judged(rows: Rows, seed: int) -> tuple[PackedRows, npt.NDArray[Any], list[str]]:
    """Return the features and targets of the rows to judge by, and what is to be said of them."""
    count = len(rows.features)
    most = most_to_judge_by(rows.features.row_bytes)
    if count <= most:
        return rows.features, rows.target[:], _drawn(count, rows.drawn_from)
    chosen = rows_to_judge_by(count, most, seed)
    return rows.features.subset(chosen), rows.target[chosen], _drawn(len(chosen), count)


def most_to_judge_by(row_bytes: int) -> int:
    """Return by how many rows of this size a model is judged at most."""
    return min(MOST_JUDGED, max(1, JUDGED_BYTES // max(1, row_bytes)))


def rows_to_judge_by(count: int, most: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the numbers of at most so many rows, drawn from all, ascending; where there are more."""
    if count <= most:
        return np.arange(count)
    drawn = np.unique(generator(seed, JUDGING).bit_generator.random_raw(most) % np.uint64(count))
    return drawn.astype(np.int64)


def _drawn(rows: int, of: int | None) -> list[str]:
    """Say of how many rows figures are, where these are not all."""
    return [] if of is None else [f"These figures are of {rows:,} rows, drawn from {of:,}."]


def figures_of(
    task: Task, outputs: Floats, target: npt.NDArray[Any], naive: Mapping[str, Floats] | None = None
) -> dict[str, Any]:
    """Return the figures that fit the task.

    Parameters
    ----------
    task, outputs
        What was learned, and the model's outputs.
    target
        See `steepest.tasks.encode_target`.
    naive
        See `naive_forecasts`.
    """
    baseline = task.baseline[-1] if task.kind == "binary" else task.baseline
    return evaluate(
        task.kind,
        tasks.true_values(task, target),
        tasks.predictions(task, outputs),
        baseline=baseline if task.kind in ("binary", "classes") else task.baseline[0],
        labels=[str(label) for label in task.labels],
        naive=naive,
    )


def naive_forecasts(task: Task, plan: Plan, features: PackedRows) -> dict[str, Floats]:
    """Return what the target's lags alone forecast, in its own unit, by what a person calls it.

    Where a lag is missing it is the mean of the training rows' lags. Targets that are classes have none.
    """
    lags = {} if plan.lags is None or task.labels else plan.lags.named
    used = [
        column
        for column in plan.columns
        if column.name in lags and lags[column.name].column == task.target and column.kind == "number"
    ]
    if not used:
        return {}
    places = [plan.groups[column.name].start for column in used]
    most = max(1, CHUNK // (4 * plan.width))
    parts = [features[first : first + most][:, places] for first in range(0, len(features), most)]
    values = np.concatenate(parts).astype(np.float64)
    return {
        f"predicting the {column.name}": values[:, number] * column.deviation + column.mean
        for number, column in enumerate(used)
    }


def open_rows(plan: Plan, data: Any, *more: str) -> RowSource:
    """Open the rows that a model is used on: the columns of its plan, lags among them, and more.

    Parameters
    ----------
    plan
        The column plan.
    data
        Whatever `steepest.open_source` takes; not a row of it may be unusable.
    more
        Names of further columns.

    Raises
    ------
    SteepestError
        If they can't be read, or a column is missing.
    """
    names, lags = list(dict.fromkeys([*more, *plan.reads])), plan.lags
    if lags is None:
        return open_source(data, columns=names, max_rejected=0.0)
    return LaggedSource(open_source(data, columns=lags.reads(names), max_rejected=0.0), lags)


def without_past(plan: Plan, rows: pa.Table) -> int:
    """Return how many rows lack a value to which their lags look back."""
    if plan.lags is None:
        return 0
    lacking = [pc.is_null(rows[name]).to_numpy() for name in plan.lags.named]
    return int(np.count_nonzero(np.any(lacking, axis=0))) if lacking else 0


def predict(run: Run, rows: pa.Table, locate: Callable[[int], str] | None = None) -> Floats:
    """Return a run's predictions for rows, in their order: see `steepest.tasks.predictions`."""
    features = packed_rows(run.plan.layout, run.plan.pack(rows, locate))
    return tasks.predictions(run.task, outputs_of(run.model, run.parameters, features))


def predictions(
    run: Run, source: RowSource, lacking: Callable[[int], None] = lambda _: None
) -> Iterator[pa.Table]:
    """Yield a row for each row of a source, in the same order: see `prediction_table`.

    Parameters
    ----------
    run, source
        The run, and rows opened by `open_rows`.
    lacking
        Is told of the rows of each table how many lack a value to which their lags look back.

    Raises
    ------
    SteepestError
        If a column is missing or holds what it did not in training.
    """
    for stretch in source.stretches():
        if stretch.rows.num_rows:
            lacking(without_past(run.plan, stretch.rows))
            yield prediction_table(run.task, predict(run, stretch.rows, stretch.locate))


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
    task = run.task
    source = open_rows(run.plan, list(patterns), task.target)
    count, sample, names, lacking = settled(source, lambda settled: _sampled(run, settled))
    outputs, targets, *naive = sample.parts()
    figures = figures_of(task, outputs, targets, dict(zip(names, naive, strict=True)))
    if lacking:
        figures["notes"].append(f"{lacking:,} rows lack a value to which lags look back.")
    if sample.rows > MOST_JUDGED:
        figures["notes"].append(f"These figures are of {len(targets):,} rows, drawn from {sample.rows:,}.")
    missing = {"reason": f"the target {task.target!r} is missing", "rows": count.unlabelled}
    return figures | {"left_out": [missing] if count.unlabelled else []}


def _sampled(run: Run, source: RowSource) -> tuple[Count, _Sample, list[str], int]:
    """Return outputs, targets and naive forecasts of rows drawn from a source, and what was seen of it."""
    task = run.task
    count, sample, lacking = Count(), _Sample(), 0
    naive: dict[str, Floats] = {}
    for part in Table(source, task.target).parts("judging", lambda *_: None, count=count):
        target = tasks.encode_target(task, part.rows[task.target], part.locate)
        features = packed_rows(run.plan.layout, run.plan.pack(part.rows, part.locate))
        lacking += without_past(run.plan, part.rows)
        naive = naive_forecasts(task, run.plan, features)
        sample.add(outputs_of(run.model, run.parameters, features), target, *naive.values())
    return count, sample, [*naive], lacking


class _Sample:
    """At most `MOST_JUDGED` of the rows that are added, each as likely as any other, in their order."""

    def __init__(self) -> None:
        self.rows = 0
        self._draws = generator(0, JUDGING).bit_generator
        self._kept: list[tuple[npt.NDArray[Any], ...]] = []

    def add(self, *parts: npt.NDArray[Any]) -> None:
        """Add rows: arrays ``[rows, ...]``."""
        self._kept.append((self._draws.random_raw(len(parts[0])), *parts))
        self.rows += len(parts[0])
        if sum(len(draws) for draws, *_ in self._kept) > 2 * MOST_JUDGED:
            self._thin()

    def parts(self) -> tuple[npt.NDArray[Any], ...]:
        """Return the rows' arrays."""
        self._thin()
        return self._kept[0][1:]

    def _thin(self) -> None:
        arrays = [np.concatenate(each) for each in zip(*self._kept, strict=True)]
        if len(arrays[0]) > MOST_JUDGED:
            limit = np.partition(arrays[0], MOST_JUDGED)[MOST_JUDGED]
            arrays = [each[arrays[0] < limit] for each in arrays]
        self._kept = [tuple(arrays)]

"""From files to what a descent needs: labelled rows, a split, a column plan, features and targets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest import tasks
from steepest.data.columns import Plan
from steepest.data.encode import infinite_values
from steepest.data.learning import Learner, learn
from steepest.data.source import Table, read_table
from steepest.data.split import held_out
from steepest.data.summary import merge, numbers_of, plain_values, type_of
from steepest.errors import SteepestError, nearest
from steepest.settings import Settings


class Part(NamedTuple):
    """Rows of a table that have a target, and how to name the place of each."""

    rows: pa.Table
    locate: Callable[[int], str]


class Rows(NamedTuple):
    """Rows as the descent takes them.

    Attributes
    ----------
    features
        float32 ``[rows, features]``.
    target
        See `steepest.tasks.encode_target`.
    weights
        float32 ``[rows]``, or ``None`` where all weigh the same.
    """

    features: npt.NDArray[np.float32]
    target: npt.NDArray[Any]
    weights: npt.NDArray[np.float32] | None

    @property
    def data(self) -> dict[str, npt.NDArray[Any]]:
        """What `steepest.minimize` takes as data."""
        return {"features": self.features, "target": self.target}


class Prepared(NamedTuple):
    """What a fit needs of its files; ``facts`` is the part of the record that describes them."""

    task: tasks.Task
    plan: Plan
    training: Rows
    validation: Rows | None
    facts: dict[str, Any]


def prepare(settings: Settings) -> Prepared:
    """Read, split and encode; the column plan is learned from the training rows alone.

    Raises
    ------
    SteepestError
        If the files, the columns or the target can't be used.
    """
    roles = _named(settings)
    table = read_table(settings.data, drop=settings.drop)
    require_columns(table, roles, settings.data)
    labelled, left_out = labelled_rows(table, settings.target)
    training, validation, how, more_left_out = _split(settings, labelled)
    task = _task(settings, training, validation)
    set_aside = [name for name in (settings.target, settings.split_by, settings.weights) if name]
    plan = learn(training.rows, leave_out=set_aside, locate=training.locate)
    by_class = tasks.class_weights(task, settings.class_weight)
    facts = {
        "data": {
            "files": list(table.files),
            "rows": table.rows.num_rows,
            "left_out": left_out + more_left_out,
        },
        "split": {
            "training_rows": training.rows.num_rows,
            "validation_rows": validation.rows.num_rows if validation else 0,
            "how": how,
        },
        "columns": _describe_columns(plan, training.rows),
        "dropped": [{"name": each.name, "reason": each.reason} for each in plan.dropped]
        + [{"name": name, "reason": "It was left out by --drop."} for name in settings.drop]
        + [
            {"name": name, "reason": f"It is the {role}."} for name, role in roles.items() if role != "target"
        ],
    }
    return Prepared(
        task,
        plan,
        _encode(settings, task, plan, training, by_class),
        _encode(settings, task, plan, validation, None) if validation else None,
        facts,
    )


def _named(settings: Settings) -> dict[str, str]:
    """Return the columns that the settings name, and what for."""
    roles: dict[str, str] = {}
    for name, role in (
        (settings.target, "target"),
        (settings.split_by, "column to split by"),
        (settings.weights, "column of row weights"),
    ):
        if name and name in settings.drop:
            raise SteepestError(f"--drop leaves out {name!r}, which is the {role}.", hint="Name one of both.")
        if name and name in roles:
            raise SteepestError(
                f"The column {name!r} can't be both the {roles[name]} and the {role}.",
                hint="Name another column.",
            )
        if name:
            roles[name] = role
    return roles


def require_columns(table: Table, roles: dict[str, str], files: Sequence[str]) -> None:
    """Refuse names that the table does not have.

    Raises
    ------
    SteepestError
        With the nearest name.
    """
    known = table.rows.column_names
    for name, role in roles.items():
        if name not in known:
            raise SteepestError(
                f"{', '.join(files)} has no column {name!r} ({role}).", hint=nearest(name, known)
            )


def labelled_rows(table: Table, target: str, of: str = "") -> tuple[Part, list[dict[str, Any]]]:
    """Return the rows that have a target, and a count of those that have none.

    Raises
    ------
    SteepestError
        If none has one, or one is infinite.
    """
    present = np.asarray(pc.is_valid(plain_values(table.rows[target])))
    part = _subset(Part(table.rows, table.locate), present)
    missing = int(len(present) - present.sum())
    if missing == len(present):
        raise SteepestError(
            f"The target {target!r} is missing in every row{of}.", hint="Name another target."
        )
    column = part.rows[target]
    if type_of(column.type) == "number" and np.isinf(numbers_of(plain_values(column))).any():
        raise infinite_values(target, column, part.locate)
    return part, [{"reason": f"the target {target!r} is missing{of}", "rows": missing}] if missing else []


def _subset(part: Part, chosen: npt.NDArray[np.bool_]) -> Part:
    if chosen.all():
        return part
    numbers = np.flatnonzero(chosen)
    return Part(part.rows.filter(pa.array(chosen)), lambda row: part.locate(int(numbers[row])))


def _split(settings: Settings, labelled: Part) -> tuple[Part, Part | None, str, list[dict[str, Any]]]:
    """Divide the rows into those to train on and those to judge by, and say how."""
    if isinstance(settings.validation, str):
        if settings.split_by:
            raise SteepestError("--split-by has nothing to split where --validation names a file.")
        table = read_table([settings.validation], drop=settings.drop)
        require_columns(table, _named(settings), [settings.validation])
        held, left_out = labelled_rows(table, settings.target, f" in {settings.validation}")
        return labelled, held, f"the rows of {settings.validation} are held out", left_out
    if settings.validation == 0:
        return labelled, None, "no rows are held out", []
    groups = labelled.rows[settings.split_by] if settings.split_by else None
    chosen = held_out(labelled.rows.num_rows, settings.validation, settings.seed, groups)
    whole = f"whole values of {settings.split_by!r}, " if settings.split_by else ""
    how = f"{settings.validation:.3g} of the rows are held out, {whole}drawn with the seed {settings.seed}"
    return _subset(labelled, ~chosen), _subset(labelled, chosen), how, []


def _task(settings: Settings, training: Part, validation: Part | None) -> tasks.Task:
    """Learn what the target asks for; its classes come from all labelled rows."""
    parts = [part.rows.select([settings.target]) for part in (training, validation) if part]
    summaries = []
    for part in parts:
        learner = Learner(leave_out=[settings.target])
        learner.update(part)
        summaries.append(learner.summaries[settings.target])
    try:
        everything = functools.reduce(merge, summaries)
    except SteepestError:
        kinds = " and ".join(str(part.schema.types[0]) for part in parts)
        raise SteepestError(f"The target {settings.target!r} holds {kinds} in the two files.") from None
    return tasks.learn_task(settings.target, everything, summaries[0], settings.loss)


def _encode(
    settings: Settings, task: tasks.Task, plan: Plan, part: Part, by_class: npt.NDArray[np.float64] | None
) -> Rows:
    """Turn rows into features, targets and weights."""
    target = tasks.encode_target(task, part.rows[settings.target], part.locate)
    weights = _row_weights(settings.weights, part) if settings.weights else None
    if by_class is not None:
        weights = by_class[target.astype(np.int64)] * (1.0 if weights is None else weights)
    features = plan.encode(part.rows, part.locate)
    return Rows(features, target, None if weights is None else weights.astype(np.float32))


def _row_weights(name: str, part: Part) -> npt.NDArray[np.float64]:
    column = part.rows[name]
    if type_of(column.type) not in tasks.NUMERIC:
        raise SteepestError(f"The column of row weights {name!r} holds {column.type}; weights are numbers.")
    weights = numbers_of(plain_values(column))
    wrong = np.flatnonzero(~((weights >= 0) & (weights <= tasks.MOST_WEIGHT)))
    if len(wrong):
        raise SteepestError(
            f"The column of row weights {name!r} holds {weights[wrong[0]]} at {part.locate(int(wrong[0]))} "
            f"({len(wrong):,} such rows); weights lie between 0 and {tasks.MOST_WEIGHT:g}.",
            hint="Correct them, or take these rows out.",
        )
    if not weights.any():
        raise SteepestError(f"The row weights in {name!r} are all 0.")
    return weights


def _describe_columns(plan: Plan, rows: pa.Table) -> list[dict[str, Any]]:
    """Return what the record says of each column that is used."""
    widths = {name: span.stop - span.start for name, span in plan.groups.items()}
    return [
        {
            "name": column.name,
            "kind": column.kind,
            "features": widths[column.name],
            "missing": rows.num_rows - int(pc.count(plain_values(rows[column.name])).as_py()),
        }
        for column in plan.columns
    ]

"""`explore`: from data of any size to what a person wants to know of it before training.

One pass: each column is summarised exactly, and a uniform sample of rows is kept. What a summary can't tell
(quantiles, relations, the condition of the features) is computed from the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

import steepest
from steepest import tasks
from steepest.data.column import Column
from steepest.data.columns import Plan
from steepest.data.deciding import decide
from steepest.data.lags import check_lags, lags_in, unlagged
from steepest.data.learning import Learner
from steepest.data.order import generator, permutation
from steepest.data.prefetch import prefetch
from steepest.data.rejected import Rejects
from steepest.data.rows import Reconsidered
from steepest.data.sampling import RowSample
from steepest.data.source import open_source
from steepest.data.summary import Summary, numbers_of, plain_values
from steepest.dividing import Seen, Table
from steepest.exploration.associations import association, groups
from steepest.exploration.conditioning import condition
from steepest.exploration.describing import bins_of, describe, histogram, skewness, without_infinities
from steepest.exploration.relations import (
    Bins,
    Codes,
    Floats,
    Target,
    bin_numbers,
    folds_of,
    most_bins,
    relate,
)
from steepest.exploration.remarks import remarks
from steepest.merging import Count
from steepest.preparation import require_columns

if TYPE_CHECKING:
    import pandas as pd

SAMPLED, CELLS = 2**16, 2**23
"""The sample has at most so many rows, and at most so many cells."""

FEWEST_SAMPLED = 2**12
"""Rows of the sample, however many columns there are."""

COMPARED_ROWS, MOST_COMPARED = 2**14, 200
"""Rows and columns that associations are computed from; of more columns, those that tell most."""

CONDITIONED_ROWS, MOST_CONDITIONED = 2**13, 320
"""Rows and features that the condition number is computed of, likewise."""

EXPLORING, FOLDING = 0xE897, 0xF01D
"""The purposes of the streams that draw the sample, and its folds."""

TARGET_BINS = 16
"""Bins of a target of numbers, at most, for the mutual information."""


@dataclass(frozen=True)
class Exploration:
    """What was found in a table, before any training.

    Attributes
    ----------
    record
        All of it in plain JSON types: ``data`` (files, rows, those left out), ``sample``, ``target``,
        ``columns`` (see `steepest.exploration.describing.describe`, with the figures of
        `steepest.exploration.relations.Relation`), ``equal`` (groups of columns that are the same in every
        row), ``associations``, ``conditioning`` and ``findings``.
    """

    record: dict[str, Any]

    @property
    def findings(self) -> list[dict[str, str]]:
        """What is worth a remark: ``finding``, ``severity``, ``evidence``, ``where`` and ``try``."""
        found: list[dict[str, str]] = self.record["findings"]
        return found

    @cached_property
    def columns(self) -> pd.DataFrame:
        """A row for each column."""
        import pandas as pd

        return pd.DataFrame(self.record["columns"]).set_index("name")

    def write_report(self, path: str | Path) -> None:
        """Write one HTML file that needs no network.

        Parameters
        ----------
        path
            An existing file is replaced.
        """
        from steepest.exploration.page import write_page

        write_page(Path(path), self.record)


def explore(
    data: Any,
    target: str,
    *,
    drop: Sequence[str] = (),
    lags: Mapping[str, Sequence[int]] | None = None,
    max_rejected: float = 0.01,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
    seen: Seen = lambda *_: None,
) -> Exploration:
    """Look at a table before training: its columns, what they say about the target, what a descent will meet.

    Reads the rows once and keeps, whatever their number, a summary of each column and a uniform sample of at
    most 65,536 rows.

    Parameters
    ----------
    data
        Names of files, a DataFrame, arrays, or whatever else `steepest.open_source` takes.
    target
        The column to predict; rows without it are counted and left out.
    drop
        Columns to leave out.
    lags
        Column -> how many rows before: its values there are looked at as further columns.
    max_rejected
        The greatest share of rows that may be unusable.
    seed
        Draws the sample and the folds.
    say, seen
        Are told of surprises, and how far the pass is.

    Raises
    ------
    SteepestError
        If the data can't be read, has no such columns, or the target nothing to learn.

    Examples
    --------
    >>> import steepest
    >>> miles = [float(each) for each in range(100, 3100, 10)]
    >>> found = steepest.explore({"miles": miles, "km": [1.609 * each for each in miles],
    ...                           "minutes": [20 + each / 8 for each in miles]}, "minutes")
    >>> [(each["finding"], each["where"]) for each in found.findings][:2]
    [('leaking_column', "column 'miles'"), ('leaking_column', "column 'km'")]
    """
    wanted = {name: tuple(rows) for name, rows in (lags or {}).items()}
    check_lags(wanted)
    source = open_source(data, drop, max_rejected=max_rejected)
    require_columns(source.schema.names, {target: "target"}, source.names)
    while True:
        try:
            found = lags_in(source.schema, wanted) if wanted else None
            return _explore(Table(source, target, lags=found), seed, seen)
        except Reconsidered as surprise:
            say(f"{surprise}; what was read is read anew.")
            source = unlagged(surprise.source)


def _explore(table: Table, seed: int, seen: Seen) -> Exploration:
    names = table.lagged.schema.names
    learner, rejects, counted = Learner(names), Rejects(), Count()
    most = max(FEWEST_SAMPLED, min(SAMPLED, CELLS // len(names)))
    sample = RowSample(seed, EXPLORING, most)
    with closing(prefetch(table.parts("looking", seen, rejects=rejects, count=counted))) as parts:
        for part in parts:
            learner.update(part.rows, part.locate)
            sample.update(part.rows)
    rows = sample.table()
    order = permutation(generator(seed, FOLDING).bit_generator, rows.num_rows)
    left_out = [
        {"reason": f"the target {table.target!r} is missing", "rows": counted.unlabelled},
        {"reason": "they can't be used", "rows": rejects.count},
    ]
    record: dict[str, Any] = {
        "steepest": steepest.__version__,
        "data": {
            "files": list(table.source.names),
            "rows": counted.rows + rejects.count,
            "left_out": [each for each in left_out if each["rows"]],
            "lags": [*table.lags.named] if table.lags else [],
        },
        "sample": {"rows": rows.num_rows, "of": sample.rows, "seed": seed},
    }
    record |= _looked_at(table.target, learner, rows, order)
    return Exploration(record | {"findings": remarks(record)})


def _looked_at(name: str, learner: Learner, rows: pa.Table, order: Codes) -> dict[str, Any]:
    """Return what summaries and sample tell of target and columns."""
    summaries = learner.summaries
    task = tasks.learn_task(name, summaries[name], summaries[name], None)
    target = _target(task, rows[name], order)
    plain = {
        each: without_infinities(rows[each]) for each in summaries if summaries[each].type != "unsupported"
    }
    decided = {
        each: decide(each, rows.schema.field(each).type, summary)
        for each, summary in summaries.items()
        if each != name
    }
    equal = [group for each in learner.twins if len(group := [one for one in each if one != name]) > 1]
    again = {each for group in equal for each in group[1:]}
    used = [each for each in decided.values() if isinstance(each, Column) and each.name not in again]
    most = most_bins(target)
    bins = {
        each: bins_of(summaries[each], plain[each], most)
        for each in decided
        if each in plain and summaries[each].missing < summaries[each].rows
    }
    columns = []
    for each, what in decided.items():
        described = describe(each, summaries[each], what, plain.get(each, pa.chunked_array([pa.nulls(0)])))
        columns.append(described | _relation(bins.get(each), target))
    signals = {each["name"]: each["signal"] or 0.0 for each in columns}
    few = order[:CONDITIONED_ROWS]
    return {
        "target": _describe_target(task, summaries[name], plain[name]),
        "columns": columns,
        "equal": equal,
        "associations": _associations(bins, signals, used, order[:COMPARED_ROWS]),
        "conditioning": _conditioning(used, signals, rows.take(pa.array(few)), target.outputs[few]),
    }


def _target(task: tasks.Task, values: pa.ChunkedArray, order: Codes) -> Target:
    folds = folds_of(len(values), order)
    if task.labels:
        return Target(task.kind, tasks.encode_target(task, values).astype(np.int64), None, folds)
    numbers = numbers_of(plain_values(values))
    return Target(
        task.kind, bin_numbers(numbers, min(TARGET_BINS, max(4, len(numbers) // 100))).codes, numbers, folds
    )


def _relation(bins: Bins | None, target: Target) -> dict[str, float | None]:
    if bins is None:
        return dict.fromkeys(("information", "explained", "surprise", "score", "signal"))
    return vars(relate(bins, target))


def _describe_target(task: tasks.Task, summary: Summary, sample: pa.ChunkedArray) -> dict[str, Any]:
    """Return what is asked for, and how the target is distributed."""
    described: dict[str, Any] = {"name": task.target, "kind": task.kind, "why": task.why, "score": None}
    described["score"] = Target(task.kind, np.zeros(0, np.int64), None, np.zeros(0, np.int64)).score
    if task.labels:
        counts = summary.value_counts or {}
        return described | {"labels": list(task.labels), "rows": [counts[each] for each in sorted(counts)]}
    numbers = numbers_of(sample)
    return described | {
        "mean": task.baseline[0],
        "deviation": ((summary.squared_deviation or 0.0) / summary.rows) ** 0.5,
        "minimum": summary.minimum,
        "maximum": summary.maximum,
        "skewness": skewness(numbers),
        "histogram": histogram(numbers, summary.type == "integer"),
    }


def _associations(
    bins: Mapping[str, Bins], signals: Mapping[str, float], columns: Sequence[Column], rows: Codes
) -> dict[str, Any]:
    """Return how strongly the columns that a fit uses go together."""
    used = [each.name for each in columns if each.name in bins]
    if len(used) > MOST_COMPARED:
        best = set(sorted(used, key=lambda each: -signals[each])[:MOST_COMPARED])
        used = [each for each in used if each in best]
    if not used:
        return {"columns": [], "values": [], "groups": []}
    parts = [
        Bins(bins[each].codes[rows], None if (values := bins[each].values) is None else values[rows])
        for each in used
    ]
    strength = association(parts)
    return {
        "columns": used,
        "values": strength.tolist(),
        "groups": [[used[member] for member in group] for group in groups(strength)],
    }


def _conditioning(
    used: Sequence[Column],
    signals: Mapping[str, float],
    rows: pa.Table,
    target: Floats,
) -> dict[str, Any] | None:
    """Return the condition of the features of a linear model, before and after scaling."""
    plan, width = Plan((), ()), 0
    for column in sorted(used, key=lambda each: -signals[each.name]):
        longer = Plan((*plan.columns, column), ())
        if longer.width <= MOST_CONDITIONED:
            plan, width = longer, longer.width
    if not width:
        return None
    finite = pa.table({each.name: _finite(rows[each.name]) for each in plan.columns})
    scaled = plan.encode(finite)
    raw = scaled.astype(np.float64)
    for column in plan.columns:
        if column.kind == "number" or column.parts[:1] == ("elapsed",):
            values = numbers_of(plain_values(finite[column.name]))
            raw[:, plan.groups[column.name].start] = np.where(np.isnan(values), column.mean, values)
    owners = [column.name for column in plan.columns for _ in range(*plan.groups[column.name].indices(width))]
    found: dict[str, Any] = {"features": width, "columns": len(plan.columns), "of": len(used)}
    for when, features in (("before", raw), ("after", scaled)):
        shape = condition(features, target)
        found[when] = {
            "number": shape.number,
            "steps": shape.steps,
            "steps_to_learn": shape.steps_to_learn,
            "flat": shape.flat,
            "along": list(dict.fromkeys(owners[feature] for feature in shape.along)),
        }
    return found


def _finite(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as it is, with infinite numbers missing."""
    return without_infinities(column) if pa.types.is_floating(column.type) else column

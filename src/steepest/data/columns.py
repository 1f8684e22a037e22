"""The column plan: learned from training rows, it turns any rows into features."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.encode import (
    KINDS,
    PARTS,
    Column,
    Locate,
    encode,
    feature_names,
    infinite_values,
    matching,
    too_large,
)
from steepest.data.summary import DAY, MOST_VALUES, Summary, plain_values, summarise
from steepest.errors import SteepestError, nearest

MINIMUM_COUNT = 10
"""How often a value of a category occurs at least to have a feature of its own."""

SMALL_TABLE = 1_000
"""The number of rows below which one occurrence is enough."""

MOST_FEATURES = 256
"""The greatest number of values of one category that have a feature each."""

FEWEST_TO_JUDGE = 20
"""The number of rows from which on a column can be told to be an identifier."""

LONG_TEXT = 50
"""The mean number of characters beyond which values that mostly differ are taken for text."""

ROWS_AT_ONCE = 1 << 14
"""How many rows are encoded at a time: few enough for their features to stay in the cache."""


@dataclass(frozen=True)
class Dropped:
    """A column that is not learned from.

    Parameters
    ----------
    name
        The column's name.
    reason
        Why, as a sentence for a person.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """How rows become features; plain data.

    Parameters
    ----------
    columns
        The columns that are learned from, in the order of the table.
    dropped
        Those that are not, and why.

    Examples
    --------
    >>> plan = learn(pa.table({"distance": [100, 300, 200], "origin": ["EWR", "JFK", "EWR"]}))
    >>> plan.feature_names
    ('distance', 'origin = EWR', 'origin = JFK')
    >>> plan.encode(pa.table({"origin": ["LGA", "EWR"], "distance": [200, None]}))
    array([[0., 0., 0.],
           [0., 1., 0.]], dtype=float32)
    """

    columns: tuple[Column, ...]
    dropped: tuple[Dropped, ...]

    @functools.cached_property
    def feature_names(self) -> tuple[str, ...]:
        """The names of all features."""
        return tuple(name for column in self.columns for name in feature_names(column))

    @property
    def width(self) -> int:
        """The number of features."""
        return len(self.feature_names)

    @functools.cached_property
    def groups(self) -> dict[str, slice]:
        """Name of a column -> the place of its features."""
        places, begins = {}, 0
        for column in self.columns:
            ends = begins + len(feature_names(column))
            places[column.name] = slice(begins, ends)
            begins = ends
        return places

    def encode(self, rows: pa.Table, locate: Locate | None = None) -> npt.NDArray[np.float32]:
        """Turn rows into features.

        Parameters
        ----------
        rows
            A table with the columns of the plan, in any order; others are not looked at. Integers are taken
            where numbers were learned and, as their digits, where text was; a column without any value
            everywhere.
        locate
            Row -> where it stands, for messages; `steepest.data.source.Table.locate` for rows from files.

        Returns
        -------
        numpy.ndarray
            float32 [rows, width], every number finite.

        Raises
        ------
        SteepestError
            If a column is missing, or holds infinite values or those of another type.
        """
        columns = [matching(column, rows, locate) for column in self.columns]
        features = np.zeros((rows.num_rows, self.width), np.float32)
        for begins in range(0, rows.num_rows, ROWS_AT_ONCE):
            block = features[begins : begins + ROWS_AT_ONCE]
            for column, whole in zip(self.columns, columns, strict=True):
                values = plain_values(whole.slice(begins, ROWS_AT_ONCE))
                place = block[:, self.groups[column.name]]
                encode(column, values, place)
                if column.kind == "number" and not np.isfinite(place[:, 0]).all():
                    raise too_large(column, whole, locate)
        return features

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON, from which `plan_from_json` makes the same plan."""
        return {
            "columns": [_with_lists(dataclasses.asdict(column)) for column in self.columns],
            "dropped": [dataclasses.asdict(dropped) for dropped in self.dropped],
        }


def plan_from_json(stored: Mapping[str, Any]) -> Plan:
    """Return the plan that `Plan.to_json` stored.

    Parameters
    ----------
    stored
        What ``to_json`` returned, or ``json.loads`` of what was written of it.

    Raises
    ------
    SteepestError
        If it is no such plan.
    """
    try:
        columns = tuple(Column(**_with_tuples(each)) for each in stored["columns"])
        dropped = tuple(Dropped(**each) for each in stored["dropped"])
        known = all(column.kind in KINDS and set(column.parts) <= set(PARTS) for column in columns)
    except (KeyError, TypeError, AttributeError) as error:
        raise SteepestError(f"the column plan is damaged ({error}).", hint="Train again.") from None
    if not known:
        raise SteepestError("the column plan has a kind of column that is not known.", hint="Train again.")
    return Plan(columns, dropped)


def learn(table: pa.Table, *, leave_out: Sequence[str] = (), locate: Locate | None = None) -> Plan:
    """Learn from training rows how each column becomes features.

    Numbers and elapsed time are standardised with the population's deviation; a missing value becomes the
    mean. Categories get a 0/1 feature for each value, times their cycles as sine and cosine.

    Parameters
    ----------
    table
        Training rows.
    leave_out
        Columns that are no features, such as the target.
    locate
        Row -> where it stands, for messages.

    Returns
    -------
    Plan
        With the columns that say nothing in `Plan.dropped`.

    Raises
    ------
    SteepestError
        If a column holds infinite values, `leave_out` names an unknown column, or nothing is left.
    """
    if unknown := next((name for name in leave_out if name not in table.column_names), None):
        raise SteepestError(
            f"the table has no column {unknown!r}.", hint=nearest(unknown, table.column_names)
        )
    columns: list[Column] = []
    dropped: list[Dropped] = []
    summaries: dict[str, Summary] = {}
    for name in table.column_names:
        if name in leave_out:
            continue
        summary = summarise(table[name])
        learned = _learn_column(name, table[name], summary, locate)
        for twin in [twin for twin, other in summaries.items() if other == summary]:
            if isinstance(learned, Column) and table[name].equals(table[twin]):
                learned = Dropped(name, f"It has the same value as {twin!r} in every row.")
        if isinstance(learned, Column):
            columns.append(learned)
            summaries[name] = summary
        else:
            dropped.append(learned)
    if not columns:
        reasons = " ".join(f"{each.name!r}: {each.reason}" for each in dropped[:3]) or "no other is there."
        raise SteepestError(
            f"the table has no column to learn from. {reasons}",
            hint="Add columns that say something about the target.",
        )
    return Plan(tuple(columns), tuple(dropped))


def _learn_column(
    name: str, values: pa.ChunkedArray, summary: Summary, locate: Locate | None
) -> Column | Dropped:
    """Decide what becomes of one column."""
    if summary.infinite:
        raise infinite_values(name, values, locate)
    if reason := _why_useless(name, values, summary):
        return Dropped(name, reason)
    learned = LEARNERS[summary.type](name, summary) if summary.minimum != summary.maximum else None
    if learned is None and not summary.missing:
        return Dropped(name, "Its values differ too little, or are too rare each, to learn from.")
    return dataclasses.replace(learned or Column(name, "missing", summary.type), missing=summary.missing > 0)


def _why_useless(name: str, values: pa.ChunkedArray, summary: Summary) -> str:
    """Return why a column says nothing that can be learned, or nothing."""
    if summary.type == "unsupported":
        return f"Values of the type {values.type} have no encoding: take out of them what matters."
    if summary.missing == summary.rows:
        return "All of its values are missing."
    if summary.minimum == summary.maximum and not summary.missing:
        return f"It has the same value in every row: {values[0].as_py()!r}."
    if summary.type == "string":
        return _why_no_category(plain_values(values), summary)
    if summary.type == "integer":
        return _why_no_number(name, values, summary)
    return ""


def _why_no_category(values: pa.ChunkedArray, summary: Summary) -> str:
    """Return why text is no category, or nothing."""
    present, different = summary.rows - summary.missing, _count_different(values, summary)
    mostly_different = different > present / 2
    if mostly_different and pc.mean(pc.utf8_length(values)).as_py() > LONG_TEXT:
        return (
            "It holds text, which is not learned from yet: take out of it what matters, such as its length."
        )
    if mostly_different and summary.rows >= FEWEST_TO_JUDGE:
        return f"It looks like an identifier: {different:,} different values in {present:,} rows."
    if different > MOST_VALUES:
        return f"It has {different:,} different values, too many for a feature each: group the values."
    return ""


def _why_no_number(name: str, values: pa.ChunkedArray, summary: Summary) -> str:
    """Return why integers are no measurement, or nothing."""
    counts = summary.maximum - summary.minimum < 4 * summary.rows
    named = name.lower().endswith("id")
    if summary.rows < FEWEST_TO_JUDGE or not (counts or named):
        return ""
    if _count_different(values, summary) < summary.rows - summary.missing:
        return ""
    looks = "a counter" if counts else "an identifier by its name"
    return f"It looks like {looks}: integers, none of which occurs twice."


def _count_different(values: pa.ChunkedArray, summary: Summary) -> int:
    counts = summary.value_counts
    return pc.count_distinct(values).as_py() if counts is None else len(counts)


def _learn_number(name: str, summary: Summary) -> Column | None:
    mean, deviation = _mean_and_deviation(name, summary)
    return Column(name, "number", summary.type, mean, deviation) if deviation else None


def _learn_boolean(name: str, summary: Summary) -> Column:
    return Column(name, "boolean", summary.type, *_mean_and_deviation(name, summary))


def _learn_category(name: str, summary: Summary) -> Column | None:
    counts = summary.value_counts or {}  # it is known: text with more values than are counted is no category
    least = MINIMUM_COUNT if summary.rows >= SMALL_TABLE else 1
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    kept = tuple(value for value in ranked if counts[value] >= least)[:MOST_FEATURES]
    if not kept:
        return None
    return Column(name, "category", summary.type, values=kept, other=len(kept) < len(ranked))


def _learn_time(name: str, summary: Summary) -> Column | None:
    mean, deviation = _mean_and_deviation(name, summary)
    span, counts = summary.maximum - summary.minimum, summary.value_counts
    has = {
        "elapsed": summary.type != "time" and deviation > 0,
        # More different times than are counted are not all at one time of the day: there were no such days.
        "time of day": counts is None or len({seconds % DAY for seconds in counts}) > 1,
        "weekday": span >= 7 * DAY,
        "time of year": span >= 300 * DAY,
    }
    parts = tuple(part for part in PARTS if has[part])
    return Column(name, "time", summary.type, mean, deviation, parts=parts) if parts else None


LEARNERS: dict[str, Callable[[str, Summary], Column | None]] = {
    "number": _learn_number,
    "integer": _learn_number,
    "boolean": _learn_boolean,
    "string": _learn_category,
    "timestamp": _learn_time,
    "date": _learn_time,
    "time": _learn_time,
}
"""Type -> what is learned from values that are not all the same; None where there is nothing to learn."""


def _mean_and_deviation(name: str, summary: Summary) -> tuple[float, float]:
    mean, squares = summary.mean or 0.0, summary.squared_deviation or 0.0
    if not math.isfinite(mean) or not math.isfinite(squares):
        largest = max(abs(summary.minimum), abs(summary.maximum))
        raise SteepestError(
            f"column {name!r} has values too large to compute with (up to {largest:.3g}).",
            hint="Divide them, or take their logarithm.",
        )
    return mean, math.sqrt(squares / (summary.rows - summary.missing))


def _with_lists(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}

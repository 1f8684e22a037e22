"""What becomes of a column of dense features, by its summary alone: what is learned, or why it is dropped."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.column import Column
from steepest.data.columns import Dropped
from steepest.data.encode import CALLED, PARTS
from steepest.data.maps import nested_type
from steepest.data.summary import DAY, MOST_VALUES, Summary
from steepest.errors import SteepestError

MINIMUM_COUNT = 10
"""How often a value of a category occurs at least to have a feature of its own."""

SMALL_TABLE = 1_000
"""The number of rows below which one occurrence is enough."""

MOST_FEATURES = 256
"""The greatest number of values of one category that have a feature each."""

FEWEST_TO_JUDGE = 20
"""The number of rows from which on a column can be told to be an identifier."""

ALMOST_ALL = 0.9
"""The share of rows from which on a whole number that they all have makes a category of its column."""

LONG_TEXT = 50
"""The mean number of characters beyond which values that mostly differ are taken for text."""


def decide(name: str, column_type: pa.DataType, summary: Summary) -> Column | Dropped:
    """Decide what becomes of a column.

    Parameters
    ----------
    name
        The column's name.
    column_type
        Its type in the first rows, for messages.
    summary
        The summary of all training rows, without infinite values.

    Raises
    ------
    SteepestError
        If its values are too large to compute with.

    Examples
    --------
    >>> from steepest.data.summary import summarise
    >>> values = pa.array([2013, 2013])
    >>> decide("year", values.type, summarise(values)).reason
    'It has the same value in every row: 2013.'
    """
    if reason := _why_useless(name, column_type, summary):
        return Dropped(name, reason)
    learned = LEARNERS[summary.type](name, summary) if summary.minimum != summary.maximum else None
    if learned is None and not summary.missing:
        return Dropped(name, "Its values differ too little, or are too rare each, to learn from.")
    return dataclasses.replace(learned or Column(name, "missing", summary.type), missing=summary.missing > 0)


def _why_useless(name: str, column_type: pa.DataType, summary: Summary) -> str:
    """Return why a column says nothing that can be learned, or nothing."""
    if summary.missing == summary.rows:
        return "All of its values are missing."
    if summary.type == "unsupported":
        return _why_unsupported(column_type)
    if summary.minimum == summary.maximum and not summary.missing:
        return f"It has the same value in every row: {_shown(summary)}."
    if summary.type == "string":
        return _why_no_category(summary)
    if summary.type == "integer":
        return _why_no_number(name, summary)
    return ""


def _why_unsupported(column_type: pa.DataType) -> str:
    """Return why values of a type are not learned from."""
    if nested := nested_type(column_type):
        return f"It holds {CALLED[nested]}: a fit learns from them, but not where all features are dense."
    return f"Values of the type {column_type} have no encoding: take out of them what matters."


def _shown(summary: Summary) -> str:
    """Return a column's only value as a person writes it."""
    if summary.type not in ("timestamp", "date", "time"):
        return repr(summary.minimum)
    date, time = str(np.datetime64(int(summary.minimum), "s")).split("T")
    return {"timestamp": f"{date} {time}", "date": date, "time": time}[summary.type]


def _why_no_category(summary: Summary) -> str:
    """Return why text is no category, or nothing."""
    present = summary.rows - summary.missing
    different = MOST_VALUES + 1 if summary.counted is None else len(summary.counted)
    mostly_different = different > present / 2
    if (mostly_different or summary.counted is None) and summary.characters / present > LONG_TEXT:
        return "It holds text: a fit learns from its words, which are not looked at one by one here."
    if summary.counted is None:
        return (
            f"It has over {MOST_VALUES:,} different values: an identifier, or too many for a feature each, "
            "unless you group them."
        )
    if mostly_different and summary.rows >= FEWEST_TO_JUDGE:
        return f"It looks like an identifier: {different:,} different values in {present:,} rows."
    return ""


def _why_no_number(name: str, summary: Summary) -> str:
    """Return why integers are no measurement, or nothing."""
    is_counter = summary.maximum - summary.minimum < 4 * summary.rows
    named = name.lower().endswith("id")
    if summary.rows < FEWEST_TO_JUDGE or not (is_counter or named):
        return ""
    counted = summary.sampled if summary.counted is None else summary.counted
    if counted is None or pc.max(counted.field(1)).as_py() > 1:
        return ""
    looks = "a counter" if is_counter else "an identifier by its name"
    return f"It looks like {looks}: integers, none of which occurs twice."


def _learn_integer(name: str, summary: Summary) -> Column | None:
    """Learn whole numbers: as a category where nearly all rows have the same one, and few have another."""
    counts, present = summary.value_counts or {}, summary.rows - summary.missing
    if len(counts) > 2 and max(counts.values()) >= ALMOST_ALL * present:
        return _learn_category(name, summary)
    return learn_number(name, summary)


def learn_number(name: str, summary: Summary) -> Column | None:
    """Learn numbers: None where they differ too little."""
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
    values = tuple(map(str, kept))
    return Column(name, "category", summary.type, values=values, other=len(kept) < len(ranked))


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
    "number": learn_number,
    "integer": _learn_integer,
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

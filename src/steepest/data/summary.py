"""What a column holds, in one pass that can be split: summaries of parts merge into that of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.errors import SteepestError

MOST_VALUES = 100_000
"""The number of different values up to which each is counted."""

DAY = 86_400

TYPES = (
    (pa.types.is_null, "null"),
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_integer, "integer"),
    (pa.types.is_floating, "number"),
    (pa.types.is_decimal, "number"),
    (pa.types.is_duration, "number"),
    (pa.types.is_string, "string"),
    (pa.types.is_large_string, "string"),
    (pa.types.is_string_view, "string"),
    (pa.types.is_timestamp, "timestamp"),
    (pa.types.is_date, "date"),
    (pa.types.is_time, "time"),
)

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True)
class Summary:
    """What a column holds.

    Parameters
    ----------
    type
        "number", "integer", "boolean", "string", "timestamp", "date", "time", "null" (nothing but missing
        values) or "unsupported" (nested, binary).
    rows
        The number of rows.
    missing
        How many of them have no value; NaN counts as none.
    infinite
        How many are plus or minus infinity. These take no part in the four figures that follow.
    mean
        The mean of the values: of 0 and 1 for booleans, of seconds for timestamps and dates (since 1970, by
        the clock of the column's time zone) and times (since midnight). None for text and without values.
    squared_deviation
        Σ(x − mean)², so that the variance is ``squared_deviation / (rows - missing - infinite)``.
    minimum, maximum
        The least and the greatest value, in the unit of the mean; exact for integers. Text by code point.
    value_counts
        How often each value occurs, or None where there are more than `MOST_VALUES` different ones.
    """

    type: str
    rows: int
    missing: int
    infinite: int
    mean: float | None
    squared_deviation: float | None
    minimum: Any
    maximum: Any
    value_counts: dict[Any, int] | None


def type_of(column_type: pa.DataType) -> str:
    """Return the name that stands for an Arrow type in a `Summary`.

    Examples
    --------
    >>> type_of(pa.int8()), type_of(pa.dictionary(pa.int32(), pa.string())), type_of(pa.list_(pa.int8()))
    ('integer', 'string', 'unsupported')
    """
    plain = column_type.value_type if pa.types.is_dictionary(column_type) else column_type
    return next((name for fits, name in TYPES if fits(plain)), "unsupported")


def plain_values(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Return the column with its dictionary resolved and NaN as missing: what the other functions expect.

    Decimals become float64, durations seconds in float64, and timestamps, dates and times seconds: int64
    where the column counts whole seconds or days, float64 otherwise. Timestamps are read by the clock of
    their time zone.

    Examples
    --------
    >>> plain_values(pa.array([1.5, float("nan")])).to_pylist()
    [1.5, None]
    >>> plain_values(pa.array([1], pa.date32())).to_pylist()
    [86400]
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.string())  # few functions of Arrow take views
    kind = column.type
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_duration(kind):
        return pc.divide(column.cast(pa.int64()).cast(pa.float64(), safe=False), float(PER_SECOND[kind.unit]))
    elif pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return _seconds(column)
    if pa.types.is_floating(column.type):
        # The sum with 0.0 makes -0.0 and 0.0 one value.
        return pc.if_else(pc.is_nan(column), None, pc.add(column, 0.0))
    return column


def numbers_of(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.float64]:
    """Return a column of `plain_values` as float64 [rows], NaN where a value is missing."""
    filled = column.cast(pa.float64(), safe=False)
    return (
        np.asarray(filled.to_numpy(), np.float64)
        if isinstance(filled, pa.ChunkedArray)
        else np.asarray(filled.to_numpy(zero_copy_only=False), np.float64)
    )


def summarise(column: pa.ChunkedArray | pa.Array) -> Summary:
    """Summarise a column, or a part of one.

    Parameters
    ----------
    column
        The values [rows].

    Returns
    -------
    Summary
        The mean and the squared deviation are computed in float64, in two passes.

    Examples
    --------
    >>> summarise(pa.array([1, 2, None, 2]))
    Summary(type='integer', rows=4, missing=1, infinite=0, mean=1.66..., squared_deviation=0.66...,
            minimum=1, maximum=2, value_counts={1: 1, 2: 2})
    """
    name, rows = type_of(column.type), len(column)
    if name in ("null", "unsupported"):
        missing = column.null_count
        counts: dict[Any, int] | None = {} if missing == rows else None
        return Summary(name, rows, missing, 0, None, None, None, None, counts)
    values = plain_values(column).drop_null()
    missing = rows - len(values)
    counted = pc.value_counts(values)
    few = len(counted) <= MOST_VALUES
    counts = dict(zip(*(counted.field(each).to_pylist() for each in (0, 1)), strict=True)) if few else None
    infinite = 0
    if pa.types.is_floating(values.type):
        finite = pc.is_finite(values)
        infinite = len(values) - pc.sum(finite, min_count=0).as_py()
        values = values.filter(finite) if infinite else values
    bounds = pc.min_max(values).as_py()
    mean, squared_deviation = (None, None) if name == "string" or not len(values) else _moments(values)
    return Summary(
        name, rows, missing, infinite, mean, squared_deviation, bounds["min"], bounds["max"], counts
    )


def merge(a: Summary, b: Summary) -> Summary:
    """Return the summary of the rows of both.

    Means and squared deviations are merged as in Chan, Golub and LeVeque, "Updating formulae and a pairwise
    algorithm for computing sample variances" (1979): with δ = mean_b − mean_a,
    mean = mean_a + δ n_b / n and Σ = Σ_a + Σ_b + δ² n_a n_b / n.

    Parameters
    ----------
    a, b
        Summaries of two parts of one column. "null" merges with every type and "integer" with "number".

    Raises
    ------
    SteepestError
        If their types do not go together.

    Examples
    --------
    >>> merge(summarise(pa.array([1, 2])), summarise(pa.array([6, 7]))).squared_deviation
    26.0
    """
    types = {a.type, b.type} - {"null"} or {"null"}
    if len(types) > 1 and types != {"integer", "number"}:
        raise SteepestError(
            f"a column mixes types: {a.type} in one part and {b.type} in another.",
            hint="Give the column one type throughout.",
        )
    mean, squared_deviation = _merge_moments(a, b)
    return Summary(
        type="number" if len(types) > 1 else types.pop(),
        rows=a.rows + b.rows,
        missing=a.missing + b.missing,
        infinite=a.infinite + b.infinite,
        mean=mean,
        squared_deviation=squared_deviation,
        minimum=min((each.minimum for each in (a, b) if each.minimum is not None), default=None),
        maximum=max((each.maximum for each in (a, b) if each.maximum is not None), default=None),
        value_counts=_merge_counts(a.value_counts, b.value_counts),
    )


def _moments(values: pa.ChunkedArray | pa.Array) -> tuple[float, float]:
    """Return the mean and the squared deviation of at least one value."""
    numbers = numbers_of(values)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(numbers.mean())
        numbers = numbers - mean
        return mean, float(np.dot(numbers, numbers))


def _merge_moments(a: Summary, b: Summary) -> tuple[float | None, float | None]:
    if a.mean is None or a.squared_deviation is None:
        return b.mean, b.squared_deviation
    if b.mean is None or b.squared_deviation is None:
        return a.mean, a.squared_deviation
    of_a, of_b = (each.rows - each.missing - each.infinite for each in (a, b))
    difference = b.mean - a.mean
    mean = a.mean + difference * (of_b / (of_a + of_b))
    between = difference * difference * (of_a * of_b / (of_a + of_b))
    return mean, a.squared_deviation + b.squared_deviation + between


def _merge_counts(a: dict[Any, int] | None, b: dict[Any, int] | None) -> dict[Any, int] | None:
    if a is None or b is None:
        return None
    merged = dict(a)
    for value, count in b.items():
        merged[value] = merged.get(value, 0) + count
    return merged if len(merged) <= MOST_VALUES else None


def _seconds(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Return timestamps, dates and times as seconds since 1970 or midnight, by the clock of their zone."""
    kind = column.type
    if pa.types.is_date(kind):
        return pc.multiply(column.cast(pa.date32()).cast(pa.int32()).cast(pa.int64()), DAY)
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        try:
            column = pc.local_timestamp(column)
        except pa.ArrowInvalid:
            raise SteepestError(
                f"a column is in the time zone {kind.tz!r}, which is not known here.",
                hint="Write its times in UTC, or install the time zone database (the package tzdata).",
            ) from None
    whole = column.cast(pa.int32()) if pa.types.is_time32(kind) else column
    counts = whole.cast(pa.int64())
    if kind.unit == "s":
        return counts
    return pc.divide(counts.cast(pa.float64(), safe=False), float(PER_SECOND[kind.unit]))

"""What a column holds, in one pass that can be split: summaries of parts merge into that of the whole."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.column_types import common_type, type_of
from steepest.data.counting import (
    add,
    add_samples,
    count,
    counts_of,
    most_frequent,
    sample,
    sample_counted,
    sample_texts,
)
from steepest.data.listing import elements
from steepest.data.maps import MAPS, NAMED, figures
from steepest.errors import SteepestError

MOST_VALUES = 100_000
"""The number of different values up to which each is counted."""

MOST_BYTES = 1 << 26
"""The number of bytes of different values up to which each is counted."""

DAY = 86_400

SAMPLED = ("integer", "string")
"""The types of which some values are counted where there are too many to count each."""

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True)
class Summary:
    """What a column holds.

    Parameters
    ----------
    type
        "number", "integer", "boolean", "string", "timestamp", "date", "time", "list", "numbered" or "named"
        (maps to numbers), "null" (nothing but missing values) or "unsupported" (nested, binary).
    rows
        The number of rows.
    missing
        How many of them have no value; NaN counts as none.
    infinite
        How many are plus or minus infinity. These take no part in the four figures that follow.
    mean
        The mean of the values: of 0 and 1 for booleans, of seconds for timestamps and dates (since 1970, by
        the clock of the column's time zone) and times (since midnight). None for text and without values; 0
        for maps.
    squared_deviation
        Σ(x − mean)², so that the variance is ``squared_deviation / (rows - missing - infinite)``.
    minimum, maximum
        The least and the greatest value, in the unit of the mean; exact for integers. Text by code point. Of
        maps the least and the greatest number that is a key.
    characters
        The number of characters of all values of text; 0 for other types.
    counted
        How often each value occurs, of lists and named maps in how many rows: a struct array of ``values``
        and ``counts``, or None where there are more than `MOST_VALUES` different ones, or of more than
        `MOST_BYTES`, and for numbered maps.
    sampled
        How often some integers or texts occur where there are too many to count each: those that
        `steepest.data.counting.sample` chooses, with their hashes as the values. None for other types.
    frequent
        The most frequent of those texts or integers that were counted before there were too many, so that
        some are known by name; None where all are counted.
    """

    type: str
    rows: int
    missing: int
    infinite: int
    mean: float | None
    squared_deviation: float | None
    minimum: Any
    maximum: Any
    characters: int
    counted: pa.StructArray | None
    sampled: pa.StructArray | None
    frequent: pa.StructArray | None = None

    @functools.cached_property
    def value_counts(self) -> dict[Any, int] | None:
        """Value -> how often it occurs, or None where there are more than `MOST_VALUES` different ones."""
        if self.counted is None:
            return None
        return dict(zip(*(self.counted.field(each).to_pylist() for each in (0, 1)), strict=True))


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
        nan = pc.is_nan(column)
        column = pc.add(column, 0.0)  # makes -0.0 and 0.0 one value
        return pc.if_else(nan, None, column) if pc.any(nan).as_py() else column
    return column


def numbers_of(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.float64]:
    """Return a column of `plain_values` as float64 [rows], NaN where a value is missing."""
    filled = column.cast(pa.float64(), safe=False)
    return (
        np.asarray(filled.to_numpy(), np.float64)
        if isinstance(filled, pa.ChunkedArray)
        else np.asarray(filled.to_numpy(zero_copy_only=False), np.float64)
    )


def summarise(
    column: pa.ChunkedArray | pa.Array, *, stands_for: str | None = None, counting: bool = True
) -> Summary:
    """Summarise a column, or a part of one.

    Parameters
    ----------
    column
        The values [rows].
    stands_for
        The type of the values before `plain_values`, where they are plain already.
    counting
        Whether to count each value: in vain once the parts before have more than `MOST_VALUES`.

    Returns
    -------
    Summary
        The mean and the squared deviation are computed in float64, in two passes.

    Examples
    --------
    >>> found = summarise(pa.array([1, 2, None, 2]))
    >>> found.rows, found.missing, found.mean, found.squared_deviation, found.value_counts
    (4, 1, 1.66..., 0.66..., {1: 1, 2: 2})
    """
    name = stands_for or type_of(column.type)
    if name == "string":
        return _summarise_text(column, counting)
    if name == "list":
        return _summarise_lists(column, counting)
    if name in MAPS:
        return _summarise_maps(name, column, counting)
    rows, missing = len(column), column.null_count
    if name in ("null", "unsupported") or missing == rows:
        none = count(pa.nulls(0)) if missing == rows else None
        return Summary(name, rows, missing, 0, None, None, None, None, 0, none, None)
    found = _summarise_numbers(name, column, counting)
    # NaN is missing, too: a column of nothing else has no values, as one of nulls has.
    return replace(found, counted=count(pa.nulls(0))) if found.missing == rows else found


def _summarise_text(column: pa.ChunkedArray | pa.Array, counting: bool) -> Summary:
    counted = None
    if counting:
        counted = count(column if pa.types.is_dictionary(column.type) else plain_values(column))
        values, times = counted.field(0), counted.field(1)
    else:
        values = plain_values(column).drop_null()
        times = pa.scalar(1)
    bounds = pc.min_max(values).as_py()
    characters = pc.sum(pc.multiply(pc.utf8_length(values), times), min_count=0).as_py()
    missing = len(column) - (len(values) if counted is None else pc.sum(times, min_count=0).as_py())
    few = counted is not None and _few(counted)
    return Summary(
        "string", len(column), missing, 0, None, None, bounds["min"], bounds["max"], characters,
        counted if few else None,
        None if few else sample_texts(values, None if counted is None else times.to_numpy()),
        None if few or counted is None else most_frequent(counted),
    )  # fmt: skip


def _summarise_lists(column: pa.ChunkedArray, counting: bool) -> Summary:
    """Summarise lists of text: of each value in how many rows it stands."""
    rows, values = elements(column)
    encoded = values.dictionary_encode()
    width = max(len(encoded.dictionary), 1)
    once = np.unique(rows * width + encoded.indices.to_numpy()) % width
    counted = counts_of(encoded.dictionary, np.bincount(once, minlength=len(encoded.dictionary)))
    kept = _kept(counted, counting)
    return Summary("list", len(column), column.null_count, 0, None, None, None, None, 0, *kept)


def _summarise_maps(name: str, column: pa.ChunkedArray, counting: bool) -> Summary:
    """Summarise maps: of each key that is text in how many rows it stands."""
    squares, least, greatest, counted = figures(column)
    kept = (None, None, None) if counted is None else _kept(counted, counting)
    return Summary(name, len(column), column.null_count, 0, 0.0, squares, least, greatest, 0, *kept)


def _kept(counted: pa.StructArray, counting: bool) -> tuple[pa.StructArray | None, None, Any]:
    """Return what a summary keeps of counts, as of `Summary`: all of them, or the most frequent."""
    if counting and _few(counted):
        return counted, None, None
    return None, None, most_frequent(counted) if counting else None


def _few(counted: pa.StructArray) -> bool:
    """Tell whether each of these values is counted on."""
    return len(counted) <= MOST_VALUES and counted.field(0).nbytes <= MOST_BYTES


def _summarise_numbers(name: str, column: pa.ChunkedArray | pa.Array, counting: bool) -> Summary:
    """Summarise numbers, booleans and times, of which there is at least one."""
    bare = pa.types.is_floating(column.type) and not counting
    values = column if bare else plain_values(column)
    whole = not pa.types.is_floating(values.type)
    counted = count(values) if counting else None
    few = counted is not None and _few(counted)
    sampling = not few and name == "integer" and pa.types.is_integer(values.type)
    numbers, missing, infinite = numbers_of(values), 0, 0
    finite = np.isfinite(numbers)
    if not finite.all():
        missing = int(np.count_nonzero(np.isnan(numbers)))
        infinite = len(numbers) - missing - int(np.count_nonzero(finite))
        numbers = numbers[finite]
    minimum = maximum = mean = squared_deviation = None
    if len(numbers):
        bounds = pc.min_max(values).as_py().values() if whole else (numbers.min(), numbers.max())
        minimum, maximum = bounds if whole else (float(each) + 0.0 for each in bounds)
        mean, squared_deviation = _moments(numbers)
    return Summary(
        name, len(column), missing, infinite, mean, squared_deviation, minimum, maximum, 0,
        counted if few else None, sample(values.drop_null()) if sampling else None,
        most_frequent(counted) if sampling and counted is not None else None,
    )  # fmt: skip


def merge(a: Summary, b: Summary) -> Summary:
    """Return the summary of the rows of both.

    Means and squared deviations are merged as in Chan, Golub and LeVeque, "Updating formulae and a pairwise
    algorithm for computing sample variances" (1979): with δ = mean_b − mean_a,
    mean = mean_a + δ n_b / n and Σ = Σ_a + Σ_b + δ² n_a n_b / n.

    Parameters
    ----------
    a, b
        Summaries of two parts of one column. Types merge as in `common_type`; a part without any value merges
        with every type.

    Raises
    ------
    SteepestError
        If their types do not go together.

    Examples
    --------
    >>> merge(summarise(pa.array([1, 2])), summarise(pa.array([6, 7]))).squared_deviation
    26.0
    """
    rows, missing = a.rows + b.rows, a.missing + b.missing
    if a.missing == a.rows and b.type != "null":
        return dataclasses.replace(b, rows=rows, missing=missing)
    if b.missing == b.rows:
        return dataclasses.replace(a, rows=rows, missing=missing)
    name = common_type(a.type, b.type)
    if name is None:
        raise SteepestError(
            f"a column mixes types: {a.type} in one part and {b.type} in another.",
            hint="Give the column one type throughout.",
        )
    mean, squared_deviation = _merge_moments(a, b)
    counted, sampled = _merge_counts(name, a, b)
    frequent = _merge_frequent(name, a, b) if counted is None else None
    return Summary(
        type=name,
        rows=rows,
        missing=missing,
        infinite=a.infinite + b.infinite,
        mean=mean,
        squared_deviation=squared_deviation,
        minimum=min((each.minimum for each in (a, b) if each.minimum is not None), default=None),
        maximum=max((each.maximum for each in (a, b) if each.maximum is not None), default=None),
        characters=a.characters + b.characters,
        counted=counted,
        sampled=sampled,
        frequent=frequent,
    )


def _moments(numbers: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean and the squared deviation of at least one number."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(numbers.mean()) + 0.0
        numbers = numbers - mean
        numbers *= numbers
        return mean, float(numbers.sum())  # a product of vectors depends on the number of threads


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


def _merge_counts(name: str, a: Summary, b: Summary) -> tuple[pa.StructArray | None, pa.StructArray | None]:
    """Return the counts of all values, or those of a sample where there are too many different integers."""
    if a.counted is not None and b.counted is not None:
        counted = add(a.counted, b.counted)
        if _few(counted):
            return counted, None
        return None, sample_counted(counted) if name in SAMPLED else None
    if name not in SAMPLED:
        return None, None
    samples = [sample_counted(each.counted) if each.sampled is None else each.sampled for each in (a, b)]
    return None, None if any(each is None for each in samples) else add_samples(*samples)


def _merge_frequent(name: str, a: Summary, b: Summary) -> pa.StructArray | None:
    """Return the most frequent values that are known by name."""
    known = [each.frequent if each.counted is None else each.counted for each in (a, b)]
    there = [each for each in known if each is not None]
    if name not in (*SAMPLED, "list", NAMED) or not there:
        return None
    return most_frequent(add(*there) if len(there) == 2 else there[0])


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

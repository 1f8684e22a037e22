"""One column to numbers and codes: what is known of a column, and a pure function for each kind of column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.column import Column
from steepest.data.column_types import type_of
from steepest.data.faults import PATTERNS, looks_like
from steepest.data.layout import Run
from steepest.data.listing import texts_of
from steepest.data.maps import NAMED, NUMBERED, map_type, nested_type, sizes_of
from steepest.data.sparse import ListPairs, crossed, pack_sparse, run_of
from steepest.data.summary import DAY, numbers_of, plain_values
from steepest.errors import SteepestError, nearest

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

DAYS_PER_YEAR = 365.2425

MOST_SHOWN = 60
"""Characters of a value that a message shows."""

Numbers = npt.NDArray[np.float64]
Kept = npt.NDArray[np.number]
Locate = Callable[[int], str]

GOES_WITH = {
    "number": ("number", "integer"),
    "integer": ("number", "integer"),
    "boolean": ("boolean",),
    "string": ("string", "integer"),
    "timestamp": ("timestamp", "date"),
    "date": ("timestamp", "date"),
    "time": ("time",),
    "list": ("list",),
    NUMBERED: (NUMBERED,),
    NAMED: (NAMED, NUMBERED),
}
"""Type that was learned -> types of rows that can be encoded; a column of nothing but missing values can."""

CALLED = {
    "number": "numbers",
    "integer": "numbers",
    "boolean": "booleans",
    "string": "text",
    "timestamp": "dates",
    "date": "dates",
    "time": "times of day",
    "list": "lists",
    NUMBERED: "numbered values",
    NAMED: "named values",
    "unsupported": "nested or binary values",
}


@dataclass(frozen=True)
class Kind:
    """How a kind of column is turned into features.

    Parameters
    ----------
    names
        Column -> the names of its dense features, except that which says that the value is missing.
    runs
        Column -> where its features come from, from left to right.
    pack
        (column, values [rows]) -> for each run what is kept, [rows]: a number, a code of
        `steepest.data.layout.Packed`, a place among the run's features (their number for none), or pairs. The
        values are as `steepest.data.summary.plain_values` returns them, but that numbers may hold NaN and
        -0.0.
    """

    names: Callable[[Column], tuple[str, ...]]
    runs: Callable[[Column], tuple[Run, ...]]
    pack: Callable[[Column, pa.ChunkedArray], Iterable[Kept | ListPairs]]


def feature_names(column: Column) -> tuple[str, ...]:
    """Return the names of a column's dense features, in their order.

    Examples
    --------
    >>> feature_names(Column("origin", "category", "string", values=("EWR", "JFK"), other=True, missing=True))
    ('origin = EWR', 'origin = JFK', 'origin = other', 'origin is missing')
    """
    return _kind(column).names(column) + ((f"{column.name} is missing",) if column.missing else ())


def runs(column: Column) -> tuple[Run, ...]:
    """Return where a column's features come from, in their order; numbers one by one.

    Examples
    --------
    >>> runs(Column("origin", "category", "string", values=("EWR", "JFK"), other=True, missing=True))
    (Run(source='code', width=3), Run(source='code', width=1))
    """
    return _kind(column).runs(column) + ((Run("code", 1),) if column.missing else ())


def pack(column: Column, values: pa.ChunkedArray) -> Iterator[Kept | ListPairs]:
    """Yield what is kept of a column's values, for each of its `runs`.

    Parameters
    ----------
    column
        What was learned.
    values
        Values [rows]; see `Kind`.
    """
    yield from _kind(column).pack(column, values)
    if column.missing:
        there = pc.invert(pc.is_null(values, nan_is_null=True))
        yield there.to_numpy().view(np.uint8)  # 0, the only place, where the value is missing


def standardise(column: Column, numbers: Numbers) -> Numbers:
    """Return (x − mean) / deviation, and 0 where x is NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = numbers + (0.0 - column.mean)  # so that -0.0 is 0.0 also where the mean is
        scaled /= column.deviation
    missing = np.isnan(numbers)
    if missing.any():
        scaled[missing] = 0.0
    return scaled


def _number(column: Column, values: pa.ChunkedArray) -> Iterator[Numbers]:
    yield standardise(column, numbers_of(values))


def _boolean(column: Column, values: pa.ChunkedArray) -> Iterator[Numbers]:
    numbers = numbers_of(values)
    yield np.where(np.isnan(numbers), column.mean, numbers)


def _category_names(column: Column) -> tuple[str, ...]:
    rest = "any other" if "other" in column.values else "other"
    return tuple(f"{column.name} = {value}" for value in (*column.values, *([rest] if column.other else [])))


def _category(column: Column, values: pa.ChunkedArray) -> Iterator[npt.NDArray[np.integer]]:
    none = len(column.values) + column.other
    texts = texts_of(values)
    places = pc.index_in(texts, value_set=pa.array(column.values, texts.type))
    places = pc.fill_null(places, len(column.values)).to_numpy()  # the place of "other", or none
    if column.missing and values.null_count:
        places = np.where(pc.is_null(values).to_numpy(), none, places)
    yield places


def _time_names(column: Column) -> tuple[str, ...]:
    return tuple(f"{column.name} {name}" for part in column.parts for name in PARTS[part].names)


def _time_runs(column: Column) -> tuple[Run, ...]:
    return tuple(run for part in column.parts for run in PARTS[part].runs)


def _time(column: Column, values: pa.ChunkedArray) -> Iterator[Kept]:
    seconds = numbers_of(values)
    there = ~np.isnan(seconds)
    seconds = seconds[there]
    for part in column.parts:
        for run, packed in zip(PARTS[part].runs, PARTS[part].pack(column, seconds), strict=True):
            whole = np.full(len(there), 0 if run.source == "numbers" else run.width, packed.dtype)
            whole[there] = packed
            yield whole


@dataclass(frozen=True)
class Part:
    """What can be taken from a time.

    Parameters
    ----------
    names
        The names of its features.
    runs
        Where they come from.
    pack
        (column, seconds since 1970 or midnight [rows], none missing) -> for each run what is kept [rows].
    """

    names: tuple[str, ...]
    runs: tuple[Run, ...]
    pack: Callable[[Column, Numbers], Iterator[Kept]]


def _elapsed(column: Column, seconds: Numbers) -> Iterator[Numbers]:
    yield standardise(column, seconds)


def _time_of_day(_: Column, seconds: Numbers) -> Iterator[Numbers]:
    return _circle(np.mod(seconds, DAY) / DAY)


def _weekday(_: Column, seconds: Numbers) -> Iterator[npt.NDArray[np.integer]]:
    yield np.mod(np.floor(seconds / DAY) + 3, 7).astype(np.uint8)  # 1970 began on a Thursday


def _time_of_year(_: Column, seconds: Numbers) -> Iterator[Numbers]:
    days = np.floor(seconds / DAY).astype(np.int64).astype("datetime64[D]")
    return _circle((days - days.astype("datetime64[Y]")).astype(np.float64) / DAYS_PER_YEAR)


def _circle(turns: Numbers) -> Iterator[Numbers]:
    """Yield sin 2πt and cos 2πt: the end of a cycle lies beside its beginning."""
    yield np.sin(2 * np.pi * turns)
    yield np.cos(2 * np.pi * turns)


NUMBER = Run("numbers", 1)

PARTS = {
    "elapsed": Part(("elapsed",), (NUMBER,), _elapsed),
    "time of day": Part(("time of day (sine)", "time of day (cosine)"), (NUMBER, NUMBER), _time_of_day),
    "weekday": Part(tuple(f"= {day}" for day in WEEKDAYS), (Run("code", 7),), _weekday),
    "time of year": Part(("time of year (sine)", "time of year (cosine)"), (NUMBER, NUMBER), _time_of_year),
}
"""Name of a part of a time -> how it is computed."""

KINDS = {
    "number": Kind(lambda column: (column.name,), lambda _: (NUMBER,), _number),
    "boolean": Kind(lambda column: (column.name,), lambda _: (NUMBER,), _boolean),
    "category": Kind(
        _category_names, lambda column: (Run("code", len(column.values) + column.other),), _category
    ),
    "time": Kind(_time_names, _time_runs, _time),
    "missing": Kind(lambda _: (), lambda _: (), lambda *_: ()),
}
"""Name of a kind of column of dense features -> how it is turned into them."""

SPARSE = Kind(
    lambda _: (), lambda column: (run_of(column),), lambda column, values: (pack_sparse(column, values),)
)
"""How columns of sparse features are turned into them, whatever their kind."""


def _kind(column: Column) -> Kind:
    return KINDS[column.kind] if column.sparse is None else SPARSE


def matching(column: Column, rows: pa.Table, locate: Locate | None) -> pa.ChunkedArray:
    """Return the values that a column of the plan stands for.

    Raises
    ------
    SteepestError
        If the rows have no such column, or one of a type that does not go with what was learned.
    """
    if column.kind == "cross" and column.sparse:
        parts = zip(column.sparse.columns, column.sparse.types, strict=True)
        whole = [matching(Column(name, "category", of), rows, locate) for name, of in parts]
        return pa.chunked_array([crossed([plain_values(values) for values in whole])])
    if column.name not in rows.column_names:
        raise SteepestError(
            f"the table has no column {column.name!r}, which the model was trained with.",
            hint=nearest(column.name, rows.column_names),
        )
    values = rows[column.name]
    found = nested_type(values.type) or type_of(values.type)
    fits = found in ("null", *GOES_WITH[column.type]) or column.kind == "missing"
    if fits or values.null_count == len(values):
        return values if fits else pa.chunked_array([pa.nulls(len(values))])
    odd = pc.is_valid(values)
    wanted = CALLED[column.type]
    if found == "string" and wanted in PATTERNS:
        unlike = pc.invert(looks_like(wanted, values.cast(pa.string())))
        odd = unlike if pc.any(unlike).as_py() else odd
    row = pc.index(odd, True).as_py()
    raise SteepestError(
        f"column {column.name!r} holds {CALLED[found]} where {wanted} were learned:"
        f" {shown(values[row])} ({where(row, locate)}).",
        hint="Give the column the type that it had in training.",
    )


def shown(value: pa.Scalar) -> str:
    """Return a value as messages show it: the beginning of a long one."""
    whole = repr(value.as_py())
    return whole if len(whole) <= MOST_SHOWN else whole[: MOST_SHOWN - 3] + "..."


def numbers_or_sizes(values: pa.ChunkedArray) -> Numbers:
    """Return numbers as float64 [rows], NaN where one is missing; of maps Σ |v| of each row."""
    return sizes_of(values) if map_type(values.type) else numbers_of(plain_values(values))


def too_large(column: Column, values: pa.ChunkedArray, locate: Locate | None) -> SteepestError:
    """Return the error about numbers that are no finite float32 when standardised."""
    numbers = numbers_or_sizes(values)
    if np.isinf(numbers).any():
        return infinite_values(column.name, values, locate)
    large = np.abs(standardise(column, numbers)) > np.finfo(np.float32).max
    row = int(np.argmax(large))
    return SteepestError(
        f"column {column.name!r} has values too far from those it was trained with to compute with"
        f" ({large.sum():,}); the first is {numbers[row]:.3g} ({where(row, locate)}).",
        hint="Correct them, or leave them empty.",
    )


def infinite_values(name: str, values: pa.ChunkedArray, locate: Locate | None) -> SteepestError:
    """Return the error about a column that has infinite values."""
    infinite = np.isinf(numbers_or_sizes(values))
    count, row = int(infinite.sum()), int(np.argmax(infinite))
    what = "1 infinite value:" if count == 1 else f"{count:,} infinite values, the first:"
    return SteepestError(
        f"column {name!r} has {what} {where(row, locate)}.",
        hint="Leave such cells empty (missing), replace them by a number, or leave the column out.",
    )


def where(row: int, locate: Locate | None) -> str:
    """Return where a row stands: what `locate` says, or its number."""
    return f"row {row + 1:,}" if locate is None else locate(row)

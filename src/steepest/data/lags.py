"""What stood some rows before, as further columns of a stream of rows whose order is that of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.column_types import type_of
from steepest.data.rows import Reconsidered, Rejected, RowSource, Stretch, chosen_columns
from steepest.data.summary import numbers_of, plain_values
from steepest.errors import SteepestError, nearest

MOST_LAG = 2**20
"""The longest lag: so many values of each column that has lags are remembered, 8 MiB."""

LAGGED = ("number", "integer", "boolean", "null")
"""Types of columns that may have lags; in one without any value until now they may still come."""

TIMES = ("timestamp", "date")
"""Types of columns that tell the order of rows."""


class Lag(NamedTuple):
    """A column's value some rows before."""

    column: str
    rows: int

    @property
    def name(self) -> str:
        """What it is called as a column.

        Examples
        --------
        >>> Lag("demand", 48).name, Lag("demand", 1).name
        ('demand 48 rows before', 'demand 1 row before')
        """
        return f"{self.column} {self.rows} row{'' if self.rows == 1 else 's'} before"


@dataclass(frozen=True)
class Lags:
    """Lags that are wanted of rows whose order is that of time.

    Parameters
    ----------
    columns
        Column -> how many rows before. Without any, only the order is checked.
    time
        The column of times that tells the order, if there is one.
    """

    columns: Mapping[str, tuple[int, ...]]
    time: str | None = None

    @property
    def named(self) -> dict[str, Lag]:
        """Name -> the lag that is called so, in the order that was asked for.

        Examples
        --------
        >>> list(Lags({"demand": (48, 336), "sun": (1,)}).named)
        ['demand 48 rows before', 'demand 336 rows before', 'sun 1 row before']
        """
        every = (Lag(column, rows) for column, lags in self.columns.items() for rows in lags)
        return {lag.name: lag for lag in every}

    @property
    def says(self) -> str:
        """By what the order of the rows is known, for a person."""
        if self.time:
            return f"in the order of {self.time!r}"
        return "in the order of the table, which is taken for that of time"

    def only(self, names: Sequence[str]) -> Lags:
        """Return those that are called so."""
        kept = {
            column: tuple(rows for rows in lags if Lag(column, rows).name in names)
            for column, lags in self.columns.items()
        }
        return replace(self, columns={column: lags for column, lags in kept.items() if lags})

    def reads(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the columns of the table that are read where columns of these names are wanted."""
        read = [self.named[name].column if name in self.named else name for name in names]
        return tuple(dict.fromkeys([*read, *([self.time] if self.time else [])]))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON, from which `lags_from_json` makes the same."""
        return {"columns": {name: list(rows) for name, rows in self.columns.items()}, "time": self.time}


def lags_from_json(stored: Mapping[str, Any]) -> Lags:
    """Return what `Lags.to_json` stored."""
    return Lags({name: tuple(rows) for name, rows in stored["columns"].items()}, stored["time"])


def check_lags(columns: Mapping[str, Sequence[int]]) -> None:
    """Refuse lags that no table can have.

    Raises
    ------
    SteepestError
        If one is less than 1, which would be the row itself or one to come, too long, or named twice.
    """
    for column, lags in columns.items():
        wrong = next((rows for rows in lags if not 1 <= rows <= MOST_LAG), None)
        if wrong is not None:
            raise SteepestError(
                f"A lag of {column!r} is from 1 to {MOST_LAG:,} rows before, not {wrong:,}.",
                hint=f"--lags {column}:1 is the row before; what comes later is not known yet.",
            )
        if not lags or len({*lags}) < len(lags):
            raise SteepestError(
                f"The lags of {column!r} are {', '.join(map(str, lags)) or 'none'}; each is named once.",
                hint=f"Write --lags {column}:1,2,24.",
            )


def lags_in(schema: pa.Schema, columns: Mapping[str, tuple[int, ...]]) -> Lags:
    """Return the lags of a table's columns, and which column tells the order: the only one of times.

    Parameters
    ----------
    schema
        The table's columns and their types.
    columns
        See `Lags`.

    Raises
    ------
    SteepestError
        If there is no such column, it does not hold numbers, or another has the name of a lag.

    Examples
    --------
    >>> schema = pa.schema([("hour", pa.timestamp("s")), ("demand", pa.float64())])
    >>> lags_in(schema, {"demand": (24,)}).time
    'hour'
    """
    for name in columns:
        if name not in schema.names:
            raise SteepestError(
                f"The table has no column {name!r}, of which lags are wanted.",
                hint=nearest(name, schema.names),
            )
        _require_numbers(name, schema.field(name).type)
    times = [field.name for field in schema if type_of(field.type) in TIMES]
    lags = Lags(columns, times[0] if len(times) == 1 else None)
    if same := next((name for name in lags.named if name in schema.names), None):
        raise SteepestError(
            f"The table has a column {same!r}, which is what the lag would be called.",
            hint="Rename that column.",
        )
    return lags


def _require_numbers(name: str, column_type: pa.DataType) -> None:
    if type_of(column_type) not in LAGGED:
        raise SteepestError(
            f"The column {name!r} holds {column_type}; lags are of columns of numbers.",
            hint="Leave it out of --lags, or write it as numbers.",
        )


@dataclass(frozen=True)
class LaggedSource(RowSource):
    """A source's rows with what stood some rows before them as further columns; nothing is looked at ahead.

    A lag is float64, missing in the first rows and where that row had no value. Of each column that has lags
    as many values are remembered as the longest is long.

    Parameters
    ----------
    source
        The rows, in the order of time.
    lags
        What is wanted of them.

    Examples
    --------
    >>> from steepest.data.source import open_source
    >>> source = LaggedSource(open_source({"demand": [5, 7, None, 6]}), Lags({"demand": (1, 2)}))
    >>> next(source.stretches()).rows["demand 1 row before"].to_pylist()
    [None, 5.0, 7.0, None]
    >>> next(source.stretches(["demand 2 rows before"], first=2)).rows.to_pylist()
    [{'demand 2 rows before': 5.0}, {'demand 2 rows before': 7.0}]
    """

    source: RowSource
    lags: Lags

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the source's files."""
        return self.source.names

    @property
    def schema(self) -> Any:
        """The source's columns and the lags."""
        return pa.schema([*self.source.schema, *((name, pa.float64()) for name in self.lags.named)])

    @property
    def rows(self) -> int | None:  # type: ignore[override]
        """The source's number of rows."""
        return self.source.rows

    def fingerprint(self) -> str | None:
        """Return the source's fingerprint."""
        return self.source.fingerprint()

    def stretches(self, columns: Sequence[str] | None = None, first: int = 0) -> Iterator[Stretch]:
        """Yield the rows from one on, as `RowSource.stretches` says; they begin as far before as lags reach.

        Raises
        ------
        SteepestError
            If times decrease; and at the end of a pass, if a row can't be used: those after it would shift.
        """
        chosen = chosen_columns(self.schema, columns)
        wanted = {name: self.lags.named[name] for name in chosen if name in self.lags.named}
        most = max((lag.rows for lag in wanted.values()), default=0)
        past = dict.fromkeys((lag.column for lag in wanted.values()), np.full(most, np.nan))
        skipped = first - max(0, first - most)
        order, rejected = _Order(self.lags.time), None
        try:
            for stretch in self.source.stretches(self.lags.reads(chosen), first - skipped):
                order.follow(stretch)
                rejected = rejected or next(iter(stretch.rejected), None)
                rows, past = _with_lags(stretch.rows, wanted, past, most)
                kept = stretch._replace(rows=rows.select(chosen))
                if rows.num_rows > skipped or not skipped:
                    yield _without(kept, skipped)
                skipped = max(0, skipped - rows.num_rows)
        except Reconsidered as surprise:
            again = replace(self, source=surprise.source)
            raise Reconsidered(again, surprise.message) from None
        if rejected and self.lags.columns:
            raise _shifted(rejected)


def unlagged(source: RowSource) -> RowSource:
    """Return a source without its lags."""
    return source.source if isinstance(source, LaggedSource) else source


def _with_lags(
    rows: pa.Table, wanted: Mapping[str, Lag], past: Mapping[str, npt.NDArray[np.float64]], most: int
) -> tuple[pa.Table, dict[str, npt.NDArray[np.float64]]]:
    """Return rows with their lags, and the values to remember, ``[most]`` of each column."""
    known: dict[str, npt.NDArray[np.float64]] = {}
    for column, before in past.items():
        _require_numbers(column, rows[column].type)
        known[column] = np.concatenate([before, numbers_of(plain_values(rows[column]))])
    for name, (column, lag) in wanted.items():
        values = known[column][most - lag : most - lag + rows.num_rows]
        rows = rows.append_column(name, pa.array(values, from_pandas=True))  # NaN is missing
    return rows, {column: values[rows.num_rows :] for column, values in known.items()}


def _without(stretch: Stretch, skipped: int) -> Stretch:
    """Return the rows of a stretch but for some at its beginning."""
    if not skipped:
        return stretch
    return stretch._replace(
        rows=stretch.rows.slice(skipped), locate=lambda row: stretch.locate(row + skipped)
    )


def _shifted(rejected: Rejected) -> SteepestError:
    return SteepestError(
        f"{rejected.file}, line {rejected.line}: {rejected.reason}. Without this row, the lags of all later "
        "ones would be those of others.",
        hint="Correct the row, or keep its place and leave its values empty.",
    )


class _Order:
    """Sees that times do not decrease from row to row; missing ones are passed over."""

    def __init__(self, column: str | None) -> None:
        self.column = column
        self.last: int | None = None

    def follow(self, stretch: Stretch) -> None:
        """Look at the next rows.

        Raises
        ------
        SteepestError
            With the place of the first row that lies before the one above it.
        """
        if self.column is None or not stretch.rows.num_rows:
            return
        column = stretch.rows[self.column]
        there = np.flatnonzero(np.asarray(pc.is_valid(column)))
        if not len(there):
            return
        if type_of(column.type) not in TIMES:
            raise SteepestError(
                f"The column {self.column!r} holds {column.type}; the order of rows is known by its times.",
                hint="Write it as it was when the run was made.",
            )
        instants = _instants(column.drop_null())
        before = np.concatenate([instants[:1] if self.last is None else [self.last], instants[:-1]])
        earlier = np.flatnonzero(instants < before)
        if len(earlier):
            row = int(there[earlier[0]])
            was = np.datetime64(int(before[earlier[0]]), "us").item()
            raise SteepestError(
                f"The rows are not in the order of time: {self.column!r} is {column[row].as_py()} at "
                f"{stretch.locate(row)}, after {was}.",
                hint=f"Sort them by {self.column!r}; if clocks were set back, write times with their zone. "
                f"Or leave the column out (--drop {self.column}): rows are taken as they come.",
            )
        self.last = int(instants[-1])


def _instants(times: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return times as microseconds, whatever their unit; those with a zone as moments, not as clocks show."""
    zone = getattr(times.type, "tz", None)
    moments = times.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    return np.asarray(moments.to_numpy(), np.int64)

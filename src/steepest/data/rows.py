"""Rows of any size as a stream: what a source of rows is, and what it yields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steepest.errors import SteepestError, nearest

Result = TypeVar("Result")

STRETCH_ROWS = 2**16
"""A stretch has at most some this many rows ..."""

STRETCH_BYTES = 16 * 2**20
"""... and some this many bytes (a single row may have more)."""


MEMORY = ("memory",)
"""The names of rows that come from no file."""

SPARK = ("a Spark DataFrame",)
"""The names of rows that Spark gives."""


class Rejected(NamedTuple):
    """A row that can't be used.

    Parameters
    ----------
    file
        The file that it stands in.
    line
        The line on which it begins, from 1, the line of column names included.
    reason
        Why it can't be used, for a person.
    """

    file: str
    line: int
    reason: str


class Stretch(NamedTuple):
    """Consecutive rows of a source.

    Parameters
    ----------
    rows
        The rows, as a table with the columns that were asked for.
    locate
        Row within the stretch, from 0 -> where it came from, for a person: "flights.csv, line 18". Found when
        it is asked for, which may take as long as reading the stretch did.
    rejected
        The rows that stood among them and can't be used, in the order of the file.
    """

    rows: pa.Table
    locate: Callable[[int], str]
    rejected: tuple[Rejected, ...] = ()


def subset(stretch: Stretch, chosen: npt.NDArray[np.bool_]) -> Stretch:
    """Return the rows that are chosen: bool [rows]."""
    if chosen.all():
        return stretch
    numbers = np.flatnonzero(chosen)
    return Stretch(stretch.rows.filter(pa.array(chosen)), lambda row: stretch.locate(int(numbers[row])))


def piece(stretch: Stretch, first: int, count: int) -> Stretch:
    """Return ``count`` rows from ``first`` on."""
    return Stretch(stretch.rows.slice(first, count), lambda row: stretch.locate(first + row))


class RowSource(Protocol):
    """Rows of any size, read as often as needed. Inherit from it to add a source of your own.

    A source of your own has a `schema` and `stretches`; the rest has defaults that fit rows of unknown number
    and age. It may yield plain `pyarrow.Table` or `pyarrow.RecordBatch` from `stretches`:
    `steepest.data.source.open_source` makes stretches of them.

    Attributes
    ----------
    names
        The names of the files; ``("memory",)`` for rows that come from no file.
    schema
        The columns and their types, as far as known now.
    rows
        The number of rows; None where it is unknown without reading all.

    Examples
    --------
    >>> from steepest.data.source import open_source
    >>> class Squares(RowSource):
    ...     schema = pa.schema([("number", pa.int64()), ("square", pa.int64())])
    ...     rows = 5
    ...
    ...     def stretches(self, columns=None, first=0):
    ...         for number in range(first, 5):
    ...             yield pa.table({"number": [number], "square": [number**2]})
    >>> [stretch.rows["square"][0].as_py() for stretch in open_source(Squares()).stretches(["square"], 2)]
    [4, 9, 16]
    """

    names: tuple[str, ...] = MEMORY
    schema: pa.Schema
    rows: int | None = None

    def stretches(self, columns: Sequence[str] | None = None, first: int = 0) -> Iterator[Stretch]:
        """Yield the rows from one on, a stretch at a time: the same rows in the same order each time.

        Parameters
        ----------
        columns
            The names of the columns, in the order wanted; by default all.
        first
            The row to begin with, from 0, counted over rows that are not rejected.

        Yields
        ------
        Stretch
            Some `STRETCH_ROWS` rows, but not much more than `STRETCH_BYTES`.
        """
        ...

    def fingerprint(self) -> str | None:
        """Return a hex digest that changes whenever the rows may have changed; None where none can be had."""
        return None


class Reconsidered(Exception):  # noqa: N818 - not an error: a pass begins anew
    """A pass found that a column was wrongly judged by its first rows: begin anew with another source.

    Parameters
    ----------
    source
        The same rows, with the column judged rightly.
    message
        A sentence for the person: column, file and line of the first surprise.
    """

    def __init__(self, source: RowSource, message: str) -> None:
        super().__init__(message)
        self.source = source
        self.message = message


def settled(source: RowSource, use: Callable[[RowSource], Result]) -> Result:
    """Return what is made of a source by going over all of its rows, anew if it is reconsidered."""
    while True:
        try:
            return use(source)
        except Reconsidered as reconsidered:
            source = reconsidered.source


def rows_per_stretch(rows: int, size: int) -> int:
    """Return how many rows to put into a stretch.

    Parameters
    ----------
    rows, size
        The number of all rows, and their size in bytes.

    Examples
    --------
    >>> rows_per_stretch(10**6, 8 * 10**6), rows_per_stretch(10**6, 16 * 10**9)
    (65536, 1048)
    """
    return max(1, min(STRETCH_ROWS, STRETCH_BYTES * max(rows, 1) // max(size, 1)))


def chosen_columns(schema: pa.Schema, columns: Sequence[str] | None) -> list[str]:
    """Return the names of the columns to yield, all of which the source must have.

    Raises
    ------
    SteepestError
        If the source has no such column.
    """
    names = list(schema.names if columns is None else columns)
    if unknown := next((name for name in names if name not in schema.names), None):
        raise SteepestError(f"the rows have no column {unknown!r}.", hint=nearest(unknown, schema.names))
    return names

"""Rows from anything: files, folders, URLs, frames, arrays, streams, or a source of the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from steepest.data.faults import standing
from steepest.data.file_source import open_files
from steepest.data.kinds import common_type, in_type
from steepest.data.memory import kept_columns, open_memory
from steepest.data.rows import Reconsidered, RowSource, Stretch, chosen_columns
from steepest.errors import SteepestError


def open_source(
    data: Any,
    drop: Sequence[str] = (),
    *,
    columns: Sequence[str] | None = None,
    max_rejected: float = 0.01,
) -> RowSource:
    """Open rows of any size as a stream that can be read as often as needed.

    Parameters
    ----------
    data
        One of

        - names of files, globs (``**`` too), or one of these: CSV, TSV and JSON lines (also compressed),
          Parquet, Arrow and Feather; folders of Parquet files, whose folders' names may hold columns
          ("year=2013"); URLs of these on any file system that fsspec knows. The order of the rows is the
          order of the names; the files of a glob or a folder are sorted by name;
        - a pandas or Polars DataFrame (an index is left out), an Arrow table or batch;
        - any Arrow stream (a `pyarrow.RecordBatchReader`, a DuckDB relation, ...), which is read once, into a
          temporary file that goes away with the source;
        - a mapping of names to equally long arrays; a matrix in it becomes the columns "name 0", ...;
        - a NumPy or SciPy sparse matrix, whose columns are named "0", "1", ...; like any array, it may be a
          memory map: it is read piece by piece;
        - a `RowSource`.
    drop
        Names of columns to leave out; in files they are not even converted.
    columns
        Names of the columns to read, all of which must be there; by default all but those of `drop`.
    max_rejected
        The share of a text file's rows, and of the values in one of its columns, that may be unusable: broken
        lines, bytes that are not UTF-8, values that are not of their column's kind. With 0, each is an error.

    Returns
    -------
    RowSource
        Files are unified: integers in one file and decimals in another become decimals; nothing but missing
        values in one takes the type of another. NaN in memory counts as missing.

    Raises
    ------
    SteepestError
        If something is missing, unreadable, broken or empty, if files differ in their columns, or if a column
        mixes types.

    Examples
    --------
    >>> source = open_source({"distance": [100, 200, 300], "late": [True, False, True]})
    >>> source.rows, source.schema.names
    (3, ['distance', 'late'])
    >>> for stretch in source.stretches(["distance"], first=1):
    ...     print(stretch.rows["distance"].to_pylist(), stretch.locate(0))
    [200, 300] memory, row 2
    """
    if isinstance(data, str) or (
        isinstance(data, (list, tuple)) and all(isinstance(each, str) for each in data)
    ):
        return open_files([data] if isinstance(data, str) else data, drop, columns, max_rejected)
    if hasattr(data, "stretches"):
        names = kept_columns(data.schema.names, drop, columns)
        return AdoptedSource(pa.schema([data.schema.field(name) for name in names]), data)
    return open_memory(data, drop, columns)


@dataclass(frozen=True)
class AdoptedSource(RowSource):
    """A user's own source, whose plain tables and batches become stretches.

    Parameters
    ----------
    schema
        The columns that are read, and their types.
    source
        The user's own.
    """

    schema: pa.Schema
    source: RowSource

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names that the source gives."""
        return self.source.names

    @property
    def rows(self) -> int | None:  # type: ignore[override]
        """The number of rows that the source states."""
        return self.source.rows

    def fingerprint(self) -> str | None:
        """Return the source's own fingerprint."""
        return self.source.fingerprint()

    def stretches(self, columns: Sequence[str] | None = None, first: int = 0) -> Iterator[Stretch]:
        """Yield the rows from one on, as `RowSource.stretches` says."""
        chosen = chosen_columns(self.schema, columns)
        start = first
        for each in self.source.stretches(chosen, first):
            stretch = each if isinstance(each, Stretch) else Stretch(_table(each), self._locate(start))
            start += stretch.rows.num_rows
            yield stretch._replace(rows=stretch.rows.select(chosen))

    def _locate(self, start: int) -> Any:
        return lambda row: standing(self.names[0], start + row)


def _table(rows: Any) -> pa.Table:
    return pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows


@dataclass(frozen=True)
class Table:
    """Rows, all of them, and where each of them came from.

    Parameters
    ----------
    rows
        The rows of all files, in the order of the files.
    files
        The files' names; ``("memory",)`` for rows that came from no file.
    source
        Where they were read from.

    Examples
    --------
    >>> table = table_of({"distance": [100, 200], "late": [True, False]})
    >>> table.rows.num_rows, table.files, table.locate(1)
    (2, ('memory',), 'memory, row 2')
    """

    rows: pa.Table
    files: tuple[str, ...]
    source: RowSource = field(repr=False)

    def locate(self, row: int) -> str:
        """Return where a row came from, for a person.

        Parameters
        ----------
        row
            The row of `rows`, counted from 0.

        Returns
        -------
        str
            The file and, in CSV and JSON lines, the line on which the row begins (counted from 1, the line of
            column names included); otherwise the row within the file (counted from 1). To find it, the rows
            are read again up to it.

        Raises
        ------
        IndexError
            If there is no such row.
        """
        if not 0 <= row < self.rows.num_rows:
            raise IndexError(row)
        try:
            return next(each for each in self.source.stretches(first=row) if len(each.rows)).locate(0)
        except SteepestError:  # a file is no longer what it was
            return standing(self.files[0] if len(self.files) == 1 else "the files", row)


def read_table(
    patterns: Sequence[str], drop: Sequence[str] = (), *, columns: Sequence[str] | None = None
) -> Table:
    """Read files as one table.

    Parameters
    ----------
    patterns
        Names of files, globs, folders and URLs, as `open_source` takes them.
    drop
        Names of columns to leave out; they are not even converted.
    columns
        Names of the columns to read, all of which must be there; by default all but those of `drop`.

    Returns
    -------
    Table
        The columns in the order of the first file.

    Raises
    ------
    SteepestError
        If a file is missing, unreadable or broken, if there are no rows, if the files differ in their
        columns, or if a column mixes types.
    """
    return _collected(open_source(list(patterns), drop, columns=columns, max_rejected=0))


def table_of(frame: Any) -> Table:
    """Return rows in memory as a table.

    Parameters
    ----------
    frame
        What `open_source` takes, but for names of files.

    Returns
    -------
    Table
        NaN in pandas and NumPy columns counts as missing.

    Raises
    ------
    SteepestError
        If no rows can be taken from it, it has none, has a name twice, or a column mixes types.
    """
    return _collected(open_memory(frame, (), None))


def _collected(source: RowSource) -> Table:
    """Return all rows of a source, each column in the type that holds its values."""
    try:
        tables = [stretch.rows for stretch in source.stretches()]
    except Reconsidered as reconsidered:
        return _collected(reconsidered.source)
    whole = []
    for field_ in source.schema:
        parts = [table[field_.name] for table in tables]
        # Blocks of a text file differ at most as whole numbers and decimals or days and times do.
        common = common_type([part.type for part in parts]) or field_.type
        chunks = [chunk for part in parts for chunk in in_type(part, common).chunks]
        whole.append(pa.chunked_array(chunks, common))
    return Table(pa.table(whole, names=source.schema.names), source.names, source)

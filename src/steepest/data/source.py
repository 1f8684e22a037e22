"""Rows from anything: files, folders, URLs, frames, arrays, streams, or a source of the user's own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from steepest.data.faults import standing
from steepest.data.file_source import open_files
from steepest.data.memory import kept_columns, open_memory
from steepest.data.rows import RowSource, Stretch, chosen_columns


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

        - names of files, globs (``**`` too), or one of these: CSV, TSV, JSON lines and svmlight (also
          compressed), Parquet, Arrow and Feather; folders of Parquet files, whose folders' names may hold
          columns ("year=2013"); URLs of these on any file system that fsspec knows. The order of the rows is
          the order of the names; the files of a glob or a folder are sorted by name;
        - a pandas or Polars DataFrame (an index is left out), an Arrow table or batch;
        - any Arrow stream (a `pyarrow.RecordBatchReader`, a DuckDB relation, ...), which is read once, into a
          temporary file that goes away with the source;
        - a mapping of names to equally long arrays; a matrix in it becomes the columns "name 0", ..., but a
          SciPy sparse matrix of more than 256 columns one column of maps, "name", from the numbers of its
          columns to values;
        - a NumPy or SciPy sparse matrix, whose columns are named "0", "1", ...; like any array, it may be a
          memory map: it is read piece by piece;
        - a `RowSource`.
    drop
        Names of columns to leave out; in files they are not even converted.
    columns
        Names of the columns to read, all of which must be there; by default all but those of ``drop``.
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
    names = data if isinstance(data, (list, tuple)) else [data]
    if all(isinstance(each, (str, os.PathLike)) for each in names):
        return open_files([os.fspath(each) for each in names], drop, columns, max_rejected)
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

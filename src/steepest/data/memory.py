"""Rows in memory as a source: tables, frames, arrays, matrices, and streams that can be read once only."""

from __future__ import annotations

import collections
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from steepest.data.columnar import open_arrow
from steepest.data.faults import mixed_types, require_distinct, standing
from steepest.data.files import find_files
from steepest.data.maps import MAPS, NUMBERED, maps_of
from steepest.data.rows import (
    STRETCH_BYTES,
    STRETCH_ROWS,
    RowSource,
    Stretch,
    chosen_columns,
    rows_per_stretch,
)
from steepest.errors import SteepestError, nearest

MOST_DENSE = 256
"""The number of columns up to which a sparse matrix in a mapping is a column for each."""

PAIR_BYTES = 16


class Group(NamedTuple):
    """Columns that are taken from one object in memory: an array, a matrix, a table.

    Parameters
    ----------
    schema
        Their names and types.
    length
        The number of rows.
    width
        The bytes of a row.
    take
        (places of columns, first row, end) -> these columns of these rows, as Arrow arrays.
    """

    schema: pa.Schema
    length: int
    width: int
    take: Callable[[Sequence[int], int, int], Sequence[Any]]


@dataclass(frozen=True)
class MemorySource(RowSource):
    """Rows in memory, converted to Arrow a stretch at a time.

    Parameters
    ----------
    schema
        The columns that are read, and their types.
    groups
        Where they are, with as many rows each.
    """

    schema: pa.Schema
    groups: tuple[Group, ...]

    @property
    def rows(self) -> int:  # type: ignore[override]
        """The number of rows."""
        return self.groups[0].length

    def stretches(self, columns: Sequence[str] | None = None, first: int = 0) -> Iterator[Stretch]:
        """Yield the rows from one on, as `RowSource.stretches` says."""
        chosen = chosen_columns(self.schema, columns)
        step = rows_per_stretch(self.rows, self.rows * sum(group.width for group in self.groups))
        for start in range(first, self.rows, step):
            stop = min(start + step, self.rows)
            found: dict[str, Any] = {}
            for group in self.groups:
                places = [place for place, name in enumerate(group.schema.names) if name in chosen]
                names = [group.schema.names[place] for place in places]
                found.update(zip(names, group.take(places, start, stop), strict=True) if places else ())
            yield Stretch(pa.table({name: found[name] for name in chosen}), _locate_from(start))


@dataclass(frozen=True)
class SpooledSource(RowSource):
    """Rows of a stream that could be read once only, kept in a file that goes when the source does.

    Parameters
    ----------
    schema
        The columns and their types.
    path
        The Arrow file.
    rows
        The number of rows.
    """

    schema: pa.Schema
    path: Path
    rows: int = field()

    def stretches(self, columns: Sequence[str] | None = None, first: int = 0) -> Iterator[Stretch]:
        """Yield the rows from one on, as `RowSource.stretches` says."""
        chosen = chosen_columns(self.schema, columns)
        file = find_files([str(self.path)], lambda _: True)[0]
        with file.reading("Arrow"):
            for begin, table in open_arrow(file, None, ()).batches(chosen, first):
                start = max(begin, first)
                if begin + len(table) > start:
                    yield Stretch(table.slice(start - begin), _locate_from(start))


def _locate_from(start: int) -> Callable[[int], str]:
    return lambda row: standing("memory", start + row)


def open_memory(data: Any, drop: Sequence[str], columns: Sequence[str] | None) -> RowSource:
    """Open rows in memory, as `steepest.data.source.open_source` says."""
    groups = _groups(data)
    if groups is None and hasattr(data, "__arrow_c_stream__"):
        return _spooled(pa.RecordBatchReader.from_stream(data), drop, columns)
    if groups is None:
        raise SteepestError(
            f"rows cannot be taken from a {type(data).__name__}.",
            hint="Give a pandas or Polars DataFrame, an Arrow table or stream, a NumPy or SciPy matrix, a"
            " dictionary of arrays, or names of files.",
        )
    fields = [each for group in groups for each in group.schema]
    names = [each.name for each in fields]
    require_distinct(names, "the table")
    lengths = {group.schema.names[0]: group.length for group in groups if group.schema.names}
    if len(set(lengths.values())) > 1:
        raise SteepestError(
            f"the columns differ in length: {lengths}.", hint="Give each column one value a row."
        )
    kept = kept_columns(names, drop, columns)
    if groups[0].length == 0:
        raise SteepestError("the table has no rows.", hint="Give at least one row.")
    return MemorySource(pa.schema([each for each in fields if each.name in kept]), tuple(groups))


def kept_columns(names: Sequence[str], drop: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """Return the names of a table's columns that are wanted: all but those of `drop`, or those of `columns`.

    Raises
    ------
    SteepestError
        If there is no such column, or none is left.
    """
    if missing := next((name for name in columns or () if name not in names), None):
        raise SteepestError(f"the table has no column {missing!r}.", hint=nearest(missing, names))
    if missing := next((name for name in drop if name not in names), None):
        raise SteepestError(
            f"the table has no column {missing!r} to leave out.", hint=nearest(missing, names)
        )
    kept = [name for name in names if name not in drop and (columns is None or name in columns)]
    if not kept:
        raise SteepestError("the table has no column left.", hint="Leave fewer columns out.")
    return kept


def _groups(data: Any) -> list[Group] | None:
    """Return the columns of rows that are wholly in memory, or None."""
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if type(data).__module__.startswith("polars.") and hasattr(data, "to_arrow"):
        data = data.to_arrow()
    if isinstance(data, pa.Table):
        return [_of_arrow(name, column) for name, column in zip(data.column_names, data.columns, strict=True)]
    if isinstance(data, Mapping):
        return [_of_value(str(name), values) for name, values in data.items()]
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return [_of_series(str(name), data.iloc[:, place]) for place, name in enumerate(data.columns)]
    if _is_matrix(data):
        return [_of_matrix("", data)]
    return None


def _is_matrix(values: Any) -> bool:
    return getattr(values, "ndim", None) == 2 and (isinstance(values, np.ndarray) or hasattr(values, "tocsr"))


def _of_value(name: str, values: Any) -> Group:
    """Return the column, or the columns, that a value of a mapping is."""
    if _is_matrix(values) and hasattr(values, "tocsr") and values.shape[1] > MOST_DENSE:
        return _of_sparse(name, values)
    if _is_matrix(values):
        return _of_matrix(f"{name} ", values)
    if hasattr(values, "iloc"):
        return _of_series(name, values)
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "biufM":
        return _of_numbers(name, values)
    return _of_arrow(name, _array(name, values))


def _of_series(name: str, values: Any) -> Group:
    plain = isinstance(values.dtype, np.dtype) and values.dtype.kind in "biufM"
    return _of_numbers(name, values.to_numpy()) if plain else _of_arrow(name, _array(name, values))


def _of_arrow(name: str, column: Any) -> Group:
    """Return a column that is in Arrow's form already."""
    whole = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    whole = whole.cast(plain_type(whole.type))

    def take(_: Sequence[int], start: int, stop: int) -> list[pa.ChunkedArray]:
        return [whole.slice(start, stop - start)]

    width = math.ceil(whole.nbytes / max(len(whole), 1))
    return Group(pa.schema([(name, whole.type)]), len(whole), width, take)


def _of_numbers(name: str, values: np.ndarray) -> Group:
    """Return a column of numbers, times or booleans of NumPy's; NaN and NaT are missing."""
    native = values.dtype.newbyteorder("=")

    def take(_: Sequence[int], start: int, stop: int) -> list[pa.Array]:
        return [pa.array(values[start:stop].astype(native, copy=False), from_pandas=True)]

    return Group(pa.schema([(name, take([0], 0, 0)[0].type)]), len(values), native.itemsize, take)


def _of_sparse(name: str, values: Any) -> Group:
    """Return a sparse matrix as one column of maps: the numbers of its columns, with a value each."""
    _require_numbers(name, values)
    matrix = values.tocsr()

    def take(_: Sequence[int], start: int, stop: int) -> list[pa.MapArray]:
        return [maps_of(matrix.indptr[start : stop + 1], matrix.indices, matrix.data)]

    rows = matrix.shape[0]
    width = math.ceil(PAIR_BYTES * len(matrix.data) / max(rows, 1))
    return Group(pa.schema([(name, MAPS[NUMBERED])]), rows, width, take)


def _require_numbers(name: str, matrix: Any) -> None:
    if matrix.dtype.kind not in "biuf":
        raise SteepestError(
            f"the matrix{f' {name!r}' if name else ''} holds values of the type {matrix.dtype}.",
            hint="Give it numbers or booleans.",
        )


def _of_matrix(prefix: str, values: Any) -> Group:
    """Return the columns of a matrix, which is made dense a stretch at a time."""
    _require_numbers(prefix.strip(), values)
    matrix = values.tocsr() if hasattr(values, "tocsr") else values
    native = matrix.dtype.newbyteorder("=")

    def take(places: Sequence[int], start: int, stop: int) -> list[pa.Array]:
        rows = matrix[start:stop]
        dense = rows.toarray() if hasattr(rows, "toarray") else rows
        return [pa.array(dense[:, place].astype(native), from_pandas=True) for place in places]

    type_ = pa.from_numpy_dtype(native)
    schema = pa.schema([(f"{prefix}{place}", type_) for place in range(matrix.shape[1])])
    return Group(schema, matrix.shape[0], native.itemsize * matrix.shape[1], take)


def plain_type(column_type: pa.DataType) -> pa.DataType:
    """Return the type for a column whose text is kept as views into other text, which few functions take.

    Examples
    --------
    >>> plain_type(pa.string_view()), plain_type(pa.int8())
    (DataType(string), DataType(int8))
    """
    inner = column_type.value_type if pa.types.is_dictionary(column_type) else column_type
    return pa.string() if inner == pa.string_view() else column_type


def _spooled(reader: Any, drop: Sequence[str], columns: Sequence[str] | None) -> SpooledSource:
    """Write what a stream yields into a file, a stretch at a time, so that it can be read again."""
    require_distinct(reader.schema.names, "the stream")
    kept = kept_columns(reader.schema.names, drop, columns)
    schema = pa.schema([(name, plain_type(reader.schema.field(name).type)) for name in kept])
    folder = Path(tempfile.mkdtemp(prefix="steepest-"))
    path, rows = folder / "rows.arrow", 0
    try:
        with pa.ipc.new_file(path, schema) as sink:
            for table in _grouped(batch.select(kept) for batch in reader):
                sink.write_table(table.cast(schema), max_chunksize=STRETCH_ROWS)
                rows += table.num_rows
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, (pa.ArrowException, OSError)):
            reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0]
            raise SteepestError(
                f"the stream cannot be kept in {folder.parent}: {reason.rstrip('.')} (after {rows:,} rows).",
                hint="Make room there, or set TMPDIR to a folder that has it.",
            ) from error
        raise
    source = SpooledSource(schema, path, rows)
    weakref.finalize(source, shutil.rmtree, folder, ignore_errors=True)
    if rows == 0:
        raise SteepestError("the stream has no rows.", hint="Give at least one row.")
    return source


def _grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join small batches to stretches."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= STRETCH_ROWS or sum(each.nbytes for each in held) >= STRETCH_BYTES:
            yield pa.Table.from_batches(held).combine_chunks()
            held = []
    if held:
        yield pa.Table.from_batches(held).combine_chunks()


def _array(name: str, values: Any) -> Any:
    """Return one column in memory as an Arrow array."""
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        found = list(values) if hasattr(values, "__iter__") else []
        kinds = [_kind_of(value) for value in found]
        counts = collections.Counter(kind for kind in kinds if kind)
        if len(counts) < 2:
            raise SteepestError(
                f"column {name!r} cannot be read: {str(error).splitlines()[0]}.",
                hint="Give it numbers, text, booleans, dates or times.",
            ) from None
        usual = counts.most_common(1)[0][0]
        row = next(row for row, kind in enumerate(kinds) if kind and kind != usual)
        others = counts.total() - counts[usual]
        raise mixed_types(
            name, f"values of the type {usual}", found[row], standing("memory", row), others
        ) from None


def _kind_of(value: object) -> str:
    """Return the name of a value's Python type, or nothing for a missing value."""
    kind = type(value).__name__
    missing = kind in ("NoneType", "NAType", "NaTType") or (isinstance(value, float) and math.isnan(value))
    return "" if missing else kind

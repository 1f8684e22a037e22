"""Parquet and Arrow files as parts of a source: batch by batch, only the columns that are asked for."""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from steepest.data.faults import require_distinct, standing
from steepest.data.rows import Stretch, rows_per_stretch
from steepest.errors import SteepestError

if TYPE_CHECKING:
    from steepest.data.files import File

_BUFFER = 2**20


@dataclass(frozen=True)
class ParquetPart:
    """A Parquet file, opened: its footer was read.

    Parameters
    ----------
    file
        The file.
    names
        The names of all of its columns.
    schema
        The columns that are read.
    rows
        The number of rows.
    """

    file: File
    names: tuple[str, ...]
    schema: pa.Schema
    rows: int
    called: str = field(default="Parquet", init=False)

    def batches(self, columns: Sequence[str], first: int) -> Iterator[tuple[int, pa.Table]]:
        """Yield the first row's number and the columns of rows from one on."""
        with self.file.open() as opened, _parquet(opened) as file:
            groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
            begin, left = 0, list(range(len(groups)))
            while left and begin + groups[left[0]].num_rows <= first:
                begin += groups[left.pop(0)].num_rows
            size = sum(groups[index].total_byte_size for index in left)
            rows = rows_per_stretch(sum(groups[index].num_rows for index in left), size)
            for batch in file.iter_batches(batch_size=rows, row_groups=left, columns=list(columns)):
                yield begin, pa.Table.from_batches([batch])
                begin += batch.num_rows
            if begin != self.rows:
                self.file.require_unchanged()
                raise SteepestError(
                    f"{self.file.name} holds {begin:,} rows, but states {self.rows:,}.",
                    hint="Write it again.",
                )


@dataclass(frozen=True)
class ArrowPart:
    """An Arrow file (or stream of batches), opened: its schema was read.

    Parameters
    ----------
    file
        The file.
    names
        The names of all of its columns.
    schema
        The columns that are read.
    """

    file: File
    names: tuple[str, ...]
    schema: pa.Schema
    rows: None = None
    called: str = field(default="Arrow", init=False)

    def batches(self, columns: Sequence[str], first: int) -> Iterator[tuple[int, pa.Table]]:
        """Yield the first row's number and the columns of rows from one on."""
        begin = 0
        with _arrow(self.file) as opened:
            for batch in _arrow_batches(opened):
                if begin + batch.num_rows <= first:
                    yield begin + batch.num_rows, self.schema.empty_table().select(list(columns))
                else:
                    table = pa.Table.from_batches([batch]).select(list(columns))
                    rows = rows_per_stretch(table.num_rows, table.nbytes)
                    for start in range(0, table.num_rows, rows):
                        self._require_whole()
                        piece = table.slice(start, rows)
                        piece.validate(full=True)  # the reader trusts offsets that a broken file may have
                        yield begin + start, piece
                begin += batch.num_rows

    def _require_whole(self) -> None:
        """Raise SteepestError if the mapped file changed: touching what is gone would end the process."""
        if self.file.remote is None:
            self.file.require_unchanged()


Columnar = ParquetPart | ArrowPart


def read_columnar(
    part: Columnar, columns: Sequence[str], first: int, keys: dict[str, pa.Scalar]
) -> Generator[Stretch, None, int]:
    """Yield the rows of a part from one on, and return the number of all.

    Parameters
    ----------
    part
        The file.
    columns
        The columns to yield, some of which may be keys.
    first
        The first row, from 0.
    keys
        Column -> its one value, for columns that are not in the file but in the names of its folders.
    """
    inside = [name for name in columns if name not in keys] or list(
        part.names[:1]
    )  # which has the rows' number
    end = 0
    for begin, table in part.batches(inside, first):
        end = begin + len(table)
        skipped = max(0, first - begin)
        rows = table.slice(skipped)
        found = {name: pa.repeat(keys[name], len(rows)) if name in keys else rows[name] for name in columns}
        start, name = begin + skipped, part.file.name
        if len(rows):
            yield Stretch(pa.table(found), functools.partial(_locate, name, start))
    return end if part.rows is None else part.rows


def _locate(name: str, start: int, row: int) -> str:
    return standing(name, start + row)


def open_parquet(file: File, wanted: Sequence[str] | None, drop: Sequence[str]) -> ParquetPart:
    """Open a Parquet file: read its footer."""
    with file.open() as opened, _parquet(opened) as parquet:
        schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
    return ParquetPart(file, *_kept(file, schema, wanted, drop), rows)


def open_arrow(file: File, wanted: Sequence[str] | None, drop: Sequence[str]) -> ArrowPart:
    """Open an Arrow or Feather file: read its schema."""
    with _arrow(file) as reader:
        schema = reader.schema
    return ArrowPart(file, *_kept(file, schema, wanted, drop))


def _kept(
    file: File, schema: pa.Schema, wanted: Sequence[str] | None, drop: Sequence[str]
) -> tuple[tuple[str, ...], pa.Schema]:
    """Return the names of all columns, and the columns that are read."""
    require_distinct(schema.names, file.name)
    kept = [name for name in schema.names if name not in drop and (wanted is None or name in wanted)]
    return tuple(schema.names), pa.schema([(name, schema.field(name).type) for name in kept])


def _parquet(opened: Any) -> pq.ParquetFile:
    # Buffered columns: a row group of any size is read a little at a time.
    return pq.ParquetFile(opened, buffer_size=_BUFFER, pre_buffer=False)


def _arrow(file: File) -> Any:
    """Open batches at known places or one after the other; mapped into memory where they are local."""
    opened = pa.memory_map(file.path) if file.remote is None else file.open()
    in_places = opened.read(6) == b"ARROW1"
    opened.seek(0)
    return pa.ipc.open_file(opened) if in_places else pa.ipc.open_stream(opened)


def _arrow_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)
    else:
        yield from reader

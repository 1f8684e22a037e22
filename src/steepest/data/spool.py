"""Rows that are slow to read, such as text: kept as they are read, so that the next pass is quick."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from steepest.data.cache import full_disk
from steepest.data.file_source import FileSource
from steepest.data.rows import Rejected, RowSource, Stretch, chosen_columns
from steepest.data.text import TextPart

IN_MEMORY = 2**26
"""Bytes of rows that are kept in memory; from there on they are in a file."""


REJECTED = b"rejected"
"""Under this name a table keeps, as metadata, the rows that stood among its own and can't be used."""


class Spool:
    """Tables one after the other: in memory while they are small, then in a file that goes with it.

    Parameters
    ----------
    folder
        Where the file is made, without a name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: list[pa.Table] = []
        self._size = 0
        self._file: Any = None
        self._places: list[tuple[int, int]] = []

    def add(self, table: pa.Table) -> None:
        """Keep a table.

        Raises
        ------
        SteepestError
            If the disk is full.
        """
        self._size += table.nbytes
        if self._file is None and self._size <= IN_MEMORY:
            self._held.append(table)
            return
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - it lives as long as this
                for held in self._held:
                    self._write(held)
                self._held = []
            self._write(table)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise full_disk(self._folder) from error
            raise

    def _write(self, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        content = sink.getvalue()
        self._places.append((self._file.tell(), content.size))
        self._file.write(content)

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield the tables."""
        yield from self._held
        if self._file is not None:
            self._file.flush()
        for place, size in self._places:
            yield pa.ipc.open_stream(pa.py_buffer(os.pread(self._file.fileno(), size, place))).read_all()

    def close(self) -> None:
        """Let go of the tables."""
        self._held, self._places = [], []
        if self._file is not None:
            self._file.close()


class SpooledPasses(RowSource):
    """A source whose first pass over all rows is kept for those that follow.

    Parameters
    ----------
    source
        Where the rows come from.
    folder
        Where a file may be made.
    """

    def __init__(self, source: RowSource, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.names, self.schema, self.rows = source.names, source.schema, source.rows
        self._spool: Spool | None = None

    def fingerprint(self) -> str | None:
        """Return the source's own fingerprint."""
        return self.source.fingerprint()

    def stretches(self, columns: Sequence[str] | None = None, first: int = 0) -> Iterator[Stretch]:
        """Yield the rows from one on, as `RowSource.stretches` says."""
        chosen = chosen_columns(self.schema, columns)
        if self._spool is not None:
            yield from self._again(self._spool, chosen, first)
        elif first:
            yield from self.source.stretches(chosen, first)
        else:
            spool, seen = Spool(self.folder), 0
            try:
                for stretch in self.source.stretches():
                    spool.add(stretch.rows.replace_schema_metadata({REJECTED: json.dumps(stretch.rejected)}))
                    seen += stretch.rows.num_rows
                    yield stretch._replace(rows=stretch.rows.select(chosen))
            except BaseException:
                spool.close()
                raise
            self._spool, self.rows = spool, seen

    def _again(self, spool: Spool, chosen: list[str], first: int) -> Iterator[Stretch]:
        start = 0
        for table in spool:
            rows = table.slice(max(0, first - start)).select(chosen)
            rejected = [Rejected(*each) for each in json.loads(table.schema.metadata[REJECTED])]
            if rows.num_rows or (rejected and start >= first):
                yield Stretch(rows, self._locate(max(start, first)), tuple(rejected))
            start += table.num_rows

    def _locate(self, start: int) -> Callable[[int], str]:
        def locate(row: int) -> str:
            stretch = next(iter(self.source.stretches(None, start + row)))
            return stretch.locate(0)

        return locate

    def close(self) -> None:
        """Let go of what was kept."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None


def is_slow(source: RowSource) -> bool:
    """Tell whether a source takes much longer to read than what was kept of it."""
    return isinstance(source, FileSource) and any(
        isinstance(part, TextPart) or part.file.remote is not None for part in source.parts
    )

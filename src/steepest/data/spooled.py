"""Rows of an Arrow file that another process wrote for this one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from steepest.data.rows import RowSource, Stretch, chosen_columns


class ArrowFile(RowSource):
    """The rows of a file in Arrow's file format, mapped into memory; none at all is no error.

    Parameters
    ----------
    path
        The file.
    names
        What a person calls the rows.
    """

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self.path, self.names = path, names
        with self._opened() as file:
            self.schema = file.schema
            counts = [file.get_batch(number).num_rows for number in range(file.num_record_batches)]
        self.rows = sum(counts)
        self._counts = counts

    def _opened(self) -> Any:
        return pa.ipc.open_file(pa.memory_map(str(self.path)))

    def stretches(self, columns: Sequence[str] | None = None, first: int = 0) -> Iterator[Stretch]:
        """Yield the rows from one on, as `RowSource.stretches` says."""
        chosen, start = chosen_columns(self.schema, columns), 0
        with self._opened() as file:
            for number, count in enumerate(self._counts):
                if start + count > first:
                    rows = pa.Table.from_batches([file.get_batch(number)]).select(chosen)
                    begin = max(0, first - start)
                    yield Stretch(rows.slice(begin), self._locate(start + begin))
                start += count

    def _locate(self, start: int) -> Any:
        return lambda row: f"{self.names[0]}, row {start + row + 1} of a worker's"

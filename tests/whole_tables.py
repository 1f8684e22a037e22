"""Whole tables of what a source streams, for tests that look at all rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from steepest.data.faults import standing
from steepest.data.kinds import common_type, in_type
from steepest.data.memory import open_memory
from steepest.data.rows import Reconsidered, RowSource
from steepest.data.source import open_source
from steepest.errors import SteepestError


@dataclass(frozen=True)
class Table:
    """Rows, all of them, and where each of them came from."""

    rows: pa.Table
    files: tuple[str, ...]
    source: RowSource = field(repr=False)

    def locate(self, row: int) -> str:
        """Return where a row came from, for a person."""
        if not 0 <= row < self.rows.num_rows:
            raise IndexError(row)
        try:
            return next(each for each in self.source.stretches(first=row) if len(each.rows)).locate(0)
        except SteepestError:  # a file is no longer what it was
            return standing(self.files[0] if len(self.files) == 1 else "the files", row)


def read_table(
    patterns: Sequence[str], drop: Sequence[str] = (), *, columns: Sequence[str] | None = None
) -> Table:
    """Read files as one table; whatever can't be used is an error."""
    return _collected(open_source(list(patterns), drop, columns=columns, max_rejected=0))


def table_of(frame: Any) -> Table:
    """Return rows in memory as a table."""
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

"""Some columns of a source, in an order of their own, as a source under a name of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from steepest.data.rows import RowSource, Stretch, chosen_columns


@dataclass(frozen=True)
class ChosenColumns(RowSource):
    """The rows of a source, with columns of these names; one that the source has not is empty.

    Parameters
    ----------
    source
        All columns.
    columns
        The names, in order.
    names
        What a person calls the rows.

    Examples
    --------
    >>> from steepest.data.source import open_source
    >>> chosen = ChosenColumns(open_source({"a": [1, 2], "b": [3, 4]}), ("b", "c"), ("numbers",))
    >>> [stretch.rows.to_pydict() for stretch in chosen.stretches()]
    [{'b': [3, 4], 'c': [None, None]}]
    """

    source: RowSource
    columns: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def schema(self) -> Any:
        """The columns and their types."""
        known = self.source.schema
        return pa.schema(
            known.field(name) if name in known.names else pa.field(name, pa.null()) for name in self.columns
        )

    @property
    def rows(self) -> int | None:  # type: ignore[override]
        """How many rows there are; None where it is unknown without reading all."""
        return self.source.rows

    def fingerprint(self) -> str | None:
        """Return a digest of the source's fingerprint and of the columns, if the source has one."""
        known = self.source.fingerprint()
        return known and hashlib.sha256(repr((known, self.columns)).encode()).hexdigest()

    def stretches(self, columns: Sequence[str] | None = None, first: int = 0) -> Iterator[Stretch]:
        """Yield the rows from one on, as `RowSource.stretches` says."""
        chosen = chosen_columns(self.schema, columns)
        known = [name for name in chosen if name in self.source.schema.names]
        for stretch in self.source.stretches(known, first):
            empty = pa.nulls(stretch.rows.num_rows)
            rows = {name: stretch.rows.column(name) if name in known else empty for name in chosen}
            yield stretch._replace(rows=pa.table(rows))

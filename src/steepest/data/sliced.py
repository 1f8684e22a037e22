"""Some consecutive rows of a source, as a source of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from steepest.data.rows import RowSource, Stretch


@dataclass(frozen=True)
class SlicedSource(RowSource):
    """Consecutive rows of a source whose rows can be read from any one on.

    Parameters
    ----------
    source
        All rows.
    first, last
        The number of the first of them, from 0, and of the one after the last.

    Examples
    --------
    >>> from steepest.data.source import open_source
    >>> numbers = SlicedSource(open_source({"number": [1, 2, 3, 4]}), 1, 3)
    >>> [stretch.rows["number"].to_pylist() for stretch in numbers.stretches()]
    [[2, 3]]
    """

    source: RowSource
    first: int
    last: int

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the source's files."""
        return self.source.names

    @property
    def schema(self) -> Any:
        """The source's columns and their types."""
        return self.source.schema

    @property
    def rows(self) -> int:  # type: ignore[override]
        """How many rows these are."""
        return self.last - self.first

    def fingerprint(self) -> str | None:
        """Return the source's fingerprint."""
        return self.source.fingerprint()

    def stretches(self, columns: Sequence[str] | None = None, first: int = 0) -> Iterator[Stretch]:
        """Yield the rows from one on, as `RowSource.stretches` says."""
        left = self.rows - first
        if left <= 0:
            return
        for stretch in self.source.stretches(columns, self.first + first):
            yield stretch._replace(rows=stretch.rows.slice(0, left))
            left -= stretch.rows.num_rows
            if left <= 0:
                return


def share_of_rows(rows: int, rank: int, size: int) -> tuple[int, int]:
    """Return where the share of one of several processes begins and ends, each with as many rows.

    The first has a row if there is one.

    Examples
    --------
    >>> [share_of_rows(10, rank, 3) for rank in range(3)]
    [(0, 4), (4, 7), (7, 10)]
    """
    return -(-rows * rank // size), -(-rows * (rank + 1) // size)

"""A uniform sample of rows that stream by: the same rows in whatever pieces or parts they come."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.counting import hashes_of
from steepest.data.order import generator
from steepest.data.passing import as_text, from_text

MOST_CHARACTERS = 256
"""Longer text is cut in a sample, so that its memory is bounded."""


class RowSample:
    """At most so many of the rows that are added, each as likely as any other, in their order.

    Each row has a priority, drawn by the seed and the row's number; those with the smallest are kept. So a
    sample is a function of (seed, rows), however these were cut, and samples of consecutive parts merge into
    that of the whole (Cohen and Kaplan, "Summarizing data using bottom-k sketches", 2007).

    Parameters
    ----------
    seed, purpose
        Name the stream of priorities: see `steepest.data.order.generator`.
    most
        How many rows are kept.
    first
        The number of the first row that is to be added, from 0.

    Examples
    --------
    >>> sample = RowSample(seed=0, purpose=1, most=3)
    >>> for begins in (0, 10, 20):
    ...     sample.update(pa.table({"row": range(begins, begins + 10)}))
    >>> sample.rows, sample.table().num_rows
    (30, 3)
    """

    def __init__(self, seed: int, purpose: int, most: int, first: int = 0) -> None:
        self._key = np.uint64(generator(seed, purpose).bit_generator.random_raw())
        self._most = most
        self._first = first
        self._kept: list[tuple[npt.NDArray[np.uint64], pa.Table]] = []
        self._limit = np.uint64(2**64 - 1)
        self.rows = 0

    def update(self, rows: pa.Table) -> None:
        """Add the next rows: a table with the same columns each time."""
        begins = self._first + self.rows
        numbers = np.arange(begins, begins + rows.num_rows, dtype=np.uint64)
        priorities = hashes_of(pa.array(numbers + self._key))
        self.rows += rows.num_rows
        chosen = priorities <= self._limit
        if chosen.any():
            some = rows if chosen.all() else rows.filter(pa.array(chosen))
            self._kept.append((priorities[chosen], _bounded(some)))
        if sum(len(each) for each, _ in self._kept) > 2 * self._most:
            self._thin()

    def merge(self, other: RowSample) -> None:
        """Take over the sample, which stays as it is, of the rows that come right after these.

        Raises
        ------
        ValueError
            If it was not drawn from those rows, with the same seed and size.
        """
        if (other._key, other._most, other._first) != (self._key, self._most, self._first + self.rows):
            raise ValueError("samples merge where one begins at the row at which the other ends")
        self._kept += other._kept
        self.rows += other.rows
        self._thin()

    def beginning(self, first: int) -> RowSample:
        """Return an empty sample of the same seed and size, whose first row has another number."""
        other = copy.copy(self)
        other._first, other.rows, other._kept, other._limit = first, 0, [], np.uint64(2**64 - 1)
        return other

    def to_json(self) -> dict[str, Any]:
        """Return the sample as plain JSON, for `of`."""
        self._thin()
        priorities, table = self._kept[0] if self._kept else (np.empty(0, np.uint64), pa.table({}))
        kept = as_text(table) if self._kept else None
        return {"first": self._first, "rows": self.rows, "priorities": priorities.tolist(), "table": kept}

    def of(self, stored: Mapping[str, Any]) -> RowSample:
        """Return a sample of the same seed and size that `to_json` wrote."""
        other = self.beginning(stored["first"])
        other.rows = stored["rows"]
        if stored["table"] is not None:
            other._kept = [(np.array(stored["priorities"], np.uint64), from_text(stored["table"]))]
        return other

    def table(self, most: int | None = None) -> pa.Table:
        """Return the sampled rows in their order, or a uniform sample of so many of them.

        Types that differ between pieces become one that holds both. Text is cut at `MOST_CHARACTERS`.
        """
        self._thin()
        if not self._kept:
            return pa.table({})
        priorities, table = self._kept[0]
        if most is None or most >= len(priorities):
            return table
        return table.filter(pa.array(priorities <= np.partition(priorities, most - 1)[most - 1]))

    def _thin(self) -> None:
        if not self._kept:
            return
        priorities = np.concatenate([each for each, _ in self._kept])
        table = pa.concat_tables([each for _, each in self._kept], promote_options="permissive")
        if len(priorities) > self._most:
            self._limit = np.partition(priorities, self._most - 1)[self._most - 1]
            chosen = priorities <= self._limit
            priorities, table = priorities[chosen], table.filter(pa.array(chosen))
        self._kept = [(priorities, table.combine_chunks())]


def _bounded(rows: pa.Table) -> pa.Table:
    """Return rows without dictionaries, whose text is not long."""
    columns = {}
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        if pa.types.is_string_view(plain.type):
            plain = plain.cast(pa.string())
        is_text = pa.types.is_string(plain.type) or pa.types.is_large_string(plain.type)
        columns[name] = pc.utf8_slice_codeunits(plain, 0, MOST_CHARACTERS) if is_text else plain
    return pa.table(columns)

"""Encoded rows as they are kept, packed, in memory or a mapped file, and expanded when they are gathered."""

from __future__ import annotations

import mmap
import tempfile
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from steepest.data.gather import Array, Fetch, Spans, advise, mapped
from steepest.data.layout import Layout, Packed
from steepest.data.order import Rows
from steepest.data.pairs import Pairs, in_strips

ROWS_AT_ONCE = 2**12
"""Rows that are expanded at a time: few enough for what was gathered of them to stay in the cache."""


class Inputs(NamedTuple):
    """What a model with sparse features sees of some rows.

    Attributes
    ----------
    dense
        float32 ``[rows, features]``.
    places
        uint32 or int32 ``[rows, categories]``: which feature each category has; a place beyond all for none.
    lists
        The pairs of text and lists, as `Strips`; ``None`` where there is no such column.
    """

    dense: Any
    places: Any
    lists: Any = None


@dataclass(frozen=True)
class PackedRows:
    """Features ``[rows, features]``, float32, of which only what is asked for is ever expanded.

    Parameters
    ----------
    layout
        How a row is expanded.
    packed
        The rows, but for their lists.
    lists
        The pairs of text and lists; ``None`` where there is no such column.
    fleeting
        Whether mapped rows are let go once they were used.
    """

    layout: Layout
    packed: Packed
    lists: Pairs | None = None
    fleeting: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dense features."""
        return len(self.packed.numbers), self.layout.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always float32."""
        return np.dtype(np.float32)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as it is kept."""
        lists = self.lists.row_bytes if self.lists else 0
        return lists + sum(part.dtype.itemsize * int(part.shape[1]) for part in self._by_row)

    def __len__(self) -> int:
        return len(self.packed.numbers)

    @property
    def _by_row(self) -> tuple[Array, ...]:
        """The arrays that have a line for each row."""
        return self.packed[:3]

    def inputs(self, rows: Rows) -> npt.NDArray[np.float32] | Inputs:
        """Return what a model sees of some rows: `Inputs` where there are sparse features, else the array.

        A row's number may be -1: such a row has any dense features, and no sparse ones.
        """
        dense = self[np.maximum(rows, 0)]
        if not self.layout.sparse:
            return dense
        places = np.where(rows[:, None] >= 0, self.packed.places[rows], self.layout.sparse)
        if self.lists is None:
            return Inputs(dense, places)
        return Inputs(dense, places, self.lists.batch(rows))

    def __getitem__(self, rows: slice | Rows) -> npt.NDArray[np.float32]:
        """Return the dense features of some rows."""
        chosen = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        features = np.empty((len(chosen), self.layout.width), np.float32)
        self.gather(chosen, features)
        self._let_go(chosen)
        return features

    def subset(self, rows: Rows) -> PackedRows:
        """Return some rows, whose numbers rise, in memory."""
        some = [_room(len(rows), part) for part in self._by_row]
        for first in range(0, len(rows), ROWS_AT_ONCE):
            chosen = rows[first : first + ROWS_AT_ONCE]
            for part, out in zip(self._by_row, some, strict=True):
                np.take(part, chosen, axis=0, out=out[first : first + ROWS_AT_ONCE], mode="clip")
            self._let_go(chosen)
        packed = self.packed._replace(numbers=some[0], codes=some[1], places=some[2])
        return PackedRows(self.layout, packed, self.lists and self.lists.subset(rows))

    def _let_go(self, rows: Rows) -> None:
        """Let the pages go, if they are fleeting, that lie between the first and the last of these rows."""
        if self.fleeting and len(rows):
            for array in self.mapped():
                advise(array, int(rows[0]), int(rows[-1]) + 1, mmap.MADV_DONTNEED)

    def dense(self, most: int) -> npt.NDArray[np.float32]:
        """Return all features as an array: in memory up to so many bytes, else in a file of its own."""
        if 4 * len(self) * self.layout.width <= most:
            return self[:]
        with tempfile.TemporaryFile() as file:
            for first in range(0, len(self), ROWS_AT_ONCE):
                file.write(self[first : first + ROWS_AT_ONCE])
            file.flush()
            return np.memmap(file, np.float32, "r", shape=self.shape)

    def gather(self, rows: Rows, out: Array) -> None:
        """Write the features of the rows of these numbers."""
        if self.layout.plain:
            np.take(self.packed.numbers, rows, axis=0, out=out, mode="clip")
            return
        for first in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[first : first + ROWS_AT_ONCE]
            numbers = np.take(self.packed.numbers, some, axis=0, mode="clip")
            codes = np.take(self.packed.codes, some, axis=0, mode="clip")
            dense = self.packed._replace(numbers=numbers, codes=codes)
            self.layout.expand(dense, out[first : first + ROWS_AT_ONCE])

    def mapped(self) -> tuple[Array, ...]:
        """Return the arrays of mapped files that the rows are read from."""
        return tuple(array for part in self._by_row for array in mapped(part))

    def fetched(self, fetch: Fetch, spans: Spans) -> PackedRows:
        """Return the dense features of the rows of these runs, in memory."""
        numbers, codes = (fetch(part, spans) for part in (self.packed.numbers, self.packed.codes))
        return PackedRows(self.layout, self.packed._replace(numbers=numbers, codes=codes))


def packed_rows(layout: Layout, packed: Packed) -> PackedRows:
    """Return rows that were just packed, in memory."""
    lists = packed.ragged.lengths
    pairs = in_strips(*packed.ragged, layout.sparse) if lists.shape[1] else None
    return PackedRows(layout, packed, pairs)


def _room(rows: int, like: Array) -> Array:
    return np.empty((rows, *like.shape[1:]), like.dtype)

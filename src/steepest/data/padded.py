"""Sparse features column by column, as arrays: a place for each row, or places and values side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from steepest.data.gather import Array, Fetch, Gathered, Spans, gathered, mapped
from steepest.data.order import Rows
from steepest.data.pairs import NOWHERE, Pairs

ROWS_AT_ONCE = 2**16
"""Rows whose strips are counted at a time."""


def longest(pairs: Pairs, number: int) -> int:
    """Return the most strips that a row has in one of its lists, at least 1."""
    most = 1
    for first in range(0, len(pairs), ROWS_AT_ONCE):
        begins = pairs.begins[first : first + ROWS_AT_ONCE + 1]
        theirs = pairs.lists[begins[0] : begins[-1]] == number
        before = np.append(0, np.cumsum(theirs))[begins - begins[0]]
        most = max(most, int(np.diff(before).max()))
    return most


@dataclass(frozen=True)
class Placed:
    """The places that rows have in one of their categories, ``[rows, 1]``, counted from its first one.

    Parameters
    ----------
    places
        int32 ``[rows, categories]``, as `steepest.data.layout.Packed` has them.
    number
        Which category.
    first, width
        Its first place, and the number of its places; ``width`` stands for none.
    fleeting
        Whether mapped rows are let go once they were used.

    Examples
    --------
    >>> places = Placed(np.array([[0, 12], [0, 99]], np.int32), 1, first=10, width=5)
    >>> gathered(places, np.array([1, 0])).tolist()
    [[5], [2]]
    """

    places: Array
    number: int
    first: int
    width: int
    fleeting: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """One place a row."""
        return len(self.places), 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always int32."""
        return np.dtype(np.int32)

    def __len__(self) -> int:
        return len(self.places)

    def gather(self, rows: Rows, out: Array) -> None:
        """Write the rows of these numbers."""
        out[:, 0] = np.minimum(self.places[rows, self.number] - self.first, self.width)

    def mapped(self) -> tuple[Array, ...]:
        """Return the array if it is mapped."""
        return mapped(self.places)

    def fetched(self, fetch: Fetch, spans: Spans) -> Placed:
        """Return the rows of these runs, in memory."""
        return replace(self, places=fetch(self.places, spans), fleeting=False)


@dataclass(frozen=True)
class Padded:
    """One of the lists of rows of pairs, side by side: ``[rows, length]``, filled up.

    A window is as long as the longest of its rows, rounded up so that few shapes are compiled.

    Parameters
    ----------
    pairs
        The rows.
    number
        Which of their lists.
    part
        Places, int32, or values, float32; what is filled up is the place ``width``, and the value 0.
    first, width
        The list's first place, which becomes 0, and the number of its places.
    longest
        The most strips that a row has in this list: see `longest`.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from steepest.data.pairs import pairs_of
    >>> rows = pairs_of(csr_array([[0.0, 2.0, 3.0], [0.0, 0.0, 0.0]]))
    >>> Padded(rows, 0, "places", first=0, width=3, longest=1).batch(np.array([1, 0])).tolist()
    [[3, 3], [1, 2]]
    """

    pairs: Pairs
    number: int
    part: Literal["places", "values"]
    first: int
    width: int
    longest: int

    def of(self, pairs: Pairs) -> Padded:
        """Return the same of other rows, such as some that were fetched."""
        return replace(self, pairs=pairs)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and the greatest length."""
        return len(self.pairs), self.longest * int(self.pairs.places.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the part."""
        return np.dtype(np.int32 if self.part == "places" else np.float32)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in a window, at most."""
        return self.shape[1] * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.pairs)

    def batches(self, rows: Rows) -> Array:
        """Gather batches of rows ``[steps, batch_size, length]``; see `Pairs.batches`."""
        return self.batch(rows.ravel()).reshape(*rows.shape, -1)

    def batch(self, rows: Rows) -> Array:
        """Gather one batch of rows ``[rows, length]``; a row's number may be -1 for none."""
        begins, length = self.pairs.begins, int(self.pairs.places.shape[1])
        counts = np.where(rows >= 0, begins[rows + 1] - begins[rows], 0)
        owners = np.repeat(np.arange(len(rows)), counts)
        source = np.arange(len(owners)) + np.repeat(begins[rows] - (np.cumsum(counts) - counts), counts)
        theirs = self.pairs.lists[source] == self.number
        owners, source = owners[theirs], source[theirs]
        counts = np.bincount(owners, minlength=len(rows))
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        most = min(1 << (int(counts.max(initial=1)) - 1).bit_length(), self.longest)
        filling = self.width if self.part == "places" else 0
        out = np.full((len(rows), most, length), filling, self.dtype)
        out[owners, within] = self._taken(source)
        return out.reshape(len(rows), most * length)

    def _taken(self, strips: Rows) -> Array:
        if self.part == "values":
            return self.pairs.values[strips]
        places = self.pairs.places[strips]
        return np.where(places == NOWHERE, self.width, places.astype(np.int64) - self.first)

    def mapped(self) -> tuple[Array, ...]:
        """Return the arrays of mapped files that the rows are read from."""
        return self.pairs.mapped()


Batched = Pairs | Padded
"""Rows that are gathered a window at a time, because it depends on all of them how long they are."""


def taken(source: Array | Gathered | Batched, rows: Rows) -> Any:
    """Return the rows of these numbers: an array, or the strips of pairs."""
    return source.batch(rows) if isinstance(source, Batched) else gathered(source, rows)

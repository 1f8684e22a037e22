"""Sparse rows: pairs of a place and a value, kept and gathered in strips of a fixed length.

A row of a sparse table has few of its many features. What it has are pairs: the place of a feature, and its
value. Pairs are kept in strips of a few pairs each, the last of a row filled up: so rows of any length are
gathered by copying strips, and a compiled step sees arrays of fixed shapes, in which little is padding.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from steepest.data.gather import Array, Fetch, Spans, advise, mapped
from steepest.data.order import Rows

NOWHERE = 2**32 - 1
"""The place of padding: no table has so many rows, and what is looked up there is zero."""

LENGTHS = (4, 8, 16)
"""Pairs of a strip, to choose from where rows differ in their number of pairs."""


ROWS_AT_ONCE = 2**12
"""Fleeting rows that are taken at a time before they are let go."""


class Strips(NamedTuple):
    """The pairs of some rows, as an objective gets them.

    Attributes
    ----------
    places
        uint32 ``[strips, length]``: rows of the table that is looked up; padding is outside of it.
    values
        float32 ``[strips, length]``; 0 for padding.
    owners
        int32 ``[strips]``: ``row · lists + list``, for the row within the batch and one of its lists.
    """

    places: Any
    values: Any
    owners: Any


@dataclass(frozen=True)
class Pairs:
    """Rows of pairs.

    Parameters
    ----------
    begins
        int64 ``[rows + 1]``: a row's first strip, and that of the row after it; strip 0 is all padding.
    places, values
        uint32 and float32 ``[strips, length]``.
    lists
        uint16 ``[strips]``: which of a row's lists the pairs of a strip belong to.
    list_count
        Lists of a row.
    width
        The number of features: places are below it.
    fleeting
        Whether mapped rows are let go once they were used.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> rows = pairs_of(csr_array([[0.0, 2.0, 3.0], [0.0, 0.0, 0.0]]), length=4)
    >>> rows.batches(np.array([[1, 0]])).values.tolist()
    [[[2.0, 3.0, 0.0, 0.0]]]
    """

    begins: npt.NDArray[np.int64]
    places: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]
    lists: npt.NDArray[np.uint16]
    list_count: int
    width: int
    fleeting: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return len(self), self.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return np.dtype(np.float32)

    @property
    def pairs(self) -> Pairs:
        """The rows themselves: see `steepest.data.padded.Padded`, which shows some of them otherwise."""
        return self

    def of(self, pairs: Pairs) -> Pairs:
        """Return the same of other rows."""
        return pairs

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in a window, on average."""
        return -(-len(self.places) * (int(self.places.shape[1]) * 8 + 4) // max(1, len(self)))

    def __len__(self) -> int:
        return len(self.begins) - 1

    def batches(self, rows: Rows) -> Strips:
        """Gather batches of rows.

        Parameters
        ----------
        rows
            Row numbers ``[steps, batch_size]``; -1 for none.

        Returns
        -------
        Strips
            Each array ``[steps, strips, ...]``: all steps have as many as `bucket` makes of the most.
        """
        steps, batch_size = rows.shape
        flat = rows.ravel()
        counts = np.where(flat >= 0, self.begins[flat + 1] - self.begins[flat], 0)
        ends = np.cumsum(counts)
        totals = np.diff(ends[batch_size - 1 :: batch_size], prepend=0)
        most = bucket(int(totals.max(initial=1)))
        step_starts = np.arange(steps) * most - (np.cumsum(totals) - totals)
        which = np.arange(ends[-1]) if len(ends) else np.zeros(0, np.int64)
        to = which + np.repeat(step_starts, totals)
        source = np.zeros(steps * most, np.int64)
        source[to] = which + np.repeat(self.begins[flat] - (ends - counts), counts)
        owners = np.zeros(steps * most, np.int32)
        owners[to] = np.repeat(np.tile(np.arange(batch_size) * self.list_count, steps), counts)
        if self.list_count > 1:
            owners += self.lists[source]
        shape = (steps, most, self.places.shape[1])
        places, values = np.empty(shape, np.uint32), np.empty(shape, np.float32)
        for kept, out in ((self.places, places), (self.values, values)):
            np.take(kept, source, axis=0, out=out.reshape(-1, shape[2]), mode="clip")
        return Strips(places, values, owners.reshape(steps, most))

    def batch(self, rows: Rows) -> Strips:
        """Gather one batch of rows; see `batches`."""
        return Strips(*(each[0] for each in self.batches(rows[None])))

    def subset(self, rows: Rows) -> Pairs:
        """Return some rows, in memory; of fleeting ones the numbers rise."""
        if not self.fleeting:
            return self._some(rows)
        parts = []
        for first in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[first : first + ROWS_AT_ONCE]
            parts.append(self._some(some))
            self.advise(int(some[0]), int(some[-1]) + 1, mmap.MADV_DONTNEED)
        return joined(parts)

    def _some(self, rows: Rows) -> Pairs:
        counts = self.begins[rows + 1] - self.begins[rows]
        begins = np.ones(len(rows) + 1, np.int64)
        begins[1:] += np.cumsum(counts)
        source = np.zeros(begins[-1], np.int64)
        source[1:] = np.arange(1, begins[-1]) + np.repeat(self.begins[rows] - begins[:-1], counts)
        return self._of(begins, source)

    def _of(self, begins: npt.NDArray[np.int64], source: npt.NDArray[np.int64]) -> Pairs:
        """Return rows of these strips."""
        return replace(
            self,
            begins=begins,
            places=np.asarray(self.places[source]),
            values=np.asarray(self.values[source]),
            lists=np.asarray(self.lists[source]),
            fleeting=False,
        )

    def shuffled(self, number: int, order: Rows) -> Pairs:
        """Return the same with one of the lists in another order of the rows."""
        row = np.repeat(np.arange(len(self)), np.diff(self.begins))
        theirs = self.lists[1:] == number
        row[theirs] = np.argsort(order)[row[theirs]]
        source = np.concatenate([[0], 1 + np.argsort(row, kind="stable")])
        begins = np.ones(len(self) + 1, np.int64)
        begins[1:] += np.cumsum(np.bincount(row, minlength=len(self)))
        return self._of(begins, source)

    def mapped(self) -> tuple[Array, ...]:
        """Return the arrays of mapped files that the rows are read from."""
        parts = (self.begins, self.places, self.values, self.lists)
        return tuple(array for part in parts for array in mapped(part))

    def advise(self, first: int, last: int, advice: int) -> None:
        """Tell the system of the rows ``first`` to ``last - 1``: see `steepest.data.gather.advise`."""
        begin, end = int(self.begins[first]), int(self.begins[last])
        advise(self.begins, first, last + 1, advice)
        for strips in (self.places, self.values, self.lists):
            advise(strips, begin, end, advice)

    def fetched(self, fetch: Fetch, spans: Spans) -> Pairs:
        """Return the rows of these runs, in memory."""
        begins, of_strips, end = [np.ones(1, np.int64)], [(0, 1)], 1
        for first, last in spans:
            theirs = np.array(self.begins[first : last + 1])
            advise(self.begins, first, last + 1, mmap.MADV_DONTNEED)
            of_strips.append((int(theirs[0]), int(theirs[-1])))
            begins.append(theirs[1:] - theirs[0] + end)
            end += of_strips[-1][1] - of_strips[-1][0]
        places, values, lists = (fetch(each, of_strips) for each in (self.places, self.values, self.lists))
        begins_of_all = np.concatenate(begins)
        return replace(self, begins=begins_of_all, places=places, values=values, lists=lists, fleeting=False)


def joined(parts: Sequence[Pairs]) -> Pairs:
    """Return the rows of several one after the other, in memory; each has no strips but those of its rows."""
    begins, end = [np.ones(1, np.int64)], 1
    for each in parts:
        begins.append(each.begins[1:] - 1 + end)
        end = int(begins[-1][-1])
    strips = (
        np.concatenate([getattr(parts[0], name)[:1], *(getattr(each, name)[1:] for each in parts)])
        for name in ("places", "values", "lists")
    )
    places, values, lists = strips
    return replace(parts[0], begins=np.concatenate(begins), places=places, values=values, lists=lists)


def bucket(count: int) -> int:
    """Return the least number that is not smaller and has four bits that are not zero, or fewer.

    At most an eighth is padding, and few shapes are compiled.

    Examples
    --------
    >>> [bucket(count) for count in (1, 15, 17, 1000, 1025)]
    [1, 15, 18, 1024, 1152]
    """
    low = max(0, count.bit_length() - 4)
    return -(-count >> low) << low


def strip_length(pairs: int, rows: int, most: int) -> int:
    """Return how many pairs a strip has: all of a row, where rows are short and alike, else about a quarter.

    Parameters
    ----------
    pairs, rows
        The number of all pairs, and of all rows (or lists of rows).
    most
        The most pairs that a row has.
    """
    mean = pairs / max(1, rows)
    if most <= min(LENGTHS[-1], 1.25 * mean):
        return max(1, most)
    return next((length for length in LENGTHS if 4 * length >= mean), LENGTHS[-1])


def pairs_of(matrix: Any, length: int | None = None) -> Pairs:
    """Return the rows of a sparse matrix of SciPy as pairs.

    Parameters
    ----------
    matrix
        Any sparse matrix or array ``[rows, features]``.
    length
        Pairs of a strip; ``None`` chooses.
    """
    rows = matrix.tocsr()
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    lengths = np.diff(rows.indptr)[:, None]
    return in_strips(lengths, rows.indices, rows.data, rows.shape[1], length)


def in_strips(
    lengths: npt.NDArray[np.integer],
    places: npt.NDArray[np.integer],
    values: npt.NDArray[np.floating],
    width: int,
    length: int | None = None,
) -> Pairs:
    """Arrange pairs in strips.

    Parameters
    ----------
    lengths
        How many pairs each row has in each of its lists, ``[rows, lists]``.
    places, values
        All pairs, row by row and list by list.
    width
        The number of features.
    length
        Pairs of a strip; ``None`` chooses.
    """
    flat = lengths.ravel().astype(np.int64)
    if length is None:
        most = int(np.max(flat, initial=0))
        length = strip_length(len(places), max(1, int(np.count_nonzero(flat))), most)
    strips = -(-flat // length)
    firsts = 1 + np.cumsum(strips) - strips
    to = np.arange(len(places)) + np.repeat(firsts * length - (np.cumsum(flat) - flat), flat)
    shape = (1 + int(strips.sum()), length)
    kept_places, kept_values = np.full(shape, NOWHERE, np.uint32), np.zeros(shape, np.float32)
    kept_places.reshape(-1)[to], kept_values.reshape(-1)[to] = places, values
    list_count = lengths.shape[1]
    of_list = np.zeros(shape[0], np.uint16)
    of_list[1:] = np.repeat(np.tile(np.arange(list_count), len(lengths)), strips)
    begins = np.ones(len(lengths) + 1, np.int64)
    begins[1:] += np.cumsum(strips.reshape(-1, list_count).sum(axis=1))
    return Pairs(begins, kept_places, kept_values, of_list, list_count, width)


def numbers_for(width: int) -> npt.NDArray[np.uint32]:
    """Return room for the numbers of a table's rows, for `touched`; what lies behind them has none."""
    numbers = np.empty(width + 1, np.uint32)
    numbers[width] = NOWHERE
    return numbers


def touched(
    places: Sequence[npt.NDArray[Any]], numbers: npt.NDArray[np.uint32]
) -> tuple[npt.NDArray[Any], list[Any]]:
    """Find which rows of a table the steps of a window look up, and number them anew for each step.

    Parameters
    ----------
    places
        Arrays of places, each ``[steps, ...]``, all of rows of the same table.
    numbers
        What `numbers_for` returned for the table; a place that is not below its width is none.

    Returns
    -------
    rows
        uint32 ``[steps, touched]``: each row that a step looks up, once, in their order; filled up with
        `NOWHERE`.
    renumbered
        The places, as uint32, in terms of these rows; those that were none are still none.

    Examples
    --------
    >>> rows, (renumbered,) = touched([np.array([[7, 3, 7, 99]])], numbers_for(10))
    >>> rows.tolist(), renumbered.tolist()
    ([[3, 7]], [[1, 0, 1, 4294967295]])
    """
    width, steps = len(numbers) - 1, len(places[0])
    flat = [each.reshape(steps, -1) for each in places]
    sizes = np.cumsum([0, *(each.shape[1] for each in flat)])
    renumbered, found = np.empty((steps, sizes[-1]), np.uint32), []
    count = np.arange(sizes[-1], dtype=np.uint32)
    line = np.empty(sizes[-1], np.uint32)
    for step in range(steps):
        for each, first, last in zip(flat, sizes, sizes[1:], strict=False):
            line[first:last] = each[step]
        np.minimum(line, width, out=line)
        rows = _different(line)
        rows = rows[: len(rows) - (len(rows) > 0 and rows[-1] == width)]
        numbers[rows] = count[: len(rows)]
        np.take(numbers, line, out=renumbered[step], mode="clip")
        found.append(rows)
    most = bucket(max(1, *map(len, found)))
    filled = np.full((steps, most), NOWHERE, np.uint32)
    for step, each in enumerate(found):
        filled[step, : len(each)] = each
    return filled, [
        renumbered[:, first:last].reshape(each.shape)
        for each, first, last in zip(places, sizes, sizes[1:], strict=False)
    ]


def _different(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return the different values in their order: np.unique, without what it does besides."""
    in_order = np.sort(values)
    is_first = np.ones(len(values), np.bool_)
    np.not_equal(in_order[1:], in_order[:-1], out=is_first[1:])
    return in_order[is_first]

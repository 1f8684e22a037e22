"""Which rows are held out for validation, decided as they stream by: the rows themselves need not be kept."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steepest.data.column_types import type_of
from steepest.data.order import generator, permutation
from steepest.data.summary import plain_values
from steepest.errors import SteepestError

RUN = 2**16
"""Consecutive rows among which some are drawn."""

PLACES = 2**20
"""Places among which the groups are strewn by their hash."""

SPLIT = 0x5917
"""The purpose of the stream that holds rows out."""

Mask = npt.NDArray[np.bool_]


def check_fraction(fraction: float) -> None:
    """Refuse a part to hold out that is not between 0 and 1.

    Raises
    ------
    SteepestError
        With another to try.
    """
    if not 0 < fraction < 1:
        raise SteepestError(
            f"the part of the rows to hold out is {fraction}, which is not between 0 and 1.",
            hint="Try --validation 0.2, or name a file of rows to validate on.",
        )


def rows_held_out(run: int, rows: int, fraction: float, seed: int) -> Mask:
    """Choose the rows of one run that are held out.

    Among the first n rows of a table, ``round(fraction * n)`` are, at least one and all but one at most.

    Parameters
    ----------
    run
        The number of the run, from 0: each but the last has `RUN` rows.
    rows
        Its number of rows.
    fraction
        The part of the rows to hold out, between 0 and 1.
    seed
        Not negative.

    Returns
    -------
    numpy.ndarray
        Bool [rows]: True where a row is held out.

    Examples
    --------
    >>> int(rows_held_out(0, 10, 0.2, seed=0).sum())
    2
    """
    first = run * RUN
    order = permutation(generator(seed, SPLIT, run).bit_generator, rows)
    mask = np.zeros(rows, np.bool_)
    mask[order[: _held_out(first + rows, fraction) - _held_out(first, fraction)]] = True
    return mask


def _held_out(rows: int, fraction: float) -> int:
    """Return how many of the first rows of a table are held out."""
    return min(max(round(fraction * rows), min(rows, 1)), max(rows - 1, 0))


def last_rows_held_out(first: int, rows: int, of: int, fraction: float) -> Mask:
    """Tell which of some consecutive rows are among the last, as many as `rows_held_out` holds out.

    Parameters
    ----------
    first, rows
        The number of the first of them, from 0, and how many they are.
    of
        The number of all rows.
    fraction
        The part of the rows to hold out, between 0 and 1.

    Examples
    --------
    >>> last_rows_held_out(6, 4, 10, 0.2).tolist()
    [False, False, True, True]
    """
    return np.arange(first, first + rows) >= of - _held_out(of, fraction)


def numbered_rows_held_out(first: int, rows: int, of: int, fraction: float, seed: int) -> Mask:
    """Tell which of some consecutive rows are held out, where it is known how many there are of them all.

    Parameters
    ----------
    first, rows
        The number of the first of them, from 0, and how many they are.
    of
        The number of all rows.
    fraction, seed
        See `rows_held_out`.

    Examples
    --------
    >>> whole = rows_held_out(0, 10, 0.2, seed=0)
    >>> bool((numbered_rows_held_out(4, 6, 10, 0.2, seed=0) == whole[4:]).all())
    True
    """
    runs = range(first // RUN, -(-(first + rows) // RUN))
    masks = [rows_held_out(run, min(RUN, of - run * RUN), fraction, seed) for run in runs]
    joined = np.concatenate([*masks, np.empty(0, np.bool_)])
    begin = first - runs.start * RUN
    return joined[begin : begin + rows]


def in_places(groups: pa.ChunkedArray | pa.Array, seed: int) -> npt.NDArray[np.int64]:
    """Return the place of each row's group, drawn with the seed: int64 [rows], below `PLACES`.

    Equal values have one place, whatever their type: 3 and 3.0, a date and its midnight. Rows without a value
    have one, too.

    Raises
    ------
    SteepestError
        If values of this type make no groups.
    """
    if type_of(groups.type) == "unsupported":
        raise SteepestError(
            f"rows cannot be split by values of the type {groups.type}.",
            hint="Split by a column of text, numbers, booleans or times.",
        )
    encoded = plain_values(groups).dictionary_encode(null_encoding="encode")
    chunks = encoded.chunks if isinstance(encoded, pa.ChunkedArray) else [encoded]
    places = [
        np.array([_place(value, seed) for value in chunk.dictionary.to_pylist()], np.int64)[
            chunk.indices.to_numpy(zero_copy_only=False)
        ]
        for chunk in chunks
        if len(chunk)
    ]
    return np.concatenate([*places, np.empty(0, np.int64)])


def _place(value: object, seed: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    digest = hashlib.blake2b(
        f"{seed}|{type(value).__name__}|{value}".encode("utf-8", "surrogatepass"), digest_size=8
    )
    return int.from_bytes(digest.digest(), "little") % PLACES


@dataclass(frozen=True)
class Groups:
    """How many rows lie in each place; counts of several parts of a table add up.

    Parameters
    ----------
    seed
        Draws the places.
    counts
        Place -> rows.
    """

    seed: int
    counts: collections.Counter[int] = field(default_factory=collections.Counter)

    def add(self, groups: pa.ChunkedArray | pa.Array) -> None:
        """Count more rows."""
        places, rows = np.unique(in_places(groups, self.seed), return_counts=True)
        self.counts.update(dict(zip(places.tolist(), rows.tolist(), strict=True)))

    def held_out(self, fraction: float) -> Callable[[pa.ChunkedArray], Mask]:
        """Return what tells the rows that are held out, by their groups.

        Whole groups are: as many, in the order of their places, as bring the number of rows nearest to the
        fraction.

        Raises
        ------
        SteepestError
            If there is but one group.

        Examples
        --------
        >>> groups = Groups(seed=0)
        >>> days = pa.array(["Mon", "Mon", "Tue", "Tue", "Wed", "Wed"])
        >>> groups.add(days)
        >>> mask = groups.held_out(0.3)(days).tolist()
        >>> mask[0] == mask[1], mask[2] == mask[3], mask[4] == mask[5], sum(mask)
        (True, True, True, 2)
        """
        places = sorted(self.counts)
        if len(places) < 2:
            raise SteepestError(
                "the column to split by has one value only, so no whole group can be held out.",
                hint="Split by a column with at least two values, or by rows (without --split-by).",
            )
        reached = np.cumsum([self.counts[place] for place in places])
        last = places[int(np.argmin(np.abs(reached[:-1] - fraction * reached[-1])))]
        return lambda groups: in_places(groups, self.seed) <= last

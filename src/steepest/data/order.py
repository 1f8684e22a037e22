"""THE order of rows: which rows an epoch visits, as a pure function of seed, epoch and number of rows.

Up to `WINDOW` rows an epoch's order is a uniform permutation of all of them. Beyond that, the rows are
shuffled within windows of several blocks of `BLOCK` consecutive rows, so that data larger than memory is read
in long runs. A window has a block from each part of the data, drawn at random: so it is like the whole also
where the data is sorted, and of several processes, each with a part, all have as much to do. The draws come
from NumPy's Philox.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

WINDOW = 2**20
"""Rows that are shuffled together."""

BLOCK = 2**14
"""Consecutive rows that stay together when the data is larger than a window."""

ORDER = 0
"""The purpose of the stream that orders rows; streams of different purposes are independent."""


def generator(seed: int, purpose: int, index: int = 0) -> np.random.Generator:
    """Return the random generator for a purpose within a run, such as the order of one epoch.

    Examples
    --------
    >>> int(generator(0, ORDER, 3).integers(100)) == int(generator(0, ORDER, 3).integers(100))
    True
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, purpose, index])))


def permutation(bits: np.random.BitGenerator, count: int) -> Rows:
    """Return 0, ..., count - 1 in a uniform order that no version of NumPy changes: the raw bits are fixed.

    The high bits of a random number decide the place of the row number in its low bits.
    """
    low = np.uint64(max(count - 1, 1).bit_length())
    keys = bits.random_raw(count) >> low << low
    keys |= np.arange(count, dtype=np.uint64)
    keys.sort()
    keys &= (np.uint64(1) << low) - np.uint64(1)
    return keys.view(np.int64)


def epoch_order(seed: int, epoch: int, rows: int) -> Iterator[Rows]:
    """Yield the row numbers of an epoch, in the order of their visit, a window at a time.

    Parameters
    ----------
    seed, epoch
        Non-negative whole numbers; the epoch counts from 0.
    rows
        Number of rows; every one is visited once.

    Examples
    --------
    >>> [window.tolist() for window in epoch_order(seed=0, epoch=0, rows=5)]
    [[...]]
    >>> sorted(next(epoch_order(seed=0, epoch=1, rows=5)).tolist())
    [0, 1, 2, 3, 4]
    """
    bits = generator(seed, ORDER, epoch).bit_generator
    if rows <= WINDOW:
        yield permutation(bits, rows)
        return
    for group in _groups(bits, -(-rows // BLOCK)):
        members = (group[:, None] * BLOCK + np.arange(BLOCK)).ravel()
        members = members[members < rows]
        yield members[permutation(bits, len(members))]


def _groups(bits: np.random.BitGenerator, blocks: int) -> list[Rows]:
    """Divide blocks into groups of at most as many as a window has parts, each with one of each part at most.

    The parts are runs of blocks, of equal length to one block.
    """
    parts = WINDOW // BLOCK
    begins = np.arange(parts + 1) * blocks // parts
    drawn = permutation(bits, blocks)
    drawn = drawn[np.argsort(np.searchsorted(begins, drawn, side="right"), kind="stable")]
    turns = np.arange(blocks) - np.repeat(begins[:-1], np.diff(begins))
    order = np.argsort(turns, kind="stable")
    return np.split(drawn[order], np.flatnonzero(np.diff(turns[order])) + 1)


def in_order(rows: int) -> Iterator[Rows]:
    """Yield the row numbers as they are, a block at a time.

    Examples
    --------
    >>> [window.tolist() for window in in_order(3)]
    [[0, 1, 2]]
    """
    for first in range(0, rows, BLOCK):
        yield np.arange(first, min(first + BLOCK, rows))


def order_within_batches(seed: int, epoch: int, rows: int, batch_size: int) -> Iterator[Rows]:
    """Yield the row numbers of an epoch whose batches hold consecutive rows, each in an order of its own.

    Examples
    --------
    >>> order = np.concatenate(list(order_within_batches(seed=0, epoch=0, rows=5, batch_size=2)))
    >>> sorted(order[2:4].tolist())
    [2, 3]
    """
    bits = generator(seed, ORDER, epoch).bit_generator
    firsts = range(0, rows, batch_size)
    for some in range(0, len(firsts), max(1, WINDOW // batch_size)):
        parts = firsts[some : some + max(1, WINDOW // batch_size)]
        yield np.concatenate([first + permutation(bits, min(batch_size, rows - first)) for first in parts])

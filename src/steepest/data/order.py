"""THE order of rows: which rows an epoch visits, as a pure function of seed, epoch and number of rows.

Up to `WINDOW` rows an epoch's order is a uniform permutation of all of them. Beyond that, blocks of
`BLOCK` consecutive rows are permuted, and the rows are shuffled within windows of several blocks, so that
data larger than memory is read in long runs. The draws come from NumPy's Philox.
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

ORDER, SPLIT, SAMPLE = range(3)
"""What a stream of random numbers is for; streams of different purposes are independent."""


def generator(seed: int, purpose: int, index: int = 0) -> np.random.Generator:
    """Return the random generator for a purpose within a run, such as the order of one epoch.

    Examples
    --------
    >>> int(generator(0, ORDER, 3).integers(100)) == int(generator(0, ORDER, 3).integers(100))
    True
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, purpose, index])))


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
    draws = generator(seed, ORDER, epoch)
    if rows <= WINDOW:
        yield draws.permutation(rows)
        return
    blocks = draws.permutation(-(-rows // BLOCK))
    for group in np.split(blocks, range(WINDOW // BLOCK, len(blocks), WINDOW // BLOCK)):
        members = (group[:, None] * BLOCK + np.arange(BLOCK)).ravel()
        yield draws.permutation(members[members < rows])

"""How strongly columns go together, numbers and categories alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from steepest.exploration.relations import Bins, Codes, Floats

MOST_LEVELS = 16
"""Values of a category that are told apart here."""

STRONG = 0.9
"""The association from which on columns make a group."""


def ranks(values: Floats) -> Floats:
    """Return the rank of each number, equal ones sharing their mean rank; NaN stays NaN.

    Examples
    --------
    >>> ranks(np.array([30.0, 10.0, 30.0, np.nan])).tolist()
    [1.5, 0.0, 1.5, nan]
    """
    there = ~np.isnan(values)
    _, places, counts = np.unique(values[there], return_inverse=True, return_counts=True)
    found = np.full(len(values), np.nan)
    found[there] = (np.cumsum(counts) - (counts + 1) / 2)[places]
    return found


def _directions(bins: Bins) -> npt.NDArray[np.float32]:
    """Return a column as centred directions [rows, directions] whose inner products measure association.

    A number is its standardised ranks. A category has a direction for each value k, of the share p:
    ``(1[k] − p) / √(n p)``. Then the sum of squared products of two columns is Spearman's ρ² (two numbers),
    the correlation ratio η² (a number and a category), or χ²/n (two categories).
    """
    if bins.values is not None:
        ranked = ranks(bins.values)
        ranked = np.where(np.isnan(ranked), 0.0, ranked - _mean(ranked))
        length = math.sqrt(float(ranked @ ranked))
        return (ranked / (length or 1.0)).astype(np.float32)[:, None]
    codes = np.minimum(bins.codes, MOST_LEVELS - 1)
    shares = np.bincount(codes) / len(codes)
    indicators = (codes[:, None] == np.arange(len(shares))) - shares
    return np.asarray(indicators / np.sqrt(len(codes) * shares.clip(1e-300)), np.float32)


def _mean(values: Floats) -> float:
    there = ~np.isnan(values)
    return float(values[there].mean()) if there.any() else 0.0


def association(columns: Sequence[Bins]) -> Floats:
    """Measure how strongly each two columns go together, from 0 to 1.

    Two numbers: the size of Spearman's rank correlation ρ. A number and a category: the correlation ratio η
    of its ranks. Two categories: Cramér's V, ``√(χ² / n / min(r − 1, c − 1))``. A missing number counts as
    average, a missing category as a value of its own.

    Parameters
    ----------
    columns
        Columns of the same rows.

    Returns
    -------
    numpy.ndarray
        Symmetric, [columns, columns], with 1 on the diagonal.

    Examples
    --------
    >>> x = np.array([1.0, 2.0, 3.0, 4.0])
    >>> halves, each = np.array([0, 0, 1, 1]), np.arange(4)
    >>> association([Bins(each, x), Bins(each, -(x**3)), Bins(halves)]).round(2)
    array([[1.  , 1.  , 0.89],
           [1.  , 1.  , 0.89],
           [0.89, 0.89, 1.  ]])
    """
    parts = [_directions(bins) for bins in columns]
    begins = np.cumsum([0, *(part.shape[1] for part in parts)])[:-1]
    together = np.concatenate(parts, axis=1)
    squares = (together.T @ together).astype(np.float64) ** 2
    sums = np.add.reduceat(np.add.reduceat(squares, begins, axis=0), begins, axis=1)
    freedom = np.array(
        [
            1 if bins.values is not None else part.shape[1] - 1
            for bins, part in zip(columns, parts, strict=True)
        ]
    )
    found = np.sqrt(sums / np.minimum.outer(freedom, freedom).clip(1)).clip(0, 1)
    np.fill_diagonal(found, 1.0)
    return np.asarray(found, np.float64)


def groups(strength: Floats, least: float = STRONG) -> list[list[int]]:
    """Return the groups of columns that are linked by associations of at least so much, the largest first.

    Examples
    --------
    >>> groups(np.array([[1, 0.95, 0.2], [0.95, 1, 0.1], [0.2, 0.1, 1]]))
    [[0, 1]]
    """
    group: Codes = np.arange(len(strength))
    for a, b in np.argwhere(np.triu(strength >= least, 1)):
        group[group == group[b]] = group[a]
    members = [np.flatnonzero(group == each).tolist() for each in np.unique(group)]
    return sorted((each for each in members if len(each) > 1), key=lambda each: (-len(each), each))

"""Which rows are held out for validation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.summary import type_of
from steepest.errors import SteepestError

STREAM = 0x5917
"""Sets the draws of the split apart from all others that come from the same seed."""


def held_out(
    rows: int, fraction: float, seed: int, groups: pa.ChunkedArray | None = None
) -> npt.NDArray[np.bool_]:
    """Choose the rows that are held out for validation.

    Without groups, ``round(fraction * rows)`` rows, at least one and all but one at most: a pure function of
    the number of rows, the fraction and the seed. With groups, whole groups: the groups are put in an order
    that depends only on the seed and on which groups there are, and as many of them are taken, from the
    first on, as bring the number of rows nearest to the fraction.

    Parameters
    ----------
    rows
        The number of rows.
    fraction
        The part of the rows to hold out, between 0 and 1.
    seed
        Not negative.
    groups
        The group of each row [rows]; rows without one are a group of their own. None: each row by itself.

    Returns
    -------
    numpy.ndarray
        Bool [rows]: True where a row is held out.

    Raises
    ------
    SteepestError
        If the fraction is not between 0 and 1, or there are fewer than two rows or two groups.

    Examples
    --------
    >>> int(held_out(10, 0.2, seed=0).sum())
    2
    >>> days = pa.chunked_array([["Mon", "Mon", "Tue", "Tue", "Wed", "Wed"]])
    >>> mask = held_out(6, 0.3, seed=0, groups=days)
    >>> sorted(set(days.filter(pa.array(mask)).to_pylist()) & set(days.filter(pa.array(~mask)).to_pylist()))
    []
    """
    if not 0 < fraction < 1:
        raise SteepestError(
            f"the part of the rows to hold out is {fraction}, which is not between 0 and 1.",
            hint="Try --validation 0.2, or name a file of rows to validate on.",
        )
    bits = np.random.Philox(np.random.SeedSequence([seed, STREAM]))
    if groups is not None:
        return _held_out_groups(groups, fraction * rows, bits)
    if rows < 2:
        raise SteepestError(
            "one row is too few to hold some out for validation.", hint="Give at least two rows."
        )
    count = min(max(round(fraction * rows), 1), rows - 1)
    mask = np.zeros(rows, np.bool_)
    mask[_shuffled(rows, bits)[:count]] = True
    return mask


def _shuffled(count: int, bits: np.random.Philox) -> npt.NDArray[np.intp]:
    """Return 0, ..., count − 1 in an order that no later version of NumPy changes: the raw bits are fixed."""
    return np.argsort(bits.random_raw(count), kind="stable")


def _held_out_groups(groups: pa.ChunkedArray, wanted: float, bits: np.random.Philox) -> npt.NDArray[np.bool_]:
    """Hold out the whole groups whose rows come nearest to the wanted number of rows."""
    if type_of(groups.type) == "unsupported":
        raise SteepestError(
            f"rows cannot be split by values of the type {groups.type}.",
            hint="Split by a column of text, numbers, booleans or times.",
        )
    if pa.types.is_dictionary(groups.type):
        groups = groups.cast(groups.type.value_type)
    if pa.types.is_floating(groups.type):
        groups = pc.if_else(pc.is_nan(groups), None, groups)
    values = pc.unique(groups)
    values = values.take(pc.array_sort_indices(values))
    if len(values) < 2:
        only = f"only the value {values[0].as_py()!r}" if len(values) else "no value"
        raise SteepestError(
            f"the column to split by has {only}, so no whole group can be held out.",
            hint="Split by a column with at least two values, or by rows (without --split-by).",
        )
    group = pc.index_in(groups, value_set=values).to_numpy()
    order = _shuffled(len(values), bits)
    reached = np.cumsum(np.bincount(group, minlength=len(values))[order])
    count = 1 + int(np.argmin(np.abs(reached[:-1] - wanted)))
    chosen = np.zeros(len(values), np.bool_)
    chosen[order[:count]] = True
    return np.asarray(chosen[group])

"""What an estimator is given as ``X``, and how it becomes the rows of a descent.

Arrays of numbers are standardised, sparse matrices are taken as they are, and frames with columns of other
kinds have a column plan of their own. Each is learned once, at the first fit, and kept as plain data.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import csr_array, issparse

from steepest.data.columns import Plan
from steepest.data.layout import Layout, Packed, Run, layout_of
from steepest.data.learning import Learner
from steepest.data.packed import PackedRows, packed_rows
from steepest.data.pairs import bucket, pairs_of
from steepest.data.source import open_source
from steepest.errors import nearest
from steepest.sklearn.faults import InvalidError

Floats = npt.NDArray[np.floating[Any]]

ROWS_AT_ONCE = 1 << 14
"""Rows that are standardised at a time: few enough to stay in the cache."""

SAME = 1e-7
"""A column whose deviation is at most this share of its greatest value is a constant, as float32 sees it."""


FEWEST, FEW = 8, 64
"""Different rows of a step that sees all are filled up to so many, and below the second to powers of two."""


@dataclass(frozen=True)
class Numbers:
    """Columns of numbers, which are standardised: ``(x - mean) / deviation``.

    Parameters
    ----------
    mean, deviation
        Of each column, float64 ``[columns]``. That of a constant is infinite, so that it counts for nothing.
    """

    mean: Floats
    deviation: Floats

    @property
    def layout(self) -> Layout:
        """How a row is kept."""
        return layout_of([Run("numbers", len(self.mean))])

    def encode(self, rows: Any) -> PackedRows:
        """Return the rows as a descent takes them."""
        packed = self.layout.empty(rows.shape[0])
        for first in range(0, rows.shape[0], ROWS_AT_ONCE):
            block = slice(first, first + ROWS_AT_ONCE)
            dense = rows[block].toarray() if issparse(rows) else rows[block]
            packed.numbers[block] = (dense - self.mean) / self.deviation
        return PackedRows(self.layout, packed)


@dataclass(frozen=True)
class Sparse:
    """The columns of a sparse matrix, each of which has a row in a table of parameters.

    Parameters
    ----------
    width
        Their number.
    """

    width: int

    @property
    def layout(self) -> Layout:
        """How a row is kept."""
        return layout_of([Run("list", self.width)])

    def encode(self, rows: Any) -> PackedRows:
        """Return the rows as a descent takes them."""
        return PackedRows(self.layout, self.layout.empty(rows.shape[0]), pairs_of(csr_array(rows)))


@dataclass(frozen=True)
class Columns:
    """The columns of a frame, by a plan.

    Parameters
    ----------
    plan
        How they become features.
    """

    plan: Plan

    @property
    def layout(self) -> Layout:
        """How a row is kept."""
        return self.plan.layout

    def encode(self, rows: pa.Table) -> PackedRows:
        """Return the rows as a descent takes them."""
        packed: Packed = self.plan.pack(rows)
        return packed_rows(self.layout, packed)

    def linear(self, names: list[str], weights: Floats, biases: Floats) -> tuple[Floats, Floats]:
        """Return a linear model's weights ``[outputs, columns]`` of the columns as given, and its biases.

        Parameters
        ----------
        names
            The columns of the frame; those that are not learned from have weights of 0.
        weights, biases
            Of the features, ``[outputs, features]`` and ``[outputs]``.

        Raises
        ------
        AttributeError
            If a column is not one number.
        """
        columns = self.plan.columns
        if any(each.kind not in ("number", "boolean") or each.missing for each in columns):
            raise AttributeError("Columns have coefficients where all are numbers, and none is missing.")
        found, biases = np.zeros((len(weights), len(names))), np.array(biases, np.float64)
        for column, theirs in zip(columns, weights.T.astype(np.float64), strict=True):
            numeric = column.kind == "number"  # booleans are not standardised
            mean, deviation = (column.mean, column.deviation) if numeric else (0.0, 1.0)
            found[:, names.index(column.name)] = theirs / deviation
            biases -= theirs * mean / deviation
        return found, biases


Inputs = Numbers | Sparse | Columns


def learn_inputs(rows: Any, weights: Floats) -> Inputs:
    """Learn what becomes of the columns.

    Parameters
    ----------
    rows
        An array or a sparse matrix ``[rows, columns]``, or an Arrow table.
    weights
        Above zero, ``[rows]``.

    Raises
    ------
    SteepestError
        If numbers are too large, or a table has nothing to learn from.

    Examples
    --------
    >>> learn_inputs(np.array([[1.0], [3.0]]), np.ones(2))
    Numbers(mean=array([2.]), deviation=array([1.]))
    """
    if isinstance(rows, pa.Table):
        learner = Learner()
        learner.update(rows)
        return Columns(learner.plan())
    if issparse(rows):
        return Sparse(int(rows.shape[1]))
    shares = weights / weights.sum()
    mean, squares = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    blocks = [slice(first, first + ROWS_AT_ONCE) for first in range(0, len(rows), ROWS_AT_ONCE)]
    with np.errstate(over="ignore", invalid="ignore"):
        for block in blocks:
            mean += shares[block] @ rows[block].astype(np.float64)
        for block in blocks:
            squares += shares[block] @ (rows[block] - mean) ** 2
    if not np.isfinite(squares).all():
        column = int(np.flatnonzero(~np.isfinite(squares))[0])
        raise InvalidError(f"Column {column} of X holds numbers too large to compute with.", hint="Scale it.")
    deviation = np.sqrt(squares)
    constant = deviation <= SAME * np.abs(rows).max(axis=0)
    return Numbers(mean, np.where(constant, np.inf, deviation))


def has_columns_of_its_own(frame: Any) -> bool:
    """Tell whether this is a frame that needs a column plan: it has not only numbers, or lacks some."""
    if type(frame).__module__.startswith("polars.") and hasattr(frame, "schema"):
        numeric = all(dtype.is_numeric() for dtype in frame.schema.values())
        return not numeric or any(frame[name].null_count() for name in frame.columns)
    if isinstance(frame, pa.Table):
        return True
    if not (hasattr(frame, "dtypes") and hasattr(frame, "iloc") and hasattr(frame, "columns")):
        return False
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    numeric = all(is_numeric_dtype(dtype) and not is_bool_dtype(dtype) for dtype in frame.dtypes)
    return not numeric or bool(frame.isna().to_numpy().any())


def table_of(frame: Any) -> pa.Table:
    """Return a frame as an Arrow table."""
    return pa.concat_tables(stretch.rows for stretch in open_source(frame).stretches())


def names_of(frame: Any) -> list[str]:
    """Return the names of a frame's columns."""
    return list(map(str, frame.column_names if isinstance(frame, pa.Table) else frame.columns))


def require_names(names: list[str], known: list[str]) -> None:
    """Refuse columns other than those of the fit; their order does not matter.

    Raises
    ------
    InvalidError
        With the first that is missing, or is new.
    """
    for these, those, what in (
        (known, names, "The frame has no column {!r}, which it had when the estimator was fitted."),
        (names, known, "The estimator was fitted without a column {!r}."),
    ):
        if lacking := next((name for name in these if name not in those), None):
            raise InvalidError(what.format(lacking), hint=nearest(lacking, those))


def subset(rows: Any, chosen: npt.NDArray[np.bool_]) -> Any:
    """Return the rows that are chosen, of an array, a sparse matrix or an Arrow table."""
    if chosen.all():
        return rows
    return rows.filter(pa.array(chosen)) if isinstance(rows, pa.Table) else rows[np.flatnonzero(chosen)]


def merged(rows: Any, target: npt.NDArray[Any], weights: Floats) -> tuple[Any, npt.NDArray[Any], Floats]:
    """Add up the weights of equal rows, in an order that depends on what rows there are only.

    Where each step sees all rows, a descent then is the same, to the last bit, in whatever order they come
    and whether one is repeated or weighs more. Rows that weigh nothing fill them up to one of few numbers of
    rows, for each of which a program is compiled. A table is left as it is.

    Examples
    --------
    >>> rows, target, weights = merged(np.array([[2.0], [1.0], [2.0]]), np.array([1.0, 0.0, 1.0]), np.ones(3))
    >>> rows[:2].tolist(), target[:2].tolist(), weights.tolist()
    ([[1.0], [2.0]], [0.0, 1.0], [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    """
    if isinstance(rows, pa.Table):
        return rows, target, weights
    keys = np.array([row.tobytes() for row in np.ascontiguousarray(target)], object)
    if issparse(rows):
        rows = rows.copy()
        rows.sum_duplicates()
        for row, (first, end) in enumerate(pairwise(rows.indptr)):
            keys[row] += rows.indices[first:end].tobytes() + b":" + rows.data[first:end].tobytes()
    else:
        for row, values in enumerate(np.ascontiguousarray(rows)):
            keys[row] += values.tobytes()
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    room = max(FEWEST, bucket(len(first)))
    room = room if room > FEW else 1 << (room - 1).bit_length()
    added = np.zeros(room)
    added[: len(first)] = np.bincount(which, weights, len(first))
    chosen = np.pad(first, (0, room - len(first)), mode="edge")
    return rows[chosen], target[chosen], added

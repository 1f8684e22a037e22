"""What scikit-learn's contract asks of the rows that an estimator is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse
from sklearn.base import is_classifier
from sklearn.utils import check_array
from sklearn.utils.validation import column_or_1d, validate_data

from steepest.sklearn.faults import InvalidError
from steepest.sklearn.inputs import names_of, require_names, table_of

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]

NUMBERS = (np.float64, np.float32)


def checked_rows(estimator: Any, rows: Any, *, framed: bool, reset: bool) -> Any:
    """Return rows, checked: an array, a sparse matrix in rows, or an Arrow table.

    Parameters
    ----------
    estimator
        Is told the columns' number and names, if ``reset``; else the rows must have the same.
    rows
        As they were given.
    framed
        Whether they are a frame with a column plan; its columns are found by their names.
    reset
        Whether what was learned before does not count.

    Raises
    ------
    ValueError
        If they can't be used.
    """
    if not framed:
        return validate_data(estimator, rows, reset=reset, accept_sparse="csr", dtype=NUMBERS)
    if not hasattr(rows, "columns"):
        raise InvalidError(
            f"The estimator was fitted on a frame; these rows are a {type(rows).__name__}.",
            hint="Give a frame with the same columns.",
        )
    names = names_of(rows)
    if reset:
        estimator.feature_names_in_ = np.array(names, object)
        estimator.n_features_in_ = len(names)
    else:
        require_names(names, estimator.feature_names_in_.tolist())
    return table_of(rows)


def checked_target(estimator: Any, target: Any, rows: int) -> Array:
    """Return ``y`` for so many rows, checked: ``[rows]`` or ``[rows, outputs]``.

    Raises
    ------
    ValueError
        If it can't be used.
    """
    if target is None:
        raise InvalidError(
            f"This {type(estimator).__name__} requires y to be passed, but the target y is None."
        )
    kind = None if is_classifier(estimator) else np.float64
    values = target.toarray() if issparse(target) else target
    values = check_array(values, ensure_2d=False, dtype=kind, input_name="y")
    if is_classifier(estimator) and values.ndim == 2 and values.shape[1] == 1:
        values = column_or_1d(values, warn=True)
    if len(values) != rows:
        raise InvalidError(f"X has {rows} rows, and y has {len(values)}; they must be as many.")
    return np.asarray(values)


def row_weights(weights: Any, rows: int) -> Floats:
    """Return the weight of each row, float64 ``[rows]``.

    Raises
    ------
    InvalidError
        If they are not as many, not finite, below zero, or all zero.
    """
    if weights is None:
        return np.ones(rows)
    values = np.asarray(weights, np.float64)
    if values.ndim == 0:
        values = np.full(rows, float(values))
    if values.shape != (rows,):
        raise InvalidError(f"sample_weight has the shape {values.shape}; it must be ({rows},).")
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise InvalidError("Sample weights must be finite, and 0 or above.")
    if not values.any():
        raise InvalidError("Sample weights must contain at least one non-zero number.")
    return values

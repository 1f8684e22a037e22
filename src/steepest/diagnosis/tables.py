"""What a sample of a table's rows says of it, whatever the model: conditioning, leaks, and signal.

A target is a matrix here, ``[rows, outputs]``: numbers, or 0 and 1 for each class (one column for two
classes). Skill is one formula for all of them, ``1 - Σ (y - p)² / Σ (y - mean)²`` on rows that were not
learned from: R² for numbers, Brier's skill score for classes. 1 is perfect, 0 no better than the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

NULL = 1e-7
"""Eigenvalues below this part of the largest are rounding of float32 numbers, and count as zero."""

ROWS_A_BIN, MOST_BINS = 16, 64
"""`column_skills` takes the target's mean in parts of a column's range of so many rows, at most so many."""

SHRINKAGE = 1.0
"""Rows' worth of the overall mean that is mixed into the mean of each part."""

TREES, LEAST_TREES = 25, 8
"""Rounds of boosting, shared among the classes, but no fewer than the second."""

MOST_COLUMNS = 200
"""Columns on which signal is looked for, the most telling ones first."""


def conditioning(features: Floats, groups: Mapping[str, slice]) -> dict[str, Any]:
    """Return the condition number of the inputs as a descent sees them, and which columns make it.

    It is the ratio of the largest to the smallest eigenvalue of ``AᵀA / rows``, A being the features and a
    column of ones for the bias: for least squares, the Hessian (up to a factor) of the output layer, so that
    descent at the best rate needs about so many steps for each digit. Zero eigenvalues don't count: along
    such a direction (a column that is the sum of others) neither outputs nor gradients change. Columns of 0/1
    features are left out: rare categories make small eigenvalues, but hold few rows to gain from.

    Returns
    -------
    dict
        ``condition`` (``None`` if no column of numbers is left), ``largest`` and ``smallest``, the
        eigenvalues, and ``largest_columns`` and ``smallest_columns``, up to three names each whose features
        make most of the direction; ``"bias"`` may be among them.

    Examples
    --------
    >>> x = np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, -0.9]])
    >>> found = conditioning(x, {"a": slice(0, 1), "b": slice(1, 2)})
    >>> round(found["condition"]), found["smallest_columns"]
    (3048, ['b', 'a'])
    """
    kept = {name: span for name, span in groups.items() if not _is_one_hot(features[:, span])}
    if not kept:
        return {"condition": None}
    places = np.concatenate([np.arange(span.start, span.stop) for span in kept.values()])
    owners = [name for name, span in kept.items() for _ in range(span.stop - span.start)] + ["bias"]
    inputs = np.column_stack([features[:, places], np.ones(len(features))]).astype(np.float64)
    values, vectors = np.linalg.eigh(inputs.T @ inputs / len(inputs))
    first = int(np.flatnonzero(values > NULL * values[-1])[0])
    return {
        "condition": float(values[-1] / values[first]),
        "largest": float(values[-1]),
        "smallest": float(values[first]),
        "largest_columns": _makers(vectors[:, -1], owners),
        "smallest_columns": _makers(vectors[:, first], owners),
    }


def _makers(vector: Floats, owners: list[str]) -> list[str]:
    """Return the columns that hold most of a direction's length, the largest first, at most three."""
    shares: dict[str, float] = {}
    for owner, part in zip(owners, vector, strict=True):
        shares[owner] = shares.get(owner, 0.0) + float(part) ** 2
    ranked = sorted(shares, key=lambda name: -shares[name])
    return [name for name in ranked[:3] if shares[name] > 0.1]


def skill(prediction: Floats, target: Floats, mean: Floats) -> float | None:
    """Return ``1 - Σ (y - p)² / Σ (y - mean)²``; ``None`` where the target is its mean everywhere.

    Examples
    --------
    >>> skill(np.array([[1.0], [2.0]]), np.array([[1.0], [3.0]]), np.array([2.0]))
    0.5
    """
    spread = float(((target - mean) ** 2).sum())
    return float(1 - ((target - prediction) ** 2).sum() / spread) if spread > 0 else None


def column_skills(
    features: Floats, target: Floats, held_features: Floats, held_target: Floats, groups: Mapping[str, slice]
) -> dict[str, float]:
    """Return how well each column alone predicts the held-out rows, by name.

    The better of two simple predictions: the target's mean within each of quantile bins (within each
    category of a 0/1 group), shrunk to the overall mean; and a straight line.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 400)[:, None]
    >>> column_skills(x, x**2, x, x**2, {"a": slice(0, 1)})["a"] > 0.9
    True
    """
    mean = target.mean(axis=0)
    found = {}
    for name, span in groups.items():
        values, held = _one_column(features[:, span]), _one_column(held_features[:, span])
        edges = _edges(features[:, span], values)
        codes, held_codes = np.searchsorted(edges, values), np.searchsorted(edges, held)
        means = _means_by_code(codes, target, mean, len(edges) + 1)
        guesses = [skill(means[held_codes], held_target, mean)]
        center, spread = values.mean(), values.std()
        if spread > 0:
            across = (values - center) / spread
            line = mean + ((held - center) / spread)[:, None] * (across @ target / len(target))
            guesses.append(skill(line, held_target, mean))
        found[name] = max(0.0, *(each for each in guesses if each is not None), 0.0)
    return found


def _is_one_hot(features: Floats) -> bool:
    """Tell whether these are the 0/1 features of one column's categories."""
    return bool(((features == 0) | (features == 1)).all() and (features.sum(axis=1) <= 1).all())


def _one_column(features: Floats) -> Floats:
    """Return one number for each row: the category's place, or the first feature."""
    if features.shape[1] > 1 and _is_one_hot(features):
        return features @ np.arange(1.0, features.shape[1] + 1)
    return features[:, 0].astype(np.float64)


def _edges(features: Floats, values: Floats) -> Floats:
    if features.shape[1] > 1 and _is_one_hot(features):
        return np.arange(features.shape[1]) + 0.5
    bins = min(MOST_BINS, max(4, len(values) // ROWS_A_BIN))
    return np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))


def _means_by_code(codes: npt.NDArray[np.intp], target: Floats, mean: Floats, count: int) -> Floats:
    rows = np.bincount(codes, minlength=count)[:, None]
    sums = np.stack([np.bincount(codes, column, minlength=count) for column in target.T], axis=1)
    means: Floats = (sums + SHRINKAGE * mean) / (rows + SHRINKAGE)
    return means


def signal(
    features: Floats,
    target: Floats,
    held_features: Floats,
    held_target: Floats,
    groups: Mapping[str, slice],
    telling: Mapping[str, float],
    seed: int,
) -> dict[str, float | None]:
    """Return what small boosted trees reach on held-out rows, from at most `MOST_COLUMNS` columns.

    Trees need neither scaling nor a learning rate, so that what they reach tells a model that could not learn
    from a table that has nothing to learn.

    Parameters
    ----------
    features, target, held_features, held_target
        Rows to learn from, and others.
    groups
        Name of a column -> its features.
    telling
        What `column_skills` says.
    seed
        Decides the trees' draws.

    Returns
    -------
    dict
        ``trees``, their skill, and ``error``, the standard error of it over the held-out rows.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    chosen = sorted(groups, key=lambda name: -telling.get(name, 0.0))[:MOST_COLUMNS]
    known, held = (
        np.concatenate([_compact(each[:, groups[name]]) for name in chosen], axis=1)
        for each in (features, held_features)
    )
    mean = target.mean(axis=0)
    codes = target.argmax(axis=1) if target.shape[1] > 1 else target[:, 0]
    classes = np.unique(codes)
    if len(classes) < 2:
        return {"trees": None, "error": None}
    settings = {
        "max_iter": max(LEAST_TREES, TREES // target.shape[1]),
        "max_leaf_nodes": 15,
        "learning_rate": 0.2,
        "random_state": seed,
        "early_stopping": False,
    }
    # One thread: for so few rows several wait for each other longer than they work.
    with threadpool_limits(1, "openmp"):
        if target.shape[1] == 1 and not set(classes) <= {0.0, 1.0}:
            predicted = HistGradientBoostingRegressor(**settings).fit(known, codes).predict(held)[:, None]
        else:
            probabilities = HistGradientBoostingClassifier(**settings).fit(known, codes).predict_proba(held)
            predicted = np.zeros((len(held), int(classes[-1]) + 1))
            predicted[:, classes.astype(int)] = probabilities
            predicted = predicted[:, 1:] if target.shape[1] == 1 else _widened(predicted, target.shape[1])
    return {"trees": skill(predicted, held_target, mean), "error": _skill_error(predicted, held_target, mean)}


def _widened(predicted: Floats, columns: int) -> Floats:
    """Add classes of which no row was learned from."""
    return np.pad(predicted, [(0, 0), (0, columns - predicted.shape[1])])


def _skill_error(prediction: Floats, target: Floats, mean: Floats) -> float | None:
    """Return the standard error of a skill: that of the mean gain of a row, over the mean square."""
    before = ((target - mean) ** 2).sum(axis=1)
    gain = before - ((target - prediction) ** 2).sum(axis=1)
    usual = float(before.mean())
    return float(gain.std() / np.sqrt(len(gain)) / usual) if usual > 0 else None


def _compact(features: Floats) -> Floats:
    return _one_column(features)[:, None] if _is_one_hot(features) else features

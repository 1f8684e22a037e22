"""The numbers behind the pictures of an evaluation, few enough to keep in a run's record.

Every function returns plain JSON types. Truth is 0 or 1, a class code from 0, or a number; predictions are
finite. Names of the keys are what `steepest.diagnosis.plots` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CURVE_POINTS = 200
CALIBRATION_BINS = 10
RESIDUAL_BINS = 60
PREDICTION_BINS = 20
SAMPLED_POINTS = 1000
CONFUSION_CLASSES = 20


def roc(truth: Floats, probability: Floats) -> dict[str, Any]:
    """Return true against false positive rates over all thresholds, at most CURVE_POINTS of them.

    Examples
    --------
    >>> roc(np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.2, 0.3]))
    {'false_positive_rate': [0.0, 0.0, 0.0, 1.0], 'true_positive_rate': [0.0, 0.5, 1.0, 1.0],
    'threshold': [None, 0.3, 0.2, 0.1]}
    """
    from sklearn.metrics import roc_curve

    false_rate, true_rate, threshold = roc_curve(truth, probability)
    chosen = _chosen(false_rate, true_rate)
    return {
        "false_positive_rate": false_rate[chosen].tolist(),
        "true_positive_rate": true_rate[chosen].tolist(),
        # The curve begins where no row is called positive.
        "threshold": [float(value) if np.isfinite(value) else None for value in threshold[chosen]],
    }


def precision_recall(truth: Floats, probability: Floats) -> dict[str, Any]:
    """Return precision against recall over all thresholds, at most CURVE_POINTS of them."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, threshold = precision_recall_curve(truth, probability, drop_intermediate=True)
    chosen = _chosen(recall, precision)
    return {
        "recall": recall[chosen].tolist(),
        "precision": precision[chosen].tolist(),
        # The curve ends where no row is called positive.
        "threshold": [float(threshold[i]) if i < len(threshold) else None for i in chosen],
    }


def calibration(truth: Floats, probability: Floats) -> dict[str, Any]:
    """Return predicted and observed shares of ones in bins of about equally many rows."""
    return _by_prediction(truth, probability, CALIBRATION_BINS)


def predicted_against_true(truth: Floats, prediction: Floats) -> dict[str, Any]:
    """Return predicted and observed means in bins of about equally many rows, and a sample of rows."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([0])))
    chosen = sample_rows(generator, len(truth), SAMPLED_POINTS)
    return {
        **_by_prediction(truth, prediction, PREDICTION_BINS),
        "sample": {"predicted": prediction[chosen].tolist(), "true": truth[chosen].tolist()},
    }


def residuals(truth: Floats, prediction: Floats) -> dict[str, Any]:
    """Count true minus predicted over its middle 99 %, so that a few extremes do not flatten the picture.

    Rows outside the edges are counted as ``below`` and ``above``.
    """
    missed = truth - prediction
    middle = np.quantile(missed, [0.005, 0.995]) if len(missed) > 200 else missed
    bins = min(RESIDUAL_BINS, 1 + int(np.sqrt(len(missed))))
    for low, high in ((middle.min(), middle.max()), (missed.min(), missed.max())):
        if high - low > 1e-9 * max(abs(low), abs(high)):
            break
    else:  # all the same: one bin around it
        bins, low, high = 1, low - 0.5 - abs(low) / 2, high + 0.5 + abs(high) / 2
    counts, edges = np.histogram(missed, bins, (low, high))
    return {
        "edges": edges.tolist(),
        "rows": counts.tolist(),
        "below": int(np.sum(missed < edges[0])),
        "above": int(np.sum(missed > edges[-1])),
    }


def confusion(truth: Integers, predicted: Integers, labels: Sequence[str]) -> dict[str, Any]:
    """Count rows by true class (rows) and predicted class (columns).

    Of more than CONFUSION_CLASSES classes the most frequent are named; the others share the last row and
    column.
    """
    from sklearn.metrics import confusion_matrix

    shown = list(labels)
    if len(labels) > CONFUSION_CLASSES:
        frequent = np.sort(
            np.argsort(-np.bincount(truth, minlength=len(labels)), kind="stable")[:CONFUSION_CLASSES]
        )
        place = np.full(len(labels), CONFUSION_CLASSES)
        place[frequent] = np.arange(CONFUSION_CLASSES)
        truth, predicted = place[truth], place[predicted]
        shown = [*(labels[code] for code in frequent), "all others"]
    counts = confusion_matrix(truth, predicted, labels=np.arange(len(shown)))
    return {"labels": shown, "rows": counts.tolist()}


def sample_rows(generator: np.random.Generator, rows: int, most: int) -> Integers:
    """Return at most so many row positions, in ascending order."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(generator.choice(rows, most, replace=False))


def _chosen(x: Floats, y: Floats) -> Integers:
    """Choose at most CURVE_POINTS points: half spread evenly along x, half along the curve's length."""
    if len(x) <= CURVE_POINTS:
        return np.arange(len(x))
    moved = [np.abs(np.diff(x)), np.hypot(np.diff(x), np.diff(y))]
    ways = [np.append(0, np.cumsum(steps)) for steps in moved]
    even = [np.searchsorted(way, np.linspace(0, way[-1], CURVE_POINTS // 2 - 1)) for way in ways]
    return np.unique(np.minimum(np.concatenate([[0], *even, [len(x)]]), len(x) - 1))


def _by_prediction(truth: Floats, prediction: Floats, bins: int) -> dict[str, Any]:
    """Average truth and prediction by quantiles of the prediction; equal predictions stay together."""
    edges = np.quantile(prediction, np.linspace(0, 1, bins + 1)[1:-1])
    bin_of_row = np.searchsorted(edges, prediction)
    rows = np.bincount(bin_of_row, minlength=bins)
    used = rows > 0
    return {
        "predicted": (np.bincount(bin_of_row, prediction, bins)[used] / rows[used]).tolist(),
        "observed": (np.bincount(bin_of_row, truth, bins)[used] / rows[used]).tolist(),
        "rows": rows[used].tolist(),
    }

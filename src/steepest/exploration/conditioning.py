"""What the columns mean for a descent: the condition number of the features, and the steps that it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FLAT = {np.dtype(np.float64): 1e-13, np.dtype(np.float32): 1e-6}
"""Singular values below this part of the largest are nothing but rounding: the loss is flat there."""

RESPONSIBLE = 0.25
"""The share of the steepest feature's part in a direction from which on a feature is named with it."""


@dataclass(frozen=True)
class Condition:
    """How much longer the valley of the loss is than wide.

    Parameters
    ----------
    number
        The condition number κ: largest over smallest curvature, flat directions apart.
    steps
        Steps of plain descent, at its best rate, until the error is a tenth: see `steps_for_a_tenth`.
    flat
        Directions in which the loss does not change at all: features that others add up to.
    along
        The features of the direction of least curvature, those with the largest part in it first.
    """

    number: float
    steps: float
    flat: int
    along: tuple[int, ...]


def condition(features: npt.NDArray[np.floating]) -> Condition:
    """Return the condition number of a linear model's squared loss, and what follows from it.

    The curvature of ``Σ (w·x + b − y)² / n`` is ``2 XᵀX / n``, where X has a column of ones for b; its
    condition number is the square of that of X. Cross-entropy's curvature is a weighted form of the same.
    Where features add up to one another (one-hot features to the column of ones), the loss is flat in a
    direction, which a descent never takes and which does not count.

    Parameters
    ----------
    features
        Shape [rows, features], all finite.

    Examples
    --------
    >>> found = condition(np.array([[3.0, 1.0], [3.0, -1.0], [-3.0, 1.0], [-3.0, -1.0]]))
    >>> round(found.number, 6), found.flat
    (9.0, 0)
    """
    ones = np.ones((len(features), 1))
    triangle = np.linalg.qr(np.concatenate([ones, features.astype(np.float64)], axis=1), mode="r")
    _, singular, directions = np.linalg.svd(triangle)
    real = int((singular > FLAT[features.dtype] * singular[0]).sum())
    number = float((singular[0] / singular[real - 1]) ** 2)
    part = np.abs(directions[real - 1, 1:])
    order = np.argsort(-part, kind="stable")
    along = tuple(int(each) for each in order if part[each] >= RESPONSIBLE * part[order[0]] > 0)
    return Condition(number, steps_for_a_tenth(number), features.shape[1] + 1 - real, along)


def steps_for_a_tenth(number: float) -> float:
    """Return how many steps plain descent takes until the distance to the minimum is a tenth.

    At the rate ``2 / (L + μ)`` each step takes the factor ``(κ − 1) / (κ + 1)``, so that it takes
    ``ln 10 / ln((κ + 1) / (κ − 1))`` steps, which is nearly ``κ/2 · ln 10``: Y. Nesterov, *Introductory
    Lectures on Convex Optimization*, 2004, theorem 2.1.15. With the best momentum √κ takes the place of κ
    (B. Polyak, 1964).

    Examples
    --------
    >>> [round(steps_for_a_tenth(number), 2) for number in (1.0, 10.0, 1000.0)]
    [1.0, 11.47, 1151.29]
    """
    if number <= 1:
        return 1.0
    return max(1.0, math.log(10) / math.log1p(2 / (number - 1)))

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
        Steps of plain descent, at its best rate, until the error in every direction is a tenth: see
        `steps_for_a_tenth`.
    steps_to_learn
        Steps of plain descent until nine tenths of what can be learned of this target are: see
        `steps_to_learn`.
    flat
        Directions in which the loss does not change at all: features that others add up to.
    along
        The features of the direction of least curvature, those with the largest part in it first.
    """

    number: float
    steps: float
    steps_to_learn: float
    flat: int
    along: tuple[int, ...]


def condition(features: npt.NDArray[np.floating], target: npt.NDArray[np.floating]) -> Condition:
    """Return the condition number of a linear model's squared loss, and what follows from it.

    The curvature of ``Σ (w·x + b − y)² / n`` is ``2 XᵀX / n``, where X has a column of ones for b; its
    condition number is the square of that of X. Cross-entropy's curvature is a weighted form of the same.
    Where features add up to one another (one-hot features to the column of ones), the loss is flat in a
    direction, which a descent never takes and which does not count.

    Parameters
    ----------
    features
        Shape [rows, features], all finite.
    target
        Shape [rows, outputs]: numbers, or 0 and 1 for each class.

    Examples
    --------
    >>> x = np.array([[3.0, 1.0], [3.0, -1.0], [-3.0, 1.0], [-3.0, -1.0]])
    >>> found = condition(x, x[:, :1])
    >>> round(found.number, 6), found.steps_to_learn, found.flat
    (9.0, 1.0, 0)
    """
    width = features.shape[1] + 1
    ones, centred = np.ones((len(features), 1)), target - target.mean(0)
    columns = np.concatenate([ones, features.astype(np.float64), centred], axis=1)
    triangle = np.asarray(np.linalg.qr(columns, mode="r"))
    rotation, singular, directions = np.linalg.svd(triangle[:width, :width])
    parts = ((rotation.T @ triangle[:width, width:]) ** 2).sum(1)  # of the target, in each direction
    real = int((singular > FLAT[features.dtype] * singular[0]).sum())
    number = float((singular[0] / singular[real - 1]) ** 2)
    part = np.abs(directions[real - 1, 1:])
    order = np.argsort(-part, kind="stable")
    along = tuple(int(each) for each in order if part[each] >= RESPONSIBLE * part[order[0]] > 0)
    learned = steps_to_learn(singular[:real] ** 2, parts[:real])
    return Condition(number, steps_for_a_tenth(number), learned, width - real, along)


def steps_to_learn(curvatures: npt.NDArray[np.float64], parts: npt.NDArray[np.float64]) -> float:
    """Return how many steps plain descent takes until a tenth of the loss that it can remove is left.

    From zero weights at the rate 1/L, the loss that a direction of curvature λ holds shrinks by
    ``(1 − λ/L)²`` in each step: G. Goh, "Why momentum really works", Distill, 2017. So a target that lies in
    the steep directions is learned soon, however flat the others are.

    Parameters
    ----------
    curvatures
        Of each direction, the largest first and all above zero.
    parts
        The loss that each direction holds at the start.

    Examples
    --------
    >>> steps_to_learn(np.array([1.0, 0.01]), np.array([1.0, 0.0]))
    1.0
    >>> round(steps_to_learn(np.array([1.0, 0.01]), np.array([0.0, 1.0])))
    115
    """
    logs = np.log1p(-(curvatures / curvatures[0]).clip(0, 1 - 1e-16))

    def left(steps: float) -> float:
        return float(parts @ np.exp(2 * steps * logs))

    low, high = 0.0, 60.0  # logarithms of steps
    if left(1.0) <= 0.1 * float(parts.sum()):
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if left(math.exp(middle)) <= 0.1 * float(parts.sum()) else (middle, high)
    return math.exp(high)


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

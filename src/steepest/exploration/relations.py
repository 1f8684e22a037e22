"""What one column alone tells about the target: mutual information, and a one-column model's score.

Columns and targets are binned first, so that numbers, categories and missing values are treated alike, and
relations that are neither straight nor monotone are seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.counting import count

FOLDS = 5
"""Each row is held out once: the model that judges it has learned from the rows of the other folds."""

FEWEST_FOR_SLOPE = 10
"""Rows that a bin must have for the target to slope within it."""

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bins:
    """A column as bins.

    Parameters
    ----------
    codes
        The bin of each row, [rows], from 0.
    values
        The numbers behind them, [rows], NaN where one is missing; None for categories.
    """

    codes: Codes
    values: Floats | None = None

    @property
    def number(self) -> int:
        """How many bins there are."""
        return int(self.codes.max()) + 1


@dataclass(frozen=True)
class Target:
    """The target, for all columns alike.

    Parameters
    ----------
    kind
        ``"binary"``, ``"classes"``, ``"counts"`` or ``"number"``: see `steepest.tasks.Task`.
    codes
        The class of each row, or the bin of its number: [rows].
    values
        The numbers, [rows]; None for classes.
    folds
        The fold of each row, [rows].
    """

    kind: str
    codes: Codes
    values: Floats | None
    folds: Codes

    @property
    def score(self) -> str:
        """The score's name: ``"auc"``, ``"accuracy"`` or ``"r2"``, as in `steepest.evaluation`."""
        return {"binary": "auc", "classes": "accuracy"}.get(self.kind, "r2")

    @property
    def outputs(self) -> Floats:
        """What a linear model would fit: the numbers, or 0 and 1 for each class, [rows, outputs]."""
        if self.values is not None:
            return self.values[:, None]
        return np.eye(int(self.codes.max()) + 1)[self.codes]


def most_bins(target: Target) -> int:
    """Return how many bins the rows are enough for: about a hundred each, 8 to 64 bins.

    Where nearly all rows are of one class, twice as many as are of the others are what there is to go by.
    """
    rows = len(target.codes)
    if target.values is None:
        rows = min(rows, 2 * (rows - int(np.bincount(target.codes).max())))
    return min(max(rows // 100, 8), 64)


def bin_numbers(values: Floats, most: int) -> Bins:
    """Put numbers into bins of about as many rows each; few different values have a bin each.

    Parameters
    ----------
    values
        Shape [rows]; missing ones are NaN, and share the last bin.
    most
        The most bins for those that are there.

    Examples
    --------
    >>> bin_numbers(np.array([1.0, 5.0, 2.0, np.nan, 9.0, 7.0]), 2).codes.tolist()
    [0, 1, 0, 2, 1, 1]
    """
    there = ~np.isnan(values)
    present = values[there]
    different = np.unique(present)
    if len(different) <= most:
        edges = different[1:]
    else:
        edges = np.unique(np.quantile(present, np.arange(1, most) / most, method="higher"))
        edges = edges[edges > different[0]]
    codes = np.full(len(values), len(edges) + (len(present) > 0), np.int64)
    codes[there] = np.searchsorted(edges, present, side="right")
    return Bins(codes, values)


def bin_categories(values: pa.ChunkedArray | pa.Array, most: int) -> Bins:
    """Give each of the most frequent values a bin; the others share one, and so do missing ones.

    Examples
    --------
    >>> bin_categories(pa.array(["u", "v", None, "u", "w"]), 1).codes.tolist()
    [0, 1, 2, 0, 1]
    """
    counted = count(values)
    ranked = np.argsort(-counted.field(1).to_numpy(), kind="stable")[:most]
    places = pc.index_in(values, value_set=counted.field(0).take(pa.array(ranked)))
    codes = np.asarray(pc.fill_null(places, len(ranked)), np.int64)
    codes[np.asarray(pc.is_null(values))] = len(ranked) + (len(counted) > len(ranked))
    return Bins(codes)


def folds_of(rows: int, order: Codes) -> Codes:
    """Return the fold of each row from a random order of the rows; at most `FOLDS`, of sizes alike."""
    folds = np.empty(rows, np.int64)
    folds[order] = np.arange(rows) % FOLDS
    return folds


def _table(bins: Bins, target: Target) -> npt.NDArray[np.float64]:
    """Return how many rows each fold has in each bin, of each class: [folds, bins, classes]."""
    classes = int(target.codes.max()) + 1
    cells = (target.folds * bins.number + bins.codes) * classes + target.codes
    counts = np.bincount(cells, minlength=FOLDS * bins.number * classes)
    return counts.reshape(FOLDS, bins.number, classes).astype(np.float64)


def entropy(counts: npt.NDArray[np.floating]) -> float:
    """Return the entropy of a distribution given by its counts, −Σ p ln p, in nats.

    Examples
    --------
    >>> entropy(np.array([2.0, 2.0]))
    0.693...
    """
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def mutual_information(counts: npt.NDArray[np.floating]) -> float:
    """Return the mutual information of a table of counts, Σ p_xy ln(p_xy / (p_x p_y)), in nats.

    Parameters
    ----------
    counts
        Shape [bins, classes].

    Examples
    --------
    >>> mutual_information(np.array([[4.0, 0.0], [0.0, 4.0]]))
    0.693...
    """
    return max(0.0, entropy(counts.sum(0)) + entropy(counts.sum(1)) - entropy(counts.ravel()))


def chance(counts: npt.NDArray[np.floating]) -> float:
    """Return what the mutual information of such a table is by chance alone, on average.

    The bias of a table of independent columns, ``(bins − 1)(classes − 1) / (2 rows)``, over those that occur:
    G. A. Miller, "Note on the bias of information estimates", 1955.
    """
    bins, classes = (int((counts.sum(axis) > 0).sum()) for axis in (1, 0))
    return (bins - 1) * (classes - 1) / (2 * float(counts.sum()))


def surprise(counts: npt.NDArray[np.floating]) -> float:
    """Return how many standard deviations the table is from independence.

    ``2 rows · information`` is distributed as χ² then (the G-test); the cube root makes it normal: E. B.
    Wilson and M. M. Hilferty, "The distribution of chi-square", 1931.
    """
    freedom = 2 * float(counts.sum()) * chance(counts)
    if not freedom:
        return 0.0
    statistic = 2 * float(counts.sum()) * mutual_information(counts)
    spread = 2 / (9 * freedom)
    return float(((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread))


@dataclass(frozen=True)
class Relation:
    """What a column alone tells about the target.

    Parameters
    ----------
    information
        Mutual information of the binned column and the (binned) target in nats, less `chance`, from 0.
    explained
        The share of the target's entropy that this is.
    surprise
        See `surprise`.
    score
        Of a model of this column alone, on rows that it has not learned from: see `Target.score`.
    signal
        The score from 0 (as good as guessing, or worse) to 1 (no error).
    """

    information: float
    explained: float
    surprise: float
    score: float
    signal: float


def relate(bins: Bins, target: Target) -> Relation:
    """Tell what a column tells about the target.

    Examples
    --------
    >>> rows = np.arange(400)
    >>> target = Target("binary", rows % 2, None, folds_of(400, rows))
    >>> relate(Bins(rows % 2), target).score, relate(Bins(rows % 4 // 2), target).score
    (1.0, 0.5)
    """
    table = _table(bins, target)
    counts = table.sum(0)
    information = max(0.0, mutual_information(counts) - chance(counts))
    whole = entropy(counts.sum(0))
    score, signal = _score(bins, target, table)
    return Relation(
        information, min(1.0, information / whole) if whole else 0.0, surprise(counts), score, signal
    )


def _score(bins: Bins, target: Target, table: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the score and the signal."""
    learned = table.sum(0) - table  # of the other folds
    if target.kind == "binary":
        areas = [
            _area(_shares(ours)[:, 1], held[:, 1], held[:, 0])
            for ours, held in zip(learned, table, strict=True)
        ]
        known = [area for area in areas if area is not None]
        area = float(np.mean(known)) if known else 0.5
        return area, max(0.0, 2 * area - 1)
    if target.kind == "classes":
        chosen = _shares(learned).argmax(-1)
        right = np.take_along_axis(table, chosen[..., None], -1).sum() / table.sum()
        usual = table.sum((0, 1)).max() / table.sum()
        return float(right), max(0.0, float((right - usual) / (1 - usual)))
    assert target.values is not None  # noqa: S101 - numbers have values
    return explained_variance(bins, target.values, target.folds)


def _shares(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the share of each class in each bin, drawn towards the whole as by one row more."""
    whole = counts.sum(-2, keepdims=True) / counts.sum((-2, -1), keepdims=True).clip(1)
    return np.asarray((counts + whole) / (counts.sum(-1, keepdims=True) + 1), np.float64)


def _area(score: Floats, positives: Floats, negatives: Floats) -> float | None:
    """Return the area under the ROC curve of bins that have these scores; None where a class is missing."""
    _, places = np.unique(score, return_inverse=True)
    above, below = (np.bincount(places, weights=each) for each in (positives, negatives))
    pairs = above.sum() * below.sum()
    if not pairs:
        return None
    return float((above * (np.cumsum(below) - below / 2)).sum() / pairs)


def explained_variance(bins: Bins, target: Floats, folds: Codes) -> tuple[float, float]:
    """Return R² of predictions of held-out rows, and the same from 0 up.

    A bin's prediction is its mean; of numbers, the straight line through the bin's rows, within the range of
    the target.

    Parameters
    ----------
    bins
        The column.
    target
        Numbers [rows].
    folds
        The fold of each row.
    """
    number = bins.number
    cells = folds * number + bins.codes

    def learned(values: Floats | None) -> Floats:
        sums = np.bincount(cells, values, minlength=FOLDS * number).reshape(FOLDS, number)
        return np.asarray(sums.sum(0) - sums, np.float64)

    deviation = target - target.mean()
    rows, sums = learned(None), learned(deviation)
    means = (sums + sums.sum(1, keepdims=True) / rows.sum(1, keepdims=True).clip(1)) / (rows + 1)
    predicted = means[folds, bins.codes]
    if bins.values is not None:
        x = np.where(np.isnan(bins.values), 0.0, bins.values)
        x -= (np.bincount(bins.codes, x) / np.bincount(bins.codes).clip(1))[bins.codes]
        x /= np.sqrt(np.bincount(bins.codes, x * x) / np.bincount(bins.codes).clip(1)).clip(1e-300)[
            bins.codes
        ]
        counted = rows.clip(1)
        mean = learned(x) / counted
        squares = learned(x * x) - counted * mean**2
        products = learned(x * deviation) - mean * sums
        sloped = (rows >= FEWEST_FOR_SLOPE) & (squares > 1e-9 * counted)
        slopes = np.where(sloped, products / np.where(sloped, squares, 1.0), 0.0)
        predicted = predicted + slopes[folds, bins.codes] * (x - mean[folds, bins.codes])
        predicted = predicted.clip(deviation.min(), deviation.max())
    whole = float((deviation**2).sum())
    r2 = 1 - float(((deviation - predicted) ** 2).sum()) / whole if whole else 0.0
    return r2, max(0.0, r2)

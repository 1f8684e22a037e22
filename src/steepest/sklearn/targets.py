"""What an estimator is given as ``y``: what a model learns of it, and what its outputs then say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from steepest.errors import nearest
from steepest.sklearn.faults import InvalidError
from steepest.tasks import LOSS_KINDS

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]

LEAST_SHARE = 1e-6
"""The baseline's share of a class that no row has."""

LABELS = "labels"


@dataclass(frozen=True)
class Classes:
    """A target of classes.

    Parameters
    ----------
    labels
        The classes, ascending; the columns' numbers of an indicator matrix.
    kind
        ``"binary"`` (one output), ``"classes"`` (an output for each, of which one is right), ``"labels"``
        (one for each column of an indicator matrix), or ``"one against the rest"`` (one for each class).
    loss
        The loss's name.
    """

    labels: Array
    kind: str
    loss: str

    @property
    def outputs(self) -> int:
        """Number of outputs of a model."""
        return 1 if self.kind == "binary" else len(self.labels)

    def encode(self, y: Array) -> Array:
        """Return the target as the loss takes it: ``[rows]``, or ``[rows, outputs]``.

        Raises
        ------
        InvalidError
            If there is another class.
        """
        if self.kind == LABELS:
            if y.ndim != 2 or y.shape[1] != len(self.labels):
                raise InvalidError(f"y must be an indicator matrix of {len(self.labels)} columns.")
            return np.asarray(y != 0, np.float32)
        if y.ndim != 1:
            raise InvalidError("y was a column of classes before; now it is a matrix.")
        codes = np.searchsorted(self.labels, y).clip(max=len(self.labels) - 1)
        unknown = self.labels[codes] != y
        if unknown.any():
            raise InvalidError(f"y holds the class {y[unknown].tolist()[0]!r}, which is not among classes.")
        if self.kind == "classes":
            return codes.astype(np.int32)
        if self.kind == "binary":
            return codes.astype(np.float32)
        return np.asarray(codes[:, None] == np.arange(len(self.labels)), np.float32)

    def bias(self, encoded: Array, weights: Floats) -> Floats:
        """Return the outputs, ``[outputs]``, that predict how often each class is."""
        if self.loss == "hinge":
            return np.zeros(self.outputs)
        indicators = encoded
        if self.kind == "classes":
            indicators = np.asarray(encoded[:, None] == np.arange(len(self.labels)), np.float64)
        shares = weights @ indicators.reshape(len(encoded), -1) / weights.sum()
        shares = shares.clip(LEAST_SHARE, 1 - LEAST_SHARE)
        if self.kind == "classes":
            logs: Floats = np.log(shares)
            return np.asarray(logs - logs.mean())
        return np.asarray(np.log(shares / (1 - shares)))

    def probabilities(self, outputs: Floats) -> Floats:
        """Return the probability of each class, ``[rows, classes]``."""
        if self.kind == "classes":
            return np.asarray(softmax(outputs, axis=1))
        each = expit(outputs)
        if self.kind == "binary":
            return np.stack([1 - each, each], axis=1)
        return np.asarray(each if self.kind == LABELS else each / each.sum(axis=1, keepdims=True))

    def chosen(self, outputs: Floats) -> Array:
        """Return the class of each row; of an indicator matrix, 0 or 1 for each label."""
        if self.kind == LABELS:
            return (outputs > 0).astype(int)
        codes = (outputs > 0).astype(int) if self.kind == "binary" else outputs.argmax(axis=1)
        return np.asarray(self.labels[codes])

    def row_weights(self, wanted: Any, y: Array, weights: Floats) -> Floats:
        """Return the row weights times those of the classes.

        Parameters
        ----------
        wanted
            ``"balanced"``, which gives all classes the same weight together; label -> weight, where others
            weigh 1; or ``None``.
        y, weights
            The labels and row weights ``[rows]``.
        """
        if wanted is None:
            return weights
        if self.kind == LABELS:
            raise InvalidError("class_weight needs one class a row, not an indicator matrix.")
        codes = np.searchsorted(self.labels, y)
        if isinstance(wanted, str):
            if wanted != "balanced":
                raise InvalidError(f"class_weight is 'balanced' or a dictionary, not {wanted!r}.")
            totals = np.bincount(codes, weights, len(self.labels))
            of_classes = totals.sum() / (len(totals) * np.where(totals > 0, totals, 1.0))
        elif isinstance(wanted, Mapping):
            labels = self.labels.tolist()
            if unknown := next((label for label in wanted if label not in labels), None):
                raise InvalidError(
                    f"class_weight names {unknown!r}, which is no class.",
                    hint=nearest(str(unknown), map(str, labels)),
                )
            of_classes = np.array([float(wanted.get(label, 1.0)) for label in labels])
        else:
            raise InvalidError(f"class_weight is 'balanced' or a dictionary, not {wanted!r}.")
        return np.asarray(weights * of_classes[codes])


def learn_classes(y: Array, loss: str | None, classes: Any = None) -> Classes:
    """Return what there is to learn of classes.

    Parameters
    ----------
    y
        Labels ``[rows]``, or an indicator matrix ``[rows, labels]``.
    loss
        A loss by name; ``None`` for the cross-entropy that fits.
    classes
        All classes, where ``y`` may lack some.

    Raises
    ------
    InvalidError
        If there is nothing to learn, or the loss is none of classes.

    Examples
    --------
    >>> learn_classes(np.array(["b", "a", "c"]), None).loss
    'categorical_cross_entropy'
    """
    if loss is not None:
        _require_loss(loss, ("binary", "classes"), "classes")
    if y.ndim == 2:
        if loss == "categorical_cross_entropy":
            raise InvalidError(
                "Several labels a row have no categorical cross-entropy.", hint="Try binary_cross_entropy."
            )
        return Classes(np.arange(y.shape[1]), LABELS, loss or "binary_cross_entropy")
    labels = np.unique(y if classes is None else np.asarray(classes))
    if len(labels) < 2:
        raise InvalidError(f"y has one class only, {labels.tolist()[0]!r}; there is nothing to learn.")
    if len(labels) == 2:  # the cross-entropies of two classes are the same
        return Classes(labels, "binary", "hinge" if loss == "hinge" else "binary_cross_entropy")
    if loss in (None, "categorical_cross_entropy"):
        return Classes(labels, "classes", "categorical_cross_entropy")
    return Classes(labels, "one against the rest", loss)


@dataclass(frozen=True)
class Numeric:
    """A target of numbers, learned as ``(y - center) / deviation``; counts as they are.

    Parameters
    ----------
    center, deviation
        ``[outputs]``.
    loss
        The loss's name.
    single
        Whether ``y`` is a column, ``[rows]``, and no matrix.
    """

    center: Floats
    deviation: Floats
    loss: str
    single: bool

    @property
    def outputs(self) -> int:
        """Number of outputs of a model."""
        return len(self.center)

    def encode(self, y: Array) -> Array:
        """Return the target as the loss takes it: ``[rows]``, or ``[rows, outputs]``.

        Raises
        ------
        InvalidError
            If it has another number of columns, or is no count where counts are learned.
        """
        columns = y.reshape(len(y), -1).astype(np.float64)
        if (y.ndim == 1) != self.single or columns.shape[1] != self.outputs:
            raise InvalidError(f"y had {self.outputs} columns before; its shape is {y.shape} now.")
        if self.loss == "poisson" and columns.min() < 0:
            raise InvalidError("The loss poisson needs numbers from 0 up.", hint="Try mean_squared_error.")
        scaled = ((columns - self.center) / self.deviation).astype(np.float32)
        return scaled[:, 0] if self.outputs == 1 else scaled

    def bias(self, encoded: Array, weights: Floats) -> Floats:
        """Return the outputs, ``[outputs]``, that predict the mean."""
        if self.loss != "poisson":
            return np.zeros(self.outputs)
        means = weights @ encoded.reshape(len(encoded), -1) / weights.sum()
        return np.asarray(np.log(np.maximum(means, 1e-3)))

    def predictions(self, outputs: Floats) -> Floats:
        """Return what outputs say of ``y``, shaped like it."""
        columns = outputs.reshape(len(outputs), -1)
        if self.loss == "poisson":
            columns = np.exp(columns)
        columns = columns * self.deviation + self.center
        return columns[:, 0] if self.single else columns


def learn_numbers(y: Array, weights: Floats, loss: str) -> Numeric:
    """Return what there is to learn of numbers.

    Parameters
    ----------
    y
        ``[rows]`` or ``[rows, outputs]``.
    weights
        Above zero, ``[rows]``.
    loss
        A loss by name.

    Raises
    ------
    InvalidError
        If the loss is none of numbers, or these are too large.

    Examples
    --------
    >>> learn_numbers(np.array([1.0, 3.0]), np.ones(2), "huber").deviation
    array([1.])
    """
    _require_loss(loss, ("number", "counts"), "numbers")
    columns = y.reshape(len(y), -1).astype(np.float64)
    center, deviation = np.zeros(columns.shape[1]), np.ones(columns.shape[1])
    if LOSS_KINDS[loss] == "number":
        shares = weights / weights.sum()
        center = shares @ columns
        with np.errstate(over="ignore", invalid="ignore"):
            deviation = np.sqrt(shares @ (columns - center) ** 2)
        if not np.isfinite(deviation).all():
            raise InvalidError("y holds numbers too large to compute with.", hint="Give it in another unit.")
        deviation = np.where(deviation > 0, deviation, 1.0)
    return Numeric(center, deviation, loss, y.ndim == 1)


def _require_loss(loss: str, kinds: tuple[str, ...], what: str) -> None:
    fitting = [name for name, kind in LOSS_KINDS.items() if kind in kinds]
    if loss not in fitting:
        raise InvalidError(f"There is no loss {loss!r} for {what}.", hint=nearest(str(loss), fitting))

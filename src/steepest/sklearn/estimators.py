"""Front end: scikit-learn estimators that fit by `steepest.minimize`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from steepest.data.split import RUN, check_fraction, rows_held_out
from steepest.descent.losses import loss_by_name
from steepest.prepared import Rows
from steepest.settings import AUTO, NAMES, Settings, checked
from steepest.sklearn import checking
from steepest.sklearn.descending import Descended, descend, outputs
from steepest.sklearn.faults import InvalidError, value_errors
from steepest.sklearn.inputs import (
    Columns,
    Inputs,
    Numbers,
    Sparse,
    has_columns_of_its_own,
    learn_inputs,
    merged,
    subset,
)
from steepest.sklearn.targets import Classes, Numeric, learn_classes, learn_numbers
from steepest.training import MOST_SEED, check

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]

Given = tuple[Any, Array, Floats]
"""Rows as they were given (an array, a sparse matrix or an Arrow table), their encoded target, their weights."""


class DescentEstimator(BaseEstimator):  # type: ignore[misc]
    """What both estimators share."""

    _target: Any

    def fit(self, X: Any, y: Any, sample_weight: Any = None, validation_data: Any = None) -> Self:  # noqa: N803
        """Learn from rows.

        Parameters
        ----------
        X
            An array or a sparse matrix ``[rows, columns]``, or a pandas or Polars frame.
        y
            What is to be predicted, ``[rows]`` or ``[rows, outputs]``.
        sample_weight
            Weights of the rows, 0 or above.
        validation_data
            ``(X, y)`` or ``(X, y, sample_weight)`` to judge each epoch by.

        Raises
        ------
        InvalidError
            If the rows or the parameters can't be used, or a step is not finite.
        """
        return self._learn(X, y, sample_weight, validation_data, again=self.warm_start)

    def _learn(
        self,
        X: Any,  # noqa: N803
        y: Any,
        sample_weight: Any,
        validation_data: Any = None,
        *,
        again: bool,
        onward: bool = False,
        classes: Any = None,
    ) -> Self:
        """Descend anew; from the parameters that there are (``again``); or going on by an epoch (``onward``)."""
        again = again and hasattr(self, "parameters_")
        with value_errors():
            settings = self._settings()
            framed = isinstance(self._inputs, Columns) if again else has_columns_of_its_own(X)
            rows = checking.checked_rows(self, X, framed=framed, reset=not again)
            count = rows.num_rows if framed else rows.shape[0]
            y = checking.checked_target(self, y, count)
            weights = checking.row_weights(sample_weight, count)
            target = self._target_of(y, weights, classes, again=again)
            held_out = None
            if validation_data is not None:
                held_out = self._to_judge_by(target, validation_data, framed=framed)
            training = rows, target.encode(y), self._weighted(target, y, weights)
            went = self._descend(settings, target, training, held_out, again=again, onward=onward)
        if not (again and onward):
            self.n_iter_ = 0
            self.loss_curve_, self.validation_curve_ = [], []
        self._target = target
        return self._keep(went)

    def _settings(self) -> Settings:
        """Return the parameters as the settings that they are."""
        given = {name: _plain(value) for name, value in self.get_params(deep=False).items() if name in NAMES}
        given |= {"model": "mlp" if given["hidden"] else "linear", "seed": self._seed()}
        if not given["hidden"]:
            del given["hidden"]
        patience = given.pop("patience")
        check_fraction(self.validation)
        kept = {name: value for name, value in given.items() if value is not None and name != "class_weight"}
        settings = Settings(**checked(kept | ({"patience": patience} if self.early_stopping else {}), _WHO))
        check(settings)
        return settings

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(MOST_SEED // 2))

    def _descend(
        self,
        settings: Settings,
        target: Classes | Numeric,
        training: Given,
        held_out: Given | None,
        *,
        again: bool,
        onward: bool,
    ) -> Descended:
        training = _chosen(training, training[2] > 0)
        if held_out is None and self.early_stopping:
            mask = _held_out(len(training[1]), self.validation, settings.seed)
            held_out, training = _chosen(training, mask), _chosen(training, ~mask)
        if settings.batch_size == "all" or len(training[1]) <= int(settings.batch_size):
            training = merged(*training)
        rows, encoded, weights = training
        inputs = self._inputs if again else learn_inputs(rows, weights)
        went = descend(
            settings,
            loss_by_name(target.loss),
            lambda: target.bias(encoded, weights),
            _encoded(inputs, training),
            None if held_out is None else _encoded(inputs, held_out),
            outputs=target.outputs,
            start=self.parameters_ if again else None,
            before=self._memory if again and onward else None,
            until=(self._memory.standing.epoch if again else 0) + 1 if onward else None,
            callbacks=self.callbacks,
        )
        self._inputs = inputs
        return went

    def _to_judge_by(self, target: Classes | Numeric, given: Any, *, framed: bool) -> Given:
        """Return validation rows, checked and encoded."""
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            raise InvalidError("validation_data is (X, y) or (X, y, sample_weight).")
        rows = checking.checked_rows(self, given[0], framed=framed, reset=False)
        y = checking.checked_target(self, given[1], rows.num_rows if framed else rows.shape[0])
        weights = checking.row_weights(given[2] if len(given) == 3 else None, len(y))
        return rows, target.encode(y), self._weighted(target, y, weights)

    def _target_of(self, y: Array, weights: Floats, classes: Any, *, again: bool) -> Classes | Numeric:
        raise NotImplementedError

    def _weighted(self, target: Any, y: Array, weights: Floats) -> Floats:  # noqa: ARG002
        return weights

    def _keep(self, went: Descended) -> Self:
        """Keep what a descent led to."""
        epochs = went.result.epochs
        self.parameters_, self._shape, self._memory = went.parameters, went.shape, went.memory
        self.learning_rate_ = went.memory.learning_rate
        self.n_iter_ += len(epochs)
        self.loss_curve_ += epochs["loss"].tolist()
        if "validation_loss" in epochs:
            self.validation_curve_ += epochs["validation_loss"].tolist()
        return self

    def _outputs(self, X: Any) -> Floats:  # noqa: N803
        """Return the model's outputs for rows, ``[rows]`` or ``[rows, outputs]``."""
        check_is_fitted(self)
        with value_errors():
            framed = isinstance(self._inputs, Columns)
            rows = checking.checked_rows(self, X, framed=framed, reset=False)
            if framed or self._shape.hidden:
                return outputs(self._shape, self.parameters_, self._inputs.encode(rows))
            weights, biases = self._linear()
            found = np.asarray(rows @ weights.T + biases)
            return found[:, 0] if self._target.outputs == 1 else found

    def _linear(self) -> tuple[Floats, Floats]:
        """Return weights ``[outputs, columns]`` of the columns as they were given, and biases ``[outputs]``."""
        if not hasattr(self, "parameters_") or self._shape.hidden:
            raise AttributeError(f"{type(self).__name__} has coefficients when a linear model was fitted.")
        inputs, layer = self._inputs, self.parameters_["layer_1"]
        bias = layer["bias"].astype(np.float64)
        if isinstance(inputs, Sparse):
            return self.parameters_["table"].T.astype(np.float64), bias
        if not isinstance(inputs, Numbers):
            raise AttributeError("The columns of a frame have no coefficients: some are several features.")
        weights = layer["weights"].T.astype(np.float64) / inputs.deviation
        return weights, bias - weights @ inputs.mean

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


_WHO = "The estimator sets"


def _plain(value: Any) -> Any:
    """Return NumPy's numbers, of which parameter grids are made, as Python's."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _chosen(given: Given, chosen: npt.NDArray[np.bool_]) -> Given:
    rows, encoded, weights = given
    return subset(rows, chosen), encoded[chosen], weights[chosen]


def _encoded(inputs: Inputs, given: Given) -> Rows:
    rows, encoded, weights = given
    same = (weights == weights[0]).all()
    return Rows(inputs.encode(rows), encoded, None if same else weights.astype(np.float32))


def _held_out(rows: int, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return which of so many rows are held out."""
    starts = range(0, rows, RUN)
    return np.concatenate(
        [rows_held_out(run, min(RUN, rows - first), share, seed) for run, first in enumerate(starts)]
    )


class DescentClassifier(ClassifierMixin, DescentEstimator):  # type: ignore[misc]
    """DOC"""

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (),
        activation: str = "relu",
        dropout: float = 0.0,
        embedding: int = 8,
        loss: str | None = None,
        optimizer: str = "adam",
        learning_rate: float | str = AUTO,
        schedule: str = "constant",
        clip_norm: float | None = None,
        batch_size: int | str = 32,
        epochs: int | None = None,
        tolerance: float = 1e-6,
        l1: float = 0.0,
        l2: float = 0.0,
        class_weight: str | Mapping[Any, float] | None = None,
        early_stopping: bool = False,
        patience: int = 10,
        validation: float = 0.2,
        warm_start: bool = False,
        random_state: Any = 0,
        callbacks: Any = (),
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        self.embedding = embedding
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.batch_size = batch_size
        self.epochs = epochs
        self.tolerance = tolerance
        self.l1 = l1
        self.l2 = l2
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.patience = patience
        self.validation = validation
        self.warm_start = warm_start
        self.random_state = random_state
        self.callbacks = callbacks

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:  # noqa: N803
        """Go on for one epoch over some rows."""
        if classes is None and not hasattr(self, "classes_") and np.ndim(y) == 1:
            raise InvalidError("The first call of partial_fit needs classes: all that there are.")
        return self._learn(X, y, sample_weight, again=True, onward=True, classes=classes)

    def decision_function(self, X: Any) -> Floats:  # noqa: N803
        """Return the model's outputs."""
        return self._outputs(X)

    def predict(self, X: Any) -> Array:  # noqa: N803
        """Return the class of each row."""
        found: Array = self._outputs(X)
        return self._target.chosen(found)  # type: ignore[no-any-return]

    def _has_probabilities(self) -> bool:
        return self.loss != "hinge"

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Floats:  # noqa: N803
        """Return the probability of each class, ``[rows, classes]``."""
        outputs = self._outputs(X)
        return self._target.probabilities(outputs)  # type: ignore[no-any-return]

    @property
    def coef_(self) -> Floats:
        """Weights of a linear model."""
        return self._linear()[0]

    @property
    def intercept_(self) -> Floats:
        """Biases of a linear model."""
        return self._linear()[1]

    def _target_of(self, y: Array, weights: Floats, classes: Any, *, again: bool) -> Classes:
        check_classification_targets(y)
        if again:
            if classes is not None and not np.array_equal(self.classes_, np.unique(np.asarray(classes))):
                raise InvalidError("classes are not those of the first call of partial_fit.")
            return self._target  # type: ignore[no-any-return]
        target = learn_classes(y, self.loss, classes)
        self.classes_ = target.labels
        return target

    def _weighted(self, target: Classes, y: Array, weights: Floats) -> Floats:
        return target.row_weights(self.class_weight, y, weights)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class DescentRegressor(RegressorMixin, DescentEstimator):  # type: ignore[misc]
    """DOC"""

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (),
        activation: str = "relu",
        dropout: float = 0.0,
        embedding: int = 8,
        loss: str = "mean_squared_error",
        optimizer: str = "adam",
        learning_rate: float | str = AUTO,
        schedule: str = "constant",
        clip_norm: float | None = None,
        batch_size: int | str = 32,
        epochs: int | None = None,
        tolerance: float = 1e-6,
        l1: float = 0.0,
        l2: float = 0.0,
        early_stopping: bool = False,
        patience: int = 10,
        validation: float = 0.2,
        warm_start: bool = False,
        random_state: Any = 0,
        callbacks: Any = (),
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        self.embedding = embedding
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.batch_size = batch_size
        self.epochs = epochs
        self.tolerance = tolerance
        self.l1 = l1
        self.l2 = l2
        self.early_stopping = early_stopping
        self.patience = patience
        self.validation = validation
        self.warm_start = warm_start
        self.random_state = random_state
        self.callbacks = callbacks

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Go on for one epoch over some rows."""
        return self._learn(X, y, sample_weight, again=True, onward=True)

    def predict(self, X: Any) -> Floats:  # noqa: N803
        """Return what is predicted for each row, shaped like ``y``."""
        outputs = self._outputs(X)
        return self._target.predictions(outputs)  # type: ignore[no-any-return]

    @property
    def coef_(self) -> Floats:
        """Weights of a linear model, in the unit of ``y``."""
        weights = self._linear()[0] * self._target.deviation[:, None]
        return weights[0] if self._target.single else weights

    @property
    def intercept_(self) -> Any:
        """Biases of a linear model, in the unit of ``y``."""
        biases = self._linear()[1] * self._target.deviation + self._target.center
        return biases[0] if self._target.single else biases

    def _target_of(self, y: Array, weights: Floats, classes: Any, *, again: bool) -> Numeric:  # noqa: ARG002
        if again:
            return self._target  # type: ignore[no-any-return]
        return learn_numbers(y[weights > 0], weights[weights > 0], self.loss)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

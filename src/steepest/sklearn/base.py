"""What both estimators share: from what a person gives to a descent, and from its model to outputs.

Who owns what: `checking` and `inputs` own ``X``, `targets` owns ``y``, `descending` owns the descent; this
module owns the order of events and what an estimator keeps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from steepest.checking import MOST_SEED, check
from steepest.combining import checked
from steepest.data.split import RUN, rows_held_out
from steepest.descent.losses import loss_by_name
from steepest.prepared import Rows
from steepest.run import Shape
from steepest.settings import NAMES, Settings
from steepest.sklearn import checking
from steepest.sklearn.descending import Descended, Memory, descend, outputs
from steepest.sklearn.faults import InvalidError, value_errors
from steepest.sklearn.inputs import (
    Columns,
    Inputs,
    Sparse,
    has_columns_of_its_own,
    learn_inputs,
    merged,
    subset,
)
from steepest.sklearn.targets import Classes, Numeric

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]

Given = tuple[Any, Array, Floats]
"""Rows as they were given (an array, a sparse matrix or an Arrow table), encoded target, and weights."""


class DescentEstimator(BaseEstimator):  # type: ignore[misc]
    """What both estimators share."""

    callbacks: Any
    early_stopping: bool
    random_state: Any
    validation: Any
    warm_start: bool

    parameters_: Any
    learning_rate_: float
    n_iter_: int
    loss_curve_: list[float]
    validation_curve_: list[float]
    _target: Any
    _inputs: Inputs
    _shape: Shape
    _memory: Memory | None

    def fit(self, X: Any, y: Any, sample_weight: Any = None, validation_data: Any = None) -> Self:  # noqa: N803
        """Learn from rows, anew; with ``warm_start`` from the parameters that the last fit ended with.

        Parameters
        ----------
        X
            Numbers ``[rows, columns]``: an array, a frame, or a sparse matrix of SciPy. Or a pandas or
            Polars frame with columns of any kind, for which a column plan is learned and kept.
        y
            What is to be predicted: ``[rows]`` or ``[rows, outputs]``.
        sample_weight
            Weights of the rows, finite and 0 or above.
        validation_data
            ``(X, y)`` or ``(X, y, sample_weight)``: rows whose loss is measured after each epoch, and by
            which early stopping judges.

        Raises
        ------
        InvalidError
            If rows or parameters can't be used, or a step is not finite. (scikit-learn's own checks raise
            ``ValueError`` and ``TypeError``.)
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
        """Descend anew, from the parameters that there are (``again``), or on by an epoch (``onward``)."""
        again = again and hasattr(self, "parameters_")
        if again and onward and self._memory is None:
            raise InvalidError(
                "This estimator was made of a run, and has nothing of its descent to go on from.",
                hint="Go on by steepest fit --from RUN, or fit with warm_start=True.",
            )
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
        given = {name: _plain(each) for name, each in self.get_params(deep=False).items() if name in NAMES}
        given = {name: each for name, each in given.items() if each is not None and name != "class_weight"}
        if not given["hidden"]:
            del given["hidden"]
        if not self.early_stopping:
            del given["patience"]
        if not isinstance(self.validation, int | float | np.number) or not 0 < self.validation < 1:
            raise InvalidError(
                f"validation is a share of the rows, between 0 and 1, not {self.validation!r}."
            )
        model = "mlp" if "hidden" in given else "linear"
        found = checked({**given, "model": model, "seed": self._seed()}, f"{type(self).__name__} sets")
        settings = Settings(**found)
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
        some = training[2] > 0
        if not some.any():
            raise InvalidError(
                "No row weighs anything.", hint="Give a class that there is a weight above zero."
            )
        training = _chosen(training, some)
        if held_out is None and self.early_stopping:
            mask = _held_out(len(training[1]), self.validation, settings.seed)
            if not mask.any():
                raise InvalidError("Early stopping needs two rows at least: one is held out.")
            held_out, training = _chosen(training, mask), _chosen(training, ~mask)
        count = len(training[1])
        if settings.batch_size == "all" or count <= int(settings.batch_size):
            settings, training = replace(settings, batch_size="all"), merged(*training)
        rows, encoded, weights = training
        inputs = self._inputs if again else learn_inputs(rows, weights)
        before = self._memory if again and onward else None
        went = descend(
            settings,
            loss_by_name(target.loss),
            lambda: target.bias(encoded, weights),
            _encoded(inputs, training),
            None if held_out is None else _encoded(inputs, held_out),
            outputs=target.outputs,
            count=count,
            start=self.parameters_ if again else None,
            before=before,
            until=(before.standing.epoch if before else 0) + 1 if onward else None,
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
        """Return weights ``[outputs, columns]`` of the columns as given, and biases ``[outputs]``."""
        if not hasattr(self, "parameters_") or self._shape.hidden:
            raise AttributeError(f"{type(self).__name__} has coefficients when a linear model was fitted.")
        inputs, layer = self._inputs, self.parameters_["layer_1"]
        bias = layer["bias"].astype(np.float64)
        if isinstance(inputs, Sparse):
            return self.parameters_["table"].T.astype(np.float64), bias
        if isinstance(inputs, Columns):
            return inputs.linear(self.feature_names_in_.tolist(), layer["weights"].T, bias)
        weights = layer["weights"].T.astype(np.float64) / inputs.deviation
        return weights, bias - weights @ inputs.mean

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


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

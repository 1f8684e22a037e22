"""Front end: scikit-learn's estimators that fit by `steepest.minimize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from steepest.callbacks import Callback
from steepest.settings import AUTO
from steepest.sklearn.base import DescentEstimator
from steepest.sklearn.faults import InvalidError
from steepest.sklearn.targets import Classes, Numeric, learn_classes, learn_numbers

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]

LABELS_OF_ROWS = "multilabel-indicator"
"""What scikit-learn calls an indicator matrix."""


class DescentClassifier(ClassifierMixin, DescentEstimator):  # type: ignore[misc]
    """A classifier that is trained by gradient descent: a linear model, or a network of ``hidden`` layers.

    Two classes, several, or several labels at once (``y`` is an indicator matrix). Columns of numbers are
    standardised, so penalties are those of weights of standardised columns.

    Parameters
    ----------
    hidden
        Units of each hidden layer; none for a linear model.
    activation, dropout
        Of the hidden layers: ``"relu"``, ``"tanh"`` or ``"gelu"``, and the share of units that a step
        leaves out.
    embedding
        Numbers that stand for each column of a sparse matrix (or word, or value of a large category) ahead of
        the hidden layers.
    loss
        ``"binary_cross_entropy"``, ``"categorical_cross_entropy"`` or ``"hinge"``; ``None`` for the
        cross-entropy that fits. With more than two classes, those of two learn each class against the rest.
    optimizer, clip_norm
        An update rule by its name (``"sgd"``, ``"momentum"``, ``"nesterov"``, ``"adagrad"``, ``"rmsprop"``,
        ``"adam"``, ``"adamw"``, ``"lbfgs"``), and the norm of the largest gradient; ``None`` does not clip.
    learning_rate
        The highest rate of the schedule, or ``"auto"`` to find it: see `steepest.find_learning_rate`.
    schedule
        The course of the rate by its name, such as ``"constant"`` or ``"cosine"``.
    batch_size
        Rows of a step, or ``"all"``. Where each step sees all rows, equal ones are added up, so that neither
        their order nor whether a row is repeated or weighs more makes a difference.
    epochs
        The most epochs; ``None`` is 10, or as many as 5,000 steps take, but at most 500.
    tolerance
        The descent ends when the loss has changed by at most this share of itself five times running.
    l1, l2
        Penalties ``Σ l1·|θ| + Σ l2·θ²`` on the weights, never on the biases, beside the mean loss of the
        rows. The small one of the default keeps the weights of classes that can be told apart small.
    class_weight
        ``"balanced"``, which gives all classes the same weight together, or label -> weight.
    early_stopping
        Whether the descent ends once the validation loss has not improved for ``patience`` epochs running,
        and the best epoch's parameters are kept.
    patience
        See there.
    validation
        The share of the rows that early stopping holds out, if ``fit`` is given none.
    warm_start
        Whether ``fit`` begins with the parameters of the last one.
    random_state
        The seed of every random draw; ``None`` draws one from NumPy's global state.
    callbacks
        `steepest.Callback`: told what happens.

    Attributes
    ----------
    classes_
        The labels, ascending; of an indicator matrix, the numbers of its columns.
    coef_, intercept_
        Of a linear model of numbers, in terms of the columns as they were given: ``[outputs, columns]`` and
        ``[outputs]``, where two classes have one output. Of a frame with a column plan, where all columns
        that are learned from are numbers or booleans, and none is missing.
    loss_curve_, validation_curve_
        The mean loss of each epoch, penalties included, on the rows that it visited and on those held out.
    n_iter_
        Epochs.
    learning_rate_
        The highest rate of the schedule.
    parameters_
        The model's parameters, as NumPy's arrays.
    n_features_in_, feature_names_in_
        The columns.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = DescentClassifier(learning_rate=0.05, epochs=100, l2=1e-3).fit(X, y)
    >>> classifier.score(X, y) > 0.95, classifier.coef_.shape
    (True, (3, 4))
    """

    classes_: Array

    def __init__(  # noqa: PLR0913 - a parameter each, as scikit-learn wants it
        self,
        *,
        hidden: Sequence[int] = (),
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
        l2: float = 1e-4,
        class_weight: str | Mapping[Any, float] | None = None,
        early_stopping: bool = False,
        patience: int = 10,
        validation: float = 0.2,
        warm_start: bool = False,
        random_state: Any = 0,
        callbacks: Sequence[Callback] = (),
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
        """Go on for one epoch over some rows; after `fit`, from where it ended.

        The schedule, the optimizer's memory, the order of rows and what early stopping has seen go on from
        call to call: as many calls with the same rows are `fit` with as many epochs and ``tolerance=0``.
        The schedule is that of ``epochs`` epochs over the first rows, from which columns are learned and a
        rate is found, too. Early stopping holds out some of each call's rows; once it has stopped the
        descent, calls change nothing.

        Parameters
        ----------
        X, y, sample_weight
            See `fit`.
        classes
            All labels; the first call needs them.

        Raises
        ------
        InvalidError
            As `fit` does, and for rows that the first ones don't go with.
        """
        if classes is None and not hasattr(self, "parameters_") and np.ndim(y) == 1:
            raise InvalidError("The first call of partial_fit needs classes: all that there are.")
        return self._learn(X, y, sample_weight, again=True, onward=True, classes=classes)

    def decision_function(self, X: Any) -> Floats:  # noqa: N803
        """Return the model's outputs: of two classes ``[rows]``, above 0 for the second; else one for each.

        Returns
        -------
        numpy.ndarray
            float64.

        Raises
        ------
        InvalidError
            If the columns are not those of the fit. Those of a frame with a column plan may come in any
            order.
        """
        return self._outputs(X)

    def predict(self, X: Any) -> Array:  # noqa: N803
        """Return the class of each row; for an indicator matrix, one."""
        outputs = self._outputs(X)
        chosen: Array = self._target.chosen(outputs)
        return chosen

    def _has_probabilities(self) -> bool:
        return self.loss != "hinge"

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Floats:  # noqa: N803
        """Return the probability of each class or label, ``[rows, classes]``; hinge loss has none."""
        outputs = self._outputs(X)
        probabilities: Floats = self._target.probabilities(outputs)
        return probabilities

    @property
    def coef_(self) -> Floats:
        """Weights of a linear model."""
        return self._linear()[0]

    @property
    def intercept_(self) -> Floats:
        """Biases of a linear model."""
        return self._linear()[1]

    def _target_of(self, y: Array, weights: Floats, classes: Any, *, again: bool) -> Classes:  # noqa: ARG002
        check_classification_targets(y)
        if y.ndim == 2 and type_of_target(y) != LABELS_OF_ROWS:
            raise InvalidError(f"y is {type_of_target(y)}; of several columns each must hold 0 and 1 only.")
        if again:
            if classes is not None and not np.array_equal(self.classes_, np.unique(np.asarray(classes))):
                raise InvalidError("classes are not those of the first call of partial_fit.")
            known: Classes = self._target
            return known
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
    """A regressor that is trained by gradient descent: a linear model, or a network of ``hidden`` layers.

    One output or several. The target is standardised for all losses but Poisson's, so the loss and the
    penalties are in its deviations.

    Parameters
    ----------
    loss
        ``"mean_squared_error"``, ``"mean_absolute_error"``, ``"huber"``, ``"quantile"`` (the median) or
        ``"poisson"``. With several outputs, their losses are added up.
    hidden, activation, dropout, embedding, optimizer, clip_norm, learning_rate, schedule, batch_size
        See `DescentClassifier`.
    epochs, tolerance, l1, l2, early_stopping, patience, validation, warm_start, random_state, callbacks
        See there, too.

    Attributes
    ----------
    coef_, intercept_
        Of a linear model of numbers, in terms of the columns and the target as they were given (Poisson's: of
        the logarithm of the mean); with several outputs ``[outputs, columns]`` and ``[outputs]``.
    loss_curve_, validation_curve_, n_iter_, learning_rate_, parameters_, n_features_in_, feature_names_in_
        See `DescentClassifier`.

    Examples
    --------
    >>> X = np.arange(20.0)[:, None]
    >>> regressor = DescentRegressor(optimizer="lbfgs", batch_size="all", l2=0.0).fit(X, 3 * X[:, 0] + 1)
    >>> regressor.coef_.round(3), round(float(regressor.intercept_), 3)
    (array([3.]), 1.0)
    """

    def __init__(  # noqa: PLR0913 - a parameter each, as scikit-learn wants it
        self,
        *,
        hidden: Sequence[int] = (),
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
        l2: float = 1e-4,
        early_stopping: bool = False,
        patience: int = 10,
        validation: float = 0.2,
        warm_start: bool = False,
        random_state: Any = 0,
        callbacks: Sequence[Callback] = (),
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
        """Go on for one epoch over some rows: see `DescentClassifier.partial_fit`."""
        return self._learn(X, y, sample_weight, again=True, onward=True)

    def predict(self, X: Any) -> Floats:  # noqa: N803
        """Return what is predicted for each row, shaped like ``y``."""
        outputs = self._outputs(X)
        predictions: Floats = self._target.predictions(outputs)
        return predictions

    @property
    def coef_(self) -> Floats:
        """Weights of a linear model, in the unit of ``y``."""
        weights = self._linear()[0] * self._target.deviation[:, None]
        return np.asarray(weights[0] if self._target.single else weights)

    @property
    def intercept_(self) -> Any:
        """Biases of a linear model, in the unit of ``y``."""
        biases = self._linear()[1] * self._target.deviation + self._target.center
        return biases[0] if self._target.single else biases

    def _target_of(self, y: Array, weights: Floats, classes: Any, *, again: bool) -> Numeric:  # noqa: ARG002
        if again:
            known: Numeric = self._target
            return known
        return learn_numbers(y[weights > 0], weights[weights > 0], self.loss)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

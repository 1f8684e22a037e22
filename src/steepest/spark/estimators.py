"""Front end: Spark ML estimators that fit by `steepest.spark.fitting.fit_frame`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Self, TypeVar, Unpack

from pyspark.ml import Estimator
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
from pyspark.sql import DataFrame
from pyspark.sql.types import NumericType

from steepest.errors import SteepestError
from steepest.run import Run
from steepest.spark import storing
from steepest.spark.fitting import fit_frame
from steepest.spark.frames import (
    different_labels,
    features_of,
    require_columns,
    require_frame,
    vectors_of,
    with_arrays,
    zone_of,
)
from steepest.spark.models import DescentClassificationModel, DescentModel, DescentRegressionModel
from steepest.spark.parameters import ClassifierParameters, Parametrised, RegressorParameters, settings_of
from steepest.tasks import LOSS_KINDS

Fitted = TypeVar("Fitted", bound=DescentModel)


class DescentEstimator(Parametrised, Estimator[Fitted], DefaultParamsWritable, DefaultParamsReadable[Any]):
    """What both estimators share."""

    _model: type[Fitted]
    _kinds: tuple[str, ...]

    def _fit(self, dataset: DataFrame) -> Fitted:
        get = self.getOrDefault
        require_frame(dataset)
        raw = get("inputCols")
        roles = {name: get(name) for name in ("labelCol", "weightCol", "validationIndicatorCol")}
        inputs = {f"inputCols[{place}]": name for place, name in enumerate(raw or ())}
        require_columns(dataset, {**roles, "featuresCol": get("featuresCol"), **inputs})
        if get("validation") and get("validationIndicatorCol"):
            raise SteepestError(
                "validation and validationIndicatorCol both say which rows to hold out.", hint="Set one."
            )
        others = [name for name in roles.values() if name is not None]
        features = features_of(dataset, get("featuresCol"), raw, others)
        vectors = vectors_of(dataset, features, others)
        # In the frame's own order, so that a table gives the same features wherever it is fitted.
        wanted = [name for name in dataset.columns if name in (*features, *others)]
        run = self._run(dataset.select(with_arrays(dataset, wanted)), vectors, self._loss(dataset))
        model = self._model(run, vectors, zone_of(dataset))
        model._resetUid(self.uid)
        return self._copyValues(model)

    def _loss(self, frame: DataFrame) -> str | None:
        """Return the loss to fit by; refuse one of another kind, and a frame without labels."""
        loss: str | None = self.getOrDefault("loss")
        if loss in LOSS_KINDS and LOSS_KINDS[loss] not in self._kinds:
            fitting = ", ".join(name for name, kind in LOSS_KINDS.items() if kind in self._kinds)
            raise SteepestError(f"{type(self).__name__} has no loss {loss!r}.", hint=f"It has: {fitting}.")
        label = self.getOrDefault("labelCol")
        if loss is None and isinstance(frame.schema[label].dataType, NumericType):
            # Numbers are classes here, however many there are; steepest.fit would have to guess.
            different = different_labels(frame, label, 3)
            return (None, "binary_cross_entropy", "categorical_cross_entropy")[different - 1]
        different_labels(frame, label, 1)
        return loss

    def _run(self, frame: DataFrame, vectors: Mapping[str, tuple[str, ...]], loss: str | None) -> Run:
        """Fit, into a folder that goes with the run unless a place was named."""
        settings = settings_of(self, loss=loss, workers=self.getNumWorkers(), shared=self.getShared())
        fit = partial(fit_frame, frame, vectors=vectors)
        if settings.out is not None:
            return fit(settings)
        with storing.passing_folder() as folder:
            return storing.goes_with(fit(replace(settings, out=str(folder / storing.RUN))), folder)


class DescentClassifier(DescentEstimator[DescentClassificationModel], parameters=ClassifierParameters):
    """A classifier that is trained by gradient descent: a linear model, or a network of ``hidden`` layers.

    Parameters
    ----------
    **parameters
        Spark ML parameters by name; `explainParams` tells all of them with their defaults, docs/spark.md in a
        table. Each has a getter and a setter (``getBatchSize``, ``setBatchSize``).

    Notes
    -----
    Labels may be numbers, text or booleans. Rows without a label are left out and counted in the record.
    ``fit`` looks at the labels once to see that there are any and, where they are numbers, whether there are
    two or more classes.

    Examples
    --------
    >>> classifier = DescentClassifier(labelCol="late", hidden=[64], learningRate=0.001, batchSize=4096)
    >>> classifier.getHidden(), classifier.setEpochs(10).getEpochs()
    ([64], 10)
    >>> print(classifier.explainParam("batchSize"))
    batchSize: rows of a step, over all workers, or all (default: 32, current: 4096)
    """

    __module__ = "steepest.spark"  # saved estimators name the class so, wherever it is kept

    _model = DescentClassificationModel
    _kinds = ("binary", "classes")

    def __init__(self, **parameters: Unpack[ClassifierParameters]) -> None:
        super().__init__()
        self._set(**parameters)

    def setParams(self, **parameters: Unpack[ClassifierParameters]) -> Self:  # noqa: N802 - Spark ML's name
        """Set parameters by name."""
        return self._set(**parameters)


class DescentRegressor(DescentEstimator[DescentRegressionModel], parameters=RegressorParameters):
    """A regressor that is trained by gradient descent: a linear model, or a network of ``hidden`` layers.

    Parameters
    ----------
    **parameters
        See `DescentClassifier`.

    Examples
    --------
    >>> DescentRegressor(labelCol="arr_delay", loss="huber").getLoss()
    'huber'
    """

    __module__ = "steepest.spark"

    _model = DescentRegressionModel
    _kinds = ("number", "counts")

    def __init__(self, **parameters: Unpack[RegressorParameters]) -> None:
        super().__init__()
        self._set(**parameters)

    def setParams(self, **parameters: Unpack[RegressorParameters]) -> Self:  # noqa: N802 - Spark ML's name
        """Set parameters by name."""
        return self._set(**parameters)

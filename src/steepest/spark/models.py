"""What the estimators return: Spark ML models that have a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.ml import Model
from pyspark.ml.functions import array_to_vector
from pyspark.ml.util import MLReadable, MLReader, MLWritable, MLWriter
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sql
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.pandas.types import from_arrow_type
from pyspark.sql.types import ArrayType, DoubleType, StructField, StructType

from steepest.errors import SteepestError
from steepest.run import Run
from steepest.spark import storing
from steepest.spark.frames import column, require_learned, with_arrays
from steepest.spark.parameters import ClassifierParameters, Parametrised, RegressorParameters
from steepest.spark.transforming import carried, label_type, predicting

if TYPE_CHECKING:
    import pandas as pd

    from steepest.tasks import Label


@dataclass(frozen=True)
class Summary:
    """How the descent of a model went.

    Parameters
    ----------
    run
        The run that it is read from.
    """

    run: Run

    @property
    def history(self) -> pd.DataFrame:
        """A row for each step: epoch, loss, gradient_norm, learning_rate."""
        return self.run.steps

    @property
    def epochs(self) -> pd.DataFrame:
        """A row for each epoch: rows, loss, validation figures, rate, seconds."""
        return self.run.epochs

    @property
    def record(self) -> dict[str, Any]:
        """What was read, decided and reached, and how long it took."""
        return self.run.record

    @property
    def findings(self) -> list[dict[str, str]]:
        """What went well and what did not, each with one thing to try."""
        return self.run.findings

    @property
    def workers(self) -> pd.DataFrame:
        """A row for each worker that descended; none for a fit in one process."""
        import pandas as pd

        return pd.DataFrame(self.record.get("workers", []))


class DescentModel(Parametrised, Model, MLWritable, MLReadable[Any]):
    """What both kinds of models share; made by the estimators' ``fit`` and by ``load``.

    Parameters
    ----------
    run
        Where the model is read from; it has to stay while the model is used.
    vectors
        Name of a column of vectors that was learned from -> the names of its elements.
    zone
        The time zone of the session that the model was fitted in; timestamps are read by its clock.
    """

    def __init__(self, run: Run, vectors: Mapping[str, tuple[str, ...]], zone: str) -> None:
        super().__init__()
        self._run = run
        self._vectors = dict(vectors)
        self._zone = zone

    @property
    def run(self) -> Run:
        """The run: settings, record, history, report and the model itself."""
        return self._run

    @property
    def summary(self) -> Summary:
        """How the descent went; a loaded model has it, too."""
        return Summary(self._run)

    def write(self) -> MLWriter:
        """Return what saves the model: ``model.write().overwrite().save("hdfs:///models/late")``."""
        return ModelWriter(self)

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Return what loads a model."""
        return ModelReader(cls)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        self._require_free(dataset)
        vectors = self._vectors_in(self.getOrDefault("featuresCol"))
        names = require_learned(dataset, self._run.plan, vectors)
        predict = arrow_udf(  # type: ignore[call-overload]  # its stubs know no structs
            predicting(carried(self._run), names, vectors, self._zone), returnType=self._answer()
        )
        answer = f"{self.uid}__answer"
        answered = dataset.withColumn(answer, predict(sql.struct(*with_arrays(dataset, names))))
        parts = {name: part for name, part in self._parts(column(answer)) if name}
        return answered.withColumns(parts).drop(answer)

    def _vectors_in(self, features: str | None) -> dict[str, tuple[str, ...]]:
        """Return the vectors, that of ``featuresCol`` where it is now."""
        if features is None or features in self._vectors:
            return self._vectors
        if len(self._vectors) != 1:
            raise SteepestError(
                f"featuresCol names {features!r}, but the model was trained on raw columns.",
                hint="Give it these, by the names that they had.",
            )
        return {features: names for names in self._vectors.values()}  # noqa: B035 - there is one

    def _answer(self) -> StructType:
        """Return the type of what `steepest.spark.transforming.predicting` returns."""
        return StructType(
            [
                StructField("prediction", from_arrow_type(label_type(self._run.task.labels))),
                *(StructField(name, ArrayType(DoubleType(), False)) for name in self._lists()),
            ]
        )

    def _lists(self) -> tuple[str, ...]:
        return ("probability", "rawPrediction") if self._run.task.labels else ()

    def _parts(self, answer: Column) -> Iterator[tuple[str, Column]]:
        """Yield the names of the columns that are added, and what they hold."""
        yield self.getOrDefault("predictionCol"), answer["prediction"]
        for name in self._lists():
            yield self.getOrDefault(f"{name}Col"), array_to_vector(answer[name])

    def _require_free(self, dataset: DataFrame) -> None:
        """Refuse to put predictions where something else is."""
        taken = list(dataset.columns)
        for place in (f"{name}Col" for name in ("prediction", *self._lists())):
            name = self.getOrDefault(place)
            if name and name in taken:
                raise SteepestError(
                    f"The DataFrame has a column {name!r} already, where {place} is to go.",
                    hint=f"Drop it, or give {place} another name.",
                )
            taken.append(name)


class DescentClassificationModel(DescentModel, parameters=ClassifierParameters):
    """A classifier; see `steepest.spark.DescentClassifier`.

    ``transform`` adds

    - ``predictionCol``: the likeliest class, as a double where the labels are numbers and else as text or
      boolean, as the labels are;
    - ``probabilityCol``: a vector with the probability of each class, in the order of `labels`;
    - ``rawPredictionCol``: a vector of the classes' logits; -z and z of the one logit of two classes.
    """

    __module__ = "steepest.spark"  # saved models name the class so, wherever it is kept

    @property
    def labels(self) -> tuple[Label, ...]:
        """The classes, in the order of the probabilities: ascending."""
        return self._run.task.labels

    @property
    def numClasses(self) -> int:  # noqa: N802 - Spark ML's name
        """The number of classes."""
        return len(self.labels)


class DescentRegressionModel(DescentModel, parameters=RegressorParameters):
    """A regressor; see `steepest.spark.DescentRegressor`. ``transform`` adds ``predictionCol``, a double."""

    __module__ = "steepest.spark"


class ModelWriter(MLWriter):
    """Writes Spark ML's metadata, and the run's folder beside it as ``run``."""

    def __init__(self, model: DescentModel) -> None:
        super().__init__()
        self._model = model

    def saveImpl(self, path: str) -> None:  # noqa: N802 - Spark ML's name
        """Write the model into a folder that does not exist."""
        facts = {"vectors": self._model._vectors, "timeZone": self._model._zone}
        storing.save(self.sparkSession, self._model, self._model._run.path, path, facts)


class ModelReader(MLReader[Any]):
    """Reads what `ModelWriter` has written, wherever it is, into a folder that goes when the model does."""

    def __init__(self, kind: type[DescentModel]) -> None:
        super().__init__()
        self._kind = kind

    def load(self, path: str) -> DescentModel:
        """Return the model.

        Raises
        ------
        SteepestError
            If there is something else.
        """
        metadata, run = storing.load(self.sparkSession, self._kind, path)
        vectors = {name: tuple(names) for name, names in metadata["vectors"].items()}
        model = self._kind(run, vectors, metadata["timeZone"])
        storing.restore(model, metadata)
        return model

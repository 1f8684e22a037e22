"""The estimators' parameters: one table of their names, types and defaults, and of the settings they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Self, TypedDict, get_args, get_type_hints

from pyspark.ml import Estimator
from pyspark.ml.param import Param, Params, TypeConverters

from steepest.combining import checked
from steepest.errors import SteepestError, nearest
from steepest.settings import Settings


@dataclass(frozen=True)
class About:
    """What is to be said of a parameter.

    Parameters
    ----------
    doc
        A sentence for a person.
    setting
        The field of `steepest.settings.Settings` that it sets; None where it sets none.
    default
        Its value if it is not given; ``...`` stands for that of the setting.
    """

    doc: str
    setting: str | None = None
    default: Any = ...


class CommonParameters(TypedDict, total=False):
    """The parameters that both estimators have."""

    labelCol: Annotated[str, About("the column to predict", "target", "label")]
    featuresCol: Annotated[
        str | None, About("a column of vectors to learn from; if it is not set, raw columns are", None, None)
    ]
    inputCols: Annotated[
        Sequence[str] | None,
        About("raw columns to learn from; if not set, all but label, weight and validation", None, None),
    ]
    predictionCol: Annotated[str, About("where predictions go; empty for nowhere", None, "prediction")]
    weightCol: Annotated[str | None, About("a column of row weights", "weights")]
    validationIndicatorCol: Annotated[
        str | None,
        About("a boolean column whose true rows are held out for validation", "validation_column", None),
    ]
    hidden: Annotated[
        Sequence[int], About("units of each hidden layer; none for a linear model", "hidden", [])
    ]
    activation: Annotated[str, About("of the hidden layers", "activation")]
    dropout: Annotated[float, About("share of hidden units left out at each step", "dropout")]
    optimizer: Annotated[str, About("update rule, such as adam or sgd", "optimizer")]
    learningRate: Annotated[
        float | str, About("the schedule's highest rate, or auto to find one", "learning_rate")
    ]
    clipNorm: Annotated[float | None, About("norm of the largest gradient; not set: any", "clip_norm")]
    schedule: Annotated[str, About("course of the learning rate, such as constant or cosine", "schedule")]
    batchSize: Annotated[int | str, About("rows of a step, over all workers, or all", "batch_size")]
    epochs: Annotated[
        int | None,
        About("the most epochs; not set: 10, or as many as 5,000 steps take, at most 500", "epochs"),
    ]
    tolerance: Annotated[
        float, About("relative change of the loss below which the descent ends", "tolerance")
    ]
    l1: Annotated[float, About("penalty on the weights' absolute values", "l1")]
    l2: Annotated[float, About("penalty on the weights' squares", "l2")]
    patience: Annotated[
        int | None, About("epochs without a better monitor after which the descent ends", "patience")
    ]
    monitor: Annotated[str, About("figure of an epoch that patience looks at", "monitor")]
    validation: Annotated[float, About("share of the rows held out for validation", "validation", 0.0)]
    seed: Annotated[int, About("decides every random draw", "seed")]
    numWorkers: Annotated[int, About("tasks that descend together, each on its part of the rows", None, 1)]
    out: Annotated[
        str | None, About("where the run's folder goes; not set: kept as long as the model", "out")
    ]
    shared: Annotated[
        str | None, About("a folder that all workers reach, for checkpoints during the fit", None, None)
    ]
    localSteps: Annotated[
        int | None, About("steps of each worker between two averages; not set: 1", "local_steps", None)
    ]


class RegressorParameters(CommonParameters, total=False):
    """The parameters of `DescentRegressor`."""

    loss: Annotated[str, About("what is minimised, such as huber or poisson", "loss", "mean_squared_error")]


class ClassifierParameters(CommonParameters, total=False):
    """The parameters of `DescentClassifier`."""

    loss: Annotated[
        str | None, About("what is minimised; not set: the cross-entropy of as many classes", "loss")
    ]
    classWeight: Annotated[
        str | None, About("balanced, or weights of labels: late=3,early=1", "class_weight")
    ]
    probabilityCol: Annotated[
        str, About("where the classes' probabilities go, as vectors; empty for nowhere", None, "probability")
    ]
    rawPredictionCol: Annotated[
        str, About("where the model's outputs go, as vectors; empty for nowhere", None, "rawPrediction")
    ]


@dataclass(frozen=True)
class Parameter:
    """A row of the table: a parameter's name, its type, and what `About` says, defaults looked up."""

    name: str
    kind: Any
    doc: str
    setting: str | None
    default: Any


@functools.cache
def table(parameters: type) -> tuple[Parameter, ...]:
    """Return the rows of the table for an estimator's parameters.

    Examples
    --------
    >>> [row.default for row in table(ClassifierParameters) if row.name in ("labelCol", "batchSize")]
    ['label', 32]
    """

    def rows() -> Iterator[Parameter]:
        for name, annotated in get_type_hints(parameters, include_extras=True).items():
            kind, about = get_args(annotated)
            default = getattr(Settings(), about.setting) if about.default is ... else about.default
            yield Parameter(name, kind, about.doc, about.setting, default)

    return tuple(rows())


_CONVERTERS: Mapping[Any, tuple[str, Callable[[Any], Any]]] = {
    str: ("text", TypeConverters.toString),
    int: ("a whole number", TypeConverters.toInt),
    float: ("a number", TypeConverters.toFloat),
    Sequence[int]: ("a list of whole numbers", TypeConverters.toListInt),
    Sequence[str]: ("a list of names", TypeConverters.toListString),
}


def converter(name: str, kind: Any) -> Callable[[Any], Any]:
    """Return what turns a value into a parameter's type.

    Raises
    ------
    SteepestError
        When it is called with something else.

    Examples
    --------
    >>> converter("batchSize", int | str)(512.0), converter("hidden", Sequence[int])((64, 32))
    (512, [64, 32])
    >>> converter("seed", int)("one")
    Traceback (most recent call last):
    steepest.errors.SteepestError: The parameter seed takes a whole number, not 'one'.
    """
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    takes = [_CONVERTERS[each] for each in kinds if each is not NoneType]

    def convert(value: Any) -> Any:
        if value is None and NoneType in kinds:
            return None
        for _, convert in takes:
            try:
                return convert(value)
            except TypeError:
                continue
        wanted = " or ".join(called for called, _ in takes)
        raise SteepestError(f"The parameter {name} takes {wanted}, not {value!r}.")

    return convert


SET_ON_MODELS = ("featuresCol", "predictionCol", "probabilityCol", "rawPredictionCol")
"""The parameters that still mean something once a model is fitted."""


class Parametrised(Params):
    """Something that has the parameters of a table: for each a `Param`, a getter and a setter.

    A model has setters only for what means something once it is fitted. A subclass names its table:
    ``class DescentClassifier(Parametrised, parameters=ClassifierParameters)``.
    """

    parameters: type = CommonParameters

    def __init_subclass__(cls, parameters: type | None = None, **others: Any) -> None:
        super().__init_subclass__(**others)
        if parameters is None:
            return
        cls.parameters = parameters
        for row in table(parameters):
            title = row.name[0].upper() + row.name[1:]
            convert = converter(row.name, row.kind)
            setattr(cls, row.name, Param(Params._dummy(), row.name, row.doc, convert))
            setattr(cls, f"get{title}", _getter(row))
            if issubclass(cls, Estimator) or row.name in SET_ON_MODELS:
                setattr(cls, f"set{title}", _setter(row))

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(**{row.name: row.default for row in table(self.parameters)})

    if TYPE_CHECKING:  # the Params, setters and getters of the table

        def __getattr__(self, name: str) -> Any: ...

    def _set(self, **values: Any) -> Self:
        known = [row.name for row in table(self.parameters)]
        for name, value in values.items():
            if name not in known:
                raise SteepestError(
                    f"{type(self).__name__} has no parameter {name!r}.", hint=nearest(name, known)
                )
            self._paramMap[self.getParam(name)] = self.getParam(name).typeConverter(value)
        return self


def _getter(row: Parameter) -> Callable[[Params], Any]:
    def get(self: Params) -> Any:
        return self.getOrDefault(row.name)

    get.__doc__ = f"Return {row.name}: {row.doc}."
    return get


def _setter(row: Parameter) -> Callable[[Params, Any], Params]:
    def set_(self: Params, value: Any) -> Params:
        return self._set(**{row.name: value})

    set_.__doc__ = f"Set {row.name}: {row.doc}."
    return set_


def settings_of(parametrised: Parametrised, **others: Any) -> Settings:
    """Return the settings of a run that parameters stand for.

    Parameters
    ----------
    parametrised
        What has the parameters.
    **others
        Settings that take the place of what the parameters say.
    """
    rows = [row for row in table(parametrised.parameters) if row.setting]
    given = {str(row.setting): parametrised.getOrDefault(row.name) for row in rows} | others
    named = {name: value for name, value in given.items() if value is not None}
    if not named["hidden"]:
        del named["hidden"]  # the settings of a linear model may name some
    model = "mlp" if "hidden" in named else "linear"
    return replace(Settings(), **checked({**named, "model": model}, f"{type(parametrised).__name__} sets"))

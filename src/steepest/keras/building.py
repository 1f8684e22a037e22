"""The Keras model that ``--model package.module:build`` names: built, checked against the table, compiled."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.models.functional import Functional

from steepest.data.columns import Plan
from steepest.descent.optimizers import default_rate
from steepest.descent.schedules import schedule_by_name
from steepest.errors import SteepestError, nearest
from steepest.keras.rules import rates_of, schedule_of
from steepest.keras.sparse import keras_columns
from steepest.keras.stored import gist, import_builder, output_shape
from steepest.settings import AUTO, Settings
from steepest.tasks import METRICS, Task

LOSSES: dict[str, Callable[[], keras.losses.Loss]] = {
    "mean_squared_error": keras.losses.MeanSquaredError,
    "mean_absolute_error": keras.losses.MeanAbsoluteError,
    "huber": keras.losses.Huber,
    "poisson": keras.losses.Poisson,
    "binary_cross_entropy": keras.losses.BinaryCrossentropy,
    "hinge": keras.losses.Hinge,
    "categorical_cross_entropy": keras.losses.SparseCategoricalCrossentropy,
}

OPTIMIZERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "sgd": keras.optimizers.SGD,
    "momentum": lambda **settings: keras.optimizers.SGD(momentum=0.9, **settings),
    "nesterov": lambda **settings: keras.optimizers.SGD(momentum=0.9, nesterov=True, **settings),
    "adagrad": keras.optimizers.Adagrad,
    "rmsprop": keras.optimizers.RMSprop,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
}


def builder_of(name: str) -> Callable[..., Any]:
    """Return the function ``module:function``.

    Raises
    ------
    SteepestError
        If it can't be imported.
    """
    module, function_name = import_builder(name), name.partition(":")[2]
    function: Callable[..., Any] | None = getattr(module, function_name, None)
    if not callable(function):
        functions = [each for each in vars(module) if callable(getattr(module, each)) and each[0] != "_"]
        raise SteepestError(
            f"--model {name}: {module.__name__!r} has no function {function_name!r}.",
            hint=nearest(function_name, functions),
        )
    return function


def takes_sparse(name: str) -> bool:
    """Tell whether a builder is a function of two arguments: of the columns and of those that are sparse."""
    try:
        parameters = inspect.signature(builder_of(name)).parameters.values()
    except ValueError:  # what is not written in Python has none
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return (
        sum(each.kind in positional and each.default is inspect.Parameter.empty for each in parameters) == 2
    )


def build(name: str, plan: Plan, task: Task) -> keras.Model:
    """Call what builds the model, and see that its model fits the table."""
    function = builder_of(name)
    arguments = (plan, keras_columns(plan)) if takes_sparse(name) else (plan,)
    try:
        with _fresh_names():
            model = function(*arguments)
    except Exception as error:
        raise SteepestError(
            f"--model {name} failed: {type(error).__name__}: {error}.", hint="--debug shows where."
        ) from error
    if not isinstance(model, keras.Model):
        raise SteepestError(
            f"--model {name} returned {type(model).__name__}, and no Keras model.",
            hint="Return the model, compiled or not.",
        )
    if type(model) is Functional and len(model.inputs) == 1 and not (plan.layout.sparse or model.compiled):
        model = keras.Model(
            model.inputs[0], model.output, name=model.name
        )  # takes an array, and no list of one
    try:
        shape = output_shape(model, plan)
    except Exception as error:
        raise SteepestError(
            f"--model {name} takes no rows of {plan.width} features: {gist(error)}",
            hint='Name the input of columns.width features "features"; sparse[...].inputs() makes the others.'
            if plan.layout.sparse
            else "columns.width is the number of features.",
        ) from error
    wanted = [(None, 1), (None,)] if task.outputs == 1 else [(None, task.outputs)]
    if shape not in wanted:
        raise SteepestError(
            f"--model {name} returns the shape {shape}; {task.why}, and that takes {wanted[0]}.",
            hint="Change the units of its last layer.",
        )
    return model


@contextmanager
def _fresh_names() -> Iterator[None]:
    """Let Keras count the names of layers from the first: a model is the same whatever was built before."""
    names = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", names)


def compile_for(model: keras.Model, settings: Settings, task: Task, steps: int) -> None:
    """Compile a model that is not: the task's loss and metric, the settings' optimizer and schedule."""
    if task.loss not in LOSSES:
        raise SteepestError(
            f"Keras has no loss {task.loss!r}.", hint="Compile the model with a loss of your own."
        )
    # Where the rate is to be found, the search tries others.
    own = default_rate(settings.optimizer)
    rate = own if settings.learning_rate == AUTO else float(settings.learning_rate)
    schedule = schedule_by_name(settings.schedule, rate, steps)
    if schedule.plateau:
        raise SteepestError(
            "A Keras model can't be trained with --schedule reduce_on_plateau.",
            hint="Name another schedule, or compile the model with one of your own.",
        )
    rates = rate if settings.schedule == "constant" else Rates(schedule(np.arange(steps)).tolist())
    clip = {} if settings.clip_norm is None else {"global_clipnorm": settings.clip_norm}
    if settings.optimizer not in OPTIMIZERS:
        raise SteepestError(
            f"Keras has no optimizer {settings.optimizer!r}.", hint=nearest(settings.optimizer, OPTIMIZERS)
        )
    optimizer = OPTIMIZERS[settings.optimizer](learning_rate=rates, name=settings.optimizer, **clip)
    model.compile(optimizer, LOSSES[task.loss](), metrics=[METRICS[task.kind]])


@keras.saving.register_keras_serializable("steepest")
class Rates(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A learning rate for each step; the last one holds on.

    Parameters
    ----------
    rates
        ``[steps]``.
    """

    def __init__(self, rates: list[float]) -> None:
        self.rates = rates

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step."""
        place = keras.ops.minimum(keras.ops.cast(step, "int32"), len(self.rates) - 1)
        return keras.ops.take(keras.ops.convert_to_tensor(self.rates, "float32"), place)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal schedule."""
        return {"rates": self.rates}


def rule_of(model: keras.Model, settings: Settings, steps: int) -> dict[str, Any]:
    """Return what the record says of a compiled model's loss, optimizer, highest rate and schedule."""
    loss, schedule = model.loss, schedule_of(model.optimizer)
    name = "constant" if schedule is None else type(schedule).__name__
    return {
        "loss": str(loss if isinstance(loss, str) else getattr(loss, "name", None) or type(loss).__name__),
        "optimizer": model.optimizer.name,
        "learning_rate": float(rates_of(model.optimizer, steps).max()),
        "schedule": settings.schedule if isinstance(schedule, Rates) else name,
    }

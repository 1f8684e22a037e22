"""A trained Keras model in a run's folder: its configuration as JSON and its variables as arrays."""

from __future__ import annotations

import copy
import importlib
import json
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from steepest.data.columns import Plan
from steepest.data.packed import PackedRows
from steepest.descent.models import Model
from steepest.errors import SteepestError
from steepest.keras.program import call
from steepest.keras.sparse import NamedRows, arranged, leaves_of, specs_of
from steepest.sparse_columns import FEATURES
from steepest.tasks import Task

SMALLEST = float(np.finfo(np.float32).tiny)
LARGEST = 1 - float(np.finfo(np.float32).epsneg)


Parameters = dict[str, dict[str, Any]]
"""Values by group and number."""


def form_of(model: keras.Model, name: str) -> dict[str, Any]:
    """Return the model as JSON, without its parameters; refuse one that could not be read again."""
    try:
        with warnings.catch_warnings():  # of NumPy 2's, which Keras' own optimizers cause
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            config = keras.saving.serialize_keras_object(model)
        config.pop("compile_config", None)
        keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    except Exception as error:
        raise SteepestError(
            f"--model {name}: Keras can't write the model down and read it again: {gist(error)}",
            hint="Decorate your own classes with keras.saving.register_keras_serializable().",
        ) from error
    loss = model.loss
    logits = bool(getattr(loss, "from_logits", False))
    return {"builder": name, "config": config, "logits": logits}


def _linked(task: Task, outputs: jax.Array, logits: bool) -> jax.Array:
    """Return what the model says on the scale of the task's loss, whose link gives it back."""
    values = outputs.astype(jnp.float32)
    values = values[:, 0] if task.outputs == 1 and values.ndim == 2 else values
    if logits or task.loss == "hinge" or task.kind == "number":
        return values
    if task.kind == "binary":
        probability = jnp.clip(values, SMALLEST, LARGEST)
        return jnp.log(probability) - jnp.log1p(-probability)
    return jnp.log(jnp.maximum(values, SMALLEST))


def model_from_json(form: dict[str, Any], task: Task, plan: Plan) -> Model:
    """Return the model that a run stored, without its parameters."""
    model = _built(form, plan)
    start = nested(arrays_of(model))

    def apply(parameters: Any, features: jax.Array, key: jax.Array | None = None) -> jax.Array:  # noqa: ARG001
        outputs = call(model, *variables_of(parameters), features, training=False)
        return _linked(task, outputs, form["logits"])

    def takes(rows: PackedRows) -> PackedRows | NamedRows:
        return NamedRows(model, leaves_of(plan, rows), rows.shape) if plan.layout.sparse else rows

    return Model(lambda _: jax.tree.map(jnp.asarray, start), apply, takes)


def restored(form: dict[str, Any], parameters: Parameters, plan: Plan) -> keras.Model:
    """Return the Keras model that a run stored, with its parameters."""
    model = _built(form, plan)
    values = variables_of(parameters)
    for variables, theirs in zip(
        (model.trainable_variables, model.non_trainable_variables), values, strict=True
    ):
        for variable, value in zip(variables, theirs, strict=True):
            variable.assign(value)
    return model


def _built(form: dict[str, Any], plan: Plan) -> keras.Model:
    others = json.dumps(form["config"]).replace('"steepest>', "")
    if ">" in others:  # classes of one's own are registered where they are defined
        import_builder(form["builder"])
    model = keras.saving.deserialize_keras_object(copy.deepcopy(form["config"]))  # Keras empties it
    output_shape(model, plan)
    return model


def import_builder(name: str) -> ModuleType:
    """Import the module that builds a model, from the current folder or from what is installed."""
    module = name.partition(":")[0]
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SteepestError(
            f"The module {module!r} of the model {name} can't be imported ({error}).",
            hint=f"It is looked for in {Path.cwd()} and among the installed packages.",
        ) from error


def output_shape(model: keras.Model, plan: Plan) -> tuple[int | None, ...] | None:
    """Return the shape of the model's output for rows of a plan; build it if need be."""
    specs = specs_of(plan)
    outputs = model(arranged(model, specs) if plan.layout.sparse else specs[FEATURES])
    return getattr(outputs, "shape", None)


def gist(error: Exception) -> str:
    r"""Return the sentence of an exception that matters: the one that Keras prints in bold, or the first.

    Examples
    --------
    >>> gist(ValueError("Exception encountered.\n\x1b[1mInput 0 has 3 axes\x1b[0m\nArguments: ..."))
    'Input 0 has 3 axes'
    """
    text = str(error)
    bold = re.search("\x1b\\[1m(.*?)\x1b\\[0m", text, re.DOTALL)
    first = (bold[1] if bold else text).strip().partition("\n")[0].partition(" Full object config")[0]
    return first or type(error).__name__


def arrays_of(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the variables' values by group and number, as ``model.safetensors`` holds them."""
    groups = {"trainable": model.trainable_variables, "other": model.non_trainable_variables}
    return {
        f"{group}.{index}": np.asarray(variable.value)
        for group, variables in groups.items()
        for index, variable in enumerate(variables)
    }


def nested(arrays: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Return the same values as the model's parameters."""
    parameters: dict[str, dict[str, np.ndarray]] = {}
    for name, values in arrays.items():
        group, _, index = name.partition(".")
        parameters.setdefault(group, {})[index] = values
    return parameters


def variables_of(parameters: Parameters) -> tuple[list[Any], list[Any]]:
    """Return the values in Keras' order, those that are trainable first."""
    trainable, other = (
        [parameters[group][str(index)] for index in range(len(parameters.get(group, ())))]
        for group in ("trainable", "other")
    )
    return trainable, other

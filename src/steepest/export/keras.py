"""A run's model as a Keras model whose inputs are the encoded features."""

from __future__ import annotations

from typing import Any

import numpy as np

from steepest.export.description import LINKS
from steepest.keras import keras
from steepest.keras.sparse import KerasColumn, SparseEmbedding
from steepest.keras.stored import restored
from steepest.run import Run, Shape
from steepest.sparse_columns import FEATURES, in_order_of_tables
from steepest.tasks import Task


def keras_model(run: Run) -> Any:
    """Return the model: see `steepest.export.to_keras`."""
    if run.shape is None:
        return restored(run.form["keras"], run.parameters, run.plan)
    shape, plan = run.shape, run.plan
    size = shape.embedding if shape.hidden else 0
    inputs = [keras.Input((plan.width,), name=FEATURES)] if plan.width else []
    deep, wide = list(inputs), []
    tables: list[tuple[SparseEmbedding, KerasColumn, slice]] = []
    for column in map(KerasColumn.of, in_order_of_tables(plan)):
        theirs = column.inputs()
        inputs += theirs
        if size:
            tables.append((column.embedding(size), column, slice(size)))
            deep.append(tables[-1][0](theirs))
        tables.append((column.weights(shape.outputs), column, slice(size, None)))
        wide.append(tables[-1][0](theirs))
    parts = [_layers(shape, _joined(keras.layers.Concatenate, deep)), *wide] if deep else wide
    outputs = _joined(keras.layers.Add, parts)
    if not deep:  # nothing but weights of values: their sum needs the bias alone
        outputs = keras.layers.Dense(shape.outputs, name="layer_1")(outputs)
    takes = {each.name: each for each in inputs} if tables else inputs[0]
    model = keras.Model(takes, _predicted(run.task, outputs), name="steepest")
    table: Any = run.parameters.get("table")
    for layer, column, numbers in tables:
        layer.table.assign(table[column.first : column.first + column.width, numbers])
    _set_layers(model, run, shape)
    return model


def _joined(layer: Any, parts: list[Any]) -> Any:
    return layer()(parts) if len(parts) > 1 else parts[0]


def _layers(shape: Shape, values: Any) -> Any:
    """Return the outputs of the dense layers, before their link."""
    for number, units in enumerate(shape.hidden, start=1):
        values = keras.layers.Dense(units, name=f"layer_{number}")(values)
        if shape.activation == "gelu":  # by its tanh formula
            values = keras.ops.gelu(values, approximate=True)
        else:
            values = keras.layers.Activation(shape.activation)(values)
        if shape.dropout:
            values = keras.layers.Dropout(shape.dropout)(values)
    return keras.layers.Dense(shape.outputs, name=f"layer_{len(shape.hidden) + 1}")(values)


def _predicted(task: Task, outputs: Any) -> Any:
    """Return what outputs predict: probabilities, or numbers in the target's unit."""
    if task.kind == "number":
        return keras.layers.Rescaling(task.deviation, task.center)(outputs)
    return keras.layers.Activation(LINKS[task.kind])(outputs)


def _set_layers(model: Any, run: Run, shape: Shape) -> None:
    for number in range(1, len(shape.hidden) + 2):
        layer = run.parameters[f"layer_{number}"]
        # Where there is nothing dense, the last layer adds its bias to a sum.
        weights = layer["weights"] if len(layer["weights"]) else np.eye(shape.outputs, dtype=np.float32)
        model.get_layer(f"layer_{number}").set_weights([weights, layer["bias"]])

"""A run's Keras model within an ONNX graph, as the package jax2onnx writes what it computes on JAX."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax2onnx import to_onnx

from steepest.errors import SteepestError
from steepest.export.graph import OPERATORS, ROWS, Graph
from steepest.export.keras import keras_model
from steepest.keras.sparse import arranged
from steepest.keras.stored import gist
from steepest.run import Run
from steepest.sparse_columns import FEATURES, in_order_of_tables


def keras_outputs(graph: Graph, run: Run, inputs: Mapping[str, str]) -> str:
    """Add the model: what it says of rows on the scale of the loss, float32 ``[rows, outputs]``.

    Parameters
    ----------
    graph
        What it is added to.
    run
        A run of a Keras model.
    inputs
        The values in the graph that its inputs take, by name: ``features``, float32 ``[rows, width]``, and of
        sparse columns the places, int32, and the values, float32, ``[rows, length]``.

    Raises
    ------
    SteepestError
        If jax2onnx has no operators for what the model computes.
    """
    shapes = _shapes(run)
    model = keras_model(run)

    def outputs(*values: jax.Array) -> jax.Array:
        parts = dict(zip(inputs, values, strict=True))
        taken = arranged(model, parts) if run.plan.layout.sparse else parts[FEATURES]
        found = run.model.apply(run.parameters, taken)
        return jnp.reshape(found, (found.shape[0], run.task.outputs))

    try:
        with warnings.catch_warnings():  # it asks for float64 and knows what to do without
            warnings.filterwarnings("ignore", ".*Explicitly requested dtype", UserWarning)
            part = to_onnx(
                outputs,
                [shapes[name] for name in inputs],
                opset=OPERATORS[""],
                input_names=[*inputs],
                output_names=["outputs"],
            )
    except Exception as error:
        raise SteepestError(
            f"jax2onnx can't write the Keras model of {run.name} as ONNX: {gist(error)}",
            hint="Export .keras.",
        ) from error
    return graph.join(part, inputs, "outputs")


def _shapes(run: Run) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shape and type of each input that a model may have."""
    found = {FEATURES: jax.ShapeDtypeStruct((ROWS, run.plan.width), jnp.float32)}
    for each in in_order_of_tables(run.plan):
        shape = (ROWS, f"length_of_{each.first}" if each.is_list else 1)
        for name, type_ in zip(each.input_names, (jnp.int32, jnp.float32), strict=False):
            found[name] = jax.ShapeDtypeStruct(shape, type_)
    return found

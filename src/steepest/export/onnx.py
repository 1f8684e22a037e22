"""A model as ONNX: with the column plan where operators allow, else of its features."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

import steepest
from steepest.data.columns import Plan
from steepest.errors import SteepestError
from steepest.export.columns import features, place
from steepest.export.description import described
from steepest.export.graph import ROWS, Graph, Value
from steepest.export.inputs import beyond, column_input
from steepest.run import Run, Shape
from steepest.sparse_columns import FEATURES, SparseColumn, in_order_of_tables
from steepest.tasks import Task

MOST_BYTES = 2**31 - 2**20
"""A model of more bytes is no message of Protocol Buffers."""

ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
    "gelu": ("Gelu", {"approximate": "tanh"}),
}
"""Activation -> the operator, and its attributes."""

LINKS = {"binary": "Sigmoid", "classes": "Softmax", "counts": "Exp", "number": "Identity"}
"""Kind of a task -> the operator that makes predictions of outputs."""


def onnx_model(run: Run) -> onnx.ModelProto:
    """Return the model: see `steepest.export.to_onnx`.

    Raises
    ------
    SteepestError
        If it is too large, or a Keras model that jax2onnx can't write.
    """
    task, plan, parameters = run.task, run.plan, run.parameters
    size = sum(array.nbytes for layer in _arrays(parameters) for array in layer)
    if size > MOST_BYTES:
        raise SteepestError(
            f"{run.name} has {size:,} bytes of parameters; a file of ONNX has {MOST_BYTES:,} at most.",
            hint="Export .safetensors.",
        )
    graph, whys = Graph(), beyond(plan)
    dense, places = _of_features(graph, plan) if whys else _of_columns(graph, plan)
    if run.shape is None:
        outputs = _outputs_of_keras(graph, run, dense, places)
    else:
        outputs = _outputs(graph, run.shape, parameters, dense, places)
    _predict(graph, task, outputs)
    metadata = described(run) | {"inputs": _said_of_inputs(plan, whys), "not_included": whys}
    model = graph.model(
        "steepest",
        {name: each if isinstance(each, str) else json.dumps(each) for name, each in metadata.items()},
        producer_name="steepest",
        producer_version=steepest.__version__,
        doc_string=task.why,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


Places = list[tuple[SparseColumn, str, str | None]]
"""Of each sparse column its places, int64 ``[rows, length]``, and of lists the values ``[rows, length]``."""


def _of_columns(graph: Graph, plan: Plan) -> tuple[str | None, Places]:
    """Add what makes features of the columns: dense ones ``[rows, width]``, and the places of others."""
    if "" in plan.reads:
        raise SteepestError(
            "A column has no name, and inputs of ONNX have one.", hint="Name it, and fit again."
        )
    for column in plan.columns:
        graph.input(column.name, column_input(column).type, [ROWS, 1])
    parts = [each for column in plan.columns for each in features(graph, column)]
    columns = {column.name: column for column in plan.columns}
    places: Places = [
        (each, graph.add("Reshape", place(graph, columns[each.name]), np.array([-1, 1])), None)
        for each in in_order_of_tables(plan)
    ]
    return graph.add("Concat", *parts, axis=1) if parts else None, places


def _of_features(graph: Graph, plan: Plan) -> tuple[str | None, Places]:
    """Declare the features as inputs."""
    dense = graph.input(FEATURES, "float", [ROWS, plan.width]) if plan.width else None
    declared = []
    for each in in_order_of_tables(plan):
        shape = [ROWS, f"length of {each.name}" if each.is_list else 1]
        names = [
            graph.input(name, type_, shape)
            for name, type_ in zip(each.input_names, ("int32", "float"), strict=False)
        ]
        declared.append((each, names))
    return dense, [
        (each, graph.cast(names[0], "int64"), names[1] if each.is_list else None) for each, names in declared
    ]


def _outputs(
    graph: Graph, shape: Shape, parameters: dict[str, Any], dense: str | None, places: Places
) -> str:
    """Add the model: its outputs for the features, float32 ``[rows, outputs]``."""
    size = shape.embedding if shape.hidden else 0
    deep: list[str] = [dense] if dense else []
    terms: list[Value] = []
    for each, where, values in places:
        table = parameters["table"][each.first : each.first + each.width]
        # What has no place looks up a row of zeros after the last.
        found = graph.add("Gather", np.pad(table, ((0, 1), (0, 0))), where)
        if size:
            deep.append(_mean(graph, _columns(graph, found, 0, size), values))
        terms.append(_sum(graph, _columns(graph, found, size, size + shape.outputs), values))
    if deep:
        terms.append(_layers(graph, shape, parameters, graph.add("Concat", *deep, axis=1)))
    else:
        terms.append(parameters["layer_1"]["bias"][None])
    if dense:  # 0 times a number that is not finite is NaN, and so what is predicted shows it
        zeros = graph.add("Mul", dense, np.float32(0))
        terms.append(graph.add("ReduceSum", zeros, np.array([1]), keepdims=1))
    return graph.add("Sum", *terms)


def _outputs_of_keras(graph: Graph, run: Run, dense: str | None, places: Places) -> str:
    """Add the model of a Keras run: its outputs for the features, float32 ``[rows, outputs]``."""
    from steepest.export.onnx_keras import keras_outputs

    inputs = {FEATURES: dense} if dense else {}
    for each, where, values in places:
        found = [graph.cast(where, "int32"), *([values] if values else [])]
        inputs |= dict(zip(each.input_names, found, strict=True))
    return keras_outputs(graph, run, inputs)


def _layers(graph: Graph, shape: Shape, parameters: dict[str, Any], values: str) -> str:
    for number in range(1, len(shape.hidden) + 2):
        layer = parameters[f"layer_{number}"]
        values = graph.add("Gemm", values, layer["weights"], layer["bias"])
        if number <= len(shape.hidden):
            operator, attributes = ACTIVATIONS[shape.activation]
            values = graph.add(operator, values, **attributes)
    return values


def _columns(graph: Graph, found: str, first: int, end: int) -> str:
    return graph.add("Slice", found, np.array([first]), np.array([end]), np.array([2]))


def _sum(graph: Graph, found: str, values: str | None) -> str:
    """Add ``Σ value · row`` ``[rows, ...]`` of rows of a table ``[rows, length, ...]``."""
    if values is not None:
        found = graph.add("Mul", found, graph.add("Unsqueeze", values, np.array([2])))
    return graph.add("ReduceSum", found, np.array([1]), keepdims=0)


def _mean(graph: Graph, found: str, values: str | None) -> str:
    """Add that sum over the sum of the values; without values there is one row."""
    sums = _sum(graph, found, values)
    if values is None:
        return sums
    total = graph.add("ReduceSum", values, np.array([1]), keepdims=1)
    none = graph.add("Greater", total, np.float32(0))
    return graph.add("Div", sums, graph.add("Where", none, total, np.float32(1)))


def _predict(graph: Graph, task: Task, outputs: str) -> None:
    """Add what `steepest.prediction.prediction_table` says, as outputs of the graph."""
    predicted = graph.add(LINKS[task.kind], outputs)
    if not task.labels:
        numbers = graph.add("Reshape", graph.cast(predicted, "double"), np.array([-1]))
        if task.kind == "number":
            numbers = graph.add("Mul", numbers, np.array(task.deviation))
            numbers = graph.add("Add", numbers, np.array(task.center))
        graph.output("prediction", numbers, "double", [ROWS])
        return
    probabilities, chosen = predicted, ""
    if task.kind == "binary":
        probabilities = graph.add("Concat", graph.add("Sub", np.float32(1), predicted), predicted, axis=1)
        second = graph.cast(graph.add("Greater", predicted, np.float32(0.5)), "int64")
        chosen = graph.add("Reshape", second, np.array([-1]))
    else:
        chosen = graph.add("ArgMax", predicted, axis=1, keepdims=0)
    labels, type_ = _labels(task)
    graph.output("prediction", graph.add("Gather", labels, chosen), type_, [ROWS])
    graph.output("probabilities", probabilities, "float", [ROWS, len(task.labels)])


def _labels(task: Task) -> tuple[npt.NDArray[Any], str]:
    """Return the labels as an array, and the type of its elements as ONNX calls it."""
    if isinstance(task.labels[0], str):
        return np.array(task.labels, object), "string"
    labels = np.array(task.labels)
    return labels, {"b": "bool", "i": "int64", "f": "double"}[labels.dtype.kind]


def _said_of_inputs(plan: Plan, whys: dict[str, str]) -> dict[str, Any]:
    """Return what the metadata say of the inputs."""
    if whys:
        return {FEATURES: list(plan.feature_names)}
    said = {column.name: column_input(column) for column in plan.columns}
    return {
        name: {"meaning": each.meaning, "missing": "NaN" if each.type == "double" else each.missing}
        for name, each in said.items()
    }


def _arrays(parameters: dict[str, Any]) -> list[list[npt.NDArray[Any]]]:
    return [[*each.values()] if isinstance(each, dict) else [each] for each in parameters.values()]

"""An ONNX graph while it is built: each node has one output, whose name no other value has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

ROWS = "rows"
"""The axis of the rows in shapes."""

OPERATORS = {"": 20, "ai.onnx.ml": 3}
"""Domain -> version of the operators; these are of 2023."""

LANGUAGE = 9
"""Version of ONNX' intermediate representation that goes with them."""

TYPES = {
    "double": TensorProto.DOUBLE,
    "float": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "string": TensorProto.STRING,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
}
"""Name of a type of elements, as ONNX calls it -> its number."""

Value = str | npt.NDArray[Any] | np.generic
"""The name of a value, or a constant."""

Shape = Sequence[str | int]


class Graph:
    """What was added so far.

    Examples
    --------
    >>> graph = Graph()
    >>> half = graph.add("Mul", graph.input("x", "double", [ROWS]), np.array(0.5))
    >>> graph.output("half", half, "double", [ROWS])
    >>> len(graph.model("halves", {}).graph.node)
    2
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: dict[str, onnx.ValueInfoProto] = {}
        self._outputs: dict[str, onnx.ValueInfoProto] = {}
        self._made = 0

    def input(self, name: str, type_: str, shape: Shape) -> str:
        """Declare an input before anything is added; return its name."""
        self._inputs[name] = helper.make_tensor_value_info(name, TYPES[type_], shape)
        return name

    def add(self, operator: str, *inputs: Value, domain: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        output = self._fresh(operator)
        self._nodes.append(helper.make_node(operator, names, [output], domain=domain, **attributes))
        return output

    def cast(self, value: Value, type_: str) -> str:
        """Add a conversion of elements to a type."""
        return self.add("Cast", value, to=TYPES[type_])

    def output(self, name: str, value: str, type_: str, shape: Shape) -> None:
        """Give a value a name as an output."""
        while name in self._inputs:  # a column of the table may be called so
            name += "_"
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs[name] = helper.make_tensor_value_info(name, TYPES[type_], shape)

    def join(self, part: onnx.ModelProto, inputs: Mapping[str, str], output: str) -> str:
        """Add the nodes of a model whose inputs are these values; return the name of what its output is."""
        prefix = self._fresh("part") + "/"
        joined = compose.add_prefix(part, prefix).graph
        for name, value in inputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [prefix + name]))
        self._nodes.extend(joined.node)
        self._constants.extend(joined.initializer)
        return prefix + output

    def model(self, name: str, metadata: dict[str, str], **more: Any) -> onnx.ModelProto:
        """Return the model, whose metadata are these."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [*self._inputs.values()],
            [*self._outputs.values()],
            initializer=self._constants,
        )
        operators = [helper.make_opsetid(domain, version) for domain, version in OPERATORS.items()]
        model = helper.make_model(graph, opset_imports=operators, ir_version=LANGUAGE, **more)
        helper.set_model_props(model, metadata)
        return model

    def _constant(self, values: npt.ArrayLike) -> str:
        name = self._fresh("constant")
        self._constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def _fresh(self, what: str) -> str:
        self._made += 1
        name = f"{what}/{self._made}"
        return name if name not in self._inputs else self._fresh(what)

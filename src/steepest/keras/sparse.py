"""Sparse columns as inputs of Keras models: what a builder gets, the layer for them, and their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.models.functional import Functional

from steepest.data.columns import Plan
from steepest.data.gather import Array
from steepest.data.order import Rows
from steepest.data.packed import PackedRows
from steepest.data.padded import taken
from steepest.errors import SteepestError, nearest
from steepest.sparse_columns import FEATURES, SparseColumn, sparse_columns


@keras.saving.register_keras_serializable(package="steepest")
class SparseEmbedding(keras.layers.Layer):  # type: ignore[misc]
    """The embeddings of a row's values, averaged or summed: ``Σ vⱼ e(pⱼ) / Σ vⱼ``, or ``Σ vⱼ e(pⱼ)``.

    Takes places, int32 ``[rows, length]``, or ``[places, values]``, both of that shape; without values each
    is 1. A place that is not in ``[0, width)`` is none. Returns ``[rows, size]``; zeros where there is none.

    The average of text is what Steepest's own multilayer model takes; see
    `steepest.descent.models.wide_and_deep`.

    Parameters
    ----------
    width
        Number of places.
    size
        Numbers of an embedding.
    combine
        ``"mean"`` or ``"sum"``.
    initializer
        Of the embeddings; Keras' ``"uniform"`` draws them from U(-0.05, 0.05).

    Raises
    ------
    SteepestError
        If there is no such way to combine, or a size is not positive.

    Examples
    --------
    >>> layer = SparseEmbedding(width=3, size=2, initializer="ones")
    >>> layer([np.array([[0, 2, 3]]), np.array([[1.0, 0.5, 0.0]])]).tolist()
    [[1.0, 1.0]]
    """

    def __init__(
        self, width: int, size: int, combine: str = "mean", initializer: Any = "uniform", **settings: Any
    ) -> None:
        super().__init__(**settings)
        if combine not in ("mean", "sum"):
            raise SteepestError(
                f"Embeddings are not combined by {combine!r}.", hint=nearest(combine, ("mean", "sum"))
            )
        if min(width, size) < 1:
            raise SteepestError(f"Embeddings are of at least one place and size, not {width} and {size}.")
        self.width, self.size, self.combine = width, size, combine
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape: Any) -> None:  # noqa: ARG002 - the number of places is known
        """Make the table ``[width, size]``."""
        self.table = self.add_weight(
            shape=(self.width, self.size), initializer=self.initializer, name="table"
        )

    def call(self, inputs: Any) -> Any:
        """Return ``[rows, size]``."""
        places, *values = keras.tree.flatten(inputs)
        places = ops.cast(places, "int32")
        known = ops.cast((places >= 0) & (places < self.width), self.compute_dtype)
        weights = known * values[0] if values else known
        found = ops.take(self.table, ops.clip(places, 0, self.width - 1), axis=0)
        sums = ops.sum(found * weights[..., None], axis=1)
        if self.combine == "sum":
            return sums
        total = ops.sum(weights, axis=1, keepdims=True)
        return sums / ops.where(total > 0, total, 1)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        """Return the shape of what `call` returns."""
        first = input_shape[0]
        return (first[0] if isinstance(first, (list, tuple)) else first), self.size

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        own = {"width": self.width, "size": self.size, "combine": self.combine}
        return {
            **super().get_config(),
            **own,
            "initializer": keras.initializers.serialize(self.initializer),
        }


class KerasColumn(SparseColumn):
    """A sparse column, as a builder of a Keras model gets it: with what makes its inputs and layers."""

    @classmethod
    def of(cls, column: SparseColumn) -> KerasColumn:
        """Return a column as a builder gets it."""
        return cls(**vars(column))

    def inputs(self) -> list[Any]:
        """Return its inputs: ``[places]`` of ``[rows, 1]``, or ``[places, values]`` of ``[rows, length]``.

        Places are int32 from 0; ``width`` stands for none, and fills rows up to the longest of them. The
        values of text are its tf-idf, those of other lists 1.
        """
        shape = (None if self.is_list else 1,)
        return [
            keras.Input(shape, dtype=dtype, name=name)
            for name, dtype in zip(self.input_names, ("int32", "float32"), strict=False)
        ]

    def embedding(self, size: int = 8) -> SparseEmbedding:
        """Return a layer that averages embeddings; see `SparseEmbedding`."""
        return SparseEmbedding(self.width, size)

    def weights(self, outputs: int = 1) -> SparseEmbedding:
        """Return a layer that sums weights from 0: the wide part of a wide and deep model."""
        return SparseEmbedding(self.width, outputs, "sum", "zeros")


def embeddings_of(model: keras.Model) -> list[SparseEmbedding]:
    """Return the layers of a model that hold tables of sparse features."""
    layers = model._flatten_layers(include_self=False)
    return [layer for layer in layers if isinstance(layer, SparseEmbedding)]


def keras_columns(plan: Plan) -> dict[str, KerasColumn]:
    """Return the sparse columns of a plan by name."""
    return {column.name: KerasColumn.of(column) for column in sparse_columns(plan)}


def specs_of(plan: Plan) -> dict[str, Any]:
    """Return a symbolic tensor for each input that a model may have."""
    specs = {FEATURES: keras.KerasTensor((None, plan.width), "float32")}
    for column in keras_columns(plan).values():
        specs |= dict(zip(column.input_names, column.inputs(), strict=True))
    return specs


def leaves_of(plan: Plan, rows: PackedRows) -> dict[str, Any]:
    """Return what of rows each input takes, by its name."""
    leaves: dict[str, Any] = {FEATURES: rows}
    for column in sparse_columns(plan):
        leaves |= dict(zip(column.input_names, column.leaves(rows), strict=True))
    return leaves


def arranged(model: keras.Model, parts: Mapping[str, Any]) -> Any:
    """Return parts, by the names of inputs, as the model takes them; those that it has no input for are left.

    Raises
    ------
    ValueError
        If it has other inputs.
    """
    if not isinstance(model, (keras.Sequential, Functional)):
        return dict(parts)
    names = [each.name for each in model.inputs]
    unknown = [name for name in names if name not in parts]
    if unknown:
        raise ValueError(f"it has an input {unknown[0]!r}, and there are {', '.join(parts)}")
    if isinstance(model, keras.Sequential):
        return parts[names[0]]
    return keras.tree.pack_sequence_as(model.input, [parts[name] for name in names])


@dataclass(frozen=True)
class NamedRows:
    """Rows by the names of a model's inputs, as `steepest.prediction.outputs_of` takes them."""

    model: Any
    leaves: dict[str, Any]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, at most."""
        return sum(int(np.prod(leaf.shape[1:])) * leaf.dtype.itemsize for leaf in self.leaves.values())

    def inputs(self, rows: Rows) -> Any:
        """Return what the model sees of some rows; where the number is -1, of any."""
        found: dict[str, Array] = {name: taken(leaf, rows) for name, leaf in self.leaves.items()}
        return arranged(self.model, found)

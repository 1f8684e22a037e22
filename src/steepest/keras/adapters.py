"""Keras' adapters of data, with an order of batches or rows that the seed decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import keras
import numpy as np
from keras.src.trainers.data_adapters import array_slicing
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
from keras.src.trainers.data_adapters.data_adapter import DataAdapter
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from steepest.data.blocks import Blocks
from steepest.data.order import ORDER, generator, permutation


class Passes(Protocol):
    """What counts the passes over the rows; an adapter adds each that it begins."""

    passes: int


class Ordered(DataAdapter):  # type: ignore[misc]
    """Batches from arrays in an order that the seed decides: sparse arrays, or epochs that are no pass."""

    def __init__(self, plain: ArrayDataAdapter, rows: Passes, order: Blocks) -> None:
        self.plain, self.rows, self.order = plain, rows, order

    def get_jax_iterator(self) -> Iterator[Any]:
        """Yield the batches of the next pass."""
        arrays = array_slicing.convert_to_sliceable(self.plain._inputs, target_backend="jax")
        self.rows.passes += 1
        for window in self.order.epochs(self.rows.passes - 1, self.rows.passes):
            for numbers in window.rows:
                yield keras.tree.map_structure(
                    lambda each, numbers=numbers: each.convert_to_jax_compatible(each[numbers]),
                    arrays,
                    none_is_leaf=False,
                )

    @property
    def num_batches(self) -> int:
        """Batches of a pass."""
        return self.order.steps


class Permuted(keras.utils.PyDataset):  # type: ignore[misc]
    """A `PyDataset` with its batches in another order."""

    def __init__(self, plain: keras.utils.PyDataset) -> None:
        super().__init__(plain.workers, plain.use_multiprocessing, plain.max_queue_size)
        self.plain = plain
        self.order = np.arange(plain.num_batches)

    @property
    def num_batches(self) -> int:
        """Batches of a pass."""
        return len(self.order)

    def __getitem__(self, index: int) -> Any:
        return self.plain[int(self.order[index])]

    def on_epoch_begin(self) -> None:
        """Tell the data."""
        self.plain.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tell the data."""
        self.plain.on_epoch_end()


class Shuffled(PyDatasetAdapter):  # type: ignore[misc]
    """Keras' adapter of a `PyDataset`, with an order that the seed decides."""

    def __init__(self, plain: keras.utils.PyDataset, class_weight: Any, rows: Passes, seed: int) -> None:
        super().__init__(Permuted(plain), class_weight)
        self.rows, self.seed = rows, seed

    def on_epoch_begin(self) -> None:
        """Tell the data, and draw the order of its workers."""
        if self.enqueuer:  # its workers begin a pass with every epoch
            self._draw()
        super().on_epoch_begin()

    def _finite_generator(self) -> Iterator[Any]:
        self._draw()
        yield from super()._finite_generator()

    def _draw(self) -> None:
        bits = generator(self.seed, ORDER, self.rows.passes).bit_generator
        self.py_dataset.order = permutation(bits, self.py_dataset.plain.num_batches)
        self.rows.passes += 1

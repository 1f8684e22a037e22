"""Rows for a Keras model, as windows of batches.

Who owns what: Keras' `EpochIterator` and its data adapters check what the user gave, in their own words, and
iterate over everything that is a stream (`tf.data`, `PyDataset`, generators, sparse arrays). Arrays are
gathered here, in the order of `steepest.data.order`, whose seed and pass decide which rows a batch holds.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, NamedTuple

import jax
import keras
import numpy as np
from keras.src.trainers.data_adapters import array_slicing, data_adapter_utils
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter, can_convert_arrays
from keras.src.trainers.data_adapters.data_adapter import DataAdapter
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter
from keras.src.trainers.epoch_iterator import EpochIterator

from steepest.data.blocks import WINDOW_BYTES, Blocks, Window, prefetch
from steepest.data.order import ORDER, generator, permutation
from steepest.errors import SteepestError
from steepest.keras.program import Parts

MANY = 2**40
"""More passes than anyone makes."""


Held = tuple[Any, list[np.ndarray]]
"""A window ``(x, y, sample_weight)`` and, for each of its steps, the row numbers."""


class Stretch(NamedTuple):
    """Consecutive steps of an epoch.

    Attributes
    ----------
    first, last
        Number of the first and of the last step within the epoch, from 0.
    parts
        Their batches.
    rows
        For each step the row numbers of its batch; none where rows have no numbers.
    """

    first: int
    last: int
    parts: Parts
    rows: list[np.ndarray]


@dataclass
class Rows:
    """What a model is trained or tested on.

    Attributes
    ----------
    iterator
        Keras' own view of it.
    blocks
        The rows, where they are dense arrays in memory.
    shape_like
        How Keras gives a batch of them to the model.
    passes
        Passes over the rows made before; the next one's order depends on it.
    """

    iterator: EpochIterator
    blocks: Blocks | None = None
    shape_like: Any = None
    passes: int = 0
    _resident: list[Stretch] = field(default_factory=list, repr=False)
    _windows: Generator[Window, None, None] | None = field(default=None, repr=False)

    @property
    def steps(self) -> int | None:
        """Steps of an epoch, where known."""
        count: int | None = self.iterator.num_batches
        return count

    @property
    def is_one_stretch(self) -> bool:
        """Whether an epoch is a pass over arrays that is one stretch: a window and perhaps a short batch."""
        if self.blocks is None or self.iterator.steps_per_epoch is not None:
            return False
        shapes = self.blocks.shapes()
        return len(shapes) == 1 or (len(shapes) == 2 and shapes[1][1] < shapes[0][1])

    def epoch(self, stride: int | None, skip: int = 0) -> Iterator[Stretch]:
        """Yield an epoch's steps, as many at a time as fit, or ``stride`` at a time.

        The arrays of one stretch are valid until the next is asked for. The first ``skip`` steps are left
        out: they were taken before the descent was interrupted.
        """
        if self.blocks is None or self.iterator.steps_per_epoch is not None:
            yield from _stretches(_skipping(self._batches(), skip), stride, skip)
            return
        if stride is not None or skip:
            yield from _cut(self._pass(self.blocks), stride, skip)
        elif self.blocks.shuffle or not self.is_one_stretch:
            yield from _whole(self._pass(self.blocks))
        else:  # always the same: they stay on the device
            self._resident = self._resident or [
                each._replace(parts=jax.device_put(each.parts)) for each in _whole(self._pass(self.blocks))
            ]
            self.close()
            yield from self._resident

    @property
    def batches(self) -> int:
        """Batches of the order of rows that come before the next one."""
        return self.passes * self.blocks.steps if self.blocks else 0

    def seek(self, batches: int) -> None:
        """Go on where so many batches of the order of rows have been taken; a stream begins anew."""
        if self.blocks is None:
            return
        self.passes, offset = divmod(batches, self.blocks.steps)
        if self.iterator.steps_per_epoch is not None:
            self.iterator._current_iterator = _skipping(self.iterator._get_iterator(), offset)
            self.iterator._steps_seen = offset

    def build(self, model: keras.Model) -> None:
        """Let Keras make what it makes from a first batch: variables, metrics, the optimizer's state."""
        if self.blocks is not None:
            first = [array[: self.blocks.batch_size] for array in self.blocks.arrays]
            model._symbolic_build(data_batch=jax.tree.unflatten(self.shape_like, first))
            return
        adapter = self.iterator.data_adapter
        passes = getattr(adapter, "passes", 0)
        model._symbolic_build(iterator=self.iterator)
        self.iterator.reset()
        if isinstance(adapter, _Shuffled):
            adapter.passes = passes

    def close(self) -> None:
        """End the thread that gathers rows."""
        if self._windows is not None:
            self._windows.close()
            self._windows = None

    def _pass(self, blocks: Blocks) -> Iterator[Held]:
        """Yield the windows of the next pass over the arrays."""
        if self._windows is None:
            self._windows = prefetch(blocks.epochs(self.passes, MANY))
        self.passes += 1
        for _ in blocks.shapes():
            window = next(self._windows)
            yield jax.tree.unflatten(self.shape_like, window.arrays), list(window.rows)

    def _batches(self) -> Iterator[Any]:
        """Yield the batches of an epoch as Keras' iterator has them."""
        with self.iterator.catch_stop_iteration():
            for _, _, batches in self.iterator:
                yield from batches


class _Ordered(DataAdapter):  # type: ignore[misc]
    """Batches from arrays in our order, for Keras' iterator to count: an epoch may be a part of a pass."""

    def __init__(self, rows: Rows, blocks: Blocks) -> None:
        self.rows, self.blocks = rows, blocks

    def get_jax_iterator(self) -> Iterator[Any]:
        for arrays, numbers in self.rows._pass(self.blocks):
            for step in range(len(numbers)):
                yield jax.tree.map(lambda array, step=step: array[step].copy(), arrays)

    @property
    def num_batches(self) -> int:
        return self.blocks.steps


class _Iterator(EpochIterator):  # type: ignore[misc]
    def _get_iterator(self) -> Iterator[Any]:
        batches: Iterator[Any] = self.data_adapter.get_jax_iterator()
        return batches


class _Permuted(keras.utils.PyDataset):  # type: ignore[misc]
    """A `PyDataset` with its batches in another order."""

    def __init__(self, plain: keras.utils.PyDataset) -> None:
        super().__init__(plain.workers, plain.use_multiprocessing, plain.max_queue_size)
        self.plain = plain
        self.order = np.arange(plain.num_batches)

    @property
    def num_batches(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Any:
        return self.plain[int(self.order[index])]

    def on_epoch_begin(self) -> None:
        self.plain.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.plain.on_epoch_end()


class _Shuffled(PyDatasetAdapter):  # type: ignore[misc]
    """Keras' adapter of a `PyDataset`, with an order that the seed decides."""

    def __init__(self, plain: keras.utils.PyDataset, class_weight: Any, seed: int, passes: int) -> None:
        super().__init__(_Permuted(plain), class_weight)
        self.seed, self.passes = seed, passes

    def on_epoch_begin(self) -> None:
        if self.enqueuer:  # its workers begin a pass with every epoch
            self._draw()
        super().on_epoch_begin()

    def _finite_generator(self) -> Iterator[Any]:
        self._draw()
        yield from super()._finite_generator()

    def _draw(self) -> None:
        bits = generator(self.seed, ORDER, self.passes).bit_generator
        self.py_dataset.order = permutation(bits, self.py_dataset.plain.num_batches)
        self.passes += 1


def rows_of(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    shuffle: bool | Literal["batch"] = False,
    class_weight: Any = None,
    seed: int = 0,
    taken: int = 0,
) -> Rows:
    """Look at what the user gave, and make windows of it.

    Parameters
    ----------
    x, y, sample_weight, batch_size, shuffle, class_weight
        As `keras.Model.fit` takes them.
    steps
        Steps of an epoch, if it is not one pass.
    seed
        Decides the order of rows.
    taken
        Steps that the optimizer has taken before: the first pass is the one that follows them.

    Raises
    ------
    SteepestError
        If the batch size is not positive, there are no rows, or the shuffle is not known.
    ValueError
        In Keras' own words, if the arguments do not go together.
    """
    _check(batch_size, steps, shuffle)
    x, y, sample_weight = (as_arrays(each) for each in (x, y, sample_weight))
    arrays = can_convert_arrays((x, y, sample_weight))
    if arrays and not any(map(np.size, _leaves(x)[:1])):
        raise SteepestError("x has no rows, so there is nothing to descend on.")
    ours = arrays or isinstance(x, keras.utils.PyDataset)
    settings = {"batch_size": batch_size, "steps_per_epoch": steps, "class_weight": class_weight}
    iterator = _Iterator(x, y, sample_weight, **settings, shuffle=bool(shuffle) and not ours)
    adapter = iterator.data_adapter
    if isinstance(adapter, PyDatasetAdapter) and shuffle and adapter.num_batches is not None:
        passes = -(-taken // max(1, adapter.num_batches))
        iterator.data_adapter = _Shuffled(x, class_weight, seed, passes)
    if not isinstance(adapter, ArrayDataAdapter) or not all(map(_is_dense, _leaves(adapter._inputs))):
        return Rows(iterator)
    leaves, shape_like = jax.tree.flatten(_gathered(adapter))
    blocks = Blocks(
        tuple(leaves),
        np.ones(adapter._num_samples, np.float32),
        adapter._batch_size,
        seed,
        shuffle,
        padded=False,
    )
    rows = Rows(iterator, blocks, shape_like, -(-taken // blocks.steps))
    if steps is not None:
        iterator.data_adapter = _Ordered(rows, blocks)
    return rows


def _check(batch_size: int | None, steps: int | None, shuffle: object) -> None:
    for name, value in (("batch_size", batch_size), ("steps_per_epoch", steps)):
        if value is not None and (isinstance(value, bool) or value != int(value) or value < 1):
            raise SteepestError(f"{name} is {value!r}; it must be a whole number of at least 1.")
    if shuffle not in (True, False, "batch"):
        raise SteepestError(f"shuffle is {shuffle!r}.", hint='It may be True, False or "batch".')


def _is_table(value: Any) -> bool:
    """Tell whether a value is a frame of Polars or a table or array of Arrow."""
    return type(value).__module__.partition(".")[0] in ("polars", "pyarrow")


def as_arrays(tree: Any) -> Any:
    """Turn the tables that Keras does not know into NumPy arrays; leave all else as it is."""
    if _is_table(tree):
        return tree.to_pandas().to_numpy()
    if isinstance(tree, dict):
        return {name: as_arrays(each) for name, each in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(as_arrays(each) for each in tree)
    return tree


def _leaves(tree: Any) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten(tree) if leaf is not None]


def _is_dense(leaf: Any) -> bool:
    unusual = (
        data_adapter_utils.is_scipy_sparse,
        data_adapter_utils.is_jax_sparse,
        data_adapter_utils.is_tensorflow_sparse,
        data_adapter_utils.is_tensorflow_ragged,
    )
    return not any(is_unusual(leaf) for is_unusual in unusual)


def _gathered(adapter: ArrayDataAdapter) -> Any:
    """Return the adapter's arrays as the one array that its batches are slices of."""
    whole = slice(0, adapter._num_samples)
    return keras.tree.map_structure(
        lambda each: None if each is None else np.asarray(each.convert_to_jax_compatible(each[whole])),
        array_slicing.convert_to_sliceable(adapter._inputs, target_backend="jax"),
        none_is_leaf=False,
    )


def _whole(windows: Iterator[Held]) -> Iterator[Stretch]:
    """Yield a window at a time; a short last batch joins the window before, a step of its own shape."""
    held: list[Held] = []
    first = 0
    for window in chain(windows, [None]):
        if held and (window is None or len(window[1][0]) == len(held[0][1][0])):
            numbers = [each for _, numbers in held for each in numbers]
            yield Stretch(first, first + len(numbers) - 1, tuple(part for part, _ in held), numbers)
            first, held = first + len(numbers), []
        if window is not None:
            held.append(window)


def _cut(windows: Iterator[Held], stride: int | None, skip: int) -> Iterator[Stretch]:
    """Yield ``stride`` steps at a time."""
    first = 0
    for arrays, numbers in windows:
        count = len(numbers)
        for at in range(min(max(0, skip - first), count), count, stride or count):
            steps = slice(at, min(at + (stride or count), count))
            part = jax.tree.map(lambda array, steps=steps: array[steps], arrays)
            yield Stretch(first + at, first + at + (stride or count) - 1, (part,), numbers[steps])
        first += count


def _skipping(batches: Iterator[Any], skip: int) -> Iterator[Any]:
    for _ in range(skip):
        next(batches, None)
    return batches


def _stretches(batches: Iterator[Any], stride: int | None, first: int) -> Iterator[Stretch]:
    """Stack consecutive batches of one shape, up to a window's size or ``stride`` at a time."""
    group: list[Any] = []
    held: Any = None
    for raw in batches:
        batch = data_adapter_utils.unpack_x_y_sample_weight(raw)
        shapes = jax.tree.map(np.shape, batch), jax.tree.structure(batch)
        if group and shapes != held:
            yield _stack(group, first, stride)
            first, group = first + len(group), []
        group.append(batch)
        held = shapes
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(batch))
        if len(group) == stride or len(group) * size >= WINDOW_BYTES:
            yield _stack(group, first, stride)
            first, group = first + len(group), []
    if group:
        yield _stack(group, first, stride)


def _stack(group: list[Any], first: int, stride: int | None) -> Stretch:
    part = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *group)
    return Stretch(first, first + (stride or len(group)) - 1, (part,), [])

"""Rows for a Keras model, as windows of batches.

Who owns what: Keras' `EpochIterator` and its data adapters check what the user gave, in their own words, and
iterate over everything that is a stream (`tf.data`, `PyDataset`, generators, sparse arrays). Arrays are
gathered here, in the order of `steepest.data.order`, whose seed and pass decide which rows a batch holds.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, islice
from numbers import Integral
from typing import Any, Literal, NamedTuple

import jax
import keras
import numpy as np
from keras.src.trainers.data_adapters import array_slicing, data_adapter_utils
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter, can_convert_arrays
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter
from keras.src.trainers.epoch_iterator import EpochIterator

from steepest.data.blocks import WINDOW_BYTES, Blocks, Window
from steepest.data.padded import Padded, Placed
from steepest.data.prefetch import prefetch
from steepest.errors import SteepestError
from steepest.keras.adapters import Ordered, Shuffled
from steepest.keras.program import Parts

BUFFERS = 5
"""Windows alive at once: two stretches, each with a short last batch, and one window being filled."""

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


def first_steps(parts: Parts, count: int) -> Parts:
    """Return the first steps of these windows."""
    head = []
    for part in parts:
        steps = min(count, len(jax.tree.leaves(part)[0]))
        if steps:
            head.append(jax.tree.map(lambda array, steps=steps: array[:steps], part))
        count -= steps
    return tuple(head)


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
    facts
        What else decides the order of rows, by names for a person.
    reads_ahead
        Whether a thread gathers the next window while this one is used.
    """

    iterator: EpochIterator
    blocks: Blocks | None = None
    shape_like: Any = None
    passes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    reads_ahead: bool = True
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
        if self.blocks is None:
            return False
        shapes = self.blocks.shapes()
        return len(shapes) == 1 or (len(shapes) == 2 and shapes[1][1] < shapes[0][1] and shapes[0][0] > 1)

    def epoch(self, stride: int | None, skip: int = 0) -> Iterator[Stretch]:
        """Yield an epoch's steps, as many at a time as fit, or ``stride`` at a time.

        The arrays of one stretch are valid until the next is asked for. The first ``skip`` steps are left
        out: they were taken before the descent was interrupted.
        """
        if self.blocks is None:
            yield from _stretches(islice(self._batches(), skip, None), stride, skip)
        elif stride is not None:
            yield from _cut(_after(self._pass(self.blocks), skip), stride, skip)
        elif skip or self.blocks.shuffle or not self.is_one_stretch:
            yield from _whole(_after(self._pass(self.blocks), skip), skip)
        else:  # always the same: they stay on the device
            self._resident = self._resident or [
                each._replace(parts=jax.device_put(each.parts)) for each in _whole(self._pass(self.blocks))
            ]
            self.close()
            yield from self._resident

    @property
    def batches(self) -> int:
        """Batches that come before the next pass."""
        return self.passes * (self.iterator.data_adapter.num_batches or 0)

    def seek(self, batches: int) -> None:
        """Go on where so many batches have been taken."""
        adapter = self.iterator.data_adapter
        whole = adapter.num_batches
        self.passes, offset = divmod(batches, whole) if whole else (0, batches)
        if self.iterator.steps_per_epoch is not None:  # an epoch begins where the one before has ended
            self.iterator._current_iterator = islice(self.iterator._get_iterator(), offset, None)
            self.iterator._steps_seen = offset

    @property
    def is_sparse(self) -> bool:
        """Whether the rows have sparse features: see `steepest.keras.sparse`."""
        arrays = () if self.blocks is None else self.blocks.arrays
        return any(isinstance(array, Placed | Padded) for array in arrays)

    def build(self, model: keras.Model) -> None:
        """Let Keras make what it makes from a first batch: variables, metrics, the optimizer's state."""
        if self.blocks is not None:
            count = min(self.blocks.batch_size, self.blocks.rows)
            first = [np.empty((count, *array.shape[1:]), array.dtype) for array in self.blocks.arrays]
            model._symbolic_build(data_batch=jax.tree.unflatten(self.shape_like, first))
            return
        passes = self.passes
        model._symbolic_build(iterator=self.iterator)
        self.iterator.reset()
        self.passes = passes

    def close(self) -> None:
        """End what gathers rows."""
        if self._windows is not None:
            self._windows.close()
            self._windows = None

    def _pass(self, blocks: Blocks) -> Iterator[Held]:
        """Yield the windows of the next pass over the arrays."""
        if self._windows is None:
            windows = blocks.epochs(self.passes, MANY)
            self._windows = prefetch(windows) if self.reads_ahead else (window for window in windows)
        self.passes += 1
        try:
            for _ in blocks.shapes():
                window = next(self._windows)
                yield jax.tree.unflatten(self.shape_like, window.arrays), list(window.rows)
        except GeneratorExit:  # the next pass begins with its own first window
            self.close()
            raise

    def _batches(self) -> Iterator[Any]:
        """Yield the batches of an epoch as Keras' iterator has them."""
        with self.iterator.catch_stop_iteration():
            for _, _, batches in self.iterator:
                yield from batches


class _Iterator(EpochIterator):  # type: ignore[misc]
    def _get_iterator(self) -> Iterator[Any]:
        batches: Iterator[Any] = self.data_adapter.get_jax_iterator()
        return batches


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
    ours = arrays or isinstance(x, keras.utils.PyDataset)
    settings = {"batch_size": batch_size, "steps_per_epoch": steps, "class_weight": class_weight}
    iterator = _Iterator(x, y, sample_weight, **settings, shuffle=bool(shuffle) and not ours)
    adapter, rows = iterator.data_adapter, Rows(iterator)
    rows.passes = -(-taken // (adapter.num_batches or taken or 1))
    if isinstance(adapter, ArrayDataAdapter):
        if not adapter._num_samples:
            raise SteepestError("x and y have no rows.", hint="Look at what selected them.")
        rows.facts = {"number of rows": adapter._num_samples, "batch size": adapter._batch_size}
        _order(rows, adapter, seed, shuffle)
    elif isinstance(adapter, PyDatasetAdapter) and shuffle and adapter.num_batches is not None:
        iterator.data_adapter = Shuffled(x, class_weight, rows, seed)
    rows.facts |= {"seed": seed, "shuffle": shuffle, "number of steps per epoch": rows.steps}
    return rows


def rows_over(table: Any, **order: Any) -> Rows:
    """Return rows that gather themselves: see `steepest.data.gather` and `steepest.data.padded`.

    Parameters
    ----------
    table
        ``(x, y, sample_weight)``, whose leaves are such rows or arrays.
    order
        See `rows_of`.
    """
    like = jax.tree.map(lambda each: np.broadcast_to(np.zeros((), each.dtype), each.shape), table)
    rows = rows_of(*like, **order)
    assert rows.blocks is not None  # noqa: S101 - they are dense arrays
    rows.blocks = replace(rows.blocks, arrays=tuple(jax.tree.leaves(table)))
    return rows


def _order(rows: Rows, adapter: ArrayDataAdapter, seed: int, shuffle: bool | Literal["batch"]) -> None:
    """Let the seed decide the order of arrays, which stay in memory as windows where that is possible."""
    weights = np.ones(adapter._num_samples, np.float32)
    order = Blocks((), weights, adapter._batch_size, seed, shuffle, padded=False, buffers=BUFFERS)
    if rows.iterator.steps_per_epoch is None and all(map(_is_dense, _leaves(adapter._inputs))):
        leaves, rows.shape_like = jax.tree.flatten(_gathered(adapter))
        rows.blocks = replace(order, arrays=tuple(leaves))
    else:
        rows.iterator.data_adapter = Ordered(adapter, rows, order)


def _check(batch_size: object, steps: object, shuffle: object) -> None:
    for name, value in (("batch_size", batch_size), ("steps_per_epoch", steps)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 1):
            raise SteepestError(f"{name} is {value!r}.", hint="It must be a whole number of at least 1.")
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
    """Return the adapter's arrays as the one array that its batches are slices of, in JAX's own types."""
    whole = slice(0, adapter._num_samples)

    def gather(each: Any) -> np.ndarray | None:
        if each is None:
            return None
        array = np.asarray(each.convert_to_jax_compatible(each[whole]))
        return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)

    sliceable = array_slicing.convert_to_sliceable(adapter._inputs, target_backend="jax")
    return keras.tree.map_structure(gather, sliceable, none_is_leaf=False)


def _after(windows: Iterator[Held], skip: int) -> Iterator[Held]:
    """Leave the first steps out."""
    for arrays, numbers in windows:
        if skip < len(numbers):
            yield jax.tree.map(lambda array, skip=skip: array[skip:], arrays), numbers[skip:]
        skip = max(0, skip - len(numbers))


def _whole(windows: Iterator[Held], first: int = 0) -> Iterator[Stretch]:
    """Yield a window at a time; a short last batch joins the window before, a step of its own shape.

    It does not join a single step: their loops would be compiled into one, and the last bits would change.
    """
    held: list[Held] = []
    for window in chain(windows, [None]):
        single = len(held) == 1 and len(held[0][1]) == 1
        if held and (single or window is None or len(window[1][0]) == len(held[0][1][0])):
            numbers = [each for _, numbers in held for each in numbers]
            yield Stretch(first, first + len(numbers) - 1, tuple(part for part, _ in held), numbers)
            first, held = first + len(numbers), []
        if window is not None:
            held.append(window)


def _cut(windows: Iterator[Held], stride: int, first: int) -> Iterator[Stretch]:
    """Yield ``stride`` steps at a time; as in Keras, the last ones bear the numbers of as many."""
    parts: list[Any] = []
    numbers: list[np.ndarray] = []
    for arrays, members in windows:
        at = 0
        while at < len(members):
            steps = slice(at, at + stride - len(numbers))
            parts.append(jax.tree.map(lambda array, steps=steps: array[steps].copy(), arrays))
            numbers += members[steps]
            at = steps.stop
            if len(numbers) == stride:
                yield Stretch(first, first + stride - 1, tuple(parts), numbers)
                first, parts, numbers = first + stride, [], []
    if numbers:
        yield Stretch(first, first + stride - 1, tuple(parts), numbers)


def _stretches(batches: Iterator[Any], stride: int | None, first: int) -> Iterator[Stretch]:
    """Stack batches: ``stride`` at a time, or consecutive ones of one shape; at most a window's size."""
    group: list[Any] = []
    size = 0
    for raw in batches:
        batch = data_adapter_utils.unpack_x_y_sample_weight(raw)
        if group and stride is None and _shapes(batch) != _shapes(group[0]):
            yield _stack(group, first, len(group))
            first, group, size = first + len(group), [], 0
        group.append(jax.tree.map(np.array, batch))  # a copy: generators may fill the same arrays again
        size += sum(leaf.nbytes for leaf in jax.tree.leaves(batch))
        if len(group) == stride or size >= WINDOW_BYTES:
            yield _stack(group, first, len(group))
            first, group, size = first + len(group), [], 0
    if group:
        yield _stack(group, first, stride or len(group))


def _shapes(batch: Any) -> Any:
    leaves, structure = jax.tree.flatten(batch)
    return [np.shape(leaf) for leaf in leaves], structure


def _stack(group: list[Any], first: int, count: int) -> Stretch:
    parts = [jax.tree.map(lambda *leaves: np.stack(leaves), *alike) for _, alike in groupby(group, _shapes)]
    return Stretch(first, first + count - 1, tuple(parts), [])

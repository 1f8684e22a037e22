"""What a descent is fed with: windows of the rows, or empty ones for a function without data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from steepest.arguments import (
    Lookup,
    Objective,
    Parameters,
    as_data,
    batch_size_of,
    one_loss_per_row,
    row_count,
    row_weights,
    shape_of_batch,
    some_weigh_nothing,
)
from steepest.data.blocks import Blocks, Window
from steepest.data.gather import Gathered, gather
from steepest.data.order import Rows
from steepest.data.padded import taken
from steepest.data.pairs import Pairs, Strips, numbers_for, touched
from steepest.data.prefetch import prefetch
from steepest.data.shared import Shared, SharedBlocks
from steepest.descent.pace import Pace
from steepest.descent.step import Batches
from steepest.descent.validation import Validation
from steepest.errors import SteepestError
from steepest.process_group import ProcessGroup

VALIDATION_ROWS = 256
"""Rows that are validated at a time."""

ROW_WEIGHTS = "Row weights need an objective that returns one loss for each row of the batch."

NOT_BY_ROW = "Rows that several processes hold need functions that return one number for each row."

CHUNK = 256
"""Steps of a function without data that run between two looks at the clock."""

SAMPLE = 2**16
"""Bytes by which an array is known again, about."""

Windows = Generator[Window, None, None]


class Feed(NamedTuple):
    """What a descent runs over.

    Attributes
    ----------
    windows
        ``(epoch, window) -> windows`` of all epochs from that place on, both counted from 0.
    pace
        How the descent is divided.
    facts
        What must be the same for a descent to go on with it.
    group, fetch
        The processes that hold the rows together, and what gives some of the rows, by their numbers, with
        their weights to each; ``None`` where one process holds them all.
    """

    windows: Callable[[int, int], Windows]
    pace: Pace
    facts: dict[str, Any]
    group: ProcessGroup | None = None
    fetch: Callable[[Rows], tuple[Any, Any]] | None = None


class HeldOut(NamedTuple):
    """Validation rows, if there are any, and what must be the same of them for a descent to go on."""

    validation: Validation | None
    facts: dict[str, Any]


def chunks(steps: int, tolerance: float, chunk: int) -> Feed:
    """Cut a descent without data into windows whose batches are empty."""
    chunk = min(chunk, steps)
    pace = Pace(-(-steps // chunk), chunk, 1, tolerance, whole=True, limit=f"the last step ({steps:,})")

    def windows(epoch: int, _: int) -> Windows:
        for first in range(epoch * chunk, steps, chunk):
            real = np.arange(first, first + chunk)[:, None] < steps
            yield Window((), real.astype(np.float32), np.full(real.shape, -1))

    return Feed(windows, pace, {"steps": steps})


def batches(
    objective: Objective,
    start: Parameters,
    data: Any,
    weights: Any,
    batch_size: int | str,
    seed: int,
    shuffle: bool,
    epochs: int,
    tolerance: float,
    windows: int = 1,
    lookups: Sequence[Lookup] = (),
) -> Feed:
    """Cut data into windows of batches; about so many in all epochs together, if there are not more.

    What steps look up in tables of parameters is found, and numbered anew, as the windows come.
    """
    arrays, shape_like = jax.tree.flatten(jax.tree.map(as_data, data))
    rows = row_count(data)
    size = batch_size_of(batch_size, rows)
    padded = one_loss_per_row(objective, start, data, min(size, rows))
    if weights is not None and not padded:
        raise SteepestError(ROW_WEIGHTS)
    shuffle = shuffle and size < rows
    group = _group_of(arrays)
    if group and not padded:
        raise SteepestError(NOT_BY_ROW)
    weighed = row_weights(weights, rows)
    blocks = _blocks(arrays, weighed, size, seed=seed, shuffle=shuffle, padded=padded)
    blocks = replace(blocks, longest=-(-blocks.steps // max(1, windows // epochs)))
    count = len(blocks.shapes())
    limit, weightless = f"the last epoch ({epochs:,})", some_weigh_nothing(blocks.weights)
    pace = Pace(epochs, blocks.steps, count, tolerance, size >= rows, limit, weightless)
    facts = {
        "number of rows": rows,
        "batch size": size,
        "shuffle": shuffle,
        "windows": count,
        "data": digest((*arrays, blocks.weights)),
    } | ({"local steps": group.local_steps} if group and group.local_steps > 1 else {})

    numbers = [numbers_for(table.width) for table in lookups]

    def shaped(window: Window) -> Window:
        window = window._replace(arrays=jax.tree.unflatten(shape_like, window.arrays))
        return looked_up(window, lookups, numbers) if lookups else window

    def windows_from(epoch: int, window: int) -> Windows:
        if shuffle or count > 1:
            return prefetch(map(shaped, blocks.epochs(epoch, epochs, window)))
        whole = shaped(next(blocks.epochs(0, 1)))
        if group is None:
            whole = whole._replace(arrays=jax.device_put(whole.arrays))  # it never changes
        return (whole for _ in range(epoch, epochs))

    def fetch(numbers: Rows) -> tuple[Any, Any]:
        of_each = [taken(each, numbers) for each in arrays]
        weights = np.ones(len(numbers), np.float32)
        if not isinstance(weighed, int):
            gather(weighed, numbers, weights)
        return jax.tree.unflatten(shape_like, of_each), weights

    return Feed(windows_from, pace, facts, group, fetch if group else None)


def looked_up(window: Window, lookups: Sequence[Lookup], numbers: Sequence[npt.NDArray[np.uint32]]) -> Window:
    """Return a window whose places are those of the rows that each step touches; see `Window`.

    ``numbers`` is what `steepest.data.pairs.numbers_for` returned for each table.
    """
    data, rows = dict(window.arrays), []
    for table, of_table in zip(lookups, numbers, strict=True):
        places = [_places(data[name]) for name in table.names]
        found, renumbered = touched(places, of_table)
        rows.append(found)
        for name, each in zip(table.names, renumbered, strict=True):
            data[name] = data[name]._replace(places=each) if isinstance(data[name], Strips) else each
    return window._replace(arrays=data, touched=tuple(rows))


def _places(rows: Any) -> Any:
    return rows.places if isinstance(rows, Strips) else rows


def _group_of(arrays: Sequence[Any]) -> ProcessGroup | None:
    """Return the processes that hold rows together, if several do."""
    return next((each.group for each in arrays if isinstance(each, Shared)), None)


def _blocks(
    arrays: Sequence[Any], weights: Any, size: int, *, padded: bool = True, **how: Any
) -> Blocks | SharedBlocks:
    """Cut rows into windows, whoever holds them."""
    if _group_of(arrays):
        return SharedBlocks(tuple(arrays), weights, size, **how)
    return Blocks(tuple(arrays), weights, size, padded=padded, **how)


def held_out(
    objective: Objective,
    start: Parameters,
    data: Any,
    weights: Any,
    metrics: Mapping[str, Callable[..., jax.Array]] | None,
) -> HeldOut:
    """Cut validation rows into windows: one stays on the device, several are gathered anew at each epoch."""
    if data is None:
        return HeldOut(None, {})
    metrics = dict(metrics or {})
    arrays, shape_like = jax.tree.flatten(jax.tree.map(as_data, data))
    rows = row_count(data)
    size = min(rows, VALIDATION_ROWS)
    by_row = one_loss_per_row(objective, start, data, size)
    batch = shape_of_batch(data, size)
    shapes = [jax.eval_shape(metric, start, batch).shape for metric in metrics.values()]
    if weights is not None and not by_row:
        raise SteepestError(ROW_WEIGHTS)
    group = _group_of(arrays)
    if not by_row or () in shapes:
        if group:
            raise SteepestError(NOT_BY_ROW)
        size = rows  # a single number can't be averaged over batches, of which one is padded
    blocks = _blocks(arrays, row_weights(weights, rows), size, shuffle=False)
    facts = {"validation data": digest((*arrays, blocks.weights)), "metrics": list(metrics)}

    def weighed() -> Iterator[tuple[float, Batches]]:
        with closing(prefetch(blocks.epochs(0, 1))) as windows:
            for window in windows:
                rows_like = jax.tree.unflatten(shape_like, window.arrays)
                batches = Batches(rows_like, window.weights, np.zeros(len(window.weights), np.float32))
                yield float(window.weights.sum()), batches if group else jax.device_put(batches)

    if len(blocks.shapes()) > 1:
        return HeldOut(Validation(weighed, metrics), facts)
    resident = list(weighed())
    return HeldOut(Validation(lambda: resident, metrics), facts)


def digest(rows: Iterable[npt.NDArray[Any] | Gathered | int]) -> str:
    """Return a name for rows by which they are known again: from types, shapes and every so many rows.

    Examples
    --------
    >>> digest([np.zeros(3)]) == digest([np.zeros(3)]), digest([np.zeros(3)]) == digest([np.zeros(4)])
    (True, False)
    """
    seal = hashlib.blake2b(digest_size=8)
    for each in rows:
        if isinstance(each, int):
            seal.update(f"{each}".encode())
            continue
        if isinstance(each, Pairs):
            seal.update(digest((each.begins, each.places, each.values, each.lists)).encode())
            continue
        size = int(np.prod(each.shape, dtype=np.int64)) * each.dtype.itemsize
        chosen = np.arange(0, each.shape[0], max(1, size // SAMPLE))
        sampled = np.empty((len(chosen), *each.shape[1:]), each.dtype)
        gather(each, chosen, sampled)
        seal.update(f"{each.dtype}{each.shape}".encode())
        seal.update(sampled)
    return seal.hexdigest()

"""Rows that several processes hold together, each a run of them, in THE order of rows.

An epoch visits the rows as one process would that held all of them: a batch's rows are taken by whichever
process has them. So the batches do not depend on how the rows are divided, nor among how many.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from steepest.data.blocks import BUFFERS, Blocks, Window
from steepest.data.gather import Array, Gathered, gather
from steepest.data.order import Rows, epoch_order, in_order
from steepest.data.pieces import pieces


class Group(Protocol):
    """What the rows need of `steepest.process_group.ProcessGroup`."""

    @property
    def rank(self) -> int: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102
    def exchange(self, part: bytes) -> list[bytes]: ...  # noqa: D102
    def joined(self, part: Array) -> Array: ...  # noqa: D102
    def place_rows(self, rows: Array) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class Shared:
    """An array, or other rows, of which each process of a group holds a run.

    Parameters
    ----------
    held
        The rows of this process ``[rows, ...]``.
    firsts
        The number of each process's first row, and the number of all rows.
    group
        The processes.
    """

    held: Array | Gathered
    firsts: tuple[int, ...]
    group: Any  # a Group; the descent needs more of it

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows together."""
        return (self.firsts[-1], *self.held.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of what is gathered."""
        return self.held.dtype

    def __len__(self) -> int:
        return self.firsts[-1]

    def gather(self, rows: Rows, out: Array) -> None:
        """Write the rows of these numbers, whoever holds them: all processes must ask for the same."""
        first, last = self.firsts[self.group.rank], self.firsts[self.group.rank + 1]
        mine = (rows >= first) & (rows < last)
        part = np.zeros(out.shape, out.dtype)
        if mine.any():
            some = np.empty((int(mine.sum()), *out.shape[1:]), out.dtype)
            gather(self.held, rows[mine] - first, some)
            part[mine] = some
        out[...] = self.group.joined(part)

    def mapped(self) -> tuple[Array, ...]:
        """Return none: what is read ahead is each process's own concern."""
        return ()


@dataclass(frozen=True)
class Fetched:
    """Rows that one process gathers from all, which answer when they are asked.

    Parameters
    ----------
    rows
        The rows.
    ask
        Has all other processes gather the rows of these numbers at the same time.
    """

    rows: Shared
    ask: Callable[[Rows], None]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows together."""
        return self.rows.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of what is gathered."""
        return self.rows.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, rows: Rows, out: Array) -> None:
        """Write the rows of these numbers."""
        self.ask(rows)
        self.rows.gather(rows, out)

    def mapped(self) -> tuple[Array, ...]:
        """Return none."""
        return ()


class Share(NamedTuple):
    """One process's part of a window.

    Attributes
    ----------
    width
        Rows of a batch that each process has room for.
    numbers
        The numbers of its rows among its own, in the order of their visit.
    places
        Where each of them stands in ``[steps * width]``.
    """

    width: int
    numbers: Rows
    places: Rows


def share_of(rows: Rows, firsts: tuple[int, ...], rank: int) -> Share:
    """Return a process's part of a window's rows ``[steps, batch_size]``, -1 where there is none.

    Examples
    --------
    >>> share_of(np.array([[4, 0, 1], [2, 3, -1]]), (0, 2, 5), rank=1)
    Share(width=2, numbers=array([2, 0, 1]), places=array([0, 2, 3]))
    """
    steps = len(rows)
    owners = np.searchsorted(firsts[1:], rows, side="right")
    owners[rows < 0] = len(firsts) - 1
    step = np.arange(steps)[:, None]
    counts = np.bincount((step * len(firsts) + owners).ravel(), minlength=steps * len(firsts))
    counts = counts.reshape(steps, len(firsts))[:, :-1]
    width = rounded(int(counts.max(initial=1)))
    mine = owners == rank
    begins = np.cumsum(counts[:, rank]) - counts[:, rank]
    places = np.arange(counts[:, rank].sum()) + np.repeat(np.arange(steps) * width - begins, counts[:, rank])
    return Share(width, rows[mine] - firsts[rank], places)


def rounded(width: int) -> int:
    """Return a width at least as large, by an eighth at most, so that few shapes are compiled.

    Examples
    --------
    >>> [rounded(width) for width in (5, 17, 100, 1000)]
    [5, 18, 104, 1024]
    """
    grain = 1 << max(0, width.bit_length() - 4)
    return -(-width // grain) * grain


@dataclass(frozen=True)
class SharedBlocks:
    """Rows that are held together, cut into windows: see `steepest.data.blocks.Blocks`.

    Parameters
    ----------
    arrays
        Rows of the same processes.
    weights
        Row weights, or the number of rows where each weighs 1.
    batch_size
        Rows of a step, all processes' together; where the order is each process's own, of each.
    seed, longest, buffers
        See `Blocks`.
    shuffle
        Whether each epoch has an order of its own; if not, each process visits its own rows as they are, all
        at the same time.
    """

    arrays: tuple[Shared, ...]
    weights: Shared | int
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    buffers: int = BUFFERS
    longest: int | None = None

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self._like.steps

    def shapes(self) -> list[tuple[int, int]]:
        """Return the shapes ``(steps, batch_size)`` of an epoch's windows."""
        return self._like.shapes()

    @property
    def _firsts(self) -> tuple[int, ...]:
        return self.arrays[0].firsts

    @property
    def _like(self) -> Blocks:
        """Blocks that are cut in the same way: of all rows, or of as many as a process has at most."""
        rows = self._firsts[-1] if self.shuffle else int(np.diff(self._firsts).max())
        return Blocks(self.arrays, rows, min(self.batch_size, rows), longest=self.longest)

    def epochs(self, first: int, last: int, skip: int = 0) -> Iterator[Window]:
        """Yield the windows of the epochs ``first`` to ``last - 1``, in order, after the first ``skip``.

        A window's arrays are on all devices, and valid until ``buffers`` - 1 more were asked for.
        """
        group = self.arrays[0].group
        runs = self._firsts[group.rank], self._firsts[group.rank + 1]
        weights: Any = self.weights.held if isinstance(self.weights, Shared) else runs[1] - runs[0]
        own = Blocks(tuple(each.held for each in self.arrays), weights, self.batch_size)
        rooms = itertools.cycle([_Room(own) for _ in range(self.buffers)])
        for epoch in range(first, last):
            windows = ((rows, share_of(rows, self._firsts, group.rank)) for rows in self._windows(epoch))
            before = itertools.islice(windows, skip if epoch == first else 0)
            mine = self._mine(epoch, group.rank)
            rest = pieces(own.sources(), mine, sum(len(share.numbers) for _, share in before))
            piece = None
            for rows, share in windows:
                room = next(rooms)
                compact, piece = own.fill(room.compact(share), (1, len(share.numbers)), piece, rest)
                yield _placed(group, room.laid_out(compact, share, len(rows)), rows)

    def _windows(self, epoch: int) -> Iterator[Rows]:
        """Yield the numbers of each window's rows ``[steps, batch_size]``, -1 for padding."""
        order, waiting = self._order(epoch), np.empty(0, np.int64)
        for steps, size in self.shapes():
            while len(waiting) < steps * size and len(more := next(order, waiting[:0])):
                waiting = np.concatenate([waiting, more])
            numbers = np.full(steps * size, -1)
            numbers[: len(waiting)] = waiting[: steps * size]
            waiting = waiting[steps * size :]
            rows = numbers.reshape(steps, size)
            yield rows if self.shuffle else self._of_each(rows)

    def _order(self, epoch: int) -> Iterator[Rows]:
        """Yield the numbers of all rows; without an order of the epoch's own, of any process's own rows."""
        return epoch_order(self.seed, epoch, self._firsts[-1]) if self.shuffle else in_order(self._like.rows)

    def _of_each(self, own: Rows) -> Rows:
        """Return the numbers of the rows that have these numbers among their process's own."""
        runs = itertools.pairwise(self._firsts)
        each = [np.where((own >= 0) & (own < end - first), own + first, -1) for first, end in runs]
        return np.concatenate(each, axis=1)

    def _mine(self, epoch: int, rank: int) -> Iterator[Rows]:
        """Yield the numbers of a process's rows among its own, in the order of their visit."""
        first, end = self._firsts[rank], self._firsts[rank + 1]
        begin = first if self.shuffle else 0
        for rows in self._order(epoch):
            mine = rows[(rows >= begin) & (rows < begin + end - first)] - begin
            if len(mine):
                yield mine


class _Room:
    """Arrays that are filled again and again: a window's rows one after the other, and laid out."""

    def __init__(self, own: Blocks) -> None:
        self._own = own
        self._arrays: dict[str, tuple[Array, ...]] = {}

    def _least(self, name: str, rows: int) -> tuple[Array, ...]:
        if name not in self._arrays or len(self._arrays[name][0]) < rows:
            self._arrays[name] = self._own.room(rows)
        return self._arrays[name]

    def compact(self, share: Share) -> tuple[Array, ...]:
        """Return room for a share's rows, one after the other."""
        return self._least("compact", max(1, len(share.numbers)))

    def laid_out(self, window: Window, share: Share, steps: int) -> Window:
        """Return the window with each row where it stands in its step; padding repeats a row, of weight 0."""
        size = steps * share.width
        *arrays, weights = self._least("laid out", size)
        for array, rows in zip(arrays, window.arrays, strict=True):
            array[:size] = rows[0, 0] if len(share.numbers) else 0
            array[share.places] = rows[0]
        weights[:size] = 0
        weights[share.places] = window.weights[0]
        *arrays, weights = (
            each[:size].reshape(steps, share.width, *each.shape[1:]) for each in (*arrays, weights)
        )
        return window._replace(arrays=tuple(arrays), weights=weights)


def _placed(group: Group, window: Window, rows: Rows) -> Window:
    """Return a window on all devices, with the numbers of all its rows."""
    arrays = tuple(group.place_rows(array) for array in window.arrays)
    return Window(arrays, group.place_rows(window.weights), rows)

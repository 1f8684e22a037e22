"""Windows of batches, from memory or mapped files: fixed-shape arrays for the compiled epoch to run over.

A window is a run of whole batches, ``[steps, batch_size, ...]``. Rows are gathered in the order of
`steepest.data.order` into buffers that are used again and again, because touching fresh memory costs more
than the copy itself; a thread fills the next window while the descent runs over this one, and the system
reads ahead what the window after needs of a mapped file.
"""

from __future__ import annotations

import itertools
import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from steepest.data.gather import Gathered, Mapped, gather
from steepest.data.order import Rows, epoch_order, in_order, order_within_batches
from steepest.data.padded import Batched
from steepest.data.pairs import Pairs, joined
from steepest.data.pieces import Piece, Source, pieces

WINDOW_BYTES = 2**25
"""Upper limit of a window's size, where one batch is not larger: 32 MiB."""

BUFFERS = 3
"""Windows alive at once, unless told otherwise: one in the descent, one waiting, one being filled."""

Array = npt.NDArray[Any]


class Window(NamedTuple):
    """Batches for the compiled epoch.

    Attributes
    ----------
    arrays
        The batches' data, each ``[steps, batch_size, ...]``; `steepest.data.pairs.Strips` where it is sparse.
    weights
        Row weights ``[steps, batch_size]``; zero marks padding.
    rows
        Row numbers ``[steps, batch_size]``; -1 marks padding.
    touched
        For each table of parameters the rows that a step looks up, ``[steps, touched]``: see
        `steepest.data.pairs.touched`. ``None`` where there are no such tables.
    """

    arrays: Any
    weights: Array
    rows: Rows
    touched: tuple[Array, ...] | None = None


@dataclass(frozen=True)
class Blocks:
    """Rows, cut into windows.

    Parameters
    ----------
    arrays
        Arrays whose first axis is the rows, in memory or mapped, or other rows that can be gathered.
    weights
        Row weights ``[rows]``, or the number of rows where each weighs 1.
    batch_size
        Rows of a step.
    seed
        Decides the order of rows.
    shuffle
        Whether each epoch visits the rows in an order of its own, or in their own order; with ``"batch"`` a
        batch holds consecutive rows in an order of its own.
    padded
        Whether the last batch is filled up with rows of weight zero. If not, it is a window by itself.
    buffers
        Windows alive at once.
    longest
        Steps of a window, at most; ``None`` lets its size alone decide.
    """

    arrays: tuple[Array | Gathered | Batched, ...]
    weights: Array | Mapped | int
    batch_size: int
    seed: int = 0
    shuffle: bool | Literal["batch"] = True
    padded: bool = True
    buffers: int = BUFFERS
    longest: int | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.weights if isinstance(self.weights, int) else len(self.weights)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.rows // self.batch_size)

    def epochs(self, first: int, last: int, skip: int = 0) -> Iterator[Window]:
        """Yield the windows of the epochs ``first`` to ``last - 1``, in order, after the first ``skip``.

        A window's arrays are valid until ``buffers`` - 1 more windows have been asked for.
        """
        shapes = self.shapes()
        buffers = [self.room(max(math.prod(shape) for shape in shapes)) for _ in range(self.buffers)]
        in_turn = itertools.cycle(buffers)
        for epoch in range(first, last):
            passed = shapes[:skip] if epoch == first else []
            rest = pieces(self.sources(), self.order(epoch), sum(map(math.prod, passed)))
            piece = None
            for shape in shapes[len(passed) :]:
                window, piece = self.fill(next(in_turn), shape, piece, rest)
                yield window

    def shapes(self) -> list[tuple[int, int]]:
        """Return the shapes ``(steps, batch_size)`` of an epoch's windows."""
        row_bytes = sum(_row_bytes(array) for array in self.arrays)
        largest = max(1, WINDOW_BYTES // max(1, row_bytes * self.batch_size))
        largest = min(largest, self.longest or largest)
        whole = self.steps if self.padded else self.rows // self.batch_size
        windows = -(-whole // largest)
        # No window is so short that its loop would be compiled into something else.
        steps, longer = divmod(whole, max(1, windows))
        shapes = [(steps + (number < longer), self.batch_size) for number in range(windows)]
        tail = 0 if self.padded else self.rows % self.batch_size
        return [*shapes, (1, tail)] if tail else shapes

    def order(self, epoch: int) -> Iterator[Rows]:
        """Return the row numbers of an epoch in the order of their visit, piece by piece."""
        if self.shuffle == "batch":
            return order_within_batches(self.seed, epoch, self.rows, self.batch_size)
        return epoch_order(self.seed, epoch, self.rows) if self.shuffle else in_order(self.rows)

    def sources(self) -> tuple[Source, ...]:
        """Return what pieces give: arrays, pairs that are fleeting, and the weights if there are any."""
        arrays = tuple(each for each in self.arrays if not isinstance(each, Batched))
        fleeting = tuple(self.fleeting_pairs().values())
        return (*arrays, *fleeting) if isinstance(self.weights, int) else (*arrays, *fleeting, self.weights)

    def fleeting_pairs(self) -> dict[int, Pairs]:
        """Return pairs that are fetched, each once, whatever shows parts of them: identity -> pairs."""
        batched = (each.pairs for each in self.arrays if isinstance(each, Batched))
        return {id(pairs): pairs for pairs in batched if pairs.fleeting}

    def room(self, rows: int) -> tuple[Array, ...]:
        """Return room for so many rows of each array that is gathered row by row, and for their weights."""
        weights = _mapped((rows,), np.dtype(np.float32))
        arrays = (array for array in self.arrays if not isinstance(array, Batched))
        return (*(_mapped((rows, *array.shape[1:]), array.dtype) for array in arrays), weights)

    def fill(
        self, buffers: tuple[Array, ...], shape: tuple[int, int], piece: Piece | None, rest: Iterator[Piece]
    ) -> tuple[Window, Piece | None]:
        """Gather rows of a piece, and of those after it, into the buffers; return what is left of the last.

        Padding repeats a real row, because zeros may not be valid data.
        """
        wanted = math.prod(shape)
        rows, filled = np.full(wanted, -1), 0
        parts: list[list[tuple[Pairs, Rows]]] = []
        buffers[-1][:wanted] = 1
        while filled < wanted:
            if piece is None or not len(piece.rows):
                piece = next(rest, None)
                if piece is None:
                    break
            some, piece = piece.cut(wanted - filled)
            end = filled + len(some.rows)
            rows[filled:end] = some.rows
            unfilled, fetched = iter(buffers), []
            for source, numbers in some.sources:
                if isinstance(source, Pairs):
                    fetched.append(_held(source, numbers, len(some.rows) == wanted))
                else:
                    gather(source, numbers, next(unfilled)[filled:end])
            parts.append(fetched)
            filled = end
        for buffer in buffers:
            buffer[filled:wanted] = buffer[0]
        buffers[-1][filled:wanted] = 0
        *arrays, weights = (buffer[:wanted].reshape(*shape, *buffer.shape[1:]) for buffer in buffers)
        rows, gathered = rows.reshape(shape), iter(arrays)
        held = (_together(each, wanted) for each in zip(*parts, strict=True))
        together = dict(zip(self.fleeting_pairs(), held, strict=True))

        def one(array: Array | Gathered | Batched) -> Any:
            if not isinstance(array, Batched):
                return next(gathered)
            pairs, numbers = together.get(id(array.pairs), (array.pairs, rows))
            return array.of(pairs).batches(numbers.reshape(shape))

        return Window(tuple(map(one, self.arrays)), weights, rows), piece


def _held(pairs: Pairs, numbers: Rows, whole: bool) -> tuple[Pairs, Rows]:
    """Return rows of a piece as they are, or in memory of their own, where the next piece is needed, too."""
    return (pairs, numbers) if whole else (pairs.subset(numbers), np.arange(len(numbers)))


def _together(parts: Sequence[tuple[Pairs, Rows]], wanted: int) -> tuple[Pairs, Rows]:
    """Return what `_held` did of each piece as rows of one, with -1 for padding."""
    if len(parts) == 1:
        ((pairs, numbers),) = parts
    else:
        pairs = joined([each for each, _ in parts])
        numbers = np.arange(len(pairs))
    return pairs, np.pad(numbers, (0, wanted - len(numbers)), constant_values=-1)


def _row_bytes(array: Array | Gathered | Batched) -> int:
    if isinstance(array, Batched):
        return array.row_bytes
    return array.dtype.itemsize * math.prod(array.shape[1:])


def _mapped(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an array in pages of its own, which JAX can take as they are and which go back when it goes."""
    size = math.prod(shape) * dtype.itemsize
    return np.frombuffer(mmap.mmap(-1, max(size, 1)), np.uint8)[:size].view(dtype).reshape(shape)

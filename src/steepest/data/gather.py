"""Rows that are gathered a window at a time, wherever they are: in memory, mapped, packed or sparse.

An array of NumPy is such rows as it is. Anything else that has a shape, a type and ``gather`` is, too.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

from steepest.data.order import Rows

Array = npt.NDArray[Any]

AROUND = 2**16
"""Bytes around an address that Linux maps along with it."""


class Gathered(Protocol):
    """Rows that write themselves into a window.

    Attributes
    ----------
    shape
        ``(rows, ...)``, as an array's.
    dtype
        The type that `gather` writes.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102

    def gather(self, rows: Rows, out: Array) -> None:
        """Write the rows of these numbers, ``[len(rows), ...]``."""

    def mapped(self) -> tuple[Array, ...]:
        """Return the arrays of mapped files that these rows are read from."""


Spans = Sequence[tuple[int, int]]
"""Where runs of consecutive rows begin and end."""

Fetch = Callable[[Array, Spans], Array]
"""Reads runs of an array's rows into memory, one after the other."""


class Fleeting(Protocol):
    """Rows of mapped files that are too large to stay in memory: see `steepest.data.pieces`."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def fetched(self, fetch: Fetch, spans: Spans) -> Any:
        """Return the rows of these runs, one after the other, in memory."""

    def mapped(self) -> tuple[Array, ...]:
        """Return the arrays of mapped files that these rows are read from."""


def is_gathered(rows: object) -> TypeGuard[Gathered]:
    """Tell whether these are rows that gather themselves, and no array."""
    return hasattr(rows, "gather")


def gather(source: Array | Gathered, rows: Rows, out: Array) -> None:
    """Write the rows of these numbers into ``out``.

    Examples
    --------
    >>> out = np.empty((2, 1), np.float32)
    >>> gather(np.array([[1], [2], [3]], np.float32), np.array([2, 0]), out)
    >>> out.tolist()
    [[3.0], [1.0]]
    """
    if isinstance(source, np.ndarray):
        np.take(source, rows, axis=0, out=out, mode="clip")
    else:
        source.gather(rows, out)


def gathered(source: Array | Gathered, rows: Rows) -> Array:
    """Return the rows of these numbers."""
    out = np.empty((len(rows), *source.shape[1:]), source.dtype)
    gather(source, rows, out)
    return out


def mapped(source: Array | Gathered | Fleeting) -> tuple[Array, ...]:
    """Return the arrays of mapped files that rows are read from; none where they are in memory."""
    if not isinstance(source, np.ndarray):
        return source.mapped()
    return (source,) if _mapping(source) is not None else ()


def is_fleeting(source: object) -> TypeGuard[Fleeting]:
    """Tell whether these rows are let go once they were used, because there are too many."""
    return bool(getattr(source, "fleeting", False))


def _mapping(array: Array) -> mmap.mmap | None:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def advise(array: Array, first: int, last: int, advice: int) -> None:
    """Tell the system of the rows ``first`` to ``last - 1`` of an array in a mapped file.

    Parameters
    ----------
    advice
        ``mmap.MADV_WILLNEED``: read them ahead; ``mmap.MADV_DONTNEED``: they need not stay in this process's
        memory (they stay in the system's cache as long as that has room).
    """
    mapping = _mapping(array)
    if mapping is None or not array.flags.c_contiguous:
        return
    begins = array.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data
    size = AROUND if advice == mmap.MADV_DONTNEED else mmap.PAGESIZE
    start, end = pages(begins + first * array.strides[0], begins + last * array.strides[0], size)
    if end > start:
        mapping.madvise(advice, start, min(end, len(mapping)) - start)


def pages(first: int, last: int, size: int) -> tuple[int, int]:
    """Return where the pages of a size begin and end in which the bytes ``first`` to ``last - 1`` lie.

    Examples
    --------
    >>> pages(10, 4097, 4096)
    (0, 8192)
    """
    return first // size * size, -(-last // size) * size


@dataclass(frozen=True)
class Mapped:
    """An array in a mapped file.

    Parameters
    ----------
    array
        ``[rows, ...]``.
    fleeting
        Whether its rows are let go once they were used.
    """

    array: Array
    fleeting: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return self.array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: Any) -> Array:
        """Return rows as an array."""
        return np.asarray(self.array[rows])

    def gather(self, rows: Rows, out: Array) -> None:
        """Write the rows of these numbers."""
        np.take(self.array, rows, axis=0, out=out, mode="clip")

    def mapped(self) -> tuple[Array, ...]:
        """Return the array."""
        return mapped(self.array)

    def fetched(self, fetch: Fetch, spans: Spans) -> Array:
        """Return the rows of these runs, in memory."""
        return fetch(self.array, spans)


@dataclass(frozen=True)
class Converted:
    """An array of a type that the device does not take, such as float64, converted as it is gathered."""

    array: Array
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.array.shape

    def __len__(self) -> int:
        return len(self.array)

    def gather(self, rows: Rows, out: Array) -> None:
        """Write the rows of these numbers."""
        out[...] = self.array[rows]

    def mapped(self) -> tuple[Array, ...]:
        """Return the array if it is mapped."""
        return mapped(self.array)


@dataclass(frozen=True)
class Sparse:
    """A sparse matrix of SciPy in compressed rows, of which only a window is ever dense."""

    matrix: Any
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix."""
        rows, columns = self.matrix.shape
        return rows, columns

    def __len__(self) -> int:
        return self.shape[0]

    def gather(self, rows: Rows, out: Array) -> None:
        """Write the rows of these numbers."""
        out[...] = self.matrix[rows].toarray()

    def mapped(self) -> tuple[Array, ...]:
        """Return none: a sparse matrix is in memory."""
        return ()

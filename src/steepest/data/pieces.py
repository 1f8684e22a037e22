"""An epoch's order piece by piece, and where the rows of each piece are gathered from."""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import NamedTuple

import numpy as np

from steepest.data.gather import Array, Gathered, Spans, advise, is_fleeting, mapped
from steepest.data.order import BLOCK, Rows
from steepest.data.pairs import Pairs
from steepest.data.prefetch import prefetch

Source = Array | Gathered | Pairs


class Piece(NamedTuple):
    """Rows that are visited one after the other.

    Attributes
    ----------
    rows
        Their numbers.
    sources
        Where they are gathered from: for each array or other rows, what to gather, and by which numbers.
    """

    rows: Rows
    sources: tuple[tuple[Source, Rows], ...]

    def cut(self, count: int) -> tuple[Piece, Piece]:
        """Return the first rows, and the others."""
        return self._slice(slice(count)), self._slice(slice(count, None))

    def _slice(self, some: slice) -> Piece:
        return Piece(self.rows[some], tuple((source, numbers[some]) for source, numbers in self.sources))


def pieces(sources: tuple[Source, ...], order: Iterator[Rows], skip: int = 0) -> Generator[Piece, None, None]:
    """Yield an order's pieces; the system is told to read what the next one needs of mapped files.

    Fleeting rows are fetched: read once, block after block, into memory that the pieces use in turn, in a
    thread that is one piece ahead. Mapped pages that are visited in a random order would have to stay, all of
    them, and where memory is scarce the system would read each of them again and again.

    Parameters
    ----------
    sources
        What is gathered.
    order
        Row numbers, as the functions of `steepest.data.order` yield them. The rows of a piece must have been
        gathered when the next one is asked for.
    skip
        Rows of the order to pass over.
    """
    made = _made(sources, order, skip)
    if not any(map(is_fleeting, sources)):
        yield from made
        return
    with closing(prefetch(made)) as ahead:
        yield from ahead


def _made(sources: tuple[Source, ...], order: Iterator[Rows], skip: int) -> Iterator[Piece]:
    rooms: Iterator[list[Array]] = itertools.cycle(([], []))
    current = next(order, None)
    if current is None:  # there are no rows
        return
    _read_ahead(sources, current)
    for following in itertools.chain(order, [None]):
        if following is not None:
            _read_ahead(sources, following)
        if skip < len(current):
            yield _piece(sources, current[skip:], next(rooms))
        skip = max(0, skip - len(current))
        if following is not None:
            current = following


def _piece(sources: tuple[Source, ...], rows: Rows, room: list[Array]) -> Piece:
    if not any(map(is_fleeting, sources)):
        return Piece(rows, tuple((source, rows) for source in sources))
    blocks = _blocks(rows)
    place_of_block = np.empty(blocks[-1] + 1, np.int64)
    place_of_block[blocks] = np.arange(len(blocks))
    fetched = place_of_block[rows // BLOCK] * BLOCK + rows % BLOCK
    rooms = itertools.count()

    def fetch(array: Array, spans: Spans) -> Array:
        number, size = next(rooms), sum(last - first for first, last in spans)
        if number == len(room):
            room.append(np.empty((0, *array.shape[1:]), array.dtype))
        if len(room[number]) < size:
            room[number] = np.empty((size, *array.shape[1:]), array.dtype)
        end = 0
        for first, last in spans:
            begin, end = end, end + last - first
            room[number][begin:end] = array[first:last]
            advise(array, first, last, mmap.MADV_DONTNEED)
        return room[number]

    def of(source: Source) -> tuple[Source, Rows]:
        if not is_fleeting(source):
            return source, rows
        spans = [(block * BLOCK, min((block + 1) * BLOCK, source.shape[0])) for block in blocks.tolist()]
        return source.fetched(fetch, spans), fetched

    return Piece(rows, tuple(map(of, sources)))


def _blocks(rows: Rows) -> Rows:
    """Return the blocks that rows lie in, ascending: much quicker than `numpy.unique`, which sorts."""
    numbers = rows // BLOCK
    present = np.zeros(int(numbers.max()) + 1, np.bool_)
    present[numbers] = True
    return np.flatnonzero(present)


def _read_ahead(sources: tuple[Source, ...], rows: Rows) -> None:
    """Tell the system of the blocks that these rows lie in, neighbouring ones together."""
    files = [source for source in sources if mapped(source)]
    if not files:
        return
    blocks = _blocks(rows)
    for run in np.split(blocks, np.flatnonzero(np.diff(blocks) > 1) + 1):
        for source in files:
            first, last = int(run[0]) * BLOCK, min((int(run[-1]) + 1) * BLOCK, source.shape[0])
            if isinstance(source, Pairs):
                source.advise(first, last, mmap.MADV_WILLNEED)
                continue
            for array in mapped(source):
                advise(array, first, last, mmap.MADV_WILLNEED)

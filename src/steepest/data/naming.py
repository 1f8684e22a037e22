"""What a row holds, in words: the values of its columns, and the words and list values among its pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.column import Column
from steepest.data.listing import elements, split, texts_of
from steepest.data.maps import entries
from steepest.data.sparse import ONE_A_ROW, TEXTS, sparse_name, sparse_of
from steepest.data.summary import plain_values
from steepest.data.tokens import n_grams_of, pieces_of, tokens_of

THERE = "not missing"
"""What is said of a value where only whether there is one counts."""


def values_of(column: Column, values: pa.ChunkedArray) -> list[Any]:
    """Return the value of each row in a column that has one value a row; ``None`` where it is missing.

    Parameters
    ----------
    column
        What was learned.
    values
        Values [rows], as `steepest.data.encode.matching` returns them.

    Examples
    --------
    >>> origin = Column("origin", "category", "string", values=("EWR", "JFK"), other=True)
    >>> values_of(origin, pa.chunked_array([["JFK", "LGA", None]]))
    ['JFK', 'LGA (any other)', None]
    """
    if column.kind == "missing":
        missing = pc.is_null(values, nan_is_null=True).to_pylist()
        return [None if each else THERE for each in missing]
    if column.kind not in ONE_A_ROW:
        found = (None if each is None or each != each else each for each in values.to_pylist())  # noqa: PLR0124
        return [int(each) if isinstance(each, float) and _is_whole(each) else each for each in found]
    texts = texts_of(plain_values(values)).to_pylist()
    if sparse_of(column).bits:
        return list(texts)
    known = column.place_of
    return [text if text is None or text in known else f"{text} (any other)" for text in texts]


def _is_whole(number: float) -> bool:
    return math.isfinite(number) and number.is_integer() and abs(number) < 2.0**53


def names_of(column: Column, held: Sequence[str], places: Sequence[int]) -> list[str]:
    """Return the names of features that one row has in a column of lists, maps or text.

    Parameters
    ----------
    column
        What was learned.
    held
        The row's values, as `held_of` yields them: a hashed feature is named after those that fall to it.
    places
        The features, from 0, the column's first.

    Examples
    --------
    >>> from steepest.data.column import Sparse
    >>> hashed = Column("body", "words", "string", sparse=Sparse(bits=10))
    >>> names_of(hashed, ["free", "offer"], [51, 930])
    ['body: bucket 51', 'body: bucket 930']
    """
    sparse = sparse_of(column)
    if sparse.bits:
        column = replace(column, sparse=replace(sparse, frequent=tuple(held)))
    return [sparse_name(column, place) for place in places]


def held_of(column: Column, values: pa.ChunkedArray) -> Iterator[list[str]]:
    """Yield for each row the different words, list values or keys that it has in a column, in their order.

    Examples
    --------
    >>> list(held_of(Column("body", "text", "string"), pa.chunked_array([["Free, free offer", None]])))
    [['free', 'free free', 'free offer', 'offer'], []]
    """
    if column.kind == "pairs":
        rows, keys, _ = entries(values)
        yield from _by_row(len(values), rows, texts_of(keys))
        return
    if column.kind not in TEXTS:
        separator = sparse_of(column).separator
        yield from _of_lists(split(values, separator) if separator else values)
        return
    for _, piece in pieces_of(texts_of(plain_values(values))):
        tokens = tokens_of(piece)
        if column.kind == "characters":
            tokens = n_grams_of(tokens)
        words = tokens.words.to_pylist()
        found: list[list[str]] = [[] for _ in range(len(piece))]
        for row, code in zip(tokens.rows.tolist(), tokens.codes.tolist(), strict=True):
            found[row].append(words[code])
        for each in found:
            pairs = [*map(" ".join, itertools.pairwise(each))] if column.kind == "text" else []
            yield sorted({*each, *pairs})


def _of_lists(lists: pa.ChunkedArray) -> Iterator[list[str]]:
    if pa.types.is_null(lists.type):
        yield from ([] for _ in range(len(lists)))
    else:
        yield from _by_row(len(lists), *elements(lists))


def _by_row(count: int, rows: npt.NDArray[np.int64], values: pa.Array) -> Iterator[list[str]]:
    """Yield the different values of each row."""
    found: list[list[str]] = [[] for _ in range(count)]
    for row, value in zip(rows.tolist(), values.to_pylist(), strict=True):
        found[row].append(value)
    for each in found:
        yield sorted(set(each))

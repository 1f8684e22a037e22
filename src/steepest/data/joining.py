"""Pieces of a column, whose types may differ, as one; and how large rows are."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.counting import in_common
from steepest.data.maps import NESTED, lengths_of, map_type
from steepest.data.summary import plain_values


def joined(pieces: list[pa.ChunkedArray], kind: str) -> tuple[pa.ChunkedArray, str | None]:
    """Return pieces of one column as one, and the type that it stands for where they had to be converted."""
    if kind in NESTED:  # all pieces are of that type, or have nothing but missing values
        pieces = [piece.cast(NESTED[kind]) for piece in pieces]
    if all(piece.type == pieces[0].type for piece in pieces):
        whole = pa.chunked_array([chunk for piece in pieces for chunk in piece.chunks], pieces[0].type)
        return whole, kind if kind in NESTED else None
    if kind == "unsupported":
        pieces = [pc.if_else(pc.is_valid(piece), True, None) for piece in pieces]
    return functools.reduce(_concatenated, map(plain_values, pieces)), kind


def _concatenated(a: pa.ChunkedArray, b: pa.ChunkedArray) -> pa.ChunkedArray:
    if a.null_count == len(a):
        a = pa.chunked_array([pa.nulls(len(a), b.type)])
    elif b.null_count == len(b):
        b = pa.chunked_array([pa.nulls(len(b), a.type)])
    else:
        a, b = in_common(a, b)
    return pa.chunked_array([*a.chunks, *b.chunks], a.type)


PAIR_BYTES = 16
"""What a pair of a map is counted for."""


def text_bytes(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Return how many bytes of text and of maps each row has, [rows].

    Examples
    --------
    >>> text_bytes(pa.table({"x": ["ab", None, "é"], "y": [1, 2, 3], "z": ["", "c", ""]})).tolist()
    [2, 1, 2]
    """
    sizes = np.zeros(rows.num_rows, np.int64)
    for column in rows.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            sizes += pc.fill_null(pc.binary_length(column), 0).to_numpy()
        elif map_type(column.type):
            sizes += PAIR_BYTES * lengths_of(column)
    return sizes

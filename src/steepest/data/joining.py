"""Pieces of a column, whose types may differ, as one; and how large rows are."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.counting import in_common
from steepest.data.summary import plain_values


def joined(pieces: list[pa.ChunkedArray], kind: str) -> tuple[pa.ChunkedArray, str | None]:
    """Return pieces of one column as one, and the type that it stands for where they had to be converted."""
    if all(piece.type == pieces[0].type for piece in pieces):
        whole = pa.chunked_array([chunk for piece in pieces for chunk in piece.chunks], pieces[0].type)
        return whole, "list" if kind == "list" else None
    if kind == "list":
        pieces = [piece.cast(pa.list_(pa.string())) for piece in pieces]
        return pa.chunked_array([chunk for piece in pieces for chunk in piece.chunks], pieces[0].type), kind
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


def text_bytes(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Return how many bytes of text each row has, [rows].

    Examples
    --------
    >>> text_bytes(pa.table({"x": ["ab", None, "é"], "y": [1, 2, 3], "z": ["", "c", ""]})).tolist()
    [2, 1, 2]
    """
    sizes = np.zeros(rows.num_rows, np.int64)
    for column in rows.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            sizes += pc.fill_null(pc.binary_length(column), 0).to_numpy()
    return sizes

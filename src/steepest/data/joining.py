"""Pieces of a column, whose types may differ, as one."""

from __future__ import annotations

import functools

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

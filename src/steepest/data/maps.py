"""Columns of maps: each row has some numbered or named features, with a value each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.counting import counts_of
from steepest.data.listing import LISTS, is_list

NUMBERED, NAMED = "numbered", "named"
"""The types of columns of maps: whose keys are whole numbers, and whose keys are text."""

MAPS = {
    NUMBERED: pa.map_(pa.int64(), pa.float64()),
    NAMED: pa.map_(pa.large_string(), pa.float64()),
}
"""Type of a column of maps -> the type of Arrow's that its values are brought to."""

NESTED = {"list": LISTS, **MAPS}
"""Type of a column of which a row has several values -> the type of Arrow's that they are brought to."""

_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)

Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


class Entries(NamedTuple):
    """What stands in maps, but for missing values.

    Attributes
    ----------
    rows
        int64 [pairs]: the row of each, rising.
    keys
        [pairs]: int64, or text.
    values
        float64 [pairs].
    """

    rows: Integers
    keys: pa.Array
    values: Numbers


class Figures(NamedTuple):
    """What a summary says of maps.

    Attributes
    ----------
    squares
        Σ v² of all values.
    least, greatest
        The bounds of keys that are numbers; None where they are text, or there are none.
    counted
        In how many rows each key that is text occurs, as `steepest.data.counting.count` returns it; None
        where keys are numbers.
    """

    squares: float
    least: int | None
    greatest: int | None
    counted: pa.StructArray | None


def map_type(column_type: pa.DataType) -> str | None:
    """Return `NUMBERED` or `NAMED` for maps to numbers; None for any other type.

    Examples
    --------
    >>> map_type(pa.map_(pa.int32(), pa.float32())), map_type(pa.map_(pa.string(), pa.string()))
    ('numbered', None)
    """
    if not (pa.types.is_map(column_type) and any(test(column_type.item_type) for test in _NUMBERS)):
        return None
    if pa.types.is_integer(column_type.key_type):
        return NUMBERED
    return NAMED if any(test(column_type.key_type) for test in _TEXTS) else None


def nested_type(column_type: pa.DataType) -> str | None:
    """Return the key of `NESTED` for a type of which a row has several values; None for others."""
    return "list" if is_list(column_type) else map_type(column_type)


def maps_of(
    begins: npt.NDArray[np.integer], numbers: npt.NDArray[np.integer], values: npt.NDArray[np.number]
) -> pa.MapArray:
    """Return the rows of a matrix in compressed sparse rows, or some of them, as maps.

    Parameters
    ----------
    begins
        [rows + 1]: where each row begins among the pairs, and where the last one ends.
    numbers, values
        All pairs of the matrix: the column, and the value.

    Examples
    --------
    >>> maps_of(np.array([0, 2, 2]), np.array([7, 12]), np.array([0.5, 2.0])).to_pylist()
    [[(7, 0.5), (12, 2.0)], []]
    """
    first, last = int(begins[0]), int(begins[-1])
    return pa.MapArray.from_arrays(
        pa.array(begins - first, pa.int32()),
        pa.array(numbers[first:last].astype(np.int64, copy=False)),
        pa.array(values[first:last].astype(np.float64, copy=False)),
    )


def lengths_of(maps: pa.ChunkedArray) -> Integers:
    """Return how many keys each row has, [rows]; none where the map is missing.

    Examples
    --------
    >>> maps = pa.chunked_array([[[(7, 0.5), (12, None)], None, []]], pa.map_(pa.int8(), pa.float32()))
    >>> lengths_of(maps).tolist()
    [2, 0, 0]
    """
    if pa.types.is_null(maps.type):
        return np.zeros(len(maps), np.int64)
    found = [np.diff(chunk.offsets.to_numpy()) * _there(chunk) for chunk in maps.chunks]
    return np.concatenate([np.zeros(0, np.int64), *found])


def entries(maps: pa.ChunkedArray) -> Entries:
    """Return what stands in maps, but for values that are missing or NaN.

    Parameters
    ----------
    maps
        Maps [rows] of a type that `map_type` knows, or nothing but missing values.

    Examples
    --------
    >>> maps = pa.chunked_array([[[(7, 0.5), (12, None)], None, [(7, 2)]]], pa.map_(pa.int8(), pa.float32()))
    >>> rows, keys, values = entries(maps)
    >>> rows.tolist(), keys.to_pylist(), values.tolist()
    ([0, 2], [7, 7], [0.5, 2.0])
    """
    if pa.types.is_null(maps.type):
        return Entries(np.zeros(0, np.int64), pa.array([], pa.int64()), np.zeros(0))
    plain = maps.cast(MAPS[map_type(maps.type) or NUMBERED], safe=False)  # large integers are rounded
    keys, values = [pa.array([], plain.type.key_type)], [np.zeros(0)]
    for chunk in plain.chunks:
        lengths, begins = np.diff(chunk.offsets.to_numpy()), chunk.offsets[0].as_py()
        inside = [each.slice(begins, int(lengths.sum())) for each in (chunk.keys, chunk.items)]
        if chunk.null_count:  # what is missing may hide pairs
            seen = pa.array(np.repeat(_there(chunk), lengths))
            inside = [each.filter(seen) for each in inside]
        keys.append(inside[0])
        values.append(inside[1].to_numpy(zero_copy_only=False))
    rows = np.repeat(np.arange(len(plain)), lengths_of(plain))
    whole, numbers = pa.concat_arrays(keys), np.concatenate(values)
    missing = np.isnan(numbers)
    if not missing.any():
        return Entries(rows, whole, numbers)
    return Entries(rows[~missing], whole.filter(pa.array(~missing)), numbers[~missing])


def _there(chunk: pa.MapArray) -> npt.NDArray[np.bool_]:
    there: npt.NDArray[np.bool_] = chunk.is_valid().to_numpy(zero_copy_only=False)
    return there


def summed(rows: Integers, places: Integers, values: Numbers) -> tuple[Integers, Integers, Numbers]:
    """Return each place of each row once, rising, with the sum of its values; none where that is 0.

    Parameters
    ----------
    rows, places, values
        [pairs]; rows rise.

    Examples
    --------
    >>> found = summed(np.array([0, 0, 0, 1]), np.array([5, 2, 5, 2]), np.array([1.0, 4.0, 2.0, 0.0]))
    >>> [each.tolist() for each in found]
    [[0, 0], [2, 5], [4.0, 3.0]]
    """
    if not ((rows[1:] > rows[:-1]) | (places[1:] > places[:-1])).all():
        order = np.lexsort((places, rows))
        rows, places, values = rows[order], places[order], values[order]
        is_first = np.ones(len(rows), bool)
        is_first[1:] = (rows[1:] > rows[:-1]) | (places[1:] > places[:-1])
        firsts = np.flatnonzero(is_first)
        with np.errstate(over="ignore", invalid="ignore"):
            rows, places, values = rows[firsts], places[firsts], np.add.reduceat(values, firsts)
    there = values != 0
    return (rows, places, values) if there.all() else (rows[there], places[there], values[there])


def figures(maps: pa.ChunkedArray) -> Figures:
    """Return what a summary says of maps.

    Examples
    --------
    >>> figures(pa.chunked_array([[[(7, 0.5), (3, 2.0)], None]], MAPS[NUMBERED]))
    Figures(squares=4.25, least=3, greatest=7, counted=None)
    """
    rows, keys, values = entries(maps)
    encoded = None if pa.types.is_integer(keys.type) else keys.dictionary_encode()
    numbers = np.asarray(keys if encoded is None else encoded.indices, np.int64)
    _, numbers, values = summed(rows, numbers, values)
    with np.errstate(over="ignore"):
        squares = float((values * values).sum())
    if encoded is None and len(numbers):
        return Figures(squares, int(numbers.min()), int(numbers.max()), None)
    if encoded is None:
        return Figures(squares, None, None, None)
    counts = np.bincount(numbers, minlength=len(encoded.dictionary))
    counted = counts_of(encoded.dictionary, counts)
    return Figures(squares, None, None, counted.filter(pc.greater(counted.field(1), 0)))


def sizes_of(maps: pa.ChunkedArray) -> Numbers:
    """Return Σ |v| of each row, float64 [rows]: infinite where one of its values is, or their sum.

    Examples
    --------
    >>> sizes_of(pa.chunked_array([[[(7, -0.5), (3, 2.0)], None]], MAPS[NUMBERED])).tolist()
    [2.5, 0.0]
    """
    rows, _, values = entries(maps)
    sizes: Numbers = np.bincount(rows, np.abs(values), minlength=len(maps)).astype(np.float64)
    return sizes

"""Values as text, and lists of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

IN_LISTS = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_integer, pa.types.is_boolean, pa.types.is_null),
)

LISTS = pa.list_(pa.string())
"""The type that columns of lists are brought to."""


def is_list(column_type: pa.DataType) -> bool:
    """Tell whether a type is one of lists of what may be a category: text, whole numbers or booleans.

    Examples
    --------
    >>> is_list(pa.list_(pa.string())), is_list(pa.list_(pa.float64()))
    (True, False)
    """
    if not (pa.types.is_list(column_type) or pa.types.is_large_list(column_type)):
        return False
    nested = column_type.value_type
    plain = nested.value_type if pa.types.is_dictionary(nested) else nested
    return any(test(plain) for test in IN_LISTS)


def texts_of(values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Return values as text: whole numbers as their digits, also where they are kept as decimals.

    Examples
    --------
    >>> texts_of(pa.array([8812.0, None, 0.5])).to_pylist(), texts_of(pa.array([True])).to_pylist()
    (['8812', None, '0.5'], ['true'])
    """
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_floating(values.type):
        whole = pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), 2.0**53))
        digits = pc.if_else(whole, values, None).cast(pa.int64()).cast(pa.string())
        return pc.coalesce(digits, values.cast(pa.string()))
    return values if pa.types.is_large_string(values.type) else values.cast(pa.string())


def split(texts: pa.ChunkedArray, separator: str) -> pa.ChunkedArray:
    """Return text as lists of what stands between separators, without white space around it.

    Examples
    --------
    >>> split(pa.chunked_array([["red| blue", "", None]]), "|").to_pylist()
    [['red', 'blue'], [''], None]
    """
    chunks = [pc.split_pattern(chunk, separator) for chunk in texts_of(texts).chunks]
    trimmed = [
        type(each).from_arrays(
            each.offsets,
            pc.utf8_trim_whitespace(each.values),
            mask=each.is_null() if each.null_count else None,
        )
        for each in map(_compact, chunks)
    ]
    return pa.chunked_array(trimmed, trimmed[0].type if trimmed else pa.list_(pa.string()))


def _compact(lists: pa.ListArray) -> pa.ListArray:
    """Return lists that begin at the beginning of their memory, as some functions of Arrow need them."""
    return pa.concat_arrays([lists]) if lists.offset == 0 else lists.take(pa.array(np.arange(len(lists))))


def elements(lists: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """Return the values that stand in lists, but for missing and empty ones, and the row of each.

    Examples
    --------
    >>> rows, values = elements(pa.chunked_array([[["u", None], None, [], ["v", "u", ""]]]))
    >>> rows.tolist(), values.to_pylist()
    ([0, 3, 3], ['u', 'v', 'u'])
    """
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    rows = np.repeat(np.arange(len(lists)), lengths)
    values = texts_of(pc.list_flatten(lists))
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    there = pc.fill_null(pc.not_equal(values, ""), False)
    return rows[np.asarray(there)], values.filter(there)

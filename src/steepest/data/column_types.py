"""The types of columns, as summaries name them."""

from __future__ import annotations

import pyarrow as pa

MIXTURES = {frozenset({"integer", "number"}): "number", frozenset({"date", "timestamp"}): "timestamp"}
"""Types that a column may have in its parts, and the type that it has then."""

TYPES = (
    (pa.types.is_null, "null"),
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_integer, "integer"),
    (pa.types.is_floating, "number"),
    (pa.types.is_decimal, "number"),
    (pa.types.is_duration, "number"),
    (pa.types.is_string, "string"),
    (pa.types.is_large_string, "string"),
    (pa.types.is_string_view, "string"),
    (pa.types.is_timestamp, "timestamp"),
    (pa.types.is_date, "date"),
    (pa.types.is_time, "time"),
)


def type_of(column_type: pa.DataType) -> str:
    """Return the name that stands for an Arrow type in a `Summary`.

    Examples
    --------
    >>> type_of(pa.int8()), type_of(pa.dictionary(pa.int32(), pa.string())), type_of(pa.list_(pa.int8()))
    ('integer', 'string', 'unsupported')
    """
    plain = column_type.value_type if pa.types.is_dictionary(column_type) else column_type
    return next((name for fits, name in TYPES if fits(plain)), "unsupported")


def common_type(a: str, b: str) -> str | None:
    """Return the type of a column whose parts have these types, or None if they do not go together.

    Examples
    --------
    >>> common_type("integer", "number"), common_type("date", "null"), common_type("string", "boolean")
    ('number', 'date', None)
    """
    types = {a, b} - {"null"} or {"null"}
    return types.pop() if len(types) == 1 else MIXTURES.get(frozenset(types))

"""Kinds of columns: what a value in text may be, and the Arrow types that go together."""

from __future__ import annotations

import collections
import io
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from steepest.data.faults import PATTERNS, looks_like

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
"""The texts that stand for a missing value, in columns of every kind."""

TYPES = {
    "numbers": pa.float64(),
    "dates": pa.timestamp("us"),
    "dates with a time zone": pa.timestamp("us", "UTC"),
    "times": pa.time32("s"),
    "booleans": pa.bool_(),
    "text": pa.string(),
}
"""Kind -> a type that any column of the kind can be learned in."""

SINGULAR = {
    "numbers": "a number",
    "dates": "a date",
    "dates with a time zone": "a date with a time zone",
    "times": "a time of day",
    "booleans": "true or false",
    "text": "text",
    "lists": "a list",
    "objects": "an object",
}
"""Kind -> what one value of it is."""

_KINDS = (
    (pa.types.is_null, None),
    (pa.types.is_boolean, "booleans"),
    (pa.types.is_integer, "numbers"),
    (pa.types.is_floating, "numbers"),
    (pa.types.is_decimal, "numbers"),
    (pa.types.is_date, "dates"),
    (lambda each: pa.types.is_timestamp(each) and each.tz is None, "dates"),
    (pa.types.is_timestamp, "dates with a time zone"),
    (pa.types.is_time, "times"),
    (pa.types.is_string, "text"),
    (pa.types.is_large_string, "text"),
    (pa.types.is_list, "lists"),
    (pa.types.is_map, "pairs"),
    (pa.types.is_struct, "objects"),
)


def kind_of(column_type: pa.DataType) -> str | None:
    """Return the kind of a column of a type; None where nothing but missing values is known.

    Examples
    --------
    >>> kind_of(pa.int8()), kind_of(pa.dictionary(pa.int8(), pa.string())), kind_of(pa.null())
    ('numbers', 'text', None)
    """
    plain = column_type.value_type if pa.types.is_dictionary(column_type) else column_type
    return next((kind for fits, kind in _KINDS if fits(plain)), f"values of the type {plain}")


def common_type(types: Iterable[pa.DataType]) -> pa.DataType | None:
    """Return the narrowest type that holds the values of all types, or None.

    Examples
    --------
    >>> common_type([pa.int8(), pa.float64(), pa.null()])
    DataType(double)
    >>> common_type([pa.int8(), pa.string()])
    """
    distinct = set(types)
    if len(distinct) == 1:
        return distinct.pop()
    plain = {each.value_type if pa.types.is_dictionary(each) else each for each in distinct}
    if any(map(pa.types.is_timestamp, plain)):
        plain = {pa.timestamp("s") if pa.types.is_date(each) else each for each in plain}
    try:
        schemas = [pa.schema([("column", each)]) for each in sorted(plain, key=str)]
        return pa.unify_schemas(schemas, promote_options="permissive").field("column").type
    except pa.ArrowTypeError:
        return None


def in_type(column: pa.ChunkedArray, column_type: pa.DataType) -> pa.ChunkedArray:
    """Return a column in a type that holds its values.

    In decimals an integer beyond 2^53 is rounded, as it is when one file holds it beside a decimal.
    """
    return column.cast(column_type, safe=not pa.types.is_floating(column_type))


def likeness(column: pa.ChunkedArray, kinds: Iterable[str] = PATTERNS) -> collections.Counter[str]:
    """Return how many values of a column of text are of each kind, and how many there are, as "text".

    Examples
    --------
    >>> sorted(likeness(pa.chunked_array([["7", "2013-02-28", None, "u"]])).items())
    [('dates', 1), ('numbers', 1), ('text', 3)]
    """
    counted = pc.value_counts(column.drop_null())
    counts, values = counted.field("counts"), counted.field("values")
    found = {kind: pc.sum(counts.filter(looks_like(kind, values))).as_py() for kind in kinds}
    return collections.Counter(
        {kind: n for kind, n in found.items() if n} | {"text": pc.sum(counts).as_py() or 0}
    )


def likeliest(counts: Mapping[str, int], share: float = 0.5) -> str | None:
    """Return the kind of a column of which so many values were found to be of each kind.

    Parameters
    ----------
    counts
        Kind -> how many values are of it; any value is of the kind "text" as well.
    share
        The share of all values that must be of another kind than text; otherwise the column is text.

    Returns
    -------
    str or None
        None where there are no values.

    Examples
    --------
    >>> likeliest({"text": 4, "numbers": 1}), likeliest({"text": 2, "numbers": 1}), likeliest({"text": 0})
    ('text', 'numbers', None)
    """
    if not counts.get("text"):
        return None
    kind = max((each for each in counts if each != "text"), key=counts.__getitem__, default="text")
    return kind if counts[kind] >= share * counts["text"] else "text"


def converted(kind: str, texts: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Convert the values of a column of text that are of a kind.

    Parameters
    ----------
    kind
        The kind that the column is to have.
    texts
        Text [rows].

    Returns
    -------
    tuple
        The values in a type of the kind [rows that fit], and whether each row fits (missing values do), bool
        [rows].

    Examples
    --------
    >>> values, fits = converted("numbers", pa.chunked_array([["1", "late", None, "+2.5"]]))
    >>> values.to_pylist(), fits.tolist()
    ([1.0, None, 2.5], [True, False, True, True])
    """
    fits = looks_like(kind, texts).fill_null(True)
    values = _read(kind, texts.filter(fits))
    if kind_of(values.type) not in (kind, None):  # what looks right need not be: the year 9999 in nanoseconds
        unique = texts.filter(fits).unique().drop_null()
        bad = [text for text in unique.to_pylist() if kind_of(_read(kind, pa.array([text])).type) != kind]
        fits = pc.and_(fits, pc.invert(pc.is_in(texts, value_set=pa.array(bad, texts.type))))
        values = _read(kind, texts.filter(fits))
    return values, fits.to_numpy()


def _read(kind: str, texts: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Return texts as the reader of CSV reads them, so that a value means the same wherever it is read."""
    lines = "\n".join("NA" if text is None else text for text in texts.to_pylist())
    options = pyarrow.csv.ConvertOptions(
        column_types={"x": pa.bool_()} if kind == "booleans" else {}, null_values=list(MISSING)
    )
    names = pyarrow.csv.ReadOptions(column_names=["x"])
    if not lines:
        return pa.chunked_array([pa.nulls(0)])
    return pyarrow.csv.read_csv(io.BytesIO(lines.encode()), read_options=names, convert_options=options)["x"]

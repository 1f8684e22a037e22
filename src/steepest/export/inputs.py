"""What an exported model takes: the columns of a table, or their features, as arrays by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.column import Column
from steepest.data.columns import Plan
from steepest.data.encode import matching
from steepest.data.listing import texts_of
from steepest.data.maps import MAPS
from steepest.data.packed import packed_rows
from steepest.data.padded import taken
from steepest.data.rows import RowSource, settled
from steepest.data.sparse import TEXTS
from steepest.data.summary import numbers_of, plain_values
from steepest.prediction import open_rows
from steepest.sparse_columns import FEATURES, in_order_of_tables

MICROSECONDS = 10**6
"""In a second: the unit of times."""

NO_TIME = np.iinfo(np.int64).min
"""Stands for a time that is missing: what NumPy's NaT is as a number."""

BEYOND = {
    "hashed": "its values are hashed",
    "cross": "its values are combinations of those of other columns",
    "list": "it holds lists",
    "pairs": "it holds numbers by name",
    **dict.fromkeys(TEXTS, "it is cut into words"),
    **dict.fromkeys(MAPS, "it holds numbers by name"),
}
"""Kind or type of a column -> why ONNX' operators can't make its features, as the end of a sentence."""

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


class ColumnInput(NamedTuple):
    """What a column of the table is as an input.

    Attributes
    ----------
    type
        Of its elements, as ONNX calls them.
    meaning
        What they are, for a person.
    missing
        What stands for a missing value.
    array
        (values as they stand in a table, what stands for a missing one) -> the input, ``[rows]``.
    """

    type: str
    meaning: str
    missing: str | float | int
    array: Callable[[pa.ChunkedArray, Any], Array]


def _doubles(values: pa.ChunkedArray, _: float) -> Array:
    return numbers_of(plain_values(values))


def _texts(values: pa.ChunkedArray, missing: str) -> Array:
    return np.array(pc.fill_null(texts_of(plain_values(values)), missing).to_pylist(), object)


def _microseconds(values: pa.ChunkedArray, missing: int) -> Array:
    seconds = numbers_of(plain_values(values))
    there = ~np.isnan(seconds)
    times = np.full(len(seconds), missing, np.int64)
    times[there] = np.rint(seconds[there] * MICROSECONDS).astype(np.int64)
    return times


def column_input(column: Column) -> ColumnInput:
    """Return what a column is as an input.

    Examples
    --------
    >>> column_input(Column("carrier", "category", "string", values=("UA", "AA")))[:3]
    ('string', 'text; of whole numbers their digits', '')
    >>> column_input(Column("note", "category", "string", values=("", "late"))).missing
    '?'
    """
    if column.kind == "category" or column.type == "string":
        missing = ""
        while missing in column.place_of:  # an empty text may be a value like any other
            missing += "?"
        return ColumnInput("string", "text; of whole numbers their digits", missing, _texts)
    if column.type == "time":
        return ColumnInput("int64", "microseconds since midnight", NO_TIME, _microseconds)
    if column.type in ("timestamp", "date"):
        return ColumnInput("int64", "microseconds since 1970, by the clock", NO_TIME, _microseconds)
    meaning = "1 for true, 0 for false" if column.type == "boolean" else "a number"
    return ColumnInput("double", meaning, float("nan"), _doubles)


def beyond(plan: Plan) -> dict[str, str]:
    """Return the columns whose features ONNX' operators can't make, and why.

    Examples
    --------
    >>> beyond(Plan((Column("seller", "hashed", "string"), Column("age", "number", "integer")), dropped=()))
    {'seller': 'its values are hashed'}
    """
    whys = {column.name: BEYOND.get(column.kind) or BEYOND.get(column.type) for column in plan.columns}
    return {name: why for name, why in whys.items() if why}


def column_arrays(plan: Plan, data: Any) -> Arrays:
    """Return the columns that a plan reads as the inputs ``[rows, 1]`` of `column_input`.

    Parameters
    ----------
    plan
        The column plan.
    data
        Rows: whatever `steepest.open_source` takes.

    Raises
    ------
    SteepestError
        If a column is missing, or holds what it did not in training.
    """
    table, found = _table(plan, data), {}
    for column in plan.columns:
        _, _, missing, array = column_input(column)
        found[column.name] = array(matching(column, table, None), missing)[:, None]
    return found


def feature_arrays(plan: Plan, data: Any) -> Arrays:
    """Return the features of rows: ``features`` ``[rows, width]``, and of sparse columns places and values.

    Parameters and errors are those of `column_arrays`.
    """
    rows = packed_rows(plan.layout, plan.pack(_table(plan, data)))
    found: Arrays = {FEATURES: rows[:]} if plan.width else {}
    numbers = np.arange(len(rows))
    for each in in_order_of_tables(plan):
        arrays = [taken(leaf, numbers) for leaf in each.leaves(rows)]
        found |= dict(zip(each.input_names, arrays, strict=True))
    return found


def _table(plan: Plan, data: Any) -> pa.Table:
    def whole(source: RowSource) -> pa.Table:
        return pa.concat_tables(stretch.rows for stretch in source.stretches())

    return settled(open_rows(plan, data), whole)

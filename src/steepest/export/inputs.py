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
from steepest.data.packed import PackedRows, packed_rows
from steepest.data.padded import Padded, Placed, longest, taken
from steepest.data.rows import RowSource, settled
from steepest.data.sparse import TEXTS
from steepest.data.summary import numbers_of, plain_values
from steepest.importance import groups_of
from steepest.prediction import open_rows

FEATURES = "features"
"""The input that takes the dense features."""

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


class SparseInput(NamedTuple):
    """A column of sparse features as an input: their places, and of lists their values.

    Attributes
    ----------
    name
        Of the column.
    first, width
        Its first place among those of all columns, and the number of its places.
    is_list
        Whether a row has any number of places, each with a value, or at most one.
    number
        Which it is of the categories, or of the lists.
    """

    name: str
    first: int
    width: int
    is_list: bool
    number: int

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the inputs, as those of Keras models on sparse columns are."""
        name = self.name.replace("%", "%25").replace("/", "%2F")
        return (f"{name}.places", f"{name}.values")[: 1 + self.is_list]

    def arrays(self, rows: PackedRows) -> Arrays:
        """Return the inputs ``[rows, length]``: int32 places, ``width`` for none, and float32 values."""
        numbers = np.arange(len(rows))
        if not self.is_list:
            placed = Placed(rows.packed.places, self.number, self.first, self.width)
            return {self.names[0]: taken(placed, numbers)}
        assert rows.lists is not None  # noqa: S101 - the plan has such a column
        most = longest(rows.lists, self.number)
        places, values = (
            taken(Padded(rows.lists, self.number, part, self.first, self.width, most), numbers)
            for part in ("places", "values")
        )
        return dict(zip(self.names, (places, values), strict=True))


def sparse_inputs(plan: Plan) -> list[SparseInput]:
    """Return the sparse columns of a plan, categories before lists: the order of a model's embeddings."""
    found = []
    for name, group in groups_of(plan).items():
        if name in plan.sparse_groups:
            places = plan.sparse_groups[name]
            is_list = group.list is not None
            number = group.list if group.list is not None else group.category
            found.append(SparseInput(name, places.start, places.stop - places.start, is_list, number or 0))
    return sorted(found, key=lambda each: each.is_list)


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
    """Return the features of rows: ``features`` ``[rows, width]``, and what `SparseInput` makes of others.

    Parameters and errors are those of `column_arrays`.
    """
    rows = packed_rows(plan.layout, plan.pack(_table(plan, data)))
    found: Arrays = {FEATURES: rows[:]} if plan.width else {}
    for each in sparse_inputs(plan):
        found |= each.arrays(rows)
    return found


def _table(plan: Plan, data: Any) -> pa.Table:
    def whole(source: RowSource) -> pa.Table:
        return pa.concat_tables(stretch.rows for stretch in source.stretches())

    return settled(open_rows(plan, data), whole)

"""Spark ML's vectors as columns: one for each element."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steepest.errors import SteepestError


def flattened(rows: pa.Table, vectors: Mapping[str, tuple[str, ...]]) -> pa.Table:
    """Return the rows with a column for each element of a vector, where the vector stood.

    Parameters
    ----------
    rows
        A table in which the vectors are lists of numbers, as `pyspark.ml.functions.vector_to_array` makes
        them.
    vectors
        Name of a column that holds vectors -> the names of its elements, in their order.

    Raises
    ------
    SteepestError
        If a vector is missing, or has another number of elements.

    Examples
    --------
    >>> rows = pa.table({"late": [0, 1], "features": [[1.0, 2.0], [3.0, 4.0]]})
    >>> flattened(rows, {"features": ("distance", "hour")}).to_pydict()
    {'late': [0, 1], 'distance': [1.0, 3.0], 'hour': [2.0, 4.0]}
    """
    columns: list[tuple[str, Any]] = []
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        if name in vectors:
            columns += zip(vectors[name], _elements(name, column, len(vectors[name])), strict=True)
        else:
            columns.append((name, column))
    names = [name for name, _ in columns]
    return pa.Table.from_arrays([column for _, column in columns], names=names)


def _elements(name: str, column: pa.ChunkedArray, width: int) -> Iterator[pa.ChunkedArray]:
    """Yield the elements of vectors, one column after the other."""
    if column.null_count:
        raise SteepestError(
            f"{column.null_count:,} rows have no vector in the column {name!r}.",
            hint="Leave such rows out, or let VectorAssembler refuse them: handleInvalid='error'.",
        )
    lengths = pc.list_value_length(column)
    if pc.any(pc.not_equal(lengths, width)).as_py():
        other = next(length for length in pc.unique(lengths).to_pylist() if length != width)
        raise SteepestError(
            f"A vector in the column {name!r} has {other:,} elements; {width:,} were expected.",
            hint="Give all rows vectors of one length.",
        )
    numbers = pc.list_flatten(column).to_numpy().reshape(len(column), width)
    for element in np.ascontiguousarray(numbers.T):
        yield pa.chunked_array([pa.array(element)])


def width_of(metadata: Mapping[str, Any]) -> int | None:
    """Return how many elements a vector column's metadata says that it has; None where it does not say.

    Examples
    --------
    >>> width_of({"ml_attr": {"num_attrs": 3}}), width_of({})
    (3, None)
    """
    width = metadata.get("ml_attr", {}).get("num_attrs")
    return None if width is None else int(width)


def element_names(
    column: str, metadata: Mapping[str, Any], width: int, taken: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the names of a vector column's elements.

    Parameters
    ----------
    column
        The column's name.
    metadata
        Its metadata. Where Spark ML has written the elements' names there (``ml_attr``), as VectorAssembler
        does, these are taken, if they differ from each other; others are named after the column and their
        place.
    width
        The number of elements.
    taken
        Names that the elements can't have, because other columns of the table have them.

    Examples
    --------
    >>> assembled = {"ml_attr": {"attrs": {"numeric": [{"idx": 1, "name": "hour"}]}, "num_attrs": 2}}
    >>> element_names("features", assembled, 2), element_names("features", {}, 2)
    (('features 0', 'hour'), ('features 0', 'features 1'))
    """
    names = {place: f"{column} {place}" for place in range(width)}
    known = {
        attribute["idx"]: attribute["name"]
        for attributes in metadata.get("ml_attr", {}).get("attrs", {}).values()
        for attribute in attributes
        if attribute.get("name") and attribute["idx"] < width
    }
    named = {**names, **known}
    distinct = len({*named.values(), *taken}) == len(named) + len({*taken})
    return tuple((named if distinct else names).values())

"""The column plan: plain data that turns any rows into features."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steepest.data.encode import (
    KINDS,
    PARTS,
    Column,
    Locate,
    feature_names,
    matching,
    pack,
    runs,
    too_large,
)
from steepest.data.layout import Layout, Packed, layout_of
from steepest.data.summary import plain_values
from steepest.errors import SteepestError

ROWS_AT_ONCE = 1 << 14
"""How many rows are packed at a time: few enough for their numbers to stay in the cache."""


@dataclass(frozen=True)
class Dropped:
    """A column that is not learned from.

    Parameters
    ----------
    name
        The column's name.
    reason
        Why, as a sentence for a person.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """How rows become features; plain data.

    Parameters
    ----------
    columns
        The columns that are learned from, in the order of the table.
    dropped
        Those that are not, and why.

    Examples
    --------
    >>> distance = Column("distance", "number", "integer", mean=200.0, deviation=100.0)
    >>> origin = Column("origin", "category", "string", values=("EWR", "JFK"))
    >>> plan = Plan((distance, origin), dropped=())
    >>> plan.feature_names
    ('distance', 'origin = EWR', 'origin = JFK')
    >>> plan.encode(pa.table({"origin": ["LGA", "EWR"], "distance": [200, None]}))
    array([[0., 0., 0.],
           [0., 1., 0.]], dtype=float32)
    """

    columns: tuple[Column, ...]
    dropped: tuple[Dropped, ...]

    @functools.cached_property
    def feature_names(self) -> tuple[str, ...]:
        """The names of all features."""
        return tuple(name for column in self.columns for name in feature_names(column))

    @property
    def width(self) -> int:
        """The number of features."""
        return len(self.feature_names)

    @functools.cached_property
    def groups(self) -> dict[str, slice]:
        """Name of a column -> the place of its features."""
        places, begins = {}, 0
        for column in self.columns:
            ends = begins + len(feature_names(column))
            places[column.name] = slice(begins, ends)
            begins = ends
        return places

    @functools.cached_property
    def layout(self) -> Layout:
        """Where each feature of a packed row comes from."""
        return layout_of(run for column in self.columns for run in runs(column))

    def pack(self, rows: pa.Table, locate: Locate | None = None) -> Packed:
        """Turn rows into what is kept of them; ``plan.layout.expand`` makes the features of it.

        Parameters
        ----------
        rows
            A table with the columns of the plan, in any order; others are not looked at. Integers are taken
            where numbers were learned and, as their digits, where text was; a column without any value
            everywhere.
        locate
            Row -> where it stands, for messages; `steepest.data.source.Table.locate` for rows from files.

        Returns
        -------
        Packed
            Every number finite.

        Raises
        ------
        SteepestError
            If a column is missing, or holds infinite values or those of another type.
        """
        columns = [matching(column, rows, locate) for column in self.columns]
        packed = self.layout.empty(rows.num_rows)
        for begins in range(0, rows.num_rows, ROWS_AT_ONCE):
            block = slice(begins, begins + ROWS_AT_ONCE)
            self._pack_block(columns, begins, Packed(packed.numbers[block], packed.codes[block]), locate)
        return packed

    def _pack_block(
        self, columns: list[pa.ChunkedArray], begins: int, out: Packed, locate: Locate | None
    ) -> None:
        rows = len(out.numbers)
        # Column by column side by side, to be turned into rows at once: writing each with a stride is slower.
        numbers = np.empty((out.numbers.shape[1], rows), np.float32)
        codes = np.empty((out.codes.shape[1], rows), out.codes.dtype)
        next_number, next_code = iter(numbers), iter(codes)
        for column, whole in zip(self.columns, columns, strict=True):
            part = whole.slice(begins, rows)
            values = part if pa.types.is_floating(part.type) else plain_values(part)
            for run, kept in zip(runs(column), pack(column, values), strict=True):
                place = next(next_number if run.source == "numbers" else next_code)
                with np.errstate(over="ignore"):
                    place[:] = kept
                if column.kind == "number" and not np.isfinite(place).all():
                    raise too_large(column, whole, locate)
        out.numbers[:] = numbers.T
        out.codes[:] = codes.T

    def encode(self, rows: pa.Table, locate: Locate | None = None) -> npt.NDArray[np.float32]:
        """Turn rows into features: those of `pack`, expanded.

        Returns
        -------
        numpy.ndarray
            float32 [rows, width], every number finite.

        Examples
        --------
        See `Plan`. Parameters and errors are those of `pack`.
        """
        features = np.empty((rows.num_rows, self.width), np.float32)
        self.layout.expand(self.pack(rows, locate), features)
        return features

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON, from which `plan_from_json` makes the same plan."""
        return {
            "columns": [_with_lists(dataclasses.asdict(column)) for column in self.columns],
            "dropped": [dataclasses.asdict(dropped) for dropped in self.dropped],
        }


def plan_from_json(stored: Mapping[str, Any]) -> Plan:
    """Return the plan that `Plan.to_json` stored.

    Parameters
    ----------
    stored
        What ``to_json`` returned, or ``json.loads`` of what was written of it.

    Raises
    ------
    SteepestError
        If it is no such plan.
    """
    try:
        columns = tuple(Column(**_with_tuples(each)) for each in stored["columns"])
        dropped = tuple(Dropped(**each) for each in stored["dropped"])
        known = all(column.kind in KINDS and set(column.parts) <= set(PARTS) for column in columns)
    except (KeyError, TypeError, AttributeError) as error:
        raise SteepestError(f"the column plan is damaged ({error}).", hint="Train again.") from None
    if not known:
        raise SteepestError("the column plan has a kind of column that is not known.", hint="Train again.")
    return Plan(columns, dropped)


def _with_lists(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}

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

from steepest.data.column import Column, Sparse
from steepest.data.encode import (
    KINDS,
    PARTS,
    Locate,
    feature_names,
    matching,
    pack,
    runs,
    too_large,
)
from steepest.data.lags import Lags, lags_from_json
from steepest.data.layout import DENSE, Layout, Packed, Ragged, layout_of
from steepest.data.sparse import ONE_A_ROW, TEXTS, ListPairs, sparse_name
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
    lags
        Which of the columns are lags of others; ``None`` where none is.

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
    lags: Lags | None = None

    @functools.cached_property
    def feature_names(self) -> tuple[str, ...]:
        """The names of all dense features."""
        return tuple(name for column in self.columns for name in feature_names(column))

    @property
    def width(self) -> int:
        """The number of dense features."""
        return len(self.feature_names)

    @functools.cached_property
    def groups(self) -> dict[str, slice]:
        """Name of a column -> the place of its dense features; an empty one where it has none."""
        return _side_by_side({column.name: len(feature_names(column)) for column in self.columns})

    @functools.cached_property
    def sparse_groups(self) -> dict[str, slice]:
        """Name of a column -> the places of its sparse features, of those that have any."""
        widths = {
            column.name: run.width
            for column in self.columns
            for run in runs(column)
            if run.source not in DENSE
        }
        return _side_by_side(widths)

    def sparse_name(self, place: int) -> str:
        """Return the name of a sparse feature.

        Parameters
        ----------
        place
            Its place, from 0 to ``layout.sparse - 1``.

        Examples
        --------
        >>> merchant = Column("merchant", "hashed", "string", sparse=Sparse(bits=10))
        >>> Plan((merchant,), dropped=()).sparse_name(51)
        'merchant: bucket 51'
        """
        name, group = next(each for each in self.sparse_groups.items() if place < each[1].stop)
        return sparse_name(next(each for each in self.columns if each.name == name), place - group.start)

    @functools.cached_property
    def reads(self) -> tuple[str, ...]:
        """The columns, lags among them, that the plan looks at."""
        return tuple(dict.fromkeys(name for column in self.columns for name in column.reads))

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
        found = [packed.ragged]
        for begins in range(0, rows.num_rows, ROWS_AT_ONCE):
            block = slice(begins, begins + ROWS_AT_ONCE)
            out = Packed(packed.numbers[block], packed.codes[block], packed.places[block], packed.ragged)
            lists = self._pack_block(columns, begins, out, locate)
            packed.ragged.lengths[block] = lists.lengths
            found.append(lists)
        places, values = (np.concatenate(each) for each in list(zip(*found, strict=True))[1:])
        return packed._replace(ragged=Ragged(packed.ragged.lengths, places, values))

    def _pack_block(
        self, columns: list[pa.ChunkedArray], begins: int, out: Packed, locate: Locate | None
    ) -> Ragged:
        """Write what is kept of a block of rows, but for the pairs of lists, which are returned."""
        rows = len(out.numbers)
        # Column by column side by side, to be turned into rows at once: writing each with a stride is slower.
        numbers = np.empty((out.numbers.shape[1], rows), np.float32)
        codes = np.empty((out.codes.shape[1], rows), out.codes.dtype)
        places = np.empty((out.places.shape[1], rows), np.int32)
        to = {"numbers": iter(numbers), "code": iter(codes), "category": iter(places)}
        lists: list[ListPairs] = []
        for column, whole in zip(self.columns, columns, strict=True):
            part = whole.slice(begins, rows)
            values = part if pa.types.is_floating(part.type) else plain_values(part)
            for run, kept in zip(runs(column), pack(column, values), strict=True):
                first = 0 if run.source in DENSE else self.sparse_groups[column.name].start
                if isinstance(kept, ListPairs):
                    if column.kind == "pairs" and not np.isfinite(kept.values).all():
                        raise too_large(column, whole, locate)
                    lists.append(kept._replace(places=kept.places + np.int32(first)))
                    continue
                place = next(to[run.source])
                with np.errstate(over="ignore"):
                    place[:] = kept
                if run.source == "category":
                    place[:] = np.where(place < run.width, place + first, self.layout.sparse)
                if column.kind == "number" and not np.isfinite(place).all():
                    raise too_large(column, whole, locate)
        out.numbers[:] = numbers.T
        out.codes[:] = codes.T
        out.places[:] = places.T
        return _row_by_row(rows, lists)

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
            "columns": [_column_to_json(column) for column in self.columns],
            "dropped": [dataclasses.asdict(dropped) for dropped in self.dropped],
            **({} if self.lags is None else {"lags": self.lags.to_json()}),
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
        columns = tuple(map(_column_from_json, stored["columns"]))
        dropped = tuple(Dropped(**each) for each in stored["dropped"])
        lags = lags_from_json(stored["lags"]) if "lags" in stored else None
        known = all(_is_known(column) and set(column.parts) <= set(PARTS) for column in columns)
    except (KeyError, TypeError, AttributeError) as error:
        raise SteepestError(f"the column plan is damaged ({error}).", hint="Train again.") from None
    if not known:
        raise SteepestError("the column plan has a kind of column that is not known.", hint="Train again.")
    return Plan(columns, dropped, lags)


def _is_known(column: Column) -> bool:
    return column.kind in (KINDS if column.sparse is None else (*ONE_A_ROW, *TEXTS, "list", "pairs"))


def _column_to_json(column: Column) -> dict[str, Any]:
    fields = _with_lists({field.name: getattr(column, field.name) for field in dataclasses.fields(column)})
    sparse = fields.pop("sparse")
    return fields if sparse is None else fields | {"sparse": _with_lists(dataclasses.asdict(sparse))}


def _column_from_json(stored: Mapping[str, Any]) -> Column:
    fields = _with_tuples(stored)
    sparse = stored.get("sparse")
    return Column(**fields if sparse is None else fields | {"sparse": Sparse(**_with_tuples(sparse))})


def _with_lists(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _side_by_side(widths: Mapping[str, int]) -> dict[str, slice]:
    """Return the place of each, one after the other."""
    places, begins = {}, 0
    for name, width in widths.items():
        places[name] = slice(begins, begins + width)
        begins += width
    return places


def _row_by_row(rows: int, lists: list[ListPairs]) -> Ragged:
    """Return the pairs of list columns in the order of the rows, and of the columns within a row."""
    lengths = np.empty((rows, len(lists)), np.int32)
    for number, each in enumerate(lists):
        lengths[:, number] = each.lengths
    if len(lists) == 1:
        return Ragged(lengths, lists[0].places, lists[0].values)
    ends = np.cumsum(lengths.reshape(-1), dtype=np.int64).reshape(lengths.shape)
    places, values = np.empty(lengths.sum(), np.int32), np.empty(lengths.sum(), np.float32)
    for number, each in enumerate(lists):
        begins = ends[:, number] - each.lengths
        ahead = begins - (np.cumsum(each.lengths) - each.lengths)  # how far a pair moves
        to = np.arange(len(each.places)) + np.repeat(ahead, each.lengths)
        places[to], values[to] = each.places, each.values
    return Ragged(lengths, places, values)

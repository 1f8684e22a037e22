"""Sparse columns as inputs of a model: arrays of places, and of lists also of values, by name."""

from __future__ import annotations

from dataclasses import dataclass

from steepest.data.columns import Plan
from steepest.data.packed import PackedRows
from steepest.data.padded import Padded, Placed, longest
from steepest.importance import groups_of

FEATURES = "features"
"""The input that takes the dense features."""


@dataclass(frozen=True)
class SparseColumn:
    """A column of sparse features.

    Parameters
    ----------
    name, kind
        Of the column: see `steepest.data.column.Column`.
    width
        Number of places: of its features.
    is_list
        Whether a row has any number of places, each with a value, as text and lists do, or at most one.
    first, number
        Its first place among those of all columns, and which it is of the categories, or of the lists.
    """

    name: str
    kind: str
    width: int
    is_list: bool
    first: int
    number: int

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs: places, and of a list also values."""
        name = self.name.replace("%", "%25").replace("/", "%2F")  # Keras' names have no slash
        return (f"{name}.places", f"{name}.values")[: 1 + self.is_list]

    def leaves(self, rows: PackedRows) -> list[Placed | Padded]:
        """Return what of rows its inputs take."""
        if not self.is_list:
            return [Placed(rows.packed.places, self.number, self.first, self.width, rows.fleeting)]
        assert rows.lists is not None  # noqa: S101 - the plan has such a column
        most = longest(rows.lists, self.number)
        return [
            Padded(rows.lists, self.number, part, self.first, self.width, most)
            for part in ("places", "values")
        ]


def sparse_columns(plan: Plan) -> list[SparseColumn]:
    """Return the sparse columns of a plan."""
    kinds, found = {column.name: column.kind for column in plan.columns}, []
    for name, group in groups_of(plan).items():
        places = plan.sparse_groups.get(name)
        if places is not None:
            number = group.category if group.list is None else group.list
            is_list = group.list is not None
            width = places.stop - places.start
            found.append(SparseColumn(name, kinds[name], width, is_list, places.start, number or 0))
    return found


def in_order_of_tables(plan: Plan) -> list[SparseColumn]:
    """Return the sparse columns, categories before lists: the order in which a model joins embeddings."""
    return sorted(sparse_columns(plan), key=lambda column: column.is_list)

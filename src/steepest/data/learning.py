"""Learning the column plan in one pass over rows that come in any pieces, in bounded memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.column import Column
from steepest.data.column_types import common_type, type_of
from steepest.data.columns import Dropped, Plan
from steepest.data.deciding import decide
from steepest.data.deciding_sparse import decide_cross, decide_sparse
from steepest.data.encode import CALLED, Locate, infinite_values, numbers_or_sizes, shown, where
from steepest.data.joining import joined, text_bytes
from steepest.data.maps import MAPS, nested_type
from steepest.data.passing import as_text, from_text, summary_from_json, summary_to_json
from steepest.data.summary import (
    Summary,
    merge,
    summarise,
)
from steepest.data.tallies import (
    Tallied,
    merge_tallied,
    sparse_columns,
    tallied,
    tallied_from_json,
    tallied_to_json,
    with_nested,
    without_hopeless,
)
from steepest.data.twins import alike_by_summary, equal_columns
from steepest.data.wishes import Wishes, wishes_from_json
from steepest.errors import SteepestError, nearest

BLOCK = 1 << 16
"""How many rows are summarised at a time. The last bits of a mean depend on it, so it is always the same."""

BLOCK_BYTES = 1 << 26
"""How many bytes of text and of maps are summarised at a time, if so many stand in fewer rows."""


class Seen(NamedTuple):
    """What is known of the rows so far.

    Attributes
    ----------
    summaries
        Name of a column -> its summary.
    twins
        Groups of columns that are equal to each other in every row.
    tallied
        What is counted besides for sparse features.
    """

    summaries: dict[str, Summary]
    twins: tuple[tuple[str, ...], ...]
    tallied: Tallied


class Learner:
    """Learns a column plan from rows that come piece by piece.

    The same rows in the same order give the same plan to the last bit, however they are cut: they are
    summarised in blocks of `BLOCK` rows (or `BLOCK_BYTES` of text), and less than a block is held back. What
    is kept besides does not grow with the rows: at most some 150 MB for each column of text.

    Parameters
    ----------
    leave_out
        Columns that are no features, such as the target. They are summarised all the same.
    wishes
        What is wanted of columns, where it is not what the rows would decide.

    Examples
    --------
    >>> learner = Learner(leave_out=["late"])
    >>> learner.update(pa.table({"distance": [100, 300], "late": [True, False]}))
    >>> learner.update(pa.table({"distance": [200.5, None], "late": [False, False]}))
    >>> learner.plan().feature_names
    ('distance', 'distance is missing')
    >>> learner.summaries["late"].value_counts
    {True: 1, False: 3}
    """

    def __init__(self, leave_out: Sequence[str] = (), wishes: Wishes | None = None) -> None:
        self._leave_out = tuple(leave_out)
        self._wishes = Wishes() if wishes is None else wishes
        self._schema: Any = None  # pyarrow.Schema, once there are rows
        self._types: dict[str, str] = {}  # of the values so far; "null" where there was none yet
        self._seen: Seen | None = None
        self._held: list[pa.Table] = []
        self._rows_held = self._bytes_held = 0

    def update(self, rows: pa.Table, locate: Locate | None = None) -> None:
        """Learn from the next rows.

        Parameters
        ----------
        rows
            A table with the same columns each time. Their types may change where they go together: integers
            and other numbers, dates and timestamps, nothing but missing values and any type.
        locate
            Row of this table -> where it stands, for messages.

        Raises
        ------
        SteepestError
            If a column is missing, is new, has infinite values, or a type that does not go with that before;
            or `leave_out` names an unknown column. The learner is of no use then.
        """
        self._know(rows.schema)
        for name in self._schema.names:
            self._check(name, rows[name], locate)
        rows = with_nested(rows, self._types)
        sizes = np.cumsum(text_bytes(rows))
        begins = before = 0
        while begins < rows.num_rows:
            ends = min(rows.num_rows, begins + BLOCK - self._rows_held)
            ends = min(ends, int(np.searchsorted(sizes, before + BLOCK_BYTES - self._bytes_held)) + 1)
            self._held.append(rows.slice(begins, ends - begins))
            self._rows_held += ends - begins
            self._bytes_held += int(sizes[ends - 1]) - before
            begins, before = ends, int(sizes[ends - 1])
            if self._rows_held == BLOCK or self._bytes_held >= BLOCK_BYTES:
                self._seen = self._with(self._held)
                self._held, self._rows_held, self._bytes_held = [], 0, 0

    def merge(self, other: Learner) -> None:
        """Take over what another learner, which stays as it is, has learned from rows that come after these.

        Counts, bounds and all else that is exact are those of one pass over all rows; means and deviations
        agree up to rounding.

        Raises
        ------
        SteepestError
            If the columns do not go together.
        """
        if other._schema is None:
            return
        self._know(other._schema)
        for name, kind in other._types.items():
            before = self._types[name]
            common = common_type(before, kind)
            if common is None:
                raise SteepestError(
                    f"column {name!r} holds {CALLED[before]} in one part and {CALLED[kind]} in another.",
                    hint="Give the column one type throughout.",
                )
            self._types[name] = common
        if other._seen is not None:
            rows = self._seen is not None or self._rows_held
            self._seen = _merge_seen(self._now(), other._seen, self._wishes) if rows else other._seen
        elif self._rows_held:
            self._seen = self._now()
        self._held, self._rows_held, self._bytes_held = [*other._held], other._rows_held, other._bytes_held

    def to_json(self) -> dict[str, Any]:
        """Return what was learned as plain JSON, for `learner_from_json`."""
        seen = self._now()
        return {
            "leave_out": self._leave_out,
            "wishes": dataclasses.asdict(self._wishes),
            "schema": None if self._schema is None else as_text(self._schema.empty_table()),
            "types": self._types,
            "summaries": {name: summary_to_json(each) for name, each in seen.summaries.items()},
            "twins": seen.twins,
            "tallied": tallied_to_json(seen.tallied),
        }

    @property
    def summaries(self) -> Mapping[str, Summary]:
        """Name of a column -> the summary of all rows so far."""
        return self._now().summaries

    @property
    def twins(self) -> tuple[tuple[str, ...], ...]:
        """Groups of columns that are equal to each other in every row so far."""
        return self._now().twins

    def pairs(self) -> dict[str, tuple[int, int]]:
        """Return how many pairs (place, value) the rows so far have in columns of text, lists and maps.

        Returns
        -------
        dict
            Name of a column -> their number in all rows, and the greatest number in one: not less than those
            of the plan, which has no place for some.
        """
        return {name: (words.total, words.most) for name, words in self._now().tallied.items()}

    def plan(self) -> Plan:
        """Return what was learned; more rows may follow.

        Returns
        -------
        Plan
            With the columns that say nothing in `Plan.dropped`.

        Raises
        ------
        SteepestError
            If nothing is left, or a column's values are too large to compute with.
        """
        seen = self._now()
        twins = {name: group for group in seen.twins for name in group}
        columns: dict[str, Column] = {}
        dropped: list[Dropped] = []
        for name in seen.summaries:
            if name in self._leave_out:
                continue
            learned = self._decide(name, seen)
            twin = next((other for other in twins.get(name, ()) if other in columns), None)
            if isinstance(learned, Dropped):
                dropped.append(learned)
            elif twin is not None:
                dropped.append(Dropped(name, f"It has the same value as {twin!r} in every row."))
            else:
                columns[name] = learned
        if not columns:
            reasons = " ".join(f"{each.name!r}: {each.reason}" for each in dropped[:3])
            raise SteepestError(
                f"the table has no column to learn from. {reasons or 'no other is there.'}",
                hint="Add columns that say something about the target.",
            )
        return Plan(tuple(columns.values()), tuple(dropped))

    def _decide(self, name: str, seen: Seen) -> Column | Dropped:
        """Decide what becomes of a column or a cross."""
        if name not in self._schema.names:
            return decide_cross(name, self._wishes.crosses[name], seen.summaries, self._wishes)
        summary, learned = seen.summaries[name], None
        if self._wishes.sparse:
            learned = decide_sparse(name, summary, seen.tallied.get(name), self._wishes)
        return learned or decide(name, self._schema.field(name).type, summary)

    def _know(self, schema: pa.Schema) -> None:
        """Take the columns of the first rows, and see that others have the same."""
        if self._schema is None:
            if unknown := next((name for name in self._leave_out if name not in schema.names), None):
                raise SteepestError(
                    f"the table has no column {unknown!r}.", hint=nearest(unknown, schema.names)
                )
            self._wishes.require(schema.names, self._leave_out)
            self._schema = schema
            self._types = dict.fromkeys(schema.names, "null")
        for these, those, what in (
            (self._schema.names, schema.names, "lack the column {!r}, which earlier rows have"),
            (schema.names, self._schema.names, "have the column {!r}, which earlier rows lack"),
        ):
            lacking = next((name for name in these if name not in those), None)
            if lacking is not None:
                raise SteepestError(
                    f"later rows {what.format(lacking)}.", hint="Give all parts the same columns."
                )

    def _check(self, name: str, values: pa.ChunkedArray, locate: Locate | None) -> None:
        """Refuse values of another type than those before, and infinite ones."""
        if values.null_count == len(values):
            return
        before, kind = self._types[name], self._type_of(name, values.type)
        common = common_type(before, kind)
        if common is None:
            row = pc.index(pc.is_valid(values), True).as_py()
            raise SteepestError(
                f"column {name!r} holds {CALLED[kind]} where earlier rows hold {CALLED[before]}:"
                f" {shown(values[row])} ({where(row, locate)}).",
                hint="Give the column one type throughout.",
            )
        self._types[name] = common
        if kind in ("number", *MAPS) and name not in self._leave_out:
            chunks = map(pa.chunked_array, ([chunk] for chunk in values.chunks))
            if any(np.isinf(numbers_or_sizes(chunk)).any() for chunk in chunks):
                raise infinite_values(name, values, locate)

    def _type_of(self, name: str, column_type: pa.DataType) -> str:
        """Return the type of a column's values; lists and maps are one where they may become features."""
        learned = self._wishes.sparse and name not in self._leave_out
        return (nested_type(column_type) if learned else None) or type_of(column_type)

    def _now(self) -> Seen:
        """Return what is known of all rows, those held back among them."""
        if self._schema is None:
            return Seen({}, (), {})
        if self._seen is not None and not self._held:
            return self._seen
        return self._with(self._held or [self._schema.empty_table()])

    def _counts(self, name: str, column_type: pa.DataType) -> bool:
        """Tell whether the values of a column are worth counting: those of measurements are not."""
        measured = type_of(column_type) == "number" and name not in self._leave_out
        few = self._seen is None or self._seen.summaries[name].counted is not None
        return few and not measured

    def _with(self, pieces: list[pa.Table]) -> Seen:
        """Return what is known when the rows of these pieces are added."""
        before = self._seen
        block = {name: joined([piece[name] for piece in pieces], kind) for name, kind in self._types.items()}
        values = {name: each for name, (each, _) in block.items()}
        block |= sparse_columns(values, self._wishes)
        found = {
            name: summarise(each, stands_for=kind, counting=self._counts(name, each.type))
            for name, (each, kind) in block.items()
        }
        texts = {
            name: each
            for name, (each, _) in block.items()
            if self._wishes.sparse and name not in self._leave_out
        }
        counts = tallied(texts, found, {} if before is None else before.tallied, self._wishes)
        candidates = before.twins if before is not None else (tuple(values),)
        alike = (names for group in candidates for names in alike_by_summary(group, found))
        twins = tuple(names for group in alike for names in equal_columns(group, values))
        if before is None:
            return Seen(found, twins, without_hopeless(counts, found, self._wishes))
        return _added(before, Seen(found, twins, counts), self._wishes)


def learner_from_json(stored: Mapping[str, Any]) -> Learner:
    """Return a learner that goes on from what another one has learned."""
    learner = Learner(stored["leave_out"], wishes_from_json(stored["wishes"]))
    if stored["schema"] is not None:
        summaries = {name: summary_from_json(each) for name, each in stored["summaries"].items()}
        learner._schema, learner._types = from_text(stored["schema"]).schema, dict(stored["types"])
        twins = tuple(map(tuple, stored["twins"]))
        learner._seen = Seen(summaries, twins, tallied_from_json(stored["tallied"]))
    return learner


def learn(
    table: pa.Table,
    *,
    leave_out: Sequence[str] = (),
    wishes: Wishes | None = None,
    locate: Locate | None = None,
) -> Plan:
    """Learn from training rows how each column becomes features.

    Numbers and elapsed time are standardised with the population's deviation; a missing value becomes the
    mean. Categories get a 0/1 feature for each value, times their cycles as sine and cosine.

    Parameters
    ----------
    table
        Training rows.
    leave_out
        Columns that are no features, such as the target.
    wishes
        What is wanted of columns, where it is not what the rows would decide.
    locate
        Row -> where it stands, for messages.

    Returns
    -------
    Plan
        With the columns that say nothing in `Plan.dropped`.

    Raises
    ------
    SteepestError
        If a column holds infinite values, `leave_out` names an unknown column, or nothing is left.

    Examples
    --------
    >>> learn(pa.table({"distance": [100, 300, 200], "origin": ["EWR", "JFK", "EWR"]})).feature_names
    ('distance', 'origin = EWR', 'origin = JFK')
    """
    learner = Learner(leave_out, wishes)
    learner.update(table, locate)
    return learner.plan()


def _added(a: Seen, b: Seen, wishes: Wishes) -> Seen:
    """Return what is known of the rows of both, where the twins are those of both already."""
    summaries = {name: merge(summary, b.summaries[name]) for name, summary in a.summaries.items()}
    both = merge_tallied(a.tallied, b.tallied)
    return Seen(summaries, b.twins, without_hopeless(both, summaries, wishes))


def _merge_seen(a: Seen, b: Seen, wishes: Wishes) -> Seen:
    """Return what is known of the rows of both."""
    groups = {name: number for number, group in enumerate(b.twins) for name in group}
    twins: dict[tuple[int, int], list[str]] = {}
    for number, group in enumerate(a.twins):
        for name in group:
            if name in groups:
                twins.setdefault((number, groups[name]), []).append(name)
    equal = tuple(tuple(names) for names in twins.values() if len(names) > 1)
    return _added(a, b._replace(twins=equal), wishes)

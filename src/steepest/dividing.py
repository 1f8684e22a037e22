"""A table's labelled rows, and which of them are held out: decided anew, and alike, in each pass."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from steepest.data.column_types import type_of
from steepest.data.encode import infinite_values
from steepest.data.lags import LaggedSource, Lags
from steepest.data.prefetch import prefetch
from steepest.data.rejected import Rejects
from steepest.data.rows import RowSource, Stretch, piece, subset
from steepest.data.shared import Group
from steepest.data.split import (
    RUN,
    Groups,
    Mask,
    check_fraction,
    last_rows_held_out,
    numbered_rows_held_out,
    rows_held_out,
)
from steepest.data.summary import numbers_of, plain_values
from steepest.errors import SteepestError
from steepest.merging import Count, firsts_of, told
from steepest.settings import Settings

Seen = Callable[[str, int, int | None], None]
"""Is told what is being done, with how many rows so far, of how many where known."""

Divide = Callable[[Iterator[Stretch]], Iterator[tuple[Stretch, Mask]]]
"""Labelled rows -> the same, and which of them are held out."""


@dataclass(frozen=True)
class Table:
    """A source of which the rows with a target are wanted.

    Parameters
    ----------
    source
        Where the rows come from.
    target
        The target's column.
    of
        What is added to messages: `` in FILE``.
    whole
        Whether these are all rows, and no other process has more of them.
    lags
        What is wanted of rows whose order is that of time; ``None`` where their order is of no account.
    """

    source: RowSource
    target: str
    of: str = ""
    whole: bool = True
    lags: Lags | None = None

    @property
    def lagged(self) -> RowSource:
        """The source, with lags as further columns."""
        return self.source if self.lags is None else LaggedSource(self.source, self.lags)

    def parts(
        self,
        doing: str,
        seen: Seen,
        *,
        columns: list[str] | None = None,
        rejects: Rejects | None = None,
        count: Count | None = None,
    ) -> Iterator[Stretch]:
        """Yield the rows that have a target.

        Raises
        ------
        SteepestError
            If none has one, or one is infinite.
        """
        count = count or Count()
        stretches = prefetch(self.lagged.stretches(columns))
        try:
            for stretch in stretches:
                if rejects is not None:
                    rejects.add(stretch.rejected)
                labelled = subset(stretch, np.asarray(pc.is_valid(plain_values(stretch.rows[self.target]))))
                self._require_finite(labelled)
                count.rows += stretch.rows.num_rows
                count.unlabelled += stretch.rows.num_rows - labelled.rows.num_rows
                seen(doing, count.rows, self.source.rows)
                if labelled.rows.num_rows:
                    yield labelled
        finally:
            stretches.close()
        if self.whole:
            self.require_labelled(count)

    def require_labelled(self, count: Count) -> None:
        """Refuse rows none of which has a target."""
        if count.rows == count.unlabelled:
            raise SteepestError(
                f"The target {self.target!r} is missing in every row{self.of}.", hint="Name another target."
            )

    def _require_finite(self, part: Stretch) -> None:
        column = part.rows[self.target]
        if type_of(column.type) == "number" and np.isinf(numbers_of(plain_values(column))).any():
            raise infinite_values(self.target, column, part.locate)


def check_split(settings: Settings) -> None:
    """Refuse several ways to hold rows out at once, and shares that are none.

    Raises
    ------
    SteepestError
        With what to leave out.
    """
    if settings.validation_column and (settings.split_by or isinstance(settings.validation, str)):
        raise SteepestError(
            "--validation-column says which rows are held out; so would --split-by or a --validation file.",
            hint="Give one of them.",
        )
    if settings.split_by and settings.validation_file:
        raise SteepestError("--split-by has nothing to split where --validation names a file.")
    if settings.split_by and settings.in_order:
        raise SteepestError(
            "--split-by draws groups from anywhere in the table; with lags, or --validation last:SHARE, the "
            "last rows are held out.",
            hint="Leave --split-by out, or mark the rows to hold out: --validation-column COLUMN.",
        )
    if settings.share:
        check_fraction(settings.share)


def divider(settings: Settings, table: Table, seen: Seen, group: Group | None = None) -> Divide:
    """Return what holds rows out; whole groups and the last rows are counted in a pass of their own."""
    fraction, seed, name = settings.share, settings.seed, settings.split_by
    if settings.validation_column:
        column = settings.validation_column
        return lambda parts: ((part, held_out_by(column, part)) for part in parts)
    if not fraction:
        return lambda parts: ((part, np.zeros(part.rows.num_rows, np.bool_)) for part in parts)
    if settings.in_order:
        counted = table.parts("counting rows", seen, columns=[table.target])
        rows = sum(part.rows.num_rows for part in counted)
        return lambda parts: _by_order(parts, fraction, rows)
    if name is None:
        if group is None:
            return lambda parts: _by_rows(parts, fraction, seed)
        counted = table.parts("counting rows", seen, columns=[table.target])
        firsts = firsts_of(told(group, sum(part.rows.num_rows for part in counted)))
        return lambda parts: _by_numbers(parts, fraction, seed, firsts[group.rank], firsts[-1])
    groups = Groups(seed)
    for part in table.parts("counting groups", seen, columns=[table.target, name]):
        groups.add(part.rows[name])
    if group is not None:
        every = told(group, list(groups.counts.items()))
        groups = Groups(seed, sum((collections.Counter(dict(each)) for each in every), collections.Counter()))
    held_out = groups.held_out(fraction)
    return lambda parts: ((part, held_out(part.rows[name])) for part in parts)


def held_out_by(name: str, part: Stretch) -> Mask:
    """Return which rows a column says are held out.

    Raises
    ------
    SteepestError
        If it says neither true nor false of a row.
    """
    column = part.rows[name]
    if type_of(column.type) != "boolean":
        raise SteepestError(
            f"The column of rows to judge by {name!r} holds {column.type}, not true or false."
        )
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise SteepestError(f"The column of rows to judge by {name!r} says nothing at {part.locate(row)}.")
    return np.asarray(plain_values(column).to_numpy(), np.bool_)


def _by_numbers(
    parts: Iterator[Stretch], fraction: float, seed: int, first: int, of: int
) -> Iterator[tuple[Stretch, Mask]]:
    """Divide rows whose numbers among all rows are known."""
    for part in parts:
        rows = part.rows.num_rows
        yield part, numbered_rows_held_out(first, rows, of, fraction, seed)
        first += rows


def _by_order(parts: Iterator[Stretch], fraction: float, of: int) -> Iterator[tuple[Stretch, Mask]]:
    """Hold out the last of so many rows."""
    first = 0
    for part in parts:
        rows = part.rows.num_rows
        yield part, last_rows_held_out(first, rows, of, fraction)
        first += rows


def _by_rows(parts: Iterator[Stretch], fraction: float, seed: int) -> Iterator[tuple[Stretch, Mask]]:
    """Divide rows run by run: a run's rows wait until it is known how many it has."""
    waiting: list[Stretch] = []
    run = held = 0

    def divided() -> Iterator[tuple[Stretch, Mask]]:
        mask, first = rows_held_out(run, held, fraction, seed), 0
        for part in waiting:
            yield part, mask[first : first + part.rows.num_rows]
            first += part.rows.num_rows

    for part in parts:
        first = 0
        while first < part.rows.num_rows:
            count = min(RUN - held, part.rows.num_rows - first)
            waiting.append(piece(part, first, count))
            first, held = first + count, held + count
            if held == RUN:
                yield from divided()
                waiting, held, run = [], 0, run + 1
    yield from divided()


def places(settings: Settings, table: Table, numbers: Sequence[int]) -> list[str]:
    """Return where training rows, numbered from 0, came from, for a person; the table is read up to them."""

    def unseen(*_: object) -> None:
        pass

    found: dict[int, str] = {}
    first = 0
    for part, mask in divider(settings, table, unseen)(table.parts("finding rows", unseen)):
        kept = subset(part, ~mask)
        last = first + kept.rows.num_rows
        found |= {number: kept.locate(number - first) for number in numbers if first <= number < last}
        if len(found) == len(set(numbers)):
            break
        first = last
    return [found[number] for number in numbers]

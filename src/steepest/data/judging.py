"""What one pass over text files finds out about their columns, and what follows from it at its end."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.faults import looks_like, mixed_types
from steepest.data.json_text import value_kind
from steepest.data.kinds import kind_of, likeliest, likeness
from steepest.data.text import Fault, Parsed, TextPart, line_error, votes
from steepest.errors import SteepestError

_SAMPLE = 1000


@dataclass
class Judging:
    """What a pass has found so far.

    Parameters
    ----------
    kinds
        Column -> its kind. Columns without values until now have none yet.
    fixed
        The columns whose kind is certain, because other files state it or a pass before this settled it.
    max_rejected
        The share of rows, and of the values of a column, that may be unusable.

    Attributes
    ----------
    rows
        How many rows could be used.
    """

    kinds: dict[str, str]
    fixed: frozenset[str]
    max_rejected: float
    rows: int = 0
    _rejected: int = 0
    _first: tuple[str, Fault] | None = None
    _values: collections.Counter[str] = field(default_factory=collections.Counter)
    _misfits: dict[str, list[Any]] = field(default_factory=dict)
    _samples: dict[str, collections.Counter[str]] = field(default_factory=dict)
    _surprises: dict[str, tuple[str, object]] = field(default_factory=dict)

    def settle(self, rows: pa.Table, likely: tuple[str, ...]) -> bool:
        """Give columns a kind that had no values until now; return whether some must be read anew for it."""
        again = False
        for name in rows.column_names:
            if name not in self.kinds and (kind := likeliest(votes(rows[name], likely))):
                self.kinds[name] = kind
                again |= kind_of(rows[name].type) != kind
        return again

    def count(self, part: TextPart, parsed: Parsed) -> None:
        """Take note of a block.

        Raises
        ------
        SteepestError
            If a line is broken and none may be.
        """
        self.rows += parsed.rows.num_rows
        self._rejected += len({fault.line for fault in parsed.faults})
        for fault in parsed.faults:
            self._first = self._first or (part.file.name, fault)
            if fault.column is not None:
                kind = value_kind(fault.value) or "text"
                found = self._misfits.setdefault(
                    fault.column, [f"{part.file.name}, line {fault.line}", fault.value]
                )
                found.append(kind)
            elif not self.max_rejected:
                raise line_error(part.file.name, fault)
        for name, kind in self.kinds.items():
            if name not in parsed.rows.column_names:
                continue
            column = parsed.rows[name]
            self._values[name] += len(column) - column.null_count
            if kind == "text" and name not in self.fixed:
                self._sample(part, name, column[:_SAMPLE], parsed)

    def _sample(self, part: TextPart, name: str, column: pa.ChunkedArray, parsed: Parsed) -> None:
        """Count what the first values of a block of text look like."""
        if kind_of(column.type) is None:
            return
        found = likeness(column, part.likely)
        self._samples.setdefault(name, collections.Counter()).update(found)
        kind = likeliest(found, 1 - self.max_rejected)
        if kind not in ("text", None) and name not in self._surprises:
            row = pc.index(looks_like(kind, column), True).as_py()
            self._surprises[name] = (f"{part.file.name}, line {parsed.lines()[row]}", column[row].as_py())

    def verdict(self) -> tuple[dict[str, str], str]:
        """Return the kinds of columns that were wrongly judged, if any, and what to say about it.

        Raises
        ------
        SteepestError
            If there are no rows, a column mixes types, or too many rows were rejected.
        """
        wrong: dict[str, str] = {}
        says = []
        for name, (where, value, *kinds) in self._misfits.items():
            if len(kinds) > self._values[name] and name not in self.fixed:
                wrong[name] = collections.Counter(kinds).most_common(1)[0][0]
                says.append(_surprise(name, self.kinds[name], wrong[name], where, value))
        for name, found in self._samples.items():
            kind = likeliest(found, 1 - self.max_rejected)
            if kind not in ("text", None):
                wrong[name] = kind
                says.append(_surprise(name, "text", kind, *self._surprises[name]))
        if not wrong:
            self._require_few_faults()
        return wrong, " ".join(says)

    def _require_few_faults(self) -> None:
        for name, (where, value, *kinds) in self._misfits.items():
            if len(kinds) > self.max_rejected * (self._values[name] + len(kinds)):
                raise mixed_types(name, self.kinds[name], value, where, len(kinds), rejectable=True)
        if self._first and self._rejected > self.max_rejected * (self.rows + self._rejected):
            file, fault = self._first
            raise SteepestError(
                f"{self._rejected:,} of {self.rows + self._rejected:,} rows can't be used, the first: {file},"
                f" line {fault.line}: {fault.reason}.",
                hint="Correct them, or allow a larger share with --max-rejected.",
            )


def _surprise(name: str, kind: str, found: str, where: str, value: object) -> str:
    return (
        f"Column {name!r} was taken for {kind} by its first rows, but holds {found}, the first at {where}:"
        f" {value!r}. Its rows are read anew."
    )

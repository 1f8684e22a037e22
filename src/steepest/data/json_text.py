"""JSON lines: a block of lines to rows."""

from __future__ import annotations

import collections
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.json

from steepest.data.faults import require_distinct
from steepest.data.files import File
from steepest.data.kinds import kind_of
from steepest.data.text import (
    Block,
    Fault,
    Parsed,
    TextPart,
    blocks_of_lines,
    first_block,
    kept_of,
    line_error,
    lines_in,
    misfit,
    not_utf8,
    usable,
    votes,
)
from steepest.errors import SteepestError

LIKELY = ("dates", "dates with a time zone")
"""What text in JSON may be: JSON has numbers and booleans, but no dates."""

_KINDS = {bool: "booleans", int: "numbers", float: "numbers", str: "text", list: "lists", dict: "objects"}


class LateColumn(Exception):  # noqa: N818 - the file is opened anew with it
    """A column that no line had before.

    Parameters
    ----------
    name
        Its name.
    line
        The first line that has it.
    """

    def __init__(self, name: str, line: int) -> None:
        super().__init__(name)
        self.name = name
        self.line = line


def open_json(file: File, wanted: Sequence[str] | None, drop: Sequence[str]) -> TextPart:
    """Open a file of one JSON object a line: look at its first lines.

    Parameters
    ----------
    file
        The file.
    wanted
        The columns to read; by default all but those of `drop`.
    drop
        The columns to leave out.

    Raises
    ------
    SteepestError
        If there are no rows or no columns.
    """

    def parse(part: TextPart, block: Block, kinds: Mapping[str, str]) -> Parsed:
        return parse_json(part, block, kinds, all_columns=wanted is None)

    part = TextPart(file, "JSON lines", (), pa.schema([]), {}, blocks_of_lines, parse, LIKELY)
    first = first_block(part)
    if first is None:
        raise SteepestError(f"{file.name} is empty: it has no rows.", hint="Name another file.")
    names = _names(first, file)
    require_distinct(names, file.name)
    kept = kept_of(names, wanted, drop)
    part = replace(part, names=names, schema=pa.schema([(name, pa.null()) for name in kept]))
    rows = parse_json(part, first, {}, all_columns=False).rows
    return replace(part, schema=rows.schema, votes={name: _votes(rows[name]) for name in kept})


def parse_json(part: TextPart, block: Block, kinds: Mapping[str, str], all_columns: bool) -> Parsed:
    """Read a block of lines.

    Parameters
    ----------
    part
        The file: its `names` are all columns that are known, its `schema` has those to read.
    block
        Whole lines.
    kinds
        Column -> its kind; the others are read in the type that the reader takes them for, but dates as text.
    all_columns
        Whether a column that is not known matters.

    Raises
    ------
    LateColumn
        If it does, and a line has one.
    """
    columns = _quickly(part, block, kinds, all_columns)
    if columns is None:
        return _slowly(part, block, kinds, all_columns)
    count = len(next(iter(columns.values()))) if columns else 0
    return usable(columns, kinds, functools.cache(lambda: _lines(block, count)))


def _names(block: Block, file: File) -> tuple[str, ...]:
    """Return the names of all columns in a file's first lines."""
    try:
        return tuple(pyarrow.json.read_json(pa.BufferReader(block.data)).column_names)
    except pa.ArrowInvalid:
        rows, faults = _objects(block)
    if not rows:
        raise line_error(file.name, faults[0])
    return tuple(dict.fromkeys(name for _, each in rows for name in each))


def _votes(column: pa.ChunkedArray) -> collections.Counter[str]:
    """Return how many values are of each kind; text is dates only where all of it looks like dates."""
    found = votes(column, LIKELY)
    return collections.Counter({kind: n for kind, n in found.items() if n == found["text"]})


def _quickly(
    part: TextPart, block: Block, kinds: Mapping[str, str], all_columns: bool
) -> dict[str, pa.ChunkedArray] | None:
    """Return the columns of a block in which nothing is wrong, or None."""
    kept = part.schema.names
    texts = [name for name in kept if _json_kind(kinds.get(name)) == "text"]
    try:
        rows = _read(block.data, texts)
        if times := [
            name for name in kept if name in rows.column_names and pa.types.is_timestamp(rows[name].type)
        ]:
            rows = _read(block.data, texts + times)  # the reader's own times have neither zones nor fractions
        rows.validate(full=True)  # its text need not be UTF-8
    except pa.ArrowInvalid:
        return None
    lines = _filled(block.data)
    if rows.num_rows != lines or (all_columns and not set(rows.column_names) <= set(part.names)):
        return None
    columns = {
        name: rows[name] if name in rows.column_names else pa.chunked_array([pa.nulls(lines)])
        for name in kept
    }
    fit = all(
        kind_of(columns[name].type) in (_json_kind(kinds.get(name)), None) for name in kept if name in kinds
    )
    return columns if fit else None


def _slowly(part: TextPart, block: Block, kinds: Mapping[str, str], all_columns: bool) -> Parsed:
    """Read a block as slowly as Python does, and reject the lines that are broken."""
    rows, faults = _objects(block)
    kept, known = part.schema.names, {*part.names}
    if all_columns:
        for line, each in rows:
            if late := next((name for name in each if name not in known), None):
                raise LateColumn(late, line)
    wanted = {
        name: _json_kind(kinds.get(name)) or _usual(each.get(name) for _, each in rows) for name in kept
    }
    sound, lines = [], []
    for line, each in rows:
        odd = [name for name in kept if value_kind(each.get(name)) not in (wanted[name], None)]
        faults += [misfit(line, name, each[name], wanted[name] or "") for name in odd]
        if not odd:
            sound.append(json.dumps({name: each.get(name) for name in kept}))
            lines.append(line)
    texts = [name for name in kept if wanted[name] == "text"]
    if sound:
        found = _read("\n".join(sound).encode(), texts, at_once=True)
        columns = {name: found[name] for name in kept}
    else:
        columns = {name: pa.chunked_array([pa.nulls(0)]) for name in kept}
    parsed = usable(columns, kinds, lambda: lines)
    return parsed._replace(faults=sorted(faults + parsed.faults, key=lambda fault: fault.line))


def _read(data: bytes, texts: Sequence[str], at_once: bool = False) -> pa.Table:
    schema = pa.schema([(name, pa.string()) for name in texts])
    return pyarrow.json.read_json(
        pa.BufferReader(data),
        read_options=pyarrow.json.ReadOptions(block_size=len(data) + 1 if at_once else 1 << 20),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer"),
    )


def _objects(block: Block) -> tuple[list[tuple[int, dict[str, Any]]], list[Fault]]:
    """Return the objects of a block with their lines, and what is wrong with the other lines."""
    rows, faults = [], []
    hint = 'Write one JSON object a line, such as {"name": value}.'
    for line, text in enumerate(block.data.splitlines(), start=block.line):
        if text.strip():
            try:
                value = json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_constant)
            except UnicodeDecodeError as error:
                faults.append(not_utf8(line, error))
            except (ValueError, RecursionError) as error:
                faults.append(Fault(line, f"broken JSON ({error})", hint=hint))
            else:
                if isinstance(value, dict):
                    rows.append((line, value))
                else:
                    faults.append(
                        Fault(line, f"a JSON {type(value).__name__} instead of an object", hint=hint)
                    )
    return rows, faults


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(
            name for name, count in collections.Counter(name for name, _ in pairs).items() if count > 1
        )
        raise ValueError(f"the name {twice!r} twice")
    return found


def _constant(text: str) -> None:
    if text != "NaN":  # which is a missing number
        raise ValueError(f"{text} is no JSON")


def _usual(values: Iterable[object]) -> str | None:
    """Return the commonest kind of values."""
    counts = collections.Counter(kind for kind in map(value_kind, values) if kind)
    return counts.most_common(1)[0][0] if counts else None


def value_kind(value: object) -> str | None:
    """Return the kind of a value as JSON has it; None for a missing one.

    Examples
    --------
    >>> value_kind(True), value_kind(1.5), value_kind("2013-01-01"), value_kind(None)
    ('booleans', 'numbers', 'text', None)
    """
    return _KINDS.get(type(value))


def _json_kind(kind: str | None) -> str | None:
    """Return the kind that values have in JSON, where dates are text."""
    return "text" if kind in LIKELY else kind


def _filled(data: bytes) -> int:
    """Return how many lines are not blank."""
    return sum(1 for line in data.splitlines() if line.strip())


def _lines(block: Block, count: int) -> Sequence[int]:
    """Return the line of each row of a block of which each line that is not blank is a row."""
    if count == lines_in(block.data) + (block.data[-1:] not in b"\r\n"):
        return range(block.line, block.line + count)
    return [line for line, text in enumerate(block.data.splitlines(), start=block.line) if text.strip()]

"""CSV and TSV: the header, where records end, and a block of records to rows."""

from __future__ import annotations

import collections
import csv
import functools
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from steepest.data.faults import PATTERNS, require_distinct
from steepest.data.files import File
from steepest.data.kinds import MISSING, kind_of
from steepest.data.text import (
    RECORD_BYTES,
    Block,
    Fault,
    Parsed,
    TextPart,
    blocks,
    first_block,
    kept_of,
    last_line_end,
    line_error,
    lines_in,
    not_utf8,
    usable,
    votes,
)
from steepest.errors import SteepestError

# Python's reader refuses cells of more than 128 KiB; its limit is one for the whole process.
csv.field_size_limit(max(csv.field_size_limit(), RECORD_BYTES))

_MARK = b"\xef\xbb\xbf"
_QUOTE = ord('"')


class Header(NamedTuple):
    """How a CSV file begins.

    Parameters
    ----------
    names
        The names of all of its columns.
    delimiter
        What separates its fields.
    size
        How many bytes come before its first row.
    line
        The line of its first row, from 1.
    """

    names: tuple[str, ...]
    delimiter: str
    size: int
    line: int


class Record(NamedTuple):
    """A record as Python reads it: its cells in Latin-1, its line, and where its bytes begin and end."""

    cells: list[str]
    line: int
    begin: int
    end: int


def open_csv(file: File, wanted: Sequence[str] | None, drop: Sequence[str]) -> TextPart:
    """Open a CSV or TSV file: read its header and look at its first rows.

    Parameters
    ----------
    file
        The file.
    wanted
        The columns to read; by default all but those of `drop`.
    drop
        The columns to leave out; they are not even converted.

    Raises
    ------
    SteepestError
        If it has no header, or its beginning cannot be read.
    """
    header = read_header(file)
    kept = kept_of(header.names, wanted, drop)

    def csv_blocks(_: TextPart, size: int) -> Generator[Block, None, None]:
        with file.stream() as stream:
            stream.read(header.size)
            yield from blocks(
                file, stream, size, header.line, lambda data, line: _records_end(data, line, file, header)
            )

    def parse(_: TextPart, block: Block, kinds: Mapping[str, str]) -> Parsed:
        return parse_csv(block, file, header, kept, kinds)

    nothing = pa.schema([(name, pa.null()) for name in kept])
    likely = tuple(PATTERNS)
    part = TextPart(file, "CSV", header.names, nothing, {}, csv_blocks, parse, likely)
    first = first_block(part) if kept else None
    if first is None:
        return part
    rows = parse(part, first, {}).rows
    return replace(part, schema=rows.schema, votes={name: votes(rows[name]) for name in kept})


def read_header(file: File) -> Header:
    """Read how a CSV file begins.

    Raises
    ------
    SteepestError
        If there are no names of columns, two are the same, or they are not UTF-8.
    """
    with file.stream() as stream:
        data, more = b"", stream.read(1 << 16)
        while True:
            data += more
            header = _header(data, file, whole=not more or len(data) > RECORD_BYTES)
            if header:
                return header
            more = stream.read(len(data))


def _header(data: bytes, file: File, whole: bool) -> Header | None:
    """Return how a file begins, or None if that takes more than these first bytes of it."""
    start = len(_MARK) if data.startswith(_MARK) else 0
    first = next((line for line in data[start:].splitlines() if line), b"")
    delimiter = "\t" if ".tsv" in file.endings else max(",;\t|", key=first.decode("latin-1").count)
    try:
        found = next(_records(data[start:], 1, delimiter, strict=True), None)
    except csv.Error as error:
        if whole:
            raise _open_quote(file, 0, error) from None
        return None
    if not whole and (found is None or start + found.end == len(data)):
        return None
    if found is None:
        raise SteepestError(
            f"{file.name} is empty: it has no line of column names.", hint="Name another file."
        )
    if fault := _cell_fault(found, found.cells):
        raise line_error(file.name, fault)
    names = tuple(name.encode("latin-1").decode() for name in found.cells)
    require_distinct(names, file.name)
    size = start + found.end
    return Header(names, delimiter, size, 1 + lines_in(data[:size]))


def parse_csv(
    block: Block, file: File, header: Header, kept: Sequence[str], kinds: Mapping[str, str]
) -> Parsed:
    """Read a block of records.

    Parameters
    ----------
    block
        Whole records.
    file, header
        The file, and how it begins.
    kept
        The columns to read.
    kinds
        Column -> its kind; the others are read in the type that the reader takes them for.

    Raises
    ------
    SteepestError
        If the cells cannot be told apart.
    """
    if block.last:
        _require_closed_quotes(block, file, header)
    try:
        columns = _columns(block.data, header, kept, kinds)
    except pa.ArrowInvalid:
        columns = None
    if columns is None or any(pa.types.is_binary(column.type) for column in columns.values()):
        return _mended(block, file, header, kept, kinds)
    count = len(columns[kept[0]])
    lines = functools.cache(lambda: _lines(block, header, count))
    return usable(columns, kinds, lines)


def _columns(
    data: bytes, header: Header, kept: Sequence[str], kinds: Mapping[str, str], at_once: bool = False
) -> dict[str, pa.ChunkedArray]:
    """Return the columns, each in a type of its kind, or as text if something in it does not fit."""
    if not data.lstrip(b"\r\n"):
        return {name: pa.chunked_array([pa.nulls(0)]) for name in kept}
    read = functools.partial(_read, data, header, at_once=at_once)
    rows = read(kept, [name for name in kept if kinds.get(name) == "text"])
    columns = dict(zip(rows.column_names, rows.columns, strict=True))
    odd = [
        name
        for name in kept
        if name in kinds and kind_of(columns[name].type) not in (kinds[name], "text", None)
    ]
    if odd:
        again = read(odd, odd)
        columns |= dict(zip(again.column_names, again.columns, strict=True))
    return columns


def _read(data: bytes, header: Header, kept: Sequence[str], texts: Sequence[str], at_once: bool) -> pa.Table:
    return pyarrow.csv.read_csv(
        pa.BufferReader(data),
        read_options=pyarrow.csv.ReadOptions(
            column_names=header.names, block_size=len(data) + 1 if at_once else 1 << 20
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=header.delimiter, newlines_in_values=b'"' in data),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=kept,
            column_types=dict.fromkeys(texts, pa.string()),
            null_values=list(MISSING),
            strings_can_be_null=True,
        ),
    )


def _mended(
    block: Block, file: File, header: Header, kept: Sequence[str], kinds: Mapping[str, str]
) -> Parsed:
    """Read a block as slowly as Python does, and reject the records that are broken."""
    sound: list[bytes] = []
    lines: list[int] = []
    faults: list[Fault] = []
    width, places = len(header.names), [header.names.index(name) for name in kept]
    try:
        for record in _records(block.data, block.line, header.delimiter):
            if len(record.cells) != width:
                reason = f"{len(record.cells)} cells for the {width} columns of line 1"
                hint = "Correct the line; a cell that contains the delimiter needs quotes around it."
                faults.append(Fault(record.line, reason, hint=hint))
            elif fault := _cell_fault(record, [record.cells[place] for place in places]):
                faults.append(fault)
            else:
                sound.append(block.data[record.begin : record.end])
                lines.append(record.line)
        columns = _columns(b"".join(sound), header, kept, kinds, at_once=True)
    except (csv.Error, pa.ArrowInvalid) as error:
        raise _open_quote(file, (lines or [block.line - 1])[-1], error) from None
    if len(columns[kept[0]]) != len(lines):
        raise _open_quote(file, block.line - 1, "rows are read in two ways")
    parsed = usable(columns, kinds, lambda: lines)
    return parsed._replace(faults=sorted(faults + parsed.faults, key=lambda fault: fault.line))


def _cell_fault(record: Record, cells: Sequence[str]) -> Fault | None:
    """Return what is wrong with the bytes of cells, if they are not UTF-8."""
    for cell in cells:
        if not cell.isascii():
            try:
                cell.encode("latin-1").decode()
            except UnicodeDecodeError as error:
                return not_utf8(record.line, error)
    return None


def _lines(block: Block, header: Header, count: int) -> Sequence[int]:
    """Return the line on which each record of a block begins."""
    if b'"' not in block.data and count == lines_in(block.data) + (block.data[-1:] not in b"\r\n"):
        return range(block.line, block.line + count)
    return [record.line for record in _records(block.data, block.line, header.delimiter)]


def _records(data: bytes, line: int, delimiter: str, strict: bool = False) -> Iterator[Record]:
    """Yield each record that is not blank, as slowly as Python reads."""
    position = 0

    def pulled() -> Iterator[str]:
        nonlocal position
        for each in data.splitlines(keepends=True):
            position += len(each)
            yield each.decode("latin-1")

    reader = csv.reader(pulled(), delimiter=delimiter, strict=strict)
    begin, begun = 0, line
    for cells in reader:
        if cells:
            yield Record(cells, begun, begin, position)
        begin, begun = position, line + reader.line_num


def _records_end(data: bytes, line: int, file: File, header: Header) -> int:
    """Return where the last record ends that is whole whatever follows."""
    quotes = _quotes(data)
    if not _regular(data, quotes, header.delimiter):
        begin = collections.deque(
            (record.begin for record in _csv_records(data, line, file, header)), maxlen=1
        )
        return begin[0] if begin else 0
    end = last_line_end(data)
    while end and (before := int(np.searchsorted(quotes, end))) % 2:
        end = last_line_end(data, int(quotes[before - 1]))
    return end


def _require_closed_quotes(block: Block, file: File, header: Header) -> None:
    """Raise SteepestError if the last quote of a file is never closed: all that follows would be one cell."""
    quotes = _quotes(block.data)
    if len(quotes) % 2 == 0 and _regular(block.data, quotes, header.delimiter):
        return
    # One more record is one of its own unless a quote is still open.
    records = _csv_records(block.data + b"\nend", block.line, file, header)
    *before, last = collections.deque(records, maxlen=2)
    if last.begin <= len(block.data):
        line = before[0].line if before else block.line - 1
        raise _open_quote(file, line, "unexpected end of data")


def _quotes(data: bytes) -> np.ndarray:
    """Return the places of all quotes."""
    if b'"' not in data:
        return np.empty(0, np.int64)
    return np.flatnonzero(np.frombuffer(data, np.uint8) == _QUOTE)


def _csv_records(data: bytes, line: int, file: File, header: Header) -> Iterator[Record]:
    begun = line - 1
    try:
        for record in _records(data, line, header.delimiter):
            yield record
            begun = record.line
    except csv.Error as error:
        raise _open_quote(file, begun, error) from None


def _regular(data: bytes, quotes: np.ndarray, delimiter: str) -> bool:
    """Return whether each quote stands where it opens or closes a cell, or is doubled within one.

    Then a line end outside of quotes is one with an even number of quotes before it; a quote that stands
    for itself in a cell without quotes would upset the count.
    """
    array = np.frombuffer(data, np.uint8)
    ends = np.array([ord(delimiter), *b"\r\n"], np.uint8)
    opening, closing = quotes[::2], quotes[1::2]
    before, after = array[np.maximum(opening - 1, 0)], array[np.minimum(closing + 1, len(data) - 1)]
    opens = np.isin(before, ends) | (opening == 0)
    opens[1:] |= opening[1:] - 1 == closing[: len(opening) - 1]
    closes = np.isin(after, ends) | (after == _QUOTE)
    return bool(opens.all() and closes.all())


def _open_quote(file: File, line: int, error: object) -> SteepestError:
    return SteepestError(
        f"{file.name}, after line {line}: cells that cannot be told apart ({error}).",
        hint="Look for a quote that is never closed.",
    )

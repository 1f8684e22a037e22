"""Text files of rows, a block at a time: what CSV, JSON lines and svmlight have in common."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from steepest.data.faults import PATTERNS
from steepest.data.kinds import SINGULAR, converted, kind_of, likeness
from steepest.data.rows import Rejected, Stretch
from steepest.errors import SteepestError

if TYPE_CHECKING:
    from steepest.data.files import File
    from steepest.data.judging import Judging

BLOCK_BYTES = 8 * 2**20
"""How much of a file is parsed at a time."""

LOOK_BYTES = 2**20
"""How much of a file is looked at when it is opened."""

RECORD_BYTES = 64 * 2**20
"""A record that is longer has a quote that is never closed."""


class Block(NamedTuple):
    """Whole records of a text file.

    Parameters
    ----------
    data
        Their bytes.
    line
        The line of the file, from 1, on which they begin.
    last
        Whether the file ends with them.
    """

    data: bytes
    line: int
    last: bool = False


class Fault(NamedTuple):
    """Why a row can't be used.

    Parameters
    ----------
    line
        The line on which the row begins.
    reason
        What is wrong with it, for a person.
    column, value
        The column whose value is not of its kind, and the value; None if the row itself is broken.
    hint
        What to try next.
    """

    line: int
    reason: str
    column: str | None = None
    value: object = None
    hint: str = ""


class Parsed(NamedTuple):
    """The rows of a block.

    Parameters
    ----------
    rows
        Those that can be used.
    lines
        () -> the line on which each of them begins, from 1; found when it is asked for.
    faults
        What is wrong with the others, in the order of the lines.
    """

    rows: pa.Table
    lines: Callable[[], Sequence[int]]
    faults: list[Fault]


def blocks(
    file: File, stream: Any, size: int, line: int, end_of_records: Callable[[bytes, int], int]
) -> Iterator[Block]:
    """Cut what is left of a stream into blocks of whole records.

    Parameters
    ----------
    file
        The file, for messages.
    stream
        Its bytes.
    size
        The bytes of a block, more or less.
    line
        The line of the file, from 1, on which the stream stands.
    end_of_records
        (bytes that begin with a record, the line they begin on) -> how many of them are whole records for
        certain, whatever follows.

    Yields
    ------
    Block
        None of which is empty.
    """
    held = b""
    while True:
        fresh = stream.read(max(size, len(held)))
        data = held + fresh
        end = end_of_records(data, line) if fresh else len(data)
        if end:
            block = Block(data[:end], line, not fresh)
            yield block
            line += lines_in(block.data)
        elif len(data) > RECORD_BYTES:
            raise SteepestError(
                f"{file.name}, line {line}: a row of more than {RECORD_BYTES >> 20} MiB.",
                hint="Look for a quote that is never closed.",
            )
        if not fresh:
            return
        held = data[end:]


def blocks_of_lines(part: TextPart, size: int) -> Generator[Block, None, None]:
    """Yield a file without a header in blocks, where a record is a line."""
    with part.file.stream() as stream:
        yield from blocks(part.file, stream, size, 1, lambda data, _: last_line_end(data))


def kept_of(names: Sequence[str], wanted: Sequence[str] | None, drop: Sequence[str]) -> list[str]:
    """Return which columns are read: those that are wanted, or by default all, but for those of `drop`."""
    return [name for name in names if name not in drop and (wanted is None or name in wanted)]


def lines_in(data: bytes) -> int:
    r"""Return how many ends of lines there are: ``\n``, ``\r\n`` or ``\r``.

    Examples
    --------
    >>> lines_in(b"a\r\nb\nc\rd")
    3
    """
    ends = int(
        np.count_nonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    )  # several times faster than count
    return ends + (data.count(b"\r") - data.count(b"\r\n") if b"\r" in data else 0)


def last_line_end(data: bytes, stop: int | None = None) -> int:
    r"""Return where the last whole line before `stop` ends; 0 where none does.

    Examples
    --------
    >>> last_line_end(b"one\ntwo\nthr"), last_line_end(b"one"), last_line_end(b"one\rtwo\r")
    (8, 0, 4)
    """
    if b"\n" in data:
        return data.rfind(b"\n", 0, stop) + 1
    return (
        data.rfind(b"\r", 0, len(data) - 1 if stop is None else stop) + 1
    )  # a last one may be half a line end


def usable(
    columns: Mapping[str, pa.ChunkedArray], kinds: Mapping[str, str], lines: Callable[[], Sequence[int]]
) -> Parsed:
    """Take out the rows of a block that have a value that is not of its column's kind.

    Parameters
    ----------
    columns
        The columns, each in a type of its kind, or as text where something in it does not fit.
    kinds
        Column -> its kind, for columns that have one.
    lines
        () -> the line on which each row begins.
    """
    read, bad = dict(columns), {}
    for name, column in columns.items():
        kind = kinds.get(name)
        if kind is not None and kind_of(column.type) not in (kind, None):
            read[name], bad[name] = converted(kind, column)
    if all(fits.all() for fits in bad.values()):
        return Parsed(pa.table(read), lines, [])
    keep = np.logical_and.reduce(list(bad.values()))
    for name, column in read.items():
        read[name] = column.filter(pa.array(keep[bad[name]] if name in bad else keep))
    numbers = lines()
    kept = [numbers[row] for row in np.flatnonzero(keep).tolist()]
    faults = [
        misfit(numbers[row], name, columns[name][row].as_py(), kinds[name])
        for name, fits in bad.items()
        for row in np.flatnonzero(~fits).tolist()
    ]
    return Parsed(pa.table(read), lambda: kept, sorted(faults, key=lambda fault: fault.line))


def misfit(line: int, column: str, value: object, kind: str) -> Fault:
    """Return the fault of a row whose value in a column is not of the column's kind."""
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    return Fault(line, f"column {column!r}: {shown} is not {SINGULAR.get(kind, kind)}", column, value)


def votes(column: pa.ChunkedArray, likely: Sequence[str] = tuple(PATTERNS)) -> collections.Counter[str]:
    """Return how many values of a column, read without knowing its kind, are of each kind.

    Parameters
    ----------
    column
        The values, in the type that the reader took them for.
    likely
        The kinds that values of text may be of.
    """
    kind = kind_of(column.type)
    if kind == "text":
        return likeness(column, likely)
    values = len(column) - column.null_count
    return collections.Counter({kind: values, "text": values} if kind else {})


@dataclass(frozen=True)
class TextPart:
    """A text file, opened: its header or first rows were looked at.

    Parameters
    ----------
    file
        The file.
    called
        What a person calls its format.
    names
        The names of all of its columns.
    schema
        The columns that are read, in the types that the first look took them for.
    votes
        Column -> how many values of the first look were of each kind.
    blocks
        (part, size in bytes) -> the file in blocks of about this size.
    parse
        (part, block, kinds) -> the rows of a block, each column of its kind; a column without a kind in the
        type that the reader takes it for.
    likely
        The kinds that values of text may be of.
    """

    file: File
    called: str
    names: tuple[str, ...]
    schema: pa.Schema
    votes: dict[str, collections.Counter[str]]
    blocks: Callable[[TextPart, int], Generator[Block, None, None]]
    parse: Callable[[TextPart, Block, Mapping[str, str]], Parsed]
    likely: tuple[str, ...]
    rows: None = None

    def read(self, first: int, judging: Judging) -> Iterator[Stretch]:
        """Yield the rows from one on, with all columns."""
        for block in _ahead(self.blocks(self, BLOCK_BYTES)):
            parsed = self.parse(self, block, judging.kinds)
            if judging.settle(parsed.rows, self.likely):
                parsed = self.parse(self, block, judging.kinds)
            judging.count(self, parsed)
            if first < parsed.rows.num_rows or first == 0:
                stretch = self._stretch(parsed, first)
                if stretch.rows.num_rows or stretch.rejected:
                    yield stretch
            first = max(0, first - parsed.rows.num_rows)

    def _stretch(self, parsed: Parsed, skipped: int) -> Stretch:
        """Return the rows of a block, and the faults among them, but for some at its beginning."""
        before = parsed.lines()[skipped - 1] if skipped else 0
        reasons = {fault.line: fault.reason for fault in reversed(parsed.faults) if fault.line > before}

        def locate(row: int) -> str:
            return f"{self.file.name}, line {parsed.lines()[row + skipped]}"

        rejected = tuple(Rejected(self.file.name, line, reasons[line]) for line in sorted(reasons))
        return Stretch(parsed.rows.slice(skipped), locate, rejected)


def _ahead(read: Generator[Block, None, None]) -> Iterator[Block]:
    """Yield blocks, the next of which is read and cut in a thread meanwhile."""
    with contextlib.closing(read), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, read, None)
        while block := waiting.result():
            waiting = pool.submit(next, read, None)
            yield block


def first_block(part: TextPart, content: Callable[[bytes], bytes] = bytes.strip) -> Block | None:
    """Return the first records of a file, or None if it has none.

    Parameters
    ----------
    part
        The file.
    content
        Bytes -> what they hold besides blanks and comments.
    """
    return next((block for block in part.blocks(part, LOOK_BYTES) if content(block.data)), None)


def not_utf8(line: int, error: UnicodeDecodeError) -> Fault:
    """Return the fault of a row whose bytes are not UTF-8."""
    found = error.object[error.start : error.end].hex(" ")
    return Fault(line, f"bytes that are not UTF-8 text ({found})", hint="Save the file as UTF-8.")


def line_error(file: str, fault: Fault) -> SteepestError:
    """Return the error about a fault where none is let go."""
    return SteepestError(f"{file}, line {fault.line}: {fault.reason}.", hint=fault.hint)

"""svmlight files, which LIBSVM reads too: a block of lines to rows.

A line is ``label qid:7 2:0.5 17:1``, of which ``qid`` may be absent and there may be no pairs. What follows
``#`` is a comment.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steepest.data.files import File
from steepest.data.maps import maps_of
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
    votes,
)
from steepest.errors import SteepestError

LABEL, GROUP, FEATURES = "label", "qid", "features"
"""The names of the columns."""

GREATEST = 2**31 - 1
"""The greatest number of a feature that scikit-learn's reader takes."""

_GROUP = b"qid:"

HINT = "Write a label and pairs of a feature's number and its value, numbers rising: 1 2:0.5 17:1."


def open_svmlight(file: File, wanted: Sequence[str] | None, drop: Sequence[str]) -> TextPart:
    """Open an svmlight file: look at its first lines.

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
        If there are no rows that can be used.
    """

    def parse(part: TextPart, block: Block, _: Mapping[str, str]) -> Parsed:
        return parse_svmlight(part, block)

    part = TextPart(file, "svmlight", (), pa.schema([]), {}, blocks_of_lines, parse, ())
    first = first_block(part, _first_row)
    if first is None:
        raise SteepestError(f"{file.name} is empty: it has no rows.", hint="Name another file.")
    names = (LABEL, GROUP, FEATURES) if _GROUP in _first_row(first.data) else (LABEL, FEATURES)
    kept = kept_of(names, wanted, drop)
    part = replace(part, names=names, schema=pa.schema([(name, pa.null()) for name in kept]))
    rows, _, faults = parse_svmlight(part, first)
    if not rows.num_rows:
        raise line_error(file.name, faults[0])
    return replace(part, schema=rows.schema, votes={name: votes(rows[name]) for name in kept})


def parse_svmlight(part: TextPart, block: Block) -> Parsed:
    """Read a block of lines.

    Parameters
    ----------
    part
        The file: its `names` are all columns, its `schema` has those to read.
    block
        Whole lines.
    """
    grouped = GROUP in part.names
    rows = None
    if grouped or _GROUP not in block.data:  # a qid that the first line lacks would be passed over
        rows = _read(block.data, grouped)
    if rows is not None:
        count = rows.num_rows
        return Parsed(rows.select(part.schema.names), functools.cache(lambda: _lines(block, count)), [])
    sound, lines, faults = _sound(block, grouped)
    rows = _read(b"\n".join(sound), grouped)
    if rows is None:
        raise SteepestError(
            f"{part.file.name}, lines {block.line} to {block.line + lines_in(block.data)}: what stands there"
            " can't be read.",
            hint=HINT,
        )
    return Parsed(rows.select(part.schema.names), lambda: lines, faults)


def _read(data: bytes, grouped: bool) -> pa.Table | None:
    """Return the rows of lines in which nothing is wrong, or None."""
    from sklearn.datasets import load_svmlight_file

    try:
        matrix, labels, *groups = load_svmlight_file(io.BytesIO(data), zero_based=True, query_id=grouped)
    except (ValueError, OverflowError):
        return None
    columns = {LABEL: _numbers(labels)}
    if grouped:
        if len(groups[0]) != len(labels):  # some lines have none
            return None
        columns[GROUP] = pa.array(groups[0])
    return pa.table({**columns, FEATURES: maps_of(matrix.indptr, matrix.indices, matrix.data)})


def _numbers(labels: npt.NDArray[np.float64]) -> pa.Array:
    """Return labels as whole numbers where all of them are; NaN is a missing one."""
    found = pa.array(labels, from_pandas=True)
    whole = (np.isnan(labels) | (np.floor(labels) == labels)) & ~(np.abs(labels) >= 2.0**53)
    return found.cast(pa.int64()) if whole.all() else found


def _sound(block: Block, grouped: bool) -> tuple[list[bytes], list[int], list[Fault]]:
    """Return what can be read of the lines of a block, on which lines it stands, and what can't."""
    sound, lines, faults = [], [], []
    for line, text in enumerate(block.data.splitlines(), start=block.line):
        content = _content(text)
        if not content:
            continue
        if reason := _why_broken(content, grouped):
            faults.append(Fault(line, reason, hint=HINT))
        else:
            sound.append(content)
            lines.append(line)
    return sound, lines, faults


def _content(line: bytes) -> bytes:
    """Return a line without its comment."""
    return line.partition(b"#")[0].strip()


def _first_row(data: bytes) -> bytes:
    """Return the first line that is more than a comment, or nothing."""
    return next(filter(None, map(_content, data.splitlines())), b"")


def _why_broken(content: bytes, grouped: bool) -> str:
    """Return what is wrong with a line, or nothing."""
    label, *pairs = content.split()
    if not _is(float, label):
        return f"the label {_shown(label)} is no number"
    if grouped != (bool(pairs) and pairs[0].startswith(_GROUP)):
        return f"{'no qid' if grouped else 'a qid'}, other than in the file's first row"
    if grouped and not _is(int, pairs.pop(0)[len(_GROUP) :]):
        return "its qid is no whole number"
    return _why_broken_pairs(pairs)


def _why_broken_pairs(pairs: list[bytes]) -> str:
    before = -1
    for pair in pairs:
        number, _, value = pair.partition(b":")
        if not (_is(int, number) and _is(float, value)):
            return f"{_shown(pair)} is no pair of a whole number and a number, such as 17:0.5"
        if not 0 <= int(number) <= GREATEST:
            return f"features are numbered from 0 to {GREATEST:,}, not {int(number):,}"
        if int(number) <= before:
            return f"feature {int(number)} comes after {before}: numbers must rise"
        before = int(number)
    return ""


def _is(kind: type[int] | type[float], text: bytes) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _shown(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", "replace"))


def _lines(block: Block, count: int) -> Sequence[int]:
    """Return the line of each row of a block of which each line with content is a row."""
    if count == lines_in(block.data) + (block.data[-1:] not in b"\r\n"):
        return range(block.line, block.line + count)
    return [line for line, text in enumerate(block.data.splitlines(), start=block.line) if _content(text)]

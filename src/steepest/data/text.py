"""Text files of rows, CSV and JSON lines: reading them, and naming the line that breaks one."""

from __future__ import annotations

import collections
import contextlib
import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from steepest.data.faults import PATTERNS, looks_like, mixed_types, require_distinct, standing
from steepest.errors import SteepestError

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
"""The texts of a CSV cell that stand for a missing value, in columns of every type."""

Wanted = Callable[[str], bool]


def _text(path: str, errors: str = "strict") -> io.TextIOWrapper:
    """Open a text file, compressed or not, without touching its line ends."""
    stream = pa.input_stream(path, compression="detect")
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors=errors, newline="")


def _undecodable(path: str) -> SteepestError | None:
    """Return the error that names the first line that is not UTF-8, if there is one."""
    with pa.input_stream(path, compression="detect") as stream:
        for number, line in enumerate(io.BufferedReader(stream), start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                found = line[error.start : error.end].hex(" ")
                return SteepestError(
                    f"{path}, line {number}: bytes that are not UTF-8 text ({found}).",
                    hint="Save the file as UTF-8.",
                )
    return None


# CSV ---------------------------------------------------------------------------------------------------


def _delimiter(path: str) -> str:
    """Return what separates a file's fields: the likeliest of the marks in its first line, else a comma."""
    if ".tsv" in Path(path.lower()).suffixes:
        return "\t"
    with _text(path, errors="replace") as lines:
        header = lines.readline()
    return max(",;\t|", key=header.count)


def _csv_records(path: str, lines: io.TextIOWrapper, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not blank and the line that it begins on, as slowly as Python reads."""
    reader = csv.reader(lines, delimiter=_delimiter(path), strict=strict)
    begins = 1
    for record in reader:
        if record:
            yield begins, record
        begins = reader.line_num + 1


def csv_line(path: str, row: int) -> int | None:
    """Return the line of a CSV file, from 1, on which a row, from 0, begins; None where Python cannot say."""
    with _text(path, errors="replace") as lines:
        records = itertools.islice(_csv_records(path, lines), row + 1, None)
        try:
            return next((line for line, _ in records), None)
        except csv.Error:
            return None


def read_csv(path: str, wanted: Wanted) -> tuple[pa.Table, tuple[str, ...]]:
    """Read a CSV or TSV file, as `steepest.data.formats.read_file` says."""
    names, filled = _csv_header(path)
    kept = [name for name in names if wanted(name)]
    if not filled:
        return pa.table({name: pa.nulls(0) for name in kept}), names
    try:
        # Types are inferred from the whole file: a column is widened, and read anew, as often as needed.
        rows = pyarrow.csv.read_csv(
            path,
            parse_options=pyarrow.csv.ParseOptions(delimiter=_delimiter(path), newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=kept, null_values=list(MISSING), strings_can_be_null=True
            ),
        ).select(kept)
    except pa.ArrowInvalid as error:
        raise (_csv_fault(path, len(names)) or error) from None
    if any(pa.types.is_binary(column.type) for column in rows.columns):
        raise _undecodable(path) or SteepestError(f"{path} is not UTF-8 text.", hint="Save it as UTF-8.")
    if _odd_quotes(path) and (fault := _csv_fault(path, len(names))):
        raise fault  # the reader takes all that follows an open quote for one value: rows would be lost
    for name in kept:
        _require_one_type(path, name, rows[name])
    return rows, names


def _csv_header(path: str) -> tuple[tuple[str, ...], bool]:
    """Return the names of a CSV file's columns, and whether a row follows."""
    try:
        with _text(path) as lines:
            beginning = [record for _, record in itertools.islice(_csv_records(path, lines), 2)]
    except UnicodeDecodeError as error:
        raise (_undecodable(path) or error) from None
    except csv.Error as error:
        raise _open_quote(path, 0, error) from None
    if not beginning:
        raise SteepestError(f"{path} is empty: it has no line of column names.", hint="Name another file.")
    require_distinct(beginning[0], path)
    if len(beginning) == 1 and _odd_quotes(path):
        raise _open_quote(path, 0, "unexpected end of data")
    return tuple(beginning[0]), len(beginning) > 1


def _csv_fault(path: str, columns: int) -> SteepestError | None:
    """Return the error about the first line that breaks the CSV file, if one does."""
    with _text(path, errors="replace") as lines:
        line, record = 1, [""]
        try:
            for line, record in _csv_records(path, lines, strict=True):
                if len(record) != columns:
                    return SteepestError(
                        f"{path}, line {line}: {len(record)} cells for the {columns} columns of line 1.",
                        hint="Correct the line; a cell that contains the delimiter needs quotes around it.",
                    )
        except csv.Error as error:
            return _open_quote(path, line, error)
    return None


def _open_quote(path: str, line: int, error: object) -> SteepestError:
    return SteepestError(
        f"{path}, after line {line}: cells that cannot be told apart ({error}).",
        hint="Look for a quote that is never closed.",
    )


def _odd_quotes(path: str) -> bool:
    """Return whether a CSV file has an odd number of quotes, as one with an open quote has."""
    count = 0
    with pa.input_stream(path, compression="detect") as stream:
        while block := stream.read(1 << 22):
            count += int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord('"')))
    return count % 2 == 1


def _require_one_type(path: str, name: str, column: pa.ChunkedArray) -> None:
    """Raise SteepestError if a column of text is for the most part numbers or dates."""
    if not pa.types.is_string(column.type):
        return
    counts = pc.value_counts(column.drop_null())
    for kind in PATTERNS:
        likes = pc.sum(counts.field("counts").filter(looks_like(kind, counts.field("values")))).as_py() or 0
        others = len(column) - column.null_count - likes
        if likes >= others > 0:
            row = pc.index(looks_like(kind, column), False).as_py()
            where = standing(path, row, csv_line(path, row))
            raise mixed_types(name, kind, column[row].as_py(), where, others)


# JSON lines --------------------------------------------------------------------------------------------


def json_line(path: str, row: int) -> int | None:
    """Return the line of a JSON file, from 1, of a row, from 0; None where an object is not just a line."""
    with _text(path, errors="replace") as lines:
        filled = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
        passed = list(itertools.islice(filled, row + 1))
    try:
        for _, line in passed:
            json.loads(line)
    except ValueError:
        return None
    return passed[row][0]


def read_json(path: str, wanted: Wanted) -> tuple[pa.Table, tuple[str, ...]]:
    """Read a file of one JSON object a line, as `steepest.data.formats.read_file` says."""
    try:
        rows = pyarrow.json.read_json(path)
    except pa.ArrowInvalid as error:
        rows, names = _read_json_slowly(path, wanted, error)
    else:
        names = tuple(rows.column_names)
    require_distinct(names, path)
    try:
        rows.validate(full=True)
    except pa.ArrowInvalid as error:
        raise (_undecodable(path) or error) from None
    kept = [name for name in rows.column_names if wanted(name)]
    return pa.table([_with_times(rows[name]) for name in kept], names=kept), names


def _with_times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return text that is all times as times: the reader of JSON itself knows none below a second."""
    if not pa.types.is_string(column.type) or not pc.all(looks_like("dates", column.unique())).as_py():
        return column
    for zone in (None, "UTC"):
        with contextlib.suppress(pa.ArrowInvalid):  # some times have a zone, or all do
            return column.cast(pa.timestamp("us", zone))
    return column


def _read_json_slowly(path: str, wanted: Wanted, error: pa.ArrowInvalid) -> tuple[pa.Table, tuple[str, ...]]:
    """Name the line that breaks a JSON file, or read it without the mixed columns that nobody wants."""
    objects: list[dict[str, Any]] = []
    with _text(path, errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                objects.append(_json_object(path, number, line))
    if not objects:
        raise SteepestError(f"{path} is empty: it has no rows.", hint="Name another file.")
    names = tuple(dict.fromkeys(name for each in objects for name in each))
    for name in filter(wanted, names):
        _require_one_json_type(path, name, [each.get(name) for each in objects])
    if all(map(wanted, names)):
        raise error
    left = "\n".join(json.dumps({name: each[name] for name in each if wanted(name)}) for each in objects)
    return pyarrow.json.read_json(io.BytesIO(left.encode())), names


def _json_object(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise SteepestError(
            f"{path}, line {number}: broken JSON ({error}).", hint="Write one JSON object a line."
        ) from None
    if not isinstance(value, dict):
        raise SteepestError(
            f"{path}, line {number}: a JSON {type(value).__name__} instead of an object.",
            hint='Write one JSON object a line, such as {"name": value}.',
        )
    return value


def _require_one_json_type(path: str, name: str, values: list[Any]) -> None:
    """Raise SteepestError if the values of a column have more than one JSON type."""
    kinds = {bool: "booleans", int: "numbers", float: "numbers", str: "text", list: "lists", dict: "objects"}
    found = [(row, kinds[type(value)]) for row, value in enumerate(values) if value is not None]
    counts = collections.Counter(kind for _, kind in found)
    if len(counts) > 1:
        usual = counts.most_common(1)[0][0]
        row = next(row for row, kind in found if kind != usual)
        others = len(found) - counts[usual]
        raise mixed_types(name, usual, values[row], standing(path, row, json_line(path, row)), others)

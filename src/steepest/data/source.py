"""Rows from files, frames and arrays: everything that can be opened becomes one Arrow table."""

from __future__ import annotations

import bisect
import collections
import glob
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.faults import PATTERNS, looks_like, mixed_types, require_distinct, standing
from steepest.data.formats import is_table, place, read_file
from steepest.errors import SteepestError, nearest

KINDS = (
    (pa.types.is_boolean, "booleans"),
    (pa.types.is_integer, "numbers"),
    (pa.types.is_floating, "numbers"),
    (pa.types.is_decimal, "numbers"),
    (pa.types.is_temporal, "dates"),
    (pa.types.is_string, "text"),
    (pa.types.is_large_string, "text"),
)


@dataclass(frozen=True)
class Table:
    """Rows, and where each of them came from.

    Parameters
    ----------
    rows
        The rows of all files, in the order of the files.
    files
        The files' names; ``("memory",)`` for rows that came from no file.
    row_counts
        The number of rows of each file.

    Examples
    --------
    >>> table = table_of({"distance": [100, 200], "late": [True, False]})
    >>> table.rows.num_rows, table.files, table.locate(1)
    (2, ('memory',), 'memory, row 2')
    """

    rows: pa.Table
    files: tuple[str, ...]
    row_counts: tuple[int, ...]

    def locate(self, row: int) -> str:
        """Return where a row came from, for a person.

        Parameters
        ----------
        row
            The row of `rows`, counted from 0.

        Returns
        -------
        str
            The file and, in CSV and JSON lines, the line on which the row begins (counted from 1, the line of
            column names included); otherwise the row within the file (counted from 1). To find the line, the
            file is read again up to it.

        Raises
        ------
        IndexError
            If there is no such row.
        """
        if not 0 <= row < self.rows.num_rows:
            raise IndexError(row)
        ends = list(itertools.accumulate(self.row_counts))
        file = bisect.bisect_right(ends, row)
        return place(self.files[file], row - (ends[file] - self.row_counts[file]))


def read_table(
    patterns: Sequence[str], drop: Sequence[str] = (), *, columns: Sequence[str] | None = None
) -> Table:
    """Read files as one table.

    Parameters
    ----------
    patterns
        Names of files, or globs (``**`` too): CSV, TSV and JSON lines (also compressed), Parquet, Arrow and
        Feather. The order of the rows is the order of the patterns; the files of a glob are sorted by name.
    drop
        Names of columns to leave out; they are not even converted.
    columns
        Names of the columns to read, all of which must be there; by default all but those of `drop`.

    Returns
    -------
    Table
        The columns in the order of the first file. Integers in one file and decimals in another become
        decimals; nothing but missing values in one takes the type of another.

    Raises
    ------
    SteepestError
        If a file is missing, unreadable or broken, if there are no rows, if the files differ in their
        columns, or if a column mixes types.
    """
    files = _find(patterns)
    dropped, chosen = set(drop), None if columns is None else set(columns)
    tables: list[pa.Table] = []
    everything: dict[str, None] = {}
    for file in files:
        rows, names = read_file(file, lambda name: name not in dropped and (chosen is None or name in chosen))
        everything |= dict.fromkeys(names)
        if missing := next((name for name in columns or () if name not in names), None):
            raise SteepestError(f"{file} has no column {missing!r}.", hint=nearest(missing, names))
        if tables:
            _require_same_columns(files[0], tables[0].column_names, file, rows.column_names)
        tables.append(rows)
    if not tables[0].column_names:
        raise SteepestError(f"{files[0]} has no column left.", hint="Leave fewer columns out.")
    if unknown := next((name for name in drop if name not in everything), None):
        raise SteepestError(
            f"{files[0]} has no column {unknown!r} to leave out.", hint=nearest(unknown, everything)
        )
    if not any(rows.num_rows for rows in tables):
        raise SteepestError(f"{files[0]} has column names but no rows.", hint="Name a file that has rows.")
    return Table(_concatenate(files, tables), files, tuple(rows.num_rows for rows in tables))


def table_of(frame: Any) -> Table:
    """Return rows in memory as a table.

    Parameters
    ----------
    frame
        A pandas DataFrame (its index is left out), a PyArrow table, or a mapping of names to equally long
        one-dimensional arrays.

    Returns
    -------
    Table
        NaN in pandas and NumPy columns counts as missing.

    Raises
    ------
    SteepestError
        If it is none of these, has no rows, has a name twice, or a column mixes types.
    """
    if isinstance(frame, pa.Table):
        names, values = frame.column_names, frame.columns
    elif isinstance(frame, Mapping):
        names, values = [str(name) for name in frame], list(frame.values())
    elif hasattr(frame, "columns") and hasattr(frame, "iloc"):
        names = [str(name) for name in frame.columns]
        values = [frame.iloc[:, index] for index in range(len(names))]
    else:
        raise SteepestError(
            f"rows cannot be taken from a {type(frame).__name__}.",
            hint="Give a pandas DataFrame, a PyArrow table or a dictionary of arrays.",
        )
    require_distinct(names, "the table")
    arrays = [_array(name, column) for name, column in zip(names, values, strict=True)]
    lengths = {name: len(array) for name, array in zip(names, arrays, strict=True)}
    if len(set(lengths.values())) > 1:
        raise SteepestError(
            f"the columns differ in length: {lengths}.", hint="Give each column one value a row."
        )
    rows = pa.table(arrays, names=names)
    if rows.num_rows == 0:
        raise SteepestError("the table has no rows.", hint="Give at least one row.")
    return Table(rows, ("memory",), (rows.num_rows,))


def _array(name: str, values: Any) -> Any:
    """Return one column in memory as an Arrow array."""
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        found = list(values) if hasattr(values, "__iter__") else []
        kinds = [_kind_of(value) for value in found]
        counts = collections.Counter(kind for kind in kinds if kind)
        if len(counts) < 2:
            raise SteepestError(
                f"column {name!r} cannot be read: {str(error).splitlines()[0]}.",
                hint="Give it numbers, text, booleans, dates or times.",
            ) from None
        usual = counts.most_common(1)[0][0]
        row = next(row for row, kind in enumerate(kinds) if kind and kind != usual)
        others = counts.total() - counts[usual]
        raise mixed_types(
            name, f"values of the type {usual}", found[row], standing("memory", row), others
        ) from None


def _kind_of(value: object) -> str:
    """Return the name of a value's Python type, or nothing for a missing value."""
    kind = type(value).__name__
    missing = kind in ("NoneType", "NAType", "NaTType") or (isinstance(value, float) and math.isnan(value))
    return "" if missing else kind


def _find(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the files that names and globs stand for, in their order."""
    files: list[str] = []
    for pattern in patterns:
        if Path(pattern).is_dir():
            raise SteepestError(
                f"{pattern} is a folder, not a file.", hint=f"Name its files: '{Path(pattern) / '*.csv'}'."
            )
        if Path(pattern).is_file():
            files.append(pattern)
        elif glob.has_magic(pattern):
            # Path.glob cannot say where an absolute pattern begins.
            found = sorted(each for each in glob.glob(pattern, recursive=True) if Path(each).is_file())  # noqa: PTH207
            if not found:
                raise SteepestError(
                    f"no file matches '{pattern}'.", hint="Check the folder and the ending of the pattern."
                )
            files += found
        else:
            raise _missing(Path(pattern))
    if not files:
        raise SteepestError("no file is named.", hint="Name one or several files, or a glob such as '*.csv'.")
    twice = next((file for index, file in enumerate(files) if file in files[:index]), None)
    if twice:
        raise SteepestError(
            f"{twice} is named twice, so its rows would count twice.", hint="Name each file once."
        )
    return tuple(files)


def _missing(path: Path) -> SteepestError:
    folder = path.parent
    if not folder.is_dir():
        return SteepestError(f"there is no folder {folder}.", hint=f"So there is no file {path} either.")
    tables = sorted(each.name for each in folder.iterdir() if each.is_file() and is_table(each.name))
    hint = nearest(path.name, tables) if tables else f"The folder {folder} has no file that can be read."
    return SteepestError(f"there is no file {path}.", hint=hint)


def _require_same_columns(first: str, expected: Sequence[str], file: str, names: Sequence[str]) -> None:
    """Raise SteepestError unless two files have the same columns, in any order."""
    lacks = [name for name in expected if name not in names]
    extra = [name for name in names if name not in expected]
    if lacks or extra:
        says = [f"lacks {', '.join(map(repr, lacks[:5]))}"] if lacks else []
        says += [f"also has {', '.join(map(repr, extra[:5]))}"] if extra else []
        raise SteepestError(
            f"{file} differs from {first} in its columns: it {' and '.join(says)}.",
            hint="Give the files the same columns, or leave a column out with --drop.",
        )


def _concatenate(files: Sequence[str], tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of all tables, each column in the type that holds all of its values."""
    if all(table.schema.equals(tables[0].schema) for table in tables):
        return pa.concat_tables(tables)
    whole = []
    for name in tables[0].column_names:
        parts = [table[name] for table in tables]
        common = _common_type([part.type for part in parts])
        if common is None:
            raise _mixed_files(name, files, parts)
        # An integer beyond 2^53 is rounded, as it is when one file holds it beside a decimal.
        safe = not pa.types.is_floating(common)
        chunks = [chunk for part in parts for chunk in part.cast(common, safe=safe).chunks]
        whole.append(pa.chunked_array(chunks, common))
    return pa.table(whole, names=tables[0].column_names)


def _common_type(types: Sequence[pa.DataType]) -> pa.DataType | None:
    """Return the narrowest type that holds the values of all types, or None."""
    plain = {each.value_type if pa.types.is_dictionary(each) else each for each in types}
    if any(map(pa.types.is_timestamp, plain)):
        plain = {pa.timestamp("s") if pa.types.is_date(each) else each for each in plain}
    try:
        schemas = [pa.schema([("column", each)]) for each in sorted(plain, key=str)]
        return pa.unify_schemas(schemas, promote_options="permissive").field("column").type
    except pa.ArrowTypeError:
        return None


def _mixed_files(name: str, files: Sequence[str], parts: Sequence[pa.ChunkedArray]) -> SteepestError:
    """Return the error about a column whose types in several files do not go together."""
    kinds = [next((kind for fits, kind in KINDS if fits(part.type)), str(part.type)) for part in parts]
    if len({*kinds} - {"null"}) == 1:
        kinds = [f"values of the type {part.type}" for part in parts]
    usual = next(kind for kind in kinds if kind not in ("text", "null"))
    odd = next(index for index, kind in enumerate(kinds) if kind not in (usual, "null"))
    part = parts[odd]
    other = pc.is_valid(part)
    if kinds[odd] == "text" and usual in PATTERNS:
        unlike = pc.invert(looks_like(usual, part))
        other = unlike if pc.any(unlike).as_py() else other
    row = pc.index(other, True).as_py()
    return mixed_types(name, usual, part[row].as_py(), place(files[odd], row), pc.sum(other).as_py())

"""What is said about a table whose columns cannot be told apart or mix types."""

from __future__ import annotations

import collections
import datetime
import shlex
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from steepest.errors import SteepestError

_DAY, _TIME = r"\d{4}-\d{2}-\d{2}", r"\d{2}(:\d{2}(:\d{2}(\.\d{1,9})?)?)?"

PATTERNS = {
    "numbers": r"^[ \t]*[+-]?(\d+\.?\d*|\.\d+|(?i:inf(inity)?))([eE][+-]?\d+)?[ \t]*$",
    "dates": rf"^{_DAY}([T ]{_TIME})?$",
    "dates with a time zone": rf"^{_DAY}[T ]{_TIME}(Z|[+-]\d{{2}}(:?\d{{2}})?)$",
    "times": r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$",
    "booleans": r"^(true|True|TRUE|false|False|FALSE|0|1)$",
}
"""What values of a kind look like in text."""


def looks_like(kind: str, texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return which texts are of a kind.

    Parameters
    ----------
    kind
        A key of `PATTERNS`.
    texts
        Text [rows].

    Returns
    -------
    pyarrow.Array
        Bool [rows], missing where the text is. A date must be one that the calendar has.

    Examples
    --------
    >>> looks_like("numbers", pa.array(["-1.5e3", "late", None])).to_pylist()
    [True, False, None]
    >>> looks_like("dates", pa.array(["2013-02-28", "2013-02-29"])).to_pylist()
    [True, False]
    """
    alike = pc.match_substring_regex(texts, PATTERNS[kind])
    if kind.startswith("dates") and pc.any(alike).as_py():
        alike = pc.and_(alike, pa.array(map(_is_date, texts.to_pylist()), pa.bool_()))
    return alike


def standing(path: str, row: int, line: int | None = None) -> str:
    """Return where a row stands, for a person; rows are counted from 0, lines from 1.

    Examples
    --------
    >>> standing("flights.csv", 16, 18), standing("flights.parquet", 16)
    ('flights.csv, line 18', 'flights.parquet, row 17')
    """
    return f"{path}, row {row + 1}" if line is None else f"{path}, line {line}"


def mixed_types(
    column: str, kind: str, value: object, where: str, count: int, *, rejectable: bool = False
) -> SteepestError:
    """Return the error about a column of one kind in which some values are of another.

    Parameters
    ----------
    column
        The column's name.
    kind
        What it mostly holds: "numbers", "dates", ...
    value
        The first value that is of another kind.
    where
        Where that stands.
    count
        How many there are.
    rejectable
        Whether such rows could be let go.
    """
    others = "1 value that is not:" if count == 1 else f"{count:,} values that are not, the first:"
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    return SteepestError(
        f"column {column!r} mixes types: it holds {kind}, but has {others} {shown} ({where}).",
        hint=f"Correct them, or leave the column out with --drop {shlex.quote(column)}."
        + (" Or allow a share of such rows with --max-rejected." if rejectable else ""),
    )


def require_distinct(names: Sequence[str], where: str) -> None:
    """Raise SteepestError unless there are columns and each has a name of its own.

    Parameters
    ----------
    names
        The names of the columns.
    where
        The file, for the message.
    """
    if not names:
        raise SteepestError(f"{where} has no columns.", hint="Write it again, or name another file.")
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise SteepestError(
            f"{where} has more than one column named {', '.join(map(repr, twice[:5]))}.",
            hint="Give each column a name of its own.",
        )


def _is_date(text: str | None) -> bool:
    try:
        datetime.datetime.fromisoformat(text or "")
    except ValueError:
        return False
    return True

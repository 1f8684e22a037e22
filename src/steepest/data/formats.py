"""One file to one Arrow table: the formats that can be read, and what is said about a broken file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from steepest.data.faults import require_distinct, standing
from steepest.data.text import Wanted, csv_line, json_line, read_csv, read_json
from steepest.errors import SteepestError

COMPRESSED = (".gz", ".bz2", ".zst")
"""Endings of compressed text files."""


@dataclass(frozen=True)
class Format:
    """How one kind of file is read.

    Parameters
    ----------
    name
        What a person calls it.
    read
        (path, which columns are wanted) -> (the wanted columns, the names of all columns in the file).
    line
        (path, row counted from 0) -> the line of the file that the row begins on, counted from 1, or None
        where it cannot be said. None for formats that have no lines.
    """

    name: str
    read: Callable[[str, Wanted], tuple[pa.Table, tuple[str, ...]]]
    line: Callable[[str, int], int | None] | None = None


def read_file(path: str, wanted: Wanted) -> tuple[pa.Table, tuple[str, ...]]:
    """Read the wanted columns of one file.

    Parameters
    ----------
    path
        The file; its ending says the format.
    wanted
        Whether a column of this name is to be read. The others are not even converted.

    Returns
    -------
    tuple
        The wanted columns in the file's order, and the names of all its columns.

    Raises
    ------
    SteepestError
        If the ending is unknown, or the file is empty, broken, or has two columns of one name.
    """
    format_ = _format_of(path)
    if format_ is None:
        raise SteepestError(
            f"{path}: this kind of file cannot be read.",
            hint=f"Known endings: {', '.join(FORMATS)}; after those of text also {', '.join(COMPRESSED)}.",
        )
    try:
        if Path(path).stat().st_size == 0:
            raise SteepestError(f"{path} is empty (0 bytes).", hint="Write it again, or name another file.")
        rows, names = format_.read(path, wanted)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0]
        raise SteepestError(
            f"{path} cannot be read as {format_.name}: {reason.rstrip('.')}.",
            hint="Check that the file is complete and that its ending fits its content.",
        ) from error
    return rows.replace_schema_metadata(None), names


def is_table(path: str) -> bool:
    """Return whether the name's ending is one that can be read.

    Examples
    --------
    >>> is_table("flights.csv.gz"), is_table("notes.txt")
    (True, False)
    """
    return _format_of(path) is not None


def place(path: str, row: int) -> str:
    """Return where a row stands, for a person: the line of a text file, the row of any other.

    Parameters
    ----------
    path
        The file.
    row
        The row, counted from 0.

    Examples
    --------
    >>> place("memory", 16)
    'memory, row 17'
    """
    format_ = _format_of(path)
    try:
        line = format_.line(path, row) if format_ and format_.line else None
    except (pa.ArrowException, OSError):  # the file is no longer what it was
        line = None
    return standing(path, row, line)


def _format_of(path: str) -> Format | None:
    """Return the format that the name's ending stands for, or None."""
    endings = [ending.lower() for ending in Path(path).suffixes]
    text = len(endings) > 1 and endings[-1] in COMPRESSED
    ending = endings[-2] if text else "".join(endings[-1:])
    return FORMATS.get(ending) if not text or ending in TEXT_FORMATS else None


# Parquet and Arrow -------------------------------------------------------------------------------------


def _read_parquet(path: str, wanted: Wanted) -> tuple[pa.Table, tuple[str, ...]]:
    with pq.ParquetFile(path) as file:
        names = tuple(file.schema_arrow.names)
        require_distinct(names, path)
        kept = [name for name in names if wanted(name)]
        return file.read(columns=kept).select(kept), names


def _read_arrow(path: str, wanted: Wanted) -> tuple[pa.Table, tuple[str, ...]]:
    with pa.OSFile(path) as file:
        in_blocks = file.read(6) == b"ARROW1"
        file.seek(0)
        rows = (pa.ipc.open_file(file) if in_blocks else pa.ipc.open_stream(file)).read_all()
    rows.validate(full=True)  # the reader trusts offsets that a broken file may have
    names = tuple(rows.column_names)
    require_distinct(names, path)
    return rows.select([name for name in names if wanted(name)]), names


_CSV = Format("CSV", read_csv, csv_line)
_JSON = Format("JSON lines", read_json, json_line)
_ARROW = Format("Arrow", _read_arrow)

TEXT_FORMATS = {".csv": _CSV, ".tsv": _CSV, ".jsonl": _JSON, ".ndjson": _JSON, ".json": _JSON}

FORMATS = {
    **TEXT_FORMATS,
    ".parquet": Format("Parquet", _read_parquet),
    ".arrow": _ARROW,
    ".feather": _ARROW,
    ".ipc": _ARROW,
}
"""Ending of a file's name -> its format."""

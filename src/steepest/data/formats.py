"""The formats of files that can be read, by the endings of their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from steepest.data.columnar import ArrowPart, ParquetPart, open_arrow, open_parquet
from steepest.data.csv_text import open_csv
from steepest.data.files import COMPRESSED, File, endings
from steepest.data.json_text import open_json
from steepest.data.svmlight_text import open_svmlight
from steepest.data.text import TextPart
from steepest.errors import SteepestError

Part = TextPart | ParquetPart | ArrowPart


class Format(NamedTuple):
    """How one kind of file is opened.

    Parameters
    ----------
    called
        What a person calls it.
    open
        (file, the columns to read or None for all, the columns to leave out) -> the file, opened.
    """

    called: str
    open: Callable[[File, Sequence[str] | None, Sequence[str]], Part]


_CSV, _JSON, _ARROW = Format("CSV", open_csv), Format("JSON lines", open_json), Format("Arrow", open_arrow)
_SVMLIGHT = Format("svmlight", open_svmlight)

TEXT_FORMATS = {
    **{".csv": _CSV, ".tsv": _CSV},
    **{".jsonl": _JSON, ".ndjson": _JSON, ".json": _JSON},
    **{".svmlight": _SVMLIGHT, ".libsvm": _SVMLIGHT, ".svm": _SVMLIGHT},
}

FORMATS = {
    **TEXT_FORMATS,
    ".parquet": Format("Parquet", open_parquet),
    ".arrow": _ARROW,
    ".feather": _ARROW,
    ".ipc": _ARROW,
}
"""Ending of a file's name -> its format."""


def open_part(file: File, wanted: Sequence[str] | None, drop: Sequence[str]) -> Part:
    """Open a file: read its footer, schema or first block.

    Parameters
    ----------
    file
        The file; the ending of its name says the format.
    wanted
        The columns to read; by default all but those of `drop`.
    drop
        The columns to leave out; they are not even converted.

    Raises
    ------
    SteepestError
        If the ending is unknown, or the file is broken, or has two columns of one name.
    """
    format_ = _format_of(file.endings)
    if format_ is None:
        raise SteepestError(
            f"{file.name}: this kind of file cannot be read.",
            hint=f"Known endings: {', '.join(FORMATS)}; after those of text also {', '.join(COMPRESSED)}.",
        )
    with file.reading(format_.called):
        return format_.open(file, wanted, drop)


def is_table(name: str) -> bool:
    """Return whether the name's ending is one that can be read.

    Examples
    --------
    >>> is_table("flights.csv.gz"), is_table("notes.txt")
    (True, False)
    """
    return _format_of(endings(name)) is not None


def _format_of(found: Sequence[str]) -> Format | None:
    """Return the format that the endings of a name stand for, or None."""
    text = len(found) > 1 and found[-1] in COMPRESSED
    ending = found[-2] if text else "".join(found[-1:])
    return FORMATS.get(ending) if not text or ending in TEXT_FORMATS else None

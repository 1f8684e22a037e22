"""A table to a file, CSV or Parquet by its ending; complete or absent, because it is written aside."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from steepest.errors import SteepestError

WRITERS = {".csv": pyarrow.csv.write_csv, ".parquet": pyarrow.parquet.write_table}


def check_ending(path: Path) -> None:
    """Refuse a file name whose ending names no format.

    Raises
    ------
    SteepestError
        With the endings that there are.
    """
    if path.suffix.lower() not in WRITERS:
        raise SteepestError(f"{path} names no format.", hint="Name a file that ends in .csv or .parquet.")


def write_table(table: pa.Table, path: Path) -> None:
    """Write the table.

    Raises
    ------
    SteepestError
        If the ending names no format, or the file can't be written.
    """
    check_ending(path)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[path.suffix.lower()](table, str(aside))
        aside.replace(path)
    except OSError as error:
        raise SteepestError(f"{path} can't be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)

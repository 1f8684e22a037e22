"""Tables to a file, CSV or Parquet by its ending; complete or absent, because it is written aside."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from steepest.errors import SteepestError

WRITERS = {".csv": pyarrow.csv.CSVWriter, ".parquet": pyarrow.parquet.ParquetWriter}


def check_ending(path: Path) -> None:
    """Refuse a file name whose ending names no format.

    Raises
    ------
    SteepestError
        With the endings that there are.
    """
    if path.suffix.lower() not in WRITERS:
        raise SteepestError(f"{path} names no format.", hint="Name a file that ends in .csv or .parquet.")


def write_tables(tables: Iterable[pa.Table], path: Path) -> int:
    """Write the rows of all tables, which have one schema, as they come; return their number.

    Raises
    ------
    SteepestError
        If there is none, the ending names no format, or the file can't be written.
    """
    check_ending(path)
    pieces = iter(tables)
    first = next(pieces)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    rows = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with WRITERS[path.suffix.lower()](str(aside), first.schema) as writer:
            for table in chain([first], pieces):
                writer.write_table(table)
                rows += table.num_rows
        aside.replace(path)
    except OSError as error:
        raise SteepestError(f"{path} can't be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return rows

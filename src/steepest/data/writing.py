"""Tables to a file, CSV or Parquet by its ending; complete or absent, because it is written aside."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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
    rows = 0
    with aside(path) as partial, WRITERS[path.suffix.lower()](str(partial), first.schema) as writer:
        for table in chain([first], pieces):
            writer.write_table(table)
            rows += table.num_rows
    return rows


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Give the name of a file to write, which takes the name of ``path`` when all went well.

    Raises
    ------
    SteepestError
        If it can't be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial{path.suffix.lower()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise SteepestError(f"{path} can't be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)

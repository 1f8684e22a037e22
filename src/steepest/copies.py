"""Rows that workers elsewhere can't read as one process does: read once, and kept in the shared storage.

Text is judged as it is read, row by row from the beginning, and a file on this machine is nowhere else. So
one process reads all rows and keeps each stretch as it came, in Arrow's format; a worker reads its share.
"""

from __future__ import annotations

import csv
import json
import posixpath
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from steepest.data.cache import cache_folder
from steepest.data.faults import standing
from steepest.data.file_source import FileSource
from steepest.data.formats import FORMATS
from steepest.data.rejected import FILE, Rejects
from steepest.data.rows import Reconsidered, Rejected, RowSource, Stretch, chosen_columns
from steepest.dividing import Seen
from steepest.storage import Storage

ROWS, HELD_OUT = "rows", "held out"
"""What the rows are called in the storage, and those of a file to judge by: folders."""

STRETCHES, FACTS = "stretches", "facts.json"


def read_by_all(source: RowSource, elsewhere: bool) -> bool:
    """Tell whether each worker can read its share of the rows itself: of Parquet files that it reaches.

    Parameters
    ----------
    source
        The rows of files.
    elsewhere
        Whether workers run on other machines.
    """
    return isinstance(source, FileSource) and all(
        part.called == FORMATS[".parquet"].called and (part.file.remote is not None or not elsewhere)
        for part in source.parts
    )


def copy_rows(
    source: RowSource,
    storage: Storage,
    called: str = ROWS,
    *,
    drop: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
    seen: Seen = lambda *_: None,
) -> None:
    """Keep all rows of a source in a storage, unless they are there.

    Parameters
    ----------
    source
        The rows.
    storage, called
        Where they go, and their name there.
    drop
        Columns that the source leaves out.
    say, seen
        Are told of surprises, and how far it is.

    Raises
    ------
    SteepestError
        If the rows can't be used: what one process would say of them when it reads them.
    """
    if storage.exists(called):
        return
    cache_folder().mkdir(parents=True, exist_ok=True)
    while True:
        with tempfile.TemporaryDirectory(prefix="rows-", dir=cache_folder()) as name:
            folder = Path(name)
            try:
                facts = _write(source, folder, seen)
            except Reconsidered as surprise:
                say(f"{surprise}; what was read is read anew.")
                source = surprise.source
                continue
            facts |= {"names": list(source.names), "fingerprint": source.fingerprint(), "drop": list(drop)}
            (folder / FACTS).write_text(json.dumps(facts), "utf-8")
            storage.put(folder, called)
            return


def _write(source: RowSource, folder: Path, seen: Seen) -> dict[str, Any]:
    """Write stretch after stretch; return where each begins, its bytes and its rows."""
    places: list[tuple[int, int, int]] = []
    rejects, rows = Rejects(), 0
    with pa.OSFile(str(folder / STRETCHES), "wb") as file:
        for stretch in source.stretches():
            rejects.add(stretch.rejected)
            places.append(_add(file, stretch.rows))
            rows += stretch.rows.num_rows
            seen("copying", rows, source.rows)
        schema = _add(file, source.schema.empty_table())
    rejects.write(folder)
    return {"stretches": places, "schema": schema}


def _add(file: Any, table: pa.Table) -> tuple[int, int, int]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    content, begin = sink.getvalue(), file.tell()
    file.write(content)
    return begin, content.size, table.num_rows


class CopiedRows(RowSource):
    """What `copy_rows` kept, under the names of the files that it was read from.

    Parameters
    ----------
    storage, called
        Where it is, and its name there.
    folder
        A local folder of its own.
    """

    def __init__(self, storage: Storage, folder: Path, called: str = ROWS) -> None:
        self._called = called
        storage.get(f"{called}/{FACTS}", folder / FACTS)
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        self.names = tuple(facts["names"])
        self._storage, self._folder = storage, folder
        self._fingerprint: str | None = facts["fingerprint"]
        self._stretches: list[tuple[int, int, int]] = facts["stretches"]
        with self._opened() as file:
            kept = _read(file, *facts["schema"]).schema
        # Who reads this leaves them out, by their names.
        self.schema = pa.schema([*kept, *((name, pa.null()) for name in facts["drop"])])
        self.rows = sum(rows for _, _, rows in self._stretches)

    def fingerprint(self) -> str | None:
        """Return that of the files."""
        return self._fingerprint

    def stretches(self, columns: Sequence[str] | None = None, first: int = 0) -> Iterator[Stretch]:
        """Yield the rows from one on, as `RowSource.stretches` says; the first has all that were rejected."""
        chosen, start = chosen_columns(self.schema, columns), 0
        rejected = () if first else self._rejected()
        with self._opened() as file:
            for place, size, rows in self._stretches:
                skipped = max(0, first - start)
                if skipped < rows or rejected:
                    table = _read(file, place, size, rows).select(chosen).slice(skipped)
                    yield Stretch(table, self._locate(start + skipped), rejected)
                    rejected = ()
                start += rows

    def _opened(self) -> Any:
        place = posixpath.join(self._storage.path, self._called, STRETCHES)
        return self._storage.system.open_input_file(place)

    def _rejected(self) -> tuple[Rejected, ...]:
        if not self._storage.exists(f"{self._called}/{FILE}"):
            return ()
        self._storage.get(f"{self._called}/{FILE}", self._folder / FILE)
        with (self._folder / FILE).open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            next(lines)
            return tuple(Rejected(name, int(line), reason) for name, line, reason in lines)

    def _locate(self, start: int) -> Callable[[int], str]:
        return lambda row: standing(", ".join(self.names[:3]), start + row)


def _read(file: Any, place: int, size: int, _: int) -> pa.Table:
    return pa.ipc.open_stream(file.read_at(size, place)).read_all()


def copied_rows(storage: Storage, folder: Path, called: str = ROWS) -> CopiedRows | None:
    """Open what `copy_rows` kept; None if it kept nothing there."""
    return CopiedRows(storage, folder, called) if storage.exists(called) else None

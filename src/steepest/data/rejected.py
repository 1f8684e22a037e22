"""Rows that can't be used: counted, and written down with file, line and reason."""

from __future__ import annotations

import csv
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path

from steepest.data.rows import Rejected

FILE = "rejected.csv"

IN_MEMORY = 2**20
"""Bytes of the list that are kept in memory; what goes beyond that is on disk."""


class Rejects:
    """Rows that can't be used, written down in their order.

    Examples
    --------
    >>> rejects = Rejects()
    >>> rejects.add([Rejected("flights.csv", 7, "4 cells for 5 columns")])
    >>> rejects.count
    1
    """

    def __init__(self) -> None:
        self.count = 0
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, "w+", encoding="utf-8", newline="")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._writer = csv.writer(self._file)
        self._writer.writerow(Rejected._fields)

    def add(self, rows: Iterable[Rejected]) -> None:
        """Write rows down."""
        for row in rows:
            self._writer.writerow(row)
            self.count += 1

    def write(self, folder: Path) -> None:
        """Write ``rejected.csv`` into a folder, if there is anything to write."""
        if not self.count:
            return
        self._file.seek(0)
        with (folder / FILE).open("w", encoding="utf-8", newline="") as file:
            shutil.copyfileobj(self._file, file)

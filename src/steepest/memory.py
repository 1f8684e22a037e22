"""How much memory a process may use."""

from __future__ import annotations

import re
from pathlib import Path

from steepest.data.blocks import WINDOW_BYTES
from steepest.data.order import WINDOW
from steepest.errors import SteepestError

UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

BASE = 576 * 2**20
"""Bytes that a fit keeps whatever the rows are: Python, JAX and its programs, what reads and what judges."""

PIECES = 2
"""Pieces of the order whose rows are in memory at once: one in use, and one that is being fetched."""

WINDOWS = 6
"""Windows of rows alive at once: three to train on and three to judge by."""

SPARSE = 4
"""So often a window is in memory whose rows are sparse: as it was gathered; numbered anew, beside the rows
of the table that its steps look up; as the numbers by which both are found; and once more in what was freed
in pieces and has not gone back to the system."""

LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Files in which Linux tells a container's limit and what it uses: control groups of version 2 and 1."""


def bytes_of(text: str) -> int:
    """Return a size in bytes.

    Raises
    ------
    SteepestError
        If the text is no size.

    Examples
    --------
    >>> bytes_of("512MB"), bytes_of("1.5 GiB")
    (536870912, 1610612736)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    if not found or not float(found[1]):
        raise SteepestError(f"{text!r} is no size of memory.", hint="Write 512MB, 4GB or the like.")
    return int(float(found[1]) * UNITS[found[2]])


def free_memory() -> int:
    """Return the bytes that the machine, or the container that this is, has free."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in LIMITS:
        try:
            free = min(free, max(0, int(Path(limit).read_text()) - int(Path(used).read_text())))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return free


def memory_budget(asked: str | None) -> int:
    """Return the bytes that a fit may use: what was asked for, else a quarter of what is free."""
    return bytes_of(asked) if asked else free_memory() // 4


def least_memory(
    rows: int, row_bytes: int, kept_bytes: int, batch_size: int, sparse_bytes: int = 0, table: int = 0
) -> int:
    """Return the bytes that a fit needs at least.

    Windows of features, and the rows that are shuffled together: those of two pieces of the order.

    Parameters
    ----------
    rows
        To train on.
    row_bytes, kept_bytes
        Of a row's features, and of a row as it is kept.
    batch_size
        Rows of a step.
    sparse_bytes
        Of a row's sparse features.
    table
        What `table_memory` says of the table that they look up.

    Examples
    --------
    >>> least_memory(rows=10**8, row_bytes=120, kept_bytes=124, batch_size=256) / 2**20
    1016.0
    """
    of_row = row_bytes + sparse_bytes
    window = min(rows * of_row, max(WINDOW_BYTES, min(batch_size, rows) * of_row))
    windows = WINDOWS * window * (SPARSE if sparse_bytes else 1)
    return BASE + windows + PIECES * min(rows, WINDOW) * kept_bytes + table


def table_memory(rows: int, columns: int) -> int:
    """Return the bytes that a table of parameters takes at most, float32 ``[rows, columns]``.

    It is drawn, started from, written, and looked into for its largest weights; and a descent by Adam has it,
    two means of its gradients, and when each row was looked up, three times while it finds its rate: where it
    starts, where it is, and what that is becoming.

    Examples
    --------
    >>> table_memory(rows=2**20, columns=1) / 2**20
    76.0
    """
    return 4 * rows * (4 * columns + 3 * (3 * columns + 2))

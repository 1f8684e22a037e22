"""How much memory a process may use."""

from __future__ import annotations

import re
from pathlib import Path

from steepest.errors import SteepestError

UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

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

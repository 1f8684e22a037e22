"""Room for compiled programs in a process that compiles many.

Each program takes some mapped pieces of memory, of which Linux allows a process 65,530, and XLA crashes where
it gets none; JAX keeps every program of every function that it ever saw.
"""

from __future__ import annotations

import gc
import itertools
from pathlib import Path

import jax

EVERY = 16
"""Descents between two looks at the number of pieces: one adds some hundreds."""

SHARE = 0.4
"""Share of the pieces from which on programs are forgotten."""

MOST, MINE = Path("/proc/sys/vm/max_map_count"), Path("/proc/self/maps")

_descents = itertools.count()


def make_room() -> None:
    """Let JAX forget its programs if there are too many; what is used again is compiled again."""
    if next(_descents) % EVERY or not MOST.is_file():
        return
    with MINE.open("rb") as lines:
        mapped = sum(1 for _ in lines)
    if mapped > SHARE * int(MOST.read_text()):
        jax.clear_caches()
        gc.collect()

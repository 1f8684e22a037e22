"""Compiled programs on disk: what one process has compiled, the next one loads in a fraction of the time.

This is JAX's own persistent compilation cache, in a folder beside the encoded rows; the command line switches
it on for its process, unless ``JAX_COMPILATION_CACHE_DIR`` says otherwise. A program is found again by all
that it was compiled from, and computes the same bits.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import warnings
from contextlib import suppress
from pathlib import Path

from steepest.data.cache import cache_folder

MOST_BYTES = 2**28
"""From this size on, the programs written longest ago are removed down to half of it."""


def programs_folder() -> Path:
    """Return where programs are: machines that share a file system may differ in what they can run."""
    processor = platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        processor += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    machine = hashlib.blake2b(processor.encode(), digest_size=4).hexdigest()
    return cache_folder() / "programs" / machine


def keep_programs() -> None:
    """Let this process keep what it compiles; to be called before JAX is imported."""
    folder = programs_folder()
    with suppress(OSError):  # without a folder nothing is kept, which costs time and nothing else
        folder.mkdir(parents=True, exist_ok=True)
        _prune(folder)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    # What was torn by a kill is compiled anew.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def _prune(folder: Path) -> None:
    """Remove what was torn when it was written, and the oldest programs where there are too many."""
    found = sorted((each.stat().st_mtime, each.stat().st_size, each) for each in folder.iterdir())
    kept = sum(size for _, size, _ in found)
    most = MOST_BYTES // 2 if kept > MOST_BYTES else kept
    for _, size, path in found:
        if kept > most or not size:
            path.unlink(missing_ok=True)
            kept -= size


def programs_size() -> int:
    """Return the bytes that programs take, of all machines."""
    place = cache_folder() / "programs"
    return sum(each.stat().st_size for each in place.rglob("*") if each.is_file())


def clear_programs() -> int:
    """Remove all programs; return the bytes that were freed."""
    freed = programs_size()
    shutil.rmtree(cache_folder() / "programs", ignore_errors=True)
    return freed

"""`steepest` with tiny windows, as a process to be killed.

``python mortal.py WORDS...`` is ``steepest WORDS...``. ``mortal.py --serve`` imports once and forks for
each line of standard input, ``[folder, moment, words]``: the child works in the folder, and kills itself with
SIGKILL at that moment; the line that answers holds its status and how many moments there were. A moment is
each change that Python is about to make to the file system there (a file opened for writing, renamed or
removed, a folder made or removed, bytes sent to the disk) and the middle of each write.
"""

from __future__ import annotations

import builtins
import importlib
import io
import json
import os
import pkgutil
import signal
import sys
from pathlib import Path

CHANGES = {"os.rename": (0, 2), "os.remove": (0, 1), "os.mkdir": (0, 2), "os.rmdir": (0, 1)}
"""Audit event -> where its arguments hold the path, and the open folder that it starts from."""

SAID = "said"
"""The file that takes what a child prints."""


class Mortal:
    """Kills the process at a moment, and counts them."""

    def __init__(self, place: Path, moment: int) -> None:
        self.place, self.last = place, moment
        self.count = 0

    def moment(self) -> None:
        self.count += 1
        os.pwrite(answer, self.count.to_bytes(4, "little"), 0)
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watches(self, path: object, folder: int = -1) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        start = Path.cwd() if folder == -1 else Path(f"/proc/self/fd/{folder}").readlink()
        return self.place in (start / path).parents

    def audit(self, event: str, arguments: tuple) -> None:
        if event in CHANGES:
            path, folder = (arguments[place] for place in CHANGES[event])
            if self.watches(path, folder):
                self.moment()
        elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR) and self.watches(arguments[0]):
            self.moment()

    def fsync(self, file: int) -> None:
        self.moment()
        fsync(file)

    def open(self, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, *more):
        if not set(mode) & set("wax+") or not self.watches(file):
            return plain_open(file, mode, buffering, encoding, errors, newline, *more)
        raw = Torn(file, mode.translate(str.maketrans("", "", "bt")))
        raw.mortal = self
        written = io.BufferedWriter(raw, buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE)
        return written if "b" in mode else io.TextIOWrapper(written, encoding, errors, newline)


class Torn(io.FileIO):
    """A file whose writes have a middle."""

    mortal: Mortal

    def write(self, content) -> int:
        view = memoryview(content).cast("B")
        half = super().write(view[: len(view) // 2]) if len(view) > 1 else 0
        self.mortal.moment()
        return half + super().write(view[half:])


fsync, plain_open = os.fsync, io.open
answer = -1


def small() -> None:
    """Let a few rows be a large table: it is cached, and an epoch is several windows."""
    from steepest import preparation
    from steepest.data import blocks, order, pieces

    blocks.WINDOW_BYTES = 2**12
    order.WINDOW, order.BLOCK, pieces.BLOCK = 128, 16, 16
    preparation.CACHED_FROM = 0


def import_all() -> None:
    """Import what a fit imports on its way, but begin no computation: what is forked can't have threads."""
    for package in ("steepest", "steepest.data", "steepest.descent", "steepest.diagnosis"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            if module.name != "steepest.__main__":
                importlib.import_module(module.name)
    for name in ("pandas", "pyarrow.csv", "pyarrow.parquet", "sklearn.metrics", "jax.experimental"):
        importlib.import_module(name)


def serve() -> list[str]:
    """Answer requests; in each child, return its words."""
    global answer  # noqa: PLW0603 - the child's, for its whole life
    answer = os.memfd_create("moments")
    for line in sys.stdin:
        folder, moment, words = json.loads(line)
        os.pwrite(answer, bytes(4), 0)
        child = os.fork()
        if not child:
            os.chdir(folder)
            said = os.open(SAID, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(said, 1)
            os.dup2(said, 2)
            mortal = Mortal(Path(folder), moment)
            sys.addaudithook(mortal.audit)
            os.fsync = mortal.fsync
            io.open = builtins.open = mortal.open
            return words
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([status, int.from_bytes(os.pread(answer, 4, 0), "little")]), flush=True)
    sys.exit()


if __name__ == "__main__":
    words = sys.argv[1:]
    if words == ["--serve"]:
        import_all()
        words = serve()
    small()
    from steepest.cli import main

    sys.argv = ["steepest", *words]
    main()

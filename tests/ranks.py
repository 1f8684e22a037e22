"""Several processes of one group on this machine: each calls a function of a test's module."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path


def together(function: str, size: int, folder: Path, *arguments: object, timeout: float = 300) -> list[Path]:
    """Call ``module:function(group, folder, *arguments)`` in so many processes; return each one's folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = [folder / str(rank) for rank in range(size)]
    started = []
    for rank, each in enumerate(folders):
        each.mkdir(parents=True)
        command = [sys.executable, __file__, function, str(port), str(rank), str(size), str(each)]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        with (each / "log").open("wb") as log:
            started.append(
                subprocess.Popen([*command, *map(str, arguments)], stdout=log, stderr=log, env=environment)
            )
    try:
        end = time.monotonic() + timeout
        while any(process.poll() is None for process in started):
            failed = [each for each, process in zip(folders, started, strict=True) if process.poll()]
            assert not failed, "\n".join(map(_read, failed))
            assert time.monotonic() < end, "\n".join(map(_read, folders))
            time.sleep(0.05)
        assert not any(process.returncode for process in started), "\n".join(map(_read, folders))
    finally:
        for process in started:
            process.kill()
            process.wait()
    return folders


def _read(folder: Path) -> str:
    return (folder / "log").read_text()


if __name__ == "__main__":
    import faulthandler

    faulthandler.dump_traceback_later(60, repeat=True)  # tells where a process hangs
    from steepest.process_group import join

    name, port, rank, size, folder, *rest = sys.argv[1:]
    module, function = name.split(":")
    group = join(f"127.0.0.1:{port}", int(rank), int(size))
    try:
        getattr(importlib.import_module(module), function)(group, Path(folder), *rest)
    except BaseException:  # at its end JAX would wait for the others
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)

"""Several processes of one group on this machine: each calls a function of a test's module."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
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
        for process, each in zip(started, folders, strict=True):
            assert process.wait(timeout) == 0, (each / "log").read_text()
    finally:
        for process in started:
            process.kill()
    return folders


if __name__ == "__main__":
    from steepest.process_group import join

    name, port, rank, size, folder, *rest = sys.argv[1:]
    module, function = name.split(":")
    group = join(f"127.0.0.1:{port}", int(rank), int(size))
    getattr(importlib.import_module(module), function)(group, Path(folder), *rest)

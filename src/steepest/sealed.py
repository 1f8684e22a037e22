"""Sealed files: arrays and notes in a safetensors file that tells whether it is whole.

The metadata holds JSON (``steepest``) and ``checksum``: BLAKE2b over the whole file, in which the checksum's
own digits count as zeros. Files are written aside, flushed to the disk and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

MARK = b'"checksum":"'
BLANK = b"0" * 64

Arrays = dict[str, npt.NDArray[Any]]
Notes = dict[str, Any]


def as_json(value: Any) -> str:
    """Write JSON, with numbers of NumPy as numbers."""
    return json.dumps(value, default=lambda each: np.asarray(each).tolist())


def write_aside(aside: Path, arrays: Arrays, notes: Notes) -> str:
    """Write arrays and notes to the disk, return their checksum; what can't be finished is removed."""
    plain = {name: _plain(array) for name, array in arrays.items()}
    notes = {**notes, "types": {name: str(array.dtype) for name, array in arrays.items()}}
    bare = save(plain, {"checksum": BLANK.decode(), "steepest": as_json(notes)})
    content, at = memoryview(bare), bare.index(MARK) + len(MARK)
    checksum = _checksum(content, at)
    try:
        with aside.open("wb") as file:
            for piece in (content[:at], checksum.encode(), content[at + len(BLANK) :]):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    return checksum


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array as it is, or bits as whole numbers where the type is not NumPy's own: bfloat16."""
    array = np.asarray(array, order="C")
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")


def rename(aside: Path, path: Path) -> None:
    """Give a file its name, for good: the folder goes to the disk as well."""
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Path) -> tuple[Arrays, Notes, str]:
    """Return a file's arrays, its notes and its checksum; a ValueError if it is not whole."""
    content = path.read_bytes()
    at = content.find(MARK) + len(MARK)
    checksum = _checksum(memoryview(content), at)
    if content[at : at + len(BLANK)] != checksum.encode():
        raise ValueError(f"{path.name} is torn or altered: its checksum is another")
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    notes = json.loads(header["__metadata__"]["steepest"])
    types = notes.pop("types")
    return (
        {name: array.view(jnp.dtype(types[name])) for name, array in load(content).items()},
        notes,
        checksum,
    )


def _checksum(content: memoryview, at: int) -> str:
    """Return BLAKE2b over the content with zeros where the checksum stands."""
    seal = hashlib.blake2b(digest_size=len(BLANK) // 2)
    for piece in (content[:at], BLANK, content[at + len(BLANK) :]):
        seal.update(piece)
    return seal.hexdigest()

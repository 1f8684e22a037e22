"""Encoded rows on disk: made once from a table, mapped into memory in every later epoch and run.

An entry is a folder named by a key: a fingerprint of the files and of all that decides how they are encoded.
It is written aside, under a lock, and renamed when it is whole, so that it is complete or absent; two
processes that make the same entry make the same bytes, and the first one's stay.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from steepest.errors import SteepestError

Array = npt.NDArray[Any]

FORMAT = 2
"""Version of an entry's format."""

PARTIAL = ".partial"

LOCK = "lock"
"""In the cache: held for moments, by who begins, names or removes entries; in an entry: while it is made."""

ENTRY = "entry.json"


class Form(NamedTuple):
    """Shape and type of an array that is filled."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """In bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def cache_folder() -> Path:
    """Return where entries are: ``$STEEPEST_CACHE``, else ``steepest`` in the user's folder for caches."""
    named = os.environ.get("STEEPEST_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "steepest"


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the name of the entry that is decided by these facts.

    Examples
    --------
    >>> key_of({"seed": 0}) == key_of({"seed": 0}), key_of({"seed": 0}) == key_of({"seed": 1})
    (True, False)
    """
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def unique_key() -> str:
    """Return a name that no other entry has."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Entry:
    """Encoded rows on disk.

    Parameters
    ----------
    path
        The folder.
    facts
        What was written of it: ``created``, ``arrays`` and whatever its maker added.
    """

    path: Path
    facts: dict[str, Any]

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(file.stat().st_size for file in self.path.iterdir())

    def forms(self) -> dict[str, Form]:
        """Return the arrays' shapes and types by name."""
        arrays = self.facts["arrays"].items()
        return {name: Form(tuple(shape), np.dtype(kind)) for name, (shape, kind) in arrays}

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name, mapped for reading."""
        return {name: _mapped(self.path / f"{name}.bin", form) for name, form in self.forms().items()}


def find(key: str) -> Entry | None:
    """Return the entry of this key, if there is one and its files are as long as they must be."""
    folder = cache_folder() / key
    try:
        entry = Entry(folder, json.loads((folder / ENTRY).read_text("utf-8")))
        entry.arrays()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return entry


def entries() -> list[Entry]:
    """Return all entries, the newest first."""
    folders = [each for each in _folders() if not each.name.endswith(PARTIAL)]
    found = [entry for folder in folders if (entry := find(folder.name))]
    return sorted(found, key=lambda entry: str(entry.facts.get("created")), reverse=True)


def clear() -> int:
    """Remove all entries and whatever unfinished ones nobody is writing; return the bytes that were freed.

    A run that reads an entry goes on: its files are there until it ends.
    """
    freed = 0
    if not (place := cache_folder()).is_dir():
        return freed
    with _alone(place):
        for folder in _folders():
            if folder.name.endswith(PARTIAL) and not _abandoned(folder):
                continue
            freed += sum(file.stat().st_size for file in folder.iterdir())
            _remove(folder)
    return freed


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Keep other processes from beginning, naming and removing entries."""
    with (place / LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove(folder: Path) -> None:
    """Remove an entry; it is none from the first moment on, so that no half of one is ever found."""
    if not folder.name.endswith(PARTIAL):
        folder = folder.rename(_aside(folder.parent, folder.name))
    shutil.rmtree(folder)


def _aside(place: Path, key: str) -> Path:
    return place / f"{key}.{secrets.token_hex(4)}{PARTIAL}"


def _folders() -> list[Path]:
    """Return what lies in the cache and is named as entries are: nothing else there is ever touched."""
    place = cache_folder()
    if not place.is_dir():
        return []
    return [each for each in sorted(place.iterdir()) if each.is_dir() and _is_key(each.name.split(".")[0])]


def _is_key(name: str) -> bool:
    return len(name) == 32 and set(name) <= set("0123456789abcdef")


def _abandoned(folder: Path) -> bool:
    """Tell whether the process that wrote here is gone: asked by a process that is alone."""
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class Filling:
    """Arrays of known types that are filled from the first row on, in memory or in a folder's files.

    Parameters
    ----------
    forms
        Name -> shape and type.
    growing
        Names of arrays whose form has about as many rows as there will be; in the end, ``forms`` has as many.
    folder
        Where the files go; ``None`` for memory.

    Raises
    ------
    SteepestError
        If the disk has no room.
    """

    def __init__(self, forms: Mapping[str, Form], folder: Path | None, growing: Collection[str] = ()) -> None:
        self.forms, self.folder = dict(forms), folder
        self.pieces: dict[str, list[Array]] = {name: [] for name in growing}
        self.files: dict[str, BinaryIO] = {}
        self.filled = dict.fromkeys(forms, 0)
        if folder is None:
            fixed = {name: form for name, form in forms.items() if name not in self.pieces}
            self.memory = {name: np.empty(form.shape, form.dtype) for name, form in fixed.items()}
        else:
            needed = sum(form.size for form in forms.values())
            if needed > shutil.disk_usage(folder).free:
                raise full_disk(folder, needed)
            self.files = {name: (folder / f"{name}.bin").open("wb", buffering=2**20) for name in forms}

    def __enter__(self) -> Filling:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files.values():
            with suppress(OSError):  # what was lost by it was told where it happened
                file.close()

    def append(self, name: str, rows: Array) -> None:
        """Add rows to an array."""
        first = self.filled[name]
        self.filled[name] = last = first + len(rows)
        if last > self.forms[name].shape[0] and name not in self.pieces:
            raise OverflowError(name)
        if self.folder is None and name in self.pieces:
            self.pieces[name].append(rows)
        elif self.folder is None:
            self.memory[name][first:last] = rows
        else:
            self.files[name].write(np.ascontiguousarray(rows, self.forms[name].dtype).data)

    def finish(self) -> dict[str, Array]:
        """Return the arrays; those in files are mapped for reading."""
        for name in self.pieces:
            form = self.forms[name]
            self.forms[name] = Form((self.filled[name], *form.shape[1:]), form.dtype)
        if self.folder is None:
            grown = {name: np.concatenate(pieces) for name, pieces in self.pieces.items()}
            return self.memory | grown
        for file in self.files.values():
            file.flush()
        return {name: _mapped(self.folder / f"{name}.bin", form) for name, form in self.forms.items()}


def _mapped(file: Path, form: Form) -> Array:
    if file.stat().st_size != form.size:
        raise OSError(errno.EIO, "is not as long as it was written", str(file))
    if not form.size:
        return np.empty(form.shape, form.dtype)
    return np.memmap(file, form.dtype, "r", shape=form.shape)


@contextmanager
def new_entry(key: str) -> Iterator[Path]:
    """Give a folder to write an entry's files into; it becomes the entry once `seal` was called on it.

    Raises
    ------
    SteepestError
        If it can't be written; nothing is left behind then.
    """
    place = cache_folder()
    aside = _aside(place, key)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            with _alone(place):
                _sweep()
                aside.mkdir()
                fcntl.flock(held.enter_context((aside / LOCK).open("wb")), fcntl.LOCK_EX)
            yield aside
            if (aside / ENTRY).is_file():
                with _alone(place):
                    _name(aside, place / key)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full_disk(place) from error
        raise SteepestError(
            f"The cache {place} can't be written: {error.strerror or error}.",
            hint="Name another folder by the environment variable STEEPEST_CACHE.",
        ) from error
    finally:
        if aside.exists():
            with _alone(place):
                shutil.rmtree(aside, ignore_errors=True)


def _name(aside: Path, entry: Path) -> None:
    """Let what was written aside become an entry, unless another process was quicker, with the same bytes."""
    if find(entry.name) is None:
        if entry.exists():  # it is damaged
            _remove(entry)
        (aside / LOCK).unlink()
        aside.rename(entry)


def seal(folder: Path, forms: Mapping[str, Form], facts: Mapping[str, Any]) -> None:
    """Write what an entry says of itself; it is whole then."""
    arrays = {name: [list(form.shape), form.dtype.str] for name, form in forms.items()}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({"created": created, "arrays": arrays, **facts}, ensure_ascii=False)
    (folder / ENTRY).write_text(text, "utf-8")
    to_disk(folder)


def to_disk(folder: Path) -> None:
    """Bring a folder and all that is in it to the disk: after a power cut its name stands for whole files."""
    for path in (*folder.rglob("*"), folder):
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _sweep() -> None:
    """Remove what processes that were killed have left."""
    for folder in _folders():
        if folder.name.endswith(PARTIAL) and _abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def full_disk(place: Path, needed: int | None = None) -> SteepestError:
    """Return the error about a disk that has no room for an entry."""
    room = shutil.disk_usage(place).free
    wants = f"the encoded rows need {needed / 2**20:,.0f} MiB" if needed else "the encoded rows need more"
    return SteepestError(
        f"The disk of the cache {place} is full: {wants}, and {room / 2**20:,.0f} MiB are free.",
        hint="Make room (steepest cache --clear), or name a folder on another disk by STEEPEST_CACHE.",
    )

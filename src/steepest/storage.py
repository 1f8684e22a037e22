"""Where runs and checkpoints are kept: a local folder, or one on HDFS.

What has a name there is whole: it was written aside, under a name that begins with a dot, and renamed. What a
process that was killed leaves aside is removed when something is next put under that name.
"""

from __future__ import annotations

import posixpath
import re
import secrets
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from steepest.data.cache import to_disk
from steepest.data.files import IMPATIENT, is_hadoop, is_url, local_path, open_remote, reach, reaching
from steepest.errors import SteepestError

_WAITS = (1, 4, 16)
"""Seconds before a write is begun again: the name node has to notice that a data node has died."""


@dataclass(frozen=True)
class Storage:
    """A folder that keeps files and folders by name; `storage_at` opens one.

    A name may have slashes: "checkpoints/3" is what is named 3 in the folder "checkpoints".

    Parameters
    ----------
    url
        What a person calls the folder.
    path
        Where it is in its file system.
    system
        The file system, as PyArrow has it.
    """

    url: str
    path: str
    system: Any

    def put(self, source: Path, name: str, *, replace: bool = False) -> None:
        """Keep a local file, or a folder with all that is in it, under a name.

        A file takes the place of an older one in one step. Where a folder does, there is a moment in which
        neither has the name.

        Parameters
        ----------
        source
            The local file or folder; it stays.
        name
            Its name here.
        replace
            Whether it may take the place of what has that name.

        Raises
        ------
        SteepestError
            If the name is taken, or nothing can be written; then what was there is there.
        """
        with self._telling():
            place = self._place(name)
            if not replace and self._kind(place) != fs.FileType.NotFound:
                raise SteepestError(
                    f"{posixpath.join(self.url, name)} exists.", hint="Choose another name, or replace it."
                )
            self.system.create_dir(posixpath.dirname(place))
            aside = self._sent(source, name)
            if self._kind(place) == fs.FileType.Directory:
                self.system.move(place, self._aside(name))
            self.system.move(aside, place)
            for left in self._leftovers(name):
                self._delete(left)

    def get(self, name: str, to: Path) -> None:
        """Copy a file or folder that is kept here to a local place; there it is whole or absent.

        Parameters
        ----------
        name
            Its name here.
        to
            Where it is to be; a file may be there already, a folder may not.

        Raises
        ------
        SteepestError
            If nothing has that name, or it can't be read.
        """
        aside = to.with_name(f".{to.name}.{secrets.token_hex(8)}.aside")
        try:
            with self._telling():
                if self._kind(self._place(name)) == fs.FileType.NotFound:
                    raise SteepestError(
                        f"there is no {posixpath.join(self.url, name)}.", hint=self._known(name)
                    )
                if self._kind(self._place(name)) == fs.FileType.Directory:
                    aside.mkdir()
                fs.copy_files(self._place(name), str(aside), self.system, fs.LocalFileSystem())
            aside.replace(to)
        finally:
            if aside.is_dir():
                shutil.rmtree(aside)
            aside.unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        """Tell whether something has this name."""
        with self._telling():
            return bool(self._kind(self._place(name)) != fs.FileType.NotFound)

    def names(self, prefix: str = "") -> list[str]:
        """Return the names that begin so, sorted; those within a folder where the prefix has a slash."""
        above = posixpath.dirname(prefix)
        with self._telling():
            found = [posixpath.join(above, each) for each in self._shown(self._place(above))]
        return sorted(each for each in found if each.startswith(prefix))

    def remove(self, name: str) -> None:
        """Remove what has this name, if anything has."""
        with self._telling():
            if self._kind(self._place(name)) != fs.FileType.NotFound:
                aside = self._aside(name)
                self.system.move(self._place(name), aside)
                self._delete(aside)

    def require_writable(self) -> None:
        """Raise SteepestError if nothing can be kept here; the folder is made if there is none."""
        with tempfile.TemporaryDirectory() as empty, self._telling():
            probe = Path(empty, "probe")
            probe.touch()
            aside = self._aside("probe")
            self.system.create_dir(self.path)
            self._copy_in(probe, aside)
            self._delete(aside)

    def _sent(self, source: Path, name: str) -> str:
        """Write a local file or folder aside; return where."""
        waits = list(_WAITS) if is_url(self.url) else []
        while True:
            aside = self._aside(name)
            try:
                self._copy_in(source, aside)
            except Exception:
                with suppress(Exception):
                    self._delete(aside)
                if not waits:
                    raise
                reach(self.url)
                time.sleep(waits.pop(0))
            else:
                return aside

    def _copy_in(self, source: Path, place: str) -> None:
        if source.is_dir():
            self.system.create_dir(place)  # PyArrow makes folders within a folder, but not that folder
        fs.copy_files(str(source), place, fs.LocalFileSystem(), self.system)
        if isinstance(self.system, fs.LocalFileSystem):
            to_disk(Path(place))
        elif _sizes(fs.LocalFileSystem(), str(source)) != _sizes(self.system, place):
            raise OSError("a data node was lost, and a part of what was written with it")

    def _known(self, name: str) -> str:
        """Return a hint that lists what there is."""
        known = sorted(self._shown(posixpath.dirname(self._place(name))))
        return f"There are: {', '.join(known[:8])}." if known else "Nothing is kept there."

    def _place(self, name: str) -> str:
        return posixpath.join(self.path, name) if name else self.path

    def _aside(self, name: str) -> str:
        """Return a place that nothing has, beside that of the name."""
        above, last = posixpath.split(self._place(name))
        return posixpath.join(above, f".{last}.{secrets.token_hex(8)}.aside")

    def _leftovers(self, name: str) -> list[str]:
        above, last = posixpath.split(self._place(name))
        aside = re.compile(rf"\.{re.escape(last)}\.[0-9a-f]{{16}}\.aside")
        return [posixpath.join(above, each) for each in self._inside(above) if aside.fullmatch(each)]

    def _inside(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        selected = fs.FileSelector(folder, allow_not_found=True)
        return [each.base_name for each in self.system.get_file_info(selected)]

    def _shown(self, folder: str) -> list[str]:
        """Return the names in a folder without those that are aside."""
        return [each for each in self._inside(folder) if not each.startswith(".")]

    def _kind(self, place: str) -> Any:
        return self.system.get_file_info(place).type

    def _delete(self, place: str) -> None:
        kind = self._kind(place)
        if kind == fs.FileType.Directory:
            self.system.delete_dir(place)
        elif kind != fs.FileType.NotFound:
            self.system.delete_file(place)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn what goes wrong into an error for a person, a name node that is gone within 10 s."""
        try:
            if is_url(self.url):
                with reaching(self.url):
                    reach(self.url)
                    yield
            else:
                yield
        except OSError as error:
            why = error.strerror or str(error).split("\n")[0]
            raise SteepestError(f"{self.url} can't be used: {why}.", hint="Choose another place.") from error


def _sizes(system: Any, place: str) -> list[int]:
    """Return the bytes of a file, or of each one in a folder, ascending.

    hdfs-native may say that all is written, and leave no byte of it, when a data node dies meanwhile.
    """
    found = system.get_file_info(place)
    inside = fs.FileSelector(place, recursive=True)
    files = system.get_file_info(inside) if found.type == fs.FileType.Directory else [found]
    return sorted(each.size for each in files if each.is_file)


class _Hadoop(fs.FSSpecHandler):  # type: ignore[misc]
    """PyArrow's view of an HDFS; files are replaced by a rename in one step."""

    def move(self, src: str, dest: str) -> None:
        self.fs.mv(src, dest, overwrite=True)


def storage_at(url: str) -> Storage:
    """Open a local folder, or one on HDFS, to keep things in; it need not exist.

    Raises
    ------
    SteepestError
        If the name node does not answer within 10 s, a package is missing, or the URL is of another kind.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = Path(folder, "made")
    ...     _ = made.write_text("7")
    ...     storage = storage_at(f"{folder}/kept")
    ...     storage.put(made, "checkpoints/1")
    ...     storage.put(made, "checkpoints/2")
    ...     storage.names("checkpoints/")
    ['checkpoints/1', 'checkpoints/2']
    """
    if not is_url(url):
        path = str(Path(local_path(url)).absolute())
        return Storage(url, path, fs.LocalFileSystem())
    if not is_hadoop(url):
        raise SteepestError(
            f"Nothing can be kept at {url}: a run takes its name by renaming a folder, which that can't do.",
            hint="Name a local folder, or one on HDFS: hdfs://namenode:9000/runs/flights.",
        )
    with reaching(url):
        # A name service may change from one name node to the other, which takes time.
        remote, path = open_remote(url, **(IMPATIENT if urllib.parse.urlsplit(url).port else {}))
        return Storage(url, path, fs.PyFileSystem(_Hadoop(remote)))


def storage_of(url: str) -> tuple[Storage, str]:
    """Open the folder above what a URL names; return it and the name in it.

    Raises
    ------
    SteepestError
        As `storage_at`, or if the URL names no more than the file system.
    """
    above, _, name = url.rstrip("/").rpartition("/")
    if not name or (is_url(url) and above.count("/") < 2):
        raise SteepestError(f"{url} names no folder.", hint=f"Name one: {url.rstrip('/')}/runs/flights.")
    return storage_at(above), name

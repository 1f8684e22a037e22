"""Files and where they are: names, patterns, folders and URLs become files that can be opened."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib
import importlib.util
import os
import posixpath
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from steepest.errors import SteepestError, nearest

COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
"""Ending of a compressed file of text -> its compression."""

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z0-9+.-]+)*://")

_MARKS = (
    *("size", "created", "modified", "mtime", "modification_time", "last_modified", "LastModified"),
    *("Last-Modified", "updated", "generation", "version_id", "VersionId"),
    *("ETag", "etag", "checksum", "Content-MD5", "Digest", "md5Hash", "crc32c"),
)
"""What file systems call the marks of a file's content."""

HADOOP = ("hdfs", "viewfs")
"""Schemes of Hadoop's file system."""

_REACHED_WITHIN = 10.0
"""Seconds in which a name node accepts a connection."""

IMPATIENT = {"dfs.client.failover.max.attempts": "3"}
"""Lets hdfs-native give up on a name node after 6 s; it would try for three minutes."""

_REMOTE_ERROR = re.compile(r'RPCError\("[^"]*", "(.*)"\)$', re.DOTALL)

_DENIED = re.compile(r"Permission denied: user=(?P<user>[^,]*), access=(?P<access>[A-Z_]+)")

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class File:
    """A file as it was when it was found.

    Parameters
    ----------
    name
        What a person calls it: a path or a URL.
    path
        Where it is in its file system.
    keys
        Column -> value, from the names of the folders of a data set ("year=2013"); None where missing.
    remote
        The fsspec file system; None for local files.
    stamp
        What changes whenever the file may have changed; None where the file system tells nothing of the kind.
    """

    name: str
    path: str
    keys: dict[str, str | None] = field(default_factory=dict)
    remote: Any = None
    stamp: str | None = None

    @property
    def endings(self) -> list[str]:
        """The endings of the name, in lower case: [".csv", ".gz"]."""
        plain = self.remote is None or self.remote.protocol in HADOOP
        return endings(self.name if plain else self.name.split("?")[0])

    def open(self) -> Any:
        """Open the file's bytes for reading at any place."""
        return (
            pa.OSFile(self.path)
            if self.remote is None
            else pa.PythonFile(self.remote.open(self.path, "rb"), "r")
        )

    def stream(self) -> Any:
        """Open the file for reading from its beginning to its end, decompressed if its ending says so."""
        if self.remote is None:
            stream = pa.OSFile(self.path)
        else:
            # A web server need not be able to send a part of a file: block_size=0 asks for all in one go.
            whole = {"block_size": 0} if "http" in self.remote.protocol else {}
            stream = pa.PythonFile(self.remote.open(self.path, "rb", **whole), "r")
        compression = COMPRESSED.get(self.endings[-1] if self.endings else "")
        return pa.CompressedInputStream(stream, compression) if compression else stream

    def require_unchanged(self) -> None:
        """Raise SteepestError if the file is not what it was when it was opened."""
        try:
            stamp = _stamp(self.name, self.path, self.remote)
        except FileNotFoundError:
            raise _gone(self.name) from None
        if self.stamp != stamp:
            raise SteepestError(
                f"{self.name} changed since it was opened.",
                hint="Start again when nothing writes to it any more.",
            )

    @contextlib.contextmanager
    def reading(self, format_name: str) -> Iterator[None]:
        """Turn what goes wrong while the file is read into an error for a person."""
        try:
            yield
        except (pa.ArrowException, OSError, EOFError, ValueError) as error:
            if isinstance(error, OSError) and not self.remote and not Path(self.path).exists():
                raise _gone(self.name) from None
            self.require_unchanged()
            reason = (
                getattr(error, "strerror", None) or str(error).strip().split("\n")[0] or type(error).__name__
            )
            raise SteepestError(
                f"{self.name} cannot be read as {format_name}: {reason.rstrip('.')}.",
                hint="Check that the file is complete and that its ending fits its content.",
            ) from error


def endings(name: str) -> list[str]:
    """Return the endings of a file's name, in lower case.

    Examples
    --------
    >>> endings("data/flights.CSV.gz")
    ['.csv', '.gz']
    """
    return [ending.lower() for ending in PurePosixPath(name).suffixes]


def find_files(patterns: Sequence[str], readable: Callable[[str], bool]) -> tuple[File, ...]:
    """Return the files that names, patterns, folders and URLs stand for.

    Parameters
    ----------
    patterns
        Paths or URLs of files, globs of these (``**`` too), and folders of Parquet files. The files of a glob
        or folder are sorted by name.
    readable
        Whether a file of this name can be read, for the hint about a missing one.

    Raises
    ------
    SteepestError
        If nothing is there, a file is empty or named twice, or a URL needs a package that is not installed.
    """
    files = [file for pattern in patterns for file in _found(pattern, readable)]
    if not files:
        raise SteepestError("no file is named.", hint="Name one or several files, or a glob such as '*.csv'.")
    names = [file.name for file in files]
    if twice := next((name for index, name in enumerate(names) if name in names[:index]), None):
        raise SteepestError(
            f"{twice} is named twice, so its rows would count twice.", hint="Name each file once."
        )
    return tuple(files)


def _found(pattern: str, readable: Callable[[str], bool]) -> list[File]:
    try:
        return _matching(pattern, readable)
    except FileNotFoundError:
        raise SteepestError(f"there is no file {pattern}.", hint="Check the address.") from None


def _matching(pattern: str, readable: Callable[[str], bool]) -> list[File]:
    if is_url(pattern):
        return _remote_files(pattern)
    pattern = local_path(pattern)
    if Path(pattern).is_dir():
        found = sorted(str(path) for path in Path(pattern).rglob("*.parquet") if path.is_file())
        return [_file(path, path, keys) for path, keys in _data_set(pattern, found)]
    if Path(pattern).is_file():
        return [_file(pattern, pattern)]
    if not glob.has_magic(pattern):
        raise _missing(Path(pattern), readable)
    # Path.glob cannot say where an absolute pattern begins.
    found = sorted(each for each in glob.glob(pattern, recursive=True) if Path(each).is_file())  # noqa: PTH207
    if not found:
        raise _no_match(pattern)
    return [_file(path, path) for path in found]


def is_url(name: str) -> bool:
    """Tell whether a name is the address of something on another file system.

    Examples
    --------
    >>> is_url("hdfs://namenode:9000/flights.csv"), is_url("file:///flights.csv"), is_url("flights.csv")
    (True, False, False)
    """
    return bool(_URL.match(name)) and not name.startswith("file://")


def local_path(name: str) -> str:
    """Return the path that a name on this machine's file system stands for, be it a ``file://`` URL."""
    if name.startswith("file://"):
        return urllib.request.url2pathname(urllib.parse.urlsplit(name).path)
    return name


def _remote_files(url: str) -> list[File]:
    """Return the files that a URL stands for."""
    with reaching(url):
        remote, path = open_remote(url)
        return [_file(name, each, keys, remote) for name, each, keys in _remote_matches(url, remote, path)]


def is_hadoop(url: str) -> bool:
    """Tell whether a URL is of Hadoop's file system."""
    return url.split("://", maxsplit=1)[0] in HADOOP


@contextlib.contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn what goes wrong on another file system into an error for a person; FileNotFoundError passes."""
    scheme = url.split("://", maxsplit=1)[0].rsplit("::", maxsplit=1)[-1]
    packages = ("fsspec", "hdfs_native") if scheme in HADOOP else ("fsspec",)
    if not all(map(importlib.util.find_spec, packages)):
        raise SteepestError(
            f"{url} needs a package that is not installed.",
            hint="Install it: pip install 'steepest[remote]'.",
        )
    try:
        yield
    except (SteepestError, FileNotFoundError):
        raise
    except ImportError as error:  # of the package for this kind of address, which fsspec names
        raise SteepestError(
            f"{url} needs a package that is not installed: {error}.", hint="Install it with pip."
        ) from None
    except Exception as error:  # each file system has errors of its own
        reason = _reason(error)
        if denied := _DENIED.search(reason):
            raise SteepestError(
                f"{url} can't be used: {denied['user']} has no {denied['access']} permission there.",
                hint="Choose another place, or be another user: HADOOP_USER_NAME or a Kerberos ticket.",
            ) from error
        raise SteepestError(
            f"{url} cannot be reached: {reason}.", hint="Check the address and your access to it."
        ) from error


def _reason(error: Exception) -> str:
    """Return what an error of a file system says, without the name node's stack."""
    said = getattr(error, "strerror", None) or str(error).strip()
    if told := _REMOTE_ERROR.match(said):
        said = told[1]
    return re.split(r"\n|\\n", said)[0].rstrip(".") or type(error).__name__


def open_remote(url: str, **options: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    A Hadoop URL's name node is reached first, so that a wrong one is told at once. In its path ``?``, ``#``
    and ``;`` are characters as others are, of a name or a pattern; hdfs-native would end the path there.
    """
    url_to_fs = importlib.import_module("fsspec.core").url_to_fs
    if not is_hadoop(url):
        opened: tuple[Any, str] = url_to_fs(url, **options)
        return opened
    reach(url)
    # A process that is forked, as PySpark does for its JVM, empties fsspec's cache, and would wait there for
    # ever: hdfs-native's threads, whose end it awaits, are not in it.
    remote, _ = url_to_fs(_node(url), skip_instance_cache=True, **options)
    remote._strip_protocol = _hadoop_path
    return remote, _hadoop_path(url)


def reach(url: str) -> None:
    """See that a Hadoop URL's name node answers: by its port, or, for a name service, by a short question."""
    node = urllib.parse.urlsplit(_node(url))
    if node.port:
        socket.create_connection((node.hostname, node.port), _REACHED_WITHIN).close()
    else:
        client = importlib.import_module("hdfs_native").Client
        client(_node(url), IMPATIENT).get_file_info("/")


def _node(url: str) -> str:
    """Return the beginning of a Hadoop URL, up to its path."""
    return "/".join(url.split("/")[:3])


def _hadoop_path(url: str) -> str:
    return re.sub(r"^[^/]+://[^/]*", "", url) or "/"


def _remote_matches(url: str, remote: Any, path: str) -> list[tuple[str, str, dict[str, str | None]]]:
    """Return name, path and keys of each file that a URL stands for."""
    web = "http" in remote.protocol  # whose addresses may have a ? and whose folders can't be told from files
    if "*" in path or (not web and glob.has_magic(path)):
        paths = sorted(remote.glob(path))
        if not paths:
            raise _no_match(url)
        return [(remote.unstrip_protocol(each), each, {}) for each in paths]
    if not web and remote.isdir(path):
        inside = sorted(each for each in remote.find(path) if each.endswith(".parquet"))
        return [(remote.unstrip_protocol(each), each, keys) for each, keys in _data_set(path, inside, url)]
    return [(url, path, {})]


def _file(name: str, path: str, keys: dict[str, str | None] | None = None, remote: Any = None) -> File:
    return File(name, path, keys or {}, remote, _stamp(name, path, remote))


def _stamp(name: str, path: str, remote: Any) -> str | None:
    """Return what changes whenever a file may have changed."""
    if remote is None:
        found = os.stat(path)  # noqa: PTH116
        size = found.st_size
        marks = [os.path.realpath(path), size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns]
    else:
        remote.invalidate_cache()
        info = remote.info(path)
        size = info.get("size")
        marks = [f"{mark}={info[mark]}" for mark in _MARKS if info.get(mark) is not None]
    if size == 0:
        raise SteepestError(f"{name} is empty (0 bytes).", hint="Write it again, or name another file.")
    if remote is not None and len(marks) < 2:  # a size alone says little
        return None
    return hashlib.sha256(repr((name, marks)).encode()).hexdigest()


def _data_set(folder: str, files: Sequence[str], name: str = "") -> list[tuple[str, dict[str, str | None]]]:
    """Return the Parquet files of a folder and the keys in the names of the folders between."""
    found = []
    for file in files:
        *between, last = Path(file).relative_to(folder).parts
        if any(part.startswith((".", "_")) for part in (*between, last)):
            continue  # what writers leave beside their files
        parts = [urllib.parse.unquote(part).partition("=") for part in between if "=" in part]
        found.append((file, {key: None if value == _NO_VALUE else value for key, _, value in parts}))
    if not found:
        raise SteepestError(
            f"{name or folder} is a folder, not a file, and has no Parquet files.",
            hint=f"Name its files: '{posixpath.join(name or folder, '*.csv')}'.",
        )
    return found


def _gone(name: str) -> SteepestError:
    return SteepestError(f"there is no file {name} any more.", hint="Put it back.")


def _no_match(pattern: str) -> SteepestError:
    return SteepestError(
        f"no file matches '{pattern}'.", hint="Check the folder and the ending of the pattern."
    )


def _missing(path: Path, readable: Callable[[str], bool]) -> SteepestError:
    folder = path.parent
    if not folder.is_dir():
        return SteepestError(f"there is no folder {folder}.", hint=f"So there is no file {path} either.")
    tables = sorted(each.name for each in folder.iterdir() if each.is_file() and readable(each.name))
    hint = nearest(path.name, tables) if tables else f"The folder {folder} has no file that can be read."
    return SteepestError(f"there is no file {path}.", hint=hint)

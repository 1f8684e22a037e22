"""A folder that is complete or absent."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steepest.errors import SteepestError


def check_free(folder: Path, mark: str, overwrite: bool) -> None:
    """Refuse to write a folder where something else stands.

    Parameters
    ----------
    folder
        The folder.
    mark
        The name of a file that every folder of its kind has.
    overwrite
        Whether one of its kind may be replaced.

    Raises
    ------
    SteepestError
        If it may not, or is of another kind.
    """
    if not folder.exists():
        return
    if not (folder / mark).is_file():
        raise SteepestError(
            f"{folder} exists and has no {mark}; it is left as it is.", hint="Choose another --out."
        )
    if not overwrite:
        raise SteepestError(f"{folder} exists.", hint="Choose another --out, or add --overwrite.")


@contextmanager
def written_whole(folder: Path, mark: str, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write to that takes its name only once all is written; see `check_free`.

    Raises
    ------
    SteepestError
        As `check_free`, or if it can't be written.
    """
    check_free(folder, mark, overwrite)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            work = aside / folder.name
            work.mkdir()
            yield work
            check_free(folder, mark, overwrite)
            if folder.exists():
                folder.rename(aside / "old")
            work.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise SteepestError(
            f"{folder} can't be written: {error.strerror or error}.", hint="Choose another --out."
        ) from error

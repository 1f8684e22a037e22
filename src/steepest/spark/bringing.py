"""What the driver brings to the shared storage, for all attempts at a fit.

That is rows that the workers can't read, the run that the fit goes on from, and the modules that build a
Keras model. Rows and a run that are there already, because the same fit was begun before, stay.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from steepest.continuing import Earlier
from steepest.copies import HELD_OUT, copy_rows, read_by_all
from steepest.data.rows import RowSource
from steepest.data.source import open_source
from steepest.preparation import named, require_columns
from steepest.settings import Settings
from steepest.spark.telling import Listener
from steepest.storage import Storage
from steepest.worker import FROM, MODULES


def opened(settings: Settings, files: Sequence[str]) -> RowSource:
    """Open files with the columns that the settings name.

    Raises
    ------
    SteepestError
        If they can't be read, or have no such columns.
    """
    source = open_source([*files], drop=settings.drop, max_rejected=settings.max_rejected)
    require_columns(source.schema.names, named(settings), source.names)
    return source


def held_out(settings: Settings) -> dict[str, RowSource]:
    """Open the file of rows to judge by, if the settings name one."""
    return {HELD_OUT: opened(settings, [settings.validation_file])} if settings.validation_file else {}


def bring_rows(
    storage: Storage,
    settings: Settings,
    sources: Mapping[str, RowSource],
    elsewhere: bool,
    listener: Listener,
) -> None:
    """Bring the rows that the workers can't read themselves.

    Parameters
    ----------
    storage
        Where they go.
    settings
        Of the fit.
    sources
        Rows of files, by what they are called there.
    elsewhere
        Whether workers run on other machines.
    listener
        Hears of surprises, and how far it is.
    """
    for called, source in sources.items():
        if not read_by_all(source, elsewhere):
            copy_rows(source, storage, called, drop=settings.drop, say=listener.say, seen=listener.seen)


def bring_run(storage: Storage, before: Earlier | None) -> None:
    """Bring the run that the fit goes on from."""
    if before and not storage.exists(FROM):
        storage.put(before.run.path, FROM)


def bring_modules(storage: Storage) -> None:
    """Bring the modules of the current folder that were imported, the one that builds a model among them."""
    with tempfile.TemporaryDirectory() as place:
        for module in _modules_of(Path.cwd()):
            for source in module.rglob("*.py") if module.is_dir() else [module]:
                copy = Path(place, source.relative_to(module.parent))
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
        storage.put(Path(place), MODULES, replace=True)


def _modules_of(folder: Path) -> Iterator[Path]:
    """Yield the files and packages that lie in a folder and were imported, but for the program itself."""
    for name, module in sorted(sys.modules.items()):
        if "." in name or name == "__main__":
            continue
        packages = [Path(each) for each in getattr(module, "__path__", ())]
        file = getattr(module, "__file__", None)
        for place in packages or ([Path(file)] if file else []):
            if place.absolute().parent == folder and (place.is_dir() or place.suffix == ".py"):
                yield place.absolute()

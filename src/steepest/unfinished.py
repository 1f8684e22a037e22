"""A run while it is made: a folder beside the run's, named ``RUN.unfinished``, that becomes the run.

So a run's folder is complete or absent, and an interrupted run can be seen, resumed and removed. The folder
holds the settings, the checkpoints, the learning rate that was found, and in ``begun.json`` the fingerprint
of the data and whether the run takes the place of an older one; a lock keeps a second process out.

A run that is kept on HDFS is made in the folder for caches, and put there as the last thing before it takes
its name: until then it is found again, as any interrupted run is.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from steepest.combining import read_settings
from steepest.data.cache import cache_folder, key_of, to_disk
from steepest.data.files import is_url
from steepest.errors import SteepestError
from steepest.run import Run, copy_of, is_run
from steepest.settings import NAMES, OF_SPARK, Settings, to_toml
from steepest.storage import storage_of

ENDING = ".unfinished"

CHECKPOINTS = "checkpoints"

SETTINGS, BEGUN, LOCK, RATE = "settings.toml", "begun.json", "lock", "learning_rate.json"

BARE = {BEGUN, LOCK, CHECKPOINTS, *(f".{name}" for name in (SETTINGS, BEGUN, CHECKPOINTS))}
"""What a folder may have that a process was killed in before it had settings, or while it was removed."""

MAY_DIFFER = ("out", "memory", "checkpoint_every", "log", *OF_SPARK)
"""Settings that do not change what a run ends with."""


def unfinished_of(folder: Path) -> Path:
    """Return where the run of this folder is made.

    Examples
    --------
    >>> unfinished_of(Path("runs/flights")) == unfinished_of(Path("runs/flights.unfinished"))
    True
    """
    return folder if folder.name.endswith(ENDING) else folder.with_name(folder.name + ENDING)


def holds_checkpoint(work: Path) -> bool:
    """Tell whether there is something to go on from."""
    return any(is_checkpoint(each.name) for each in (work / CHECKPOINTS).glob("[!.]*"))


def is_checkpoint(name: str) -> bool:
    """Tell whether a file of this name is one to go on from, and no part of a history."""
    return name.endswith(".safetensors") and not name.startswith("history-")


def folder_of(settings: Settings) -> Path:
    """Return a run's folder; of one that is kept on HDFS, the folder on this machine that it is put from."""
    return _local(settings.out) if settings.out else free_name(settings)


def _local(out: str) -> Path:
    """Return the local folder of a run that is named so; a URL is far from being a path, so its hash is."""
    return cache_folder() / "runs" / key_of({"run": out.rstrip("/")}) if is_url(out) else Path(out)


def named(settings: Settings, folder: Path) -> str:
    """Return what a person calls the run of this folder."""
    return settings.out if settings.out and is_url(settings.out) else str(folder)


def kept(settings: Settings, folder: Path) -> Run:
    """Return the complete run of this folder; of one that is kept on HDFS, a copy that goes away."""
    if named(settings, folder) == str(folder):
        return Run(folder)
    copy = copy_of(named(settings, folder), Path(tempfile.mkdtemp(prefix="copy-", dir=folder.parent)))
    folder.rename(copy.path)
    return copy


def interrupted(run: str) -> Settings:
    """Return the settings of an interrupted run, of which ``out`` is the run's name.

    Raises
    ------
    SteepestError
        If there is none.
    """
    work = unfinished_of(_local(run))
    if not (work / SETTINGS).is_file():
        whole = is_run(_local(run))
        raise SteepestError(
            f"The run {run} is complete." if whole else f"There is no interrupted run {run}.",
            hint="steepest fit --from RUN goes on with a complete one."
            if whole
            else "steepest fit begins one; an interrupted one has a folder RUN.unfinished.",
        )
    out = run if is_url(run) else str(work.with_name(work.name.removesuffix(ENDING)))
    return replace(Settings(), **{**read_settings(str(work / SETTINGS)), "out": out})


def free_name(settings: Settings) -> Path:
    """Return a folder under ``runs`` that is named after the data.

    It does not exist, or these very settings were interrupted there.
    """
    stem = Path(settings.data[0]).name.split(".")[0].strip("*?[]- ") or "run"
    number = 1
    while True:
        folder = Path("runs", stem if number == 1 else f"{stem}-{number}")
        work = unfinished_of(folder)
        taken = folder.exists() or not _is_ours(work) or _differences(work, settings)
        if not taken:
            return folder
        number += 1


def check_out(folder: Path, settings: Settings, overwrite: bool) -> None:
    """Refuse to write a run where something else stands, or where nothing can be written.

    A run that diverged may be replaced.

    Raises
    ------
    SteepestError
        If the folder exists and is not a run that may be overwritten, if another run was interrupted there,
        or if it can't be made.
    """
    work = unfinished_of(folder)
    if work == folder:
        raise SteepestError(
            f"{folder} ends as the folders of interrupted runs do.",
            hint=f"Choose an --out without {ENDING}.",
        )
    try:
        folder.exists(), work.exists()
        above = next(each for each in folder.absolute().parents if each.exists())
    except OSError as error:
        raise _unwritable(folder, error.strerror) from None
    if not above.is_dir():
        raise _unwritable(folder, f"{above} is no folder")
    if not os.access(above, os.W_OK):
        raise _unwritable(folder, f"the folder {above} takes no files from you")
    if not _is_ours(work):
        raise SteepestError(
            f"{work} exists and is no interrupted run; it is left as it is.", hint="Choose another --out."
        )
    name, going_on = named(settings, folder), holds_checkpoint(work)
    replaced = overwrite or (going_on and _begun(work).get("overwrite"))
    if (_stands(folder) if name == str(folder) else _stands_far(name)) and not replaced:
        raise SteepestError(
            f"The run {name} exists.",
            hint="Choose another --out, add --overwrite, or go on with it: --from RUN --out ANOTHER.",
        )
    if going_on and not overwrite and (differences := _differences(work, settings)):
        raise SteepestError(
            f"{work} is an interrupted run with other settings: {differences}.",
            hint=f"steepest resume {name} goes on with it; --overwrite begins anew.",
        )


def _stands(folder: Path) -> bool:
    """Tell whether a run with a model stands there; refuse what is no run."""
    if not folder.exists():
        return False
    if not (folder.is_dir() and is_run(folder)):
        raise _no_run(str(folder))
    return not _diverged(folder)


def _stands_far(url: str) -> bool:
    """Tell the same of a run on HDFS; refuse where none can be written."""
    storage, name = storage_of(url)
    storage.require_writable()
    if not storage.exists(name):
        return False
    if not storage.exists(f"{name}/record.json"):
        raise _no_run(url)
    with tempfile.TemporaryDirectory() as copy:
        storage.get(f"{name}/record.json", Path(copy, "record.json"))
        return not _diverged(Path(copy))


def _no_run(name: str) -> SteepestError:
    return SteepestError(f"{name} exists and is no run; it is left as it is.", hint="Choose another --out.")


def _diverged(folder: Path) -> bool:
    """Tell whether a run's descent diverged: it has no model, and another run may take its place."""
    try:
        return bool(Run(folder).record["descent"].get("failure"))
    except (SteepestError, LookupError, AttributeError):
        return False


def _is_ours(work: Path) -> bool:
    """Tell whether a folder is an interrupted run, just being made, or not there."""
    if not work.exists():
        return True
    return work.is_dir() and ((work / SETTINGS).is_file() or {each.name for each in work.iterdir()} <= BARE)


def _begun(work: Path) -> dict[str, Any]:
    """Return what was written down when an interrupted run was begun."""
    with suppress(FileNotFoundError):
        begun: dict[str, Any] = json.loads((work / BEGUN).read_text("utf-8"))
        return begun
    return {}


def _differences(work: Path, settings: Settings) -> str:
    """Return in what an interrupted run's settings differ from these, as a sentence, or nothing."""
    if not (work / SETTINGS).is_file():
        return ""
    theirs = replace(Settings(), **read_settings(str(work / SETTINGS)))
    pairs = [
        (name, getattr(theirs, name), getattr(settings, name)) for name in NAMES if name not in MAY_DIFFER
    ]
    return ", ".join(f"{name} was {was} and is now {now}" for name, was, now in pairs if was != now)


@contextmanager
def in_the_making(
    folder: Path,
    settings: Settings,
    data: str | None,
    overwrite: bool,
    holds: Callable[[], bool] | None = None,
) -> Iterator[Path]:
    """Give a folder to make a run in; it takes the run's name only once all is written.

    What was interrupted there is found again. When it is interrupted anew, or fails, the folder stays if it
    holds a checkpoint.

    Parameters
    ----------
    folder
        The run's folder.
    settings
        Those of the run.
    data
        A fingerprint of the data; ``None`` where there is none.
    overwrite
        Whether a complete or an interrupted run may be replaced.
    holds
        Tells whether there is something to go on from; ``None``: whether the folder has a checkpoint.

    Raises
    ------
    SteepestError
        As `check_out`, or if the data has changed, or another process makes this run.
    """
    check_out(folder, settings, overwrite)
    work = unfinished_of(folder)
    try:
        work.mkdir(parents=True, exist_ok=True)
        with _lock(work, folder):
            _begin(work, settings, data, overwrite)
            try:
                yield work
                _finish(work, folder, settings, overwrite)
            except BaseException:
                if not (holds() if holds else holds_checkpoint(work)):
                    shutil.rmtree(work, ignore_errors=True)
                raise
    except OSError as error:
        raise _unwritable(folder, error.strerror or error) from error


@contextmanager
def _lock(work: Path, folder: Path) -> Iterator[IO[bytes]]:
    with (work / LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SteepestError(
                f"Another process is making the run {folder}.", hint="Wait for it, or choose another --out."
            ) from None
        yield lock


def _begin(work: Path, settings: Settings, data: str | None, overwrite: bool) -> None:
    """Write down what the run is made of, or see that it is what was interrupted."""
    begun = {}
    if holds_checkpoint(work):
        begun = _begun(work)
        changed = begun.get("data", data) != data
        if overwrite and (changed or _differences(work, settings)):
            forget_checkpoints(work)
        elif changed:
            raise SteepestError(
                f"The data of the interrupted run {work} has changed since it was begun.",
                hint="--overwrite begins anew with the data as it is now.",
            )
    shutil.rmtree(work / f".{CHECKPOINTS}", ignore_errors=True)
    if not holds_checkpoint(work):
        (work / RATE).unlink(missing_ok=True)
    begun = {"data": data, "overwrite": overwrite or begun.get("overwrite", False)}
    for name, text in ((BEGUN, json.dumps(begun)), (SETTINGS, to_toml(settings))):
        _keep(work / name, text)


def kept_rate(work: Path) -> dict[str, Any] | None:
    """Return the search for a learning rate that an interrupted run began with, if there was one."""
    with suppress(FileNotFoundError):
        search: dict[str, Any] = json.loads((work / RATE).read_text("utf-8"))
        return search
    return None


def keep_rate(work: Path, search: Mapping[str, Any]) -> None:
    """Keep a search for a learning rate, so that the run need not search again when it goes on."""
    _keep(work / RATE, json.dumps(search))


def _keep(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    aside = path.with_name(f".{path.name}")
    aside.write_text(text, "utf-8")
    aside.replace(path)


def forget_checkpoints(work: Path) -> None:
    """Remove all checkpoints at once: a process that is killed here leaves all of them or none."""
    aside = work / f".{CHECKPOINTS}"
    shutil.rmtree(aside, ignore_errors=True)
    if (work / CHECKPOINTS).exists():
        (work / CHECKPOINTS).rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _finish(work: Path, folder: Path, settings: Settings, overwrite: bool) -> None:
    """Let the run take its name, in place of an older one."""
    check_out(folder, settings, overwrite)
    if named(settings, folder) != str(folder):
        _put(work, named(settings, folder))
    for name in (LOCK, BEGUN, RATE):
        (work / name).unlink(missing_ok=True)
    to_disk(work)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    work.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _put(work: Path, url: str) -> None:
    """Put the run on HDFS, whole or not at all; what only an interrupted run needs stays here."""
    storage, name = storage_of(url)
    only_here = shutil.ignore_patterns(LOCK, BEGUN, RATE)
    with tempfile.TemporaryDirectory(dir=work.parent) as folder:
        whole = Path(folder, "run")
        shutil.copytree(work, whole, ignore=only_here, copy_function=os.link)
        storage.put(whole, name, replace=True)


def _unwritable(folder: Path, why: object) -> SteepestError:
    return SteepestError(f"The run {folder} can't be written: {why}.", hint="Choose another --out.")

"""One process of a fit by several: ``python -m steepest.worker``.

It is started by who gives it its rows (`steepest.spark.stage`), gets ready, reads its job from a line of
standard input, ends when that process does, and says how far it is: a line of JSON on standard output every
two seconds, and one for an error.

The process of rank 0 writes the run, and brings its checkpoints to storage that all attempts at the fit
reach, each attempt to a folder of its own: what a process writes that was taken for dead, no later attempt
looks at.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from steepest.checkpoints import OtherDescentError
from steepest.errors import SteepestError
from steepest.mirroring import ATTEMPTS, Mirror, Progress
from steepest.run import Run
from steepest.settings import Settings, settings_from_json, to_toml
from steepest.storage import Storage, storage_at
from steepest.trained import DivergenceError
from steepest.unfinished import CHECKPOINTS, RATE, SETTINGS, is_checkpoint, unfinished_of

BEAT = 2.0
"""Seconds between two lines."""

LAST = 1.0
"""Seconds that a process waits before it ends for want of another one, which is to be heard first: it is the
one that knows why."""

RUN = "run"
"""The name of the complete run in the shared storage."""

FROM, MODULES = "from", "modules"
"""What else is in the shared storage, if it is needed: the run that the fit goes on from, and the folder of
the module that builds its model."""

ERRORS = {each.__name__: each for each in (SteepestError, DivergenceError, OtherDescentError)}
"""The errors for a person that are told from one process to another, by their names."""


def as_told(error: SteepestError) -> dict[str, str]:
    """Return an error for a person as plain JSON."""
    kind = next(name for name, each in reversed(ERRORS.items()) if isinstance(error, each))
    return {"error": error.what, "hint": error.hint, "kind": kind}


def from_told(told: dict[str, str]) -> SteepestError:
    """Return the error that `as_told` wrote.

    Examples
    --------
    >>> from_told(as_told(SteepestError("there are no rows.", hint="Add some.")))
    SteepestError('there are no rows. Add some.')
    """
    return ERRORS[told["kind"]](told["error"], hint=told["hint"])


@dataclass(frozen=True)
class Job:
    """What one process is to do.

    Parameters
    ----------
    rank, size, coordinator
        See `steepest.process_group.join`.
    settings
        Of the fit.
    rows
        An Arrow file with the rows of this process; ``None`` where it reads its share of files.
    folder
        This process's own, on the local disk.
    shared
        The storage that all reach.
    attempt
        How often the fit was begun before.
    keras
        See `steepest.keras.working`, if the model is Keras'.
    files, columns
        Files that take the place of the settings', and which of their columns are the rows'.
    """

    rank: int
    size: int
    coordinator: str
    settings: dict[str, Any]
    rows: str | None
    folder: str
    shared: str
    attempt: int
    keras: dict[str, Any] | None = None
    files: Sequence[str] = ()
    columns: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


_told: IO[str] = sys.stdout
"""What is told goes there."""


def main() -> None:
    """Do what the job says, and leave without waiting for the others if it can't be done."""
    global _told  # noqa: PLW0603 - there is one standard output
    _told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # gloo writes to the standard output
    progress = Progress()
    threading.Thread(target=_beat, args=[progress], daemon=True).start()
    try:
        import_module("steepest.leading")  # which takes a while: the rows may be still to come
        line = sys.stdin.readline()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        if line:
            _work(Job(**json.loads(line)), progress)
    except SteepestError as error:
        _tell(**as_told(error))
        os._exit(2)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        time.sleep(LAST)
        os._exit(1)
    sys.stderr.flush()
    os._exit(0)  # there is nothing to tidy up, which would take a second


def _tell(**what: Any) -> None:
    _told.write(json.dumps(what) + "\n")
    _told.flush()


def _end_with_parent() -> None:
    """Wait for the end of standard input, which is that of the process that started this one."""
    while os.read(0, 2**10):
        pass
    os._exit(3)


def _beat(progress: Progress) -> None:
    while True:
        progress.beat()
        _tell(count=progress.count, doing=progress.doing)
        time.sleep(BEAT)


def _work(job: Job, progress: Progress) -> None:
    from steepest import leading, training
    from steepest.passes import Known
    from steepest.preparation import prepare
    from steepest.process_group import join

    settings, folder = settings_from_json(job.settings), Path(job.folder)
    group = join(job.coordinator, job.rank, job.size)
    group = replace(group, local_steps=settings.local_steps, seen=progress.go_on)
    if job.keras is not None:
        from steepest.keras import working

        working.work(job, group, progress)
        return
    rows, held_out = _rows(job, settings), _held_out(job, settings)
    before = _before(job, settings)
    _reach_modules(job)

    def seen(doing: str, rows: int, of: int | None) -> None:
        progress.on_rows_seen(doing, rows, of)

    if job.rank:
        known = Known(before.task, before.plan) if before else None
        prepared = prepare(settings, rows, held_out, known=known, seen=seen, group=group)
        progress.doing = leading.FOLLOWING
        leading.follow(prepared, [progress], folder / CHECKPOINTS)
        return
    storage, place = storage_at(job.shared), folder / RUN
    work = unfinished_of(place)
    _restore(storage, job.attempt, work, settings)
    with Mirror(storage, job.attempt, work, progress, settings.checkpoint_every):
        here = replace(settings, out=str(place))
        known_here = {"group": group, "told": settings, "held_out": held_out, "before": before}
        try:
            training.fit(here, rows, callbacks=[progress], say=progress.say, **known_here)
        except DivergenceError:
            storage.put(place, RUN, replace=True)  # its report shows why
            raise
    storage.put(place, RUN, replace=True)


def _rows(job: Job, settings: Settings) -> Any:
    """Open the rows of this process."""
    from steepest.copies import ROWS
    from steepest.data.chosen import ChosenColumns
    from steepest.data.spooled import ArrowFile

    if job.rows is not None:
        return ArrowFile(Path(job.rows), settings.data)
    share = _share(job, ROWS, job.files or settings.data)
    return ChosenColumns(share, tuple(job.columns), settings.data) if job.files else share


def _held_out(job: Job, settings: Settings) -> Any:
    """Open this process's rows of the file to judge by, if the settings name one."""
    from steepest.copies import HELD_OUT

    return _share(job, HELD_OUT, [settings.validation_file]) if settings.validation_file else None


def _share(job: Job, called: str, files: Sequence[str]) -> Any:
    """Open this process's share of the rows of files, or of their copy of this name."""
    from steepest.copies import copied_rows
    from steepest.data.sliced import SlicedSource, share_of_rows
    from steepest.data.source import open_source

    folder = Path(job.folder, called)
    folder.mkdir()
    source = copied_rows(storage_at(job.shared), folder, called) or open_source([*files])
    assert source.rows is not None  # noqa: S101 - the files are Parquet
    return SlicedSource(source, *share_of_rows(source.rows, job.rank, job.size))


def _before(job: Job, settings: Settings) -> Run | None:
    """Open the run that the fit goes on from, if it does, under the name that it has."""
    if settings.from_ is None:
        return None
    folder = Path(job.folder, FROM)
    storage_at(job.shared).get(FROM, folder)
    return Run(folder, settings.from_)


def _reach_modules(job: Job) -> None:
    """Let the modules that the driver brought be imported."""
    storage, folder = storage_at(job.shared), Path(job.folder, MODULES)
    if storage.exists(MODULES):
        storage.get(MODULES, folder)
        sys.path.insert(0, str(folder))


def _restore(storage: Storage, attempt: int, work: Path, settings: Settings) -> None:
    """Bring the newest checkpoint of an earlier attempt here, if there is one."""
    for earlier in sorted(storage.names(f"{ATTEMPTS}/"), reverse=True):
        names = storage.names(f"{earlier}/")
        if int(Path(earlier).name) >= attempt or not any(is_checkpoint(Path(name).name) for name in names):
            continue
        (work / CHECKPOINTS).mkdir(parents=True)
        (work / SETTINGS).write_text(to_toml(settings), "utf-8")
        for name in names:
            file = Path(name).name
            storage.get(name, work / file if file == RATE else work / CHECKPOINTS / file)
        return


if __name__ == "__main__":
    main()

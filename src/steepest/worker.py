"""One process of a fit by several: ``python -m steepest.worker JOB``.

It is started by who gives it its rows (`steepest.spark.stage`), ends when that process does, and says how far
it is: a line of JSON on standard output every two seconds, and one for an error.

The process of rank 0 writes the run, and brings its checkpoints to storage that all attempts at the fit
reach, each attempt to a folder of its own: what a process writes that was taken for dead, no later attempt
looks at.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from steepest.callbacks import Callback
from steepest.checkpoints import OtherDescentError
from steepest.errors import SteepestError
from steepest.settings import Settings, settings_from_json, to_toml
from steepest.storage import Storage, storage_at
from steepest.trained import DivergenceError
from steepest.unfinished import CHECKPOINTS, RATE, SETTINGS, unfinished_of

BEAT = 2.0
"""Seconds between two lines."""

LAST = 1.0
"""Seconds that a process waits before it ends for want of another one, which is to be heard first: it is the
one that knows why."""

RUN = "run"
"""The name of the complete run in the shared storage."""

ATTEMPTS = "attempts"

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
        An Arrow file with the rows of this process; ``None`` where it reads its share of the settings' files.
    folder
        This process's own, on the local disk.
    shared
        The storage that all reach.
    attempt
        How often the fit was begun before.
    """

    rank: int
    size: int
    coordinator: str
    settings: dict[str, Any]
    rows: str | None
    folder: str
    shared: str
    attempt: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


_told: IO[str] = sys.stdout
"""What is told goes there."""


class Progress(Callback):
    """Counts what happens, so that a process that is stuck can be told from one that is slow."""

    def __init__(self) -> None:
        self.count = 0
        self.doing = "starting"

    def on_rows_seen(self, doing: str, rows: int, of: int | None) -> None:  # noqa: ARG002 - a hook's
        """Count a stretch of rows."""
        self.count, self.doing = self.count + 1, doing

    def on_window_end(self, epoch: int, rows: int, loss: float) -> None:  # noqa: ARG002 - a hook's
        """Count a window of steps."""
        self.count, self.doing = self.count + 1, f"epoch {epoch}"


def main() -> None:
    """Do what the job says, and leave without waiting for the others if it can't be done."""
    global _told  # noqa: PLW0603 - there is one standard output
    _told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # gloo writes to the standard output
    progress = Progress()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.Thread(target=_beat, args=[progress], daemon=True).start()
    try:
        _work(Job(**json.loads(Path(sys.argv[1]).read_text("utf-8"))), progress)
    except SteepestError as error:
        _tell(**as_told(error))
        os._exit(2)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        time.sleep(LAST)
        os._exit(1)


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
        _tell(count=progress.count, doing=progress.doing)
        time.sleep(BEAT)


def _work(job: Job, progress: Progress) -> None:
    from steepest import leading, training
    from steepest.preparation import prepare
    from steepest.process_group import join

    settings, folder = settings_from_json(job.settings), Path(job.folder)
    group = replace(join(job.coordinator, job.rank, job.size), local_steps=settings.local_steps)
    rows = _rows(job, settings)

    def seen(doing: str, rows: int, of: int | None) -> None:
        progress.on_rows_seen(doing, rows, of)

    if job.rank:
        prepared = prepare(settings, rows, seen=seen, group=group)
        progress.doing = leading.FOLLOWING
        leading.follow(prepared, [progress], folder / CHECKPOINTS)
        return
    storage, place = storage_at(job.shared), folder / RUN
    work = unfinished_of(place)
    _restore(storage, job.attempt, work, settings)
    with Mirror(storage, f"{ATTEMPTS}/{job.attempt:04}", work):
        here = replace(settings, out=str(place))
        try:
            training.fit(here, rows, callbacks=[progress], say=_say, group=group, told=settings)
        except DivergenceError:
            storage.put(place, RUN, replace=True)  # its report shows why
            raise
    storage.put(place, RUN, replace=True)


def _say(text: str) -> None:
    _tell(say=text)


def _rows(job: Job, settings: Settings) -> Any:
    """Open the rows of this process."""
    from steepest.data.sliced import SlicedSource, share_of_rows
    from steepest.data.source import open_source
    from steepest.data.spooled import ArrowFile

    if job.rows is not None:
        return ArrowFile(Path(job.rows), settings.data)
    source = open_source(list(settings.data))
    assert source.rows is not None  # noqa: S101 - the files are Parquet
    return SlicedSource(source, *share_of_rows(source.rows, job.rank, job.size))


def _restore(storage: Storage, attempt: int, work: Path, settings: Settings) -> None:
    """Bring the newest checkpoint of an earlier attempt here, if there is one."""
    for earlier in sorted(storage.names(f"{ATTEMPTS}/"), reverse=True):
        names = storage.names(f"{earlier}/")
        if int(Path(earlier).name) >= attempt or not any("checkpoint-" in name for name in names):
            continue
        (work / CHECKPOINTS).mkdir(parents=True)
        (work / SETTINGS).write_text(to_toml(settings), "utf-8")
        for name in names:
            file = Path(name).name
            storage.get(name, work / file if file == RATE else work / CHECKPOINTS / file)
        return


class Mirror:
    """Brings new checkpoints to a storage, in a thread, as long as the context lasts.

    Parameters
    ----------
    storage, name
        Where they go.
    work
        The run in the making that they are of.
    """

    def __init__(self, storage: Storage, name: str, work: Path) -> None:
        self.storage, self.name, self.work = storage, name, work
        self._over = threading.Event()
        self._put: set[str] = set()
        self._error: SteepestError | None = None
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def __enter__(self) -> Mirror:
        self._thread.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        if error is not None:
            with suppress(SteepestError):
                self._bring()  # the last window before another worker was lost

    def _go_on(self) -> None:
        try:
            while not self._over.wait(1.0):
                self._bring()
        except SteepestError as error:
            self._error = error

    def _bring(self) -> None:
        """Put what is new, parts of the history before the checkpoints that list them; remove the rest."""
        found = {path.name: path for path in (self.work / CHECKPOINTS).glob("[!.]*.safetensors")}
        if (self.work / RATE).is_file():
            found[RATE] = self.work / RATE
        if not found:
            return  # nothing was kept yet, or the run has taken its name
        for name in sorted(found, key=lambda name: (name.startswith("checkpoint-"), name)):
            if name not in self._put and self._copied(found[name]):
                self._put.add(name)
        for name in self._put - set(found):
            self.storage.remove(f"{self.name}/{name}")
        self._put &= set(found)

    def _copied(self, path: Path) -> bool:
        """Put a file; tell whether it was there to be put."""
        aside = self.work.with_name(f"{self.work.name}.{path.name}")
        try:
            shutil.copyfile(path, aside)  # it may be removed at any moment, by who goes on descending
        except FileNotFoundError:
            return False
        self.storage.put(aside, f"{self.name}/{path.name}", replace=True)
        aside.unlink()
        return True


if __name__ == "__main__":
    main()

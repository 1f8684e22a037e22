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
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
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


def progress_of(attempt: int) -> str:
    """Return the name, in the shared storage, of how far an attempt is."""
    return f"progress/{attempt:04}.json"


class Progress(Callback):
    """Counts what happens, so that a process that is stuck can be told from one that is slow.

    Attributes
    ----------
    count
        Changes with every progress.
    doing
        What is being done, for a person.
    said
        What was said.
    """

    def __init__(self) -> None:
        self.count = 0
        self.doing = "starting"
        self.said: list[str] = []
        self._last: dict[str, dict[str, Any]] = {}

    def say(self, text: str) -> None:
        """Keep a sentence for a person."""
        self.count += 1
        self.said.append(text)

    def go_on(self) -> None:
        """Count something that nobody is told of."""
        self.count += 1

    def told(self) -> dict[str, Any]:
        """Return the last call of each hook, by name, and all that was said, as plain JSON."""
        return {"said": [*self.said], **self._last}

    def on_rows_seen(self, doing: str, rows: int, of: int | None) -> None:
        """Count a stretch of rows."""
        self.count, self.doing = self.count + 1, doing
        self._last["rows_seen"] = {"doing": doing, "rows": rows, "of": of}

    def on_descent_begin(self, epochs: int, rows: int) -> None:
        """Remember how much there is to do."""
        self.count += 1
        self._last["descent_begin"] = {"epochs": epochs, "rows": rows}

    def on_window_end(self, epoch: int, rows: int, loss: float) -> None:
        """Count a window of steps."""
        self.count, self.doing = self.count + 1, f"epoch {epoch}"
        self._last["window_end"] = {"epoch": epoch, "rows": rows, "loss": float(loss)}

    def on_epoch_end(self, figures: dict[str, float]) -> None:
        """Remember an epoch's figures."""
        self.count += 1
        self._last["epoch_end"] = {"figures": {name: float(value) for name, value in figures.items()}}


def main() -> None:
    """Do what the job says, and leave without waiting for the others if it can't be done."""
    global _told  # noqa: PLW0603 - there is one standard output
    _told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # gloo writes to the standard output
    progress = Progress()
    threading.Thread(target=_beat, args=[progress], daemon=True).start()
    try:
        import_module("steepest.leading")  # which takes a while: the rows may be still to come
        from steepest.process_group import leave

        line = sys.stdin.readline()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        if line:
            _work(Job(**json.loads(line)), progress)
            leave()
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
        _tell(count=progress.count, doing=progress.doing)
        time.sleep(BEAT)


def _work(job: Job, progress: Progress) -> None:
    from steepest import leading, training
    from steepest.preparation import prepare
    from steepest.process_group import join

    settings, folder = settings_from_json(job.settings), Path(job.folder)
    group = replace(join(job.coordinator, job.rank, job.size), local_steps=settings.local_steps)
    if job.keras is not None:
        from steepest.keras import working

        working.work(job, group, progress)
        return
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
    with Mirror(storage, job.attempt, work, progress):
        here = replace(settings, out=str(place))
        try:
            training.fit(here, rows, callbacks=[progress], say=progress.say, group=group, told=settings)
        except DivergenceError:
            storage.put(place, RUN, replace=True)  # its report shows why
            raise
    storage.put(place, RUN, replace=True)


def _rows(job: Job, settings: Settings) -> Any:
    """Open the rows of this process."""
    from steepest.copies import copied_rows
    from steepest.data.chosen import ChosenColumns
    from steepest.data.sliced import SlicedSource, share_of_rows
    from steepest.data.source import open_source
    from steepest.data.spooled import ArrowFile

    if job.rows is not None:
        return ArrowFile(Path(job.rows), settings.data)
    copied = copied_rows(storage_at(job.shared), Path(job.folder))
    source = copied or open_source([*(job.files or settings.data)])
    assert source.rows is not None  # noqa: S101 - the files are Parquet
    share = SlicedSource(source, *share_of_rows(source.rows, job.rank, job.size))
    return ChosenColumns(share, tuple(job.columns), settings.data) if job.files else share


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
    """Brings new checkpoints and the progress to a storage, in a thread, as long as the context lasts.

    Parameters
    ----------
    storage, attempt
        Where they go: to the attempt's own names.
    work
        The run in the making that they are of.
    progress
        What is told of it.
    """

    def __init__(self, storage: Storage, attempt: int, work: Path, progress: Progress) -> None:
        self.storage, self.name, self.work = storage, f"{ATTEMPTS}/{attempt:04}", work
        self.progress, self._progress_name, self._told = progress, progress_of(attempt), 0
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
        self._tell()
        if self._error is not None:
            raise self._error
        if error is not None:
            with suppress(SteepestError):
                self._bring()  # the last window before another worker was lost

    def _go_on(self) -> None:
        try:
            while not self._over.wait(1.0):
                self._tell()
                self._bring()
        except SteepestError as error:
            self._error = error

    def _tell(self) -> None:
        """Put the progress if there is any."""
        if self.progress.count == self._told:
            return
        self._told = self.progress.count
        aside = self.work.with_name(f"{self.work.name}.progress")
        aside.write_text(json.dumps(self.progress.told()), "utf-8")
        with suppress(SteepestError):  # a fit does not fail because nobody hears of it
            self.storage.put(aside, self._progress_name, replace=True)

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

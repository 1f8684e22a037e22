"""What one of several processes brings to the storage that all attempts reach: checkpoints, and progress."""

from __future__ import annotations

import json
import math
import shutil
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steepest.callbacks import Callback
from steepest.errors import SteepestError
from steepest.storage import Storage
from steepest.unfinished import CHECKPOINTS, RATE

if TYPE_CHECKING:
    from steepest.descent.history import Figures
    from steepest.descent.standing import Setback

ATTEMPTS = "attempts"
"""The folder in the shared storage that has a folder for each attempt at a fit."""

MOST = 1000
"""Epochs that are told; so many do not end between two looks."""

BUSY = 0.1
"""Seconds of processor time between two lines from which on a process computes, and does not wait."""


def progress_of(attempt: int) -> str:
    """Return the name, in the shared storage, of how far an attempt is."""
    return f"progress/{attempt:04}.json"


class Progress(Callback):
    """Counts what happens, so that a process that is stuck can be told from one that is slow.

    Before and after the descent, where a process looks for the learning rate or judges the model by itself
    for minutes, the time that the processor spends on it counts, too.

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
        self._descends, self._spent = False, time.process_time()
        self._last: dict[str, dict[str, Any]] = {}
        self._each: deque[tuple[int, str, dict[str, Any]]] = deque(maxlen=MOST)
        self._number = 0

    def say(self, text: str) -> None:
        """Keep a sentence for a person."""
        self.count += 1
        self.said.append(text)

    def go_on(self) -> None:
        """Count something that nobody is told of."""
        self.count += 1

    def beat(self) -> None:
        """Count the processor's time since the last call, if there was any to speak of."""
        spent = time.process_time()
        if not self._descends and spent - self._spent > BUSY:
            self.count += 1
        self._spent = spent

    def told(self) -> dict[str, Any]:
        """Return the last call of each hook, epochs and setbacks, and all that was said, as plain JSON."""
        return {"said": [*self.said], **self._last, "each": [*self._each]}

    def on_rows_seen(self, doing: str, rows: int, of: int | None) -> None:
        """Count a stretch of rows."""
        self.count, self.doing = self.count + 1, doing
        self._last["rows_seen"] = {"doing": doing, "rows": rows, "of": of}

    def on_settings(self, settings: Mapping[str, Any]) -> None:
        """Remember what was asked for, and what came of it, but not where this process keeps it."""
        known = self._last.get("settings", {"settings": {}})["settings"]
        told = {name: value for name, value in settings.items() if name not in ("run", "checkpoint")}
        self._last["settings"] = {"settings": {**known, **told}}

    def on_resume(self, epochs: Sequence[Figures], step: int, setbacks: int) -> None:
        """Remember where the descent goes on."""
        self._last["resume"] = {"epochs": [*map(_plain, epochs[-MOST:])], "step": step, "setbacks": setbacks}

    def on_descent_begin(self, epochs: int, rows: int) -> None:
        """Remember how much there is to do."""
        self.count, self._descends = self.count + 1, True
        self._last["descent_begin"] = {"epochs": epochs, "rows": rows}

    def on_window_end(self, epoch: int, rows: int, loss: float) -> None:
        """Count a window of steps."""
        self.count, self.doing = self.count + 1, f"epoch {epoch}"
        self._last["window_end"] = {"epoch": epoch, "rows": rows, "loss": float(loss)}

    def on_epoch_end(self, figures: dict[str, float]) -> None:
        """Remember an epoch's figures."""
        self.count += 1
        self._add("epoch_end", figures=_plain(figures))

    def on_setback(self, setback: Setback) -> None:
        """Remember that the descent goes back."""
        self.count += 1
        self._add("setback", setback=[*setback])

    def _add(self, event: str, **details: Any) -> None:
        self._number += 1
        self._each.append((self._number, event, details))

    def on_descent_end(self, result: Any) -> None:  # noqa: ARG002
        """Count that the descent is over."""
        self.count, self.doing, self._descends = self.count + 1, "judging the model", False


def _plain(figures: Figures) -> Figures:
    """Return an epoch's figures as numbers of Python."""
    return {name: value if isinstance(value, int) else float(value) for name, value in figures.items()}


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
    every
        Seconds at least between two versions of a file that is written again under its name.
    """

    def __init__(
        self, storage: Storage, attempt: int, work: Path, progress: Progress, every: float = 0.0
    ) -> None:
        self.storage, self.name, self.work, self.every = storage, f"{ATTEMPTS}/{attempt:04}", work, every
        self.progress, self._progress_name = progress, progress_of(attempt)
        self._told = Progress().told()
        self._over = threading.Event()
        self._put: dict[str, tuple[int, float]] = {}
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
            self.every = 0.0
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
        told = self.progress.told()
        if told == self._told:
            return
        self._told = told
        aside = self.work.with_name(f"{self.work.name}.progress")
        aside.write_text(json.dumps(told), "utf-8")
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
            self._copy(found[name])
        for name in self._put.keys() - found:
            self.storage.remove(f"{self.name}/{name}")
            del self._put[name]

    def _copy(self, path: Path) -> None:
        """Put a file, unless it is there, or an older one of its name was put just now."""
        before, when = self._put.get(path.name, (0, -math.inf))
        if time.monotonic() - when < self.every:
            return
        aside = self.work.with_name(f"{self.work.name}.{path.name}")
        try:
            written = path.stat().st_mtime_ns
            if written == before:
                return
            shutil.copyfile(path, aside)  # it may be removed at any moment, by who goes on descending
        except FileNotFoundError:
            return
        self.storage.put(aside, f"{self.name}/{path.name}", replace=True)
        aside.unlink()
        self._put[path.name] = written, time.monotonic()

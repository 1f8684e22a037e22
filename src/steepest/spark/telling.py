"""What the first worker tells of the fit, brought from the shared storage to who waits at the driver."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steepest.callbacks import Callback, notifier
from steepest.descent.history import Steps
from steepest.descent.standing import Setback
from steepest.errors import SteepestError
from steepest.mirroring import progress_of
from steepest.run import Run
from steepest.storage import Storage

LOOK = 1.0
"""Seconds between two looks."""


class Listener:
    """Passes on what is new in what a worker tells; what one attempt said, the next does not say again.

    Parameters
    ----------
    callbacks
        Are told how far the fit is, and in the end of the run; never that the descent ended.
    say
        Is told the sentences.

    Examples
    --------
    >>> listener = Listener((), print)
    >>> listener.hear({"said": ["'late' is learned."]})
    'late' is learned.
    >>> listener.hear({"said": ["'late' is learned.", "The rate is 0.1."]})
    The rate is 0.1.
    """

    def __init__(self, callbacks: Sequence[Callback], say: Callable[[str], None]) -> None:
        self._notify, self.say = notifier(callbacks), say
        self._heard: dict[str, Any] = {}
        self._said: set[str] = set()
        self._asked: dict[str, Any] = {}
        self._epochs: set[int] = set()
        self._attempts = self._number = 0

    def ask(self, run: str, settings: dict[str, Any]) -> None:
        """Tell what was asked for."""
        self._asked = {"run": run, **settings}
        self._notify("settings", settings=self._asked)

    def begin(self, workers: int) -> None:
        """Expect another attempt, by so many workers."""
        if self._attempts:
            self.fail(SteepestError("A worker was lost.", hint="The fit is begun again."))
            self._notify("settings", settings=self._asked)
        self._attempts += 1
        self._heard, self._number = {}, 0
        self._notify("rows_seen", doing=f"starting {workers} workers", rows=0, of=None)

    def seen(self, doing: str, rows: int, of: int | None) -> None:
        """Pass on how far the driver itself is with rows."""
        self._notify("rows_seen", doing=doing, rows=rows, of=of)

    def hear(self, told: dict[str, Any]) -> None:
        """Take what `steepest.mirroring.Progress.told` returned."""
        for text in told.get("said", ()):
            if text not in self._said:
                self._said.add(text)
                self.say(text)
        for event in ("settings", "rows_seen", "resume", "descent_begin"):
            self._pass_on(event, told)
        for number, event, details in told.get("each", ()):
            if number > self._number:
                self._number = number
                if event == "epoch_end":
                    self._epochs.add(int(details["figures"]["epoch"]))
                    self._notify(event, **details)
                else:
                    self._notify(event, setback=Setback(*details["setback"]))
        self._pass_on("window_end", told)
        self._heard = told

    def end(self, run: Run) -> None:
        """Pass on what nobody heard of the descent, the steps among it, and that the run is complete."""
        for figures in run.epochs.to_dict("records"):
            if int(figures["epoch"]) not in self._epochs:
                self._notify("epoch_end", figures=figures)
        steps = run.steps
        if len(steps):
            names = [name for name in Steps._fields if name in steps and name != "epoch"]
            figures = {name: steps[name].to_numpy() for name in names}
            self._notify("steps_taken", first=int(steps["step"].iloc[0]), figures=figures)
        self._notify("run_end", run=run)

    def fail(self, error: BaseException) -> None:
        """Tell of an error, or an interruption, that ended an attempt, or the fit."""
        self._notify("failure", error=error)

    def _pass_on(self, event: str, told: dict[str, Any]) -> None:
        details = told.get(event)
        if details is not None and details != self._heard.get(event):
            self._notify(event, **details)


@contextmanager
def listening(storage: Storage, attempt: int, workers: int, listener: Listener) -> Iterator[None]:
    """Let somebody hear what the first worker of an attempt tells, as long as the context lasts."""
    listener.begin(workers)
    over = threading.Event()
    thread = threading.Thread(target=_go_on, args=[storage, attempt, listener, over], daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _go_on(storage: Storage, attempt: int, listener: Listener, over: threading.Event) -> None:
    name, last = progress_of(attempt), False
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "told")
        while not last:
            last = over.wait(LOOK)
            try:
                if storage.exists(name):
                    storage.get(name, told)
                    listener.hear(json.loads(told.read_text("utf-8")))
            except SteepestError:
                continue  # the storage is looked at again soon; the worker tells of it if it is gone

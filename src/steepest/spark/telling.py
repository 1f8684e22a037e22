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
from steepest.errors import SteepestError
from steepest.mirroring import progress_of
from steepest.storage import Storage

LOOK = 1.0
"""Seconds between two looks."""


class Listener:
    """Passes on what is new in what a worker tells; what one attempt said, the next does not say again.

    Parameters
    ----------
    callbacks
        Are told how far the fit is; never that it ended.
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

    def begin(self, workers: int) -> None:
        """Expect another attempt, by so many workers."""
        self._heard = {}
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
        for event in ("rows_seen", "descent_begin", "epoch_end", "window_end"):
            details = told.get(event)
            if details is not None and details != self._heard.get(event):
                self._notify(event, **details)
        self._heard = told


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

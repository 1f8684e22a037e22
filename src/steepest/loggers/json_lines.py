"""A log of JSON lines: one object a line, written as it becomes known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steepest.data.files import is_url
from steepest.loggers.logger import Ending, Logged, Logger, is_interruption, place_of, plain, scores_of

if TYPE_CHECKING:
    from steepest.descent.history import Figures
    from steepest.descent.standing import Setback
    from steepest.run import Run


class JsonLines(Logger):
    """Writes a line for the beginning, each epoch, each setback and the end of a descent.

    Each line is one JSON object with ``event`` and ``time`` (UTC), and there at once. What the file holds
    stays: lines are added at its end. Numbers that are not finite are ``null``. The events are

    ``begin``
        ``settings``, the most ``epochs``, the ``rows`` of one, and after which ``step`` the descent begins.
    ``resume``
        It goes on where it was interrupted, after ``step``.
    ``epoch``
        All figures of an epoch, as in `steepest.Result.epochs`: its number, its last step, loss, validation.
    ``setback``
        A ``step`` that was not finite, its ``learning_rate``, and ``back_to``, the step to go on from.
    ``end``
        ``why_it_stopped``, ``converged``, ``steps``, ``seconds``, and the ``failure``, a step that was not
        finite, if there was one.
    ``run``
        Where the run of a fit is, its ``scores``, and its ``findings`` by name.
    ``failed``, ``interrupted``
        Why the descent ended before its time, or the fit after it.

    Parameters
    ----------
    path
        The file; its folder is made if there is none.

    Examples
    --------
    >>> import tempfile, pathlib, steepest
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = pathlib.Path(folder, "descent.jsonl")
    ...     result = steepest.minimize(lambda p: (p - 3.0) ** 2, 0.0, callbacks=[JsonLines(log)])
    ...     [json.loads(line)["event"] for line in log.read_text().splitlines()]
    ['begin', 'epoch', 'end']
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(str(path), (OSError, ValueError, LookupError))
        self.path = Path(path)

    def check(self) -> None:
        """Open the file, and leave it as it is."""
        if is_url(self.name):
            raise self.refusal("a log is a file of this machine")
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab"):
            pass
        if new:
            self.path.unlink()
        elif self._first() is None:
            raise self.refusal("it holds something else")

    def begin(self, most: int, rows: int, before: Sequence[Figures], step: int) -> Logged:  # noqa: ARG002
        """Write a line with the settings, or, if the end of the file is this descent's, that it goes on."""
        self._cut()
        logged, self._known = (step and self._logged_before()) or (None, 0)
        if logged is None:
            self._write("begin", settings=self.settings, epochs=most, rows=rows, step=step)
            return set()
        self._write("resume", step=step)
        return logged

    def epoch(self, figures: Figures) -> None:
        """Write a line."""
        self._write("epoch", **figures)

    def setback(self, setback: Setback) -> None:
        """Write a line, unless it is there."""
        if self.setbacks > self._known:
            self._write("setback", **setback._asdict())

    def end(self, ending: Ending) -> None:
        """Write the last line, or, of a fit, the one before it."""
        self._write("end", **ending._asdict())

    def complete(self, run: Run) -> None:
        """Write the last line."""
        found = [each["finding"] for each in run.findings]
        self._write("run", run=run.name, scores=scores_of(run), findings=found)

    def failed(self, error: BaseException) -> None:
        """Write the last line."""
        event = "interrupted" if is_interruption(error) else "failed"
        self._write(event, why=str(error) or type(error).__name__)

    def _write(self, event: str, **what: Any) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"event": event, "time": time, **plain(what)}, ensure_ascii=False, allow_nan=False)
        with self.path.open("ab") as file:
            file.write(f"{line}\n".encode())

    def _first(self) -> dict[str, Any] | None:
        """Return the first line if it is one of a log; nothing of an empty file."""
        with self.path.open("rb") as file, suppress(ValueError):
            first = json.loads(file.readline() or b'{"event": ""}')
            return first if isinstance(first, dict) and "event" in first else None
        return None

    def _cut(self) -> None:
        """Remove what a process that was killed has left of a line."""
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            whole = file.read().rfind(b"\n") + 1
            if whole < file.tell():
                file.truncate(whole)

    def _logged_before(self) -> tuple[Logged, int] | None:
        """Return the epochs in the file, each with the setbacks before it, and the setbacks.

        Nothing, if the end of the file is of another descent.
        """
        logged: Logged = set()
        ours, setbacks = False, 0
        for line in self.path.read_text("utf-8").splitlines() if self.path.exists() else ():
            told = json.loads(line)
            if told["event"] == "begin":
                logged, setbacks, ours = set(), 0, self._is_ours(told["settings"])
            elif told["event"] == "setback":
                setbacks += 1
            elif told["event"] == "epoch":
                logged.add((setbacks, told["epoch"]))
        return (logged, setbacks) if ours else None

    def _is_ours(self, settings: dict[str, Any]) -> bool:
        place = place_of(self.settings)
        return place is not None and place == place_of(settings)

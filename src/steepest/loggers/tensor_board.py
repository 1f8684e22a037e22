"""A log that TensorBoard shows: files of events, written by tensorboardX."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steepest.data.files import is_url
from steepest.loggers.logger import Ending, Logged, Logger, kept, require, scores_of

if TYPE_CHECKING:
    from steepest.descent.history import Figures, Floats
    from steepest.descent.standing import Setback
    from steepest.run import Run

NO_CURVES = ("epoch", "step", "rows")
"""Figures of an epoch that say which it is."""

EVENTS = "events.out.tfevents."
"""What the names of the files begin with."""

FLUSHED_EVERY = 1.0
"""Seconds after which what was written is there for readers."""


class TensorBoard(Logger):
    """Writes a descent's curves as TensorBoard's events; ``tensorboard --logdir FOLDER`` shows them.

    There are ``epoch/loss``, ``epoch/learning_rate``, ``epoch/validation_loss`` and so on for each epoch, at
    its last step; ``step/loss``, ``step/gradient_norm`` and ``step/learning_rate`` of steps as they become
    known; and as text the settings, why the descent stopped, and what the run of a fit reached. Of the first
    1,024 steps each is logged, up to 2,048 every second, up to 4,096 every fourth and so on: 512 for each
    doubling. Epochs are thinned likewise.

    Of a folder, TensorBoard shows the descent that began last. One that goes on after an interruption, or
    back from a step that was not finite, takes the place of its own events from that step on. Where a process
    is killed, what became known in its last second may be missing.

    Parameters
    ----------
    folder
        Where the events go: a folder for this descent.

    Raises
    ------
    SteepestError
        If tensorboardX is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        require("tensorboardX", extra="tensorboard")
        super().__init__(str(folder))
        self.folder = Path(folder)
        self._writer: Any = None
        self._flushed = 0.0
        self._pending: Figures = {}

    def check(self) -> None:
        """See whether files can be made there."""
        if is_url(self.name):
            raise self.refusal("a log is a folder of this machine")
        new = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        probe = self.folder / ".steepest"
        probe.touch()
        probe.unlink()
        if new:
            self.folder.rmdir()

    def begin(self, most: int, rows: int, before: Sequence[Figures], step: int) -> Logged:
        """Let what the folder holds of later steps count no more; write the settings."""
        self._pending = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        going_on = step > 0 and any(self.folder.glob(f"{EVENTS}*"))
        self._open(step + 1 if going_on else 0)
        if going_on:
            return {(0, int(figures["epoch"])) for figures in before}
        self._text("settings", {**self.settings, "most epochs": most, "rows of an epoch": rows}, 0)
        return set()

    def epoch(self, figures: Figures) -> None:
        """Write a point of each curve."""
        self._pending = figures
        if len(kept(int(figures["epoch"]), 1)):
            self._write_pending()

    def steps(self, first: int, figures: Mapping[str, Floats]) -> None:
        """Write points of steps."""
        for number in kept(first, len(figures["loss"])).tolist():
            self._scalars("step", number, {name: each[number - first] for name, each in figures.items()})

    def setback(self, setback: Setback) -> None:
        """Let what is taken back count no more."""
        self._pending = {}
        self._open(setback.back_to + 1)

    def end(self, ending: Ending) -> None:
        """Write the last epoch, and why there is none after it."""
        self._write_pending()
        self._text("end", ending._asdict(), ending.steps)

    def complete(self, run: Run) -> None:
        """Write what the run reached."""
        self._text("scores", scores_of(run), run.record["descent"]["steps"])

    def failed(self, error: BaseException) -> None:
        """Write the last epoch, and why there is none after it."""
        self._write_pending()
        self._text("end", {"why": str(error) or type(error).__name__}, 0)

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _open(self, step: int) -> None:
        """Begin a file; events of this step and later ones, in files before it, count no more."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self.close()
        number = sum(1 for _ in self.folder.glob(f"{EVENTS}*"))
        # Files are read in the order of their names, which are made of seconds.
        self._writer = EventsWriter(str(self.folder / "events"), f".{number:06}")
        begin = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(step=step, wall_time=time.time(), session_log=begin))
        self._flush()

    def _write_pending(self) -> None:
        figures, self._pending = self._pending, {}
        curves = {name: value for name, value in figures.items() if name not in NO_CURVES}
        if curves:
            self._scalars("epoch", int(figures["step"]), curves)

    def _scalars(self, group: str, step: int, values: Mapping[str, Any]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        points = [
            Summary.Value(tag=f"{group}/{name}", simple_value=float(value)) for name, value in values.items()
        ]
        self._write(Summary(value=points), step)

    def _text(self, tag: str, told: Mapping[str, Any], step: int) -> None:
        from tensorboardX.summary import text

        rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in told.items()]
        self._write(text(tag, "\n".join(["| | |", "|---|---|", *rows])), step)
        self._flush()

    def _write(self, summary: Any, step: int) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(step=step, wall_time=time.time(), summary=summary))
        if time.monotonic() - self._flushed > FLUSHED_EVERY:
            self._flush()

    def _flush(self) -> None:
        self._writer.flush()
        self._flushed = time.monotonic()


def _cell(value: Any) -> str:
    """Return a value as a cell of a table in Markdown."""
    return str(value).replace("|", "\\|").replace("\n", " ")

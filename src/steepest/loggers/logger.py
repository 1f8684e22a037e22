"""What all loggers have in common: what they wait for, what they let go, and what they do when they fail."""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from steepest.callbacks import Callback
from steepest.errors import SteepestError

if TYPE_CHECKING:
    from steepest.descent.history import Figures, Floats
    from steepest.descent.standing import Setback
    from steepest.result import Result
    from steepest.run import Run

ALL = 1024
"""So many steps, or epochs, are logged one by one where a log is thinned; half as many to each doubling."""

Logged = set[tuple[int, int]]
"""Epochs that a log has, each as the number of setbacks before it, and its own number."""

log = logging.getLogger(__name__)


class Ending(NamedTuple):
    """How a descent ended: see `steepest.Result`; ``failure`` as JSON."""

    why_it_stopped: str
    converged: bool
    steps: int
    seconds: float
    failure: dict[str, Any] | None


class Logger(Callback):
    """Calls the methods of a kind of log: ``check``, ``begin``, ``epoch``, ``steps``, ``end`` and so on.

    A log that can't be written is refused before the descent begins. If it can't be written any more later,
    a warning says so, and the descent goes on without it.

    Parameters
    ----------
    name
        What a person calls the log.
    errors
        What writing may raise.
    """

    def __init__(self, name: str, errors: tuple[type[Exception], ...] = (OSError,)) -> None:
        self.name, self.errors = name, errors
        self.settings: dict[str, Any] = {}
        self.setbacks = 0
        self._before: tuple[Sequence[Figures], int, int] = ((), 0, 0)
        self._logged: Logged = set()
        self._writes = self._ended = False

    def check(self) -> None:
        """See whether the log can be written."""

    def begin(self, most: int, rows: int, before: Sequence[Figures], step: int) -> Logged:
        """Begin, or go on after a step; return the epochs that are there.

        Parameters
        ----------
        most, rows
            Epochs that the descent may have, and rows of one.
        before, step
            Epochs and steps that it has had.
        """
        raise NotImplementedError

    def epoch(self, figures: Figures) -> None:
        """Log an epoch."""
        raise NotImplementedError

    def steps(self, first: int, figures: Mapping[str, Floats]) -> None:
        """Log steps."""

    def setback(self, setback: Setback) -> None:
        """Log that the descent goes back."""

    def end(self, ending: Ending) -> None:
        """Log how the descent ended."""
        raise NotImplementedError

    def complete(self, run: Run) -> None:
        """Log what a run reached."""

    def failed(self, error: BaseException) -> None:
        """Log an error, or an interruption, that ended the descent before its time, or the fit after it."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what is open."""

    def on_settings(self, settings: Mapping[str, Any]) -> None:
        """Keep what identifies the descent, and refuse a log that can't be written."""
        if "run" in settings:
            self.settings = {}
        self.settings |= {name: value for name, value in settings.items() if value not in (None, "", (), {})}
        if "run" in self.settings:
            self.settings.pop("checkpoint", None)  # it is in the run
        with self._refusing():
            self.check()

    def on_resume(self, epochs: Sequence[Figures], step: int, setbacks: int) -> None:
        """Keep where the descent goes on."""
        self._before = epochs, step, setbacks

    def on_descent_begin(self, epochs: int, rows: int) -> None:
        """Begin the log, or go on with it; epochs that it lacks are logged."""
        before, step, self.setbacks = self._before
        self._before = (), 0, 0
        with self._refusing():
            self._logged = self.begin(epochs, rows, before, step)
            known = {epoch for _, epoch in self._logged}
            for figures in before:
                if figures["epoch"] not in known:
                    self.epoch(figures)
        self._writes, self._ended = True, False

    def on_steps_taken(self, first: int, figures: Mapping[str, Floats]) -> None:
        """Log steps."""
        self._try(self.steps, first, figures)

    def on_epoch_end(self, figures: Figures) -> None:
        """Log an epoch that is not there."""
        if (self.setbacks, int(figures["epoch"])) not in self._logged:
            self._try(self.epoch, figures)

    def on_setback(self, setback: Setback) -> None:
        """Log that the descent goes back; epochs that it takes again are logged again."""
        self.setbacks += 1
        self._try(self.setback, setback)

    def on_descent_end(self, result: Result) -> None:
        """Log the end."""
        failure = result.failure.to_json() if result.failure else None
        self._end(Ending(result.why_it_stopped, result.converged, result.steps, result.seconds, failure))
        if "run" not in self.settings:
            self._close()

    def on_run_end(self, run: Run) -> None:
        """Log what the run reached."""
        if not self._ended:  # on Spark, nobody was told
            self._end(Ending(*(run.record["descent"][name] for name in Ending._fields)))
        self._try(self.complete, run)
        self._close()

    def on_failure(self, error: BaseException) -> None:
        """Log why nothing follows."""
        self._try(self.failed, error)
        self._close()

    def _end(self, ending: Ending) -> None:
        self._ended = True
        self._try(self.end, ending)

    def _close(self) -> None:
        self._try(self.close)
        self.settings, self._writes = {}, False

    def _try(self, write: Callable[..., None], *what: Any) -> None:
        """Write, unless that is over."""
        if not self._writes:
            return
        try:
            write(*what)
        except self.errors as error:
            self._writes = False
            log.warning(
                "%s can't be written any more (%s); the descent goes on without it.", self.name, error
            )

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except self.errors as error:
            raise self.refusal(getattr(error, "strerror", None) or error) from error

    def refusal(self, why: object) -> SteepestError:
        """Return the error that says why there can be no such log."""
        return SteepestError(
            f"The log {self.name} can't be written: {why}.", hint="Name another place for it."
        )


def place_of(settings: Mapping[str, Any]) -> str | None:
    """Return what a descent is known by when it goes on: where its run is, or its checkpoint."""
    return settings.get("run") or settings.get("checkpoint")


def is_interruption(error: BaseException) -> bool:
    """Tell whether somebody wanted the descent to end there."""
    from steepest.descent.loop import Interrupted

    return isinstance(error, Interrupted) or not isinstance(error, Exception)


def require(*packages: str, extra: str) -> None:
    """Refuse to do without packages.

    Raises
    ------
    SteepestError
        That names the optional part which has them.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise SteepestError(
            f"A log of this kind needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} "
            "not installed.",
            hint=f"Install it: pip install 'steepest[{extra}]'.",
        )


def kept(first: int, count: int) -> npt.NDArray[np.int64]:
    """Return which of so many consecutive steps, or epochs, a log that thins has.

    Of the first 1,024 it has each, up to 2,048 every second, up to 4,096 every fourth, and so on: 512 for
    each doubling, so that a billion steps are 11,000.

    Examples
    --------
    >>> kept(1022, 6).tolist(), kept(2**20, 4096).tolist()
    ([1022, 1023, 1024, 1026], [1048576, 1050624])
    """
    numbers = np.arange(first, first + count)
    every = 2 ** np.maximum(0, np.ceil(np.log2(numbers / ALL))).astype(np.int64)
    found: npt.NDArray[np.int64] = numbers[numbers % every == 0]
    return found


def scores_of(run: Run) -> dict[str, float]:
    """Return what a run reached: ``validation.auc`` and the like."""
    figures = run.record["figures"]
    return {
        f"{part}.{name}": value
        for part, found in figures.items()
        if found
        for name, value in found["scores"].items()
        if value is not None
    }


def plain(value: Any) -> Any:
    """Return figures as plain JSON, numbers that are not finite as ``None``.

    Examples
    --------
    >>> plain({"loss": np.float32("inf"), "steps": [np.int64(3)]})
    {'loss': None, 'steps': [3]}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The loop around the compiled epoch: epochs, rates, validation, stopping, and what is written down.

Who owns what: the compiled epoch owns the parameters and notices a step that is not finite; this module
owns the order of events and decides when to stop; where the rows come from is the caller's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from steepest.descent.epoch import run_window, run_window_in_place, try_window
from steepest.descent.failure import Failure, cause_of
from steepest.descent.history import Figures, Floats, Steps
from steepest.descent.pace import Pace, ending, steps_taken
from steepest.descent.ranks import alone
from steepest.descent.schedules import Schedule, watch
from steepest.descent.standing import Standing, Totals
from steepest.descent.state import LOSS_CONVERGED, State
from steepest.descent.step import PATIENCE, Batches, Constants, Program, Record
from steepest.descent.stopping import Patience, unchanged
from steepest.descent.tables import settled
from steepest.descent.validation import Measured, Validation, figures_of, measure
from steepest.descent.watching import EVERY, Seen, is_watched, look


class StopDescent(Exception):  # noqa: N818 - a request, as StopIteration is, and no error
    """Raise this in a callback to stop the descent; the message says why."""


class Interrupted(Exception):  # noqa: N818 - no error either
    """Raise this in a callback to leave the descent where it stands, to be gone on with another time."""


class Window(Protocol):
    """What the loop needs of a window: see `steepest.data.blocks.Window`."""

    @property
    def arrays(self) -> Any: ...  # noqa: D102
    @property
    def weights(self) -> Any: ...  # noqa: D102
    @property
    def rows(self) -> npt.NDArray[np.int64]: ...  # noqa: D102
    @property
    def touched(self) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class Outcome:
    """Where a descent ended and why.

    Attributes
    ----------
    standing
        Where it stands; if a step was not finite, before that step.
    why
        One sentence.
    steps
        Steps that were looked at.
    parameters
        What it found: with patience the best epoch's, unless a step was not finite.
    failure
        The step that was not finite, if one was.
    seconds_alone
        See `steepest.Result`.
    """

    standing: Standing
    why: str
    steps: int
    parameters: Any
    failure: Failure | None = None
    seconds_alone: float | None = None


@dataclass(frozen=True)
class Descent:
    """What a descent is made of; see `descend`.

    Attributes
    ----------
    program, constants, schedule, pace
        What is compiled, its constants, the learning rate at each step, and the division into epochs.
    validation
        What is measured after each epoch.
    patience
        When to stop early, and so keep the best epoch.
    measure
        ``(epoch, state, rate) -> figures``: what else is measured at the end of each epoch.
    notify
        Called with what happens: see `steepest.callbacks.notifier`.
    checkpoint
        Called with where the descent stands, each time that a window is over.
    fetch
        ``row numbers -> (data, weights)``: gives rows that several processes hold together to each of them;
        ``None`` where one holds them all.
    """

    program: Program
    constants: Constants
    schedule: Schedule
    pace: Pace
    validation: Validation | None = None
    patience: Patience | None = None
    measure: Callable[[int, State, float], Figures] = lambda *_: {}
    notify: Callable[..., None] = lambda _, **__: None
    checkpoint: Callable[[Standing], None] = lambda _: None
    fetch: Callable[[npt.NDArray[np.int64]], tuple[Any, Any]] | None = None


class _Place(NamedTuple):
    """A window's place: its epoch and its number there, both from 0, and the epoch's steps before it."""

    epoch: int
    window: int
    step: int


class _Clock(NamedTuple):
    """When the descent and its epoch began, by `time.perf_counter`, as if it had never been interrupted."""

    began: float
    epoch_began: float


class _Handed(NamedTuple):
    """A window that was handed to the device and whose record has not been read."""

    place: _Place
    before: State
    after: State
    batches: Batches
    record: Record
    rows: npt.NDArray[np.int64]
    seen: Seen | None
    measured: Measured | None


def descend(descent: Descent, standing: Standing, windows: Iterator[Window]) -> Outcome:
    """Go on from where a descent stands until it converges, fails, is stopped, or no epoch is left.

    ``windows`` yields the windows from there on; at most two of them are in use at a time. While the host
    looks at one, the device is at the next, in the next epoch too; if this one turns out to be the last, what
    was begun is let go.
    """
    began = time.perf_counter() - standing.seconds
    clock = _Clock(began, began + sum(figures["seconds"] for figures in standing.history.epochs))
    current = None
    while not (why := ending(descent.pace, descent.patience, standing)):
        if current is None:
            place = _Place(standing.epoch, standing.window, standing.totals.steps)
            current = _hand_over(descent, windows, place, standing.state, standing.scale)
        following = _look_ahead(descent, windows, current, standing.scale)
        epoch = standing.epoch
        standing, failure = _advance(descent, current, standing, clock)
        if failure:
            parameters = descent.program.position(standing.state)
            return Outcome(
                standing, failure.describe(not descent.pace.whole), failure.step, parameters, failure
            )
        if standing.epoch > epoch:
            clock = clock._replace(epoch_began=clock.epoch_began + standing.history.epochs[-1]["seconds"])
        descent.checkpoint(standing)
        current = following
    parameters = standing.best.parameters if descent.patience else descent.program.position(standing.state)
    return Outcome(standing, why, steps_taken(descent.pace, standing), parameters)


def _hand_over(
    descent: Descent, windows: Iterator[Window], place: _Place, state: State, scale: float
) -> _Handed:
    """Hand the next window to the device and, after an epoch's last, the validation rows."""
    window, pace = next(windows), descent.pace
    first = place.epoch * pace.steps_per_epoch + place.step
    rates = scale * descent.schedule(first + np.arange(len(window.weights)))
    batches = Batches(window.arrays, window.weights, rates, window.touched)
    watched, long = is_watched(first, len(window.weights)), pace.epochs * pace.steps_per_epoch > EVERY
    seen = None
    if watched or (long and not first):  # nothing compiles after the beginning
        seen = look(descent.program, descent.constants, state, batches)
    program, constants = descent.program, descent.constants
    run = run_window_in_place if program.form else try_window if pace.sure else run_window
    after, record = run(program, constants, state, batches)
    measured = None
    if place.window + 1 == pace.windows_per_epoch:
        if program.form and program.idle:
            after = settled(program.form, program.idle, constants.l1, constants.l2, after)
        if descent.validation:
            measured = measure(descent.validation, program, constants, program.position(after))
    return _Handed(place, state, after, batches, record, window.rows, seen if watched else None, measured)


def _look_ahead(
    descent: Descent, windows: Iterator[Window], current: _Handed, scale: float
) -> _Handed | None:
    """Hand over the next window, unless this is the last, or the next epoch's rates wait for it.

    A descent with tables writes over the state before: it has one only, which is looked at first.
    """
    if descent.program.form:
        return None
    epoch, window, step = current.place
    place = _Place(epoch, window + 1, step + len(current.rows))
    if place.window == descent.pace.windows_per_epoch:
        if epoch + 1 == descent.pace.epochs or descent.schedule.plateau:
            return None
        place = _Place(epoch + 1, 0, 0)
    return _hand_over(descent, windows, place, current.after, scale)


def _advance(
    descent: Descent, window: _Handed, standing: Standing, clock: _Clock
) -> tuple[Standing, Failure | None]:
    """Go on to the end of a window that was handed over.

    If that is interrupted and there is no other state to go on from, where the window ends is kept.
    """
    try:
        return _after(descent, window, standing, clock)
    except BaseException:
        if descent.program.form:
            history = standing.history.until(standing.recorded, standing.epoch)
            quietly = replace(descent, notify=lambda _, **__: None)
            after, failure = _after(quietly, window, replace(standing, history=history), clock)
            if failure is None:
                descent.checkpoint(after)
        raise


def _after(
    descent: Descent, window: _Handed, standing: Standing, clock: _Clock
) -> tuple[Standing, Failure | None]:
    totals = standing.totals
    standing, failure = _read(descent, window, standing)
    if failure:
        return standing, failure
    loss = standing.totals.mean_since(totals)
    if standing.window == descent.pace.windows_per_epoch:
        standing = _end_epoch(descent, window.measured, standing, clock.epoch_began)
    return replace(standing, seconds=time.perf_counter() - clock.began).remembering(loss), None


def _read(descent: Descent, window: _Handed, standing: Standing) -> tuple[Standing, Failure | None]:
    """Read the record of a window, once it is there; return where the descent stands after it."""
    # Also where no step counts: while the device is at the window, its arrays must not be filled anew.
    losses, norms, weights = (np.asarray(each) for each in window.record)
    counted = np.flatnonzero(weights > 0)
    totals, history, state = standing.totals, standing.history, window.after
    totals = totals._replace(
        steps=totals.steps + len(weights), rows=totals.rows + int((window.rows >= 0).sum())
    )
    standing = replace(standing, state=state, window=standing.window + 1, totals=totals)
    if not len(counted):
        return standing, None
    losses, norms = losses[counted], norms[counted]
    if descent.pace.sure and not descent.program.form and not _finite(losses, norms).all():
        state, record = run_window(descent.program, descent.constants, window.before, window.batches)
        losses, norms, _ = (np.asarray(each)[counted] for each in record)
    rates, before = window.batches.rates[counted], len(history)
    # Where every step sees all there is, each step is an epoch.
    numbers = (
        before + 1 + np.arange(len(losses))
        if descent.pace.whole
        else np.full(len(losses), standing.epoch + 1)
    )
    history.add(Steps(numbers, losses, norms, rates))
    if window.seen and weights[0] > 0:
        history.looks.append({"step": before + 1} | {name: float(seen) for name, seen in window.seen.items()})
    failure = None
    wrong = np.flatnonzero(~_finite(losses, norms))
    if len(wrong):
        at = wrong[0]
        rows = window.rows[counted[at]]
        cause = cause_of(*_apart(descent, window.batches, state, int(counted[at]), rows), rows)
        loss, norm, rate = (float(each[at]) for each in (losses, norms, rates))
        failure = Failure(before + int(at) + 1, standing.epoch + 1, loss, norm, rate, rows[rows >= 0], cause)
    taken = slice(wrong[0] + 1 if len(wrong) else None)
    figures = {"loss": losses[taken], "gradient_norm": norms[taken], "learning_rate": rates[taken]}
    descent.notify("steps_taken", first=before + 1, figures=figures)
    totals = totals._replace(
        loss=totals.loss + float(losses.astype(np.float64) @ weights[counted]),
        weight=totals.weight + float(weights.sum()),
        rate=float(rates[-1]),
    )
    loss = totals.loss / totals.weight
    descent.notify("window_end", epoch=standing.epoch + 1, rows=totals.rows, loss=loss)
    return replace(standing, state=state, totals=totals, recorded=len(history)), failure


def _apart(
    descent: Descent, batches: Batches, state: State, at: int, rows: npt.NDArray[np.int64]
) -> tuple[Program, Constants, State, Batches]:
    """Return what repeats one step of a window in this process alone."""
    if descent.fetch is None:
        return descent.program, descent.constants, state, jax.tree.map(lambda array: array[at], batches)
    data, weights = descent.fetch(np.maximum(rows, 0))
    batch = Batches(data, weights * (rows >= 0), batches.rates[at])
    return descent.program.for_one(), alone(descent.constants), alone(state), batch


def _finite(losses: Floats, norms: Floats) -> npt.NDArray[np.bool_]:
    return np.isfinite(losses) & np.isfinite(norms)


def _end_epoch(descent: Descent, measured: Measured | None, standing: Standing, began: float) -> Standing:
    """Write an epoch down, let callbacks look at it, and return where the descent stands after it."""
    totals, state, watched, best = standing.totals, standing.state, standing.watched, standing.best
    figures = {
        "epoch": standing.epoch + 1,
        "step": standing.recorded,
        "rows": totals.rows,
        "loss": totals.loss / totals.weight,
        "learning_rate": totals.rate,
    }
    if descent.validation and measured:
        figures |= figures_of(descent.validation, measured)
    figures |= descent.measure(standing.epoch + 1, state, totals.rate)
    seconds = time.perf_counter() - began
    figures |= {"seconds": seconds, "rows_per_second": totals.rows / seconds}
    standing.history.epochs.append(figures)
    if not descent.pace.whole:  # the compiled step's rule of convergence, for the mean loss of an epoch
        watched = unchanged(watched, figures["loss"], descent.pace.tolerance)
        if watched.still >= PATIENCE:
            state = state._replace(status=jnp.full((), LOSS_CONVERGED, jnp.int32))
    if descent.patience:
        best = descent.patience.judge(best, figures, descent.program.position(state))
    stopped, plateau = "", standing.plateau
    try:
        descent.notify("epoch_end", figures=figures)
    except StopDescent as reason:
        stopped = str(reason) or "a callback stopped it"
    if descent.schedule.plateau:
        plateau = watch(descent.schedule.plateau, plateau, figures.get("validation_loss", figures["loss"]))
    return replace(
        standing,
        state=state,
        epoch=standing.epoch + 1,
        window=0,
        totals=Totals(),
        watched=watched,
        plateau=plateau,
        best=best,
        stopped=stopped,
    )

"""The loop around the compiled epoch: epochs, rates, validation, stopping, and what is written down.

Who owns what: the compiled epoch owns the parameters and notices a step that is not finite; this module
owns the order of events and decides when to stop; where the rows come from is the caller's business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from steepest.descent.epoch import (
    PATIENCE,
    Batches,
    Constants,
    Program,
    Record,
    evaluate,
    run_window,
    try_window,
)
from steepest.descent.schedules import PlateauState, Schedule, watch
from steepest.descent.state import GRADIENT_CONVERGED, LOSS_CONVERGED, RUNNING, State

Floats = npt.NDArray[np.floating[Any]]
Figures = dict[str, float]


class StopDescent(Exception):  # noqa: N818 - a request, as StopIteration is, and no error
    """Raise this in a callback to stop the descent; the message says why."""


class Window(Protocol):
    """What the loop needs of a window: see `steepest.data.blocks.Window`."""

    @property
    def arrays(self) -> Any: ...  # noqa: D102
    @property
    def weights(self) -> Any: ...  # noqa: D102
    @property
    def rows(self) -> npt.NDArray[np.int64]: ...  # noqa: D102


@dataclass(frozen=True)
class Pace:
    """How a descent is divided, and when it has converged.

    Parameters
    ----------
    epochs
        The most epochs to run.
    steps_per_epoch
        Steps of an epoch.
    windows_per_epoch
        Windows of an epoch.
    tolerance
        Relative change of the loss, or norm of the gradient, that counts as converged.
    whole
        Whether every step sees all there is to see (batch descent, or a function without data). Then
        convergence is looked for at each step, within the compiled program; else after each epoch.
    limit
        What the last epoch is called when it is reached.
    weightless
        Whether a row may have a weight of zero, and so a step may have nothing to go by.
    """

    epochs: int
    steps_per_epoch: int
    windows_per_epoch: int
    tolerance: float
    whole: bool
    limit: str
    weightless: bool = False

    @property
    def sure(self) -> bool:
        """Whether every step counts, unless one is not finite: none is all padding, none converges."""
        return not (self.whole or self.weightless)


@dataclass(frozen=True)
class Validation:
    """Rows held out of the descent, on the device, and what is measured on them besides the loss."""

    batches: Batches
    metrics: dict[str, Callable[..., jax.Array]] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A step that was not finite.

    Attributes
    ----------
    step, epoch
        Where it was, both from 1.
    loss, gradient_norm, learning_rate
        What was seen there.
    rows
        The row numbers of its batch.
    """

    step: int
    epoch: int
    loss: float
    gradient_norm: float
    learning_rate: float
    rows: npt.NDArray[np.int64]


@dataclass
class History:
    """Every step's loss, gradient norm and rate, and every epoch's figures."""

    epoch_numbers: list[npt.NDArray[np.int64]] = field(default_factory=list)
    losses: list[Floats] = field(default_factory=list)
    gradient_norms: list[Floats] = field(default_factory=list)
    rates: list[Floats] = field(default_factory=list)
    epochs: list[Figures] = field(default_factory=list)

    def steps(self, count: int) -> dict[str, npt.NDArray[Any]]:
        """Return the first steps' figures, one array each."""
        columns: dict[str, list[Any]] = {
            "epoch": self.epoch_numbers,
            "loss": self.losses,
            "gradient_norm": self.gradient_norms,
            "learning_rate": self.rates,
        }
        return {name: np.concatenate(parts)[:count] for name, parts in columns.items()}


@dataclass(frozen=True)
class Outcome:
    """Where a descent ended, why, what it left behind, and how many steps were looked at."""

    state: State
    history: History
    steps: int
    why: str
    failure: Failure | None = None


@dataclass(frozen=True)
class Descent:
    """What a descent is made of; see `descend`."""

    program: Program
    constants: Constants
    schedule: Schedule
    pace: Pace
    validation: Validation | None = None
    notify: Callable[..., None] = lambda _, **__: None


class _Pending(NamedTuple):
    """A window that was handed to the device and whose record has not been read."""

    before: State
    batches: Batches
    record: Record
    rows: npt.NDArray[np.int64]


@dataclass
class _Epoch:
    """An epoch that was handed to the device; its last window's record is still to be read."""

    number: int
    state: State
    pending: list[_Pending] = field(default_factory=list)
    measured: dict[str, jax.Array] = field(default_factory=dict)
    loss: float = 0.0
    weight: float = 0.0
    rows: int = 0
    rate: float = 0.0
    failure: Failure | None = None


def descend(descent: Descent, state: State, windows: Iterator[Window]) -> Outcome:
    """Run epochs until the loss converges, a step is not finite, a callback objects, or none is left.

    ``windows`` yields the windows of all epochs; at most two of them are in use at a time. Where an epoch is
    one window, the device already begins the next while the host looks at this one; if this one turns out
    to be the last, what was begun is let go.
    """
    pace, history = descent.pace, History()
    plateau, watched = PlateauState(), (math.inf, 0)
    ahead = pace.windows_per_epoch == 1 and not descent.schedule.plateau
    began = time.perf_counter()
    current = _begin(descent, state, windows, 0, 1.0, history)
    for number in range(1, pace.epochs + 1):
        more = number < pace.epochs
        following = _begin(descent, current.state, windows, number, 1.0, history) if ahead and more else None
        figures = _finish(descent, current, history)
        state, failure = current.state, current.failure
        if failure:
            return Outcome(state, history, failure.step, _describe_failure(failure, pace), failure)
        ended = time.perf_counter()
        history.epochs.append(figures | _speed(figures, ended - began))
        began = ended
        if not pace.whole:
            state, watched = _judge(state, watched, figures["loss"], pace.tolerance)
        taken = int(state.step) + (pace.whole and int(state.status) != RUNNING)
        try:
            descent.notify("epoch_end", figures=history.epochs[-1])
        except StopDescent as reason:
            return Outcome(state, history, taken, str(reason) or "a callback stopped it")
        if int(state.status) != RUNNING:
            return Outcome(state, history, taken, _describe_convergence(state, history, pace, taken))
        if descent.schedule.plateau:
            loss = figures.get("validation_loss", figures["loss"])
            plateau = watch(descent.schedule.plateau, plateau, loss)
        if more:
            current = following or _begin(descent, state, windows, number, plateau.scale, history)
    return Outcome(state, history, int(state.step), f"{pace.limit} was reached")


def _begin(
    descent: Descent, state: State, windows: Iterator[Window], number: int, scale: float, history: History
) -> _Epoch:
    """Hand an epoch to the device, which computes one window while the host reads the one before."""
    pace = descent.pace
    epoch = _Epoch(number, state)
    run = try_window if pace.sure else run_window
    first = number * pace.steps_per_epoch
    for window in islice(windows, pace.windows_per_epoch):
        rates = scale * descent.schedule(first + np.arange(len(window.weights)))
        batches = Batches(window.arrays, window.weights, rates)
        before = epoch.state
        epoch.state, record = run(descent.program, descent.constants, before, batches)
        epoch.pending.append(_Pending(before, batches, record, window.rows))
        first += len(window.weights)
        if len(epoch.pending) > 1:
            _read(descent, epoch, history)
        if epoch.failure:
            break
    epoch.measured = _measure(descent, epoch.state)
    return epoch


def _read(descent: Descent, epoch: _Epoch, history: History) -> None:
    """Read the record of a window, once it is there."""
    window = epoch.pending.pop(0)
    weights = window.batches.weights.sum(axis=1)
    counted = np.flatnonzero(weights > 0)
    epoch.rows += int((window.rows >= 0).sum())
    if not len(counted):
        return
    losses, norms = (np.asarray(each)[counted] for each in window.record)
    if descent.pace.sure and not _finite(losses, norms).all():
        epoch.pending.clear()
        epoch.state, record = run_window(descent.program, descent.constants, window.before, window.batches)
        losses, norms = (np.asarray(each)[counted] for each in record)
    rates = window.batches.rates[counted]
    before = sum(map(len, history.losses))
    _append(history, epoch.number, descent.pace.whole, losses, norms, rates)
    wrong = np.flatnonzero(~_finite(losses, norms))
    if len(wrong) and epoch.failure is None:
        at = wrong[0]
        rows = window.rows[counted[at]]
        loss, norm, rate = (float(each[at]) for each in (losses, norms, rates))
        epoch.failure = Failure(before + int(at) + 1, epoch.number + 1, loss, norm, rate, rows[rows >= 0])
    epoch.loss += float(losses.astype(np.float64) @ weights[counted])
    epoch.weight += float(weights.sum())
    epoch.rate = float(rates[-1])
    descent.notify("window_end", epoch=epoch.number + 1, rows=epoch.rows, loss=epoch.loss / epoch.weight)


def _finite(losses: Floats, norms: Floats) -> npt.NDArray[np.bool_]:
    return np.isfinite(losses) & np.isfinite(norms)


def _finish(descent: Descent, epoch: _Epoch, history: History) -> Figures:
    """Read what is left of an epoch, and return its figures."""
    while epoch.pending:
        _read(descent, epoch, history)
    figures = {
        "epoch": epoch.number + 1,
        "rows": epoch.rows,
        "loss": epoch.loss / epoch.weight,
        "learning_rate": epoch.rate,
    }
    return figures | {name: float(value) for name, value in epoch.measured.items()}


def _speed(figures: Figures, seconds: float) -> Figures:
    return {"seconds": seconds, "rows_per_second": figures["rows"] / seconds}


def _append(history: History, epoch: int, whole: bool, losses: Floats, norms: Floats, rates: Floats) -> None:
    """Write the steps of a window down."""
    # Where every step sees all there is, each step is an epoch.
    first = sum(map(len, history.losses)) + 1 if whole else epoch + 1
    history.epoch_numbers.append(first + whole * np.arange(len(losses)))
    history.losses.append(losses)
    history.gradient_norms.append(norms)
    history.rates.append(rates)


def _measure(descent: Descent, state: State) -> dict[str, jax.Array]:
    """Start measuring the validation rows; the values may still be on their way."""
    validation = descent.validation
    if validation is None:
        return {}
    functions = tuple(validation.metrics.values())
    values = evaluate(descent.program, functions, descent.constants, state.parameters, validation.batches)
    names = ("loss", *validation.metrics)
    return {f"validation_{name}": value for name, value in zip(names, values, strict=True)}


def _judge(
    state: State, watched: tuple[float, int], loss: float, tolerance: float
) -> tuple[State, tuple[float, int]]:
    """Apply the compiled step's rule of convergence to the mean loss of an epoch."""
    watched = unchanged(watched, loss, tolerance)
    if watched[1] >= PATIENCE:
        state = state._replace(status=jnp.full((), LOSS_CONVERGED, jnp.int32))
    return state, watched


def unchanged(watched: tuple[float, int], loss: float, tolerance: float) -> tuple[float, int]:
    """Count the epochs in a row in which the loss has changed by at most ``tolerance`` of itself.

    Examples
    --------
    >>> watched = (math.inf, 0)
    >>> for loss in (1.0, 1.0, 0.999):
    ...     watched = unchanged(watched, loss, 0.01)
    >>> watched
    (0.999, 2)
    """
    last, still = watched
    return loss, still + 1 if math.isfinite(last) and abs(loss - last) <= tolerance * abs(last) else 0


def _describe_convergence(state: State, history: History, pace: Pace, taken: int) -> str:
    where = f"step {taken:,}" if pace.whole else f"epoch {len(history.epochs):,}"
    if int(state.status) == GRADIENT_CONVERGED:
        norm = history.steps(taken)["gradient_norm"][-1]
        return f"converged at {where}: the gradient's norm, {norm:.3g}, is within {pace.tolerance:g}"
    unit = "steps" if pace.whole else "epochs"
    return (
        f"converged at {where}: the loss changed by at most {pace.tolerance:g} of itself "
        f"in {PATIENCE} {unit} running"
    )


def _describe_failure(failure: Failure, pace: Pace) -> str:
    where = f"step {failure.step:,}" + ("" if pace.whole else f" (epoch {failure.epoch:,})")
    what = "gradient, or what the step made of the parameters, was not finite"
    if not math.isfinite(failure.loss):
        what = f"loss was {failure.loss}"
    rate = f"at a learning rate of {failure.learning_rate:g}"
    return f"not finite: at {where} the {what} {rate}; the parameters before that step are kept"

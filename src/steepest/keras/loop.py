"""The order of events in `fit`, which is Keras': epochs, callbacks, metrics, validation, backups, stopping.

The model's variables are Keras' to look at: as in Keras' own loop they are brought up to date at the end of
an epoch, and whenever a callback asks for its model before that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import is_
from typing import Any, NamedTuple, cast

import jax
import keras
import numpy as np
from keras.src.utils.python_utils import pythonify_logs

from steepest.descent.watching import is_watched
from steepest.errors import SteepestError
from steepest.keras.failures import explain, first_not_finite, replay, scales_its_loss
from steepest.keras.hooks import TEST_HOOKS, Watches, needs_each_batch
from steepest.keras.program import (
    Parts,
    Program,
    Record,
    State,
    asks_metrics,
    compiles,
    hand_over,
    put_back,
    state_of,
)
from steepest.keras.resume import Backup, Position, Steps
from steepest.keras.rows import Rows, Stretch, first_steps


class _Begun(NamedTuple):
    """What the device was given to do before it was known whether it would be asked to."""

    state: State
    parts: Parts
    result: tuple[State, Any]


@dataclass
class Fit:
    """A call of `fit`.

    Attributes
    ----------
    model, program, callbacks
        What is trained, how, and who looks on.
    rows, held_out
        What it is trained and validated on.
    epochs, validation_freq
        See `fit`.
    stride
        Steps between two looks of the callbacks; ``None`` for as many as fit.
    start
        The model's state before.
    quiet
        Whether a step that is not finite ends the descent without an error (`TerminateOnNaN`).
    backup
        What a `BackupAndRestore` asks for.
    watches
        Whether some steps are looked at, to see how far they go.
    steps
        Every step's loss so far.
    looks_ahead
        Whether the device is given work before it is known that it will be asked for.
    taken
        Steps taken in this epoch.
    unsaved
        Steps since the last backup.
    """

    model: keras.Model
    program: Program
    rows: Rows
    held_out: Rows | None
    callbacks: keras.callbacks.CallbackList
    epochs: int
    validation_freq: int | list[int]
    stride: int | None
    start: State
    quiet: bool
    backup: Backup | None
    watches: bool = False
    looks_ahead: bool = True
    steps: Steps = field(default_factory=Steps)
    taken: int = 0
    unsaved: int = 0
    _fresh: list[jax.Array] | None = None
    _ahead: Stretch | None = None
    _begun: dict[str, _Begun] = field(default_factory=dict)
    _compiling: threading.Thread | None = None


def run(fit: Fit, initial_epoch: int) -> keras.callbacks.History:
    """Train from the initial epoch, or from where the backup says, to the last epoch."""
    model, callbacks = fit.model, fit.callbacks
    model.stop_training = False
    callbacks.on_train_begin()
    begin = Position(model._initial_epoch or initial_epoch, 0, fit.rows.batches)
    if fit.backup:
        fit.backup.facts = fit.rows.facts
        if found := fit.backup.restore(model, callbacks.callbacks):
            begin, fit.steps = found
            fit.rows.seek(begin.batches)
            model.stop_training = begin.stopped
    sound = True
    try:
        _compile_test(fit)
        logs = _epochs(fit, begin)
    except SteepestError:
        sound = False
        raise
    finally:
        if fit._compiling:
            fit._compiling.join()  # a process that ends while a thread compiles is aborted
        model.jax_state_sync()
        model._jax_state = None
        if sound and fit.epochs > 0 and isinstance(model.optimizer, keras.optimizers.Optimizer):
            model.optimizer.finalize_variable_values(model.trainable_weights)
    callbacks.on_train_end(logs)
    if fit.backup:
        fit.backup.close()
    history: keras.callbacks.History = model.history
    history.steps = fit.steps.table()
    return history


def _compile_test(fit: Fit) -> None:
    """Compile the validation in a thread, while the first epoch is compiled.

    It is traced here, because Keras' models are not made for two threads.
    """
    if not fit.looks_ahead or fit.held_out is None:
        return
    if not fit.held_out.is_one_stretch or _tests_by_batch(fit):
        return
    parts = next(fit.held_out.epoch(None)).parts
    lowered = cast(jax.stages.Wrapped, fit.program.test).lower(state_of(fit.model), parts)
    fit._compiling = threading.Thread(target=lowered.compile)
    fit._compiling.start()


def _tests_by_batch(fit: Fit) -> bool:
    return bool(needs_each_batch(fit.callbacks.callbacks, TEST_HOOKS)) or not compiles(fit.model)


def _epochs(fit: Fit, begin: Position) -> dict[str, Any]:
    """Go through the epochs; return the last one's figures."""
    model, callbacks = fit.model, fit.callbacks
    logs: dict[str, Any] = {}
    while begin.epoch < fit.epochs and not begin.stopped:
        epoch = begin.epoch
        logs = _train(fit, begin)
        if fit.held_out is not None and model._should_eval(epoch, fit.validation_freq):
            measured = _test(fit, fit.held_out)
            logs.update({f"val_{name}": value for name, value in measured.items()})
        model.jax_state_sync()
        callbacks.on_epoch_end(epoch, logs)
        begin = Position(epoch + 1, 0, begin.batches + fit.taken, bool(model.stop_training))
        _back_up(fit, begin)
    return logs


def _back_up(fit: Fit, position: Position) -> None:
    """Write a backup where one is due: every so many steps, or at the end of an epoch."""
    backup = fit.backup
    if backup and (fit.unsaved >= backup.every if backup.every else not position.step):
        fit.model.jax_state_sync()
        backup.save(fit.model, fit.callbacks.callbacks, position, fit.steps)
        fit.unsaved = 0


def _train(fit: Fit, begin: Position) -> dict[str, Any]:
    """Run an epoch of descent, or what is left of it; return its figures."""
    model, callbacks = fit.model, fit.callbacks
    if begin.step:  # what callbacks do to the model when this epoch begins has been done to what is restored
        restored = jax.tree.map(jax.numpy.copy, state_of(model))
        callbacks.on_epoch_begin(begin.epoch)
        put_back(model, restored)
    else:
        _reset_metrics(fit)
        callbacks.on_epoch_begin(begin.epoch)
    state, logs = state_of(model), None
    fit.taken = begin.step
    ahead, fit._ahead = fit._ahead, None
    for stretch in [ahead] if ahead else fit.rows.epoch(fit.stride, begin.step):
        if fit.taken:
            _back_up(fit, begin._replace(step=fit.taken))
        callbacks.on_train_batch_begin(stretch.first)
        if model._jax_state_synced:  # a callback may have looked at the model, and changed it
            state = state_of(model)
        state, record, last = _take(fit, state, _until_stop(fit, stretch), begin.epoch)
        logs = record.logs
        _hand_over(fit, state)
        _write_down(fit, begin.epoch, np.asarray(record.losses))
        fit.taken += len(record.losses)
        fit.unsaved += len(record.losses)
        callbacks.on_train_batch_end(last, logs)
        if model.stop_training:
            break
    if logs is None:
        raise SteepestError(
            f"There is no batch for epoch {begin.epoch + 1}.", hint="Is the generator used up?"
        )
    return _figures(model, "train_step", logs)


def _write_down(fit: Fit, epoch: int, losses: np.ndarray) -> None:
    """Write steps down, and tell who watches."""
    first = len(fit.steps) + 1
    fit.steps.add(epoch, losses)
    for each in fit.callbacks.callbacks:
        if isinstance(each, Watches):
            each.on_steps(first, losses)


def _until_stop(fit: Fit, stretch: Stretch) -> Stretch:
    """Return what is left of a stretch if a callback has asked to stop before it: as in Keras, one look."""
    if not fit.model.stop_training:
        return stretch
    count = int(fit.model.steps_per_execution)
    return stretch._replace(last=stretch.first + count - 1, parts=first_steps(stretch.parts, count))


def _look_ahead(fit: Fit, state: State, epoch: int) -> None:
    """Begin what follows an epoch of one stretch that the device still runs: validation, and the next epoch.

    Nothing but a callback comes between them. What was begun is used if no callback changed the model.
    """
    whole = fit.stride is None and fit.rows.is_one_stretch
    if not (fit.looks_ahead and whole and fit._fresh) or fit.model.stop_training:
        return
    if fit.held_out is not None and fit.model._should_eval(epoch, fit.validation_freq):
        if not fit.held_out.is_one_stretch or _tests_by_batch(fit):
            return
        parts = next(fit.held_out.epoch(None)).parts
        state = _begin(fit, "test", (*state[:3], fit._fresh), parts)
    if epoch + 1 < fit.epochs:
        fit._ahead = next(fit.rows.epoch(None))
        _begin(fit, "train", (*state[:3], fit._fresh), fit._ahead.parts)


def _begin(fit: Fit, step: str, state: State, parts: Parts) -> State:
    result = _program(fit, step)(state, parts)
    fit._begun[step] = _Begun(state, parts, result)
    return result[0]


def _compute(fit: Fit, step: str, state: State, parts: Parts) -> tuple[State, Any]:
    """Run a program, or take what it was begun on ahead; where that is of no use, nothing is begun again."""
    begun = fit._begun.pop(step, None)
    if begun is not None:
        before, now = jax.tree.leaves(begun.state), jax.tree.leaves(state)
        if begun.parts is parts and len(before) == len(now) and all(map(is_, before, now)):
            return begun.result
        fit.looks_ahead = False
        fit._begun.clear()
    return _program(fit, step)(state, parts)


def _program(fit: Fit, step: str) -> Callable[[State, Parts], tuple[State, Any]]:
    if step == "train":
        return fit.program.train
    if fit._compiling:
        fit._compiling.join()
    return fit.program.test


def _hand_over(fit: Fit, state: State) -> None:
    """Let the model have its state when it asks for it; at once, where callbacks look at every batch."""
    hand_over(fit.model, state)
    if fit.stride is not None or _tests_by_batch(fit):
        fit.model.jax_state_sync()


def _reset_metrics(fit: Fit) -> None:
    """Reset the metrics; Keras' own go back to the same values, kept because making them is slow."""
    variables = fit.model.metrics_variables
    usable = fit._fresh is not None and len(fit._fresh) == len(variables)
    if not usable or any(value.is_deleted() for value in fit._fresh or ()):
        fit.model.reset_metrics()
        if all(type(metric).__module__.startswith("keras.") for metric in _each_metric(fit.model.metrics)):
            fit._fresh = [variable.value for variable in variables]
        return
    for variable, value in zip(variables, fit._fresh or (), strict=True):
        variable.assign(value)


def _each_metric(metrics: Iterable[Any]) -> Iterator[Any]:
    """Yield metrics, and those within them: what compile() was given is within a metric of Keras' own."""
    for metric in metrics:
        yield metric
        yield from _each_metric(getattr(metric, "metrics", None) or getattr(metric, "_metrics", None) or ())


def _figures(model: keras.Model, step: str, logs: dict[str, jax.Array]) -> dict[str, Any]:
    """Return what the metrics say, as plain numbers; bring the model up to date."""
    model.jax_state_sync()
    if not asks_metrics(model, step):
        logs = model._get_metrics_result_or_logs(logs)
    return dict(pythonify_logs(logs))


def _take(fit: Fit, state: State, stretch: Stretch, epoch: int) -> tuple[State, Record, int]:
    """Take the steps of a stretch; return the state, what they leave behind and the last one's number."""
    after, record = _compute(fit, "train", state, stretch.parts)
    _look_ahead(fit, after, epoch)
    at = first_not_finite(record)
    if at is None or scales_its_loss(fit.model):
        _look(fit, state, stretch)
        return after, record, stretch.last
    if not fit.quiet:
        failure = explain(fit.model, fit.program, state, stretch, at, epoch)
        put_back(fit.model, fit.start if failure.state is None else failure.state)
        fit.steps.add(epoch, np.asarray(record.losses)[: failure.at + 1])
        failure.error.epoch, failure.error.steps = epoch + 1, fit.steps.table()
        raise failure.error
    every = int(fit.model.steps_per_execution)  # as often, a callback would have seen it
    count = at + every - at % every
    after, last = replay(fit.program, state, stretch.parts, count)
    return after, last or record, stretch.first + count - 1


def _look(fit: Fit, state: State, stretch: Stretch) -> None:
    """Write down how far the first step of a stretch went, where that is of interest."""
    if not (fit.watches and compiles(fit.model)):
        return
    before, count = len(fit.steps), sum(len(jax.tree.leaves(part)[0]) for part in stretch.parts)
    if is_watched(before, count):
        seen = fit.program.look(state, jax.tree.map(lambda array: array[:1], stretch.parts[0]))
        fit.steps.looks.append({"step": before + 1} | {name: float(each) for name, each in seen.items()})


def _test(fit: Fit, rows: Rows) -> dict[str, Any]:
    """Measure the model on rows that are held out, as `keras.Model.evaluate` does."""
    model, callbacks = fit.model, fit.callbacks
    if rows.blocks is None:
        rows.iterator.reset()
    model.stop_evaluating = False
    callbacks.on_test_begin()
    model.jax_state_sync()
    _reset_metrics(fit)
    state, logs = state_of(model), None
    for stretch in rows.epoch(int(model.steps_per_execution) if _tests_by_batch(fit) else None):
        callbacks.on_test_batch_begin(stretch.first)
        if model._jax_state_synced:
            state = state_of(model)
        state, logs = _compute(fit, "test", state, stretch.parts)
        jax.block_until_ready(logs)  # the stretch's arrays are used again
        _hand_over(fit, state)
        callbacks.on_test_batch_end(stretch.last, logs)
        if model.stop_evaluating:
            break
    if logs is None:
        raise SteepestError("There is no batch to validate on.", hint="Is the generator used up?")
    figures = _figures(model, "test_step", logs)
    callbacks.on_test_end(figures)
    return figures

"""`fit`: Keras' own training loop, with the epoch compiled.

Who owns what: the order of events (callbacks, metrics, validation, stopping) is that of
`keras.Model.fit`; what a step computes is in `steepest.keras.program`; which rows it sees is in
`steepest.keras.rows`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from operator import is_
from typing import Any, NamedTuple

import jax
import keras
import numpy as np
from keras.src.backend import config
from keras.src.trainers.data_adapters import array_slicing, data_adapter_utils
from keras.src.utils.python_utils import pythonify_logs
from keras.src.utils.rng_utils import get_random_seed

from steepest.errors import SteepestError
from steepest.keras.failures import explain, first_not_finite, replay, scales_its_loss
from steepest.keras.hooks import TEST_HOOKS, needs_each_batch
from steepest.keras.program import (
    Program,
    Record,
    State,
    asks_metrics,
    compiles,
    hand_over,
    program_of,
    put_back,
    state_of,
)
from steepest.keras.resume import Backup, Position, Steps, take_backup
from steepest.keras.rows import Rows, Stretch, as_arrays, rows_of

log = logging.getLogger(__name__)


class _Ahead(NamedTuple):
    """An epoch that the device began while the callbacks look at the one before, from a state that may change."""

    stretch: Stretch
    state: State
    result: tuple[State, Record]


@dataclass
class _Fit:
    """A call of `fit`: what it works on."""

    model: keras.Model
    program: Program
    rows: Rows
    callbacks: keras.callbacks.CallbackList
    stride: int | None
    start: State
    state: State
    quiet: bool
    backup: Backup | None
    fresh: list[jax.Array] | None = None
    looks_ahead: bool = True
    ahead: _Ahead | None = None
    steps: Steps = field(default_factory=Steps)


def fit(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: str | int = "auto",
    callbacks: Any = None,
    validation_split: float = 0.0,
    validation_data: Any = None,
    shuffle: bool | str = True,
    class_weight: dict[int, float] | None = None,
    sample_weight: Any = None,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    validation_freq: int | list[int] = 1,
    seed: int | None = None,
) -> keras.callbacks.History:
    """Train a compiled Keras model as `keras.Model.fit` does, each epoch as one compiled program.

    Parameters
    ----------
    model
        Any Keras model, compiled.
    x, y, batch_size, epochs, verbose, callbacks, validation_split, validation_data, shuffle, class_weight, \
    sample_weight, initial_epoch, steps_per_epoch, validation_steps, validation_batch_size, validation_freq
        As in `keras.Model.fit`. ``x`` and ``y`` may also be Polars frames and Arrow tables.
    seed
        Decides the order of rows; by default the seed given to `keras.utils.set_random_seed`, else 0. The
        order of a pass depends on how many passes the model's optimizer has made before, so that two calls
        of one epoch visit the rows as one call of two epochs does.

    Returns
    -------
    keras.callbacks.History
        Keras' own, with every step's loss as a table in ``history.steps``: epoch and step from 1, loss.

    Raises
    ------
    SteepestError
        If a step is not finite (it says which step, layer and rows); if the batch size is not positive or
        there are no rows; if a backup belongs to another descent.
    ValueError
        In Keras' own words, if the arguments or the shapes do not go together.
    """
    _check(model)
    if validation_split and validation_data is None:
        x, y, sample_weight = (as_arrays(each) for each in (x, y, sample_weight))
        (x, y, sample_weight), validation_data = array_slicing.train_validation_split(
            (x, y, sample_weight), validation_split=validation_split
        )
    seed = next(each for each in (seed, get_random_seed(), 0) if each is not None)
    rows = rows_of(
        *(x, y, sample_weight),
        batch_size=batch_size,
        steps=steps_per_epoch,
        shuffle=shuffle,
        class_weight=class_weight,
        seed=seed,
        taken=_steps_taken(model),
    )
    held_out = None
    if validation_data is not None:
        size = validation_batch_size or batch_size
        parts = data_adapter_utils.unpack_x_y_sample_weight(validation_data)
        held_out = rows_of(*parts, batch_size=size, steps=validation_steps)
    run = _begin(model, rows, callbacks, verbose, epochs, seed)
    try:
        return _run(run, held_out, initial_epoch, _fewest(epochs), validation_freq)
    finally:
        rows.close()


def _check(model: keras.Model) -> None:
    model._assert_compile_called("fit")
    if model.optimizer is None:
        raise SteepestError("The model was compiled without an optimizer.", hint="Name one in compile().")
    if keras.distribution.distribution() is not None:
        raise SteepestError(
            "A keras.distribution is set, and Steepest trains on one device.",
            hint="Unset it, or train with keras.Model.fit.",
        )


def _fewest(epochs: int) -> int:
    """Return the number of epochs, capped as Keras' own setting for trial runs says."""
    cap = config.max_epochs()
    return min(epochs, cap) if cap else epochs


def _steps_taken(model: keras.Model) -> int:
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return int(inner._iterations) if inner.built else 0


def _begin(
    model: keras.Model, rows: Rows, callbacks: Any, verbose: str | int, epochs: int, seed: int
) -> _Fit:
    """Build what Keras builds, and look at what the callbacks ask for."""
    rows.build(model)
    given = callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else callbacks
    others, backup = take_backup(keras.tree.flatten(given) if given else [])
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.callbacks = others
    else:
        callbacks = keras.callbacks.CallbackList(
            others,
            add_history=True,
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=epochs,
            steps=rows.steps,
            model=model,
        )
    if backup:
        shapes = [[variable.path, list(variable.shape)] for variable in model.variables]
        backup.facts.update(seed=seed, steps_per_epoch=rows.steps, variables=shapes)
    stride = _stride(model, callbacks.callbacks, backup)
    start = jax.tree.map(jax.numpy.copy, state_of(model))  # Keras' own evaluate() and predict() take arrays over
    quiet = any(isinstance(each, keras.callbacks.TerminateOnNaN) for each in callbacks.callbacks)
    return _Fit(model, program_of(model), rows, callbacks, stride, start, start, quiet, backup)


def _stride(model: keras.Model, callbacks: list[Any], backup: Backup | None) -> int | None:
    """Return how many steps run between two looks of the callbacks; ``None`` for as many as fit."""
    names = needs_each_batch(callbacks)
    if names:
        steps = int(model.steps_per_execution)
        every = "every batch" if steps == 1 else f"every {steps} batches"
        log.warning(
            "The descent stops at %s, because %s asks for it; without, an epoch is one program and faster.",
            *(every, ", ".join(names)),
        )
        return steps
    if not compiles(model):
        return 1
    return backup.every if backup else None


def _run(
    run: _Fit, held_out: Rows | None, initial_epoch: int, epochs: int, validation_freq: int | list[int]
) -> keras.callbacks.History:
    """Go through the epochs as Keras does."""
    model, callbacks = run.model, run.callbacks
    model.stop_training = False
    logs: dict[str, Any] = {}
    callbacks.on_train_begin()
    position = Position(model._initial_epoch or initial_epoch, 0, run.rows.passes)
    if run.backup and (found := run.backup.restore(model, callbacks.callbacks)):
        position, run.steps = found
        run.rows.passes = position.passes
        model.stop_training = position.stopped
    sound = True
    try:
        for epoch in range(position.epoch, 0 if model.stop_training else epochs):
            logs = _train(run, epoch, position.step if epoch == position.epoch else 0)
            if held_out is not None and model._should_eval(epoch, validation_freq):
                measured = _test(run, held_out)
                logs.update({f"val_{name}": value for name, value in measured.items()})
            passes = run.rows.passes
            if epoch + 1 < epochs:
                _look_ahead(run)
            model.jax_state_sync()
            callbacks.on_epoch_end(epoch, logs)
            if run.backup and run.backup.every is None:
                _back_up(run, Position(epoch + 1, 0, passes, bool(model.stop_training)))
            if model.stop_training:
                break
    except SteepestError:
        sound = False
        raise
    finally:
        model.jax_state_sync()
        model._jax_state = None
        if sound and epochs > 0 and isinstance(model.optimizer, keras.optimizers.Optimizer):
            model.optimizer.finalize_variable_values(model.trainable_weights)
    callbacks.on_train_end(logs)
    if run.backup:
        run.backup.close()
    history: keras.callbacks.History = model.history
    history.steps = run.steps.table()
    return history


def _train(run: _Fit, epoch: int, skip: int) -> dict[str, Any]:
    """Run an epoch of descent, or what is left of it after ``skip`` steps; return its figures."""
    model, callbacks = run.model, run.callbacks
    if not skip:
        _reset_metrics(run)
    callbacks.on_epoch_begin(epoch)
    state, logs, unsaved = state_of(model), None, 0
    stretches = run.rows.epoch(run.stride, skip) if run.ahead is None else iter([run.ahead.stretch])
    for stretch in stretches:
        callbacks.on_train_batch_begin(stretch.first)
        if model._jax_state_synced:  # a callback may have looked at the model, and changed it
            state = state_of(model)
        state, losses, logs = _take(run, state, stretch, epoch)
        run.state = state
        hand_over(model, state)
        run.steps.add(epoch, losses)
        callbacks.on_train_batch_end(stretch.last, logs)
        unsaved += len(losses)
        if run.backup and run.backup.every and unsaved >= run.backup.every:
            model.jax_state_sync()
            unsaved = 0
            _back_up(run, Position(epoch, stretch.first + len(losses), run.rows.passes))
        if model.stop_training:
            break
    if logs is None:
        raise SteepestError(f"There is no batch for epoch {epoch + 1}.", hint="Is the generator used up?")
    return _figures(model, "train_step", logs)


def _look_ahead(run: _Fit) -> None:
    """Begin the next epoch, if it is one stretch and nothing but a callback may come before it."""
    whole = run.stride is None and run.rows.is_one_stretch
    if not (run.looks_ahead and whole and run.fresh):
        return
    stretch = next(run.rows.epoch(None))
    state = (*run.state[:3], run.fresh)
    run.ahead = _Ahead(stretch, state, run.program.train(state, stretch.parts))


def _began(run: _Fit, state: State) -> tuple[State, Record] | None:
    """Return what was begun ahead, unless a callback has changed the model since; then nothing is again."""
    ahead, run.ahead = run.ahead, None
    if ahead is None:
        return None
    before, now = jax.tree.leaves(ahead.state), jax.tree.leaves(state)
    run.looks_ahead = len(before) == len(now) and all(map(is_, before, now))
    return ahead.result if run.looks_ahead else None


def _reset_metrics(run: _Fit) -> None:
    """Reset the metrics; those of Keras always to the same values, which are kept because making them is slow."""
    variables = run.model.metrics_variables
    if run.fresh is None or len(run.fresh) != len(variables):
        run.model.reset_metrics()
        if all(type(metric).__module__.startswith("keras.") for metric in run.model.metrics):
            run.fresh = [variable.value for variable in variables]
        return
    for variable, value in zip(variables, run.fresh, strict=True):
        variable.assign(value)


def _figures(model: keras.Model, step: str, logs: dict[str, jax.Array]) -> dict[str, Any]:
    """Return what the metrics say, as plain numbers."""
    if not asks_metrics(model, step):
        model.jax_state_sync()
        logs = model._get_metrics_result_or_logs(logs)
    return dict(pythonify_logs(logs))


def _back_up(run: _Fit, position: Position) -> None:
    assert run.backup is not None
    run.backup.save(run.model, run.callbacks.callbacks, position, run.steps)


def _take(
    run: _Fit, state: State, stretch: Stretch, epoch: int
) -> tuple[State, np.ndarray, dict[str, jax.Array]]:
    """Take the steps of a stretch; return the state, each step's loss and what the metrics say."""
    after, record = _began(run, state) or run.program.train(state, stretch.parts)
    at = first_not_finite(record)
    if at is not None and not scales_its_loss(run.model):
        if not run.quiet:
            failure = explain(run.model, run.program, state, stretch, at, epoch)
            put_back(run.model, run.start if failure.state is None else failure.state)
            raise failure.error
        after, record = replay(run.program, state, stretch.parts, at + 1)
    return after, np.asarray(record.losses), record.logs


def _test(run: _Fit, rows: Rows) -> dict[str, Any]:
    """Measure the model on rows that are held out, as `keras.Model.evaluate` does."""
    model, callbacks = run.model, run.callbacks
    if rows.blocks is None:
        rows.iterator.reset()
    model.stop_evaluating = False
    callbacks.on_test_begin()
    model.jax_state_sync()
    _reset_metrics(run)
    state, logs = state_of(model), None
    one_by_one = needs_each_batch(callbacks.callbacks, TEST_HOOKS) or not compiles(model)
    for stretch in rows.epoch(int(model.steps_per_execution) if one_by_one else None):
        callbacks.on_test_batch_begin(stretch.first)
        if model._jax_state_synced:
            state = state_of(model)
        state, logs = run.program.test(state, stretch.parts)
        run.state = state
        hand_over(model, state)
        callbacks.on_test_batch_end(stretch.last, logs)
        if model.stop_evaluating:
            break
    if logs is None:
        raise SteepestError("There is no batch to validate on.", hint="Is the generator used up?")
    figures = _figures(model, "test_step", logs)
    callbacks.on_test_end(figures)
    return figures

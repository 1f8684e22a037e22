"""`minimize`: gradient descent on any JAX function, with or without data.

Who owns what: this module turns what the caller gave into a compiled program, and `steepest.feeding` into
windows of batches; `steepest.descent.loop` runs them; `Result` is what the caller gets.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from steepest import feeding
from steepest.arguments import (
    Parameters,
    as_objective,
    check_choice,
    check_numbers,
    check_parameters,
    check_single_number,
    lookups_of,
    patience_of,
    refuse_with_lookups,
    refuse_without,
    row_count,
    strengths,
    told,
    with_pairs,
)
from steepest.callbacks import Callback, notifier, telling_of_failure
from steepest.checkpoints import Checkpoints
from steepest.compiling import compile_parts
from steepest.descent import state as states
from steepest.descent.loop import Descent, Interrupted, Outcome, descend
from steepest.descent.optimizers import Optimizer, as_optimizer
from steepest.descent.pace import Pace
from steepest.descent.ranks import alone
from steepest.descent.schedules import Schedule, later
from steepest.descent.standing import MOST_SETBACKS, Standing, go_on
from steepest.descent.step import Constants, Program
from steepest.descent.stopping import Best, Patience
from steepest.diagnosis.watching import curvature_by_epoch
from steepest.errors import SteepestError
from steepest.process_group import ProcessGroup, seconds_of_step
from steepest.result import Asked, Result
from steepest.snapshots import Snapshots, check_snapshots

LONG = 10.0
"""Seconds of a descent by several processes from which on it is measured how long they waited, because that
takes a moment, too."""

BACK_OFF = "back-off"

ON_DIVERGENCE = ("stop", BACK_OFF)

log = logging.getLogger(__name__)


def minimize(  # noqa: PLR0913 - a front end's settings, each with its default
    objective: Callable[..., jax.Array],
    parameters: Parameters,
    data: Any = None,
    *,
    optimizer: Optimizer | optax.GradientTransformation | str = "adam",
    batch_size: int | str = 32,
    epochs: int = 10,
    tolerance: float = 1e-6,
    seed: int = 0,
    weights: Any = None,
    shuffle: bool = True,
    l1: Any = 0.0,
    l2: Any = 0.0,
    validation_data: Any = None,
    validation_weights: Any = None,
    metrics: Mapping[str, Callable[..., jax.Array]] | None = None,
    callbacks: Sequence[Callback] = (),
    patience: int | None = None,
    monitor: str = "validation_loss",
    curvature: bool = False,
    on_divergence: str = "stop",
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 60.0,
    snapshots: int = 0,
    lookups: Mapping[str, str] | None = None,
    standing: Standing | None = None,
) -> Result:
    """Minimise an objective by gradient descent: batch, mini-batch or stochastic.

    Each epoch visits every row once, in an order that is a function of ``(seed, epoch, rows)``, and is
    one compiled program. The descent stops when the loss changes by at most ``tolerance`` of itself five
    times running (steps for batch descent, epochs otherwise), when batch descent's gradient has a norm
    of at most ``tolerance``, when patience is at an end, at the last epoch, or at a step that is not finite;
    `Result` says which.

    Parameters
    ----------
    objective
        ``objective(parameters)`` without data, ``objective(parameters, batch)`` with it. It returns one
        loss for each row of the batch, or a single number. With one loss a row, the descent minimises
        their weighted mean, ``Σ wᵢ lossᵢ / Σ wᵢ``, and fills a short last batch with rows of weight 0;
        with a single number, a short last batch is a step of its own shape. If the function has a
        parameter named ``key``, it gets a random key in each training step and ``None`` in validation.
    parameters
        Where to start: any pytree of floating-point arrays.
    data
        A pytree of arrays with the rows as their first axis; each batch is shaped like it.
    optimizer
        ``steepest.Adam(0.001)`` and its like, with a number or a schedule as learning rate; a name, for
        its defaults; or any Optax transformation.
    batch_size
        Rows of a step: 1 is stochastic descent, ``"all"`` is batch descent.
    epochs
        The most epochs to run; without data, the most steps.
    tolerance
        See above; 0 looks for no change at all.
    seed
        Decides the order of rows and the random keys.
    weights
        Row weights ``[rows]``, not negative; needs an objective with one loss a row.
    shuffle
        Whether each epoch has an order of its own; if not, rows are visited as they are.
    l1, l2
        Penalties ``Σ l1·|θ| + Σ l2·θ²``: a number for all parameters, or a pytree of numbers or arrays
        like the parameters. L1 is a proximal step, so that weights become exactly zero.
    validation_data, validation_weights
        Rows on which the loss (with penalties) is measured after each epoch, and their weights.
    metrics
        More to measure on them, by name: ``metric(parameters, batch)``, a number or one for each row.
    callbacks
        See `steepest.Callback`.
    patience
        Stop once ``monitor`` has not improved for so many epochs running, and return the parameters of the
        best epoch, also if another reason ends the descent; ``None`` for no such rule.
    monitor
        The figure of an epoch that patience watches: ``"loss"``, ``"validation_loss"`` or ``"validation_"``
        and a metric's name. Figures named for accuracy, AUC, F1, precision, R² or recall are better the
        higher they are (see `steepest.descent.stopping.RISING`), all others the lower. NaN never is better.
    curvature
        Whether the largest curvature of the loss on at most 4,096 rows is measured after the first ten
        epochs, and then each time that there are a tenth more: two more figures of an epoch, ``curvature``
        and ``curvature_limit``, the largest that is stable at its rate.
    on_divergence
        What to do at a step that is not finite: ``"stop"``, or ``"back-off"``, which returns to where the
        window of steps with the lowest mean loss ended, divides the learning rate by 3 and goes on from
        there, at most twelve times.
    checkpoint
        A folder. Where the descent stands is saved there now and then, at its end, and when it is interrupted
        (Ctrl-C, or `Interrupted` raised by a callback). The same call goes on from there, even within an
        epoch, and ends with the bytes of a descent that was never interrupted; after the end it returns the
        result at once, or goes on if ``epochs`` are more. The folder may be removed at any time.
    checkpoint_every
        Seconds between two checkpoints, at least; there are fewer where they would take over 2% of the
        time. 0 saves after each window.
    snapshots
        How many times at most to keep the parameters on the way, start and end included, as
        ``Result.path``: see `steepest.plot.landscape`. 0 keeps none; not with a checkpoint.
    lookups
        Name of data -> name of the parameter, a table ``[rows, ...]``, of which these data are places: whole
        numbers ``[rows, ...]``, or a sparse matrix of SciPy, whose batches are `steepest.Strips`. A step then
        computes the gradient of the rows that its batch looks up, and moves these alone, so that it costs
        what they cost however long the table is. The objective is the same with and without: in a step, the
        table has nothing but these rows, and the places are numbered accordingly. A place outside of the
        table is none; ``table.at[places].get(mode="fill", fill_value=0)`` makes zeros of it. Update rules are
        in their lazy form (see `steepest.descent.tables`), and a penalty in the loss of a step is that of the
        rows it looks up.
    standing
        Where another descent with the same parameters and optimizer ended, ``Result.standing``: this one
        goes on from there, over whatever data it is given, with the rule's memory, the place in the
        schedule and in the order of epochs, and what patience has seen. ``epochs`` count from the first
        descent's beginning, as does the optimizer's schedule. Whether the loss has converged is judged
        anew. Not with a checkpoint.

    Returns
    -------
    Result

    Raises
    ------
    SteepestError
        If the arguments don't fit each other, if the checkpoint is of another descent, damaged, or can't be
        written. A step that is not finite raises nothing: see
        `Result.failure`.

    Examples
    --------
    The minimum of ``(a - 1)² + 2 (b + 3)²``:

    >>> import steepest
    >>> result = steepest.minimize(lambda p: (p["a"] - 1) ** 2 + 2 * (p["b"] + 3) ** 2,
    ...                            {"a": 0.0, "b": 0.0}, optimizer=steepest.SGD(0.2), epochs=100)
    >>> {name: round(float(value), 4) for name, value in result.parameters.items()}
    {'a': 1.0, 'b': -3.0}
    >>> result.why_it_stopped
    "converged at step ...: the gradient's norm, ..., is within 1e-06"
    """
    began = time.perf_counter()
    rule, call = as_optimizer(optimizer), as_objective(objective, data is not None)
    start = check_parameters(parameters)
    tables = lookups_of(lookups, start, data)
    data, validation_data = with_pairs(data, lookups), with_pairs(validation_data, lookups)
    check_numbers(epochs=epochs, seed=seed, tolerance=tolerance, checkpoint_every=checkpoint_every)
    check_choice("on_divergence", on_divergence, ON_DIVERGENCE)
    if tables:
        refuse_with_lookups(curvature=curvature, back_off=on_divergence == BACK_OFF)
    kept = Snapshots(check_snapshots(snapshots, checkpoint))
    if data is None:
        check_single_number(call, start)
        refuse_without("data", weights=weights, validation_data=validation_data, patience=patience)
        chunk = 1 if rule.schedule.plateau else min(feeding.CHUNK, max(1, epochs // kept.windows))
        feed = feeding.chunks(epochs, tolerance, chunk)
    else:
        feed = feeding.batches(
            call, start, data, weights, batch_size, seed, shuffle, epochs, tolerance, kept.windows, tables
        )
    if validation_data is None:
        refuse_without("validation_data", validation_weights=validation_weights, metrics=metrics)
    program, state, constants = compile_parts(call, start, rule, seed, feed.pace, l1, l2, tables)
    held_out = feeding.held_out(call, start, validation_data, validation_weights, metrics)
    stopping = patience_of(patience, monitor, held_out.validation)
    checkpoints = None
    if checkpoint is not None:
        facts = _facts(rule, constants, seed, tolerance, stopping) | feed.facts | held_out.facts
        facts |= {"on_divergence": on_divergence, "curvature": curvature}
        checkpoints = Checkpoints(Path(checkpoint), facts, checkpoint_every)
    begin = _beginning(program, state, stopping, back_off=on_divergence == BACK_OFF)
    standing, schedule = _place(standing, checkpoints, begin, feed.pace, rule.schedule)
    kept.offer(standing)
    notify, rows = notifier(callbacks), 0 if data is None else row_count(data)
    _tell_beginning(notify, standing, feed.pace.epochs, rows, told(
        rule, batch_size=batch_size, epochs=epochs, tolerance=tolerance, seed=seed, l1=l1, l2=l2,
        patience=patience, on_divergence=on_divergence, checkpoint=checkpoint and str(checkpoint),
    ))  # fmt: skip
    descent = Descent(
        program, constants, schedule, feed.pace, held_out.validation, stopping, notify=notify,
        checkpoint=kept.offer, fetch=feed.fetch,
    )  # fmt: skip
    asked = Asked(
        call, start, rule, program.unravel, strengths("l2", l2, start), feed.pace.whole, batch_size, rows
    )
    if curvature:
        descent = replace(descent, measure=curvature_by_epoch(asked, data, seed))
    outcome = _descend(descent, standing, feed, checkpoints)
    result = Result(
        parameters=program.unravel(outcome.parameters),
        why_it_stopped=outcome.why,
        converged=int(outcome.standing.state.status) in (states.LOSS_CONVERGED, states.GRADIENT_CONVERGED),
        failure=outcome.failure,
        steps=outcome.steps,
        seconds=standing.seconds + time.perf_counter() - began,
        best_epoch=outcome.standing.best.epoch if stopping else None,
        setbacks=outcome.standing.setbacks,
        seconds_alone=outcome.seconds_alone,
        path=kept.path(outcome.standing, outcome.steps - bool(outcome.failure), program.unravel),
        _outcome=outcome,
        _asked=asked,
    )
    notify("descent_end", result=result)
    return result


def _beginning(
    program: Program, state: states.State, stopping: Patience | None, *, back_off: bool
) -> Standing:
    """Return where a descent stands before its first step."""
    begin = Standing(state, best=Best(parameters=program.position(state)) if stopping else Best())
    return replace(begin, good=begin if back_off else None)


def _place(
    before: Standing | None, checkpoints: Checkpoints | None, begin: Standing, pace: Pace, schedule: Schedule
) -> tuple[Standing, Schedule]:
    """Return where the descent goes on from, and its schedule from there."""
    if before is None:
        return _resume(checkpoints, begin, pace), schedule
    if checkpoints:
        raise SteepestError("A checkpoint and a standing both say where to go on from.", hint="Give one.")
    standing = go_on(before, begin.state, back_off=begin.good is not None)
    # Earlier epochs may have had more steps than these, or fewer.
    return standing, later(schedule, int(standing.state.step) - standing.epoch * pace.steps_per_epoch)


def _tell_beginning(
    notify: Callable[..., None], standing: Standing, epochs: int, rows: int, settings: Mapping[str, Any]
) -> None:
    """Let callbacks know what begins, or goes on."""
    notify("settings", settings=settings)
    if standing.recorded:
        written = standing.history.epochs[: standing.epoch]
        notify("resume", epochs=written, step=standing.recorded, setbacks=len(standing.setbacks))
    notify("descent_begin", epochs=epochs, rows=rows)


def _facts(
    rule: Optimizer, constants: Constants, seed: int, tolerance: float, stopping: Patience | None
) -> dict[str, Any]:
    """Return what must be the same for a descent to go on, as far as it can be compared."""
    penalties = hashlib.blake2b(digest_size=8)
    for name in ("l1", "l2"):
        for leaf in (name, *jax.tree.leaves(getattr(constants, name))):
            penalties.update(leaf.encode() if isinstance(leaf, str) else np.asarray(leaf).tobytes())
    return {
        "seed": seed,
        "tolerance": tolerance,
        "optimizer": rule.name,
        "optimizer's settings": dict(rule.settings),
        "clip_norm": rule.clip_norm,
        "schedule": rule.schedule.name,
        "schedule's settings": dict(rule.schedule.settings),
        "penalties": penalties.hexdigest(),
        "patience": stopping,
    }


def _resume(checkpoints: Checkpoints | None, start: Standing, pace: Pace) -> Standing:
    """Return where the descent stands: at its start, or where a checkpoint left it."""
    standing = checkpoints.newest(start, log.warning) if checkpoints else None
    if checkpoints is None or standing is None:
        return start
    if (standing.epoch, standing.window) > (pace.epochs, 0):
        raise SteepestError(
            f"The descent in {checkpoints.folder} is beyond epoch {pace.epochs:,}, which is to be the last.",
            hint="Ask for more epochs, or choose another folder.",
        )
    return standing


def _descend(
    descent: Descent, standing: Standing, feed: feeding.Feed, checkpoints: Checkpoints | None
) -> Outcome:
    """Run the descent, and save where it stands in the end, also if it is interrupted."""
    with telling_of_failure(descent.notify):
        if feed.group is not None:
            return _descend_together(feed.group, descent, standing, feed, checkpoints)
        return _descend_alone(descent, standing, feed, checkpoints)


def _descend_together(
    group: ProcessGroup,
    descent: Descent,
    standing: Standing,
    feed: feeding.Feed,
    checkpoints: Checkpoints | None,
) -> Outcome:
    """Run the descent on the devices of all processes of a group."""
    descent = replace(
        descent,
        program=descent.program._replace(mesh=group.mesh, local_steps=group.local_steps),
        constants=group.place(descent.constants),
    )
    outcome = _descend_alone(descent, standing.with_states(group.place), feed, checkpoints)
    after = outcome.standing.with_states(alone)
    seconds = None
    if after.seconds >= LONG:
        with closing(feed.windows(0, 0)) as windows:
            step = seconds_of_step(descent.program, descent.constants, after.state, next(windows))
        seconds = step * outcome.steps
    return replace(outcome, standing=after, parameters=alone(outcome.parameters), seconds_alone=seconds)


def _descend_alone(
    descent: Descent, standing: Standing, feed: feeding.Feed, checkpoints: Checkpoints | None
) -> Outcome:
    if checkpoints is None:
        return _backing_off(descent, standing, feed)
    try:
        outcome = _backing_off(
            replace(descent, checkpoint=checkpoints.offer), standing, feed, checkpoints.save
        )
    except (KeyboardInterrupt, SystemExit, Interrupted):
        checkpoints.finish()
        raise
    checkpoints.finish()
    return outcome


def _backing_off(
    descent: Descent,
    standing: Standing,
    feed: feeding.Feed,
    save: Callable[[Standing], None] = lambda _: None,
) -> Outcome:
    """Run the descent; where it may, go back from a step that is not finite and on at a smaller rate."""
    while True:
        with closing(feed.windows(standing.epoch, standing.window)) as windows:
            outcome = descend(descent, standing, windows)
        failure, setbacks = outcome.failure, len(outcome.standing.setbacks)
        if failure is None or outcome.standing.good is None or setbacks == MOST_SETBACKS:
            return outcome
        standing = outcome.standing.backed_off(failure.step, failure.learning_rate)
        descent.notify("setback", setback=standing.setbacks[-1])
        save(standing)

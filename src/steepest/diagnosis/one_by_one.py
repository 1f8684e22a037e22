"""Finding the learning rate of a descent that looks rows of tables up: one rate after the other.

Tables are long, and a step moves few of their rows: so the descents are those of the compiled epoch itself,
each from a copy of the start, over the same windows. There may be more parameters than rows, which can all be
learned by heart; so rates are judged by rows that the descents have not seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steepest.arguments import Objective
from steepest.data.padded import taken
from steepest.descent.epoch import run_window_in_place
from steepest.descent.state import RUNNING, State
from steepest.descent.step import Batches, Constants, Program
from steepest.descent.tables import Part, settled
from steepest.diagnosis.rates import Floats, Grid, RateSearch, horizon, search
from steepest.feeding import Feed

SEEN = 0.8
"""The share of an epoch that the descents go over at most: others are judged by."""

COST = 4
"""How many times as much a number costs that is looked up."""


class Trial(NamedTuple):
    """What all rates have in common.

    Attributes
    ----------
    program, constants, start, feed
        The descent.
    objective
        What is minimised.
    data
        The rows: a dictionary of what is gathered.
    """

    program: Program
    constants: Constants
    start: State
    feed: Feed
    objective: Objective
    data: dict[str, Any]


def search_one_by_one(trial: Trial, planned: int, shape: Any, most_rows: int) -> RateSearch:
    """Try rates; see `steepest.diagnosis.rates.search`.

    Parameters
    ----------
    trial
        The descent.
    planned
        Its steps.
    shape
        ``steps -> each step's rate over the highest``.
    most_rows
        Rows by which rates are judged, at most.
    """
    form = trial.program.form
    assert form  # noqa: S101 - the caller looked
    with closing(trial.feed.windows(0, 0)) as source:
        first = jax.tree.map(partial(np.array, copy=True), next(source))
        looked_up = sum(map(_numbers_of_a_step, first.touched, form.parts))
        size = COST * int(looked_up) + trial.start.parameters.dense.size
        epoch = trial.feed.pace.steps_per_epoch
        steps = max(1, min(horizon(planned, 1, size), int(SEEN * epoch)))
        further = -(-most_rows // first.weights.shape[1])
        windows, have = [first], len(first.weights)
        while have < min(steps + further, epoch):
            windows.append(jax.tree.map(partial(np.array, copy=True), next(source)))
            have += len(windows[-1].weights)
    rows = np.concatenate([window.rows for window in windows])[steps:].ravel()
    rows = rows[rows >= 0][:most_rows]
    if not len(rows):  # every step sees all rows
        rows = first.rows[first.rows >= 0][:most_rows]
    windows = _first(windows, steps)
    judge = partial(
        _loss, trial.objective, {name: taken(source, rows) for name, source in trial.data.items()}
    )
    begun = float(judge(trial.program.unravel(trial.program.position(trial.start))))
    return search(partial(_reach, trial, windows, shape(steps), judge), begun, steps, planned, len(rows))


def _first(windows: list[Any], steps: int) -> list[Any]:
    """Return the windows of the first steps."""
    kept: list[Any] = []
    for window in windows:
        rest = steps - sum(len(each.weights) for each in kept)
        if rest:
            kept.append(jax.tree.map(lambda each, rest=rest: each[:rest], window))
    return kept


def _numbers_of_a_step(touched: Any, parts: Sequence[Part]) -> int:
    """Return how many parameters of a table a step looks up."""
    return int(touched.shape[1]) * math.prod(parts[0].shape)


@partial(jax.jit, static_argnums=0)
def _loss(objective: Objective, rows: Any, parameters: Any) -> jax.Array:
    return jnp.mean(objective(parameters, rows, None))


def _reach(trial: Trial, windows: list[Any], shape: Floats, judge: Any, rates: Floats) -> Grid:
    """Descend with each rate, and see what it reached."""
    program, constants = trial.program, trial.constants
    losses, curves = np.full(len(rates), np.nan), np.full((len(rates), len(shape)), np.nan)
    for number, rate in enumerate(rates):
        state, done = jax.tree.map(jnp.copy, trial.start), 0
        for window in windows:
            steps = len(window.weights)
            each = rate * shape[done : done + steps]
            batches = Batches(window.arrays, window.weights, each, window.touched)
            state, record = run_window_in_place(program, constants, state, batches)
            curves[number, done : done + steps] = np.asarray(record.loss)
            done += steps
        if int(state.status) == RUNNING:
            if program.form and program.idle:
                state = settled(program.form, program.idle, constants.l1, constants.l2, state)
            losses[number] = float(judge(program.unravel(program.position(state))))
    curves[~np.isfinite(curves).cumprod(axis=1).astype(np.bool_)] = np.nan
    return Grid(rates, np.where(np.isfinite(losses), losses, np.nan), curves, lambda _: (None, None))

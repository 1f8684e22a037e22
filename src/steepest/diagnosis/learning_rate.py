"""Finding the learning rate: many descents from the same start as one program.

All rates of a grid take the descent's own steps, its rows in its own order and its schedule. Where the whole
planned descent is affordable for each, that is how far they go; else the schedule is compressed to what is.
Nothing is changed, so nothing needs to be restored. `steepest.diagnosis.rates` says which rates are tried,
and what follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from steepest import feeding
from steepest.arguments import (
    Parameters,
    as_data,
    as_objective,
    check_numbers,
    check_parameters,
    check_single_number,
    lookups_of,
    refuse_without,
    with_pairs,
)
from steepest.compiling import as_it_is, compile_parts
from steepest.descent import state as states
from steepest.descent.optimizers import LINE_SEARCH, Optimizer, as_optimizer
from steepest.descent.schedules import Schedule
from steepest.descent.step import Batches, Constants, Program, penalty, weighted_mean
from steepest.descent.sweep import sweep
from steepest.diagnosis.curvature import largest_curvature, stability
from steepest.diagnosis.one_by_one import Trial, search_one_by_one
from steepest.diagnosis.rates import (
    FEWEST_STEPS,
    VARIANTS,
    Floats,
    Grid,
    RateSearch,
    horizon,
    search,
    too_short,
)

MOST_ROWS = 2**12
"""Rows of the sample by which rates are judged; and of a batch: more are no better to tell rates apart."""

CURVATURE_ROWS = 2**9
"""Rows on which the curvature is measured."""

CURVATURE_KEY = 0xC0FFEE
"""Folded into the seed's key for the vector that measuring the curvature begins with."""


def find_learning_rate(  # noqa: PLR0913 - the arguments of `minimize`
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
    lookups: Mapping[str, str] | None = None,
) -> RateSearch:
    """Find the learning rate with which `steepest.minimize` would reach the lowest loss.

    The arguments are those of `steepest.minimize` for the descent that is planned, and mean the same. Of the
    optimizer's own schedule only the shape counts. (``reduce_on_plateau`` counts as constant.) Nothing is
    changed, and the same arguments give the same answer.

    Returns
    -------
    RateSearch
        Its ``choice`` is ``None`` where the data does not decide; ``why`` says why.

    Raises
    ------
    SteepestError
        If the arguments don't fit each other.

    Examples
    --------
    On ``5 θ²`` each step multiplies θ by ``1 - 10 η``, so that a rate above 0.2 leads away from the minimum:

    >>> import steepest
    >>> search = steepest.find_learning_rate(lambda p: 5 * p["θ"] ** 2, {"θ": 1.0},
    ...                                      optimizer=steepest.SGD(), epochs=50)
    >>> search.decided, search.choice < search.limit, round(search.limit, 6)
    (True, True, 0.2)
    """
    rule = as_optimizer(optimizer)
    call = as_objective(objective, data is not None)
    start = check_parameters(parameters)
    check_numbers(epochs=epochs, seed=seed, tolerance=tolerance, checkpoint_every=0.0)
    tables, data = lookups_of(lookups, start, data), with_pairs(data, lookups)
    if data is None:
        check_single_number(call, start)
        refuse_without("data", weights=weights)
        feed, planned = feeding.chunks(epochs, tolerance, feeding.CHUNK), epochs
    else:
        feed = feeding.batches(
            call, start, data, weights, batch_size, seed, shuffle, epochs, tolerance, lookups=tables
        )
        planned = feed.pace.steps_per_epoch * epochs
    if rule.name == LINE_SEARCH:
        return RateSearch(None, "L-BFGS finds the rate of each step by a line search", planned_steps=planned)
    if planned < FEWEST_STEPS:
        return too_short(planned)
    program, state, constants = compile_parts(call, start, rule, seed, feed.pace, l1, l2, tables)
    if tables:
        one = Trial(
            program, constants, state, feed, call, {name: as_data(each) for name, each in data.items()}
        )
        return search_one_by_one(one, planned, partial(_shape, rule.schedule, planned), MOST_ROWS)
    program, state, constants = _as_tree(program, state, constants)
    sample, width = _sample(feed)
    size = sum(leaf.size for leaf in jax.tree.leaves(start))
    steps = horizon(planned, width, size)
    window = feed.pace.steps_per_epoch // feed.pace.windows_per_epoch
    if window < steps < planned:
        steps -= steps % window  # windows of one length are compiled once
    trial = _Trial(
        *(program, constants, state, rule, feed, sample),
        shape=_shape(rule.schedule, planned, steps),
        key=jax.random.fold_in(jax.random.key(seed), CURVATURE_KEY),
    )
    return _try(trial, planned)


class _Trial(NamedTuple):
    """What all rates have in common.

    Attributes
    ----------
    program, constants, start, rule, feed
        The descent.
    sample
        The rows by which rates are judged, each leaf ``[rows, ...]``; weights that add up to 1.
    shape
        Each step's rate over the highest, ``[steps]``.
    key
        Draws the vector that measuring the curvature begins with.
    """

    program: Program
    constants: Constants
    start: states.State
    rule: Optimizer
    feed: feeding.Feed
    sample: Batches
    shape: Floats
    key: jax.Array

    @property
    def longest(self) -> int:
        """Steps of a window, at most."""
        steps, pace = len(self.shape), self.feed.pace
        window = pace.steps_per_epoch // pace.windows_per_epoch
        return steps if steps % window else window

    @property
    def on(self) -> tuple[Batches, Constants]:
        """What losses are measured on."""
        return self.sample, self.constants


def _as_tree(
    program: Program, state: states.State, constants: Constants
) -> tuple[Program, states.State, Constants]:
    """Let the steps run on the parameters' own arrays: of K variants, they are faster than a flat vector."""
    unravel = program.unravel
    tree = unravel(state.parameters)
    l1, l2 = (None if each is None else unravel(each) for each in (constants.l1, constants.l2))
    return (
        program._replace(unravel=as_it_is),
        states.start(tree, program.transformation.init(tree)),
        constants._replace(l1=l1, l2=l2),
    )


def _shape(schedule: Schedule, planned: int, steps: int) -> Floats:
    """Return the schedule's rates over its highest, compressed to fewer steps."""
    rates = schedule(np.arange(steps) * planned // steps)
    highest = schedule.settings.get("learning_rate") or float(schedule(np.arange(planned)).max())
    return np.asarray(rates / highest)


def _cut(windows: Iterator[Any], rates: Floats, longest: int) -> Generator[Batches]:
    """Yield the batches of the first steps, of which there is a row of rates each."""
    done = 0
    for window in windows:
        steps = min(len(window.weights), longest, len(rates) - done)
        cut = _cut_window(window, steps)
        yield cut._replace(rates=rates[done : done + steps])
        done += steps
        if done == len(rates):
            return


def _cut_window(window: Any, steps: int) -> Batches:
    """Return the first steps of a window, and of each batch no more rows than are of use."""
    first = jax.tree.map(lambda rows: rows[:steps, :MOST_ROWS], window.arrays)
    return Batches(first, window.weights[:steps, :MOST_ROWS], None)


def _sample(feed: feeding.Feed) -> tuple[Batches, int]:
    """Return the rows that the descent visits first, drawn at random if any are, and those of a step."""
    parts: list[Batches] = []
    with closing(feed.windows(0, 0)) as windows:
        for _ in range(feed.pace.windows_per_epoch):
            window = next(windows)
            width = min(window.weights.shape[1], MOST_ROWS)
            wanted = max(1, MOST_ROWS // width) - sum(len(part.weights) for part in parts)
            if wanted < 1 or (parts and width != parts[0].weights.shape[1]):
                break
            parts.append(jax.tree.map(partial(np.array, copy=True), _cut_window(window, wanted)))
    rows: Batches = jax.tree.map(lambda *each: np.concatenate(each).reshape(-1, *each[0].shape[2:]), *parts)
    shares = rows.weights / rows.weights.sum(dtype=np.float64)
    return rows._replace(weights=shares.astype(np.float32)), parts[0].weights.shape[1]


def _try(trial: _Trial, planned: int) -> RateSearch:
    """Measure the start, and search; what measures the curvature is compiled meanwhile."""
    start, memory = trial.start.parameters, trial.start.optimizer_state
    repeated = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (VARIANTS, *leaf.shape)), start)
    rows = int((trial.sample.weights > 0).sum()) if jax.tree.leaves(trial.sample.data) else 0
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_limit, trial, start, memory, np.asarray(trial.start.step), products=1)
        begun = float(_losses(_MeanLoss(trial.program.objective), repeated, trial.on)[0])
        return search(partial(_reach, trial), begun, len(trial.shape), planned, rows)


def _reach(trial: _Trial, rates: Floats) -> Grid:
    """Descend with each rate, and see what it reached."""
    with (
        closing(trial.feed.windows(0, 0)) as windows,
        closing(_cut(windows, trial.shape[:, None] * rates, trial.longest)) as cut,
    ):
        swept = sweep(trial.program, trial.constants, trial.start, cut, len(rates), trial.feed.pace.sure)
    reached = _losses(_MeanLoss(trial.program.objective), swept.state.parameters, trial.on)
    losses = np.where(swept.failed_at > 0, np.nan, np.asarray(reached, np.float64))
    losses = np.where(np.isfinite(losses), losses, np.nan)
    return Grid(rates, losses, swept.losses, partial(_limit_at, trial, swept.state))


def _limit_at(trial: _Trial, state: states.State, index: int) -> tuple[float | None, float | None]:
    """Return what `_limit` does, where a variant stands."""
    state = jax.tree.map(np.asarray, state)  # indexing on the device would compile for each shape
    parameters, memory = (
        jax.tree.map(lambda leaf: leaf[index], each) for each in (state.parameters, state.optimizer_state)
    )
    return _limit(trial, parameters, memory, np.broadcast_to(state.step, VARIANTS)[index])


def _limit(
    trial: _Trial, parameters: Parameters, memory: Any, step: Any, products: int = 20
) -> tuple[float | None, float | None]:
    """Return the curvature at a place, and the largest rate that is stable there."""
    rule, constant = trial.rule, stability(trial.rule)
    if constant is None:
        return None, None
    scale = None
    if "momentum" not in rule.settings and rule.preconditioner is not None:
        scale = jax.jit(rule.preconditioner)(memory, step)
    rows: Batches = jax.tree.map(lambda leaf: leaf[:CURVATURE_ROWS], trial.sample)
    rows = rows._replace(weights=rows.weights / rows.weights.sum())
    loss = _MeanLoss(trial.program.objective)
    found = largest_curvature(
        loss, parameters, (rows, trial.constants), scale, key=trial.key, products=products
    ).value
    if not math.isfinite(found):
        return None, None
    return found, constant / found if found > 0 else None


@dataclass(frozen=True)
class _MeanLoss:
    """The loss on some rows, squared penalty included; equal for equal objectives: it compiles once."""

    objective: Callable[..., jax.Array]

    def __call__(self, parameters: Parameters, batch: tuple[Batches, Constants]) -> jax.Array:
        rows, constants = batch
        values = self.objective(parameters, rows.data, None)
        return weighted_mean(values, rows.weights) + penalty(constants, parameters)[1]


@partial(jax.jit, static_argnums=0)
def _losses(loss: _MeanLoss, parameters: Parameters, on: tuple[Batches, Constants]) -> jax.Array:
    """Return each variant's loss, all penalties included ``[K]``."""

    def one(parameters: Parameters) -> jax.Array:
        return loss(parameters, on) + penalty(on[1], parameters)[0]

    losses: jax.Array = jax.lax.map(one, parameters)
    return losses

"""Finding the learning rate: many descents from the same start as one program, and what they say together.

The rates of a grid over many decades all take the descent's own steps, its rows in its own order and its
schedule; then those of a finer grid around the best one do. Where the whole planned descent is affordable for
each, that is how far they go; else the schedule is compressed to what is. Nothing is changed, so nothing
needs to be restored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
import optax

from steepest import feeding
from steepest.arguments import (
    Parameters,
    as_objective,
    check_numbers,
    check_parameters,
    check_single_number,
    refuse_without,
)
from steepest.descent import state as states
from steepest.descent.epoch import Batches, Constants, Program, penalty, weighted_mean
from steepest.descent.optimizers import Optimizer, as_optimizer
from steepest.descent.schedules import Schedule
from steepest.descent.sweep import Swept, losses_on, sweep
from steepest.diagnosis.curvature import largest_curvature, stability
from steepest.minimization import compile_parts

Floats = npt.NDArray[np.floating[Any]]

VARIANTS = 12
"""Rates of a grid."""

LOWEST, HIGHEST = 1e-6, 10.0
"""The rates of the first grid; where its best is at an end, the seven decades beyond it are tried as well."""

BELOW, ABOVE = 1.0, 0.75
"""Decades around the best rate of the first grid that the finer one covers."""

MOST_ROWS = 2**12
"""Rows of the sample by which rates are judged; and of a batch: more are no better to tell rates apart."""

CURVATURE_ROWS = 2**9
"""Rows on which the curvature is measured."""

FEWEST_STEPS = 10
"""With fewer steps than these, what a rate reaches says nothing of it."""

FEW_STEPS, WHOLE = 10_000, 4e10
"""Up to so many steps, and so many rows times parameters for all rates together, whole descents are taken."""

LEAST, SHARE = 2.5e9, 0.15
"""Else the budget is the first, in the same unit, or this share of the planned descent, whichever is more."""

STEP, UPDATE = 8e4, 8
"""What a step costs besides, in the same unit: as a whole, and for each parameter."""

NEGLIGIBLE = 1e-4
"""Share of the gain, or of the loss at the start, that is as good as nothing."""

SAME = 0.01
"""The share of the gain by which rates may differ and be equally good, for each doubling that leads from the
steps that were tried to those of the planned descent."""

WORKS = 0.1
"""Share of what the best rate gained that a rate may miss and still work."""

CURVE_POINTS = 100
"""Points of a kept curve, at most."""

CURVATURE_KEY = 0xC0FFEE
"""Folded into the seed's key for the vector that measuring the curvature begins with."""


@dataclass(frozen=True)
class RateSearch:
    """What a search for a learning rate found.

    Attributes
    ----------
    choice
        The rate to take: the highest of the schedule. ``None`` where the data does not decide.
    why
        One sentence: what the choice rests on, or why there is none.
    rates
        The rates that were tried, rising.
    losses
        The mean loss that each reached on the sample, without dropout; ``None`` where it diverged.
    curves
        The batches' mean losses along each descent, in at most 100 equal stretches; ``None`` from where it
        diverged.
    start_loss
        The loss at the start, on the same rows.
    interval
        The lowest and the highest rate around the choice that gained at least 90% of what the best one did.
    limit
        The largest rate that is stable where the choice led to: the rule's limit over the curvature there;
        ``None`` where that is unknown, or where no direction is curved upwards.
    curvature
        The largest curvature there: of the Hessian, preconditioned by the rule's own state where it has one.
    steps, planned_steps
        Steps that each rate took, and those of the planned descent.
    rows
        Rows of the sample; 0 for a function without data.
    """

    choice: float | None
    why: str
    rates: tuple[float, ...] = ()
    losses: tuple[float | None, ...] = ()
    curves: tuple[tuple[float | None, ...], ...] = ()
    start_loss: float | None = None
    interval: tuple[float, float] | None = None
    limit: float | None = None
    curvature: float | None = None
    steps: int = 0
    planned_steps: int = 0
    rows: int = 0

    @property
    def decided(self) -> bool:
        """Whether there is a choice."""
        return self.choice is not None

    def to_json(self) -> dict[str, Any]:
        """Return the search as JSON's types."""
        return {"decided": self.decided, **asdict(self)}


def find_learning_rate(
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
    if data is None:
        check_single_number(call, start)
        refuse_without("data", weights=weights)
        feed, planned = feeding.chunks(epochs, tolerance, feeding.CHUNK), epochs
    else:
        feed = feeding.batches(call, start, data, weights, batch_size, seed, shuffle, epochs, tolerance)
        planned = feed.pace.steps_per_epoch * epochs
    if planned < FEWEST_STEPS:
        return too_short(planned)
    program, state, constants = compile_parts(call, start, rule, seed, feed.pace, l1, l2)
    program, state, constants = _as_tree(program, state, constants)
    sample = _sample(feed)
    size = sum(leaf.size for leaf in jax.tree.leaves(start))
    steps = horizon(planned, sample.weights.shape[1], size)
    trial = _Trial(program, constants, state, feed, sample, _shape(rule.schedule, planned, steps))
    return _try(trial, rule, planned, jax.random.fold_in(jax.random.key(seed), CURVATURE_KEY))


def too_short(planned: int) -> RateSearch:
    """Return what a search says of a descent of so few steps."""
    why = (
        f"a descent of {planned} step{'s'[: planned > 1]} is too short to tell rates apart; "
        f"it takes {FEWEST_STEPS}"
    )
    return RateSearch(None, why, planned_steps=planned)


def horizon(planned: int, batch_size: int, parameters: int) -> int:
    """Return how many steps of a descent are affordable for each rate: a function of sizes, not of the clock.

    Parameters
    ----------
    planned
        Steps of the descent.
    batch_size
        Rows of a step.
    parameters
        How many numbers are descended on.

    Examples
    --------
    >>> horizon(5_000, 32, 31), horizon(84_000, 32, 476) < 84_000
    (5000, True)
    """
    alone = parameters * (batch_size + UPDATE)
    together = 2 * (STEP + VARIANTS * alone)  # two grids
    if planned <= FEW_STEPS and planned * together <= WHOLE:
        return planned
    budget = max(LEAST, SHARE * planned * (STEP / 8 + alone))
    return min(planned, max(FEWEST_STEPS, int(budget / together)))


class _Trial(NamedTuple):
    """What all rates have in common; ``shape`` is each step's rate over the highest, ``[steps]``."""

    program: Program
    constants: Constants
    start: states.State
    feed: feeding.Feed
    sample: Batches
    shape: Floats


class Grid(NamedTuple):
    """What the K rates of a grid came to.

    Attributes
    ----------
    rates
        ``[K]``.
    losses
        On the sample ``[K]``, NaN where it diverged.
    curves
        The loss of each step ``[K, steps]``, NaN from where it diverged.
    limit
        From a rate's place to the curvature where it led, and the largest rate that is stable there.
    """

    rates: Floats
    losses: Floats
    curves: Floats
    limit: Callable[[int], tuple[float | None, float | None]]


def _as_tree(
    program: Program, state: states.State, constants: Constants
) -> tuple[Program, states.State, Constants]:
    """Let the steps run on the parameters' own arrays: of K variants, they are faster than a flat vector."""
    unravel = program.unravel
    tree = unravel(state.parameters)
    l1, l2 = (None if each is None else unravel(each) for each in (constants.l1, constants.l2))
    return (
        program._replace(unravel=_as_it_is),
        states.start(tree, program.transformation.init(tree)),
        constants._replace(l1=l1, l2=l2),
    )


def _as_it_is(parameters: Parameters) -> Parameters:
    return parameters


def _shape(schedule: Schedule, planned: int, steps: int) -> Floats:
    """Return the schedule's rates over its highest, compressed to fewer steps."""
    rates = schedule(np.arange(steps) * planned // steps)
    highest = schedule.settings.get("learning_rate") or float(schedule(np.arange(planned)).max())
    return np.asarray(rates / highest)


def _cut(windows: Iterator[Any], rates: Floats) -> Generator[Batches]:
    """Yield the batches of the first steps, of which there is a row of rates each."""
    done = 0
    for window in windows:
        steps = min(len(window.weights), len(rates) - done)
        cut = _cut_window(window, steps)
        yield cut._replace(rates=rates[done : done + steps])
        done += steps
        if done == len(rates):
            return


def _cut_window(window: Any, steps: int) -> Batches:
    """Return the first steps of a window, and of each batch no more rows than are of use."""
    first = jax.tree.map(lambda rows: rows[:steps, :MOST_ROWS], window.arrays)
    return Batches(first, window.weights[:steps, :MOST_ROWS], None)


def _sample(feed: feeding.Feed) -> Batches:
    """Return the rows that the descent visits first, as batches: these are drawn at random if any are."""
    parts: list[Batches] = []
    with closing(feed.windows(0, 0)) as windows:
        for _ in range(feed.pace.windows_per_epoch):
            window = next(windows)
            width = min(window.weights.shape[1], MOST_ROWS)
            wanted = max(1, MOST_ROWS // width) - sum(len(part.weights) for part in parts)
            if wanted < 1 or (parts and width != parts[0].weights.shape[1]):
                break
            parts.append(jax.tree.map(partial(np.array, copy=True), _cut_window(window, wanted)))
    whole: Batches = jax.tree.map(lambda *each: np.concatenate(each), *parts)
    return whole._replace(rates=np.zeros(len(whole.weights), np.float32))


def _try(trial: _Trial, rule: Optimizer, planned: int, key: jax.Array) -> RateSearch:
    """Measure the start, and search."""
    start = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (VARIANTS, *leaf.shape)), trial.start.parameters)
    begun = float(losses_on(trial.program, trial.constants, start, trial.sample)[0])
    rows = int((trial.sample.weights > 0).sum()) if jax.tree.leaves(trial.sample.data) else 0
    return search(partial(_reach, trial, rule, key), begun, len(trial.shape), planned, rows)


def _reach(trial: _Trial, rule: Optimizer, key: jax.Array, rates: Floats) -> Grid:
    """Descend with each rate, and see what it reached."""
    with (
        closing(trial.feed.windows(0, 0)) as windows,
        closing(_cut(windows, trial.shape[:, None] * rates)) as cut,
    ):
        swept = sweep(trial.program, trial.constants, trial.start, cut, len(rates), trial.feed.pace.sure)
    reached = losses_on(trial.program, trial.constants, swept.state.parameters, trial.sample)
    losses = np.where(swept.failed_at > 0, np.nan, np.asarray(reached, np.float64))
    losses = np.where(np.isfinite(losses), losses, np.nan)
    return Grid(rates, losses, swept.losses, partial(_limit, trial, rule, key, swept))


def _spread(low: float, high: float) -> Floats:
    """Return the rates of a grid, as a person writes them."""
    return np.array([float(f"{rate:.3g}") for rate in np.geomspace(low, high, VARIANTS)])


def search(reach: Callable[[Floats], Grid], begun: float, steps: int, planned: int, rows: int) -> RateSearch:
    """Try a grid over many decades, its neighbours where the best is at its end, and a fine one.

    Parameters
    ----------
    reach
        Descends with each of `VARIANTS` rates.
    begun
        The loss at the start.
    steps, planned, rows
        See `RateSearch`.
    """
    facts: dict[str, Any] = {
        "start_loss": begun if math.isfinite(begun) else None,
        "steps": steps,
        "planned_steps": planned,
        "rows": rows,
    }
    if not math.isfinite(begun):
        return RateSearch(None, f"the loss at the start is {begun}: no rate can mend that", **facts)
    grids = [reach(_spread(LOWEST, HIGHEST))]
    if (decades := _beyond(grids[0].losses)) is not None:
        grids.append(reach(_spread(*decades)))
    best = _best(grids)
    if best is not None:
        grids.append(reach(_spread(best / 10**BELOW, best * 10**ABOVE)))
    return _account(grids, facts)


def _beyond(losses: Floats) -> tuple[float, float] | None:
    """Return the decades to try as well, where the best rate of the first grid may be outside of it."""
    best = int(np.nanargmin(losses)) if np.isfinite(losses).any() else 0
    if best == 0:
        return LOWEST**2 / HIGHEST, LOWEST
    return (HIGHEST, HIGHEST**2 / LOWEST) if best == VARIANTS - 1 else None


def _best(grids: list[Grid]) -> float | None:
    rates, losses = (np.concatenate([getattr(grid, name) for grid in grids]) for name in ("rates", "losses"))
    return float(rates[np.nanargmin(losses)]) if np.isfinite(losses).any() else None


def _account(grids: list[Grid], facts: dict[str, Any]) -> RateSearch:
    """Say what the grids came to."""
    places = [(grid, index) for grid in grids for index in range(VARIANTS)]
    places.sort(key=lambda place: place[0].rates[place[1]])
    rates, losses = (
        np.array([getattr(grid, name)[index] for grid, index in places]) for name in ("rates", "losses")
    )
    facts |= {
        "rates": tuple(map(float, rates)),
        "losses": tuple(map(_or_none, losses)),
        "curves": tuple(_curve(grid.curves[index]) for grid, index in places),
    }
    steps, planned = facts["steps"], facts["planned_steps"]
    chosen, why = choose(rates, losses, facts["start_loss"], planned / steps)
    if chosen is None:
        return RateSearch(None, why, **facts)
    grid, index = places[chosen]
    curvature, limit = grid.limit(index)
    low, high = working(losses, facts["start_loss"], chosen)
    how = f"all {steps:,}" if steps == planned else f"{steps:,} of {planned:,}"
    why = f"{why} after {how} steps"
    if limit is not None:
        why += f"; where it led, rates up to {limit:.3g} are stable"
    interval = float(rates[low]), float(rates[high])
    return RateSearch(float(rates[chosen]), why, interval=interval, limit=limit, curvature=curvature, **facts)


def choose(rates: Floats, losses: Floats, begun: float, longer: float) -> tuple[int | None, str]:
    """Choose the lowest of the rates that are as good as the best; the reason is a sentence.

    Parameters
    ----------
    rates, losses
        The rates, rising, and the loss that each reached, NaN where it diverged.
    begun
        The loss at the start.
    longer
        How many times as long as what was tried the descent is to be. Over more steps a high rate gains less
        by its speed and loses as much by its noise, so a lower one may lag behind it a little.

    Examples
    --------
    >>> rates, losses = np.array([0.01, 0.1, 1.0, 10.0]), np.array([0.8, 0.301, 0.3, np.nan])
    >>> choose(rates, losses, 1.0, longer=1)
    (2, 'the lowest loss, 0.3 (1 at the start), of 4 rates between 0.01 and 10')
    >>> choose(rates, losses, 1.0, longer=8)[0]
    1
    >>> choose(rates[2:], np.array([np.nan, np.nan]), 1.0, longer=1)
    (None, 'each of 2 rates between 1 and 10 diverges')
    """
    tried = f"of {len(rates)} rates between {rates[0]:.3g} and {rates[-1]:.3g}"
    if not np.isfinite(losses).any():
        return None, f"each {tried} diverges"
    best = int(np.nanargmin(losses))
    gained = begun - losses[best]
    if not gained > NEGLIGIBLE * abs(begun):
        return None, f"none {tried} lowers the loss, which is {begun:.4g} at the start"
    forgiven = gained * (NEGLIGIBLE + SAME * math.log2(longer))
    lowest = int(np.flatnonzero(losses <= losses[best] + forgiven)[0])
    said = "the lowest loss" if lowest == best else "as good as the lowest loss"
    return lowest, f"{said}, {losses[best]:.4g} ({begun:.4g} at the start), {tried}"


def working(losses: Floats, begun: float, chosen: int) -> tuple[int, int]:
    """Return the first and the last rate around the chosen one that work.

    Examples
    --------
    >>> working(np.array([0.9, 0.31, 0.3, np.nan]), 1.0, 2)
    (1, 2)
    """
    lowest = np.nanmin(losses)
    fails = np.flatnonzero(~(losses <= lowest + WORKS * (begun - lowest)))
    low, high = fails[fails < chosen], fails[fails > chosen]
    return int(low[-1]) + 1 if len(low) else 0, int(high[0]) - 1 if len(high) else len(losses) - 1


def _limit(
    trial: _Trial, rule: Optimizer, key: jax.Array, swept: Swept, index: int
) -> tuple[float | None, float | None]:
    """Return the curvature where a rate led to, and the largest rate that is stable there."""
    constant = stability(rule)
    if constant is None:
        return None, None
    state = jax.tree.map(np.asarray, swept.state)  # indexing on the device would compile for each shape
    parameters, memory = (
        jax.tree.map(lambda leaf: leaf[index], each) for each in (state.parameters, state.optimizer_state)
    )
    scale = None
    if "momentum" not in rule.settings and rule.preconditioner is not None:
        scale = jax.jit(rule.preconditioner)(memory, np.broadcast_to(state.step, VARIANTS)[index])
    rows: Batches = jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:CURVATURE_ROWS],
        trial.sample._replace(rates=trial.sample.weights),
    )
    rows = rows._replace(weights=rows.weights / rows.weights.sum())
    loss = _MeanLoss(trial.program.objective)
    found = largest_curvature(loss, parameters, (rows, trial.constants), scale, key=key).value
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


def _curve(losses: Floats) -> tuple[float | None, ...]:
    """Return a descent's losses as means over stretches of steps."""
    parts = np.array_split(losses.astype(np.float64), min(len(losses), CURVE_POINTS))
    return tuple(_or_none(part.mean()) for part in parts)


def _or_none(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None

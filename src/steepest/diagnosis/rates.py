"""What a search for a learning rate tries, and what follows from the losses that the rates reach.

The rates of a grid over many decades are tried first, then those of a finer one around the best. How each is
tried is the caller's business: see `steepest.diagnosis.learning_rate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

VARIANTS = 12
"""Rates of a grid."""

LOWEST, HIGHEST = 1e-6, 10.0
"""The rates of the first grid; where its best is at an end, as many beyond it are tried as well ..."""

NEARLY_NOTHING = 0.01
"""... but not higher ones where the loss is less than this share of that at the start."""

BELOW, ABOVE = 1.0, 0.75
"""Decades around the best rate of the first grid that the finer one covers."""

FEWEST_STEPS = 10
"""With fewer steps than these, what a rate reaches says nothing of it."""

FEW_STEPS, WHOLE = 10_000, 4e10
"""Up to so many steps, and so many rows times parameters for all rates together, whole descents are taken."""

LEAST, ENOUGH, SHARE = 6e9, 4_096, 0.15
"""Else the budget is the first, in the same unit, but no more than so many steps take; or this share of the
planned descent, if that is more."""

STEP, UPDATE = 8e4, 8
"""What a step costs besides, in the same unit: as a whole, and for each parameter."""

NEGLIGIBLE = 1e-4
"""Share of the gain, or of the loss at the start, that is as good as nothing."""

SAME_LOSS, NOTHING = 0.01, 1e-9
"""Of whole descents those are equally good that are, too, within the first share of the lowest loss, or the
second of the gain."""

SAME = 0.01
"""The share of the gain by which rates may differ and be equally good, for each doubling that leads from the
steps that were tried to those of the planned descent."""

WORKS = 0.1
"""Share of what the best rate gained that a rate may miss and still work."""

CURVE_POINTS = 100
"""Points of a kept curve, at most."""


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
    budget = max(min(LEAST, ENOUGH * together), SHARE * planned * (STEP / 8 + alone))
    return min(planned, max(FEWEST_STEPS, int(budget / together)))


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
    if (decades := _beyond(grids[0].losses, begun)) is not None:
        grids.append(reach(_spread(*decades)))
    best = _best(grids)
    if best is not None:
        grids.append(reach(_spread(best / 10**BELOW, best * 10**ABOVE)))
    return _account(grids, facts)


def _beyond(losses: Floats, begun: float) -> tuple[float, float] | None:
    """Return the decades to try as well, where the best rate of the first grid may be outside of it."""
    best = int(np.nanargmin(losses)) if np.isfinite(losses).any() else 0
    step = (HIGHEST / LOWEST) ** (1 / (VARIANTS - 1))
    if best == 0:
        return LOWEST / step**VARIANTS, LOWEST / step
    learned = 0 <= losses[best] < NEARLY_NOTHING * begun
    return (HIGHEST * step, HIGHEST * step**VARIANTS) if best == VARIANTS - 1 and not learned else None


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
    if longer > 1:
        forgiven = gained * (NEGLIGIBLE + SAME * math.log2(longer))
    else:
        forgiven = max(min(NEGLIGIBLE * gained, SAME_LOSS * abs(losses[best])), NOTHING * gained)
    same = np.flatnonzero(losses == losses[best])
    if len(same) > 1:  # of several that end in the very same loss, such as 0, one that is not at the edge
        lowest = best = int(same[len(same) // 2])
    else:
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


def _curve(losses: Floats) -> tuple[float | None, ...]:
    """Return a descent's losses as means over stretches of steps."""
    parts = np.array_split(losses.astype(np.float64), min(len(losses), CURVE_POINTS))
    return tuple(_or_none(part.mean()) for part in parts)


def _or_none(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None

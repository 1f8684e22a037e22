"""Learning-rate schedules: pure functions from step numbers to rates.

A schedule is evaluated in NumPy, outside the compiled program, which takes the rates of its steps as
data. Steps count from 0. Any function of an array of step numbers serves as a schedule: see `custom`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from steepest.errors import SteepestError, nearest

Steps = npt.NDArray[np.int64]
Rates = npt.NDArray[np.floating[Any]]


class PlateauRule(NamedTuple):
    """When to lower the rate: see `reduce_on_plateau`."""

    factor: float
    patience: int
    minimum_change: float
    minimum_rate: float


class PlateauState(NamedTuple):
    """How far `reduce_on_plateau` has come; part of what an exact resume needs."""

    scale: float = 1.0
    best: float = math.inf
    waited: int = 0


@dataclass(frozen=True)
class Schedule:
    """A schedule by name.

    Parameters
    ----------
    name
        The name that settings and reports use.
    rates
        ``steps [n] -> learning rates [n]``.
    settings
        The schedule's own numbers.
    plateau
        A rule that scales the rates by what the epochs' losses were, if there is one.

    Examples
    --------
    >>> exponential(0.1, decay_steps=2, decay_rate=0.5)(np.arange(4)).round(4).tolist()
    [0.1, 0.0707, 0.05, 0.0354]
    """

    name: str
    rates: Callable[[Steps], Rates]
    settings: Mapping[str, Any] = field(default_factory=dict)
    plateau: PlateauRule | None = None

    def __call__(self, steps: Steps) -> Rates:
        """Return the learning rates of the steps."""
        return self.rates(np.asarray(steps, np.int64))


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise SteepestError(f"{name} must be a number above zero, not {value}.")


def later(schedule: Schedule, steps: int) -> Schedule:
    """Return the schedule as it is so many steps later.

    Examples
    --------
    >>> later(step(1.0, every=2, factor=0.5), 1)(np.arange(4)).tolist()
    [1.0, 0.5, 0.5, 0.25]
    """
    return replace(schedule, rates=lambda t: schedule.rates(t + steps)) if steps else schedule


def constant(learning_rate: float) -> Schedule:
    """The same rate at every step.

    Examples
    --------
    >>> constant(0.1)(np.arange(3)).tolist()
    [0.1, 0.1, 0.1]
    """
    _positive(learning_rate=learning_rate)
    return Schedule("constant", lambda t: np.full(t.shape, learning_rate), {"learning_rate": learning_rate})


def step(learning_rate: float, *, every: int, factor: float = 0.1) -> Schedule:
    """Multiply the rate by ``factor`` after every ``every`` steps: ``η · factor^⌊t / every⌋``.

    Examples
    --------
    >>> step(1.0, every=2, factor=0.5)(np.arange(5)).tolist()
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    _positive(learning_rate=learning_rate, every=every, factor=factor)
    settings = {"learning_rate": learning_rate, "every": every, "factor": factor}
    return Schedule("step", lambda t: learning_rate * factor ** (t // every), settings)


def exponential(learning_rate: float, *, decay_steps: int, decay_rate: float) -> Schedule:
    """Exponential decay, ``η · decay_rate^(t / decay_steps)``.

    Examples
    --------
    >>> exponential(1.0, decay_steps=1, decay_rate=0.5)(np.arange(3)).tolist()
    [1.0, 0.5, 0.25]
    """
    _positive(learning_rate=learning_rate, decay_steps=decay_steps, decay_rate=decay_rate)
    settings = {"learning_rate": learning_rate, "decay_steps": decay_steps, "decay_rate": decay_rate}
    return Schedule("exponential", lambda t: learning_rate * decay_rate ** (t / decay_steps), settings)


def inverse_time(learning_rate: float, *, decay_steps: int, decay_rate: float = 1.0) -> Schedule:
    """Inverse-time decay, ``η / (1 + decay_rate · t / decay_steps)``.

    Examples
    --------
    >>> inverse_time(1.0, decay_steps=1)(np.arange(4)).round(3).tolist()
    [1.0, 0.5, 0.333, 0.25]
    """
    _positive(learning_rate=learning_rate, decay_steps=decay_steps, decay_rate=decay_rate)
    settings = {"learning_rate": learning_rate, "decay_steps": decay_steps, "decay_rate": decay_rate}
    return Schedule("inverse_time", lambda t: learning_rate / (1.0 + decay_rate * t / decay_steps), settings)


def polynomial(learning_rate: float, *, steps: int, final: float = 1e-4, power: float = 1.0) -> Schedule:
    """Polynomial decay to ``final``, ``(η - final) · (1 - min(t, steps) / steps)^power + final``.

    Examples
    --------
    >>> polynomial(1.0, steps=2, final=0.0)(np.arange(4)).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    _positive(learning_rate=learning_rate, steps=steps, power=power)
    settings = {"learning_rate": learning_rate, "steps": steps, "final": final, "power": power}

    def rates(t: Steps) -> Rates:
        return (learning_rate - final) * (1.0 - np.minimum(t, steps) / steps) ** power + final

    return Schedule("polynomial", rates, settings)


def cosine(learning_rate: float, *, steps: int, warmup_steps: int = 0, final_share: float = 0.0) -> Schedule:
    """Rise linearly from 0 for ``warmup_steps``, then half a cosine down to ``final_share · η``.

    Source: I. Loshchilov and F. Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts*, 2017.

    Parameters
    ----------
    learning_rate
        The highest rate η.
    steps
        Steps of the decay, after the warm-up.
    warmup_steps
        Steps of the rise.
    final_share
        The last rate over the highest.

    Examples
    --------
    >>> cosine(1.0, steps=4, warmup_steps=2)(np.arange(7)).round(3).tolist()
    [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    _positive(learning_rate=learning_rate, steps=steps)
    settings = {"learning_rate": learning_rate, "steps": steps, "warmup_steps": warmup_steps}

    def rates(t: Steps) -> Rates:
        rising = learning_rate * t / max(warmup_steps, 1)
        done = np.clip((t - warmup_steps) / steps, 0.0, 1.0)
        falling = learning_rate * _half_cosine(done, final_share)
        return np.where(t < warmup_steps, rising, falling)

    return Schedule("cosine", rates, settings | {"final_share": final_share})


def cosine_restarts(
    learning_rate: float,
    *,
    first_steps: int,
    longer: float = 2.0,
    lower: float = 1.0,
    final_share: float = 0.0,
) -> Schedule:
    """Half cosines that start again, each ``longer`` times as long and ``lower`` times as high as a whole.

    Source: I. Loshchilov and F. Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts*, 2017.

    Examples
    --------
    >>> cosine_restarts(1.0, first_steps=2)(np.arange(7)).round(3).tolist()
    [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """
    _positive(learning_rate=learning_rate, first_steps=first_steps, lower=lower)
    if longer < 1:
        raise SteepestError(f"Each cycle must be at least as long as the one before; longer={longer}.")
    settings = {"learning_rate": learning_rate, "first_steps": first_steps, "longer": longer, "lower": lower}

    def rates(t: Steps) -> Rates:
        cycles = t / first_steps
        if longer == 1.0:
            cycle = np.floor(cycles)
            done = cycles - cycle
        else:
            # The nudge keeps a restart on its own step where the logarithm rounds below a whole number.
            cycle = np.floor(np.log1p(cycles * (longer - 1.0)) / math.log(longer) + 1e-9)
            done = (cycles - (longer**cycle - 1.0) / (longer - 1.0)) / longer**cycle
        return learning_rate * lower**cycle * _half_cosine(done, final_share)

    return Schedule("cosine_restarts", rates, settings | {"final_share": final_share})


def one_cycle(
    learning_rate: float,
    *,
    steps: int,
    rise_share: float = 0.3,
    start_share: float = 1 / 25,
    final_share: float = 1 / 25e4,
) -> Schedule:
    """One cycle: up from ``start_share · η`` to η along half a cosine, and down to ``final_share · η``.

    Source: L. N. Smith and N. Topin, *Super-Convergence*, 2018.

    Examples
    --------
    >>> one_cycle(1.0, steps=10)(np.arange(0, 11, 5)).round(3).tolist()
    [0.04, 0.812, 0.0]
    """
    _positive(learning_rate=learning_rate, steps=steps, start_share=start_share, final_share=final_share)
    if not 0 < rise_share < 1:
        raise SteepestError(f"The rise takes a share of the steps between 0 and 1, not {rise_share}.")
    settings = {"learning_rate": learning_rate, "steps": steps, "rise_share": rise_share}

    def rates(t: Steps) -> Rates:
        peak = rise_share * steps
        rising = 1.0 - (1.0 - start_share) * _half_cosine(np.clip(t / peak, 0.0, 1.0), 0.0)
        falling = _half_cosine(np.clip((t - peak) / (steps - peak), 0.0, 1.0), final_share)
        return learning_rate * np.where(t < peak, rising, falling)

    return Schedule("one_cycle", rates, settings | {"start_share": start_share, "final_share": final_share})


def _half_cosine(done: Rates, final_share: float) -> Rates:
    share: Rates = (1.0 - final_share) * 0.5 * (1.0 + np.cos(np.pi * done)) + final_share
    return share


def reduce_on_plateau(
    learning_rate: float,
    *,
    factor: float = 0.1,
    patience: int = 10,
    minimum_change: float = 1e-4,
    minimum_rate: float = 0.0,
) -> Schedule:
    """Multiply the rate by ``factor`` once the loss has not fallen for ``patience`` epochs.

    The loss is the validation rows' where there are any, else the training rows'. A fall counts if it
    is more than ``minimum_change`` below the best so far. The rate stays at or above ``minimum_rate``.
    """
    _positive(learning_rate=learning_rate, factor=factor, patience=patience)
    settings = {"learning_rate": learning_rate, "factor": factor, "patience": patience}
    return Schedule(
        "reduce_on_plateau",
        constant(learning_rate).rates,
        settings | {"minimum_change": minimum_change, "minimum_rate": minimum_rate},
        PlateauRule(factor, patience, minimum_change, min(minimum_rate / learning_rate, 1.0)),
    )


def watch(rule: PlateauRule, state: PlateauState, loss: float) -> PlateauState:
    """Return the plateau's state after an epoch with this loss.

    Examples
    --------
    >>> rule, state = reduce_on_plateau(1.0, patience=2).plateau, PlateauState()
    >>> for loss in (1.0, 1.0, 1.0):
    ...     state = watch(rule, state, loss)
    >>> state.scale
    0.1
    """
    if loss < state.best - rule.minimum_change:
        return PlateauState(state.scale, loss, 0)
    if state.waited + 1 < rule.patience:
        return PlateauState(state.scale, state.best, state.waited + 1)
    return PlateauState(max(state.scale * rule.factor, rule.minimum_rate), state.best, 0)


def custom(rates: Callable[[Any], Any], name: str = "custom") -> Schedule:
    """Make a schedule of any function from step numbers to rates, an Optax schedule for one.

    Examples
    --------
    >>> custom(lambda steps: 1.0 / (1.0 + steps))(np.arange(2)).tolist()
    [1.0, 0.5]
    """
    return Schedule(name, lambda t: np.asarray(rates(t), np.float64) + np.zeros(t.shape))


SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda rate, _: constant(rate),
    "step": lambda rate, steps: step(rate, every=math.ceil(steps / 3)),
    "exponential": lambda rate, steps: exponential(rate, decay_steps=steps, decay_rate=0.01),
    "inverse_time": lambda rate, steps: inverse_time(rate, decay_steps=steps, decay_rate=9.0),
    "polynomial": lambda rate, steps: polynomial(rate, steps=steps, final=0.01 * rate),
    "cosine": lambda rate, steps: cosine(rate, steps=steps - steps // 20, warmup_steps=steps // 20),
    "cosine_restarts": lambda rate, steps: cosine_restarts(rate, first_steps=math.ceil(steps / 7)),
    "one_cycle": lambda rate, steps: one_cycle(rate, steps=steps),
    "reduce_on_plateau": lambda rate, _: reduce_on_plateau(rate, factor=0.5, patience=2),
}
"""What each name means for a descent of a known number of steps: ``(learning rate, steps) -> schedule``.

step: a tenth after each third; exponential and polynomial: down to a hundredth; inverse_time: down to a
tenth; cosine: a twentieth of the steps is warm-up; cosine_restarts: three cycles, each twice as long;
one_cycle: one cycle over all steps; reduce_on_plateau: halved after two epochs without a fall.
"""


def schedule_by_name(name: str, learning_rate: float, steps: int) -> Schedule:
    """Return the schedule that the name means for a descent of so many steps.

    Raises
    ------
    SteepestError
        If there is none of that name; the message names the nearest.

    Examples
    --------
    >>> schedule_by_name("step", 1.0, 9)(np.array([0, 3, 6])).round(3).tolist()
    [1.0, 0.1, 0.01]
    """
    if name not in SCHEDULES:
        raise SteepestError(f"There is no schedule {name!r}.", hint=nearest(name, SCHEDULES))
    return SCHEDULES[name](learning_rate, steps)

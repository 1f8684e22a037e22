"""Where a descent stands between two windows: all that going on with it needs, as one value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steepest.descent.history import History
from steepest.descent.schedules import PlateauState
from steepest.descent.state import RUNNING, State
from steepest.descent.stopping import Best, Watched
from steepest.errors import SteepestError

SMALLER = 3.0
"""What the learning rate is divided by each time that a descent backs off."""

MOST_SETBACKS = 12
"""How often it does: then its rate is 500,000 times smaller, and the rate is not what is wrong."""


class Setback(NamedTuple):
    """A step that was not finite and was gone back from: where, at which rate, and how far back; from 1."""

    step: int
    learning_rate: float
    back_to: int


class Totals(NamedTuple):
    """What an unfinished epoch adds up to: ``Σ weight·loss``, ``Σ weight``, rows, steps; its last rate."""

    loss: float = 0.0
    weight: float = 0.0
    rows: int = 0
    steps: int = 0
    rate: float = 0.0

    def mean_since(self, before: Totals) -> float:
        """Return the mean loss of what was added since; NaN where nothing has a weight."""
        weight = self.weight - before.weight
        return (self.loss - before.loss) / weight if weight else math.nan


@dataclass(frozen=True)
class Standing:
    """Where a descent stands.

    Attributes
    ----------
    state
        The compiled epoch's carry.
    epoch
        Epochs that are over.
    window
        Windows of the next epoch that are over.
    totals
        What these windows add up to.
    watched, plateau, best
        What convergence, `steepest.schedules.reduce_on_plateau` and patience remember.
    stopped
        Why a callback stopped the descent; empty while none has.
    seconds
        Time trained so far.
    recorded
        Steps of the history that had been taken: the history itself goes on growing.
    history
        Every step's and every epoch's figures, these steps' and epochs' among them.
    good
        Where a descent that may back off goes back to: it stood there after the window with the lowest mean
        loss so far. ``None`` where it may not.
    lowest
        That loss; infinite before the first window.
    setbacks
        The steps that were gone back from.
    """

    state: State
    epoch: int = 0
    window: int = 0
    totals: Totals = field(default_factory=Totals)
    watched: Watched = field(default_factory=Watched)
    plateau: PlateauState = field(default_factory=PlateauState)
    best: Best = field(default_factory=Best)
    stopped: str = ""
    seconds: float = 0.0
    recorded: int = 0
    history: History = field(default_factory=History)
    good: Standing | None = None
    lowest: float = math.inf
    setbacks: tuple[Setback, ...] = ()

    @property
    def scale(self) -> float:
        """What the schedule's rate is multiplied by."""
        return self.plateau.scale / SMALLER ** len(self.setbacks)

    def with_states(self, function: Callable[[State], State]) -> Standing:
        """Return this with each state replaced by what the function makes of it."""
        good = self.good and self.good.with_states(function)
        return replace(self, state=function(self.state), good=good)

    def remembering(self, loss: float) -> Standing:
        """Return this as the place to go back to, if the last window's mean loss is the lowest so far."""
        if self.good is None or not loss <= self.lowest:
            return self
        lowest = replace(self, lowest=loss)
        return replace(lowest, good=replace(lowest, good=None))

    def backed_off(self, step: int, learning_rate: float) -> Standing:
        """Return where to go on from, at a smaller rate, after a step that was not finite."""
        assert self.good is not None  # noqa: S101 - the caller looked
        good = self.good
        setback = Setback(step, learning_rate, good.recorded)
        after = replace(
            good,
            history=self.history.until(good.recorded, good.epoch),
            seconds=self.seconds,
            setbacks=(*self.setbacks, setback),
        )
        return replace(after, good=after)


def go_on(before: Standing, like: State, *, back_off: bool = False) -> Standing:
    """Return where a descent stands that begins where another one ended; its history is its own.

    Parameters
    ----------
    before
        Where the other one stood after its last epoch.
    like
        A state with the same parameters and the same memory of the rule.
    back_off
        Whether it may go back from a step that is not finite.

    Raises
    ------
    SteepestError
        If the other one's state is not like that.
    """
    if jax.tree.map(np.shape, before.state) != jax.tree.map(np.shape, like):
        raise SteepestError(
            "The descent to go on from had other parameters, or another optimizer.",
            hint="Leave the standing out to begin anew.",
        )

    def again(state: State) -> State:
        # A copy, because a descent with tables writes over its state.
        copied: State = jax.tree.map(lambda each: jnp.array(each, dtype=each.dtype, copy=True), state)
        return copied._replace(status=jnp.full((), RUNNING, jnp.int32), still=jnp.zeros((), jnp.int32))

    after = Standing(
        again(before.state),
        epoch=before.epoch,
        plateau=before.plateau,
        best=before.best,
        recorded=before.recorded,
        history=History(let_go=before.recorded),
        setbacks=before.setbacks,
    )
    return replace(after, good=after if back_off else None)

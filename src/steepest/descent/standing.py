"""Where a descent stands between two windows: all that going on with it needs, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from steepest.descent.history import History
from steepest.descent.schedules import PlateauState
from steepest.descent.state import State
from steepest.descent.stopping import Best, Watched


class Totals(NamedTuple):
    """What an unfinished epoch adds up to: ``Σ weight·loss``, ``Σ weight``, rows, steps; its last rate."""

    loss: float = 0.0
    weight: float = 0.0
    rows: int = 0
    steps: int = 0
    rate: float = 0.0


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

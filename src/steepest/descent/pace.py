"""How a descent is divided, when it is over, and why, in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from steepest.descent.standing import Standing
from steepest.descent.state import GRADIENT_CONVERGED, RUNNING
from steepest.descent.step import PATIENCE
from steepest.descent.stopping import Patience


@dataclass(frozen=True)
class Pace:
    """How a descent is divided, and when it has converged.

    Parameters
    ----------
    epochs
        The most epochs to run.
    steps_per_epoch
        Steps of an epoch.
    windows_per_epoch
        Windows of an epoch.
    tolerance
        Relative change of the loss, or norm of the gradient, that counts as converged.
    whole
        Whether every step sees all there is to see (batch descent, or a function without data). Then
        convergence is looked for at each step, within the compiled program; else after each epoch.
    limit
        What the last epoch is called when it is reached.
    weightless
        Whether a row may have a weight of zero, and so a step may have nothing to go by.
    """

    epochs: int
    steps_per_epoch: int
    windows_per_epoch: int
    tolerance: float
    whole: bool
    limit: str
    weightless: bool = False

    @property
    def sure(self) -> bool:
        """Whether every step counts, unless one is not finite: none is all padding, none converges."""
        return not (self.whole or self.weightless)


def ending(pace: Pace, patience: Patience | None, standing: Standing) -> str:
    """Say why a descent that stands here is over; nothing if it is not."""
    best = standing.best
    if standing.window:
        return ""
    if standing.stopped:
        return standing.stopped
    if int(standing.state.status) != RUNNING:
        return _describe_convergence(pace, standing)
    if patience and patience.exhausted(best):
        return patience.describe(best, standing.epoch)
    if standing.epoch < pace.epochs:
        return ""
    kept = f"; {patience.describe_best(best)}" if patience and best.epoch != standing.epoch else ""
    return f"{pace.limit} was reached{kept}"


def steps_taken(pace: Pace, standing: Standing) -> int:
    """Return the steps that were looked at; the one that showed convergence did not move."""
    status = int(standing.state.status)
    return int(standing.state.step) + (pace.whole and status != RUNNING)


def _describe_convergence(pace: Pace, standing: Standing) -> str:
    taken = steps_taken(pace, standing)
    where = f"step {taken:,}" if pace.whole else f"epoch {standing.epoch:,}"
    if int(standing.state.status) == GRADIENT_CONVERGED:
        norm = standing.history.steps(taken - 1, taken).gradient_norm[0]
        return f"converged at {where}: the gradient's norm, {norm:.3g}, is within {pace.tolerance:g}"
    unit = "steps" if pace.whole else "epochs"
    return (
        f"converged at {where}: the loss changed by at most {pace.tolerance:g} of itself "
        f"in {PATIENCE} {unit} running"
    )

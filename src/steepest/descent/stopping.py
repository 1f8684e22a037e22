"""When a descent ends before its last epoch: convergence over epochs, and patience."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from steepest.descent.history import Figures

RISING = ("accuracy", "auc", "f1", "precision", "r2", "recall")
"""A figure whose name holds one of these is better the higher it is; any other, the lower it is."""


class Watched(NamedTuple):
    """The last epoch's loss, and the epochs in a row in which it has not changed; see `unchanged`."""

    loss: float = math.inf
    still: int = 0


def unchanged(watched: tuple[float, int], loss: float, tolerance: float) -> Watched:
    """Count the epochs in a row in which the loss has changed by at most ``tolerance`` of itself.

    Examples
    --------
    >>> watched = Watched()
    >>> for loss in (1.0, 1.0, 0.999):
    ...     watched = unchanged(watched, loss, 0.01)
    >>> watched
    Watched(loss=0.999, still=2)
    """
    last, still = watched
    same = math.isfinite(last) and abs(loss - last) <= tolerance * abs(last)
    return Watched(loss, still + 1 if same else 0)


class Best(NamedTuple):
    """The best epoch so far.

    Attributes
    ----------
    figure
        The best value of the figure that is watched; NaN before there is one.
    epoch
        The epoch that is kept, from 1; 0 before the first.
    waited
        Epochs since the figure has improved.
    parameters
        The parameters at the end of that epoch; before the first, those of the start.
    """

    figure: float = math.nan
    epoch: int = 0
    waited: int = 0
    parameters: Any = None


class Patience(NamedTuple):
    """The rule of early stopping.

    Parameters
    ----------
    epochs
        Epochs in a row without a better figure after which the descent stops.
    monitor
        The figure, as `steepest.Result.epochs` names it: ``loss``, ``validation_loss`` or
        ``validation_`` and a metric's name.

    Examples
    --------
    >>> rule, best = Patience(2, "validation_loss"), Best()
    >>> for epoch, loss in enumerate((3.0, 2.0, 2.5, math.nan), 1):
    ...     best = rule.judge(best, {"epoch": epoch, "validation_loss": loss}, parameters=f"of epoch {epoch}")
    >>> best
    Best(figure=2.0, epoch=2, waited=2, parameters='of epoch 2')
    >>> rule.exhausted(best)
    True
    """

    epochs: int
    monitor: str

    @property
    def rises(self) -> bool:
        """Whether the figure is better the higher it is: see `RISING`."""
        return any(part in self.monitor for part in RISING)

    def judge(self, best: Best, figures: Figures, parameters: Any) -> Best:
        """Return the best epoch once this one is over. A figure that is NaN is no improvement."""
        figure = figures[self.monitor]
        better = figure > best.figure if self.rises else figure < best.figure
        first = math.isnan(best.figure) and not math.isnan(figure)
        if better or first or not best.epoch:
            return Best(figure, int(figures["epoch"]), 0, parameters)
        return best._replace(waited=best.waited + 1)

    def exhausted(self, best: Best) -> bool:
        """Tell whether it is time to stop."""
        return best.waited >= self.epochs

    def describe(self, best: Best, epoch: int) -> str:
        """Say why the descent stopped after this epoch."""
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        return f"stopped at epoch {epoch}: {self.describe_best(best, f', and has not improved in {epochs}')}"

    def describe_best(self, best: Best, since: str = "") -> str:
        """Say which epoch is kept."""
        how = "highest" if self.rises else "lowest"
        was = (
            "never a number"
            if math.isnan(best.figure)
            else f"{how}, {best.figure:.4g}, at epoch {best.epoch}"
        )
        return f"{self.monitor} was {was}{since}; the weights of epoch {best.epoch} are kept"

"""What a descent writes down: every step's and every epoch's figures."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Figures = dict[str, float]


class Steps(NamedTuple):
    """Consecutive steps, ``[steps]`` each: the epoch (from 1), loss, gradient's norm and learning rate."""

    epoch: npt.NDArray[np.int64]
    loss: Floats
    gradient_norm: Floats
    learning_rate: Floats


class History:
    """Every step's figures and every epoch's; it only grows.

    Parameters
    ----------
    steps
        Steps to begin with, in their order.
    epochs
        Epochs' figures to begin with.
    looks
        What was seen at some steps (``step``, from 1) to begin with: see `steepest.descent.watching`.
    let_go
        How many steps came before the first one that is kept.

    Examples
    --------
    >>> history = History()
    >>> history.add(Steps(*(np.arange(3) for _ in Steps._fields)))
    >>> history.add(Steps(*(np.arange(3, 5) for _ in Steps._fields)))
    >>> len(history), history.steps(2, 4).loss.tolist()
    (5, [2, 3])
    """

    def __init__(
        self,
        steps: Sequence[Steps] = (),
        epochs: Sequence[Figures] = (),
        looks: Sequence[Figures] = (),
        *,
        let_go: int = 0,
    ) -> None:
        self.epochs, self.looks, self.let_go = list(epochs), list(looks), let_go
        self._parts: list[Steps] = []
        self._ends: list[int] = []
        for part in steps:
            self.add(part)

    def __len__(self) -> int:
        """Return the number of steps, those that were let go among them."""
        return self._ends[-1] if self._ends else self.let_go

    def add(self, steps: Steps) -> None:
        """Write steps down."""
        if len(steps.loss):
            self._parts.append(steps)
            self._ends.append(len(self) + len(steps.loss))

    def steps(self, first: int, last: int) -> Steps:
        """Return the steps ``first`` to ``last - 1``, counted from 0; at least one step must be kept."""
        begin = min(bisect_right(self._ends, first), len(self._ends) - 1)
        end = max(bisect_left(self._ends, last), begin) + 1
        skipped = self._ends[begin - 1] if begin else self.let_go
        columns = zip(*self._parts[begin:end], strict=True)
        return Steps(*(np.concatenate(column)[first - skipped : last - skipped] for column in columns))

    def until(self, steps: int, epochs: int) -> History:
        """Return the history of the first so many steps and epochs."""
        first = [self.steps(self.let_go, steps)] if steps > self.let_go else []
        looks = [seen for seen in self.looks if seen["step"] <= steps]
        until = [figures for figures in self.epochs if figures["epoch"] <= epochs]
        return History(first, until, looks, let_go=self.let_go)

"""Snapshots of the parameters along a descent, from which its path is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from steepest.descent.standing import Standing
from steepest.errors import SteepestError


class Path(NamedTuple):
    """Where a descent was, as `steepest.plot.landscape` takes it.

    Attributes
    ----------
    steps
        Steps taken before each snapshot, ``[snapshots]``, from 0.
    parameters
        The parameters as the objective takes them, each array with the snapshots as a further first axis.
    """

    steps: npt.NDArray[np.int64]
    parameters: Any


def check_snapshots(most: int, checkpoint: object) -> int:
    """Return how many snapshots are to be kept.

    Raises
    ------
    SteepestError
        If there can't be so many.
    """
    if not isinstance(most, int | np.integer) or isinstance(most, bool) or most < 0 or most == 1:
        raise SteepestError(f"A path has two snapshots at least, or there are none: 0; snapshots={most!r}.")
    if most and checkpoint is not None:
        raise SteepestError(
            "A checkpoint keeps no snapshots, so a path would be lost in part.",
            hint="Leave out snapshots or the checkpoint.",
        )
    return int(most)


class Snapshots:
    """Keeps a descent's parameters where windows end, as evenly spaced as these are.

    Parameters
    ----------
    most
        How many are kept at most; 0 keeps none.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._every, self._offered = 1, 0
        self._kept: list[tuple[int, Any]] = []

    @property
    def windows(self) -> int:
        """Windows that a descent should have at least."""
        return max(1, self.most - 1)

    def offer(self, standing: Standing) -> None:
        """Keep where a descent stands, if it is its turn: when there are too many, every second goes."""
        if not self.most:
            return
        while self._kept and self._kept[-1][0] >= standing.recorded:  # the descent went back
            self._kept.pop()
        self._offered += 1
        if (self._offered - 1) % self._every:
            return
        if len(self._kept) == self.most:
            self._kept, self._every = self._kept[::2], 2 * self._every
            if (self._offered - 1) % self._every:
                return
        self._kept.append(_shot(standing))

    def path(self, end: Standing, taken: int, unravel: Callable[[Any], Any]) -> Path | None:
        """Return the path to where the descent ended, after so many steps, if there is one."""
        if not self.most:
            return None
        last = min(end.recorded, taken)
        kept = [each for each in self._kept if each[0] < last]
        if len(kept) == self.most:  # one place is for the end
            kept = kept[::2]
        kept.append((last, _shot(end)[1]))
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(parameters for _, parameters in kept))
        parameters = jax.tree.map(np.asarray, jax.vmap(unravel)(stacked))
        return Path(np.array([step for step, _ in kept]), parameters)


def _shot(standing: Standing) -> tuple[int, Any]:
    return standing.recorded, jax.tree.map(np.array, standing.state.parameters)

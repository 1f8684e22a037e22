"""What is measured of a descent while it goes on, because a user asked for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from steepest.arguments import as_data, row_count
from steepest.data.padded import taken
from steepest.descent.history import Figures
from steepest.descent.state import State
from steepest.diagnosis.curvature import largest_curvature, stability
from steepest.diagnosis.measures import scale_of

if TYPE_CHECKING:
    from steepest.result import Asked

MOST_ROWS = 2**12
"""Rows of a sample that a descent is measured on."""

WATCHING = 0x0A7C
"""The purpose of the key that draws Lanczos' first vector."""


def sample_rows(data: Any) -> Any:
    """Return rows that are spread evenly over the data, in its shape; one zero where there is none."""
    if data is None:
        return jnp.zeros(1)
    chosen = np.unique(np.linspace(0, row_count(data) - 1, MOST_ROWS).round().astype(np.int64))

    return jax.tree.map(lambda leaf: taken(as_data(leaf), chosen), data)


def is_measured(epoch: int) -> bool:
    """Tell whether an epoch, from 1, is one to measure at.

    Examples
    --------
    >>> [epoch for epoch in range(1, 25) if is_measured(epoch)]
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 17, 19, 21, 23]
    """
    return epoch == 1 or math.floor(10 * math.log(epoch)) > math.floor(10 * math.log(epoch - 1))


def curvature_by_epoch(asked: Asked, data: Any, seed: int) -> Callable[[int, State, float], Figures]:
    """Return what measures the curvature at the end of an epoch, and the limit at the epoch's rate."""
    batch, losses = sample_rows(data), asked.losses()
    key = jax.random.fold_in(jax.random.key(seed), WATCHING)
    most = stability(asked.rule)

    def loss(parameters: Any, batch: Any) -> jax.Array:
        return jnp.mean(losses(parameters, batch))

    def measure(epoch: int, state: State, rate: float) -> Figures:
        if not is_measured(epoch):
            return {"curvature": math.nan, "curvature_limit": math.nan}
        scale = scale_of(asked.rule, state.optimizer_state, int(state.step))
        scale = None if scale is None else asked.unravel(scale)
        found = largest_curvature(loss, asked.unravel(state.parameters), batch, scale, key=key)
        return {"curvature": found.value, "curvature_limit": most / rate if most else math.nan}

    return measure

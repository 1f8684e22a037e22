"""What is measured on rows held out of the descent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from steepest.descent.epoch import evaluate
from steepest.descent.history import Figures
from steepest.descent.step import Batches, Constants, Program


@dataclass(frozen=True)
class Validation:
    """Rows held out of the descent, and what is measured on them besides the loss.

    Parameters
    ----------
    windows
        Gives the rows' windows anew at each call, each with the sum of its weights: one that stays on the
        device, or several that are read again each time. The arrays of a window are in use until the next but
        one is asked for.
    metrics
        ``metric(parameters, batch)`` by name, a number or one for each row.
    """

    windows: Callable[[], Iterable[tuple[float, Batches]]]
    metrics: dict[str, Callable[..., jax.Array]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """What the figures are called."""
        return tuple(f"validation_{name}" for name in ("loss", *self.metrics))


Measured = list[tuple[float, tuple[jax.Array, ...]]]
"""Each window's weight and figures, which may still be on their way."""


def measure(validation: Validation, program: Program, constants: Constants, parameters: Any) -> Measured:
    """Start measuring; only where there are several windows wait for those before the last."""
    functions = tuple(validation.metrics.values())
    measured: Measured = []
    for weight, batches in validation.windows():
        if measured:
            jax.block_until_ready(measured[-1])
        if weight:
            measured.append((weight, evaluate(program, functions, constants, parameters, batches)))
    return measured


def figures_of(validation: Validation, measured: Measured) -> Figures:
    """Return the weighted means over the windows, ``Σ wᵢ figureᵢ / Σ wᵢ``, in double precision."""
    weights, values = zip(*measured, strict=True)
    means = np.asarray([[float(value) for value in window] for window in values])
    # The mean of a single window is what it is: dividing by its weight again could round.
    merged = means[0] if len(means) == 1 else np.average(means, axis=0, weights=weights)
    return dict(zip(validation.names, merged.tolist(), strict=True))

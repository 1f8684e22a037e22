"""What is measured on rows held out of the descent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
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
    compiled
        What measures a window of each shape, once one was measured.
    """

    windows: Callable[[], Iterable[tuple[float, Batches]]]
    metrics: dict[str, Callable[..., jax.Array]] = field(default_factory=dict)
    compiled: dict[Any, Callable[..., tuple[jax.Array, ...]]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """What the figures are called."""
        return tuple(f"validation_{name}" for name in ("loss", *self.metrics))


Measured = list[tuple[float, "Future[tuple[jax.Array, ...]]"]]
"""Each window's weight and figures, which may still be on their way."""

_BESIDE = ThreadPoolExecutor(1, thread_name_prefix="steepest-validation")
"""What one thread hands to a processor is done in turn; what this one does goes on beside the next steps."""


def measure(validation: Validation, program: Program, constants: Constants, parameters: Any) -> Measured:
    """Start measuring; only where there are several windows wait for those before the last."""
    measured: Measured = []
    for weight, batches in validation.windows():
        if measured:
            jax.block_until_ready(measured[-1][1].result())
        if weight:
            measured.append((weight, _started(validation, program, constants, parameters, batches)))
    return measured


def _started(
    validation: Validation, program: Program, constants: Constants, parameters: Any, batches: Batches
) -> Future[tuple[jax.Array, ...]]:
    functions, arguments = tuple(validation.metrics.values()), (constants, parameters, batches)
    if program.mesh is not None:  # where processes wait for each other, all keep to the same turn
        done: Future[tuple[jax.Array, ...]] = Future()
        done.set_result(evaluate(program, functions, *arguments))
        return done
    key = program, batches.weights.shape
    if key not in validation.compiled:  # here, because settings such as jax.enable_x64 are a thread's own
        validation.compiled[key] = evaluate.lower(program, functions, *arguments).compile()
    return _BESIDE.submit(validation.compiled[key], *arguments)


def figures_of(validation: Validation, measured: Measured) -> Figures:
    """Return the weighted means over the windows, ``Σ wᵢ figureᵢ / Σ wᵢ``, in double precision."""
    weights, windows = zip(*measured, strict=True)
    means = np.asarray([[float(value) for value in window.result()] for window in windows])
    # The mean of a single window is what it is: dividing by its weight again could round.
    merged = means[0] if len(means) == 1 else np.average(means, axis=0, weights=weights)
    return dict(zip(validation.names, merged.tolist(), strict=True))

"""How a descent went, from its history alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

BLOCKS = 20
"""Parts into which a descent is cut to see its course: each averages a twentieth of the steps."""


def course(steps: pd.DataFrame, epochs: pd.DataFrame) -> dict[str, Any]:
    """Return how a descent went, from its history: see `steepest.Result`.

    Returns
    -------
    dict
        ``steps``, ``epochs``; ``losses`` and ``errors``, mean loss and its standard error in up to `BLOCKS`
        parts of the steps that were finite; ``first_steps``, the first step of each part; ``rate_first``,
        ``rate_highest``, ``rate_last``; ``validation``: ``first``, ``best``, ``best_epoch``, ``last``, or
        ``None``.

    Examples
    --------
    >>> import pandas as pd
    >>> steps = pd.DataFrame({"loss": [3.0, 2.0], "learning_rate": [0.1, 0.1]})
    >>> course(steps, pd.DataFrame({"loss": [2.5]}))["losses"]
    [3.0, 2.0]
    """
    losses = steps["loss"].to_numpy(np.float64)
    kept = np.flatnonzero(np.isfinite(losses))
    parts = np.array_split(kept, max(1, min(BLOCKS, len(kept))))
    rates = steps["learning_rate"].to_numpy(np.float64)
    return {
        "steps": len(steps),
        "epochs": len(epochs),
        "losses": [float(losses[part].mean()) for part in parts if len(part)],
        "errors": [float(losses[part].std() / math.sqrt(len(part))) for part in parts if len(part)],
        "first_steps": [int(part[0]) + 1 for part in parts if len(part)],
        "rate_first": float(rates[0]),
        "rate_highest": float(rates.max()),
        "rate_last": float(rates[-1]),
        "validation": _validation(epochs),
    }


def _validation(epochs: pd.DataFrame) -> dict[str, Any] | None:
    if "validation_loss" not in epochs or not len(epochs):
        return None
    losses: npt.NDArray[np.float64] = epochs["validation_loss"].to_numpy(np.float64)
    if not np.isfinite(losses).all():
        return None
    best = int(losses.argmin())
    return {
        "first": float(losses[0]),
        "best": float(losses[best]),
        "best_epoch": best + 1,
        "last": float(losses[-1]),
    }

"""What a descent gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steepest.arguments import Objective, Parameters
from steepest.descent.failure import Failure
from steepest.descent.history import Steps
from steepest.descent.loop import Outcome
from steepest.descent.optimizers import Optimizer
from steepest.descent.standing import Setback, Standing
from steepest.snapshots import Path

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from steepest.diagnosis.examination import Descended


class Asked(NamedTuple):
    """What was to be minimised.

    Attributes
    ----------
    objective, start, rule
        See `steepest.minimize`; the objective takes parameters, a batch and a key.
    unravel
        From the state's parameters to those of the objective.
    l2
        The penalty's strength of each parameter, like ``start``; ``None`` for none.
    whole
        Whether every step sees all there is to see.
    batch_size, rows
        Rows of a step, and of the data; 0 rows without data.
    """

    objective: Objective
    start: Parameters
    rule: Optimizer
    unravel: Callable[[Any], Parameters]
    l2: Any
    whole: bool
    batch_size: int | str
    rows: int

    def losses(self) -> Callable[[Parameters, Any], jax.Array]:
        """Return what gives a batch's losses, penalties on squares included, without dropout."""

        def losses(parameters: Parameters, batch: Any) -> jax.Array:
            found = self.objective(parameters, batch, None)
            if self.l2 is None:
                return found
            squares = jax.tree.map(lambda strength, theta: jnp.sum(strength * theta**2), self.l2, parameters)
            return found + sum(jax.tree.leaves(squares))

        return losses


@dataclass(frozen=True)
class Result:
    """What a descent found and how it went.

    Attributes
    ----------
    parameters
        The parameters at the end: after the last step, or the last good ones if a step was not finite; with
        ``patience`` those of the best epoch, unless a step was not finite.
    why_it_stopped
        One sentence.
    converged
        Whether the loss or the gradient's norm came within the tolerance.
    failure
        The step that was not finite, if one was.
    steps
        Number of steps that were looked at.
    seconds
        Time from call to return, compilation included; of all calls, where a checkpoint was gone on with.
    best_epoch
        With ``patience``, the epoch (from 1) in which the figure was best; 0 if none was finished.
    setbacks
        Steps that were not finite and that the descent went back from, each with ``step``, ``learning_rate``
        and ``back_to``, the step that it went on from. The history is that of the steps that count.
    seconds_alone
        What this process's part of the steps would have taken without waiting for the other processes of a
        group, about; ``None`` without any, and for a descent of less than ten seconds.
    path
        The snapshots of the parameters on the way, if any were asked for.
    """

    parameters: Parameters
    why_it_stopped: str
    converged: bool
    failure: Failure | None
    steps: int
    seconds: float
    best_epoch: int | None
    setbacks: tuple[Setback, ...]
    seconds_alone: float | None
    path: Path | None
    _outcome: Outcome = field(repr=False)
    _asked: Asked = field(repr=False)

    @property
    def standing(self) -> Standing:
        """Where the descent ended, for another one to go on from: see `steepest.minimize`."""
        return self._outcome.standing

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row for each step: step and epoch (from 1), loss, gradient_norm, learning_rate.

        At about each 1024th step there are also ``update_ratio``, the norm of the applied update over that of
        the parameters, ``update_ratio.LAYER`` and ``gradient_norm.LAYER``; NaN at the others.
        """
        import pandas as pd

        written = self._outcome.standing.history
        first = written.let_go
        if self.steps == first:
            return pd.DataFrame({name: [] for name in ("step", *Steps._fields)})
        figures = written.steps(first, self.steps)._asdict()
        steps = pd.DataFrame({"step": np.arange(first + 1, self.steps + 1)} | figures)
        return steps.merge(pd.DataFrame(written.looks), "left", "step") if written.looks else steps

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """A row for each epoch: its rows, mean loss, rate, validation figures and seconds."""
        import pandas as pd

        written = self._outcome.standing.history.epochs
        return pd.DataFrame(written) if written else pd.DataFrame({"epoch": [], "rows": [], "loss": []})

    def plot(self) -> Figure:
        """Draw loss, learning rate, gradient norm and update ratio over the steps; see `steepest.plot`."""
        from steepest.diagnosis.plots import overview

        return overview(self.history, self.epochs)

    def descended(self) -> Descended:
        """Return what an examination needs to know of the descent."""
        from steepest.diagnosis.examination import Descended

        asked, state = self._asked, self._outcome.standing.state
        return Descended(
            objective=asked.losses(),
            start=asked.start,
            end=asked.unravel(state.parameters),
            rule=asked.rule,
            optimizer_state=state.optimizer_state,
            steps=self.history,
            epochs=self.epochs,
            batch_size=None if asked.whole else int(asked.batch_size),
            rows=asked.rows,
            failure=self.failure.to_json() if self.failure else None,
        )

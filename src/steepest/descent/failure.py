"""The post-mortem of a step that was not finite: it is repeated from the last good state and taken apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from steepest.descent.state import State
from steepest.descent.step import Batches, Constants, Program, at_rows, move, shares_of
from steepest.descent.watching import ALL, layers_of

MOST_ROWS = 2**12
"""Rows of a batch whose gradients are looked at one by one."""

WORST = 10
"""Rows that are named."""


class Cause(NamedTuple):
    """What in a step was not finite, and where.

    Attributes
    ----------
    what
        The first of ``"loss"``, ``"gradient"`` and ``"parameters"`` (those that the step leads to) that was
        not finite.
    layer
        The first layer whose gradient, or whose next parameters, are not finite; where that says nothing,
        because all or none are, the one with the largest parameter.
    largest
        The largest absolute parameter of that layer before the step.
    rows
        Numbers of at most ten rows of the batch: those that are not finite by themselves, else those with the
        greatest losses. Empty where the loss is one number for all.
    losses
        The losses of these rows.
    """

    what: str
    layer: str
    largest: float
    rows: npt.NDArray[np.int64]
    losses: npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Failure:
    """A step that was not finite.

    Attributes
    ----------
    step, epoch
        Where it was, both from 1.
    loss, gradient_norm, learning_rate
        What was seen there.
    rows
        The row numbers of its batch.
    cause
        What in it was not finite.
    places
        Where the rows of the cause came from, for a person, if it is known.
    """

    step: int
    epoch: int
    loss: float
    gradient_norm: float
    learning_rate: float
    rows: npt.NDArray[np.int64]
    cause: Cause
    places: tuple[str, ...] = ()

    def describe(self, by_epoch: bool) -> str:
        """Say what happened, in a sentence; with the epoch, where it says more than the step."""
        where = f"step {self.step:,}" + (f" (epoch {self.epoch:,})" if by_epoch else "")
        what = "gradient, or what the step made of the parameters, was not finite"
        if not math.isfinite(self.loss):
            what = f"loss was {self.loss}"
        rate = f"at a learning rate of {self.learning_rate:g}"
        return f"not finite: at {where} the {what} {rate}; the parameters before that step are kept"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types; numbers that are not finite as text."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "loss": _number(self.loss),
            "learning_rate": self.learning_rate,
            "what": self.cause.what,
            "layer": self.cause.layer,
            "largest_parameter": self.cause.largest,
            "rows": self.cause.rows.tolist(),
            "places": list(self.places),
            "losses": [_number(loss) for loss in self.cause.losses],
        }


def _number(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(value)


def cause_of(
    program: Program, constants: Constants, state: State, batch: Batches, rows: npt.NDArray[np.int64]
) -> Cause:
    """Take apart the step that was not finite.

    Parameters
    ----------
    program, constants, state
        The descent, and its state before the step.
    batch
        The step's batch: ``weights [batch_size]`` and one rate.
    rows
        The numbers of its rows, -1 for padding.
    """
    batch = batch._replace(weights=shares_of(jnp.asarray(batch.weights)))
    state = at_rows(program, constants, state, batch)
    losses, after, gradient, finite = jax.tree.map(np.asarray, _take_apart(program, constants, state, batch))
    real = (rows >= 0) & (np.asarray(batch.weights) > 0)
    worst = np.flatnonzero(real[: losses.size] & ~np.isfinite(losses.ravel())) if losses.ndim else rows[:0]
    what = next(name for name in ("loss", "gradient", "parameters") if not finite.get(name, False))
    if losses.ndim and not len(worst):
        if what == "gradient" and len(losses) <= MOST_ROWS:
            worst = np.flatnonzero(real & ~np.asarray(_rows_are_finite(program, constants, state, batch)))
        if not len(worst):
            worst = np.flatnonzero(real)[np.argsort(-losses[real], kind="stable")]
    worst = worst[:WORST]
    layer = _layer(program, state, after if what == "parameters" else gradient)
    largest = max(_largest(leaf) for leaf in layers_of(program.unravel(state.parameters))[layer])
    return Cause(what, layer, largest, rows[worst], losses[worst] if losses.ndim else losses[None][:0])


@partial(jax.jit, static_argnames="program")
def _take_apart(program: Program, constants: Constants, state: State, batch: Batches) -> Any:
    """Return the rows' losses, the parameters after the step, the gradient, and which of them are finite."""
    key = jax.random.fold_in(constants.key, state.step)
    losses = program.objective(program.unravel(state.parameters), batch.data, key)
    moved = move(program, constants, state, batch)
    finite = {
        "loss": jnp.isfinite(moved.record.loss),
        "gradient": _all_finite(moved.gradient) & jnp.isfinite(_largest_square(moved.gradient)),
    }
    return losses, program.unravel(moved.parameters), program.unravel(moved.gradient), finite


@partial(jax.jit, static_argnames="program")
def _rows_are_finite(program: Program, constants: Constants, state: State, batch: Batches) -> jax.Array:
    """Tell for each row whether its own gradient is finite."""
    key = jax.random.fold_in(constants.key, state.step)

    def one(row: Any) -> jax.Array:
        def loss(parameters: Any) -> jax.Array:
            return program.objective(program.unravel(parameters), jax.tree.map(lambda x: x[None], row), key)[
                0
            ]

        return _all_finite(jax.grad(loss)(state.parameters))

    finite: jax.Array = jax.lax.map(one, batch.data)
    return finite


def _all_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _largest_square(tree: Any) -> jax.Array:
    """Return the sum of squares, which may overflow where no element does."""
    return jnp.stack([jnp.sum(jnp.square(jnp.abs(leaf))) for leaf in jax.tree.leaves(tree)]).sum()


def _layer(program: Program, state: State, tree: Any) -> str:
    """Return the layer to blame: see `Cause.layer`."""
    layers = layers_of(tree)
    wrong = [name for name, leaves in layers.items() if not all(np.isfinite(leaf).all() for leaf in leaves)]
    if 0 < len(wrong) < len(layers):
        return wrong[0]
    before = layers_of(program.unravel(state.parameters))
    return max(before, key=lambda name: max(map(_largest, before[name])), default=ALL)


def _largest(leaf: Any) -> float:
    return float(np.max(np.abs(np.asarray(leaf)), initial=0.0))

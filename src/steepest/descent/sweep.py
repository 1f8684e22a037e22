"""A sweep: descents from one start that differ in their learning rates, as one vectorised program.

The steps are those of `steepest.descent.step`, with `jax.vmap` over the variants; batches are shared. What a
variant does after a step that was not finite is worth nothing and disturbs no other one.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from steepest.descent.state import State
from steepest.descent.step import Batches, Constants, Program, shares_of, take_step, take_sure_step

Floats = npt.NDArray[np.floating[Any]]


class Swept(NamedTuple):
    """What a sweep of K variants came to.

    Attributes
    ----------
    state
        Where each variant stands, with an axis of K before all others (but for the steps taken where every
        step counts: these are one number).
    losses
        The loss of each step ``[K, steps]``, NaN from the step on that was not finite.
    failed_at
        The step (from 1) whose loss was not finite ``[K]``; 0 where none was.
    """

    state: State
    losses: Floats
    failed_at: npt.NDArray[np.int64]


def sweep(
    program: Program,
    constants: Constants,
    start: State,
    windows: Iterable[Batches],
    variants: int,
    sure: bool,
) -> Swept:
    """Run K descents over the same windows.

    Parameters
    ----------
    program, constants
        What is compiled, and what stays the same over its steps.
    start
        Where all variants start.
    windows
        Batches, whose ``rates`` are ``[steps, K]``. A window may be filled anew once the next was asked for.
    variants
        K.
    sure
        Whether every step counts; see `steepest.descent.pace.Pace`.

    Returns
    -------
    Swept

    Examples
    --------
    Three rates on ``θ²``, of which one is above the limit of 1 and leaves the range of numbers:

    >>> import optax
    >>> from steepest.descent.optimizers import SGD
    >>> from steepest.descent.state import start
    >>> rule, first = SGD().transformation, jnp.array([1.0])
    >>> program = Program(lambda p, batch, key: p[0] ** 2, rule, None, lambda p: p)
    >>> steps = Batches((), np.ones((99, 1), np.float32), np.tile(np.array([0.1, 0.4, 9.0]), (99, 1)))
    >>> swept = sweep(program, Constants(jax.random.key(0), None), start(first, rule.init(first)),
    ...               [steps], 3, sure=True)
    >>> swept.losses[:, 1].astype(float).round(3).tolist(), swept.failed_at.tolist()
    ([0.64, 0.04, 289.0], [0, 0, 17])
    """
    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (variants, *leaf.shape)), start)
    if sure:
        state = state._replace(step=start.step)
    losses = []
    for window in windows:
        state, each = _run(program, sure, constants, state, window)
        losses.append(np.asarray(each).T)
    return judged(state, np.concatenate(losses, axis=1))


@partial(jax.jit, static_argnames=("program", "sure"))
def _run(
    program: Program, sure: bool, constants: Constants, state: State, batches: Batches
) -> tuple[State, jax.Array]:
    """Run all variants over a window; return where they stand and the losses ``[steps, K]``.

    The gradient's norm, which nothing here needs, is not computed: K sums would cost as much as the rest.
    """
    axes: Any = (0, 0, None if sure else 0, 0, 0, 0)
    each = State(*axes)
    step = jax.vmap(
        partial(take_sure_step if sure else take_step, program, constants),
        in_axes=(each, Batches(None, None, 0)),
        out_axes=(each, 0),
    )

    def losses_of(state: State, batch: Batches) -> tuple[State, jax.Array]:
        state, record = step(state, batch)
        return state, record.loss

    return jax.lax.scan(losses_of, state, batches._replace(weights=shares_of(batches.weights)))


def judged(state: State, losses: Floats) -> Swept:
    """Find each variant's first loss that was not finite, and cut its losses off there."""
    wrong = ~np.isfinite(losses)
    failed = np.where(wrong.any(axis=1), wrong.argmax(axis=1) + 1, 0)
    after = (np.arange(1, losses.shape[1] + 1) >= failed[:, None]) & (failed > 0)[:, None]
    return Swept(state, np.where(after, np.nan, losses), failed)

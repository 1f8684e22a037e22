"""What the compiled steps carry from one to the next, as one pytree."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

RUNNING, LOSS_CONVERGED, GRADIENT_CONVERGED, NOT_FINITE = range(4)
"""What `State.status` says."""


class State(NamedTuple):
    """The compiled epoch's carry.

    Attributes
    ----------
    parameters
        The parameters; one flat vector where the update rule works element by element.
    optimizer_state
        The rule's own state.
    step
        Steps taken so far; steps that were all padding are not counted.
    loss
        The last step's loss, infinite before the first.
    still
        Steps in a row in which the loss has not changed by more than the tolerance.
    status
        `RUNNING`, `LOSS_CONVERGED`, `GRADIENT_CONVERGED` or `NOT_FINITE`. Once it is not `RUNNING`, the
        remaining steps of the compiled epoch change nothing.
    """

    parameters: Any
    optimizer_state: Any
    step: jax.Array
    loss: jax.Array
    still: jax.Array
    status: jax.Array


def start(parameters: Any, optimizer_state: Any) -> State:
    """Return the state before the first step."""
    return State(
        parameters,
        optimizer_state,
        step=jnp.zeros((), jnp.int32),
        loss=jnp.full((), jnp.inf, jnp.result_type(*jax.tree.leaves(parameters))),
        still=jnp.zeros((), jnp.int32),
        status=jnp.full((), RUNNING, jnp.int32),
    )

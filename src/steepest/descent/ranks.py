"""What the devices of several processes, each with a part of the rows, do together in a compiled step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

RANKS = "ranks"
"""The axis of a mesh along which the rows of each batch are divided among processes."""


def over_ranks(mesh: Mesh | None, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, whose last argument is `steepest.descent.step.Batches`, on all devices.

    Each device has its part of the batches' rows, and all of the other arguments. What the function returns
    must be the same on each.
    """
    if mesh is None:
        return function(*arguments)
    rows, same = PartitionSpec(None, RANKS), PartitionSpec()
    specs = (*(same for _ in arguments[:-1]), arguments[-1]._replace(data=rows, weights=rows, rates=same))
    spread = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=same, check_vma=False)
    return spread(*arguments)


def over_all(mesh: Mesh | None, value: Any) -> Any:
    """Return the sum of a value over all devices."""
    return value if mesh is None else jax.lax.psum(value, RANKS)


def added_up(function: Callable[[Any], jax.Array]) -> Callable[[Any], jax.Array]:
    """Return the sum over all devices of a function of the parameters.

    Its value and its gradient come from one reduction of one flat vector: three cost three times as much.
    """

    @jax.custom_vjp
    def total(parameters: Any) -> Any:
        return jax.lax.psum(function(parameters), RANKS)

    def forward(parameters: Any) -> Any:
        flat, unravel = ravel_pytree(jax.value_and_grad(function)(parameters))
        return unravel(jax.lax.psum(flat, RANKS))

    def backward(gradient: Any, cotangent: Any) -> Any:
        return (jax.tree.map(lambda each: cotangent.astype(each.dtype) * each, gradient),)

    total.defvjp(forward, backward)
    return total


def alone(tree: Any) -> Any:
    """Return arrays that are the same on all devices as arrays of this process alone."""

    def one(each: Any) -> Any:
        if not isinstance(each, jax.Array):
            return each
        own = each.addressable_data(0)
        if jnp.issubdtype(own.dtype, jax.dtypes.prng_key):
            return own
        return jax.device_put(np.asarray(own))  # bound to no device, so that nothing is compiled for it anew

    return jax.tree.map(one, tree)


def averaged(tree: Any) -> Any:
    """Return the mean of where the devices stand; counts and the status are the greatest."""

    def one(leaf: jax.Array) -> jax.Array:
        number = jnp.issubdtype(leaf.dtype, jnp.floating)
        joined: jax.Array = jax.lax.pmean(leaf, RANKS) if number else jax.lax.pmax(leaf, RANKS)
        return joined

    return jax.tree.map(one, tree)

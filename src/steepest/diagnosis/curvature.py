"""The largest curvature of a loss, and the largest that an update rule can follow at a learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from steepest.descent.optimizers import Optimizer
from steepest.errors import SteepestError


class Curvature(NamedTuple):
    """The largest curvature of a loss at a point.

    Attributes
    ----------
    value
        The largest Ritz value: an estimate of the largest eigenvalue, from below up to rounding.
    residual
        There is an eigenvalue within this distance of ``value``; NaN, as ``value``, where the Hessian is
        not finite.
    products
        Products of the Hessian with a vector that were made.
    """

    value: float
    residual: float
    products: int


def largest_curvature(
    loss: Callable[..., jax.Array],
    parameters: Any,
    batch: Any = None,
    scale: Any = None,
    *,
    key: jax.Array,
    products: int = 20,
) -> Curvature:
    """Return the largest (most positive) eigenvalue of ``P^½ H P^½``, by Lanczos' method.

    H is the loss's Hessian, of which only products with vectors are computed, ``∂/∂ε ∇loss(θ + ε v)``; P is
    ``diag(scale)``, what the update rule multiplies the gradient by. Each new vector is made orthogonal to
    all before it, so that rounding brings no eigenvalue back. Source: G. H. Golub and C. F. Van Loan,
    *Matrix Computations*, 4th edition, section 10.1.

    Parameters
    ----------
    loss
        ``loss(parameters)``, or ``loss(parameters, batch)`` where a batch is given: a single number. The same
        function compiles once.
    parameters
        Any pytree of floating-point arrays.
    batch
        What the loss is measured on.
    scale
        A pytree like the parameters, or one number for all; none of it negative. ``None`` is 1.
    key
        Draws the first vector.
    products
        Products with the Hessian, at most as many as there are parameters.

    Raises
    ------
    SteepestError
        If there are no parameters, or no product is asked for.

    Examples
    --------
    The curvatures of ``a² + 5 b²`` are 2 and 10; where b's gradient is halved, 2 and 5:

    >>> loss = lambda p: p["a"] ** 2 + 5 * p["b"] ** 2
    >>> point, key = {"a": jnp.array(1.0), "b": jnp.array(1.0)}, jax.random.key(0)
    >>> round(largest_curvature(loss, point, key=key).value, 3)
    10.0
    >>> scale = {"a": jnp.array(1.0), "b": jnp.array(0.5)}
    >>> round(largest_curvature(loss, point, scale=scale, key=key).value, 3)
    5.0
    """
    size = sum(jnp.size(leaf) for leaf in jax.tree.leaves(parameters))
    count = min(products, size)
    if count < 1:
        raise SteepestError(f"Curvature takes a parameter and a product at least, not {size} and {products}.")
    diagonal, beside = (
        np.asarray(each, np.float64) for each in _tridiagonal(loss, count, parameters, batch, scale, key)
    )
    if not np.isfinite(diagonal).all():
        return Curvature(math.nan, math.nan, count)
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
    return Curvature(float(values[-1]), float(abs(beside[-1] * vectors[-1, -1])), count)


def stability(rule: Optimizer) -> float | None:
    """Return the ``c`` of ``rate · curvature ≤ c``, within which the rule's steps on a quadratic shrink.

    ==================  ======================  ==========================================
    rule                c                       of the curvature
    ==================  ======================  ==========================================
    sgd                 2                       of the loss
    momentum            2 + 2β                  of the loss
    nesterov            (2 + 2β) / (1 + 2β)     of the loss
    adagrad, rmsprop    2                       preconditioned by the rule's own state
    adam, adamw         (2 + 2β₁) / (1 - β₁)    preconditioned by the rule's own state
    ==================  ======================  ==========================================

    Sources: J. Cohen et al., *Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability*,
    2021, and *Adaptive Gradient Methods at the Edge of Stability*, 2022.

    Returns
    -------
    float or None
        ``None`` where the rule is none of these.

    Examples
    --------
    >>> from steepest.descent.optimizers import SGD, Adam
    >>> stability(SGD(0.1)), round(stability(Adam()), 6)
    (2.0, 38.0)
    """
    beta = float(rule.settings.get("momentum", rule.settings.get("beta_1", 0.0)))
    limits = {
        "sgd": 2.0,
        "momentum": 2 + 2 * beta,
        "nesterov": (2 + 2 * beta) / (1 + 2 * beta),
        "adagrad": 2.0,
        "rmsprop": 2.0,
        "adam": (2 + 2 * beta) / (1 - beta),
        "adamw": (2 + 2 * beta) / (1 - beta),
    }
    return limits.get(rule.name)


@partial(jax.jit, static_argnums=(0, 1))
def _tridiagonal(
    loss: Callable[..., jax.Array], count: int, parameters: Any, batch: Any, scale: Any, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return what `_lanczos` does, of the Hessian of a loss with its parameters scaled."""
    point, unravel = ravel_pytree(parameters)
    # One number for all becomes a vector of one, which every vector can be multiplied by.
    root = jnp.sqrt(ravel_pytree(1.0 if scale is None else scale)[0]).astype(point.dtype)

    def value(theta: jax.Array) -> jax.Array:
        tree = unravel(theta)
        return loss(tree) if batch is None else loss(tree, batch)

    def product(vector: jax.Array) -> jax.Array:
        result: jax.Array = root * jax.jvp(jax.grad(value), (point,), (root * vector,))[1]
        return result

    return _lanczos(product, point, count, key)


def _lanczos(
    product: Callable[[jax.Array], jax.Array], like: jax.Array, count: int, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the diagonal ``[count]`` of Lanczos' matrix and what is beside it, the last outside of it."""
    limits = np.finfo(like.dtype)
    negligible = 10 * float(limits.eps)

    def orthogonal(vector: jax.Array, basis: jax.Array) -> jax.Array:
        for _ in range(2):  # twice is enough (Parlett): the second removes what rounding left of the first
            vector = vector - basis.T @ (basis @ vector)
        return vector

    def step(carry: tuple[jax.Array, jax.Array, jax.Array], index: jax.Array) -> Any:
        basis, vector, largest = carry
        basis = basis.at[index].set(vector)
        image = product(vector)
        along = vector @ image
        largest = jnp.maximum(largest, jnp.linalg.norm(image))
        rest = orthogonal(image, basis)
        length = jnp.linalg.norm(rest)
        # The space is invariant: go on in a new direction, so that no eigenvalue outside of it is missed.
        ended = length <= negligible * largest
        drawn = orthogonal(
            jax.random.uniform(jax.random.fold_in(key, index + 1), like.shape, like.dtype, -1, 1), basis
        )
        following = jnp.where(ended, drawn, rest)
        following = following / jnp.maximum(jnp.linalg.norm(following), float(limits.tiny))
        return (basis, following, largest), (along, jnp.where(ended, 0.0, length))

    first = jax.random.uniform(key, like.shape, like.dtype, -1, 1)
    start = (
        jnp.zeros((count, like.size), like.dtype),
        first / jnp.linalg.norm(first),
        jnp.zeros((), like.dtype),
    )
    _, (diagonal, beside) = jax.lax.scan(step, start, jnp.arange(count))
    return diagonal, beside

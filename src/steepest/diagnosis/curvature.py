"""The largest curvature of a loss, and the largest that an update rule can follow at a learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.flatten_util import ravel_pytree

from steepest.descent.optimizers import Optimizer
from steepest.errors import SteepestError

Vector = npt.NDArray[np.floating[Any]]


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
    on_device = jax.device_put((parameters, batch, scale))
    draws = np.random.Generator(np.random.Philox(np.random.SeedSequence(_entropy(key))))

    def product(vector: Vector) -> Vector:
        return np.asarray(_product(loss, *on_device, vector))

    dtype = jnp.result_type(*jax.tree.leaves(parameters))
    diagonal, beside = _lanczos(product, size, dtype, count, draws)
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


def _entropy(key: jax.Array) -> list[int]:
    """Return the whole numbers that a key stands for."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    numbers: list[int] = np.asarray(jax.random.key_data(key) if typed else key).ravel().tolist()
    return numbers


@partial(jax.jit, static_argnums=0)
def _product(
    loss: Callable[..., jax.Array], parameters: Any, batch: Any, scale: Any, vector: jax.Array
) -> jax.Array:
    """Return the product of ``P^½ H P^½`` with a vector, of parameters in one vector."""
    point, unravel = ravel_pytree(parameters)
    # One number for all becomes a vector of one, which every vector can be multiplied by.
    root = jnp.sqrt(ravel_pytree(1.0 if scale is None else scale)[0]).astype(point.dtype)

    def value(theta: jax.Array) -> jax.Array:
        tree = unravel(theta)
        return loss(tree) if batch is None else loss(tree, batch)

    gradient, changed = jax.jvp(jax.grad(value), (point,), (root * vector,))
    return jnp.where(jnp.isfinite(gradient).all(), root * changed, jnp.nan)


def _lanczos(
    product: Callable[[Vector], Vector], size: int, dtype: Any, count: int, draws: np.random.Generator
) -> tuple[Vector, Vector]:
    """Return the diagonal ``[count]`` of Lanczos' matrix and what is beside it, the last outside of it."""
    limits = np.finfo(dtype)
    basis = np.zeros((count, size), dtype)
    diagonal, beside, largest = np.zeros(count), np.zeros(count), 0.0

    def orthogonal(vector: Vector) -> Vector:
        for _ in range(2):  # twice is enough (Parlett): the second removes what rounding left of the first
            vector = vector - basis.T @ (basis @ vector)
        return vector

    def drawn() -> Vector:
        return draws.uniform(-1, 1, size).astype(dtype)

    following = drawn()
    for index in range(count):
        basis[index] = following / max(float(np.linalg.norm(following)), float(limits.tiny))
        image = product(basis[index])
        with np.errstate(over="ignore"):  # its square may overflow where it is finite
            diagonal[index], length = basis[index] @ image, float(np.linalg.norm(image))
        if not np.isfinite([diagonal[index], length]).all():
            diagonal[index] = np.nan
            break
        largest = max(largest, length)
        following = orthogonal(image)
        beside[index] = np.linalg.norm(following)
        if beside[index] <= 10 * float(limits.eps) * largest:
            # The space is invariant: go on in a new direction, so that no eigenvalue outside of it is missed.
            beside[index], following = 0.0, orthogonal(drawn())
    return diagonal, beside

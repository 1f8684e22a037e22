"""What is minimised: one loss per row, and the link from a model's outputs to its predictions.

A loss compares outputs ``[rows]`` (``[rows, classes]`` for categorical cross-entropy) with targets
``[rows]`` and gives one number per row. Averaging, and with it row and class weights, is left to the
descent: it minimises ``Σ wᵢ lossᵢ / Σ wᵢ`` over each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import jax
import jax.numpy as jnp
import optax

from steepest.errors import SteepestError, nearest


@dataclass(frozen=True)
class Loss:
    """A loss by name.

    Parameters
    ----------
    name
        The name that settings and reports use.
    per_row
        ``(outputs, targets) -> losses [rows]``.
    predict
        The link, ``outputs -> predictions``: probabilities, a mean, or a quantile.
    settings
        The loss's own numbers, such as Huber's ``delta``.
    """

    name: str
    per_row: Callable[[jax.Array, jax.Array], jax.Array]
    predict: Callable[[jax.Array], jax.Array]
    settings: Mapping[str, float] = field(default_factory=dict, hash=False)


def _identity(outputs: jax.Array) -> jax.Array:
    return outputs


def _absolute_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.abs(outputs - targets)


def _poisson(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.exp(outputs) - targets * outputs


def _hinge(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.maximum(0.0, 1.0 - (2.0 * targets - 1.0) * outputs)


def _class_cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    loss: jax.Array = optax.softmax_cross_entropy_with_integer_labels(outputs, targets.astype(jnp.int32))
    return loss


def mean_squared_error() -> Loss:
    """Squared error, ``(output - target)²``; predicts the mean.

    Examples
    --------
    >>> mean_squared_error().per_row(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])).tolist()
    [0.0, 4.0]
    """
    return Loss("mean_squared_error", optax.squared_error, _identity)


def mean_absolute_error() -> Loss:
    """Absolute error, ``|output - target|``; predicts the median.

    Examples
    --------
    >>> mean_absolute_error().per_row(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])).tolist()
    [0.0, 2.0]
    """
    return Loss("mean_absolute_error", _absolute_error, _identity)


@lru_cache
def huber(delta: float = 1.0) -> Loss:
    """Huber's loss: ``e²/2`` where ``|e| ≤ delta``, ``delta·|e| - delta²/2`` beyond.

    Source: P. J. Huber, *Robust Estimation of a Location Parameter*, 1964.

    Examples
    --------
    >>> huber(1.0).per_row(jnp.array([0.5, 3.0]), jnp.array([0.0, 0.0])).tolist()
    [0.125, 2.5]
    """
    if delta <= 0:
        raise SteepestError(f"Huber's delta must be above zero, not {delta}.")

    def per_row(outputs: jax.Array, targets: jax.Array) -> jax.Array:
        loss: jax.Array = optax.huber_loss(outputs, targets, delta=delta)
        return loss

    return Loss("huber", per_row, _identity, {"delta": delta})


@lru_cache
def quantile(probability: float = 0.5) -> Loss:
    """Pinball loss, ``max(q·e, (q - 1)·e)`` with ``e = target - output``; predicts the quantile ``q``.

    Source: R. Koenker and G. Bassett, *Regression Quantiles*, 1978.

    Examples
    --------
    >>> quantile(0.75).per_row(jnp.array([0.0, 0.0]), jnp.array([1.0, -1.0])).tolist()
    [0.75, 0.25]
    """
    if not 0 < probability < 1:
        raise SteepestError(f"A quantile lies between 0 and 1; {probability} does not.")

    def per_row(outputs: jax.Array, targets: jax.Array) -> jax.Array:
        error = targets - outputs
        return jnp.maximum(probability * error, (probability - 1.0) * error)

    return Loss("quantile", per_row, _identity, {"probability": probability})


def poisson() -> Loss:
    """Poisson loss for counts, ``exp(output) - target·output``: the output is the logarithm of the mean.

    Examples
    --------
    >>> poisson().per_row(jnp.array([0.0]), jnp.array([3.0])).tolist()
    [1.0]
    """
    return Loss("poisson", _poisson, jnp.exp)


def binary_cross_entropy() -> Loss:
    """Cross-entropy of two classes from logits, ``log(1 + exp(z)) - y·z``; stable at any ``z``.

    Examples
    --------
    >>> binary_cross_entropy().per_row(jnp.array([0.0, 1e4, -1e4]), jnp.array([1.0, 1.0, 1.0])).tolist()
    [0.693147..., 0.0, 10000.0]
    """
    return Loss("binary_cross_entropy", optax.sigmoid_binary_cross_entropy, jax.nn.sigmoid)


def categorical_cross_entropy() -> Loss:
    """Cross-entropy of several classes, ``logsumexp(z) - z[target]``, from logits ``[rows, classes]``.

    Examples
    --------
    >>> loss = categorical_cross_entropy()
    >>> loss.per_row(jnp.array([[1e4, 0.0], [0.0, 0.0]]), jnp.array([0, 1])).tolist()
    [0.0, 0.693147...]
    """
    return Loss("categorical_cross_entropy", _class_cross_entropy, jax.nn.softmax)


def hinge() -> Loss:
    """Hinge loss of two classes 0 and 1, ``max(0, 1 - (2y - 1)·z)``; the link only orders the rows.

    Examples
    --------
    >>> hinge().per_row(jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0])).tolist()
    [0.5, 1.5]
    """
    return Loss("hinge", _hinge, jax.nn.sigmoid)


LOSSES: dict[str, Callable[[], Loss]] = {
    make.__name__: make
    for make in (
        mean_squared_error,
        mean_absolute_error,
        huber,
        quantile,
        poisson,
        binary_cross_entropy,
        categorical_cross_entropy,
        hinge,
    )
}


def loss_by_name(name: str) -> Loss:
    """Return the loss of that name, with its defaults.

    Raises
    ------
    SteepestError
        If there is none; the message names the nearest.
    """
    if name not in LOSSES:
        raise SteepestError(f"There is no loss {name!r}.", hint=nearest(name, LOSSES))
    return LOSSES[name]()

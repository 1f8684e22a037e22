"""What is measured at one point of a descent, on a fixed sample of rows: plain numbers, ready for JSON.

An objective here is ``objective(parameters, batch) -> losses [rows]``, differentiable in the parameters; a
batch is any pytree of arrays with the rows as their first axis. So it serves every model that has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.flatten_util import ravel_pytree

from steepest.descent.models import ACTIVATIONS
from steepest.descent.optimizers import Optimizer
from steepest.diagnosis.curvature import Curvature, stability

GROUPS = 64
"""Groups into which a sample is cut, to see how their gradients differ."""

ADAPTIVE = ("adagrad", "rmsprop", "adam", "adamw")
"""Rules whose limit is on the Hessian preconditioned by their own state."""

STEPS_AHEAD = 30
"""Steps by which `ahead` looks beyond the end."""

SATURATED = 0.99
"""A tanh unit of a greater absolute value passes less than 2% of a gradient."""

Objective = Callable[[Any, Any], jax.Array]
Floats = npt.NDArray[np.floating[Any]]


class Slope(NamedTuple):
    """A sample's loss and gradient, and how the gradients of its groups spread.

    Attributes
    ----------
    loss
        Mean over the rows.
    gradient
        One flat vector.
    rows, group_rows
        Rows of the sample that were seen, and of a group.
    squared_norm, scaled_squared_norm
        Means over the groups of ``|g|²`` and of ``Σ pᵢ gᵢ²``, p being the update rule's scale.
    """

    loss: float
    gradient: Floats
    rows: int
    group_rows: int
    squared_norm: float
    scaled_squared_norm: float


@partial(jax.jit, static_argnums=0)
def _means(objective: Objective, parameters: Any, groups: Any, scale: jax.Array) -> tuple[jax.Array, ...]:
    point, unravel = ravel_pytree(parameters)
    count = jax.tree.leaves(groups)[0].shape[0]

    def mean_loss(theta: jax.Array, batch: Any) -> jax.Array:
        return jnp.mean(objective(unravel(theta), batch)).astype(theta.dtype)

    def add(means: Any, batch: Any) -> Any:
        loss, gradient = jax.value_and_grad(mean_loss)(point, batch)
        parts = (loss, gradient, gradient @ gradient, gradient @ (scale * gradient))
        return tuple(mean + part / count for mean, part in zip(means, parts, strict=True)), None

    zero = jnp.zeros((), point.dtype)
    means: tuple[jax.Array, ...] = jax.lax.scan(add, (zero, jnp.zeros_like(point), zero, zero), groups)[0]
    return means


def slope(objective: Objective, parameters: Any, batch: Any, scale: Any = None) -> Slope:
    """Return a sample's loss, its gradient and the gradients' spread over groups of its rows.

    Rows that fill no whole group are left out. ``scale`` is what the rule multiplies the gradient by, as one
    flat vector, a pytree like the parameters or one number; ``None`` is 1.

    Examples
    --------
    >>> found = slope(lambda p, x: (p - x) ** 2, jnp.array(0.0), jnp.array([1.0, 3.0]))
    >>> found.loss, found.gradient.tolist(), found.squared_norm
    (5.0, [-4.0], 20.0)
    """
    rows = len(jax.tree.leaves(batch)[0])
    count = min(GROUPS, rows)
    size = rows // count
    groups = jax.tree.map(lambda part: part[: count * size].reshape(count, size, *part.shape[1:]), batch)
    loss, gradient, squared, scaled = _means(objective, parameters, groups, _flat(scale))
    return Slope(
        float(loss), np.asarray(gradient, np.float64), count * size, size, float(squared), float(scaled)
    )


def gradient_noise(found: Slope, scale: Any = None) -> dict[str, float | None]:
    """Return the gradient's norm, its noise, and the noise scale in rows.

    From the gradient g of all n rows and those of groups of b rows come the unbiased estimates
    ``tr Σ = (mean |g_b|² - |g|²) / (1/b - 1/n)`` for the covariance of one row's gradient, and
    ``|G|² = |g|² - tr Σ / n``. The noise scale is ``tr Σ / |G|²``: the batch whose noise is as large as the
    gradient. Source: S. McCandlish et al., *An Empirical Model of Large-Batch Training*, 2018, appendix A.

    Returns
    -------
    dict
        ``gradient_norm``; ``noise``, ``tr Σ``; ``scaled_noise``, ``tr PΣ`` with the rule's scale P;
        ``noise_scale``, ``None`` where the gradient can't be told from noise.

    Examples
    --------
    >>> found = slope(lambda p, x: (p - x) ** 2, jnp.array(0.0), jnp.array([1.0, 3.0]))
    >>> gradient_noise(found)
    {'gradient_norm': 4.0, 'noise': 8.0, 'scaled_noise': 8.0, 'noise_scale': 0.66...}
    """
    squared = float(found.gradient @ found.gradient)
    norm = {"gradient_norm": number(math.sqrt(squared))}
    if found.rows == found.group_rows:
        return norm | dict.fromkeys(("noise", "scaled_noise", "noise_scale"))
    apart = 1 / found.group_rows - 1 / found.rows
    scaled_squared = float(found.gradient @ (np.asarray(_flat(scale), np.float64) * found.gradient))
    noise = max(0.0, found.squared_norm - squared) / apart
    scaled = max(0.0, found.scaled_squared_norm - scaled_squared) / apart
    true = squared - noise / found.rows
    known = true > 2 * noise / found.rows  # else the estimate is no more than its own error
    return norm | {
        "noise": number(noise),
        "scaled_noise": number(scaled),
        "noise_scale": number(noise / true) if known else None,
    }


def scale_of(rule: Optimizer, state: Any, steps: int) -> Any:
    """Return what the rule multiplies a gradient by in its state after some steps; ``None`` is 1.

    Momentum's velocity is no such scale: its limit counts it already (`stability`). Nor has a rule that has
    taken no step one.
    """
    if rule.name not in ADAPTIVE or rule.preconditioner is None or not steps:
        return None
    return rule.preconditioner(state, jnp.asarray(steps))


def against_limit(curvature: Curvature, rule: Optimizer, rate: float) -> dict[str, float | None]:
    """Return the curvature, the limit on it, and the rate that it allows.

    Returns
    -------
    dict
        ``curvature``; ``curvature_residual``; ``limit``, the largest curvature that is stable at the rate;
        ``limit_rate``, the largest rate that is stable at the curvature; ``None`` where there is none.

    Examples
    --------
    >>> from steepest.descent.optimizers import SGD
    >>> against_limit(Curvature(10.0, 0.0, 20), SGD(0.1), rate=0.1)
    {'curvature': 10.0, 'curvature_residual': 0.0, 'limit': 20.0, 'limit_rate': 0.2}
    """
    constant = stability(rule)
    return {
        "curvature": number(curvature.value),
        "curvature_residual": number(curvature.residual),
        "limit": number(constant / rate) if constant and rate > 0 else None,
        "limit_rate": number(constant / curvature.value) if constant and curvature.value > 0 else None,
    }


def ahead(
    objective: Objective, parameters: Any, batch: Any, held_out: Any, scale: Any, curvature: float
) -> float | None:
    """Return the loss of held-out rows after `STEPS_AHEAD` steps more of descent on the sample.

    Each step is ``1 / curvature`` long, the best constant one on a quadratic of which no more is known, along
    the sample's gradient in the rule's own scale. What the loss falls by is what a faster descent would have
    reached; that it is measured on other rows keeps fitting the sample from counting.
    """
    if not curvature > 0 or not math.isfinite(curvature):
        return None
    point, unravel = ravel_pytree(parameters)
    flat = _flat(scale)
    for _ in range(STEPS_AHEAD):
        gradient = slope(objective, unravel(point), batch, flat).gradient
        point = point - (np.asarray(flat, np.float64) * gradient / curvature).astype(point.dtype)
    return number(slope(objective, unravel(point), held_out, flat).loss)


def layers(
    parameters: Mapping[str, Mapping[str, Any]], gradient: Floats, features: Floats, activation: str
) -> list[dict[str, Any]]:
    """Return what is seen of each layer of `steepest.descent.models.multilayer`.

    Parameters
    ----------
    parameters
        The model's.
    gradient
        The loss's, flat, as `slope` gives it.
    features
        ``[rows, features]``.
    activation
        Of the hidden layers.

    Returns
    -------
    list of dict
        In their order ``layer``, ``units``, ``weights_norm``, ``gradient_norm``; hidden ones also have

        - ``backward``: what reaches the layer of a change of the outputs, the root mean square over rows of
          ``|∂(Σ outputs)/∂(values before the nonlinearity)|``. A gradient of weights does not
          tell: what it lacks in this factor it may have in the other, the inputs;
        - ``dead``, the share of units that are zero for every row (ReLU), and ``saturated``, that of tanh
          units whose absolute value is above `SATURATED` for every row; ``None`` for other activations.
    """
    gradients = ravel_pytree(parameters)[1](jnp.asarray(gradient, jnp.result_type(float)))
    names = sorted(parameters, key=lambda name: int(name.rpartition("_")[2]))
    weights = {name: np.asarray(parameters[name]["weights"], np.float32) for name in names}
    found: list[dict[str, Any]] = [
        {
            "layer": name,
            "units": weights[name].shape[1],
            "weights_norm": number(np.linalg.norm(weights[name].astype(np.float64))),
            "gradient_norm": number(np.linalg.norm(np.asarray(gradients[name]["weights"], np.float64))),
        }
        for name in names
    ]
    biases = [np.asarray(parameters[name]["bias"], np.float32) for name in names]
    seen = _passed(activation, [*weights.values()], biases, np.asarray(features, np.float32))
    for entry, (dead, saturated, backward) in zip(found, seen, strict=False):
        entry["dead"] = number(dead) if activation == "relu" else None
        entry["saturated"] = number(saturated) if activation == "tanh" else None
        entry["backward"] = number(backward)
    return found


@partial(jax.jit, static_argnums=0)
def _passed(
    activation: str, weights: list[jax.Array], biases: list[jax.Array], features: jax.Array
) -> list[tuple[jax.Array, ...]]:
    """Return of each hidden layer the shares of dead and of saturated units, and ``backward``."""
    values, shares, backs = features, [], []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        values, back = jax.vjp(ACTIVATIONS[activation], values @ weight + bias)
        shares.append(((values == 0).all(axis=0).mean(), (abs(values) > SATURATED).all(axis=0).mean()))
        backs.append(back)
    signal, backward = jnp.ones((len(features), weights[-1].shape[1])), []
    for back, weight in zip(reversed(backs), reversed(weights[1:]), strict=True):
        signal = back(signal @ weight.T)[0]
        backward.append(jnp.sqrt((signal**2).sum(axis=1).mean()))
    return [(*share, each) for share, each in zip(shares, reversed(backward), strict=True)]


def number(value: Any) -> float | None:
    """Return a plain number, or ``None`` for what JSON can't hold."""
    return float(value) if value is not None and math.isfinite(value) else None


def _flat(scale: Any) -> jax.Array:
    flat: jax.Array = ravel_pytree(jnp.ones(1) if scale is None else scale)[0]
    return flat

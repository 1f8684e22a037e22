"""A Keras optimizer as an update rule of which is known what a diagnosis asks: limit, scale and rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import numpy.typing as npt
import optax

from steepest.descent import optimizers
from steepest.descent.optimizers import Optimizer
from steepest.descent.schedules import constant

Value = Callable[[Any], jax.Array]
"""From a Keras variable to its value."""


def inner(optimizer: Any) -> Any:
    """Return the optimizer within one that scales the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def schedule_of(optimizer: Any) -> keras.optimizers.schedules.LearningRateSchedule | None:
    """Return the optimizer's schedule, if it has one."""
    schedule = getattr(inner(optimizer), "_learning_rate", None)
    return schedule if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule) else None


def rates_of(optimizer: Any, steps: int, first: int = 0) -> npt.NDArray[np.floating[Any]]:
    """Return the learning rate of so many steps, ``first`` having been taken before them."""
    schedule = schedule_of(optimizer)
    if schedule is None:
        return np.full(steps, float(np.asarray(optimizer.learning_rate)))
    return np.asarray(jax.vmap(schedule)(first + jnp.arange(steps)))


def as_rule(optimizer: Any) -> Optimizer:
    """Return the update rule that a Keras optimizer takes; one without a known limit keeps its name only.

    What it multiplies a gradient by is given in place of its state: see `scale_of`.

    Examples
    --------
    >>> rule = as_rule(keras.optimizers.SGD(0.1, momentum=0.8))
    >>> rule.name, rule.settings["momentum"]
    ('momentum', 0.8)
    >>> as_rule(keras.optimizers.Lion()).name
    "Keras' Lion"
    """
    rule = inner(optimizer)
    kind = type(rule)
    if kind is keras.optimizers.SGD:
        momentum = float(rule.momentum)
        return optimizers.SGD(momentum=momentum, nesterov=bool(momentum and rule.nesterov))
    if kind in (keras.optimizers.Adam, keras.optimizers.AdamW):
        make = optimizers.AdamW if kind is keras.optimizers.AdamW else optimizers.Adam
        return replace(make(beta_1=float(rule.beta_1)), preconditioner=_given)
    if kind is keras.optimizers.RMSprop and not rule.momentum and not rule.centered:
        return replace(optimizers.RMSProp(), preconditioner=_given)
    if kind is keras.optimizers.Adagrad:
        return replace(optimizers.AdaGrad(), preconditioner=_given)
    unknown = optax.with_extra_args_support(optax.identity())
    return Optimizer(f"Keras' {kind.__name__}", constant(1.0), unknown)


def _given(state: Any, _: Any) -> Any:
    return state


def scale_of(optimizer: Any, value: Value) -> list[jax.Array] | None:
    """Return what the rule multiplies each trainable variable's gradient by, at a learning rate of one.

    ==============  =========================================================
    Adam, AdamW     ``√(1 - β₂ᵗ) / (√v + ε)``; with AMSGrad, of its largest v
    RMSprop         ``1 / √(v + ε)``
    Adagrad         ``1 / √(s + ε)``
    ==============  =========================================================

    Parameters
    ----------
    optimizer
        A Keras optimizer that has been built.
    value
        Tells the values of its variables.

    Returns
    -------
    list of arrays or None
        ``None`` where `as_rule` knows of no such scale.
    """
    if as_rule(optimizer).preconditioner is not _given:
        return None
    rule = inner(optimizer)
    if isinstance(rule, keras.optimizers.Adagrad):
        return [jax.lax.rsqrt(value(each) + rule.epsilon) for each in rule._accumulators]
    if isinstance(rule, keras.optimizers.RMSprop):
        return [jax.lax.rsqrt(value(each) + rule.epsilon) for each in rule._velocities]
    steps = jnp.asarray(value(rule.iterations), jnp.float32)
    correction = jnp.sqrt(1 - rule.beta_2**steps)
    squares = rule._velocity_hats if rule.amsgrad else rule._velocities
    return [correction / (jnp.sqrt(value(each)) + rule.epsilon) for each in squares]

"""The arithmetic of update rules: Optax's, how it scales a gradient, and what it does where there is none.

A rule gives its update for a learning rate of one; the descent multiplies it by the rate of the step.
So the rate is data: a schedule or a sweep compiles nothing anew. Rules made with the same settings share
one pair of functions, so that a second descent finds the first one's compiled program.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax

from steepest.descent.tables import Rest, Tables
from steepest.errors import SteepestError

OptimizerState = Any
Preconditioner = Callable[[OptimizerState, jax.Array], Any]

Rule = tuple[optax.GradientTransformationExtraArgs, Preconditioner | None, Rest | None]
"""Update, preconditioner and rest, as `steepest.descent.optimizers.Optimizer` has them."""

TINY = 1e-37
"""Stands for a base of 0 in powers."""


def _downhill(rule: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Apply the rule and step against it."""
    return optax.with_extra_args_support(optax.chain(rule, optax.scale(-1.0)))


def _unit_interval(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise SteepestError(f"{name} must lie in [0, 1), not {value}.")


@lru_cache
def sgd(momentum: float, nesterov: bool) -> Rule:
    """Return plain descent, or with momentum; see `steepest.SGD`."""
    _unit_interval(momentum=momentum)
    rule = optax.trace(momentum, nesterov) if momentum else optax.identity()

    def scale(_: OptimizerState, step: jax.Array) -> jax.Array:
        # The velocity of a constant gradient, 1 + β + ... + β^step, and with Nesterov's look ahead one more.
        terms = step + 1 + nesterov
        return (1.0 - momentum**terms) / (1.0 - momentum)

    def rest(state: OptimizerState, tables: Tables, steps: Tables, rates: Tables) -> tuple[Any, Tables]:
        velocity = _find(state, "trace")
        left = tuple(_power(momentum, each) for each in steps)
        # u and β + ... + β^steps of it; with Nesterov's look ahead, each step goes on by β more.
        factor = momentum * (momentum if nesterov else 1.0) / (1.0 - momentum)
        each = zip(tables, velocity.tables, left, rates, strict=True)
        moved = tuple(theta - rate * factor * (1.0 - part) * u for theta, u, part, rate in each)
        return _decayed(state, left, "trace"), moved

    return _downhill(rule), scale, rest if momentum else None


@lru_cache
def adagrad(initial_accumulator: float, epsilon: float) -> Rule:
    """Return AdaGrad; see `steepest.AdaGrad`."""

    def scale(state: OptimizerState, _: jax.Array) -> Any:
        return jax.tree.map(lambda sum_: jax.lax.rsqrt(sum_ + epsilon), _find(state, "sum_of_squares"))

    return _downhill(optax.scale_by_rss(initial_accumulator, epsilon)), scale, None


@lru_cache
def rmsprop(decay: float, epsilon: float) -> Rule:
    """Return RMSProp; see `steepest.RMSProp`."""
    _unit_interval(decay=decay)

    def scale(state: OptimizerState, _: jax.Array) -> Any:
        return jax.tree.map(lambda nu: jax.lax.rsqrt(nu + epsilon), _find(state, "nu"))

    def rest(state: OptimizerState, tables: Tables, steps: Tables, _: Tables) -> tuple[Any, Tables]:
        return _decayed(state, tuple(_power(decay, each) for each in steps), "nu"), tables

    return _downhill(optax.scale_by_rms(decay, epsilon, eps_in_sqrt=True)), scale, rest


@lru_cache
def adam(beta_1: float, beta_2: float, epsilon: float, weight_decay: float) -> Rule:
    """Return Adam, or with a weight decay AdamW; see `steepest.Adam`."""
    _unit_interval(beta_1=beta_1, beta_2=beta_2)

    def scale(state: OptimizerState, _: jax.Array) -> Any:
        correction = 1.0 - beta_2 ** jnp.maximum(_find(state, "count"), 1)
        return jax.tree.map(lambda nu: 1.0 / (jnp.sqrt(nu / correction) + epsilon), _find(state, "nu"))

    rule = optax.scale_by_adam(beta_1, beta_2, epsilon)
    if weight_decay:
        rule = optax.chain(rule, optax.add_decayed_weights(weight_decay))

    ratio = beta_1 / beta_2**0.5

    def rest(state: OptimizerState, tables: Tables, steps: Tables, rates: Tables) -> tuple[Any, Tables]:
        count, moved = _find(state, "count"), []
        of_each = zip(tables, _find(state, "mu").tables, _find(state, "nu").tables, steps, rates, strict=True)
        for theta, mu, nu, missed, rate in of_each:
            # Each of the steps is shorter than that before by this ratio; corrections are those of the first.
            first = count - missed + 1
            mean, square = mu / (1 - _power(beta_1, first)), nu / (1 - _power(beta_2, first))
            way = mean / (jnp.sqrt(square) + epsilon) * ratio * (1 - _power(ratio, missed)) / (1 - ratio)
            kept = (1.0 - rate * weight_decay) ** missed if weight_decay else 1.0
            moved.append((theta - rate * way) * kept)
        for name, beta in (("mu", beta_1), ("nu", beta_2)):
            state = _decayed(state, tuple(_power(beta, each) for each in steps), name)
        return state, tuple(moved)

    return _downhill(rule), scale, rest


def _power(base: float, exponents: jax.Array) -> jax.Array:
    """Return ``base ** exponents`` in a fifth of the time."""
    return jnp.exp(exponents * math.log(max(base, TINY)))


def _decayed(state: OptimizerState, left: Tables, name: str) -> OptimizerState:
    """Return a rule's state with a part of it multiplied, table by table, by what is left of it."""
    before = _find(state, name)
    tables = tuple(rows * part for rows, part in zip(before.tables, left, strict=True))
    return optax.tree_utils.tree_set(state, **{name: before._replace(tables=tables)})


def _find(state: OptimizerState, name: str) -> Any:
    return optax.tree_utils.tree_get(state, name)


@lru_cache
def lbfgs(memory: int) -> Rule:
    """Return L-BFGS with Optax's zoom line search."""
    if memory < 1:
        raise SteepestError(f"L-BFGS remembers at least one step, not {memory}.")
    return optax.with_extra_args_support(optax.lbfgs(memory_size=memory)), None, None

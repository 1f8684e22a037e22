"""The compiled epoch: one scan of steps over a window of batches; and one without descent, for validation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from steepest.descent.ranks import RANKS, averaged, over_all, over_ranks
from steepest.descent.state import State
from steepest.descent.step import (
    Batches,
    Constants,
    Program,
    Record,
    penalty,
    shares_of,
    take_step,
    take_sure_step,
    totals_of,
    weighted_mean,
)


def _scan(
    step: Callable[..., Any], program: Program, constants: Constants, state: State, batches: Batches
) -> tuple[State, Record]:
    if program.local_steps > 1:
        return _scan_locally(program, constants, state, batches)
    totals = totals_of(program, batches.weights)
    batches = batches._replace(weights=shares_of(batches.weights, totals))
    # Steps on one row are short enough for the loop itself to cost a quarter of the time.
    unroll = 4 if batches.weights.shape[1] == 1 else 1
    state, record = jax.lax.scan(partial(step, program, constants), state, batches, unroll=unroll)
    return state, record._replace(weight=totals)


def _scan_locally(
    program: Program, constants: Constants, state: State, batches: Batches
) -> tuple[State, Record]:
    """Let each device take steps on its own rows; average where they stand now and then, and at the end.

    Source: S. Stich, *Local SGD Converges Fast and Communicates Little*, 2019. A step's loss is the mean over
    all rows of the batch, each at its own device's parameters; its gradient's norm is the devices' mean.
    """
    alone = program.for_one()
    constants = constants._replace(key=jax.random.fold_in(constants.key, jax.lax.axis_index(RANKS)))
    weights = batches.weights.astype(jnp.result_type(float)).sum(axis=-1)
    batches = batches._replace(weights=shares_of(batches.weights))
    steps = len(weights)

    def step(state: State, item: tuple[Batches, jax.Array]) -> tuple[State, Record]:
        batch, number = item
        state, record = take_step(alone, constants, state, batch)
        last = (number % program.local_steps == 0) | (number == steps)
        return jax.lax.cond(last, averaged, lambda same: same, state), record

    state, record = jax.lax.scan(step, state, (batches, 1 + jnp.arange(steps)))
    seen = [jnp.where(weights > 0, each * weights, 0) for each in (record.loss, record.gradient_norm)]
    losses, norms, totals = over_all(program.mesh, (*seen, weights))
    known = jnp.where(totals > 0, totals, 1)
    return state, Record(losses / known, norms / known, totals)


@partial(jax.jit, static_argnames="program")
def run_window(
    program: Program, constants: Constants, state: State, batches: Batches
) -> tuple[State, Record]:
    """Run the descent over a window of batches in one compiled program; the state before it stays."""
    ran: tuple[State, Record] = over_ranks(
        program.mesh, partial(_scan, take_step, program), constants, state, batches
    )
    return ran


@partial(jax.jit, static_argnames="program", donate_argnames="state")
def run_window_in_place(
    program: Program, constants: Constants, state: State, batches: Batches
) -> tuple[State, Record]:
    """Run a window, and write what it leads to over the state before it: long tables are not copied."""
    return _scan(take_step, program, constants, state, batches)


@partial(jax.jit, static_argnames="program")
def try_window(
    program: Program, constants: Constants, state: State, batches: Batches
) -> tuple[State, Record]:
    """Do the same as if every step counted, which saves selecting between the state before and after each.

    Where the record holds a number that is not finite, the state returned is worth nothing, and `run_window`
    finds the last good one.
    """
    ran: tuple[State, Record] = over_ranks(
        program.mesh, partial(_scan, take_sure_step, program), constants, state, batches
    )
    return ran


@partial(jax.jit, static_argnames=("program", "metrics"))
def evaluate(
    program: Program,
    metrics: tuple[Callable[..., jax.Array], ...],
    constants: Constants,
    parameters: Any,
    batches: Batches,
) -> tuple[jax.Array, ...]:
    """Return the loss, penalties included, and the metrics' weighted means over a window, without descent."""
    measured: tuple[jax.Array, ...] = over_ranks(
        program.mesh, partial(_evaluate, program, metrics), constants, parameters, batches
    )
    return measured


def _evaluate(
    program: Program,
    metrics: tuple[Callable[..., jax.Array], ...],
    constants: Constants,
    parameters: Any,
    batches: Batches,
) -> tuple[jax.Array, ...]:
    tree = program.unravel(parameters)
    functions: tuple[Callable[..., jax.Array], ...] = (
        lambda tree, batch: program.objective(tree, batch, None),
        *metrics,
    )
    totals = totals_of(program, batches.weights)
    total = totals.sum()

    def add(means: tuple[jax.Array, ...], step: tuple[Batches, jax.Array]) -> tuple[Any, None]:
        batch, weight = step
        share, shares = weight / total, shares_of(batch.weights, weight)
        each = (weighted_mean(function(tree, batch.data), shares) for function in functions)
        return tuple(
            (mean + share * value).astype(zero.dtype) for mean, value in zip(means, each, strict=True)
        ), None

    zero = jnp.zeros((), jnp.result_type(float))
    means = jax.lax.scan(add, (zero,) * len(functions), (batches, totals))[0]
    loss, *others = over_all(program.mesh, means)
    return (loss + sum(penalty(constants, parameters)), *others)

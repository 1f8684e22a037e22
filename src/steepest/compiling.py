"""From what a caller asks to minimise to what is compiled, where it starts, and its constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from steepest.arguments import Lookup, Objective, Parameters, strengths, uniform
from steepest.descent import state as states
from steepest.descent.optimizers import LINE_SEARCH, Optimizer
from steepest.descent.pace import Pace
from steepest.descent.room import make_room
from steepest.descent.step import Constants, Program
from steepest.descent.tables import Form, Idle, form_of, lazily, split
from steepest.errors import SteepestError


def compile_parts(
    call: Objective,
    start: Parameters,
    rule: Optimizer,
    seed: int,
    pace: Pace,
    l1: Any,
    l2: Any,
    tables: Sequence[Lookup] = (),
) -> tuple[Program, states.State, Constants]:
    """Return what is compiled, where it starts, and its constants.

    Rules that work element by element run on one flat vector: fewer and larger operations a step.
    """
    make_room()
    searches = rule.name == LINE_SEARCH
    if searches and not pace.whole:
        raise SteepestError(
            "L-BFGS needs the loss of all rows at each step; a batch has only some.",
            hint="Add --batch-size all, or take another optimizer.",
        )
    first, second = strengths("l1", l1, start), strengths("l2", l2, start)
    if tables and rule.preconditioner is None:
        raise SteepestError(
            f"The rule {rule.name!r} has no lazy form, so that it moves whole tables at each step.",
            hint="Take steepest.Adam(...) or its like, or leave the lookups out.",
        )
    if first is not None and rule.preconditioner is None:
        raise SteepestError(
            f"L1 needs one of Steepest's own update rules; the proximal step of {rule.name!r} is not known.",
            hint="Use steepest.Adam(...) or its like, or put |θ| into the objective.",
        )
    position: Any = start
    unravel: Callable[[Any], Any] = as_it_is
    transformation, idle = rule.transformation, None
    if tables:
        names = tuple(table.table for table in tables)
        position, unravel = split(jax.tree.map(jnp.copy, start), names)  # the descent is in place
        first, second = (each and uniform(split(each, names)[0]) for each in (first, second))
        changes = rule.rest is not None or first is not None or second is not None
        if changes and rule.preconditioner is not None:
            transformation, idle = lazily(transformation), Idle(rule.rest, rule.preconditioner)
    elif rule.preconditioner is not None:
        position, unravel = ravel_pytree(start)
        first, second = (None if each is None else ravel_pytree(each)[0] for each in (first, second))
    begin = partial(_first_state, transformation.init)
    form = form_of(jax.eval_shape(begin, position)) if tables else None
    program = Program(
        call, transformation, rule.preconditioner, unravel, searches=searches, form=form, idle=idle
    )
    state = begin(position, form=form)
    tolerance = jnp.asarray(pace.tolerance, state.loss.dtype) if pace.whole else None
    limit = None if rule.clip_norm is None else jnp.asarray(rule.clip_norm, state.loss.dtype)
    return program, state, Constants(jax.random.key(seed), tolerance, limit, first, second)


@partial(jax.jit, static_argnums=0, static_argnames="form")
def _first_state(init: Callable[[Any], Any], position: Any, form: Form | None = None) -> states.State:
    # A rule's state may hold one array twice, but each is given to the compiled epoch for good; and numbers
    # of no settled type, which have one after the first window: the epoch would be compiled anew.
    memory = jax.tree.map(lambda each: jnp.array(each, dtype=each.dtype, copy=True), init(position))
    first = states.start(position, memory)
    return form.stored(first) if form else first


def as_it_is(parameters: Parameters) -> Parameters:
    """Return parameters that need no unravelling."""
    return parameters

"""One step of a descent: gradient, update rule, proximal step, and whether it counts.

Everything that may change between steps or runs (rates, weights, penalties, tolerance, keys) is an
argument; what is compiled is a `Program`. A step that is all padding, or not finite, or that comes after
convergence, changes nothing. Where several processes descend together, each has a part of every batch, and a
step adds up gradient and loss in one reduction.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from steepest.descent.ranks import RANKS, added_up, over_all
from steepest.descent.rules import Preconditioner
from steepest.descent.state import GRADIENT_CONVERGED, LOSS_CONVERGED, NOT_FINITE, RUNNING, State
from steepest.descent.tables import Form, Idle, caught_up, strength_of

PATIENCE = 5
"""Steps (epochs, if an epoch has several steps) in a row without change before a loss has converged."""


class Program(NamedTuple):
    """What is compiled; hashable, so that equal programs share their compilation.

    Attributes
    ----------
    objective
        ``(parameters, batch, key) -> loss``: a number, or one for each row.
    transformation
        The update rule for a rate of one.
    preconditioner
        See `steepest.descent.optimizers.Optimizer`.
    unravel
        From `State.parameters` to the parameters that the objective takes.
    mesh
        The devices among which the rows of a batch are divided, on the axis `RANKS`; ``None`` for one.
    local_steps
        Steps that each device takes on its own rows before the parameters are averaged; with 1, the gradients
        are, at each step.
    searches
        Whether the update rule searches along a line for the length of a step, and so knows the loss and the
        gradient where the step ends.
    form
        How the tables among the parameters, of which a step looks up some rows, are stored; ``None`` where
        there are none. See `steepest.descent.tables`.
    idle
        What the rule does with rows of tables while their gradient is zero; ``None`` for nothing.
    """

    objective: Callable[..., jax.Array]
    transformation: optax.GradientTransformationExtraArgs
    preconditioner: Preconditioner | None
    unravel: Callable[[Any], Any]
    mesh: Mesh | None = None
    local_steps: int = 1
    searches: bool = False
    form: Form | None = None
    idle: Idle | None = None

    def position(self, state: State) -> Any:
        """Return the parameters as `unravel` takes them."""
        return state.parameters if self.form is None else _parameters(self.form, state.parameters)

    def for_one(self) -> Program:
        """Return the same for one device that has all rows of a batch."""
        return self._replace(mesh=None, local_steps=1)


class Constants(NamedTuple):
    """What stays the same over the steps of a descent, as data.

    Attributes
    ----------
    key
        Random key from which each step's key is folded.
    tolerance
        Relative change of the loss, or norm of the gradient, at which a step has converged; ``None`` where
        convergence is not looked for within the compiled epoch.
    clip_norm
        The norm that larger gradients are scaled down to; ``None`` for no limit.
    l1, l2
        Strength of each parameter's penalty, shaped like `State.parameters`; ``None`` for no penalty.
        The loss has ``Σ l1·|θ| + Σ l2·θ²`` added.
    """

    key: jax.Array
    tolerance: jax.Array | None
    clip_norm: jax.Array | None = None
    l1: Any = None
    l2: Any = None


class Batches(NamedTuple):
    """A window's batches: data, row weights ``[steps, batch_size]``, rates ``[steps]``.

    Within a step the weights are shares of their batch's weight: see `shares_of`. Where parameters are tables
    of which a step looks up some rows, ``touched`` has these: name -> places ``[steps, touched]``.
    """

    data: Any
    weights: Any
    rates: Any
    touched: Any = None


class Record(NamedTuple):
    """What each step leaves behind, ``[steps]`` each; one of them is not finite where the step failed.

    ``weight`` is that of the step's rows; a single step leaves it out.
    """

    loss: jax.Array
    gradient_norm: jax.Array
    weight: jax.Array | None = None


def totals_of(program: Program, weights: jax.Array) -> jax.Array:
    """Return the weight of each batch, all devices' parts together."""
    total: jax.Array = over_all(program.mesh, weights.astype(jnp.result_type(float)).sum(axis=-1))
    return total


def shares_of(weights: jax.Array, totals: jax.Array | None = None) -> jax.Array:
    """Return each row's part of its batch's weight, ``wᵢ / Σ wᵢ``; 0 where all weights are 0.

    ``totals`` are the batches' weights, if they have more rows than these.
    """
    weights = weights.astype(jnp.result_type(float))
    total = weights.sum(axis=-1) if totals is None else totals
    return weights / jnp.where(total > 0, total, 1)[..., None]


def weighted_mean(values: jax.Array, shares: jax.Array) -> jax.Array:
    """Return ``Σ sᵢ valueᵢ``; a single number is returned as it is."""
    if values.ndim == 0:
        return values
    kind = jnp.result_type(values, jnp.float32)
    return jnp.dot(values.astype(kind), shares.astype(kind))


def penalty(constants: Constants, parameters: Any) -> tuple[jax.Array | float, jax.Array | float]:
    """Return the L1 and the L2 term of the loss."""
    absolute = 0.0 if constants.l1 is None else strength_of(constants.l1, jax.tree.map(jnp.abs, parameters))
    squared = 0.0 if constants.l2 is None else strength_of(constants.l2, jax.tree.map(jnp.square, parameters))
    return absolute, squared


def norm_if_finite(gradient: Any, parameters: Any) -> jax.Array:
    """Return the gradient's norm, or NaN where a parameter is not finite: one reduction for two checks."""
    norm: jax.Array = optax.tree.norm(
        jax.tree.map(lambda g, theta: g + (theta - theta), gradient, parameters)
    )
    return norm


def clip(constants: Constants, gradient: Any) -> tuple[Any, jax.Array | float]:
    """Scale a gradient of too large a norm down; return it and the factor."""
    if constants.clip_norm is None:
        return gradient, 1.0
    factor = constants.clip_norm / jnp.maximum(optax.tree.norm(gradient), constants.clip_norm)
    return jax.tree.map(lambda each: each * factor.astype(each.dtype), gradient), factor


def soft_threshold(
    program: Program, constants: Constants, parameters: Any, state: Any, step: jax.Array, rate: jax.Array
) -> Any:
    """Take the proximal step of the L1 penalty, in the metric of the rule's own preconditioner ``p``.

    ``θ ← sign(θ) · max(|θ| - η p l1, 0)``: weights become exactly zero, and the descent ends where the
    penalised loss has its minimum for adaptive rules and momentum too. Where the gradient was clipped, ``η``
    includes the factor.
    """
    if constants.l1 is None or program.preconditioner is None:  # minimize() refuses the second with the first
        return parameters
    scale = program.preconditioner(state, step)

    def shrink(theta: jax.Array, strength: jax.Array, scale: Any) -> jax.Array:
        shrunk = jnp.sign(theta) * jnp.maximum(jnp.abs(theta) - rate * scale * strength, 0)
        return shrunk.astype(theta.dtype)

    if len(jax.tree.leaves(scale)) == 1 and jnp.ndim(scale) == 0:
        return jax.tree.map(lambda theta, strength: shrink(theta, strength, scale), parameters, constants.l1)
    return jax.tree.map(shrink, parameters, constants.l1, scale)


def converged(
    constants: Constants, state: State, loss: jax.Array, gradient_norm: jax.Array
) -> tuple[jax.Array, jax.Array | int]:
    """Return the steps in a row without change, and what that and the gradient's norm say of the descent."""
    if constants.tolerance is None:
        return state.still, RUNNING
    unchanged = abs(loss - state.loss) <= constants.tolerance * abs(state.loss)
    still = jnp.where(unchanged & jnp.isfinite(state.loss), state.still + 1, 0)
    status = jnp.where(still >= PATIENCE, LOSS_CONVERGED, RUNNING)
    return still, jnp.where(gradient_norm <= constants.tolerance, GRADIENT_CONVERGED, status)


class Moved(NamedTuple):
    """Where a step leads, whatever it is worth; ``gradient`` is as the rule sees it, clipped."""

    parameters: Any
    optimizer_state: Any
    record: Record
    gradient: Any


def at_rows(program: Program, constants: Constants, state: State, batch: Batches) -> State:
    """Return the state of the rows that a batch looks up, as they are now; all of it without tables."""
    return _now(program, constants, _at_rows(program, state, batch, masked=True))


def _at_rows(program: Program, state: State, batch: Batches, *, masked: bool) -> State:
    """Return the state of the rows that a batch looks up, as they were left."""
    return state if program.form is None else program.form.narrowed(state, batch.touched, masked=masked)


def _now(program: Program, constants: Constants, part: State) -> State:
    return part if program.idle is None else caught_up(program.idle, constants.l1, constants.l2, part)


def _written(program: Program, state: State, batch: Batches, after: State) -> State:
    """Return the whole state after a step on the rows that a batch looks up."""
    return after if program.form is None else program.form.widened(state, batch.touched, after)


def move(program: Program, constants: Constants, state: State, batch: Batches) -> Moved:
    """Follow the gradient of one batch, ``weights [batch_size]`` and one rate, by one step.

    The state is that of the rows that the batch looks up: see `at_rows`.
    """
    key = jax.random.fold_in(constants.key, state.step)
    if program.mesh is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(RANKS))

    def rows_loss(parameters: Any) -> jax.Array:
        values = program.objective(program.unravel(parameters), batch.data, key)
        return weighted_mean(values, batch.weights)

    mean_loss = rows_loss if program.mesh is None else added_up(rows_loss)

    def smooth_loss(parameters: Any) -> jax.Array:
        return mean_loss(parameters) + penalty(constants, parameters)[1]

    if program.searches:
        from_state = optax.value_and_grad_from_state(smooth_loss)
        loss, gradient = from_state(state.parameters, state=state.optimizer_state)
    else:
        loss, gradient = jax.value_and_grad(smooth_loss)(state.parameters)
    gradient, clipped = clip(constants, gradient)
    rate = batch.rates.astype(loss.dtype)
    known = {"value": loss, "grad": gradient, "value_fn": smooth_loss}
    known |= {} if program.idle is None else {"step": state.step, "rate": rate}
    updates, optimizer_state = program.transformation.update(
        gradient, state.optimizer_state, state.parameters, **known
    )
    if program.searches:  # of where another rate leads nothing is known
        value = optax.tree.get(optimizer_state, "value")
        optimizer_state = optax.tree.set(optimizer_state, value=jnp.where(rate == 1, value, jnp.inf))
    parameters = jax.tree.map(
        lambda theta, update: (theta + rate * update).astype(theta.dtype), state.parameters, updates
    )
    parameters = soft_threshold(program, constants, parameters, optimizer_state, state.step, rate * clipped)
    loss = (loss + penalty(constants, state.parameters)[0]).astype(state.loss.dtype)
    record = Record(loss, norm_if_finite(gradient, parameters) / clipped)
    return Moved(parameters, optimizer_state, record, gradient)


def take_step(program: Program, constants: Constants, state: State, batch: Batches) -> tuple[State, Record]:
    """Take one step of the descent, or none where it would not count."""
    penalised = constants.l1 is not None or constants.l2 is not None
    before = _at_rows(program, state, batch, masked=penalised)
    part = _now(program, constants, before)
    parameters, optimizer_state, record, _ = move(program, constants, part, batch)
    finite = jnp.isfinite(record.loss) & jnp.isfinite(record.gradient_norm)
    still, status = converged(constants, state, record.loss, record.gradient_norm)
    status = jnp.where(finite, status, NOT_FINITE)
    counts = (state.status == RUNNING) & (over_all(program.mesh, batch.weights.sum()) > 0)
    moves = counts & (status == RUNNING)

    def choose(condition: jax.Array, new: Any, old: Any) -> Any:
        return jax.tree.map(partial(jnp.where, condition), new, old)

    after = State(
        choose(moves, parameters, before.parameters),
        choose(moves, optimizer_state, before.optimizer_state),
        step=state.step + moves,
        loss=jnp.where(moves, record.loss, state.loss),
        still=jnp.where(counts, still, state.still),
        status=jnp.where(counts, status, state.status),
    )
    return _written(program, state, batch, after), record


def take_sure_step(
    program: Program, constants: Constants, state: State, batch: Batches
) -> tuple[State, Record]:
    """Take one step of which it is known that it counts."""
    parameters, optimizer_state, record, _ = move(program, constants, state, batch)
    return state._replace(
        parameters=parameters, optimizer_state=optimizer_state, step=state.step + 1, loss=record.loss
    ), record


@partial(jax.jit, static_argnums=0)
def _parameters(form: Form, stored: Any) -> Any:
    return form.parameters(stored)

"""Parameters that are tables of many rows, of which a step looks up few: only these rows move.

A step sees a state that is narrowed to the rows that it looks up, in which the rule works as on any other
parameters; what it leads to is written back. So a step costs what its rows cost, however long the table is.
Between steps, all that is known of a row stands side by side, because most of what a row costs is finding it.

The rows that a step does not look up have a gradient of zero, and stay as they are. For plain descent and
AdaGrad that is what the rule itself does. For the others it is their lazy form: what the rule's memory would
have done meanwhile is caught up with when a row is next looked up (see `caught_up`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from steepest.descent.state import State

Tables = tuple[jax.Array, ...]
"""Each ``[rows, ...]``, in the order of their names."""

Touched = tuple[jax.Array, ...]
"""For each table the rows that are looked up ``[touched]``, each once; places outside of it are padding."""

Rest = Callable[[Any, Tables, Tables, Tables], tuple[Any, Tables]]
"""``(memory, parameters, steps, rates) -> (memory, parameters)``: what a rule makes of rows of tables in a
number of steps, at their mean rate, of which the gradient is zero."""


class Split(NamedTuple):
    """Parameters, or what a rule keeps of them, with their tables apart.

    Attributes
    ----------
    dense
        All others, as one flat vector.
    tables
        The tables.
    """

    dense: jax.Array
    tables: Tables


class Since(NamedTuple):
    """When each row of the tables was last looked up: what catching up needs.

    Attributes
    ----------
    step, rate
        The steps before it, and the sum of the rates up to it, ``[rows]``.
    rates
        The sum of the rates so far. Sums begin anew where all rows are caught up with.
    """

    step: Split
    rate: Split
    rates: jax.Array


class Lazy(NamedTuple):
    """The state of a rule whose rows have to be caught up with."""

    rule: Any
    since: Since


class Idle(NamedTuple):
    """What becomes of rows that no step looks up.

    Attributes
    ----------
    rest
        What the rule itself makes of them; ``None`` for nothing.
    preconditioner
        See `steepest.descent.optimizers.Optimizer`: by it, penalties act meanwhile.
    """

    rest: Rest | None
    preconditioner: Callable[[Any, jax.Array], Any]


def is_split(tree: Any) -> bool:
    """Tell whether this is a `Split`."""
    return isinstance(tree, Split)


def over_splits(function: Callable[..., Split], tree: Any, *others: Any) -> Any:
    """Apply a function to each `Split` of a tree; other leaves are those of the first."""
    return jax.tree.map(
        lambda each, *more: function(each, *more) if is_split(each) else each, tree, *others, is_leaf=is_split
    )


class Stored(NamedTuple):
    """Parameters, their tables together with what a rule keeps of each row: see `Form`.

    Attributes
    ----------
    dense
        All others, as one flat vector.
    rows
        For each table ``[rows, numbers]``.
    """

    dense: jax.Array
    rows: Tables


class Part(NamedTuple):
    """Some of the numbers of a row: the row of a table, or what a rule keeps of it."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Form:
    """What stands side by side in the rows of tables, so that looking a row up is looking in one place.

    Parameters
    ----------
    parts
        For each table the parts of its rows: the parameters, then what the rule keeps.
    """

    parts: tuple[tuple[Part, ...], ...]

    def stored(self, state: State) -> State:
        """Return a state whose tables are apart with their rows together."""
        rows = tuple(map(_side_by_side, self._tables_of(state)))
        memory = over_splits(lambda split: Split(split.dense, ()), state.optimizer_state)
        return state._replace(parameters=Stored(state.parameters.dense, rows), optimizer_state=memory)

    def apart(self, state: State) -> State:
        """Return a state with its tables apart: what `stored` made one of."""
        dense, rows = state.parameters
        tables = [_apart(each, parts) for each, parts in zip(rows, self.parts, strict=True)]
        in_turn = iter([*zip(*tables, strict=True)])
        parameters = Split(dense, next(in_turn))
        memory = over_splits(lambda split: Split(split.dense, next(in_turn)), state.optimizer_state)
        return state._replace(parameters=parameters, optimizer_state=memory)

    def parameters(self, stored: Stored) -> Split:
        """Return the parameters alone."""
        each = zip(stored.rows, self.parts, strict=True)
        return Split(stored.dense, tuple(_apart(rows, parts[:1])[0] for rows, parts in each))

    def narrowed(self, state: State, touched: Touched, *, masked: bool) -> State:
        """Return a state, tables apart, with nothing but the rows that are touched.

        For padding it has any row, or zeros if it is ``masked``, which takes longer.
        """
        how: dict[str, Any] = {"mode": "fill", "fill_value": 0} if masked else {"mode": "clip"}
        each = zip(state.parameters.rows, touched, strict=True)
        rows = tuple(table.at[places].get(**how) for table, places in each)
        return self.apart(state._replace(parameters=Stored(state.parameters.dense, rows)))

    def widened(self, whole: State, touched: Touched, part: State) -> State:
        """Return what is narrowed as a part of the whole: its rows in their places, and all else of it."""
        after = self.stored(part)
        dense, found = after.parameters
        each = zip(whole.parameters.rows, touched, found, strict=True)
        rows = (table.at[places].set(new, mode="drop", unique_indices=True) for table, places, new in each)
        return after._replace(parameters=Stored(dense, tuple(rows)))

    def _tables_of(self, state: State) -> list[Tables]:
        return [*zip(*(split.tables for split in _splits_of(state)), strict=True)]


def form_of(state: State) -> Form:
    """Return the form in which a state whose tables are apart is stored."""
    parts = zip(*(split.tables for split in _splits_of(state)), strict=True)
    return Form(
        tuple(tuple(Part(each.shape[1:], each.dtype.name) for each in of_table) for of_table in parts)
    )


def _splits_of(state: State) -> list[Split]:
    tree = (state.parameters, state.optimizer_state)
    return [each for each in jax.tree.leaves(tree, is_leaf=is_split) if is_split(each)]


def _side_by_side(parts: Tables) -> jax.Array:
    """Return parts of rows side by side; whole numbers bit by bit."""
    kind = jnp.result_type(*(each.dtype for each in parts if not _is_whole(each.dtype)), jnp.float32)
    as_bits = f"int{8 * kind.itemsize}"

    def one(part: jax.Array) -> jax.Array:
        numbers = part.reshape(len(part), -1)
        if _is_whole(part.dtype):
            return jax.lax.bitcast_convert_type(numbers.astype(as_bits), kind)
        return numbers.astype(kind)

    return jnp.concatenate([one(part) for part in parts], axis=1)


def _apart(rows: jax.Array, parts: Sequence[Part]) -> Tables:
    """Return the first parts of rows, each ``[rows, ...]``."""
    found, begins = [], 0
    as_bits = f"int{8 * rows.dtype.itemsize}"
    for shape, dtype in parts:
        ends = begins + math.prod(shape)
        numbers = rows[:, begins:ends]
        if _is_whole(dtype):
            numbers = jax.lax.bitcast_convert_type(numbers, as_bits)
        found.append(numbers.astype(dtype).reshape(len(rows), *shape))
        begins = ends
    return tuple(found)


def _is_whole(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.integer))


@lru_cache
def lazily(rule: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """Return a rule that remembers when each row of the tables was last looked up.

    Its update takes ``step``, the steps before it, and ``rate`` as well.
    """

    def init(parameters: Split) -> Lazy:
        nothing = jnp.zeros(())
        never = tuple(jnp.zeros(len(table), jnp.int32) for table in parameters.tables)
        none = tuple(jnp.zeros(len(table)) for table in parameters.tables)
        return Lazy(rule.init(parameters), Since(Split(nothing, never), Split(nothing, none), nothing))

    def update(
        gradient: Split, state: Lazy, parameters: Split, *, step: jax.Array, rate: jax.Array, **more: Any
    ) -> tuple[Split, Lazy]:
        updates, memory = rule.update(gradient, state.rule, parameters, **more)
        rates = state.since.rates + rate.astype(state.since.rates.dtype)
        return updates, Lazy(memory, _now(state.since, step + 1, rates))

    return optax.GradientTransformationExtraArgs(init, update)


def _now(since: Since, step: jax.Array, rates: jax.Array) -> Since:
    def full(split: Split, value: jax.Array) -> Split:
        return Split(split.dense, tuple(jnp.full_like(rows, value) for rows in split.tables))

    return Since(full(since.step, step), full(since.rate, rates), rates)


def caught_up(idle: Idle, l1: Split | None, l2: Split | None, state: State) -> State:
    """Return where the steps since they were last looked up have led the rows of the tables.

    In a step of rate η without a gradient, penalties lead to ``θ ← θ (1 - 2 η p l2)`` and shrink ``|θ|`` by
    ``η p l1``. The preconditioner ``p`` is as it was last; that of adaptive rules is made smaller by the
    penalty's own gradient, ``p / √(1 + (2 p l2 θ)²)``, so that no step is longer than theirs. Then comes what
    the rule does by itself. Where the rate changes between the steps, their mean stands for it.
    """
    memory, since = state.optimizer_state
    dense, tables = state.parameters
    steps, rates = _missed(state)
    if l1 is not None or l2 is not None:
        scale = idle.preconditioner(memory, state.step)
        scales = scale.tables if is_split(scale) else [scale] * len(tables)
        nothing = [0.0] * len(tables)
        strengths = zip(l1.tables if l1 else nothing, l2.tables if l2 else nothing, strict=True)
        each = zip(tables, scales, steps, rates, strengths, strict=True)
        tables = tuple(_penalised(theta, scale, k, rate, *by) for theta, scale, k, rate, by in each)
    if idle.rest is not None:
        memory, tables = idle.rest(memory, tables, steps, rates)
    now = Lazy(memory, _now(since, state.step, since.rates))
    return state._replace(parameters=Split(dense, tables), optimizer_state=now)


def _missed(state: State) -> tuple[Tables, Tables]:
    """Return for the rows of each table the steps since they were last looked up, and their mean rate."""
    since, steps, rates = state.optimizer_state.since, [], []
    for table, step, rate in zip(state.parameters.tables, since.step.tables, since.rate.tables, strict=True):
        missed = (state.step - step).astype(table.dtype)
        mean = (since.rates - rate).astype(table.dtype) / jnp.maximum(missed, 1)
        shape = (-1, *(1 for _ in table.shape[1:]))
        steps.append(missed.reshape(shape))
        rates.append(mean.reshape(shape))
    return tuple(steps), tuple(rates)


def _penalised(
    table: jax.Array, scale: jax.Array, steps: jax.Array, rate: jax.Array, l1: Any, l2: Any
) -> jax.Array:
    if jnp.ndim(scale):  # an adaptive rule, which has the penalty's own gradient in its means
        scale = scale / jnp.sqrt(1 + jnp.square(scale * 2 * l2 * table))
    rate = rate * scale
    decayed = table * jnp.maximum(1 - 2 * rate * l2, 0) ** steps
    return jnp.sign(decayed) * jnp.maximum(jnp.abs(decayed) - steps * rate * l1, 0)


@dataclass(frozen=True)
class Joined:
    """The way from a `Split` to the dictionary of parameters that it was made of."""

    unravel: Callable[[jax.Array], dict[str, Any]]
    names: tuple[str, ...]

    def __call__(self, parameters: Split) -> dict[str, Any]:
        """Return the parameters."""
        tables = dict(zip(self.names, parameters.tables, strict=True))
        return {**self.unravel(parameters.dense), **tables}


def split(parameters: dict[str, Any], names: tuple[str, ...]) -> tuple[Split, Joined]:
    """Return parameters with the tables of these names apart, and the way back."""
    others = {name: each for name, each in parameters.items() if name not in names}
    dense, unravel = ravel_pytree(others)
    return Split(dense, tuple(parameters[name] for name in names)), Joined(unravel, names)


@partial(jax.jit, static_argnames=("form", "idle"), donate_argnames="state")
def settled(form: Form, idle: Idle, l1: Split | None, l2: Split | None, state: State) -> State:
    """Catch up with all rows of a state that is stored, and let the sums of rates begin anew."""
    state = caught_up(idle, l1, l2, form.apart(state))
    since = _now(state.optimizer_state.since, state.step, jnp.zeros_like(state.optimizer_state.since.rates))
    return form.stored(state._replace(optimizer_state=state.optimizer_state._replace(since=since)))


def strength_of(strength: Any, values: Any) -> jax.Array:
    """Return ``Σ strength · value``; of a table all rows have the same strength."""
    if not is_split(strength):
        total: jax.Array = optax.tree.vdot(strength, values)
        return total
    of_tables = [each * table.sum() for each, table in zip(strength.tables, values.tables, strict=True)]
    total = jnp.vdot(strength.dense, values.dense)
    return total + jnp.stack(of_tables).sum()

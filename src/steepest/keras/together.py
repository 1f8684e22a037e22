"""`fit` by a group of processes, each of which holds a part of the rows.

All of them run the same loop over the same batches, at the same time. Each computes on its slice of every
batch, and the compiler adds the exchanges (GSPMD) that make the step that of one process: the loss, batch
normalization and dropout are those of the whole batch. So the weights are those of `steepest.keras.fit` with
all rows in one process, to rounding.

The states that go into a program and come out of it are each process's own arrays. All else - callbacks,
metrics, backups - is what it is in one process, done by all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import keras
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from steepest.data.shared import Shared
from steepest.descent.room import make_room
from steepest.errors import SteepestError
from steepest.keras.fitting import begin, check, steps_taken
from steepest.keras.loop import run
from steepest.keras.program import Parts, State, Windows, program_of, state_of
from steepest.keras.resume import Backup, Position
from steepest.keras.rows import Rows, rows_over
from steepest.process_group import ProcessGroup

Table = tuple[Any, Any, Any]
"""``(x, y, sample_weight)``: trees of arrays ``[rows, ...]``, or ``None``."""


def fit_together(
    model: keras.Model,
    group: ProcessGroup,
    rows: Table,
    held_out: Table | None = None,
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    backup: Backup | None = None,
    content: str = "",
) -> keras.callbacks.History:
    """Train a model that is the same in all processes; afterwards it is so again.

    Parameters
    ----------
    model
        Any Keras model, compiled.
    group
        The processes; all call this function.
    rows, held_out
        What this process has of the rows to train and to validate on; there may be none. They are numbered
        by rank. Or what all have of them, as `Shared`.
    batch_size
        Rows of a step, all processes' together. A batch is divided among the processes if that leaves each
        as many rows; otherwise, as the last of an epoch may be, each computes all of it.
    epochs, seed, callbacks
        See `steepest.keras.fit`.
    backup
        Is written at the end of every epoch and of the fit, and restored from. It is the same everywhere, as
        is that of a `BackupAndRestore` among the callbacks.
    content
        Tells the rows from others, so that a backup of a descent on others is refused.

    Returns
    -------
    keras.callbacks.History
        As `steepest.keras.fit` returns it.

    Raises
    ------
    SteepestError
        As `steepest.keras.fit` does, in all processes.
    """
    check(model)
    make_room()
    training = rows_together(model, shared(group, rows), batch_size=batch_size, shuffle=True, seed=seed)
    validation = held_out and rows_together(model, shared(group, held_out), batch_size=batch_size)
    training.build(model)
    training.facts |= {"content": content} if content else {}
    descent = begin(model, training, validation, list(callbacks), 0, epochs, 1)
    descent.program = program_of(model, partial(_compiled, group))
    descent.looks_ahead, descent.backup = False, backup or descent.backup
    history = run(descent, 0)
    if backup:
        backup.save(model, descent.callbacks.callbacks, Position(epochs, 0, training.batches), descent.steps)
    return history


def require_alike(group: ProcessGroup, model: keras.Model) -> None:
    """Refuse a model that each process has built in another way.

    Raises
    ------
    SteepestError
        If the values of its variables differ.
    """
    seal = hashlib.blake2b(digest_size=16)
    for value in jax.tree.leaves(state_of(model)):
        seal.update(np.ascontiguousarray(value))
    if len({*group.exchange(seal.digest())}) > 1:
        raise SteepestError(
            "The builder gave each worker a model with other weights.",
            hint="Let it draw by keras.random alone, or with a seed of its own.",
        )


def rows_together(model: keras.Model, table: Table, **order: Any) -> Rows:
    """Return rows that several processes hold, `Shared` or `Fetched`; see `steepest.keras.rows.rows_over`."""
    rows = rows_over(table, **order, taken=steps_taken(model))
    rows.reads_ahead = False  # to gather is to exchange, which all do at the same time
    return rows


def shared(group: ProcessGroup, tree: Any) -> Any:
    """Return a tree of this process's rows as one of all processes' rows, in JAX's own types."""
    first = jax.tree.leaves(tree)[0]
    if isinstance(first, Shared):
        return tree
    count = len(first)
    counts = [int(each) for each in group.exchange(str(count).encode())]
    firsts = tuple(np.cumsum([0, *counts]).tolist())

    def held(rows: np.ndarray) -> Shared:
        return Shared(rows.astype(jax.dtypes.canonicalize_dtype(rows.dtype), copy=False), firsts, group)

    return jax.tree.map(held, tree)


def _compiled(group: ProcessGroup, run: Windows) -> Windows:
    """Compile what runs over windows for the group: each process has the whole of them, and does a part."""
    program = jax.jit(run, out_shardings=NamedSharding(group.mesh, PartitionSpec()))

    def together(state: State, parts: Parts) -> tuple[State, Any]:
        after = program(group.place(state), jax.tree.map(partial(_slice, group), parts))
        own: tuple[State, Any] = jax.tree.map(lambda array: array.addressable_data(0), after)
        return own

    return together


def _slice(group: ProcessGroup, window: Any) -> jax.Array:
    """Give each process its rows of every batch ``[steps, rows, ...]``, or all where there are too few."""
    rows, more = divmod(window.shape[1], group.size)
    if more:
        placed: jax.Array = group.place(window)
        return placed
    own = np.asarray(window)[:, group.rank * rows : (group.rank + 1) * rows]
    return group.place_rows(np.ascontiguousarray(own))

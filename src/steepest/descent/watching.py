"""What is looked at between the steps of a descent: how far a step goes, layer by layer.

A look repeats one step in a program of its own. So the compiled epoch stays as short as it is, and what is
looked at changes no bit of it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from steepest.descent.ranks import over_ranks
from steepest.descent.state import State
from steepest.descent.step import Batches, Constants, Program, at_rows, move, shares_of, totals_of

EVERY = 1024
"""Steps between two looks: on the smallest networks a look takes as long as some ten steps."""

Seen = dict[str, jax.Array]

ALL = "all"
"""Stands for the parameters as a whole."""


def layers_of(parameters: Any) -> dict[str, list[Any]]:
    """Return the leaves of each layer: of each branch at the tree's root.

    Examples
    --------
    >>> layers_of({"layer_1": {"bias": 1.0, "weights": 2.0}, "layer_2": {"bias": 3.0}})
    {'layer_1': [1.0, 2.0], 'layer_2': [3.0]}
    >>> layers_of([1.0, 2.0])
    {'0': [1.0], '1': [2.0]}
    """
    layers: dict[str, list[Any]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(parameters):
        layers.setdefault(jax.tree_util.keystr(path[:1], simple=True) or ALL, []).append(leaf)
    return layers


def norms(parameters: Any) -> dict[str, jax.Array]:
    """Return the Euclidean norm of each layer, and of all."""
    squares = {
        name: jnp.stack([jnp.sum(jnp.square(jnp.abs(leaf)).astype(float)) for leaf in leaves]).sum()
        for name, leaves in layers_of(parameters).items()
    }
    squares[ALL] = jnp.stack([*squares.values()]).sum()
    return {name: jnp.sqrt(square) for name, square in squares.items()}


def is_watched(first: int, steps: int) -> bool:
    """Tell whether the first of so many steps, counted from 0, is looked at: where a multiple of EVERY lies.

    The first steps of all are not, so that a short descent compiles nothing for it.

    Examples
    --------
    >>> [is_watched(first, 1024) for first in (0, 100, 2048)], is_watched(100, 100)
    ([False, True, True], False)
    """
    return first // EVERY != (first + steps - 1) // EVERY or (first > 0 and first % EVERY == 0)


def look(program: Program, constants: Constants, state: State, batches: Batches) -> Seen:
    """Look at the first step of a window.

    Returns
    -------
    dict
        ``update_ratio``, the norm of the applied update over that of the parameters before it, and
        ``gradient_norm``, of each layer as ``update_ratio.LAYER`` and so on. The values are still on their
        way.
    """
    first = jax.tree.map(lambda array: array if len(array) == 1 else array[:1], batches)
    measured: Seen = _look(program, constants, state, first)
    return measured


@partial(jax.jit, static_argnames="program")
def _look(program: Program, constants: Constants, state: State, batches: Batches) -> Seen:
    seen: Seen = over_ranks(program.mesh, partial(_seen, program), constants, state, batches)
    return seen


def _seen(program: Program, constants: Constants, state: State, batches: Batches) -> Seen:
    shares = shares_of(batches.weights, totals_of(program, batches.weights))
    batch = jax.tree.map(lambda array: array[0], batches._replace(weights=shares))
    state = at_rows(program, constants, state, batch)
    moved = move(program, constants, state, batch)
    update = jax.tree.map(jnp.subtract, moved.parameters, state.parameters)
    updates, weights, gradients = (
        norms(program.unravel(tree)) for tree in (update, state.parameters, moved.gradient)
    )
    ratios = {name: norm / weights[name] for name, norm in updates.items()}
    return {
        **{_named("update_ratio", name): ratio for name, ratio in ratios.items()},
        **{f"gradient_norm.{name}": norm for name, norm in gradients.items() if name != ALL},
    }


def _named(figure: str, layer: str) -> str:
    return figure if layer == ALL else f"{figure}.{layer}"

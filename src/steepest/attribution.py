"""Integrated gradients: what each part of a row adds to a model's output."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from steepest.data.packed import Inputs
from steepest.data.pairs import NOWHERE, Strips, bucket
from steepest.descent.models import Model

TOLERANCE = 1e-4
"""What contributions may miss of the output's change, as a share of it (of 1, where the change is less)."""

FINER = 64
"""A single interval of the path may miss this many times less, because what they miss adds up."""

AT_ONCE = 32
"""Intervals that are computed together, and into how many the path is cut at first."""

NARROWEST = 2.0**-24
"""No interval is halved that is as narrow, a part of the whole path ..."""

MOST_INTERVALS = 2**14
"""... or once so many were computed."""

FEWEST_PAIRS = 32
"""Pairs that every row is filled up to, so that few shapes are compiled."""

NODES, WEIGHTS = (each.astype(np.float64) for each in np.polynomial.legendre.leggauss(3))
"""Gauss-Legendre nodes in [-1, 1] and their weights: exact for polynomials of degree 5."""

Floats = npt.NDArray[np.floating[Any]]


class Entering(NamedTuple):
    """A row as it enters a model.

    Attributes
    ----------
    dense
        ``[width]``.
    categories
        int ``[categories]``: the sparse feature of each category; a place beyond the table for none.
    list_count
        How many lists the model knows.
    lists
        int ``[pairs]``: which of them each pair belongs to.
    places, values
        ``[pairs]``: each pair's sparse feature, and its value.
    """

    dense: npt.NDArray[np.float32]
    categories: npt.NDArray[np.integer]
    list_count: int
    lists: npt.NDArray[np.integer]
    places: npt.NDArray[np.integer]
    values: npt.NDArray[np.float32]


class Attribution(NamedTuple):
    """What each part of a row adds to the output; all parts and ``baseline`` add up to ``output``, nearly.

    Attributes
    ----------
    output, baseline
        The model's output for the row, and for the row without any features.
    dense, categories, pairs
        What each adds, as of `Entering`.
    """

    output: float
    baseline: float
    dense: Floats
    categories: Floats
    pairs: Floats


class _Row(NamedTuple):
    """A row with a table of its own: that of the features it has, in the order categories, pairs."""

    dense: Any
    table: Any
    places: Any
    strips: Strips | None


def attribute(model: Model, parameters: Any, row: Entering, output: int = 0, *, double: bool) -> Attribution:
    """Return integrated gradients from no features to those of a row.

    The part of feature j is ``x_j ∫₀¹ ∂f(αx)/∂x_j dα``. A sparse feature's x is its row of the model's table
    (its weights and embedding), which α scales; averages of embeddings keep the denominator of the full row.
    The parts add up to f(x) - f(0). That holds for each interval of α, too: so each is integrated by
    Gauss-Legendre's rule and halved where the rule misses what the output gained in it, as at the kinks of
    relu. The gradient of a linear model is constant, and its parts are weight times value.

    Source: M. Sundararajan, A. Taly and Q. Yan, *Axiomatic Attribution for Deep Networks*, 2017.

    Parameters
    ----------
    model, parameters
        The model; with sparse features, one whose ``parameters["table"]`` has a row for each.
    row
        The row.
    output
        Which of several outputs.
    double
        Whether to compute in double precision.

    Examples
    --------
    >>> from steepest.descent.models import linear
    >>> weights = {"layer_1": {"weights": np.array([[2.0], [3.0]]), "bias": np.array([0.5])}}
    >>> none = np.empty(0, np.int32)
    >>> row = Entering(np.array([1.0, -1.0], np.float32), none, 0, none, none, np.empty(0, np.float32))
    >>> found = attribute(linear(2), weights, row, double=True)
    >>> found.baseline, found.dense.round(9).tolist(), found.output
    (0.5, [2.0, -3.0], -0.5)
    """
    kind = np.float64 if double else np.float32
    with jax.enable_x64(double):
        entering, others = _own_table(parameters, row, kind)

        def along(shares: Floats) -> tuple[Floats, Floats]:
            found = _along(model.apply, others, entering, output, jnp.asarray(shares, kind))
            outputs, slopes = (np.asarray(each, np.float64) for each in found)
            return outputs, slopes

        baseline, reached, parts = _integral(along, float(np.finfo(kind).eps))
    categories, pairs = len(row.dense), len(row.dense) + len(row.categories)
    return Attribution(
        *(reached, baseline, parts[:categories], parts[categories:pairs]),
        parts[pairs : pairs + len(row.places)],
    )


def _own_table(parameters: Any, row: Entering, kind: Any) -> tuple[_Row, Any]:
    """Return a row with its own table, padded so that few shapes are compiled, and the other parameters."""
    dense = jnp.asarray(row.dense, kind)
    others = {
        name: jax.tree.map(lambda each: jnp.asarray(each, kind if each.dtype.kind == "f" else None), layer)
        for name, layer in parameters.items()
        if name != "table"
    }
    if "table" not in parameters:
        return _Row(dense, None, None, None), others
    table, categories, pairs = parameters["table"], len(row.categories), len(row.places)
    room = bucket(max(FEWEST_PAIRS, pairs)) if row.list_count else 0
    places = np.concatenate([row.categories, row.places]).astype(np.int64)
    known = np.flatnonzero(places < len(table))
    own = np.zeros((categories + room, table.shape[1]), kind)
    own[known] = table[places[known]]
    of_categories = jnp.arange(categories, dtype=np.int32)[None]
    if not row.list_count:
        return _Row(dense, jnp.asarray(own), of_categories, None), others
    strips = Strips(
        np.full((room, 1), NOWHERE, np.uint32), np.zeros((room, 1), kind), np.zeros(room, np.int32)
    )
    strips.places[:pairs, 0] = categories + np.arange(pairs)
    strips.values[:pairs, 0], strips.owners[:pairs] = row.values, row.lists
    return _Row(dense, jnp.asarray(own), of_categories, Strips(*map(jnp.asarray, strips))), others


@partial(jax.jit, static_argnames="apply")
def _along(
    apply: Callable[..., jax.Array], parameters: Any, row: _Row, output: int, shares: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the outputs where so much of a row is there, and their gradients by the share of each part."""
    width = len(row.dense)

    def at(there: jax.Array) -> jax.Array:
        dense = (there[:width] * row.dense)[None]
        if row.table is None:
            return apply(parameters, dense).reshape(-1)[output]
        table = there[width:, None] * row.table
        return apply({**parameters, "table": table}, Inputs(dense, row.places, row.strips)).reshape(-1)[
            output
        ]

    parts = width + (0 if row.table is None else len(row.table))
    everything = jnp.broadcast_to(shares[:, None], (len(shares), parts))
    found: tuple[jax.Array, jax.Array] = jax.vmap(jax.value_and_grad(at))(everything)
    return found


def _integral(
    along: Callable[[Floats], tuple[Floats, Floats]], precision: float
) -> tuple[float, float, Floats]:
    """Return the outputs at both ends of the path, and the integrals of the gradients over it."""
    size = AT_ONCE * (len(NODES) + 1)  # always as many, so that one shape is compiled
    edges = np.linspace(0.0, 1.0, AT_ONCE + 1)
    outputs = along(np.pad(edges, (0, size - len(edges)), mode="edge"))[0][: len(edges)]
    baseline, reached = float(outputs[0]), float(outputs[-1])
    allowed = max(
        TOLERANCE / FINER * max(1.0, abs(reached - baseline)),
        FINER * precision * max(1.0, float(np.abs(outputs).max())),
    )
    waiting = np.stack([edges[:-1], edges[1:], outputs[:-1], outputs[1:]], axis=1)
    total, computed = np.zeros(()), 0
    while len(waiting):
        waiting, now = waiting[:-AT_ONCE], waiting[-AT_ONCE:]
        begins, ends, at_begins, at_ends = now.T
        halves, middles = (ends - begins) / 2, (ends + begins) / 2
        shares = np.concatenate([middles, (middles[:, None] + halves[:, None] * NODES).ravel()])
        outputs, slopes = along(np.pad(shares, (0, size - len(shares)), mode="edge"))
        at_nodes = slopes[len(now) : len(shares)].reshape(len(now), len(NODES), -1)
        gained = np.einsum("i,n,inp->ip", halves, WEIGHTS, at_nodes)
        computed += len(now)
        missed = np.abs(gained.sum(axis=1) - (at_ends - at_begins))
        finished = (missed <= allowed) | (2 * halves <= NARROWEST) | (computed > MOST_INTERVALS)
        total = total + gained[finished].sum(axis=0)
        cut, at_middles = now[~finished], outputs[: len(now)][~finished]
        middles = middles[~finished]
        left = np.stack([cut[:, 0], middles, cut[:, 2], at_middles], axis=1)
        right = np.stack([middles, cut[:, 1], at_middles, cut[:, 3]], axis=1)
        waiting = np.concatenate([waiting, left, right])
    return baseline, reached, total

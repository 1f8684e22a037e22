"""Linear and multilayer models as pairs of pure functions, ``init`` and ``apply``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from steepest.errors import SteepestError, nearest

Parameters = Any
"""Any pytree of floating-point arrays."""

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
}


def as_they_are(rows: Any) -> Any:
    """Return rows as they are kept."""
    return rows


class Model(NamedTuple):
    """A model: random parameters, and the outputs that parameters give for rows.

    Attributes
    ----------
    init
        ``key -> parameters``.
    apply
        ``(parameters, features [rows, inputs], key=None) -> outputs``, ``[rows]`` for one output and
        ``[rows, outputs]`` for several. A key switches dropout on.
    takes
        ``rows -> rows`` whose ``inputs`` are those of ``apply``: packed rows with sparse features are not for
        every model as they are.
    """

    init: Callable[[jax.Array], Parameters]
    apply: Callable[..., jax.Array]
    takes: Callable[[Any], Any] = as_they_are


def glorot_uniform(key: jax.Array, inputs: int, outputs: int) -> jax.Array:
    """Draw weights from ``U(-a, a)``, ``a = √(6 / (inputs + outputs))``.

    Source: X. Glorot and Y. Bengio, *Understanding the difficulty of training deep feedforward neural
    networks*, 2010.
    """
    if not inputs:  # nothing is dense
        return jnp.zeros((0, outputs))
    return jax.nn.initializers.glorot_uniform()(key, (inputs, outputs))


def he_normal(key: jax.Array, inputs: int, outputs: int) -> jax.Array:
    """Draw weights from a normal distribution of variance ``2 / inputs``, truncated at two deviations.

    Source: K. He et al., *Delving Deep into Rectifiers*, 2015.
    """
    return jax.nn.initializers.he_normal()(key, (inputs, outputs))


def multilayer(
    inputs: int,
    hidden: Sequence[int] = (),
    outputs: int = 1,
    *,
    activation: str = "relu",
    dropout: float = 0.0,
    output_bias: npt.ArrayLike = 0.0,
) -> Model:
    """A network of dense layers; with no hidden layer, the linear model.

    Each hidden layer computes ``activation(x @ weights + bias)``; the last layer has no activation,
    because the losses take logits. Hidden layers start from He's rule (Glorot's for ``tanh``), the last
    from Glorot's.

    Parameters
    ----------
    inputs, outputs
        Number of features, and of outputs.
    hidden
        Units of each hidden layer.
    activation
        ``"relu"``, ``"tanh"`` or ``"gelu"``.
    dropout
        Share of each hidden layer's units that a training step leaves out, in [0, 1).
    output_bias
        Where the last bias starts, a number or ``[outputs]``: the baseline's output is a good place,
        because the descent then need not spend its first steps on the target's mean.

    Raises
    ------
    SteepestError
        If a size, the activation or the dropout makes no sense.

    Examples
    --------
    >>> model = multilayer(3, hidden=(4,), outputs=2)
    >>> parameters = model.init(jax.random.key(0))
    >>> model.apply(parameters, jnp.ones((5, 3))).shape
    (5, 2)
    >>> {name: layer["weights"].shape for name, layer in parameters.items()}
    {'layer_1': (3, 4), 'layer_2': (4, 2)}
    """
    if activation not in ACTIVATIONS:
        raise SteepestError(f"There is no activation {activation!r}.", hint=nearest(activation, ACTIVATIONS))
    if not 0.0 <= dropout < 1.0:
        raise SteepestError(f"Dropout must lie in [0, 1), not {dropout}.")
    sizes = (inputs, *hidden, outputs)
    if min(sizes) < 1:
        raise SteepestError(f"Every layer needs at least one unit; these were asked for: {sizes}.")
    return _layers(sizes, activation, dropout, output_bias)


def _layers(sizes: Sequence[int], activation: str, dropout: float, output_bias: npt.ArrayLike) -> Model:
    hidden, outputs = sizes[1:-1], sizes[-1]
    names = [f"layer_{number}" for number in range(1, len(sizes))]
    hidden_rule = glorot_uniform if activation == "tanh" else he_normal

    def init(key: jax.Array) -> Parameters:
        keys = jax.random.split(key, len(names))
        parameters = {}
        for index, name in enumerate(names):
            rule = hidden_rule if index < len(hidden) else glorot_uniform
            parameters[name] = {
                "weights": rule(keys[index], sizes[index], sizes[index + 1]),
                "bias": jnp.zeros(sizes[index + 1]),
            }
        last = parameters[names[-1]]
        last["bias"] = last["bias"] + jnp.asarray(np.asarray(output_bias), last["bias"].dtype)
        return parameters

    def apply(parameters: Parameters, features: jax.Array, key: jax.Array | None = None) -> jax.Array:
        values = features
        for index, name in enumerate(names[:-1]):
            values = ACTIVATIONS[activation](values @ parameters[name]["weights"] + parameters[name]["bias"])
            if dropout and key is not None:
                kept = jax.random.bernoulli(jax.random.fold_in(key, index), 1.0 - dropout, values.shape)
                values = jnp.where(kept, values / (1.0 - dropout), 0.0)
        last = parameters[names[-1]]
        result: jax.Array = values @ last["weights"] + last["bias"]
        return result[:, 0] if outputs == 1 else result

    return Model(init, apply)


def wide_and_deep(
    inputs: int,
    features: int,
    columns: int,
    hidden: Sequence[int] = (),
    outputs: int = 1,
    *,
    embedding: int = 8,
    **settings: Any,
) -> Model:
    """A model of dense and sparse features; without hidden layers, the linear model of both.

    Each sparse feature has a row of the parameter ``table``. Its last numbers are the feature's weights in
    the outputs (the wide part). Where there are hidden layers, the numbers before them are the feature's
    embedding: each column's embeddings are averaged, by the values of its features, and are further inputs
    of `multilayer` (the deep part). Weights start from 0, embeddings from ``U(-0.05, 0.05)``.

    Source: H.-T. Cheng et al., *Wide & Deep Learning for Recommender Systems*, 2016.

    Parameters
    ----------
    inputs
        Dense features.
    features
        Sparse features.
    columns
        Columns that these come from.
    hidden, outputs, settings
        See `multilayer`.
    embedding
        Numbers of an embedding.

    Examples
    --------
    >>> from steepest.data.packed import Inputs
    >>> model = wide_and_deep(2, 1000, columns=1, hidden=(4,), embedding=3)
    >>> parameters = model.init(jax.random.key(0))
    >>> parameters["table"].shape, parameters["layer_1"]["weights"].shape
    ((1000, 4), (5, 4))
    >>> model.apply(parameters, Inputs(jnp.ones((5, 2)), jnp.arange(5)[:, None])).shape
    (5,)
    """
    size = embedding if hidden else 0
    if size < 1 and hidden:
        raise SteepestError(f"An embedding has at least one number, not {embedding}.")
    if inputs + size * columns:
        deep = multilayer(inputs + size * columns, hidden, outputs, **settings)
    else:  # all of it is wide, but for the bias
        deep = _layers((0, outputs), "relu", 0.0, settings.get("output_bias", 0.0))

    def init(key: jax.Array) -> Parameters:
        embeddings = jax.random.uniform(
            jax.random.fold_in(key, 1), (features, size), minval=-0.05, maxval=0.05
        )
        table = jnp.concatenate([embeddings, jnp.zeros((features, outputs))], axis=1)
        return {"table": table, **deep.init(key)}

    def apply(parameters: Parameters, inputs: Any, key: jax.Array | None = None) -> jax.Array:
        rows = len(inputs.dense)
        embedded, wide = [inputs.dense], jnp.zeros((rows, outputs), inputs.dense.dtype)
        if inputs.places is not None and inputs.places.shape[1]:
            found = rows_of(parameters["table"], inputs.places)
            embedded.append(found[..., :size].reshape(rows, -1))
            wide += found[..., size:].sum(axis=1)
        if inputs.lists is not None:
            lists = columns - _width(inputs.places)
            sums = _sums(parameters["table"], inputs.lists, rows * lists).reshape(rows, lists, -1)
            if size:
                embedded.append(_means(sums[..., :size], inputs.lists).reshape(rows, -1))
            wide += sums[..., size:].sum(axis=1)
        result = deep.apply(parameters, jnp.concatenate(embedded, axis=1) if size else inputs.dense, key)
        return result + (wide[:, 0] if outputs == 1 else wide)

    return Model(init, apply)


def _width(places: Any) -> int:
    return 0 if places is None else int(places.shape[1])


def rows_of(table: jax.Array, places: jax.Array) -> jax.Array:
    """Return the rows of a table in these places; zeros for a place beyond all."""
    rows: jax.Array = table.at[places].get(mode="fill", fill_value=0)
    return rows


def _sums(table: jax.Array, strips: Any, lists: int) -> jax.Array:
    """Return ``Σ value · row`` of each list, ``[lists, ...]``; see `wide_and_deep`."""
    if table.shape[1] == 1:  # an axis of one would keep the sums from being vectorised
        found = (rows_of(table[:, 0], strips.places) * strips.values).sum(axis=1)
    else:
        found = (rows_of(table, strips.places) * strips.values[..., None]).sum(axis=1)
    sums: jax.Array = jax.ops.segment_sum(found, strips.owners, num_segments=lists)
    return sums


def _means(sums: jax.Array, strips: Any) -> jax.Array:
    """Return sums ``[rows, lists, ...]`` over the sums of the values."""
    lists = sums.shape[0] * sums.shape[1]
    totals = jax.ops.segment_sum(strips.values.sum(axis=1), strips.owners, num_segments=lists)
    totals = totals.reshape(sums.shape[:2])
    return sums / jnp.where(totals > 0, totals, 1)[..., None]


def linear(inputs: int, outputs: int = 1, *, output_bias: npt.ArrayLike = 0.0) -> Model:
    """The linear model, ``features @ weights + bias``: `multilayer` without hidden layers.

    Examples
    --------
    >>> linear(3).apply({"layer_1": {"weights": jnp.ones((3, 1)), "bias": jnp.ones(1)}}, jnp.ones((2, 3)))
    Array([4., 4.], dtype=float32)
    """
    return multilayer(inputs, (), outputs, output_bias=output_bias)

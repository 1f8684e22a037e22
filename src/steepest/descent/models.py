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


class Model(NamedTuple):
    """A model: random parameters, and the outputs that parameters give for rows.

    Attributes
    ----------
    init
        ``key -> parameters``.
    apply
        ``(parameters, features [rows, inputs], key=None) -> outputs``, ``[rows]`` for one output and
        ``[rows, outputs]`` for several. A key switches dropout on.
    """

    init: Callable[[jax.Array], Parameters]
    apply: Callable[..., jax.Array]


def glorot_uniform(key: jax.Array, inputs: int, outputs: int) -> jax.Array:
    """Draw weights from ``U(-a, a)``, ``a = √(6 / (inputs + outputs))``.

    Source: X. Glorot and Y. Bengio, *Understanding the difficulty of training deep feedforward neural
    networks*, 2010.
    """
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


def linear(inputs: int, outputs: int = 1, *, output_bias: npt.ArrayLike = 0.0) -> Model:
    """The linear model, ``features @ weights + bias``: `multilayer` without hidden layers.

    Examples
    --------
    >>> linear(3).apply({"layer_1": {"weights": jnp.ones((3, 1)), "bias": jnp.ones(1)}}, jnp.ones((2, 3)))
    Array([4., 4.], dtype=float32)
    """
    return multilayer(inputs, (), outputs, output_bias=output_bias)

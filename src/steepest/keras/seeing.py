"""What is seen of each layer of a Keras model, on a sample of rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
import numpy.typing as npt
from jax.flatten_util import ravel_pytree
from keras.src.layers.convolutional.base_conv import BaseConv

from steepest.diagnosis.measures import SATURATED, number
from steepest.keras.failures import listening, path_of
from steepest.keras.program import call
from steepest.keras.stored import Parameters, variables_of


def layers_of(
    model: keras.Model, parameters: Parameters, gradient: npt.NDArray[Any], batch: Any
) -> list[dict[str, Any]]:
    """Return what is seen of each layer that has weights or cuts off.

    Parameters
    ----------
    model, parameters
        The model.
    gradient
        The loss's, flat.
    batch
        A sample, of which ``features`` is looked at.

    Returns
    -------
    list of dict
        ``layer``, its path, and ``units``; where it has weights, ``weights_norm`` and ``gradient_norm``;
        where it is not the last,

        - ``backward``, if it has a bias: the root mean square over rows of
          ``|∂(Σ outputs)/∂bias|``, the outputs being those before the last layer's activation;
        - ``dead``, if it ends in a ReLU: the share of units that are zero for every row;
        - ``saturated``, if it ends in a tanh or a sigmoid: that of units near their bounds for every row.
    """
    tree = ravel_pytree(parameters)[1](jnp.asarray(gradient, jnp.float32))
    weights, gradients = (variables_of(each)[0] for each in (parameters, tree))
    places = {id(variable): index for index, variable in enumerate(model.trainable_variables)}
    seen = _look(model, parameters, batch["features"])
    biases = {
        path_of(layer): places[id(layer.bias)]
        for layer in model._flatten_layers(include_self=False)
        if id(getattr(layer, "bias", None)) in places and path_of(layer) not in seen.ends
    }
    backward = _backward(model, parameters, batch["features"], biases, seen.ends)
    found = []
    for layer in model._flatten_layers(include_self=False):
        path = path_of(layer)
        own = [each for each in layer._trainable_variables if id(each) in places and len(each.shape) > 1]
        idle = seen.idle.get(path)
        entry: dict[str, Any] = {}
        if own:
            entry["weights_norm"] = _norm([weights[places[id(each)]] for each in own])
            entry["gradient_norm"] = _norm([gradients[places[id(each)]] for each in own])
        if own and path in backward:
            entry["backward"] = backward[path]
        if idle is not None:
            entry[_bound_of(layer)] = number(idle.mean())
        if entry:
            units = own[0].shape[-1] if idle is None else len(idle)
            found.append({"layer": path, "units": int(units)} | entry)
    return found


def _norm(arrays: list[Any]) -> float | None:
    return number(np.sqrt(sum(float(np.square(np.asarray(each, np.float64)).sum()) for each in arrays)))


def _bound_of(layer: Any) -> str:
    """Return how units of a layer can be lost: "dead" or "saturated"; nothing where they can't."""
    if isinstance(layer, keras.layers.ReLU):
        return "" if layer.negative_slope else "dead"
    if not isinstance(layer, keras.layers.Dense | keras.layers.Activation | BaseConv):
        return ""
    bounds = {
        keras.activations.relu: "dead",
        keras.activations.relu6: "dead",
        keras.activations.tanh: "saturated",
        keras.activations.sigmoid: "saturated",
    }
    return bounds.get(layer.activation, "")


class _Seen(NamedTuple):
    """Which units are at their bounds for every row, by layer; and the layers that give the outputs."""

    idle: dict[str, npt.NDArray[np.bool_]]
    ends: set[str]


def _look(model: keras.Model, parameters: Parameters, x: Any) -> _Seen:
    layers = {path_of(layer): layer for layer in model._flatten_layers(include_self=False)}
    ends: set[str] = set()

    def look(parameters: Parameters, x: Any) -> dict[str, jax.Array]:
        with listening(model) as heard:
            outputs = jax.tree.leaves(call(model, *variables_of(parameters), x, training=False))
        found: dict[str, jax.Array] = {}
        for path, output in heard:
            layer = layers[path]
            if any(output is each for each in outputs):
                ends.add(path)
            elif _bound_of(layer):
                axis = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
                units = jnp.moveaxis(_is_idle(layer, output), axis, -1)
                found[path] = found.get(path, True) & units.reshape(-1, units.shape[-1]).all(axis=0)
        return found

    return _Seen({path: np.asarray(units) for path, units in jax.jit(look)(parameters, x).items()}, ends)


def _is_idle(layer: Any, output: jax.Array) -> jax.Array:
    if _bound_of(layer) == "dead":
        return output == 0
    centred = 2 * output - 1 if getattr(layer, "activation", None) is keras.activations.sigmoid else output
    return abs(centred) > SATURATED


def _backward(
    model: keras.Model, parameters: Parameters, x: Any, biases: dict[str, int], ends: set[str]
) -> dict[str, float | None]:
    """Return by layer what reaches its bias of a change of the outputs; none where these are not linear."""
    layers = [each for each in model._flatten_layers(include_self=False) if path_of(each) in ends]
    last = [each for each in layers if not getattr(each, "_layers", None)]
    if not last or not all(isinstance(each, keras.layers.Dense | BaseConv) for each in last):
        return {}
    trainable, other = variables_of(parameters)

    def outputs(chosen: dict[str, Any], trainable: list[Any], other: list[Any], row: Any) -> jax.Array:
        values = list(trainable)
        for path, value in chosen.items():
            values[biases[path]] = value
        single = jax.tree.map(lambda array: array[None], row)
        with _linear(last):
            said = jax.tree.leaves(call(model, values, other, single, training=False))
        return jnp.stack([jnp.sum(each).astype(jnp.float32) for each in said]).sum()

    def norms(chosen: dict[str, Any], trainable: list[Any], other: list[Any], x: Any) -> dict[str, jax.Array]:
        slopes = jax.vmap(jax.grad(outputs), (None, None, None, 0))(chosen, trainable, other, x)
        return {path: jnp.sqrt((each**2).sum(axis=1).mean()) for path, each in slopes.items()}

    chosen = {path: trainable[place] for path, place in biases.items()}
    return {path: number(norm) for path, norm in jax.jit(norms)(chosen, trainable, other, x).items()}


@contextmanager
def _linear(layers: list[Any]) -> Iterator[None]:
    """Let layers return what comes before their activation."""
    before = [layer.__dict__["activation"] for layer in layers]
    for layer in layers:
        layer.__dict__["activation"] = keras.activations.linear
    try:
        yield
    finally:
        for layer, activation in zip(layers, before, strict=True):
            layer.__dict__["activation"] = activation

"""The compiled descent of a Keras model: one scan over windows of batches around Keras' stateless functions.

Who owns what: Keras owns the model, the loss, the metrics and the optimizer, and each of their formulas;
this module owns the scan. What a step computes is what `keras.Model.train_step` computes, operation for
operation, so that the weights agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
from keras.src.trainers.data_adapters import data_adapter_utils

from steepest.descent.watching import ALL, Seen, norms
from steepest.keras.convolution import lay_out

Variables = list[jax.Array]

State = tuple[Variables, ...]
"""Values of the trainable, the other, the optimizer's and the metrics' variables, in Keras' own order."""

Parts = tuple[Any, ...]
"""Windows ``(x, y, sample_weight)`` that one program runs over; every array is ``[steps, rows, ...]``."""

Windows = Callable[[State, Parts], tuple[State, Any]]
"""Takes the steps of windows; returns the state after them, and what they leave behind."""

GROUPS = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")


class Record(NamedTuple):
    """What the steps of some windows leave behind.

    Attributes
    ----------
    losses
        Each step's loss ``[steps]``, as the gradient was taken of it (regularisation included).
    logs
        The metrics' values after the last step, as Keras' ``train_step`` returns them.
    finite
        Whether all trainable variables are finite after the last step.
    """

    losses: jax.Array
    logs: dict[str, jax.Array]
    finite: jax.Array


@dataclass(frozen=True)
class Program:
    """The compiled windows of a model as it was compiled and frozen at one time.

    Attributes
    ----------
    train
        ``(state, parts) -> (state, record)``.
    test
        ``(state, parts) -> (state, logs)``.
    look
        ``(state, part) -> update ratios`` of the first step of a window: see `steepest.descent.watching`.
    made_of
        What these depend on besides their arguments; if it changes, they have to be compiled anew.
    """

    train: Callable[[State, Parts], tuple[State, Record]]
    test: Callable[[State, Parts], tuple[State, dict[str, jax.Array]]]
    look: Callable[[State, Any], Seen]
    made_of: tuple[Any, ...]


def program_of(model: keras.Model, compiled: Callable[[Windows], Windows] = jax.jit) -> Program:
    """Return the model's compiled windows, from the last call if nothing has changed since.

    Like Keras, the program is kept on the model, so that a second `fit` does not compile again.

    Parameters
    ----------
    model
        The model, compiled and built.
    compiled
        Compiles what runs over windows.
    """
    made_of = (
        model._loss_tracker,  # a new one with every compile()
        *(model.optimizer, model.run_eagerly, model.jit_compile, compiled),
        *map(id, model.trainable_variables),
    )
    known: Program | None = model.__dict__.get("_steepest_program")
    if known is not None and known.made_of == made_of:
        return known
    look = jax.jit(_look(model))
    if compiles(model):
        program = Program(compiled(_train(model, _scan)), compiled(_test(model, _scan)), look, made_of)
    else:
        program = Program(_train(model, _loop), _test(model, _loop), look, made_of)
    model.__dict__["_steepest_program"] = program  # past Keras, which would track it as a part of the model
    return program


def compiles(model: keras.Model) -> bool:
    """Tell whether the user wants steps compiled (``run_eagerly=True`` is for debugging)."""
    return bool(model.jit_compile) and not model.run_eagerly


def _scan(step: Callable[..., Any], state: Any, part: Any) -> tuple[Any, Any]:
    """Do what `jax.lax.scan` does, at full speed also where steps convolve."""
    return jax.lax.scan(lay_out(step) if jax.default_backend() == "cpu" else step, state, part)


def _loop(step: Callable[..., Any], state: Any, part: Any) -> tuple[Any, Any]:
    """Do what `jax.lax.scan` does, in Python."""
    kept = []
    for at in range(len(jax.tree.leaves(part)[0])):
        state, each = step(state, jax.tree.map(lambda array, at=at: array[at], part))
        kept.append(each)
    return state, jax.tree.map(lambda *each: jnp.stack(each), *kept)


def state_of(model: keras.Model) -> State:
    """Return the values of a model's variables."""
    state: State = model._get_jax_state(**dict.fromkeys(GROUPS, True))
    return state


def call(model: keras.Model, trainable: Variables, other: Variables, x: Any, *, training: bool) -> Any:
    """Return the model's output for rows; a model's own ``call`` need not know of training."""
    known = {"training": training} if model._call_has_training_arg else {}
    return model.stateless_call(trainable, other, x, **known)[0]


def hand_over(model: keras.Model, state: State) -> None:
    """Let the model fetch these values when it needs them, as Keras' own loop does."""
    # Past Keras, which would look for parts of the model in them.
    model.__dict__.update(_jax_state=dict(zip(GROUPS, state, strict=True)), _jax_state_synced=False)


def put_back(model: keras.Model, state: State) -> None:
    """Assign these values to the model's variables."""
    hand_over(model, state)
    model.jax_state_sync()
    model._jax_state = None


def layer_of(variable: Any) -> str:
    """Return the path of the layer that a variable belongs to."""
    return str(variable.path.rpartition("/")[0] or variable.name)


def inherits(model: keras.Model, *methods: str) -> bool:
    """Tell whether the model takes these methods from Keras as they are."""
    return all(getattr(type(model), name) is getattr(keras.Model, name) for name in methods)


def asks_metrics(model: keras.Model, step: str) -> bool:
    """Tell whether a step says what the metrics say, so that it is enough to ask them once a window."""
    return inherits(model, step, "compute_metrics", "get_metrics_result")


def take_step(model: keras.Model, state: State, batch: Any) -> tuple[State, jax.Array, dict[str, jax.Array]]:
    """Do what Keras' ``train_step`` does, and keep the batch's loss, of which Keras keeps a running mean."""
    if not inherits(model, "train_step"):
        logs, state = model.train_step(state, batch)
        return state, jnp.asarray(logs.get("loss", jnp.nan)), logs
    trainable, other, optimizer, metrics = state
    x, y, sample_weight = data_adapter_utils.unpack_x_y_sample_weight(batch)
    (_, (loss, prediction, other, metrics)), gradients = jax.value_and_grad(
        model.compute_loss_and_updates, has_aux=True
    )(trainable, other, metrics, x, y, sample_weight, training=True, optimizer_variables=optimizer)
    trainable, optimizer = model.optimizer.stateless_apply(optimizer, gradients, trainable)
    logs, metrics = model._update_metrics_variables(metrics, loss, x, y, prediction, sample_weight)
    return (trainable, other, optimizer, metrics), loss, logs


def _result(model: keras.Model, metrics: Variables) -> dict[str, jax.Array]:
    """Return what the metrics say, given their variables' values."""
    mapping = zip(model.metrics_variables, metrics, strict=True)
    with keras.StatelessScope(state_mapping=mapping):
        result: dict[str, jax.Array] = model.get_metrics_result()
    return result


def _like(state: State, after: Any) -> State:
    """Return a state that a model's own step returned, as a scan needs it: in the very same containers."""
    like: State = jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(after))
    return like


def _last(logs: list[Any]) -> Any:
    return jax.tree.map(lambda steps: steps[-1], logs[-1])


def _train(model: keras.Model, scan: Callable[..., Any]) -> Callable[[State, Parts], tuple[State, Record]]:
    from_metrics = asks_metrics(model, "train_step")

    def step(state: State, batch: Any) -> tuple[State, Any]:
        after, loss, logs = take_step(model, state, batch)
        return _like(state, after), (loss, None if from_metrics else logs)

    def train(state: State, parts: Parts) -> tuple[State, Record]:
        losses, logs = [], []
        for part in parts:
            state, (each, kept) = scan(step, state, part)
            losses.append(each)
            logs.append(kept)
        finite = [jnp.isfinite(value).all() for value in state[0]]
        said = _result(model, state[3]) if from_metrics else _last(logs)
        return state, Record(jnp.concatenate(losses), said, jnp.array(finite).all())

    return train


def _test(
    model: keras.Model, scan: Callable[..., Any]
) -> Callable[[State, Parts], tuple[State, dict[str, jax.Array]]]:
    from_metrics = asks_metrics(model, "test_step")

    def step(carry: State, batch: Any) -> tuple[State, Any]:
        logs, after = model.test_step(carry, batch)
        return _like(carry, after), None if from_metrics else logs

    def test(state: State, parts: Parts) -> tuple[State, dict[str, jax.Array]]:
        trainable, other, optimizer, metrics = state
        logs = []
        for part in parts:
            (trainable, other, metrics), kept = scan(step, (trainable, other, metrics), part)
            logs.append(kept)
        said = _result(model, metrics) if from_metrics else _last(logs)
        return (trainable, other, optimizer, metrics), said

    return test


def _look(model: keras.Model) -> Callable[[State, Any], Seen]:
    """Return what repeats the first step of a window and tells how far it goes, by layer and in all."""
    layers = [layer_of(variable) for variable in model.trainable_variables]

    def lengths(values: Variables) -> Seen:
        tree: dict[str, Variables] = {}
        for layer, value in zip(layers, values, strict=True):
            tree.setdefault(layer, []).append(value)
        return norms(tree)

    def look(state: State, part: Any) -> Seen:
        after, _, _ = take_step(model, state, jax.tree.map(lambda array: array[0], part))
        moved = lengths([new - old for new, old in zip(after[0], state[0], strict=True)])
        return {
            "update_ratio" if layer == ALL else f"update_ratio.{layer}": moved[layer] / length
            for layer, length in lengths(state[0]).items()
        }

    return look

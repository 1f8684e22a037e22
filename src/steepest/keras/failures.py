"""A step of a Keras model that is not finite: which step, which layer, which rows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pandas as pd
from keras.src.trainers.data_adapters import data_adapter_utils

from steepest.errors import SteepestError
from steepest.keras.program import Parts, Program, Record, State, call, inherits, layer_of
from steepest.keras.rows import Stretch, first_steps

SHOWN = 5
"""Rows that an error names."""


class Blame(NamedTuple):
    """What in a step was the first that was not finite.

    Attributes
    ----------
    what
        ``"loss"``, ``"gradient"`` or ``"parameters"``.
    layer
        The path of the layer; empty where it is not one layer's doing.
    rows
        The places in the batch of the rows that are not finite by themselves, else of all.
    says
        The same for a person.
    """

    what: str
    layer: str
    rows: np.ndarray
    says: str


class NotFiniteError(SteepestError):
    """A step of a Keras model was not finite.

    Attributes
    ----------
    blame, batch, rows
        What is to blame, and the batch ``(x, y, sample_weight)`` with the numbers of its rows; the blame is
        ``None`` where the data is not finite.
    epoch
        Where it was, from 1.
    steps
        The table of all steps, that one the last.
    """

    def __init__(
        self, what: str, hint: str, blame: Blame | None, batch: tuple[Any, Any, Any], rows: np.ndarray
    ) -> None:
        super().__init__(what, hint=hint)
        self.blame, self.batch, self.rows = blame, batch, rows
        self.epoch = 0
        self.steps = pd.DataFrame()


class Failure(NamedTuple):
    """A step that was not finite.

    Attributes
    ----------
    error
        What is to be raised.
    at
        The step's number in its stretch.
    state
        The model's state before that step; ``None`` where the data is to blame, so that none of it counts.
    """

    error: NotFiniteError
    at: int
    state: State | None


def first_not_finite(record: Record) -> int | None:
    """Return the first step whose loss is not finite, the last one if only the weights are not, or none.

    A model's own ``train_step`` need not tell a loss.
    """
    wrong = np.flatnonzero(~np.isfinite(np.asarray(record.losses)))
    if len(wrong) and "loss" in record.logs:
        return int(wrong[0])
    return None if record.finite else len(record.losses) - 1


def scales_its_loss(model: keras.Model) -> bool:
    """Tell whether the optimizer itself skips steps that are not finite, and so expects them."""
    return isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


def replay(program: Program, state: State, parts: Parts, count: int) -> tuple[State, Record | None]:
    """Take the first steps of these windows once more."""
    return program.train(state, first_steps(parts, count)) if count else (state, None)


def explain(
    model: keras.Model, program: Program, before: State, stretch: Stretch, at: int, epoch: int
) -> Failure:
    """Find out what was not finite in step ``at`` of a stretch that began at the state ``before``."""
    at = _sound_steps(program, before, stretch.parts, at)
    state, _ = replay(program, before, stretch.parts, at)
    batch, rows = _batch(stretch, at)
    where = f"step {stretch.first + at + 1:,} of epoch {epoch + 1:,}"
    for name, values in zip(("x", "y", "sample_weight"), batch, strict=True):
        wrong = _rows_not_finite(values, len(rows))
        if len(wrong):
            what = f"At {where} the loss is not finite, because {name} is not: {_named(rows[wrong])}."
            hint = "Fill or drop these values; the model's weights are as they were before."
            return Failure(NotFiniteError(what, hint, None, batch, rows), at, None)
    blame = _blame(model, state, batch, rows)
    what = f"The descent is not finite at {where}: {blame.says}."
    hint = "Try a lower learning rate or clipnorm; the model keeps its weights from before that step."
    return Failure(NotFiniteError(what, hint, blame, batch, rows), at, state)


def _sound_steps(program: Program, before: State, parts: Parts, at: int) -> int:
    """Return after how many steps, ``at`` or fewer, the weights are still finite."""

    def is_lost(count: int) -> bool:
        _, record = replay(program, before, parts, count)
        return record is not None and not record.finite

    if not is_lost(at):
        return at
    if not is_lost(at - 1):  # usual: the loss is a victim of the step before
        return at - 1
    return bisect_left(range(at), True, key=is_lost) - 1


def _batch(stretch: Stretch, at: int) -> tuple[tuple[Any, Any, Any], np.ndarray]:
    """Return one step's batch and the numbers of its rows."""
    index = at
    for part in stretch.parts:
        steps = len(jax.tree.leaves(part)[0])
        if index < steps:
            batch = jax.tree.map(lambda array, index=index: np.asarray(array[index]), part)
            break
        index -= steps
    x, y, sample_weight = data_adapter_utils.unpack_x_y_sample_weight(batch)
    rows = stretch.rows[at] if stretch.rows else np.arange(len(jax.tree.leaves(x)[0]))
    return (x, y, sample_weight), np.asarray(rows)


def _rows_not_finite(tree: Any, count: int) -> np.ndarray:
    """Return the places of the rows in which an array of the tree is not finite."""
    wrong = np.zeros(count, bool)
    for leaf in jax.tree.leaves(tree):
        array = np.asarray(leaf)
        if jnp.issubdtype(array.dtype, jnp.floating) and array.shape[:1] == (count,):
            wrong |= ~np.isfinite(array.astype(np.float32)).reshape(count, -1).all(axis=1)
    return np.flatnonzero(wrong)


def _named(rows: np.ndarray) -> str:
    """Name some rows, counted from 0.

    Examples
    --------
    >>> _named(np.array([3, 1, 2]))
    'rows 1, 2, 3'
    >>> _named(np.arange(7))
    'rows 0, 1, 2, 3, 4 and 2 more'
    """
    shown = ", ".join(str(row) for row in np.sort(rows)[:SHOWN])
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f"row{'s' * (len(rows) > 1)} {shown}{more}"


def _blame(model: keras.Model, state: State, batch: tuple[Any, Any, Any], rows: np.ndarray) -> Blame:
    """Find which layer's output, gradient or weights are the first that are not finite."""
    x, y, sample_weight = batch
    with listening(model) as heard:
        call(model, state[0], state[1], x, training=True)
    for path, output in heard:
        wrong = _rows_not_finite(output, len(rows))
        if len(wrong):
            says = f"the output of layer {path!r} is not, for {_named(rows[wrong])}"
            return Blame("loss", path, wrong, says)
    every, named = np.arange(len(rows)), _named(rows)
    if not inherits(model, "train_step"):  # what it does with the outputs is its own
        says = f"every layer's output is, but its own train_step's result is not, for {named}"
        return Blame("loss", "", every, says)
    (loss, _), gradients = jax.value_and_grad(model.compute_loss_and_updates, has_aux=True)(
        *(state[0], state[1], state[3], x, y, sample_weight), training=True, optimizer_variables=state[2]
    )
    if not np.isfinite(loss):
        says = f"the loss is {float(loss)}, though every layer's output is finite, for {named}"
        return Blame("loss", "", every, says)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        if not np.isfinite(np.asarray(gradient, np.float32)).all():
            says = f"the gradient of {variable.path!r} is not, for {named}"
            return Blame("gradient", layer_of(variable), every, says)
    trainable, _ = model.optimizer.stateless_apply(state[2], gradients, state[0])
    for variable, value in zip(model.trainable_variables, trainable, strict=True):
        if not np.isfinite(np.asarray(value, np.float32)).all():
            says = f"the step makes {variable.path!r} infinite, for {named}"
            return Blame("parameters", layer_of(variable), every, says)
    return Blame("loss", "", every, f"a loss was not, for {named}")


def path_of(layer: Any) -> str:
    """Return a layer's place in its model; of layers that Keras gives none, the name."""
    return str(layer.path or layer.name)


@contextmanager
def listening(model: keras.Model) -> Iterator[list[tuple[str, Any]]]:
    """Collect the layers' outputs, innermost and earliest first."""
    heard: list[tuple[str, Any]] = []
    layers = list(model._flatten_layers(include_self=False))
    for layer in layers:

        def listen(*arguments: Any, _layer: Any = layer, _call: Any = layer.call, **named: Any) -> Any:
            output = _call(*arguments, **named)
            heard.append((path_of(_layer), output))
            return output

        layer.__dict__["call"] = listen
    try:
        yield heard
    finally:
        for layer in layers:
            layer.__dict__.pop("call", None)

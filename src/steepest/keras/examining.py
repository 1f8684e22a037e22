"""What a diagnosis asks of a Keras model: the loss of each row, the layers, and samples of the rows.

The parameters of a model are here ``{"trainable": {"0": ...}, "other": {"0": ...}}``, as a run stores them;
the other variables (moving averages, frozen weights) go along without being descended on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
from keras.src.trainers.data_adapters import data_adapter_utils

from steepest.data.order import generator
from steepest.data.padded import Padded, taken
from steepest.descent.failure import WORST, Cause, Failure
from steepest.descent.watching import ALL
from steepest.diagnosis.course import course
from steepest.diagnosis.examination import EXAMINING, MEASURED, Descended, examine_descent, target_of
from steepest.diagnosis.measures import Objective
from steepest.keras.failures import NotFiniteError, listening
from steepest.keras.program import State, call, inherits, layer_of, state_of
from steepest.keras.rows import Rows
from steepest.keras.rules import Value, as_rule, rates_of, scale_of
from steepest.keras.seeing import layers_of
from steepest.keras.sparse import embeddings_of
from steepest.keras.stored import Parameters, variables_of

MOST_OUTPUTS = 2**26
"""Outputs of a model's layers for the rows of a sample, at most."""

MEAN_LOSSES = ("sum_over_batch_size", "mean")
"""Reductions with which a batch's loss is the mean of its rows' losses."""

NUMBERS = ("mean_squared_error", "mean_absolute_error", "huber", "log_cosh")
"""Losses of which the target is a number, whose scale is that of the gradient."""


def parameters_of(state: State) -> Parameters:
    """Return the values of a state's first two groups."""
    return {
        name: {str(index): np.asarray(value) for index, value in enumerate(values)}
        for name, values in zip(("trainable", "other"), state, strict=False)
    }


def why_unmeasured(model: keras.Model) -> str:
    """Say why no loss of single rows is known of a model; nothing if it is.

    Examples
    --------
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"))
    >>> why_unmeasured(model)
    "its loss is no mean over the rows of a batch (its reduction is 'sum')"
    """
    if not inherits(model, "train_step"):
        return "it has a train_step of its own"
    for loss in keras.tree.flatten(model.loss):
        reduction = getattr(loss, "reduction", "mean")
        if reduction not in MEAN_LOSSES:
            return f"its loss is no mean over the rows of a batch (its reduction is {reduction!r})"
    return ""


def objective_of(model: keras.Model) -> Objective:
    """Return the loss of each row, as compiled, without dropout; penalties of layers are in each."""
    metrics = [variable.value for variable in model.metrics_variables]

    def losses(parameters: Parameters, batch: Any) -> jax.Array:
        trainable, other = variables_of(parameters)
        other = jax.tree.map(jax.lax.stop_gradient, other)

        def one(row: Any) -> jax.Array:
            single = jax.tree.map(lambda array: array[None], row)
            parts = (single[name] for name in ("features", "target", "weights"))
            _, (loss, *_) = model.compute_loss_and_updates(trainable, other, metrics, *parts, training=False)
            return jnp.asarray(loss, jnp.float32)

        return jax.vmap(one)(batch)

    return losses


def scales_of(model: keras.Model, parameters: Parameters, value: Value) -> Parameters | None:
    """Return what the optimizer multiplies a gradient by; 0 for what it does not descend on.

    Parameters
    ----------
    model, parameters
        The model.
    value
        Tells the values of the optimizer's variables.
    """
    scale = scale_of(model.optimizer, value)
    if scale is None:
        return None
    return {
        "trainable": {str(index): np.asarray(each, np.float32) for index, each in enumerate(scale)},
        "other": {name: np.zeros(np.shape(each), np.float32) for name, each in parameters["other"].items()},
    }


def sample_of(
    model: keras.Model, rows: Rows, seed: int, among: npt.NDArray[np.int64] | None = None
) -> dict[str, Any] | None:
    """Return at most `MEASURED` rows, drawn with the seed, of all or of some; none from a stream.

    Of a model whose layers say much of a row there are fewer.
    """
    if rows.blocks is None:
        return None
    count = rows.blocks.rows if among is None else len(among)
    arrays: Any = rows.blocks.arrays

    def batch(chosen: npt.NDArray[np.int64]) -> dict[str, Any]:
        chosen = chosen if among is None else among[chosen]
        x, y, weights = data_adapter_utils.unpack_x_y_sample_weight(
            jax.tree.unflatten(rows.shape_like, [taken(array, chosen) for array in arrays])
        )
        return {"features": x, "target": y, "weights": weights}

    longest = max((array.shape[1] for array in arrays if isinstance(array, Padded)), default=0)
    outputs = _outputs_of_a_row(model, batch(np.arange(1))["features"]) + longest * sum(
        layer.size for layer in embeddings_of(model)
    )
    most = min(MEASURED, max(1, MOST_OUTPUTS // outputs))
    if count <= most:
        return batch(np.arange(count))
    return batch(np.sort(generator(seed, EXAMINING).choice(count, most, replace=False)))


def _outputs_of_a_row(model: keras.Model, row: Any) -> int:
    state = state_of(model)

    def outputs(x: Any) -> list[Any]:
        with listening(model) as heard:
            call(model, state[0], state[1], x, training=False)
        return [output for _, output in heard]

    return 1 + sum(int(leaf.size) for leaf in jax.tree.leaves(jax.eval_shape(outputs, row)))


def descended_of(
    model: keras.Model,
    start: State,
    steps: pd.DataFrame,
    epochs: pd.DataFrame,
    batch_size: int,
    rows: int,
    failure: Mapping[str, Any] | None = None,
) -> Descended:
    """Return what an examination needs to know of a descent that has led to where the model stands.

    Parameters
    ----------
    model, start
        The model, and its state before.
    steps, epochs
        See `steepest.Result`; the steps with their rates.
    batch_size, rows
        Rows of a batch and of the training data.
    failure
        See `Descended`.
    """
    end = parameters_of(state_of(model))
    together = getattr(model.optimizer, "gradient_accumulation_steps", None) or 1
    return Descended(
        objective=objective_of(model),
        start=parameters_of(start),
        end=end,
        rule=as_rule(model.optimizer),
        optimizer_state=scales_of(model, end, lambda variable: variable.value),
        steps=steps,
        epochs=epochs,
        batch_size=batch_size * together,
        rows=rows,
        failure=failure,
        layers=lambda parameters, gradient, batch: layers_of(model, parameters, gradient, batch),
    )


def failure_of(model: keras.Model, error: NotFiniteError) -> Failure:
    """Return the step that was not finite, of a model that stands before it; its first step was the first."""
    blame, steps = error.blame, error.steps
    assert blame is not None  # noqa: S101 - the data is finite
    x, y, weights = error.batch
    parameters, worst, losses = parameters_of(state_of(model)), blame.rows, np.zeros(0)
    if not why_unmeasured(model):
        batch = {"features": x, "target": y, "weights": weights}
        every = np.asarray(objective_of(model)(parameters, batch))
        # Those that are not finite come first, and then those of great losses.
        worst = worst[np.argsort(-np.nan_to_num(every[worst], nan=np.inf), kind="stable")]
        losses = every[worst[:WORST]]
    largest: dict[str, float] = {}
    for variable in model.trainable_variables:
        layer = layer_of(variable)
        size = float(np.abs(np.asarray(variable.value, np.float32)).max(initial=0))
        largest[layer] = max(size, largest.get(layer, 0.0))
    layer = blame.layer or max(largest, key=lambda name: largest[name], default=ALL)
    rate = float(rates_of(model.optimizer, 1, len(steps) - 1)[0])
    return Failure(
        step=len(steps),
        epoch=error.epoch,
        loss=float(steps["loss"].iloc[-1]),
        gradient_norm=math.nan,
        learning_rate=rate,
        rows=error.rows,
        cause=Cause(blame.what, layer, largest.get(layer, 0.0), error.rows[worst[:WORST]], losses),
    )


def examine(
    model: keras.Model,
    start: State,
    history: keras.callbacks.History,
    rows: Rows,
    held_out: Rows | None,
    taken: int,
    seed: int,
) -> dict[str, Any]:
    """Return the evidence of a call of `fit`: see `steepest.diagnosis.findings`.

    Rows that are a stream, or a model whose loss of a row is not known, leave the course alone.

    Parameters
    ----------
    model, start, history
        The model, its state before, and what the call returns.
    rows, held_out
        What it was trained and validated on.
    taken
        Steps that the optimizer had taken before.
    seed
        Draws the samples.
    """
    steps = history.steps.assign(learning_rate=_rates(model, history, taken))
    if not len(steps):
        return {}
    epochs = pd.DataFrame(
        {name.replace("val_", "validation_", 1): values for name, values in _by_epoch(history).items()}
    )
    if rows.blocks is None or (why := why_unmeasured(model)):
        why = "the rows are a stream" if rows.blocks is None else why
        return {"course": course(steps, epochs), "unmeasured": why}
    descended = descended_of(model, start, steps, epochs, rows.blocks.batch_size, rows.blocks.rows)
    sample = sample_of(model, rows, seed)
    evidence = examine_descent(descended, sample, held_out and sample_of(model, held_out, seed), seed)
    target = jax.tree.leaves(sample["target"]) if sample else []
    if len(target) == 1 and _loss_name(model.loss) in NUMBERS:
        evidence["target"] = target_of("number", target[0])
    return evidence


def _loss_name(loss: Any) -> str:
    """Return the full name of a loss, by whatever it was named in `compile`."""
    loss = keras.losses.get(loss) if isinstance(loss, str) else loss
    return str(getattr(loss, "name", None) or getattr(loss, "__name__", ""))


def _by_epoch(history: keras.callbacks.History) -> dict[str, list[float]]:
    """Return the figures that each epoch has."""
    return {name: values for name, values in history.history.items() if len(values) == len(history.epoch)}


def _rates(model: keras.Model, history: keras.callbacks.History, taken: int) -> npt.NDArray[Any]:
    """Return each step's rate; where callbacks of Keras' own changed it, as they wrote down."""
    written, steps = history.history.get("learning_rate"), history.steps
    if written and len(written) == steps["epoch"].nunique():
        return np.asarray(written, np.float64)[pd.factorize(steps["epoch"])[0]]
    return rates_of(model.optimizer, len(steps), taken)

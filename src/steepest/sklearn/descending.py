"""One descent of an estimator: from encoded rows to parameters, and to what the next descent goes on from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from steepest.callbacks import Callback
from steepest.data.packed import PackedRows
from steepest.descent.losses import Loss
from steepest.descent.models import Model
from steepest.descent.optimizers import LINE_SEARCH, default_rate
from steepest.descent.standing import Standing
from steepest.diagnosis.learning_rate import find_learning_rate
from steepest.errors import SteepestError
from steepest.minimization import minimize
from steepest.networks import inputs_of, lookups_in, optimizer_of, shape_of
from steepest.prediction import outputs_of
from steepest.prepared import Rows
from steepest.result import Result
from steepest.run import Shape
from steepest.settings import AUTO, Settings
from steepest.training import epochs_for

Floats = npt.NDArray[np.floating[Any]]


@lru_cache
def model_of(shape: Shape) -> Model:
    """Return the model of a shape: always the same functions, so that nothing is compiled for it twice."""
    return shape.build()


@dataclass(frozen=True)
class RowLoss:
    """The loss of each row, summed over its outputs; equal for equal shapes, so that it compiles once."""

    shape: Shape
    loss: Loss

    def __call__(self, parameters: Any, batch: Any, key: jax.Array | None = None) -> jax.Array:
        """Return the losses of a batch, ``[rows]``."""
        outputs = model_of(self.shape).apply(parameters, inputs_of(batch), key)
        losses = self.loss.per_row(outputs, batch["target"])
        return losses if losses.ndim == 1 else losses.sum(axis=1)


class Memory(NamedTuple):
    """What the next descent goes on from; NumPy's arrays and plain values.

    Attributes
    ----------
    standing
        Where the last one ended.
    learning_rate
        The highest rate of its schedule.
    rows, epochs
        Those that the schedule was made for.
    """

    standing: Standing
    learning_rate: float
    rows: int
    epochs: int


class Descended(NamedTuple):
    """What a descent led to: the model's shape, its parameters (NumPy's arrays), result, and memory."""

    shape: Shape
    parameters: Any
    result: Result
    memory: Memory


def begin(shape: Shape, bias: Floats, seed: int) -> Any:
    """Draw a model's first parameters; those of a linear model are zero, but for its bias."""
    if shape.hidden:
        drawn = jax.jit(model_of(shape).init)(jax.random.key(seed))
    else:
        drawn = jax.eval_shape(model_of(shape).init, jax.random.key(seed))
        drawn = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), drawn)
    parameters = jax.tree.map(np.array, drawn)
    parameters[f"layer_{len(shape.hidden) + 1}"]["bias"] += bias.astype(np.float32)
    return parameters


def descend(
    settings: Settings,
    loss: Loss,
    bias: Callable[[], Floats],
    training: Rows,
    validation: Rows | None = None,
    *,
    outputs: int,
    count: int,
    start: Any = None,
    before: Memory | None = None,
    until: int | None = None,
    callbacks: Sequence[Callback] = (),
) -> Descended:
    """Descend from the start, or go on.

    Parameters
    ----------
    settings
        How.
    loss, outputs
        What is minimised, and the model's outputs.
    bias
        Gives the outputs that a model begins with.
    training, validation
        The rows, and those that each epoch is judged by.
    count
        How many rows there were to learn from, before equal ones were added up.
    start
        Parameters to begin with; ``None`` draws them.
    before
        What an earlier descent left, to go on from.
    until
        The last epoch, counted from the first descent's beginning; ``None`` for what the settings say.
    callbacks
        Are told.

    Raises
    ------
    SteepestError
        If a step is not finite, or the settings don't go together.
    """
    layout = training.features.layout
    planned = (before.rows, before.epochs) if before else (count, epochs_for(settings, count))
    shape = shape_of(settings, layout, settings.hidden if settings.model == "mlp" else (), outputs)
    first = begin(shape, bias(), settings.seed)
    if start is None:
        start = first
    elif jax.tree.map(np.shape, start) != jax.tree.map(np.shape, first):
        raise SteepestError(
            "The layers that were fitted are of other sizes.", hint="Leave hidden and embedding as they were."
        )
    penalised = jax.tree.map(lambda leaf: float(leaf.ndim > 1), start)  # weights, not biases
    asked: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "epochs": until or planned[1],
        "tolerance": settings.tolerance if until is None else 0.0,
        "seed": settings.seed,
        "weights": training.weights,
        "lookups": lookups_in(settings, training.data),
        "l1": jax.tree.map(lambda counted: settings.l1 * counted, penalised),
        "l2": jax.tree.map(lambda counted: settings.l2 * counted, penalised),
    }
    make = partial(optimizer_of, rows=planned[0], epochs=planned[1], sparse=layout.sparse > 0)
    objective = RowLoss(shape, loss)
    rate = settings.learning_rate
    if rate == AUTO and before:
        rate = before.learning_rate
    elif rate == AUTO:
        how = asked | {"epochs": planned[1], "tolerance": settings.tolerance, "optimizer": make(settings)}
        rate = _found(settings.optimizer, partial(find_learning_rate, objective, start, training.data, **how))
    result = minimize(
        objective,
        start,
        training.data,
        **asked,
        optimizer=make(replace(settings, learning_rate=float(rate))),
        validation_data=validation.data if validation else None,
        validation_weights=validation.weights if validation else None,
        patience=settings.patience,
        standing=before.standing if before else None,
        callbacks=callbacks,
    )
    if result.failure:
        raise SteepestError(
            f"The descent diverged: {result.failure}.", hint="Try a lower learning_rate, or clip_norm=1."
        )
    memory = Memory(_plain(result.standing), float(rate), *planned)
    return Descended(shape, jax.tree.map(np.asarray, result.parameters), result, memory)


def _found(optimizer: str, search: Callable[[], Any]) -> float:
    """Return the rate that a search finds, or else the rule's own."""
    if optimizer == LINE_SEARCH:
        return default_rate(optimizer)
    choice = search().choice
    return default_rate(optimizer) if choice is None else float(choice)


def _plain(standing: Standing) -> Standing:
    """Return a standing of NumPy's arrays, without the history."""
    best = standing.best._replace(parameters=jax.tree.map(np.asarray, standing.best.parameters))
    plain = replace(standing, best=best, history=type(standing.history)(let_go=standing.recorded), good=None)
    return plain.with_states(lambda state: jax.tree.map(np.asarray, state))


def outputs(shape: Shape, parameters: Any, features: PackedRows) -> Floats:
    """Return a model's outputs in double precision, ``[rows]`` or ``[rows, outputs]``."""
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), parameters)
        return outputs_of(model_of(shape), double, features)

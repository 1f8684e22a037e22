"""`minimize`: gradient descent on any JAX function, with or without data.

Who owns what: this module turns what the caller gave into arrays, a compiled program and windows of
batches; `steepest.descent.loop` runs them; `Result` is what the caller gets.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from steepest.arguments import (
    as_array,
    batch_size_of,
    check_numbers,
    check_parameters,
    row_count,
    row_weights,
    strengths,
)
from steepest.callbacks import Callback, notifier
from steepest.data.blocks import Blocks, Window, prefetch
from steepest.descent import state as states
from steepest.descent.epoch import Batches, Constants, Program
from steepest.descent.loop import Descent, Failure, Outcome, Pace, Validation, descend
from steepest.descent.optimizers import Optimizer, as_optimizer
from steepest.errors import SteepestError

if TYPE_CHECKING:
    import pandas as pd

Parameters = Any

Windows = Generator[Window, None, None]

VALIDATION_ROWS = 256
"""Rows that are validated at a time."""

ROW_WEIGHTS = "Row weights need an objective that returns one loss for each row of the batch."

CHUNK = 256
"""Steps of a function without data that run between two looks at the clock."""


@dataclass(frozen=True)
class Result:
    """What a descent found and how it went.

    Attributes
    ----------
    parameters
        The parameters at the end: after the last step, or the last good ones if a step was not finite.
    why_it_stopped
        One sentence.
    converged
        Whether the loss or the gradient's norm came within the tolerance.
    failure
        The step that was not finite, if one was.
    steps
        Number of steps that were looked at.
    seconds
        Time from call to return, compilation included.
    """

    parameters: Parameters
    why_it_stopped: str
    converged: bool
    failure: Failure | None
    steps: int
    seconds: float
    _outcome: Outcome = field(repr=False)

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row for each step: step and epoch (from 1), loss, gradient_norm, learning_rate."""
        import pandas as pd

        steps = self._outcome.history.steps(self.steps)
        return pd.DataFrame({"step": np.arange(1, self.steps + 1)} | steps)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """A row for each epoch: its rows, mean loss, rate, validation figures and seconds."""
        import pandas as pd

        return pd.DataFrame(self._outcome.history.epochs)


@dataclass(frozen=True)
class _Objective:
    """The caller's function as ``(parameters, batch, key)``; equal for equal functions."""

    function: Callable[..., jax.Array]
    takes_data: bool
    takes_key: bool

    def __call__(self, parameters: Parameters, batch: Any, key: jax.Array | None) -> jax.Array:
        data = (batch,) if self.takes_data else ()
        return self.function(parameters, *data, **({"key": key} if self.takes_key else {}))


def minimize(  # noqa: PLR0913 - a front end's settings, each with its default
    objective: Callable[..., jax.Array],
    parameters: Parameters,
    data: Any = None,
    *,
    optimizer: Optimizer | optax.GradientTransformation | str = "adam",
    batch_size: int | str = 32,
    epochs: int = 10,
    tolerance: float = 1e-6,
    seed: int = 0,
    weights: Any = None,
    shuffle: bool = True,
    l1: Any = 0.0,
    l2: Any = 0.0,
    validation_data: Any = None,
    validation_weights: Any = None,
    metrics: Mapping[str, Callable[..., jax.Array]] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Minimise an objective by gradient descent: batch, mini-batch or stochastic.

    Each epoch visits every row once, in an order that is a function of ``(seed, epoch, rows)``, and is
    one compiled program. The descent stops when the loss changes by at most ``tolerance`` of itself five
    times running (steps for batch descent, epochs otherwise), when batch descent's gradient has a norm
    of at most ``tolerance``, at the last epoch, or at a step that is not finite; `Result` says which.

    Parameters
    ----------
    objective
        ``objective(parameters)`` without data, ``objective(parameters, batch)`` with it. It returns one
        loss for each row of the batch, or a single number. With one loss a row, the descent minimises
        their weighted mean, ``Σ wᵢ lossᵢ / Σ wᵢ``, and fills a short last batch with rows of weight 0;
        with a single number, a short last batch is a step of its own shape. If the function has a
        parameter named ``key``, it gets a random key in each training step and ``None`` in validation.
    parameters
        Where to start: any pytree of floating-point arrays.
    data
        A pytree of arrays with the rows as their first axis; each batch is shaped like it.
    optimizer
        ``steepest.Adam(0.001)`` and its like, with a number or a schedule as learning rate; a name, for
        its defaults; or any Optax transformation.
    batch_size
        Rows of a step: 1 is stochastic descent, ``"all"`` is batch descent.
    epochs
        The most epochs to run; without data, the most steps.
    tolerance
        See above; 0 looks for no change at all.
    seed
        Decides the order of rows and the random keys.
    weights
        Row weights ``[rows]``, not negative; needs an objective with one loss a row.
    shuffle
        Whether each epoch has an order of its own; if not, rows are visited as they are.
    l1, l2
        Penalties ``Σ l1·|θ| + Σ l2·θ²``: a number for all parameters, or a pytree of numbers or arrays
        like the parameters. L1 is a proximal step, so that weights become exactly zero.
    validation_data, validation_weights
        Rows on which the loss (with penalties) is measured after each epoch, and their weights.
    metrics
        More to measure on them, by name: ``metric(parameters, batch)``, a number or one for each row.
    callbacks
        See `steepest.Callback`.

    Returns
    -------
    Result

    Raises
    ------
    SteepestError
        If the arguments don't fit each other. A step that is not finite raises nothing: see
        `Result.failure`.

    Examples
    --------
    The minimum of ``(a - 1)² + 2 (b + 3)²``:

    >>> import steepest
    >>> result = steepest.minimize(lambda p: (p["a"] - 1) ** 2 + 2 * (p["b"] + 3) ** 2,
    ...                            {"a": 0.0, "b": 0.0}, optimizer=steepest.SGD(0.2), epochs=100)
    >>> {name: round(float(value), 4) for name, value in result.parameters.items()}
    {'a': 1.0, 'b': -3.0}
    >>> result.why_it_stopped
    "converged at step ...: the gradient's norm, ..., is within 1e-06"
    """
    began = time.perf_counter()
    rule = as_optimizer(optimizer)
    call = _Objective(objective, data is not None, "key" in inspect.signature(objective).parameters)
    start = check_parameters(parameters)
    check_numbers(epochs=epochs, seed=seed, tolerance=tolerance)
    if data is None:
        _check_single_number(call, start)
        _refuse_without("data", weights=weights, validation_data=validation_data)
        windows, pace = _chunks(epochs, tolerance, 1 if rule.schedule.plateau else CHUNK)
    else:
        windows, pace = _batches(call, start, data, weights, batch_size, seed, shuffle, epochs, tolerance)
    if validation_data is None:
        _refuse_without("validation_data", validation_weights=validation_weights, metrics=metrics)
    program, state, constants = _compile_parts(call, start, rule, seed, pace, l1, l2)
    validation = _validation(call, start, validation_data, validation_weights, metrics)
    notify = notifier(callbacks)
    notify("descent_begin", epochs=pace.epochs, rows=0 if data is None else row_count(data))
    outcome = descend(Descent(program, constants, rule.schedule, pace, validation, notify), state, windows)
    windows.close()
    result = Result(
        parameters=program.unravel(outcome.state.parameters),
        why_it_stopped=outcome.why,
        converged=int(outcome.state.status) in (states.LOSS_CONVERGED, states.GRADIENT_CONVERGED),
        failure=outcome.failure,
        steps=outcome.steps,
        seconds=time.perf_counter() - began,
        _outcome=outcome,
    )
    notify("descent_end", result=result)
    return result


def _check_single_number(call: _Objective, start: Parameters) -> None:
    shape = getattr(jax.eval_shape(call, start, None, jax.random.key(0)), "shape", None)
    if shape != ():
        raise SteepestError(f"Without data the objective must return a single number; its shape is {shape}.")


def _refuse_without(missing: str, **given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise SteepestError(f"{name} is of no use without {missing}.")


def _named(returned: Any) -> str:
    shape = getattr(returned, "shape", None)
    return f"a {type(returned).__name__}" if shape is None else f"the shape {shape}"


def _chunks(steps: int, tolerance: float, chunk: int) -> tuple[Windows, Pace]:
    """Cut a descent without data into windows whose batches are empty."""
    chunk = min(chunk, steps)
    pace = Pace(-(-steps // chunk), chunk, 1, tolerance, whole=True, limit=f"the last step ({steps:,})")

    def windows() -> Windows:
        for first in range(0, steps, chunk):
            real = np.arange(first, first + chunk)[:, None] < steps
            yield Window((), real.astype(np.float32), np.full(real.shape, -1))

    return windows(), pace


def _batches(
    call: _Objective,
    start: Parameters,
    data: Any,
    weights: Any,
    batch_size: int | str,
    seed: int,
    shuffle: bool,
    epochs: int,
    tolerance: float,
) -> tuple[Windows, Pace]:
    """Cut data into windows of batches."""
    arrays, shape_like = jax.tree.flatten(jax.tree.map(as_array, data))
    rows = row_count(data)
    size = batch_size_of(batch_size, rows)
    padded = _one_loss_per_row(call, start, data, min(size, rows))
    if weights is not None and not padded:
        raise SteepestError(ROW_WEIGHTS)
    shuffle = shuffle and size < rows
    blocks = Blocks(tuple(arrays), row_weights(weights, rows), size, seed, shuffle, padded)
    count = len(blocks.shapes())
    limit, weightless = f"the last epoch ({epochs:,})", weights is not None and not np.all(weights)
    pace = Pace(epochs, blocks.steps, count, tolerance, size >= rows, limit, weightless)

    def shaped(window: Window) -> Window:
        return window._replace(arrays=jax.tree.unflatten(shape_like, window.arrays))

    if shuffle or count > 1:
        return prefetch(map(shaped, blocks.epochs(0, epochs))), pace
    window = shaped(next(blocks.epochs(0, 1)))
    resident = window._replace(arrays=jax.device_put(window.arrays))  # it never changes
    return (resident for _ in range(epochs)), pace


def _compile_parts(
    call: _Objective, start: Parameters, rule: Optimizer, seed: int, pace: Pace, l1: Any, l2: Any
) -> tuple[Program, states.State, Constants]:
    """Return what is compiled, where it starts, and its constants.

    Rules that work element by element run on one flat vector: fewer and larger operations a step.
    """
    first, second = strengths("l1", l1, start), strengths("l2", l2, start)
    if first is not None and rule.preconditioner is None:
        raise SteepestError(
            f"L1 needs one of Steepest's own update rules; the proximal step of {rule.name!r} is not known.",
            hint="Use steepest.Adam(...) or its like, or put |θ| into the objective.",
        )
    position: Any = start
    unravel: Callable[[Any], Any] = _as_it_is
    if rule.preconditioner is not None:
        position, unravel = ravel_pytree(start)
        first, second = (None if each is None else ravel_pytree(each)[0] for each in (first, second))
    program = Program(call, rule.transformation, rule.preconditioner, unravel)
    # A rule's state may hold one array twice, but each is given to the compiled epoch for good.
    memory = jax.tree.map(partial(jnp.array, copy=True), rule.transformation.init(position))
    state = states.start(position, memory)
    tolerance = jnp.asarray(pace.tolerance, state.loss.dtype) if pace.whole else None
    limit = None if rule.clip_norm is None else jnp.asarray(rule.clip_norm, state.loss.dtype)
    return program, state, Constants(jax.random.key(seed), tolerance, limit, first, second)


def _as_it_is(parameters: Parameters) -> Parameters:
    return parameters


def _validation(
    call: _Objective,
    start: Parameters,
    data: Any,
    weights: Any,
    metrics: Mapping[str, Callable[..., jax.Array]] | None,
) -> Validation | None:
    """Put the validation rows on the device, in batches where the objective allows it."""
    if data is None:
        return None
    arrays, shape_like = jax.tree.flatten(jax.tree.map(as_array, data))
    rows = row_count(data)
    size = min(rows, VALIDATION_ROWS)
    by_row = _one_loss_per_row(call, start, data, size)
    batch = _shape_of_batch(data, size)
    shapes = [jax.eval_shape(metric, start, batch).shape for metric in (metrics or {}).values()]
    if weights is not None and not by_row:
        raise SteepestError(ROW_WEIGHTS)
    if not by_row or () in shapes:
        size = rows  # a single number can't be averaged over batches, of which one is padded
    blocks = Blocks(tuple(arrays), row_weights(weights, rows), size, shuffle=False)
    windows = [jax.tree.map(np.copy, window) for window in blocks.epochs(0, 1)]
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *windows)
    rows_like = jax.tree.unflatten(shape_like, whole.arrays)
    batches = Batches(rows_like, whole.weights, np.zeros(len(whole.weights), np.float32))
    return Validation(jax.device_put(batches), dict(metrics or {}))


def _shape_of_batch(data: Any, size: int) -> Any:
    """Return what a batch of so many rows looks like, without its values."""

    def one(leaf: Any) -> jax.ShapeDtypeStruct:
        array = np.asarray(leaf)
        dtype = jax.dtypes.canonicalize_dtype(array.dtype)
        shaped: jax.ShapeDtypeStruct = jax.eval_shape(partial(jnp.zeros, (size, *array.shape[1:]), dtype))
        return shaped

    return jax.tree.map(one, data)


def _one_loss_per_row(call: _Objective, start: Parameters, data: Any, size: int) -> bool:
    """Tell whether the objective returns a loss for each row (or one number); anything else is an error."""
    returned = jax.eval_shape(call, start, _shape_of_batch(data, size), jax.random.key(0))
    shape = getattr(returned, "shape", None)
    if shape not in ((), (size,)):
        raise SteepestError(
            f"For a batch of {size} rows the objective returned {_named(returned)}.",
            hint=f"It must return a single number or one loss for each row, ({size},).",
        )
    return bool(shape == (size,))

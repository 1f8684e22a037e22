"""Finding the learning rate for a Keras model: `steepest.find_learning_rate`, over the model's own steps.

Its variables and its optimizer's get an axis for the rates that are tried; a step is Keras' own, vectorised
over that axis. Nothing is written back, so nothing needs to be restored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
import numpy.typing as npt
from keras.src.layers.convolutional.base_conv import BaseConv
from keras.src.trainers.data_adapters import array_slicing
from keras.src.utils.rng_utils import get_random_seed

from steepest.descent.sweep import judged
from steepest.diagnosis.curvature import largest_curvature, stability
from steepest.diagnosis.learning_rate import CURVATURE_KEY, CURVATURE_ROWS, MOST_ROWS
from steepest.diagnosis.one_by_one import SEEN
from steepest.diagnosis.rates import (
    FEWEST_STEPS,
    VARIANTS,
    Grid,
    RateSearch,
    horizon,
    search,
    too_short,
)
from steepest.keras.convolution import lay_out
from steepest.keras.examining import objective_of, parameters_of, sample_of, scales_of, why_unmeasured
from steepest.keras.failures import scales_its_loss
from steepest.keras.fitting import check, steps_taken
from steepest.keras.program import State, call, compiles, state_of, take_step
from steepest.keras.rows import Rows, as_arrays, rows_of
from steepest.keras.rules import as_rule, rates_of, schedule_of
from steepest.keras.sparse import embeddings_of

MOST_BYTES = 2**24
"""What a model's weights may take where there are sparse features: each rate that is tried at once has a
copy, of the optimizer's variables as well."""

Floats = npt.NDArray[np.floating[Any]]


def find_learning_rate(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    *,
    batch_size: int | None = None,
    epochs: int = 1,
    validation_split: float = 0.0,
    shuffle: bool | Literal["batch"] = True,
    class_weight: dict[int, float] | None = None,
    sample_weight: Any = None,
    seed: int | None = None,
) -> RateSearch:
    """Find the learning rate with which `steepest.keras.fit` would reach the lowest loss.

    All rates take the model's own steps, over the rows in their order, as one vectorised program, from where
    the model and its optimizer stand. Nothing of the model, of its optimizer or of any random generator is
    changed; set ``model.optimizer.learning_rate = search.choice`` to use the choice. Of a schedule in the
    optimizer only the shape counts: the rates are its highest.

    Parameters
    ----------
    model
        A Keras model, compiled.
    x, y, batch_size, epochs, validation_split, shuffle, class_weight, sample_weight, seed
        As in `steepest.keras.fit`, of the descent that is planned. Rows that it would hold out are not used.

    Returns
    -------
    RateSearch
        Its ``choice`` is ``None`` where the data does not decide, or where the model can't be tried: ``why``
        says why.

    Raises
    ------
    SteepestError, ValueError
        As `steepest.keras.fit`, if the model can't be trained or the arguments don't go together.
    """
    check(model)
    if validation_split:
        x, y, sample_weight = (as_arrays(each) for each in (x, y, sample_weight))
        (x, y, sample_weight), _ = array_slicing.train_validation_split(
            (x, y, sample_weight), validation_split=validation_split
        )
    seed = next(each for each in (seed, get_random_seed(), 0) if each is not None)
    rows = rows_of(
        *(x, y, sample_weight),
        batch_size=batch_size,
        shuffle=shuffle,
        class_weight=class_weight,
        seed=seed,
        taken=steps_taken(model),
    )
    return search_over(model, rows, epochs, seed)


def search_over(model: keras.Model, rows: Rows, epochs: int, seed: int) -> RateSearch:
    """Find the learning rate for a descent over these rows: see `find_learning_rate`."""
    if why := why_untried(model, rows):
        return RateSearch(None, why)
    planned = (rows.steps or 0) * epochs
    if planned < FEWEST_STEPS:
        return too_short(planned)
    taken = steps_taken(model)
    rows.build(model)
    try:
        return _search(model, rows, planned, taken, seed)
    finally:
        rows.close()


def why_untried(model: keras.Model, rows: Rows) -> str:
    """Say why several rates can't be tried on a model; nothing if they can."""
    if not compiles(model):
        return "the model runs step by step in Python, as compile(run_eagerly, jit_compile) says"
    if scales_its_loss(model):
        return "its optimizer scales the loss and leaves steps out"
    if rows.blocks is None:
        return "the rows are a stream, which can't be gone through again; pass arrays"
    weights = sum(variable.value.nbytes for variable in model.trainable_variables)
    if rows.is_sparse and weights > MOST_BYTES:
        return f"its embeddings take {weights / 2**20:,.0f} MiB, too much for {VARIANTS} rates at once"
    return why_unmeasured(model)


class _Trial(NamedTuple):
    """What all rates have in common.

    Attributes
    ----------
    model, rows
        What is trained on what.
    begins
        Passes over the rows before.
    start
        The model's state.
    shape
        Each step's rate over the highest, ``[steps]``.
    sample
        The rows by which rates are judged.
    run
        ``(state, metrics, part, rates) -> (state, losses)``, compiled.
    measure
        ``(parameters, sample) -> losses [K]``, compiled.
    key
        Draws Lanczos' first vector.
    """

    model: keras.Model
    rows: Rows
    begins: int
    start: State
    shape: Floats
    sample: Any
    run: Callable[..., Any]
    measure: Callable[..., Any]
    key: jax.Array


def _search(model: keras.Model, rows: Rows, planned: int, taken: int, seed: int) -> RateSearch:
    sample = sample_of(model, rows, seed)
    assert rows.blocks is not None  # noqa: S101 - `why_untried` looked
    batch_size = min(rows.blocks.batch_size, rows.blocks.rows, MOST_ROWS)
    steps = horizon(planned, batch_size, _multiplications(model, sample, batch_size))
    if rows.is_sparse:
        steps = max(1, min(steps, int(SEEN * rows.blocks.steps)))
        sample = sample_of(model, rows, seed, _unseen(rows, steps))
    count = len(jax.tree.leaves(sample)[0])
    mean = _mean(model)
    trial = _Trial(
        *(model, rows, rows.passes, jax.tree.map(np.array, state_of(model))),
        shape=_shape(model, planned, steps, taken),
        sample=sample,
        run=jax.jit(_steps(model)),
        measure=jax.jit(lambda each, sample: jax.lax.map(lambda one: mean(one, sample), each)),
        key=jax.random.fold_in(jax.random.key(seed), CURVATURE_KEY),
    )
    begun = float(trial.measure(parameters_of(_repeated(trial.start)), sample)[0])
    return search(partial(_reach, trial, mean), begun, steps, planned, count)


def _mean(model: keras.Model) -> Callable[[Any, Any], jax.Array]:
    objective = objective_of(model)

    def mean_loss(parameters: Any, batch: Any) -> jax.Array:
        return jnp.mean(objective(parameters, batch))

    return mean_loss


def _unseen(rows: Rows, steps: int) -> npt.NDArray[np.int64] | None:
    """Return numbers of rows that the first steps do not see; ``None`` where they see all of them.

    What rows have in sparse features can be learned by heart, so rates are judged by others.
    """
    assert rows.blocks is not None  # noqa: S101 - `why_untried` looked
    first, found = steps * rows.blocks.batch_size, np.empty(0, np.int64)
    for some in rows.blocks.order(rows.passes):
        found = np.append(found, some[first:])[:MOST_ROWS]
        first = max(0, first - len(some))
        if len(found) == MOST_ROWS:
            break
    return np.sort(found) if len(found) else None


def _multiplications(model: keras.Model, sample: Any, batch_size: int) -> int:
    """Return how many a row takes, at least as many as there are weights: convolutions take more.

    The tables of sparse features are moved by each step, and not multiplied by each row.
    """
    tables = {id(layer.table) for layer in embeddings_of(model)}
    sizes = [(math.prod(each.shape), id(each) in tables) for each in model.trainable_variables]
    size = sum(each // batch_size if is_table else each for each, is_table in sizes)
    state, row = state_of(model), jax.tree.map(lambda array: array[:1], sample["features"])
    outputs = jax.jit(lambda trainable, other: call(model, trainable, other, row, training=False))
    counted: Any = outputs.lower(*state[:2]).cost_analysis()
    return int(max(size, (counted or {}).get("flops", 0) // 2))


def _shape(model: keras.Model, planned: int, steps: int, taken: int) -> Floats:
    """Return the schedule's rates over its highest, compressed to fewer steps."""
    if schedule_of(model.optimizer) is None:
        return np.ones(steps)
    rates = rates_of(model.optimizer, planned, taken)
    return np.asarray(rates[np.arange(steps) * planned // steps] / rates.max())


def _repeated(state: State) -> State:
    """Return a state with an axis of `VARIANTS` before all others."""
    repeated: State = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (VARIANTS, *np.shape(leaf))), state)
    return repeated


def _steps(model: keras.Model) -> Callable[..., Any]:
    """Return a window of steps of all variants.

    Convolutions of several kernels at once are slow: there, a step is one variant's after the other's.
    """
    convolves = any(isinstance(each, BaseConv) for each in model._flatten_layers(include_self=False))

    def run(state: State, metrics: Any, part: Any, rates: jax.Array) -> Any:
        def step(state: State, inputs: Any) -> Any:
            batch, rates = inputs

            def one(state: State, rate: jax.Array) -> Any:
                with _rate(model.optimizer, rate):
                    (*after, _), loss, _ = take_step(model, (*state, metrics), batch)
                return tuple(after), jnp.asarray(loss, jnp.float32)

            if convolves:
                alone = lay_out(one) if jax.default_backend() == "cpu" else one
                return jax.lax.map(lambda each: alone(*each), (state, rates))
            return jax.vmap(one)(state, rates)

        return jax.lax.scan(step, state, (part, rates))

    return run


@contextmanager
def _rate(optimizer: Any, rate: jax.Array) -> Iterator[None]:
    """Let an optimizer take steps at this rate while it is traced."""
    optimizer.__dict__["_get_current_learning_rate"] = lambda: rate  # past Keras, which tracks attributes
    try:
        yield
    finally:
        del optimizer.__dict__["_get_current_learning_rate"]


def _parts(trial: _Trial) -> Iterator[Any]:
    """Yield the windows of the first steps; a short last batch, which would be compiled anew, is left out."""
    rows, steps, done = trial.rows, len(trial.shape), 0
    rows.close()
    rows.passes = trial.begins
    assert rows.blocks is not None  # noqa: S101 - `why_untried` looked
    width = min(rows.blocks.batch_size, rows.blocks.rows)
    while True:
        for stretch in rows.epoch(None):
            for part in stretch.parts:
                size, held = jax.tree.leaves(part)[0].shape[:2]
                if held < width:
                    continue
                count = min(size, steps - done)
                yield jax.tree.map(lambda array, count=count: array[:count, :MOST_ROWS], part)
                done += count
                if done == steps:
                    return


def _reach(trial: _Trial, mean: Callable[..., jax.Array], rates: Floats) -> Grid:
    """Descend with each rate, and see what it reached."""
    *start, metrics = trial.start
    state: Any = _repeated(tuple(start))
    at, losses = 0, []
    for part in _parts(trial):
        count = len(jax.tree.leaves(part)[0])
        each = np.asarray(trial.shape[at : at + count, None] * rates, np.float32)
        state, found = trial.run(state, metrics, part, each)
        losses.append(np.asarray(found).T)  # waits, since the window's arrays are filled anew
        at += count
    swept = judged(state, np.concatenate(losses, axis=1))
    reached = np.asarray(trial.measure(parameters_of(state), trial.sample), np.float64)
    reached = np.where((swept.failed_at > 0) | ~np.isfinite(reached), np.nan, reached)
    state = jax.tree.map(np.asarray, state)
    return Grid(rates, reached, swept.losses, partial(_limit, trial, mean, state))


def _limit(
    trial: _Trial, mean: Callable[..., jax.Array], state: State, index: int
) -> tuple[float | None, float | None]:
    """Return the curvature where a rate led to, and the largest rate that is stable there."""
    constant = stability(as_rule(trial.model.optimizer))
    if constant is None or trial.rows.is_sparse:
        return None, None
    trainable, other, memory = jax.tree.map(lambda leaf: leaf[index], state)
    values = dict(zip(map(id, trial.model.optimizer.variables), memory, strict=True))
    parameters = parameters_of((trainable, other))
    scale = scales_of(trial.model, parameters, lambda variable: values[id(variable)])
    stride = max(1, len(jax.tree.leaves(trial.sample)[0]) // CURVATURE_ROWS)
    rows = jax.tree.map(lambda array: array[::stride][:CURVATURE_ROWS], trial.sample)
    found = largest_curvature(mean, parameters, rows, scale, key=trial.key).value
    if not math.isfinite(found):
        return None, None
    return found, constant / found if found > 0 else None

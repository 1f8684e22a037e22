"""`fit`: what `keras.Model.fit` takes and returns, over a descent whose epochs are compiled.

Who owns what: this module looks at the arguments; `steepest.keras.rows` knows which rows a batch holds,
`steepest.keras.program` what a step computes, and `steepest.keras.loop` what happens when.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import jax
import keras
import numpy as np
from keras.src.backend import config
from keras.src.trainers.data_adapters import array_slicing, data_adapter_utils
from keras.src.utils.rng_utils import get_random_seed

from steepest.descent.room import make_room
from steepest.errors import SteepestError
from steepest.keras.hooks import Watches, needs_each_batch
from steepest.keras.loop import Fit, run
from steepest.keras.program import compiles, inherits, program_of, state_of
from steepest.keras.resume import Backup, take_backup
from steepest.keras.rows import Rows, as_arrays, rows_of

log = logging.getLogger(__name__)


def fit(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: str | int = "auto",
    callbacks: Any = None,
    validation_split: float = 0.0,
    validation_data: Any = None,
    shuffle: bool | Literal["batch"] = True,
    class_weight: dict[int, float] | None = None,
    sample_weight: Any = None,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    validation_freq: int | list[int] = 1,
    seed: int | None = None,
    diagnose: bool = False,
) -> keras.callbacks.History:
    """Train a compiled Keras model as `keras.Model.fit` does, each epoch as one compiled program.

    Parameters
    ----------
    model
        Any Keras model, compiled.
    x, y, batch_size, epochs, verbose, callbacks, validation_split, validation_data, shuffle, class_weight, \
    sample_weight, initial_epoch, steps_per_epoch, validation_steps, validation_batch_size, validation_freq
        As in `keras.Model.fit`. ``x`` and ``y`` may also be Polars frames and Arrow tables.
    seed
        Decides the order of rows; by default the seed given to `keras.utils.set_random_seed`, else 0. The
        order of a pass depends on how many passes the model's optimizer has made before, so that two calls
        of one epoch visit the rows as one call of two epochs does.
    diagnose
        Whether to say afterwards why the descent went as it did, in ``history.findings``: a list of
        ``{"finding", "severity", "evidence", "where", "try"}``, errors first, empty if all is well. What they
        rest on is in ``history.evidence``, see `steepest.diagnosis.findings`; it is measured on at most 4,096
        rows. At every 1024th step or so ``history.steps`` then has ``update_ratio``, the norm of the applied
        update over that of the weights, and ``update_ratio.LAYER``; NaN at the others. No bit of what is
        trained depends on it.

    Returns
    -------
    keras.callbacks.History
        Keras' own, with every step's loss as a table in ``history.steps``: epoch and step from 1, loss.

    Raises
    ------
    SteepestError
        If a step is not finite (it says which step, layer and rows); if the batch size is not positive or
        there are no rows; if a backup belongs to another descent.
    ValueError
        In Keras' own words, if the arguments or the shapes do not go together.
    """
    check(model)
    if validation_split and validation_data is None:
        x, y, sample_weight = (as_arrays(each) for each in (x, y, sample_weight))
        (x, y, sample_weight), validation_data = array_slicing.train_validation_split(
            (x, y, sample_weight), validation_split=validation_split
        )
    seed = next(each for each in (seed, get_random_seed(), 0) if each is not None)
    taken = steps_taken(model)
    rows = rows_of(
        *(x, y, sample_weight),
        batch_size=batch_size,
        steps=steps_per_epoch,
        shuffle=shuffle,
        class_weight=class_weight,
        seed=seed,
        taken=taken,
    )
    held_out: Rows | None = None
    if validation_data is not None:
        size = validation_batch_size or batch_size
        parts = data_adapter_utils.unpack_x_y_sample_weight(validation_data)
        held_out = rows_of(*parts, batch_size=size, steps=validation_steps)
    with _begun(model, rows, held_out, callbacks, verbose, _fewest(epochs), validation_freq) as descent:
        descent.watches |= diagnose
        history = run(descent, initial_epoch)
        if diagnose:
            _diagnose(descent, history, taken, seed)
        return history


def fit_over(
    model: keras.Model, rows: Rows, held_out: Rows | None, callbacks: Any, epochs: int
) -> keras.callbacks.History:
    """Train a compiled model on rows that gather themselves; see `steepest.keras.rows.rows_over`."""
    check(model)
    with _begun(model, rows, held_out, callbacks, 0, epochs, 1) as descent:
        return run(descent, 0)


@contextmanager
def _begun(model: keras.Model, rows: Rows, held_out: Rows | None, *how: Any) -> Iterator[Fit]:
    """Build the model and give its descent; close the rows in the end."""
    make_room()
    rows.build(model)
    try:
        yield begin(model, rows, held_out, *how)
    finally:
        for each in (rows, held_out):
            if each is not None:
                each.close()


def _diagnose(descent: Fit, history: keras.callbacks.History, taken: int, seed: int) -> None:
    """Let the history have the evidence and the findings."""
    from steepest.diagnosis.findings import findings
    from steepest.keras.examining import examine

    history.evidence = examine(
        *(descent.model, descent.start, history, descent.rows, descent.held_out, taken, seed)
    )
    history.findings = findings(history.evidence) if history.evidence else []


def check(model: keras.Model) -> None:
    """Refuse a model that can't be trained."""
    model._assert_compile_called("fit")
    if model.optimizer is None:
        raise SteepestError("The model was compiled without an optimizer.", hint="Name one in compile().")
    if inherits(model, "train_step") and not _knows_its_weights(model):
        raise SteepestError(
            "The optimizer was made for other weights than are trainable now: was a layer frozen or added?",
            hint="Call compile() again, with a new optimizer.",
        )
    if keras.distribution.distribution() is not None:
        raise SteepestError(
            "A keras.distribution is set, and Steepest trains on one device.",
            hint="Unset it, or train with keras.Model.fit.",
        )


def _knows_its_weights(model: keras.Model) -> bool:
    """Tell whether the optimizer's own variables, if it has them yet, belong to the model's weights."""
    optimizer = model.optimizer
    return not optimizer.built or [*map(id, optimizer._trainable_variables)] == [
        *map(id, model.trainable_variables)
    ]


def _fewest(epochs: int) -> int:
    """Return the number of epochs, capped as Keras' own setting for trial runs says."""
    cap = config.max_epochs()
    if not cap or epochs <= cap:
        return epochs
    warnings.warn(f"Limiting epochs to {cap}", stacklevel=3)
    return int(cap)


def steps_taken(model: keras.Model) -> int:
    """Return the steps that the model's optimizer has taken."""
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return int(inner._iterations) if inner.built else 0


def begin(
    model: keras.Model,
    rows: Rows,
    held_out: Rows | None,
    callbacks: Any,
    verbose: str | int,
    epochs: int,
    validation_freq: int | list[int],
) -> Fit:
    """Return the descent of a model that is built; look at what the callbacks ask for."""
    given = callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else callbacks
    others, backup = take_backup(keras.tree.flatten(given) if given else [])
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.callbacks = others
    else:
        callbacks = keras.callbacks.CallbackList(
            others,
            add_history=True,
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=epochs,
            steps=rows.steps,
            model=model,
        )
    stride = _stride(model, callbacks.callbacks, backup)
    # A copy, because Keras' own evaluate() and predict() take the variables' arrays over.
    start = jax.tree.map(np.array, state_of(model))
    quiet = any(isinstance(each, keras.callbacks.TerminateOnNaN) for each in callbacks.callbacks)
    watches = any(isinstance(each, Watches) for each in callbacks.callbacks)
    return Fit(
        *(model, program_of(model), rows, held_out, callbacks, epochs, validation_freq),
        *(stride, start, quiet, backup, watches),
    )


def _stride(model: keras.Model, callbacks: list[Any], backup: Backup | None) -> int | None:
    """Return how many steps run between two looks of the callbacks; ``None`` for as many as fit."""
    names = needs_each_batch(callbacks)
    if names:
        steps = int(model.steps_per_execution)
        every = "every batch" if steps == 1 else f"every {steps} batches"
        log.warning(
            "The descent stops at %s, because %s asks for it; without, an epoch is one program and faster.",
            *(every, ", ".join(names)),
        )
        return steps
    if not compiles(model):
        return 1
    return backup.every if backup else None

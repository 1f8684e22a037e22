"""Proving on a run's own data that a descent which is interrupted ends with the same bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from steepest import networks
from steepest.callbacks import Callback
from steepest.checkpoints import contents
from steepest.combining import read_settings
from steepest.data.order import generator
from steepest.descent.loop import Interrupted
from steepest.errors import SteepestError
from steepest.passes import Known
from steepest.preparation import prepare
from steepest.prepared import Prepared
from steepest.run import Run
from steepest.sealed import Arrays
from steepest.settings import Settings
from steepest.trained import MODELS

FEWEST_STEPS, FEWEST_WINDOWS = 300, 4
"""What is trained, at least; a descent is interrupted between windows of steps."""

MOST_EPOCHS = 500

VERIFYING = 0x7E51
"""The purpose of the stream that draws where to interrupt."""


class Place(NamedTuple):
    """Where a window ends: its epoch, from 1, and the epoch's rows so far."""

    epoch: int
    rows: int


class _Until(Callback):
    """Interrupts a descent at a place, or once enough windows and steps are over; remembers the places."""

    def __init__(self, batch_size: int, place: Place | None = None) -> None:
        self.batch_size, self.place = batch_size, place
        self.places: list[Place] = []
        self.rows_of_epoch = 0

    def on_descent_begin(self, epochs: int, rows: int) -> None:  # noqa: ARG002
        self.rows_of_epoch = rows

    def steps(self, place: Place) -> int:
        """Return the steps up to a place."""
        each = -(-self.rows_of_epoch // self.batch_size)
        return (place.epoch - 1) * each + -(-place.rows // self.batch_size)

    def on_window_end(self, epoch: int, rows: int, loss: float) -> None:  # noqa: ARG002
        self.places.append(Place(epoch, rows))
        enough = len(self.places) > FEWEST_WINDOWS and self.steps(self.places[-2]) >= FEWEST_STEPS
        if enough if self.place is None else self.places[-1] == self.place:
            raise Interrupted


def verify(run: Run, *, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Train the beginning of a run twice, once interrupted at a random place, and compare the bytes.

    The parameters, the update rule's memory, every counter and the history of each are compared.

    Returns
    -------
    dict
        ``steps``, ``interrupted_after`` (steps), ``compared`` (bytes) and ``says``, a sentence.

    Raises
    ------
    SteepestError
        If a byte differs, the data can't be read any more, or the model is one of Keras.
    """
    settings = replace(Settings(), **read_settings(str(run.path / "settings.toml")))
    if settings.model not in MODELS:
        raise SteepestError(
            f"{run.name} has a Keras model; only linear and mlp are verified so.",
            hint="Interrupt a fit of it and compare model.safetensors with this one's.",
        )
    settings = replace(
        settings, learning_rate=run.record["descent"]["learning_rate"]
    )  # it may have been found
    known = Known(run.task, run.plan)
    prepared = prepare(settings, known=known)
    size = prepared.facts["split"]["training_rows"]
    watch = _Until(size if settings.batch_size == "all" else int(settings.batch_size))
    with tempfile.TemporaryDirectory() as folder:
        whole = _descend(settings, prepared, Path(folder, "whole"), [watch, *callbacks])
        ends = watch.places[-1]
        drawn = generator(settings.seed, VERIFYING).integers(1, max(2, len(watch.places) - 1))
        between = watch.places[min(int(drawn), len(watch.places) - 1)]
        for place in (between, ends):
            again = _Until(watch.batch_size, place)
            resumed = _descend(settings, prepared, Path(folder, "resumed"), [again, *callbacks])
    differing = [
        name for name in whole.keys() | resumed.keys() if _bytes(whole, name) != _bytes(resumed, name)
    ]
    if differing:
        raise SteepestError(
            f"The resumed descent differs in {len(differing)} of {len(whole)} arrays: {differing[0]!r}, ...",
            hint="Please report this: it is a defect, or the machine computes differently each time.",
        )
    steps, after = watch.steps(ends), watch.steps(between)
    compared = sum(array.nbytes for array in whole.values())
    says = f"{steps:,} steps, interrupted after {after:,} and resumed: all {compared:,} bytes are the same."
    return {
        "steps": steps,
        "interrupted_after": after,
        "compared": compared,
        "says": says,
    }


def _descend(settings: Settings, prepared: Prepared, folder: Path, callbacks: Sequence[Callback]) -> Arrays:
    """Train until a callback interrupts it; return what was saved."""
    wanted = replace(settings, checkpoint_every=1e9, patience=None)
    with suppress(Interrupted):
        networks.train(wanted, prepared, MOST_EPOCHS, callbacks, folder)
    return contents(folder)


def _bytes(arrays: Arrays, name: str) -> bytes | None:
    array = arrays.get(name)
    return None if array is None else np.ascontiguousarray(array).tobytes()

"""Exact resume of `fit`: what `keras.callbacks.BackupAndRestore` asks for, done so that no bit is lost.

Keras' own callback stores weights and an epoch number. Going on with the bits of an uninterrupted run also
takes the state of every random generator, the step within the epoch, the metrics so far, the order of rows,
and what the other callbacks remember. One safetensors file holds all of it, written aside and renamed.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from steepest.checkpoints import OtherDescentError
from steepest.errors import SteepestError
from steepest.keras.program import GROUPS, State, put_back, state_of

FILE, PREVIOUS, ASIDE = "steepest.safetensors", "steepest.previous.safetensors", "steepest.part"

log = logging.getLogger(__name__)

REMEMBERED: dict[type, tuple[str, ...]] = {
    keras.callbacks.History: ("history", "epoch"),
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: ("best", "_batches_seen_since_last_saving", "_last_batch_seen"),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
}
"""What Keras' callbacks remember from epoch to epoch."""


class Position(NamedTuple):
    """Where a descent stands.

    Attributes
    ----------
    epoch, step
        Epochs finished, and steps taken in the next one.
    batches
        Batches that the finished epochs have taken from the order of rows.
    stopped
        Whether a callback asked to stop there.
    """

    epoch: int
    step: int
    batches: int
    stopped: bool = False


@dataclass
class Steps:
    """Every step's loss and the epoch it belongs to, counted from 0; and what was seen at some (from 1)."""

    epochs: list[np.ndarray] = field(default_factory=list)
    losses: list[np.ndarray] = field(default_factory=list)
    looks: list[dict[str, float]] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of steps."""
        return sum(map(len, self.losses))

    def add(self, epoch: int, losses: np.ndarray) -> None:
        """Write steps of an epoch down."""
        self.epochs.append(np.full(len(losses), epoch))
        self.losses.append(losses)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the two columns, each as one array."""
        if not self.losses:
            return {"steps/epoch": np.zeros(0, np.int64), "steps/loss": np.zeros(0, np.float32)}
        return {"steps/epoch": np.concatenate(self.epochs), "steps/loss": np.concatenate(self.losses)}

    def table(self) -> pd.DataFrame:
        """Return epoch and step, counted from 1, the loss, and what was seen; NaN where nothing was."""
        epoch, loss = self.arrays().values()
        steps = pd.DataFrame({"epoch": epoch + 1, "step": np.arange(len(loss)) + 1, "loss": loss})
        return steps.merge(pd.DataFrame(self.looks), "left", "step") if self.looks else steps


@dataclass
class Backup:
    """What a `BackupAndRestore` among the callbacks asks for.

    Attributes
    ----------
    folder
        Where the file is kept.
    every
        Steps between two backups; ``None`` for the end of every epoch.
    keeps_previous, deletes
        Whether the backup before the last is kept, and whether all goes when the descent has ended.
    facts
        What must be the same when the descent goes on: what decides the order of rows.
    written
        Is told of each backup when it is there.
    """

    folder: Path
    every: int | None
    keeps_previous: bool
    deletes: bool
    facts: dict[str, Any] = field(default_factory=dict)
    written: Callable[[Path], None] = lambda _: None

    def save(self, model: keras.Model, callbacks: list[Any], position: Position, steps: Steps) -> None:
        """Write everything down."""
        arrays = {
            f"{group}/{index}": np.asarray(value)
            for group, values in zip(GROUPS, state_of(model), strict=True)
            for index, value in enumerate(values)
        }
        for key, callback in _known(callbacks).items():
            for place, weights in enumerate(getattr(callback, "best_weights", None) or ()):
                arrays[f"best_weights/{key}/{place}"] = np.asarray(weights)
        arrays |= steps.arrays()
        notes = {"position": position, "facts": self.facts, "callbacks": _remembered(callbacks)}
        notes["looks"] = steps.looks
        self.folder.mkdir(parents=True, exist_ok=True)
        path, aside = self.folder / FILE, self.folder / ASIDE
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, aside, _text(notes))
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        if self.keeps_previous and path.exists():
            path.replace(self.folder / PREVIOUS)
        aside.replace(path)
        self.written(path)

    def restore(self, model: keras.Model, callbacks: list[Any]) -> tuple[Position, Steps] | None:
        """Put everything back, if there is a backup; return the position and the steps so far."""
        path, notes, arrays = self._read()
        if path is None:
            return None
        state = _state(arrays)
        differ = [
            f"its {name} is {notes['facts'].get(name)}, and now it is {value}"
            for name, value in self.facts.items()
            if notes["facts"].get(name) != value
        ]
        for group, before, now in zip(GROUPS, state, state_of(model), strict=True):
            if [value.shape for value in before] != [value.shape for value in now]:
                differ.append(f"its {group.replace('_', ' ')} are others")
        if differ:
            raise OtherDescentError(
                f"The backup {path} belongs to another descent: {differ[0]}.",
                hint="Remove it to begin anew, or go on as it was begun.",
            )
        put_back(model, state)
        _remember(callbacks, notes["callbacks"], arrays)
        steps = Steps([arrays["steps/epoch"]], [arrays["steps/loss"]], notes["looks"])
        return Position(*notes["position"]), steps

    def _read(self) -> tuple[Path | None, dict[str, Any], dict[str, np.ndarray]]:
        """Return the last backup that is whole."""
        paths = [path for path in (self.folder / FILE, self.folder / PREVIOUS) if path.exists()]
        while paths:
            path = paths.pop(0)
            try:
                with safe_open(path, "numpy") as file:
                    notes = json.loads(file.metadata()["steepest"])
                    return path, notes, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
                if not paths:
                    raise SteepestError(
                        f"The backup {path} can't be read: {error}.", hint="Remove it to begin anew."
                    ) from error
                log.warning("The backup %s can't be read (%s); the one before is used.", path, error)
        return None, {}, {}

    def close(self) -> None:
        """Remove the backup after a descent that ended, if that was asked for."""
        if self.deletes and self.folder.exists():
            for name in (FILE, PREVIOUS, ASIDE):
                (self.folder / name).unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()


def take_backup(callbacks: list[Any]) -> tuple[list[Any], Backup | None]:
    """Split the callbacks into what Keras calls and the backup that `fit` itself sees to."""
    asked = [each for each in callbacks if type(each) is keras.callbacks.BackupAndRestore]
    others = [each for each in callbacks if type(each) is not keras.callbacks.BackupAndRestore]
    if not asked:
        return others, None
    if len(asked) > 1:
        raise SteepestError("There are several BackupAndRestore callbacks.", hint="One holds everything.")
    wish = asked[0]
    every = None if wish.save_freq == "epoch" else int(wish.save_freq)
    return others, Backup(Path(wish.backup_dir), every, wish.double_checkpoint, wish.delete_checkpoint)


def _json(value: Any) -> str:
    """Write numbers of NumPy as numbers."""
    return json.dumps(value, default=lambda each: np.asarray(each).tolist())


def _text(notes: dict[str, Any]) -> dict[str, str]:
    return {"steepest": _json(notes)}


def _state(arrays: dict[str, np.ndarray]) -> State:
    def values(group: str) -> list[Any]:
        count = sum(name.startswith(f"{group}/") for name in arrays)
        return [arrays[f"{group}/{index}"] for index in range(count)]

    return tuple(values(group) for group in GROUPS)


def _known(callbacks: list[Any]) -> dict[str, Any]:
    """Return Keras' callbacks that remember something, each by its class and its place among these."""
    counts: Counter[str] = Counter()
    known = {}
    for callback in callbacks:
        if any(isinstance(callback, kind) for kind in REMEMBERED):
            name = type(callback).__name__
            known[f"{name}/{counts[name]}"] = callback
            counts[name] += 1
    return known


def _remembered(callbacks: list[Any]) -> dict[str, dict[str, Any]]:
    return {
        key: {
            name: getattr(callback, name)
            for kind, names in REMEMBERED.items()
            if isinstance(callback, kind)
            for name in names
        }
        for key, callback in _known(callbacks).items()
    }


def _remember(callbacks: list[Any], notes: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    for key, callback in _known(callbacks).items():
        for name, value in notes.get(key, {}).items():
            setattr(callback, name, value)
        weights = [name for name in arrays if name.startswith(f"best_weights/{key}/")]
        if weights:
            callback.best_weights = [arrays[f"best_weights/{key}/{place}"] for place in range(len(weights))]

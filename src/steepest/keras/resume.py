"""Exact resume of `fit`: what `keras.callbacks.BackupAndRestore` asks for, done so that no bit is lost.

Keras' own callback stores weights and an epoch number. Going on with the bits of an uninterrupted run also
takes the state of every random generator, the step within the epoch, the metrics so far, the order of rows,
and what the other callbacks remember. One safetensors file holds all of it, written aside and renamed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from steepest.errors import SteepestError
from steepest.keras.program import GROUPS, State, put_back, state_of

FILE, PREVIOUS = "steepest.safetensors", "steepest.previous.safetensors"

REMEMBERED: dict[type, tuple[str, ...]] = {
    keras.callbacks.History: ("history", "epoch"),
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: ("best",),
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
    """Every step's loss and the epoch it belongs to, counted from 0."""

    epochs: list[np.ndarray] = field(default_factory=list)
    losses: list[np.ndarray] = field(default_factory=list)

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
        """Return epoch and step, counted from 1, and the loss."""
        epoch, loss = self.arrays().values()
        return pd.DataFrame({"epoch": epoch + 1, "step": np.arange(len(loss)) + 1, "loss": loss})


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
        What must be the same when the descent goes on: seed, steps of an epoch, names and shapes.
    """

    folder: Path
    every: int | None
    keeps_previous: bool
    deletes: bool
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, model: keras.Model, callbacks: list[Any], position: Position, steps: Steps) -> None:
        """Write everything down."""
        arrays = {
            f"{group}/{index}": np.asarray(value)
            for group, values in zip(GROUPS, state_of(model), strict=True)
            for index, value in enumerate(values)
        }
        for index, callback in enumerate(callbacks):
            for place, weights in enumerate(getattr(callback, "best_weights", None) or ()):
                arrays[f"best_weights/{index}/{place}"] = np.asarray(weights)
        arrays |= steps.arrays()
        notes = {"position": position, "facts": self.facts, "callbacks": _remembered(callbacks)}
        self.folder.mkdir(parents=True, exist_ok=True)
        path, aside = self.folder / FILE, self.folder / f"{FILE}.part"
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, aside, _text(notes))
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        if self.keeps_previous and path.exists():
            path.replace(self.folder / PREVIOUS)
        aside.replace(path)

    def restore(self, model: keras.Model, callbacks: list[Any]) -> tuple[Position, Steps] | None:
        """Put everything back, if there is a backup; return the position and the steps so far."""
        path = next((self.folder / name for name in (FILE, PREVIOUS) if (self.folder / name).exists()), None)
        if path is None:
            return None
        try:
            with safe_open(path, "numpy") as file:
                notes = json.loads(file.metadata()["steepest"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise SteepestError(
                f"The backup {path} can't be read: {error}.", hint="Remove it to begin anew."
            ) from error
        for name, value in self.facts.items():
            if notes["facts"].get(name) != json.loads(json.dumps(value)):
                raise SteepestError(
                    f"The backup {path} belongs to another descent: {name} was {notes['facts'].get(name)}, "
                    f"and is now {value}.",
                    hint="Remove it to begin anew, or go on as it was begun.",
                )
        put_back(model, _state(arrays))
        _remember(callbacks, notes["callbacks"], arrays)
        return Position(*notes["position"]), Steps([arrays["steps/epoch"]], [arrays["steps/loss"]])

    def close(self) -> None:
        """Remove the backup after a descent that ended, if that was asked for."""
        if self.deletes and self.folder.exists():
            for name in (FILE, PREVIOUS):
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


def _text(notes: dict[str, Any]) -> dict[str, str]:
    return {"steepest": json.dumps(notes)}


def _state(arrays: dict[str, np.ndarray]) -> State:
    def values(group: str) -> list[Any]:
        count = sum(name.startswith(f"{group}/") for name in arrays)
        return [arrays[f"{group}/{index}"] for index in range(count)]

    return tuple(values(group) for group in GROUPS)


def _remembered(callbacks: list[Any]) -> list[dict[str, Any]]:
    return [
        {name: getattr(callback, name, None) for name in REMEMBERED.get(type(callback), ())}
        for callback in callbacks
    ]


def _remember(callbacks: list[Any], notes: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> None:
    for index, (callback, known) in enumerate(zip(callbacks, notes, strict=True)):
        for name, value in known.items():
            setattr(callback, name, value)
        weights = [name for name in arrays if name.startswith(f"best_weights/{index}/")]
        if weights:
            callback.best_weights = [arrays[f"best_weights/{index}/{place}"] for place in range(len(weights))]

"""Which callbacks want to be called at every batch; the others let the descent run on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy.typing as npt
from keras.src.callbacks.progbar_logger import ProgbarLogger
from keras.src.utils.python_utils import is_default

BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
TEST_HOOKS = ("on_test_batch_begin", "on_test_batch_end")


class Watches:
    """A callback that is one of these as well has some steps looked at: see `steepest.descent.watching`."""

    def on_steps(self, first: int, losses: npt.NDArray[Any]) -> None:
        """After some steps: the number of the first, from 1, and the loss of each."""


def needs_each_batch(callbacks: Iterable[Any], hooks: tuple[str, ...] = BATCH_HOOKS) -> list[str]:
    """Return the names of the callbacks that have something of their own to do at a batch."""
    return [
        type(callback).__name__
        for callback in callbacks
        if not _only_watches(callback) and not all(is_default(getattr(callback, hook)) for hook in hooks)
    ]


def _only_watches(callback: Any) -> bool:
    """Tell whether a callback of Keras' may be called after several batches as well as after each.

    `TerminateOnNaN` may, because `fit` ends a stretch of batches where a loss is not finite.
    """
    kind = type(callback)
    if kind in (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore):
        return bool(callback.save_freq == "epoch")
    if kind is keras.callbacks.TensorBoard:
        return callback.update_freq == "epoch" and not (callback._start_batch or callback._stop_batch)
    return kind in (ProgbarLogger, keras.callbacks.TerminateOnNaN)

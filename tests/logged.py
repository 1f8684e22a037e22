"""Descents to log: on 569 tumours, of which each epoch is several windows, interrupted or not."""

from __future__ import annotations

import shutil

import jax.numpy as jnp

import steepest
from steepest import training
from steepest.data import blocks
from steepest.run import write_json

ROWS, EPOCHS, STEPS = 569, 4, 9
"""Rows, epochs, and steps of an epoch."""

WINDOWS = 3
"""Windows of an epoch."""

TIMES = ("seconds", "rows_per_second")


def data_of(cancer):
    features, benign = cancer
    return {"x": jnp.asarray(features, jnp.float32), "y": jnp.asarray(benign, jnp.float32)}


def objective(parameters, batch):
    outputs = batch["x"] @ parameters["weights"] + parameters["bias"]
    return jnp.logaddexp(0, outputs) - batch["y"] * outputs


def descend(cancer, callbacks, **more):
    """Four epochs of nine steps."""
    data = data_of(cancer)
    asked = {"optimizer": steepest.SGD(0.1), "batch_size": 64, "epochs": EPOCHS, "tolerance": 0.0}
    start = {"weights": jnp.zeros(30), "bias": jnp.float32(0)}
    held_out = {"validation_data": {name: each[::5] for name, each in data.items()}}
    return steepest.minimize(objective, start, data, callbacks=callbacks, **{**asked, **held_out, **more})


FOUND = [{"finding": "healthy", "severity": "info", "where": "", "evidence": "It is.", "try": "Go on."}]


def without_a_diagnosis(patch):
    """Let fits have one finding and no report: these take most of the time."""

    def diagnose(settings, prepared, trained, work):
        write_json(work / "findings.json", FOUND)
        return {"findings": FOUND, "curvature": []}

    patch.setattr(training, "_diagnose", diagnose)
    patch.setattr(training, "_write_report", lambda path, *_: path.write_text("drawn"))


def short_windows(patch):
    """Let each epoch be several windows."""
    patch.setattr(blocks, "WINDOW_BYTES", 3 * 64 * (31 * 4 + 4))


class KeepsCheckpoint(steepest.Callback):
    """Puts a copy of the checkpoints aside, as they are when so many windows are over."""

    def __init__(self, checkpoint, aside, windows):
        self.checkpoint, self.aside, self.left = checkpoint, aside, windows

    def on_window_end(self, epoch, rows, loss):
        self.left -= 1
        if not self.left:
            shutil.copytree(self.checkpoint, self.aside)


def put_back(checkpoint, aside):
    """Let a descent stand where it stood when its checkpoints were put aside, as after a kill."""
    shutil.rmtree(checkpoint)
    aside.rename(checkpoint)

"""Where the advantage ends: `steepest.keras.fit` beside Keras' own over batch sizes, widths, and images.

The network has two hidden layers of the given width on 20 columns. The images are scikit-learn's 1,797 digits
of 8 × 8 pixels; the network has two convolutions. Keras is as it is and with 32 steps an execution.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import listing
from measure import Report, Train, enter, fitted, take_turns

BATCHES = (32, 256, 4096)
WIDTHS = (64, 256, 1024)
WARM_UP = 2


def dense(width: int, steps_per_execution: int) -> Any:
    import keras

    hidden = [keras.layers.Dense(width, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((listing.FEATURES,)), *hidden, keras.layers.Dense(1, "sigmoid")])
    model.compile(
        "adam", "binary_crossentropy", metrics=["accuracy"], steps_per_execution=steps_per_execution
    )
    return model


def convolutional(steps_per_execution: int) -> Any:
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, "softmax"),
        ]
    )
    loss = "sparse_categorical_crossentropy"
    model.compile("adam", loss, metrics=["accuracy"], steps_per_execution=steps_per_execution)
    return model


def contestants(make: Callable[..., Any], x: np.ndarray, y: np.ndarray, batch: int) -> dict[str, Train]:
    os.environ["KERAS_BACKEND"] = "jax"

    def ours() -> Train:
        import steepest.keras

        return fitted(partial(steepest.keras.fit, make(steps_per_execution=1)), x, y, batch_size=batch)

    def keras(steps: int) -> Train:
        return fitted(make(steps_per_execution=steps).fit, x, y, batch_size=batch)

    makers = {"Steepest": ours, "Keras": partial(keras, 1), "Keras, 32": partial(keras, 32)}
    return enter(makers)[0]


def run(rounds: int) -> Report:
    rows_, _ = listing.make_data()
    rounds = min(rounds, 3)
    found = []
    for batch in BATCHES:
        for width in WIDTHS:
            x, y = (np.resize(part, (batch * _steps(batch, width), *part.shape[1:])) for part in rows_)
            found.append(_row(f"dense, {width} wide", partial(dense, width), x, y, batch, rounds))
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)
    for batch in (32, 256):
        found.append(_row("convolutions, digits", convolutional, images, digits.target, batch, rounds))
    columns = ("", "batch", "Steepest, µs per step", "Keras over Steepest", "Keras, 32 steps, over Steepest")
    return Report("A Keras model: where the advantage ends", columns, found)


def _steps(batch: int, width: int) -> int:
    """Return steps of an epoch that takes about a third of a second, if it is all arithmetic."""
    operations = 6 * batch * width * (width + listing.FEATURES)
    return int(np.clip(1e10 / operations, 8, 625))


def _row(
    name: str, make: Callable[..., Any], x: np.ndarray, y: np.ndarray, batch: int, rounds: int
) -> list[Any]:
    standings = take_turns(contestants(make, x, y, batch), rounds, WARM_UP)
    ours = standings["Steepest"]
    steps = -(-len(x) // batch)
    peers = [each.over(ours) for peer, each in standings.items() if peer != "Steepest"]
    return [name, batch, ours.seconds / steps * 1e6, *peers]

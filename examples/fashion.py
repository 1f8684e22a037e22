"""Which garment is on the picture? Keras models of Fashion-MNIST, trained by one compiled program an epoch.

    apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb data/fashion
    python examples/fashion.py --pictures docs/examples

The pictures are Zalando's (MIT). They are looked for in `data/fashion`, and where Debian's package puts them.
`docs/examples/fashion.md` tells what to learn from it. It needs the extra `keras`.
"""

from __future__ import annotations

import gzip
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure

import steepest
from drawing import save
from steepest.keras import Input, Sequential, layers, optimizers, utils

PLACE = "usr/share/datasets/fashion-mnist"
GARMENTS = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
BATCH_SIZE = 128


def array(file: Path) -> np.ndarray:
    """Return the array that an IDX file holds: its type, its dimensions, its bytes."""
    content = gzip.decompress(file.read_bytes())
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def pictures_and_labels(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures ``[rows, 28, 28, 1]`` from 0 to 1, and their classes."""
    pictures = array(folder / f"{part}-images-idx3-ubyte.gz")
    return pictures[..., None] / np.float32(255), array(folder / f"{part}-labels-idx1-ubyte.gz")


def folder_of_images(named: Path | None) -> Path:
    """Return where the four files are."""
    places = [named] if named else [Path("data/fashion") / PLACE, Path("/") / PLACE]
    for place in places:
        if (place / "train-images-idx3-ubyte.gz").is_file():
            return place
    raise SystemExit(
        "This needs Fashion-MNIST: apt-get install dataset-fashion-mnist, or --images FOLDER with its files"
    )


def dense(shape: tuple[int, ...]) -> Any:
    """Return a network that knows nothing of which pixels are neighbours."""
    return Sequential(
        [
            Input(shape),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def convolutional(shape: tuple[int, ...]) -> Any:
    """Return a network that looks for the same small patterns everywhere."""
    return Sequential(
        [
            Input(shape),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def train(model: Any, rate: float, epochs: int, x: np.ndarray, y: np.ndarray) -> Any:
    """Train by Adam at a rate that falls along a cosine; return what `fit` recorded."""
    schedule = optimizers.schedules.CosineDecay(rate, epochs * -(-len(x) // BATCH_SIZE))
    model.compile(optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model.fit(x, y, batch_size=BATCH_SIZE, epochs=epochs, verbose=0)


def confused(true: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
    """Return how often each garment was taken for each."""
    rows = np.zeros((10, 10), int)
    np.add.at(rows, (true, predicted), 1)
    return pd.DataFrame(rows, GARMENTS, GARMENTS)


def hardest(true: np.ndarray, probabilities: np.ndarray, count: int = 12) -> np.ndarray:
    """Return the pictures whose own class was given the lowest probability."""
    return np.argsort(probabilities[np.arange(len(true)), true])[:count]


@steepest.plot.style()
def matrix_of(table: pd.DataFrame) -> Figure:
    """Draw the confusion matrix; a cell's shade is its share of the garment."""
    figure = Figure(figsize=(6.3, 5.2))
    axes = figure.add_subplot()
    shares = table.div(table.sum(axis=1).clip(lower=1), axis=0).to_numpy()
    axes.imshow(shares**0.5, cmap="Blues", vmin=0, vmax=1.8)
    for (row, column), count in np.ndenumerate(table.to_numpy()):
        if count:
            axes.text(
                column, row, count, horizontalalignment="center", verticalalignment="center", fontsize=8
            )
    axes.set_xticks(range(10), GARMENTS, rotation=45, horizontalalignment="right", rotation_mode="anchor")
    axes.set_yticks(range(10), GARMENTS)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@steepest.plot.style()
def gallery(x: np.ndarray, true: np.ndarray, probabilities: np.ndarray, places: np.ndarray) -> Figure:
    """Draw pictures, each above what it is and what it was taken for."""
    figure = Figure(figsize=(6.3, 3.2))
    for axes, place in zip(figure.subplots(2, 6).ravel(), places, strict=True):
        axes.imshow(x[place, ..., 0], cmap="Greys")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        taken = probabilities[place].argmax()
        words = f"is: {GARMENTS[true[place]]}\n{GARMENTS[taken]}: {probabilities[place, taken]:.0%}"
        axes.set_xlabel(words, fontsize=8)
    return figure


@steepest.plot.style()
def losses(histories: dict[str, Any]) -> Figure:
    """Draw the loss of every step of both networks."""
    parts = [history.steps.assign(variant=name) for name, history in histories.items()]
    return steepest.plot.loss_by(pd.concat(parts))


def main(pictures: Path | None = None, images: Path | None = None, epochs: int = 8) -> None:
    """Train both networks, compare them on the official test pictures, and look at the errors."""
    folder = folder_of_images(images)
    x, y = pictures_and_labels(folder, "train")
    x_test, y_test = pictures_and_labels(folder, "t10k")
    print(f"{len(x):,} pictures to learn from, {len(x_test):,} to test.")
    histories, predicted = {}, {}
    for name, build, rate in (("dense", dense, 0.001), ("convolutional", convolutional, 0.003)):
        utils.set_random_seed(1)
        model, began = build(x.shape[1:]), time.monotonic()
        histories[name] = train(model, rate, epochs, x, y)
        seconds = time.monotonic() - began
        predicted[name] = model.predict(x_test, verbose=0)
        accuracy = (predicted[name].argmax(axis=1) == y_test).mean()
        print(f"  {name:14} {model.count_params():8,} weights, {seconds:3.0f} s: accuracy {accuracy:.4f}")
    probabilities = predicted["convolutional"]
    table = confused(y_test, probabilities.argmax(axis=1))
    print("\nRight of the convolutional network's pictures, and what the others were taken for:")
    for garment in GARMENTS:
        counts = table.loc[garment]
        most = counts.drop(garment).idxmax()
        print(f"  {garment:11} {counts[garment] / max(counts.sum(), 1):6.1%}   {most}: {counts[most]}")
    if pictures is not None:
        save(matrix_of(table), pictures, "fashion-confusion")
        places = hardest(y_test, probabilities)
        save(gallery(x_test, y_test, probabilities, places), pictures, "fashion-hardest")
        save(losses(histories), pictures, "fashion-loss")


if __name__ == "__main__":
    sys.exit(typer.run(main))

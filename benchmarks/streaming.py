"""Logistic regression over a Parquet file of 5 GB that is generated here: 30 float32 columns, batches of 256.

Steepest learns the columns, encodes the rows into its cache and descends from there. Beside it: the same rows
in memory; PyArrow, which only decodes the file; and on the file's first million rows, at the same number of
passes and judged by the same rows after them, Vowpal Wabbit with its cache, scikit-learn's SGDClassifier by
partial_fit over PyArrow's batches, and Keras' fit over a generator.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from measure import Goal, Report

ROWS, FEATURES, GROUP = 42 * 2**20, 30, 2**20
PART, HELD, PASSES = 2**20, 2**18, 5
BATCH, RATE = 256, 0.001
NAMES = [f"x{column}" for column in range(FEATURES)]

Figures = dict[str, float]


def generate(path: Path, rows: int, seed: int) -> None:
    """Write rows whose class a random plane decides, with noise, a row group at a time."""
    plane = np.random.default_rng(0).standard_normal(FEATURES, dtype=np.float32) / np.sqrt(FEATURES)
    draws = np.random.default_rng(seed)
    schema = pa.schema([*((name, pa.float32()) for name in NAMES), ("y", pa.int8())])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for first in range(0, rows, GROUP):
            count = min(GROUP, rows - first)
            x = draws.standard_normal((count, FEATURES), dtype=np.float32)
            y = x @ plane + 0.5 * draws.standard_normal(count, dtype=np.float32) > 0
            writer.write_table(pa.table([*np.ascontiguousarray(x.T), y.astype(np.int8)], schema=schema))


def decode(path: Path) -> float:
    """Return the rows that PyArrow decodes in a second, doing nothing with them."""
    began = time.perf_counter()
    with pq.ParquetFile(path) as file:
        rows = sum(batch.num_rows for batch in file.iter_batches(2**16))
    return rows / (time.perf_counter() - began)


def matrices(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield a file's rows as a person would make arrays of them."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(2**16):
            yield np.column_stack([batch[name].to_numpy() for name in NAMES]), batch["y"].to_numpy()


class Speeds:
    """A callback that keeps each epoch's rows a second."""

    def __new__(cls) -> Any:
        import steepest

        class Kept(steepest.Callback):
            def __init__(self) -> None:
                self.found: list[float] = []

            def on_epoch_end(self, figures: dict[str, float]) -> None:
                self.found.append(figures["rows_per_second"])

        return Kept()


def ours(path: Path, rounds: int) -> Figures:
    """Return rows a second: of the passes, of the first epoch with and without them, and of later ones."""
    from steepest import networks
    from steepest.data.layout import Packed
    from steepest.data.packed import PackedRows
    from steepest.preparation import prepare
    from steepest.settings import Settings

    settings = Settings(
        data=(str(path),), target="y", batch_size=BATCH, learning_rate=RATE, validation=0, tolerance=0,
        memory="16GB",
    )  # fmt: skip
    times: dict[str, float] = {}
    began = time.perf_counter()
    prepared = prepare(settings, seen=lambda doing, *_: times.__setitem__(doing, time.perf_counter() - began))
    ready = time.perf_counter() - began
    rows = len(prepared.training.target)

    def epochs(of: Any, count: int) -> list[float]:
        speeds = Speeds()
        with tempfile.TemporaryDirectory() as folder:
            networks.train(settings, of, count, [speeds], Path(folder))
        return speeds.found

    first = rows / epochs(prepared, 1)[0]
    fetching = prepare(dataclasses.replace(settings, memory="4GB"))
    assert fetching.training.features.fleeting
    assert not prepared.training.features.fleeting
    mapped, fetched, memory = [], [], []
    packed = prepared.training.features.packed
    copied = PackedRows(
        prepared.training.features.layout, Packed(np.array(packed.numbers), np.array(packed.codes))
    )
    resident = dataclasses.replace(
        prepared,
        training=prepared.training._replace(features=copied, target=np.array(prepared.training.target[:])),
    )
    for _ in range(rounds):
        mapped += epochs(prepared, 3)[1:]
        fetched += epochs(fetching, 3)[1:]
        memory += epochs(resident, 3)[1:]
    return {
        "learning": rows / times["learning"],
        "encoding": rows / (ready - times["learning"]),
        "first": rows / (ready + first),
        "mapped": statistics.median(mapped),
        "fetched": statistics.median(fetched),
        "memory": statistics.median(memory),
    }


def log_loss(truth: np.ndarray, probability: np.ndarray) -> float:
    from sklearn.metrics import log_loss

    return float(log_loss(truth, probability))


def ours_on_a_part(part: Path, held: Path) -> tuple[float, float]:
    from steepest.settings import Settings
    from steepest.training import fit

    with tempfile.TemporaryDirectory() as folder:
        run = fit(
            Settings(
                data=(str(part),), target="y", validation=str(held), batch_size=BATCH, learning_rate=RATE,
                epochs=PASSES, tolerance=0, out=f"{folder}/run",
            )
        )  # fmt: skip
        speed = statistics.median(run.epochs["rows_per_second"][1:])
        return speed, run.record["figures"]["validation"]["scores"]["log_loss"]


def vowpal_wabbit(part: Path, held: Path) -> tuple[float, float]:
    import vowpalwabbit

    with tempfile.TemporaryDirectory() as folder:
        for name, path in (("part", part), ("held", held)):
            with Path(folder, name).open("w") as text:
                for x, y in matrices(path):
                    for row, label in zip(x.tolist(), y.tolist(), strict=True):
                        cells = " ".join(f"{column}:{value:.6g}" for column, value in enumerate(row))
                        text.write(f"{1 if label else -1} | {cells}\n")

        def train(passes: int) -> float:
            began = time.perf_counter()
            vowpalwabbit.Workspace(
                f"-d {folder}/part -c --passes {passes} --holdout_off --loss_function logistic --quiet "
                f"-f {folder}/model"
            ).finish()
            return time.perf_counter() - began

        train(1)  # writes the cache
        once, all_passes = train(1), train(PASSES)
        vowpalwabbit.Workspace(
            f"-d {folder}/held -t -i {folder}/model --link logistic -p {folder}/said --quiet"
        ).finish()
        said = np.loadtxt(f"{folder}/said", usecols=0)
        truth = np.concatenate([y for _, y in matrices(held)])
        return PART * (PASSES - 1) / (all_passes - once), log_loss(truth, said)


def partial_fit(part: Path, held: Path) -> tuple[float, float]:
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(loss="log_loss", random_state=0)
    began = time.perf_counter()
    for _ in range(PASSES):
        for x, y in matrices(part):
            model.partial_fit(x, y, classes=[0, 1])
    speed = PART * PASSES / (time.perf_counter() - began)
    said = np.concatenate([model.predict_proba(x)[:, 1] for x, _ in matrices(held)])
    return speed, log_loss(np.concatenate([y for _, y in matrices(held)]), said)


def keras_generator(part: Path, held: Path) -> tuple[float, float]:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    model = keras.Sequential([keras.layers.Input((FEATURES,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.Adam(RATE), "binary_crossentropy", steps_per_execution=32)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while True:
            for x, y in matrices(part):
                for first in range(0, len(x), BATCH):
                    yield x[first : first + BATCH], y[first : first + BATCH, None]

    steps = PART // BATCH
    model.fit(batches(), steps_per_epoch=steps, epochs=1, verbose=0)
    began = time.perf_counter()
    model.fit(batches(), steps_per_epoch=steps, epochs=PASSES - 1, verbose=0)
    speed = PART * (PASSES - 1) / (time.perf_counter() - began)
    x, y = (np.concatenate(each) for each in zip(*matrices(held), strict=True))
    return speed, log_loss(y, model.predict(x, batch_size=4096, verbose=0)[:, 0])


PEERS: dict[str, Callable[[Path, Path], tuple[float, float]]] = {
    "Vowpal Wabbit, from its cache": vowpal_wabbit,
    "scikit-learn partial_fit over PyArrow batches": partial_fit,
    "Keras fit over a generator, steps_per_execution=32": keras_generator,
}


def run(rounds: int) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STEEPEST_CACHE"] = f"{folder}/cache"
        whole, part, held = (Path(folder, f"{name}.parquet") for name in ("whole", "part", "held"))
        generate(part, PART, 1)
        generate(held, HELD, 2)
        generate(whole, ROWS, 3)
        decoded = statistics.median(decode(whole) for _ in range(3))
        found = ours(whole, min(rounds, 3))
        _, our_loss = ours_on_a_part(part, held)
        peers, missing = {}, []
        for name, peer in PEERS.items():
            try:
                peers[name] = peer(part, held)
            except ImportError as error:
                missing.append(f"{name} ({error})")
    rows = [
        ["PyArrow only decodes the file", decoded / 1e6, None, None],
        ["Steepest learns the columns", found["learning"] / 1e6, None, None],
        ["Steepest encodes", found["encoding"] / 1e6, None, None],
        ["Steepest, all until the first epoch's end", found["first"] / 1e6, None, None],
        ["Steepest, later epochs, from the cache", found["mapped"] / 1e6, 1.0, our_loss],
        [
            "Steepest, the same with --memory 4GB",
            found["fetched"] / 1e6,
            found["mapped"] / found["fetched"],
            None,
        ],
        ["Steepest, later epochs, in memory", found["memory"] / 1e6, found["mapped"] / found["memory"], None],
    ]
    rows += [[name, speed / 1e6, found["mapped"] / speed, loss] for name, (speed, loss) in peers.items()]
    goals = [
        Goal("Later epochs from the cache, beside memory", 0.9, found["mapped"] / found["memory"], False),
        Goal("The same with --memory 4GB, beside memory", 0.9, found["fetched"] / found["memory"], False),
        Goal("Until the first epoch's end, beside PyArrow's decoding", 0.8, found["first"] / decoded, False),
    ]
    for name, wanted in (("Vowpal", 15.0), ("scikit", 5.0)):
        goals += [
            Goal(f"Steepest's rows a second over those of {peer}", wanted, found["mapped"] / speed, False)
            for peer, (speed, _) in peers.items()
            if peer.startswith(name)
        ]
    columns = (
        "",
        "million rows a second",
        "Steepest's speed over this",
        f"held-out log loss, {PASSES} passes",
    )
    return Report(f"{whole_size():.1f} GB of Parquet", columns, rows, goals, missing)


def whole_size() -> float:
    """Return the file's size in GB."""
    return ROWS * (4 * FEATURES + 1) / 1e9

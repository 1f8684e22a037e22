"""A descent that was interrupted and goes on ends exactly where an uninterrupted one ends."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras.callbacks import BackupAndRestore, Callback
from safetensors import safe_open

import steepest.keras
from expecting import fails
from keras_manners import BATCH, STEPS, assert_same, bits, network, table, variables

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EPOCHS = 4
FILE = "steepest.safetensors"


class Interruption(Exception):  # noqa: N818
    pass


class Interrupt(Callback):
    """Raises at the end of an epoch or of a batch."""

    def __init__(self, epoch: int, batch: int | None = None) -> None:
        super().__init__()
        self.at = (epoch, batch)
        if batch is not None:
            self.on_train_batch_end = self._batch_ends
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def _batch_ends(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise Interruption

    def on_epoch_end(self, epoch, logs=None):
        if (epoch, None) == self.at:
            raise Interruption


class Batches(keras.utils.PyDataset):
    """Batches of a table; the last one is short."""

    def __init__(self, **workers: Any) -> None:
        super().__init__(**workers)
        self.x, self.y = table()

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return self.x[rows], self.y[rows]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    model = network()
    model.start = tuple(bits(model))
    return model


def reset(model: keras.Model) -> None:
    """Make the model what a new process would make."""
    for variable, value in zip(variables(model), model.start, strict=True):
        variable.assign(jnp.array(value))


def watchers() -> list[Any]:
    return [
        keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
    ]


def remembered(callbacks: list[Any]) -> list[Any]:
    stop, reduce = callbacks[:2]
    return [
        *(stop.wait, stop.best, stop.best_epoch, stop.stopped_epoch, reduce.wait, reduce.best),
        *map(np.asarray, stop.best_weights or []),
    ]


def descend(model: keras.Model, folder: Path | None, *more: Any, **arguments: Any) -> tuple[Any, list[Any]]:
    """Do what the same script does again and again."""
    reset(model)
    data = {"x": table()[0], "y": table()[1], "batch_size": BATCH}
    if callable(arguments.get("x")):
        data = {"x": arguments.pop("x")()}
    wish = {"save_freq": arguments.pop("save_freq", "epoch")} | arguments.pop("wish", {})
    callbacks = watchers()
    backup = [BackupAndRestore(folder, **wish)] if folder else []
    fixed = {"epochs": EPOCHS, "verbose": 0, "validation_data": table(30, seed=1), "seed": 3}
    history = steepest.keras.fit(model, **data | fixed | arguments, callbacks=[*callbacks, *backup, *more])
    return history, [bits(model), remembered(callbacks)]


def assert_resumes(model: keras.Model, folder: Path, *stops: Interrupt, **arguments: Any) -> None:
    """Interrupt a descent, go on, and expect what the uninterrupted one left behind."""
    plain = {name: value for name, value in arguments.items() if name != "save_freq"}
    whole, end = descend(model, None, **plain)
    for stop in stops:
        with pytest.raises(Interruption):
            descend(model, folder, stop, **arguments)
        assert (folder / FILE).exists()
    resumed, again = descend(model, folder, **arguments)
    assert_same(end[0], again[0])
    assert_same([np.asarray(each) for each in end[1]], [np.asarray(each) for each in again[1]])
    assert resumed.history == whole.history
    assert resumed.epoch == whole.epoch
    assert resumed.steps.equals(whole.steps)
    assert not folder.exists()


@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_epochs(model, tmp_path, shuffle):
    assert_resumes(model, tmp_path / "a", Interrupt(2), shuffle=shuffle)


@pytest.mark.parametrize("every", [1, 5, 30])
def test_batches(model, tmp_path, every):
    assert_resumes(model, tmp_path / "a", Interrupt(2, 7), Interrupt(3, 0), save_freq=every)


def test_batches_without_looking_at_each(model, tmp_path):
    assert_resumes(model, tmp_path / "a", Interrupt(0), Interrupt(2), save_freq=4)


def test_where_an_epoch_ends(model, tmp_path):
    """A backup is due with the epoch's last batch, and the interruption comes before the next one."""
    assert_resumes(model, tmp_path / "a", Interrupt(1), Interrupt(2), save_freq=STEPS // 2)


@pytest.mark.parametrize("every", ["epoch", 3])
def test_epochs_that_are_parts_of_passes(model, tmp_path, every):
    """An epoch of five steps: the third one is the rest of a pass of twelve."""
    with pytest.warns(UserWarning, match="ran out of data"):
        assert_resumes(
            model, tmp_path / "a", Interrupt(1, 3), Interrupt(3, 1), save_freq=every, steps_per_epoch=5
        )


@pytest.mark.parametrize(("workers", "every"), [pytest.param(0, 5, marks=pytest.mark.slow), (2, "epoch")])
def test_datasets(model, tmp_path, workers, every):
    def data() -> keras.utils.PyDataset:
        return Batches(workers=workers)

    assert_resumes(model, tmp_path / "a", Interrupt(1, 8), Interrupt(3), x=data, save_freq=every)


def test_a_dataset_in_parts(model, tmp_path):
    with pytest.warns(UserWarning, match="ran out of data"):
        assert_resumes(model, tmp_path / "a", Interrupt(1, 4), Interrupt(3), x=Batches, steps_per_epoch=7)


def test_generators(model, tmp_path):
    def endless() -> Any:
        data = Batches()
        while True:
            yield from map(data.__getitem__, range(STEPS))

    arguments = {"x": endless, "steps_per_epoch": 5, "shuffle": False}
    assert_resumes(model, tmp_path / "a", Interrupt(1, 3), Interrupt(2), **arguments, save_freq=2)


def test_a_descent_that_stopped_stays_stopped(model, tmp_path):
    wish = {"delete_checkpoint": False}
    stop = keras.callbacks.EarlyStopping("loss", patience=0, baseline=0.0)
    first, end = descend(model, tmp_path, stop, wish=wish)
    assert len(first.epoch) == 2 < EPOCHS
    stop = keras.callbacks.EarlyStopping("loss", patience=0, baseline=0.0)
    second, again = descend(model, tmp_path, stop, wish=wish)
    assert second.history == first.history
    assert_same(end[0], again[0])


def test_more_epochs_go_on(model, tmp_path):
    whole, end = descend(model, None)
    descend(model, tmp_path, epochs=2, wish={"delete_checkpoint": False})
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    history, again = descend(model, tmp_path)
    assert_same(end[0], again[0])
    assert history.history == whole.history
    assert not tmp_path.exists()


def test_other_files_stay(model, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    descend(model, tmp_path, epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_outside_the_folder_is_written(model, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    descend(
        model, tmp_path / "a" / "b", epochs=1, wish={"delete_checkpoint": False, "double_checkpoint": True}
    )
    assert not list(home.iterdir())
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        f"a/b/{FILE}"
    ]


def test_the_file_is_arrays_and_json(model, tmp_path):
    descend(model, tmp_path, epochs=2, wish={"delete_checkpoint": False})
    with safe_open(tmp_path / FILE, "numpy") as file:
        notes = json.loads(file.metadata()["steepest"])
        assert notes["position"] == [2, 0, 2 * STEPS, False]
        assert set(notes["callbacks"]) == {"EarlyStopping/0", "ReduceLROnPlateau/0", "History/0"}


def kept(model: keras.Model, folder: Path, **wish: Any) -> Path:
    """A descent that was interrupted in its fourth epoch."""
    with pytest.raises(Interruption):
        descend(model, folder, Interrupt(3), wish=wish)
    return folder / FILE


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "foreign"])
def test_a_damaged_backup(model, tmp_path, damage, caplog):
    whole, end = descend(model, None)
    for double in (False, True):
        path = kept(model, tmp_path, double_checkpoint=double)
        content = path.read_bytes()
        broken = {
            "truncated": content[: len(content) // 2],
            "empty": b"",
            "flipped": content[:8] + bytes([content[8] ^ 255]) + content[9:],
            "foreign": b"\x02\0\0\0\0\0\0\0{}",
        }
        path.write_bytes(broken[damage])
        if not double:
            with fails(str(path), "can't be read"):
                descend(model, tmp_path)
            path.unlink()
            continue
        resumed, again = descend(model, tmp_path, wish={"double_checkpoint": True})
        assert_same(end[0], again[0])
        assert resumed.history == whole.history
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert str(path) in record.getMessage()
        assert not tmp_path.exists()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"seed": 4}, "its seed is 3, and now it is 4"),
        ({"batch_size": 9}, "batch size is 8, and now it is 9"),
        ({"shuffle": False}, "shuffle is True, and now it is False"),
        ({"steps_per_epoch": 3}, "number of steps per epoch is 12, and now it is 3"),
        ({"x": table(95)[0], "y": table(95)[1]}, "number of rows is 90, and now it is 95"),
    ],
)
def test_a_backup_of_another_descent(model, tmp_path, other, said):
    content = kept(model, tmp_path).read_bytes()
    with fails("belongs to another descent", said):
        descend(model, tmp_path, **other)
    assert_same(list(model.start), bits(model))
    assert (tmp_path / FILE).read_bytes() == content


@pytest.mark.parametrize(
    ("other", "said"), [({"width": 4}, "trainable"), ({"optimizer": "adam"}, "optimizer")]
)
def test_a_backup_of_another_model(model, tmp_path, other, said):
    kept(model, tmp_path)
    another = network(**other)
    start = bits(another)
    x, y = table(width=other.get("width", 3))
    with fails("belongs to another descent", f"its {said} variables are others"):
        steepest.keras.fit(
            another, x, y, batch_size=BATCH, callbacks=[BackupAndRestore(tmp_path)], seed=3, verbose=0
        )
    assert_same(start, bits(another))


def test_the_same_model_made_again_in_one_session(model, tmp_path):
    """Keras counts names of layers on: they say nothing."""
    kept(model, tmp_path)
    keras.layers.Dense(1)
    keras.utils.set_random_seed(5)
    again = keras.models.clone_model(model)
    again.compile(keras.optimizers.SGD(0.3, momentum=0.9), "binary_crossentropy", metrics=["accuracy"])
    x, y = table()
    backup = BackupAndRestore(tmp_path)
    history = steepest.keras.fit(again, x, y, BATCH, epochs=4, seed=3, callbacks=[backup], verbose=0)
    assert history.epoch == [0, 1, 2, 3]


def test_several_backups(model, tmp_path):
    with fails("several BackupAndRestore"):
        descend(model, tmp_path, BackupAndRestore(tmp_path / "b"))


@pytest.mark.parametrize("policy", ["bfloat16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)])
def test_half_precision(tmp_path, policy):
    model = network(policy=policy)
    model.start = tuple(bits(model))
    assert any(str(value.dtype) == "bfloat16" for value in model.start) == (policy == "bfloat16")
    assert_resumes(model, tmp_path / "a", Interrupt(1), Interrupt(3))


def test_numbers_of_numpy_are_remembered(model, tmp_path):
    threshold = keras.callbacks.ModelCheckpoint(
        tmp_path / "m.weights.h5", save_weights_only=True, initial_value_threshold=np.float32(0.25)
    )
    with pytest.raises(Interruption):
        descend(model, tmp_path / "a", threshold, Interrupt(2))
    descend(model, tmp_path / "a", threshold)
    assert threshold.best == 0.25


SCRIPT = """
import os, signal, sys
import steepest.keras
from keras_manners import BATCH, bits, network, table
from keras.callbacks import BackupAndRestore, LambdaCallback
def die(batch, logs):
    if callbacks[1].model.optimizer.iterations > 25 and batch == 6:
        os.kill(os.getpid(), signal.SIGKILL)
model = network()
callbacks = [BackupAndRestore(sys.argv[1], save_freq=4), LambdaCallback(on_train_batch_end=die)]
steepest.keras.fit(model, *table(), BATCH, epochs=3, verbose=0, seed=3, callbacks=callbacks)
"""


def test_a_killed_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "KERAS_BACKEND": "jax"}
    command = [sys.executable, script, tmp_path / "a"]
    killed = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with safe_open(tmp_path / "a" / FILE, "numpy") as file:
        assert json.loads(file.metadata()["steepest"])["position"] == [2, 4, 24, False]
    ends = []
    for folder in ("a", "fresh"):
        model = network()
        backup = BackupAndRestore(tmp_path / folder, save_freq=4)
        history = steepest.keras.fit(model, *table(), BATCH, epochs=3, verbose=0, seed=3, callbacks=[backup])
        ends.append((bits(model), history))
    (resumed, one), (whole, other) = ends
    assert_same(whole, resumed)
    assert one.history == other.history
    assert one.steps.equals(other.steps)

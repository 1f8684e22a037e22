"""The listing that Keras tutorials start with, its import prefix changed."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

LISTING = """
from {prefix}keras.models import Sequential
from {prefix}keras.layers import Dense
from {prefix}keras.optimizers import Adam
model = Sequential()
model.add(Dense(units=64, activation='relu', input_shape=(input_dim,)))
model.add(Dense(units=1, activation='sigmoid'))
model.compile(optimizer=Adam(learning_rate=0.001), loss='binary_crossentropy', metrics=['accuracy'])
history = model.fit(X_train, y_train, epochs=10, batch_size=32{more})
"""


def run(prefix: str, data: tuple[np.ndarray, np.ndarray], more: str = "") -> dict[str, object]:
    keras.utils.set_random_seed(3)
    names = {"X_train": data[0], "y_train": data[1], "input_dim": data[0].shape[1]}
    with pytest.warns(UserWarning, match="Do not pass an `input_shape`"):
        exec(LISTING.format(prefix=prefix, more=more), names)
    return names


def test_the_listing_runs_and_learns(cancer, capsys) -> None:
    ours = run("steepest.", cancer)
    assert type(ours["model"]) is keras.Sequential
    assert ours["history"].history["accuracy"][-1] > 0.95
    assert "Epoch 10/10" in capsys.readouterr().out


def test_it_ends_with_keras_own_weights(cancer) -> None:
    ours, theirs = (run(prefix, cancer, ", shuffle=False, verbose=0") for prefix in ("steepest.", ""))
    for mine, its in zip(ours["model"].get_weights(), theirs["model"].get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)
    assert ours["history"].history == theirs["history"].history


def test_it_is_one_program_an_epoch_and_the_second_compiles_nothing(cancer) -> None:
    from steepest.keras.program import program_of

    model = run("steepest.", cancer, ", verbose=0")["model"]
    program = program_of(model)
    assert program.train._cache_size() == 1
    model.fit(*cancer, epochs=2, batch_size=32, verbose=0)
    assert program_of(model) is program
    assert program.train._cache_size() == 1


SHARED = """
import sys
import steepest.keras
import steepest.keras.optimizers.schedules
import keras
assert steepest.keras.layers is keras.layers
assert steepest.keras.optimizers.schedules.CosineDecay is keras.optimizers.schedules.CosineDecay
assert steepest.keras.Dense if hasattr(keras, "Dense") else steepest.keras.Input is keras.Input
assert steepest.keras.models.Sequential is steepest.keras.Sequential
assert keras.backend.backend() == "jax"
"""


def in_a_new_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    words = [sys.executable, "-c", code]
    return subprocess.run(words, env=plain | environment, capture_output=True, text=True, check=False)


def test_its_modules_are_keras_own_on_jax() -> None:
    done = in_a_new_process(SHARED)
    assert done.returncode == 0, done.stderr


def test_models_are_keras_models_however_they_are_made(tmp_path) -> None:
    from steepest import keras as ours

    def fits(model: keras.Model) -> bool:
        return getattr(model.fit, "__func__", None) is ours.fit

    inputs = ours.Input((3,))
    functional = ours.Model(inputs, ours.layers.Dense(1)(inputs))
    assert type(functional).__name__ == "Functional"
    sequential = ours.models.Sequential([ours.Input((3,)), ours.layers.Dense(1)])
    assert isinstance(sequential, ours.Sequential)
    assert isinstance(keras.Sequential(), ours.Sequential)
    assert not isinstance(functional, ours.Sequential)
    sequential.save(tmp_path / "model.keras")
    for model in (
        functional,
        sequential,
        ours.models.load_model(tmp_path / "model.keras"),
        ours.models.clone_model(sequential),
        ours.models.model_from_json(sequential.to_json()),
        ours.Sequential.from_config(sequential.get_config()),
    ):
        assert fits(model)
    plain = keras.models.load_model(tmp_path / "model.keras")
    assert type(plain) is keras.Sequential
    np.testing.assert_array_equal(plain.get_weights()[0], sequential.get_weights()[0])


def test_a_class_of_ones_own_inherits_fit(cancer) -> None:
    from steepest import keras as ours

    class Own(ours.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = keras.layers.Dense(8, "relu"), keras.layers.Dense(1, "sigmoid")

        def call(self, rows):
            return self.out(self.hidden(rows))

    model = Own()
    assert isinstance(model, ours.Model)
    model.compile("adam", "binary_crossentropy")
    history = model.fit(*cancer, epochs=3, verbose=0)
    assert len(history.steps) == 3 * 18
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_saved_and_loaded_it_goes_on_as_if_nothing_had_been(cancer, tmp_path) -> None:
    """Also in the order of rows, which goes on with the optimizer's own count of steps."""
    from steepest import keras as ours

    whole, first = (run("steepest.", cancer, ", verbose=0")["model"] for _ in range(2))
    whole.fit(*cancer, epochs=2, batch_size=32, verbose=0)
    first.fit(*cancer, batch_size=32, verbose=0)
    first.save(tmp_path / "model.keras")
    loaded = ours.models.load_model(tmp_path / "model.keras")
    history = loaded.fit(*cancer, batch_size=32, verbose=0)
    assert len(history.steps) == 18
    for mine, wanted in zip(loaded.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, wanted)
    for name in ("evaluate", "train_on_batch"):
        mine, wanted = (getattr(model, name)(*cancer) for model in (loaded, whole))
        assert mine == wanted

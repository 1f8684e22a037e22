"""Keras models trained by a group of processes: the weights of one process that has all rows."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from campaigns import among
from ranks import together
from steepest.checkpoints import OtherDescentError
from steepest.errors import SteepestError

ROWS, EPOCHS = 1_003, 10

CASES = {
    "stopped early": {"batch_size": 32},
    "odd batches": {"batch_size": 33},
    "several inputs": {"batch_size": 32},
    "images": {"batch_size": 32},
}

NOTHING = slice(0, 0)


def table():
    draws = np.random.Generator(np.random.Philox(5))
    x = draws.normal(size=(ROWS, 16)).astype(np.float32)
    y = (x[:, 0] + draws.normal(size=ROWS) > 0).astype(np.int64)
    return x, y, draws.uniform(0.5, 2, ROWS).astype(np.float32)


def model_of(case):
    from steepest.keras import keras

    layers = keras.layers
    keras.utils.set_random_seed(3)
    if case == "several inputs":
        inputs = {"left": layers.Input((10,), name="left"), "right": layers.Input((6,), name="right")}
        joined = layers.Concatenate()([layers.Dense(8, activation="relu")(inputs["left"]), inputs["right"]])
        model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.Dropout(0.2)(joined)))
    elif case == "images":
        inner = [layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(2), layers.Flatten()]
        model = keras.Sequential([layers.Input((4, 4, 1)), *inner, layers.Dense(1, activation="sigmoid")])
    else:
        inner = [layers.Dense(24, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.2)]
        model = keras.Sequential([layers.Input((16,)), *inner, layers.Dense(1, activation="sigmoid")])
    rate = keras.optimizers.schedules.CosineDecay(0.01, 400)
    model.compile(keras.optimizers.Adam(rate), loss="binary_crossentropy", metrics=["mae"])
    return model


def shaped(case, x):
    if case == "several inputs":
        return {"left": x[:, :10], "right": x[:, 10:]}
    return x.reshape(-1, 4, 4, 1) if case == "images" else x


def training(case, share=slice(None)):
    x, y, weights = (each[share] for each in table())
    return shaped(case, x), y, weights if case == "odd batches" else None


def held_out(case, share=slice(None)):
    """Return 101 rows to validate on, with weights: three batches of 32 and one of an odd number."""
    if case in ("several inputs", "images"):
        return None
    return tuple(each[:101][share] for each in table())


def callbacks_of(case):
    from steepest.keras import keras

    if case != "stopped early":
        return []
    return [keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)]


def state_of(model):
    from steepest.keras import program

    groups = zip(program.GROUPS[:3], program.state_of(model), strict=False)
    return {
        f"{group}/{place}": np.asarray(value)
        for group, values in groups
        for place, value in enumerate(values)
    }


def train(group, folder, case):
    """Train the model of a case; write down what came of it."""
    from steepest.keras.together import fit_together

    own, few = [(slice(0, 900), slice(0, 60)), (slice(900, None), slice(60, None))][group.rank]
    if case == "odd batches":
        own, few = [(NOTHING, slice(None)), (slice(None), NOTHING)][group.rank]
    model = model_of(case)
    history = fit_together(
        *(model, group, training(case, own), held_out(case, few)),
        epochs=EPOCHS,
        seed=4,
        callbacks=callbacks_of(case),
        **CASES[case],
    )
    np.savez(folder / "state.npz", **state_of(model))
    history.steps.to_csv(folder / "steps.csv", index=False)
    (folder / "history.json").write_text(json.dumps(history.history))
    model.save(folder / "model.keras")


@pytest.fixture(scope="module", params=among(CASES, "stopped early", "several inputs"))
def trained(request, tmp_path_factory):
    """Return a case, and the folders of two processes that trained its model together."""
    folder = tmp_path_factory.mktemp("together")
    return request.param, together("test_keras_together:train", 2, folder, request.param)


def test_the_weights_are_those_of_one_process(trained):
    import steepest.keras

    case, folders = trained
    model = model_of(case)
    x, y, weights = training(case)
    history = steepest.keras.fit(
        *(model, x, y),
        epochs=EPOCHS,
        sample_weight=weights,
        validation_data=held_out(case),
        callbacks=callbacks_of(case),
        seed=4,
        verbose=0,
        **CASES[case],
    )
    expected = state_of(model)
    for folder in folders:
        found = np.load(folder / "state.npz")
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5, err_msg=name)
        steps = pd.read_csv(folder / "steps.csv")
        assert len(steps) == len(history.steps)
        np.testing.assert_allclose(steps["loss"], history.steps["loss"], atol=1e-5)
        told = json.loads((folder / "history.json").read_text())
        assert told.keys() == history.history.keys()
        for name, values in history.history.items():
            np.testing.assert_allclose(told[name], values, atol=1e-5)
    if case == "stopped early":
        assert len(history.history["loss"]) < EPOCHS


def test_the_processes_have_the_same_bits_and_the_model_is_a_model(trained):
    from steepest.keras import keras

    _, folders = trained
    first, second = (np.load(folder / "state.npz") for folder in folders)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    saved = keras.models.load_model(folders[1] / "model.keras")
    np.testing.assert_array_equal(state_of(saved)["trainable_variables/0"], second["trainable_variables/0"])


def go_on_and_diverge(group, folder):
    """Train in one go, and again with a stop in between; then with a rate that is too high."""
    from steepest.keras import keras
    from steepest.keras.resume import Backup
    from steepest.keras.together import fit_together

    rows = training("stopped early", slice(group.rank * 500, group.rank * 500 + 500))

    def fitted(epochs, rate=0.01, **more):
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Input((16,)), keras.layers.Dropout(0.3), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss="mse")
        fit_together(model, group, rows, batch_size=32, epochs=epochs, seed=0, **more)
        return model.get_weights()

    backup = Backup(folder / "backup", None, keeps_previous=False, deletes=False)
    whole = fitted(4)
    fitted(2, backup=backup, content="these")
    for found, wanted in zip(fitted(4, backup=backup, content="these"), whole, strict=True):
        np.testing.assert_array_equal(found, wanted)
    with pytest.raises(OtherDescentError, match="its content is these, and now it is others"):
        fitted(6, backup=backup, content="others")
    with pytest.raises(SteepestError) as error:
        fitted(1, rate=1e20)
    (folder / "error").write_text(str(error.value))


@pytest.mark.slow
def test_a_fit_goes_on_from_a_backup_and_a_step_that_is_not_finite_is_explained_by_all(tmp_path):
    first, second = together("test_keras_together:go_on_and_diverge", 2, tmp_path)
    told = (first / "error").read_text()
    assert told.startswith("The descent is not finite at step 2 of epoch 1: ")
    assert (second / "error").read_text() == told

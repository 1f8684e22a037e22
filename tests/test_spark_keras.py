"""Keras models on Spark: the weights of `steepest.keras.fit`, or an error for a person."""

from __future__ import annotations

import importlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from keras.src.trainers.data_adapters.data_adapter_utils import class_weight_to_sample_weights
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import SparkSession
from sklearn.utils.class_weight import compute_sample_weight

import steepest.keras
import steepest.spark
from spark_sessions import spark
from steepest.errors import SteepestError
from steepest.keras import keras
from steepest.keras.columns import Columns, Input, missing, require_all
from steepest.keras.working import _by_class
from test_spark_fit import children, wait_for

COLUMNS = (
    *("sin(id) a", "cast(id % 7 as int) b", "array(cos(id * 3), id % 5) c"),
    *("sin(id) + cos(id * 3) > 0.3 late", "1 + id % 3 weight", "id % 10 = 0 held"),
)

OURS = """
import keras

@keras.saving.register_keras_serializable("tests")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Iterator[SparkSession]:
    path = tmp_path_factory.mktemp("modules") / "layers_of_ours.py"
    path.write_text(OURS)
    with spark("local-cluster[2,1,1024]") as found:
        found.sparkContext.addPyFile(str(path))
        yield found


def rows(session, count=2_000):
    return session.range(0, count, numPartitions=2).selectExpr(*COLUMNS)


def dense(*inner, width=4, loss="binary_crossentropy", outputs=1):
    layers = keras.layers
    keras.utils.set_random_seed(3)
    hidden = [layers.Dense(8, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.2)]
    last = layers.Dense(outputs, activation="sigmoid")
    model = keras.Sequential([layers.Input((width,)), *inner, *hidden, last])
    model.compile(keras.optimizers.Adam(0.003), loss=loss, weighted_metrics=["mae"])
    return model


def collected(frame):
    table = frame.toArrow()
    c = np.array(table["c"].to_pylist(), np.float32)
    first = np.stack([table[name].to_numpy().astype(np.float32) for name in ("a", "b")], axis=1)
    weights = table["weight"].to_numpy().astype(np.float32)
    return np.concatenate([first, c], axis=1), table["late"].to_numpy(), weights, table["held"].to_numpy()


def require_close(model, history, alone, expected):
    for found, wanted in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    for found, wanted in zip(model.optimizer.variables, alone.optimizer.variables, strict=True):
        np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(history.steps["loss"], expected.steps["loss"], atol=1e-5)
    assert history.history.keys() == expected.history.keys()
    for name, values in expected.history.items():
        np.testing.assert_allclose(history.history[name], values, atol=1e-5)


# --- the weights of one process


@pytest.mark.slow
def test_a_dense_model_with_a_layer_of_ones_own(session, tmp_path):
    doubled = importlib.import_module("layers_of_ours").Doubled
    model, alone, said = dense(doubled()), dense(doubled()), []
    history = steepest.spark.fit(
        *(model, rows(session), "late"),
        workers=2,
        epochs=4,
        weights="weight",
        validation_column="held",
        patience=3,
        seed=5,
        shared=str(tmp_path / "shared"),
        say=said.append,
    )
    x, y, weights, held = collected(rows(session))
    expected = steepest.keras.fit(
        *(alone, x[~held], y[~held]),
        epochs=4,
        sample_weight=weights[~held],
        validation_data=(x[held], y[held], weights[held]),
        callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)],
        seed=5,
        verbose=0,
    )
    require_close(model, history, alone, expected)
    assert len(history.history["loss"]) == 4
    assert model.history is history
    assert not said
    assert not list((tmp_path / "shared").iterdir())
    assert model.predict(x, verbose=0).shape == (2_000, 1)


@pytest.mark.slow
def test_a_second_fit_goes_on_with_the_optimizers_state(session):
    model, alone = dense(), dense()
    x, y, *_ = collected(rows(session, 300))
    asked = {"epochs": 1, "validation": 0.1}
    for _ in range(2):
        frame = rows(session, 300)
        history = steepest.spark.fit(model, frame, "late", workers=2, drop=["weight", "held"], **asked)
        expected = steepest.keras.fit(alone, x, y, validation_split=0.1, verbose=0)
    require_close(model, history, alone, expected)
    assert int(model.optimizer.iterations) == 18


@pytest.mark.slow
def test_vectors_are_images(session):
    def model_of():
        layers = keras.layers
        keras.utils.set_random_seed(3)
        inner = [layers.Conv2D(3, 3, activation="relu"), layers.Flatten(), layers.Dense(3)]
        model = keras.Sequential([layers.Input((4, 4, 1)), *inner, layers.Softmax()])
        model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    pixels = [f"sin(id * {place + 1}) p{place}" for place in range(16)]
    plain = session.range(0, 400, numPartitions=2).selectExpr(*pixels, "id % 3 kind")
    frame = VectorAssembler(inputCols=[f"p{place}" for place in range(16)], outputCol="image").transform(
        plain
    )
    model, alone = model_of(), model_of()
    asked = {"epochs": 3, "class_weight": {0: 0.5, 2: 3.0}}
    history = steepest.spark.fit(model, frame.select("image", "kind"), "kind", workers=2, **asked)
    table = plain.toPandas()
    images = table.drop(columns="kind").to_numpy(np.float32).reshape(-1, 4, 4, 1)
    expected = steepest.keras.fit(alone, images, table["kind"].to_numpy(), verbose=0, **asked)
    require_close(model, history, alone, expected)


@pytest.mark.slow
def test_inputs_and_outputs_by_columns_of_arrays(session):
    def model_of():
        layers = keras.layers
        keras.utils.set_random_seed(3)
        inputs = [layers.Input((2,), name="c"), layers.Input((1,), name="a")]
        model = keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(inputs)))
        model.compile("adam", loss="mse")
        return model

    frame = session.range(0, 300, numPartitions=2).selectExpr(
        "sin(id) a", "array(id % 5, id % 7) c", "array(id % 2, cos(id)) y"
    )
    model, alone = model_of(), model_of()
    history = steepest.spark.fit(model, frame, "y", workers=2, batch_size=33, epochs=2)
    table = frame.toArrow()
    x = {"a": table["a"].to_numpy()[:, None], "c": np.array(table["c"].to_pylist(), np.float32)}
    y = np.array(table["y"].to_pylist(), np.float32)
    expected = steepest.keras.fit(alone, x, y, batch_size=33, epochs=2, verbose=0)
    require_close(model, history, alone, expected)


@pytest.mark.slow
def test_a_killed_worker(session, tmp_path):
    frame = rows(session).drop("weight", "held")
    model, undisturbed, said, killed = dense(), dense(), [], []
    asked = {"workers": 2, "epochs": 100, "checkpoint_every": 0.0, "shared": str(tmp_path / "shared")}
    expected = steepest.spark.fit(undisturbed, frame, "late", **asked)

    def kill():
        wait_for(lambda: any(tmp_path.glob("shared/*/attempts/0000/steepest*")))
        time.sleep(0.5)
        killed.append(children()[1])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    history = steepest.spark.fit(model, frame, "late", say=said.append, **asked)
    thread.join()
    assert killed
    assert len(said) == 1
    assert said[0].startswith("Attempt 1 failed: ")
    for found, wanted in zip(model.get_weights(), undisturbed.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert history.steps["loss"].tolist() == expected.steps["loss"].tolist()
    assert history.history == expected.history
    assert not list((tmp_path / "shared").iterdir())


@pytest.mark.slow
def test_missing_values_on_one_worker(session, tmp_path):
    frame = session.range(0, 100, numPartitions=2).selectExpr("if(id < 3, null, sin(id)) a", "id % 2 late")
    with pytest.raises(SteepestError, match=r"^3 rows have no number in the column 'a', and a Keras model"):
        steepest.spark.fit(dense(width=1), frame, "late", workers=2, shared=str(tmp_path / "shared"))
    assert not list((tmp_path / "shared").iterdir())


# --- what is refused before anything runs


def refused(session, model, target="late", frame=None, **asked):
    with pytest.raises(SteepestError) as error:
        steepest.spark.fit(model, rows(session) if frame is None else frame, target, workers=2, **asked)
    assert not children()
    return str(error.value)


def test_settings_that_a_keras_model_does_not_take(session):
    assert refused(session, dense(), learning_rate=0.1).startswith(
        "A fit of a Keras model takes no 'learning_rate'. It takes epochs, batch_size, seed, "
    )
    assert refused(session, dense(), validation="held.parquet").startswith("validation is 'held.parquet'; ")
    assert refused(session, dense(), overwrite=True).startswith(
        "A fit of a Keras model takes no 'overwrite'."
    )
    assert "no rows are held out" in refused(session, dense(), patience=3)
    both = {"weights": "weight", "class_weight": {0: 1.0}}
    assert refused(session, dense(), **both).startswith("weights and class_weight are both set, and Keras")


def test_columns_that_do_not_go_with_the_model(session):
    assert refused(session, dense()) == (
        "The model's input takes 4 numbers a row, and there are 6 in 'a', 'b', 'c', 'weight', 'held'. "
        "Leave columns out (drop=[...]), or build the model for as many."
    )
    text = rows(session).selectExpr("*", "cast(a as string) name")
    assert refused(session, dense(), frame=text).startswith(
        "The column 'name' holds string values, and a Keras model takes numbers. Cast it "
    )
    assert refused(session, dense(), "lat").startswith("The DataFrame has no column 'lat' (target). Did you")
    empty = rows(session).where("a > 2").drop("weight", "held")
    assert refused(session, dense(), frame=empty).startswith("No row has an array in the column 'c'.")
    empty = rows(session).where("a > 2").select("a", "late")
    assert refused(session, dense(width=1), frame=empty).startswith("The DataFrame has no rows.")
    several = rows(session).selectExpr("a", "array(a, b) late")
    assert refused(session, dense(width=1, outputs=3), frame=several).startswith(
        "The model does not go with the columns: "
    )
    inputs = [keras.layers.Input((1,), name="a"), keras.layers.Input((2,), name="d")]
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()(inputs)))
    model.compile("sgd", "mse")
    assert refused(session, model, frame=rows(session).select("a", "c", "late")) == (
        "No input of the model is called 'c'; they are 'a', 'd'. "
        "Leave the column out, drop=['c'], or give it the name of an input."
    )


def test_models_that_no_worker_can_read(session):
    chosen = {"drop": ["weight", "held"]}
    anonymous = dense(keras.layers.Lambda(lambda x: x + 1, output_shape=(4,)))
    assert "Keras can't write the model down and read it again: " in refused(session, anonymous, **chosen)

    class Ours(keras.layers.Layer):
        def call(self, x):
            return x

    told = refused(session, dense(Ours()), **chosen)
    assert told.startswith("Keras can't write the model down and read it again: ")
    assert "register_keras_serializable" in told
    here = type("Here", (keras.layers.Layer,), {"call": lambda _, x: x, "__module__": "__main__"})
    here = keras.saving.register_keras_serializable("tests")(here)
    assert refused(session, dense(here()), **chosen).startswith(
        "A class or function of the model is defined in __main__, which is another one in a worker. Define"
    )
    model = keras.Sequential([keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"call `compile\(\)`"):
        steepest.spark.fit(model, rows(session), "late", workers=2)


# --- a worker's own part


def test_what_a_model_takes_of_a_table():
    table = pa.table({"a": [1.0, 2.0], "c": [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]], "y": [0, 1]})
    inputs = (Input("", ("a", "c"), (2, 2)),)
    columns = Columns(inputs, {"c": 3}, "y", None, None)
    assert columns.x(table).tolist() == [[[1, 3], [4, 5]], [[2, 6], [7, 8]]]
    assert Columns.from_json(columns.to_json()) == columns
    assert columns.x(table.slice(0, 0)).shape == (0, 2, 2)
    ragged = pa.table({"a": [1.0, 2.0], "c": [[3.0, 4.0, 5.0], [6.0]], "y": [0, 1]})
    with pytest.raises(SteepestError, match=r"An array in the column 'c' has 1 elements; 3 were expected"):
        columns.x(ragged)


class Group:
    """Stands for one of two workers, of which each says what it counted."""

    def __init__(self, *targets):
        self.told = [
            json.dumps({str(each): y.tolist().count(each) for each in sorted({*y.tolist()})}) for y in targets
        ]

    def exchange(self, own):
        assert own.decode() in self.told
        return [each.encode() for each in self.told]


def test_class_weights_are_those_of_all_workers():
    first, second = np.array([0, 0, 2, 0]), np.array([2, 0, 1])
    group, whole = Group(first, second), np.concatenate([first, second])
    balanced = [_by_class(group, "balanced", y) for y in (first, second)]
    np.testing.assert_allclose(np.concatenate(balanced), compute_sample_weight("balanced", whole))
    given = {0: 0.5, 2: 3.0, 7: 2.0}
    text = "0=0.5,2=3.0,7=2.0"
    for y in (first, np.eye(3)[first]):
        wanted = class_weight_to_sample_weights(y, given)
        np.testing.assert_allclose(_by_class(group, text, y), wanted)
    with pytest.raises(SteepestError, match="names 'late', which is no class"):
        _by_class(group, "late=3", first)
    none = np.array([], np.int64)
    assert _by_class(Group(none, second), text, none).shape == (0,)


def test_missing_values_are_counted_over_all_workers():
    first = pa.table({"a": [1.0, None], "c": [[1.0, None], [None, None]]})
    second = pa.table({"a": [float("nan"), 1.0], "c": pa.array([None, [1.0, 2.0]])})
    assert [missing(first), missing(second)] == [{"a": 1, "c": 2}, {"a": 1, "c": 1}]
    with pytest.raises(SteepestError, match=r"^2 rows have no number in the column 'a'"):
        require_all([missing(first), missing(second)])

"""Runs of Keras models as ONNX: onnxruntime computes what ``steepest predict`` does."""

from __future__ import annotations

import sys

import keras
import numpy as np
import onnx
import pytest

import steepest.export
from campaigns import among
from exporting import fitted, flights, mails
from real_data import plotnine
from steepest import SteepestError, export
from test_export_onnx import assert_predicts, computed

layers = keras.layers


def noisy(columns):
    """Return a model with noise, moving means and an activation that is not a ReLU."""
    return keras.Sequential(
        [
            keras.Input((columns.width,)),
            layers.Dense(8, "gelu"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Dense(3, "softmax"),
        ]
    )


def logits(columns):
    """Return a compiled model whose outputs are logits, with a window that slides over the features."""
    model = keras.Sequential(
        [
            keras.Input((columns.width,)),
            layers.Reshape((columns.width, 1)),
            layers.Conv1D(4, 3, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.LayerNormalization(),
            layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def skipping(columns):
    """Return a model of numbers whose layers are no chain."""
    inputs = keras.Input((columns.width,))
    hidden = layers.Dense(8, "tanh")(inputs)
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()([inputs, hidden])))


def wide_and_deep(columns, sparse):
    """Return a model of large categories and words."""
    features = keras.Input((columns.width,), name="features")
    inputs, deep, wide = [features], [features], []
    for column in sparse.values():
        theirs = column.inputs()
        inputs += theirs
        deep.append(column.embedding(4)(theirs))
        wide.append(column.weights(1)(theirs))
    hidden = layers.Dense(8, "relu")(layers.Concatenate()(deep))
    return keras.Model(inputs, keras.ops.sigmoid(layers.Add()([layers.Dense(1)(hidden), *wide])))


@keras.saving.register_keras_serializable()
class Sorted(layers.Layer):
    """What ONNX has no operator for."""

    def call(self, values):
        """Return singular values."""
        return keras.ops.svd(values[:, :, None] * values[:, None, :], compute_uv=False)

    def compute_output_shape(self, shape):
        """Return the shape of its input."""
        return shape


def beyond_onnx(columns):
    """Return a model that can't be written."""
    return keras.Sequential([keras.Input((columns.width,)), Sorted(), layers.Dense(1)])


RUNS = {
    "noisy": (lambda: plotnine("penguins"), "species", {}),
    "logits": (lambda: flights().drop(columns=["tailnum"]), "late", {"learning_rate": None}),
    "skipping": (lambda: plotnine("diamonds").head(2_000), "carat", {"loss": "mean_absolute_error"}),
}


@pytest.mark.parametrize("name", among(RUNS, "logits"))
def test_onnxruntime_predicts_real_rows_as_the_run_does(name, tmp_path):
    rows, target, settings = RUNS[name]
    table = rows()
    run = fitted(tmp_path, table, target, model=f"{__name__}:{name}", **settings)
    model = export.to_onnx(run)
    onnx.checker.check_model(model, full_check=True)
    assert {each.name for each in model.graph.input} == {each.name for each in run.plan.columns}
    assert_predicts(run, model, table)
    assert_predicts(run, model, table.head(1))


@pytest.mark.parametrize("rows", among([flights, mails], mails))
def test_large_categories_are_looked_up_and_words_are_inputs(rows, tmp_path):
    table = rows()
    kinds = {name: kind for name, kind in (("tailnum", "category"), ("words", "text")) if name in table}
    asked = {"kinds": kinds, "minimum_count": 2}
    run = fitted(tmp_path, table, "late", model=f"{__name__}:wide_and_deep", **asked)
    model = export.to_onnx(run)
    names = {each.name for each in model.graph.input}
    assert names >= ({"words.places", "words.values", "tailnum.places"} if rows is mails else {"tailnum"})
    assert_predicts(run, model, table)
    known, unknown = (
        computed(model, export.onnx_inputs(run, each))["probabilities"]
        for each in (table, table.assign(tailnum="N0"))
    )
    assert np.abs(known - unknown).max() > 1e-4


def test_what_has_no_operator_is_said(tmp_path):
    table = plotnine("diamonds").head(500)[["carat", "depth", "table"]]
    run = fitted(tmp_path, table, "carat", model=f"{__name__}:beyond_onnx")
    with pytest.raises(SteepestError, match="jax2onnx can't write the Keras model") as caught:
        export.to_onnx(run)
    assert caught.value.hint == "Export .keras."


def test_without_jax2onnx_the_extra_is_named(tmp_path, monkeypatch):
    run = fitted(tmp_path, plotnine("penguins"), "species", model=f"{__name__}:noisy")
    monkeypatch.delitem(sys.modules, "steepest.export.onnx_keras", raising=False)
    monkeypatch.delattr(steepest.export, "onnx_keras", raising=False)
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(SteepestError, match="the package jax2onnx, which is not installed") as caught:
        export.to_onnx(run)
    assert caught.value.hint == "Install it: pip install 'steepest[onnx-keras]'."

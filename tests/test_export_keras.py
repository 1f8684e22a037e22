"""Runs as Keras models, which predict what the runs do."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.datasets import load_iris

from exporting import fitted, predicted, run_of
from steepest import export


def assert_same(run, model, table) -> None:
    expected = predicted(run, table)
    of_labels = expected.iloc[:, 1:] if run.task.labels else expected
    found = np.asarray(model(export.keras_inputs(run, table)))
    assert found.shape == of_labels.shape
    np.testing.assert_allclose(found, of_labels, rtol=1e-5, atol=1e-5 * run.task.deviation)


@pytest.mark.parametrize("name", ["mails", "penguins", "diamonds", "departures"])
def test_a_keras_model_predicts_real_rows_as_the_run_does(name, tmp_path):
    run, table = run_of(name)
    model = export.to_keras(run)
    assert_same(run, model, table)
    export.to_file(run, tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    inputs = export.keras_inputs(run, table)
    np.testing.assert_array_equal(np.asarray(again(inputs)), np.asarray(model(inputs)))
    dropouts = [each.rate for each in model.layers if isinstance(each, keras.layers.Dropout)]
    assert dropouts == ([0.1] if name == "penguins" else [])


def test_the_features_are_those_that_the_plan_names():
    run, table = run_of("adult")
    features = export.keras_inputs(run, table)
    assert features.shape == (len(table), len(run.plan.feature_names))
    age, plan = list(run.plan.feature_names).index("age"), run.plan.columns[0]
    np.testing.assert_allclose(features[:, age], (table["age"] - plan.mean) / plan.deviation, rtol=1e-5)


def build(columns):
    """Return a model with variables that are not trained, too."""
    layers = [
        keras.Input((columns.width,)),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(3, "softmax"),
    ]
    return keras.Sequential(layers)


def test_a_run_of_a_keras_model_gives_that_model_back(tmp_path):
    table = load_iris(as_frame=True).frame
    table["target"] = np.array(["setosa", "versicolor", "virginica"])[table["target"]]
    run = fitted(tmp_path, table, "target", model="test_export_keras:build")
    model = export.to_keras(run)
    assert [type(each).__name__ for each in model.layers] == ["BatchNormalization", "Dense"]
    assert_same(run, model, table)
    export.to_file(run, tmp_path / "model.keras")
    assert_same(run, keras.saving.load_model(tmp_path / "model.keras"), table)
    for to, what in (
        (export.to_sklearn, "an estimator"),
        (lambda run: export.to_file(run, tmp_path / "x.safetensors"), "one file of safetensors"),
    ):
        with pytest.raises(export.SteepestError, match=f"of a Keras model, of which {what} can't be made"):
            to(run)

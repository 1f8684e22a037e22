"""`steepest fit --model package.module:build`: a Keras model is a model of the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

from campaigns import among
from expecting import fails
from steepest.cli import main
from steepest.keras.building import Rates
from steepest.prediction import predict
from steepest.run import Run, open_run
from steepest.settings import Settings
from steepest.training import fit

BUILDERS = """
import keras

def network(columns):
    layers = keras.layers
    return keras.Sequential([
        keras.Input((columns.width,)), layers.Dense(16, "relu"), layers.Dropout(0.2),
        layers.BatchNormalization(), layers.Dense(1, "sigmoid")])

def logits(columns):
    model = keras.Sequential([keras.Input((columns.width,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rates = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model.compile(keras.optimizers.SGD(rates), loss, metrics=["accuracy"])
    return model

def classes(columns):
    return keras.Sequential([keras.Input((columns.width,)), keras.layers.Dense(3, "softmax")])

def number(columns):
    return keras.Sequential([keras.Input((columns.width,)), keras.layers.Dense(1)])

def deep(columns):
    layers = [keras.layers.Dense(8, "relu"), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((columns.width,)), *layers])

def positive(columns):
    return keras.Sequential([keras.Input((columns.width,)), keras.layers.Dense(1, "softplus")])

@keras.saving.register_keras_serializable("steepest_tests")
class Own(keras.Model):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.hidden, self.out = keras.layers.Dense(8, "relu"), keras.layers.Dense(1, "sigmoid")
    def call(self, rows):
        return self.out(self.hidden(rows))

class Unregistered(Own):
    pass

def own(columns):
    return Own()

def unregistered(columns):
    return Unregistered()

def narrow(columns):
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])

def wide(columns):
    return keras.Sequential([keras.Input((columns.width,)), keras.layers.Dense(4)])

def no_model(columns):
    return 3

def failing(columns):
    raise RuntimeError("the builder's own words")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with tables and a module of builders, and the process in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "builders", raising=False)
    (tmp_path / "builders.py").write_text(BUILDERS, "utf-8")
    load_breast_cancer(as_frame=True).frame.to_csv("cancer.csv", index=False)
    load_iris(as_frame=True).frame.to_csv("iris.csv", index=False)
    load_diabetes(as_frame=True, scaled=False).frame.to_csv("diabetes.csv", index=False)
    return tmp_path


def test_a_network_is_fitted_shown_evaluated_and_predicts(folder, capsys) -> None:
    words = ["fit", "cancer.csv", "--target", "target", "--model", "builders:network", "--epochs", "30"]
    main([*words, "--schedule", "cosine", "--out", "run", "--json"])
    printed = capsys.readouterr()
    fitted = json.loads(printed.out.splitlines()[-1])
    search = open_run("run").record["learning_rate"]
    assert f"The learning rate is {search['choice']:.3g}: {search['why']}." in " ".join(printed.err.split())
    assert search["steps"] == search["planned_steps"] == 450
    scores = fitted["figures"]["validation"]["scores"]
    assert scores["auc"] > 0.97
    assert fitted["model"]["layers"] == ["Dense", "Dropout", "BatchNormalization", "Dense"]
    assert (fitted["descent"]["optimizer"], fitted["descent"]["schedule"]) == ("adam", "cosine")
    assert fitted["descent"]["learning_rate"] == pytest.approx(search["choice"])

    run = open_run("run")
    assert list(run.steps.columns) == ["epoch", "step", "loss", "learning_rate"]
    assert len(run.steps) == fitted["descent"]["steps"] == 30 * 15
    assert {"loss", "accuracy", "validation_loss", "validation_accuracy"} <= set(run.epochs.columns)
    assert run.epochs["validation_loss"].iloc[-1] == pytest.approx(scores["log_loss"], rel=1e-3)

    main(["show", "run"])
    assert "builders:network" in capsys.readouterr().out
    main(["evaluate", "run", "cancer.csv", "--json"])
    evaluated = json.loads(capsys.readouterr().out.splitlines()[-1])
    main(["predict", "run", "cancer.csv", "--out", "predicted.csv"])
    predicted = pd.read_csv("predicted.csv")["probability of 1"]
    true = pd.read_csv("cancer.csv")["target"]
    assert ((predicted > 0.5) == true).mean() == pytest.approx(evaluated["scores"]["accuracy"], abs=1e-12)

    evidence = json.loads(Path("run/evidence.json").read_text("utf-8"))
    assert evidence["end"]["loss"] < evidence["start"]["loss"] / 2
    assert evidence["end"]["limit"] > 0
    assert [each["units"] for each in evidence["end"]["layers"]] == [16, 1]
    assert evidence["skill"]["validation"] > 0.7
    assert json.loads(Path("run/findings.json").read_text("utf-8")) == fitted["findings"]

    report = Path("run/report.html").read_text("utf-8")
    assert "builders:network" in report
    assert "Norm of the gradient" not in report  # Keras' own step does not tell it


def test_predictions_are_those_of_the_keras_model(folder) -> None:
    model = "builders:network"
    run = fit(Settings(("cancer.csv",), "target", model=model, epochs=2, learning_rate=0.01, out="run"))
    stored = json.loads(Path("run/model.json").read_text("utf-8"))["keras"]
    model = keras.saving.deserialize_keras_object(stored["config"])
    for group, variables in (
        ("trainable", model.trainable_variables),
        ("other", model.non_trainable_variables),
    ):
        for index, variable in enumerate(variables):
            variable.assign(run.parameters[group][str(index)])
    table = pd.read_csv("cancer.csv")
    rows = pa.Table.from_pandas(table)
    wanted = model.predict(run.plan.encode(rows), verbose=0)[:, 0]
    np.testing.assert_allclose(predict(run, rows), wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("builder", among(["logits", "classes"], "logits"))
def test_classes_from_logits_and_from_probabilities(folder, builder) -> None:
    rate = "auto" if builder == "logits" else 0.01  # a model that its builder compiles has its own
    wanted = Settings(("iris.csv",), "target", model=f"builders:{builder}", epochs=30, out="run")
    run = fit(replace(wanted, learning_rate=rate))
    scores = run.record["figures"]["validation"]["scores"]
    last = run.epochs.iloc[-1]
    assert scores["accuracy"] == pytest.approx(last["validation_accuracy"], abs=1e-6)
    assert scores["log_loss"] == pytest.approx(last["validation_loss"], rel=1e-4)
    if builder == "logits":
        assert run.record["descent"]["schedule"] == "ExponentialDecay"
        assert run.record["learning_rate"] is None
        np.testing.assert_allclose(run.steps["learning_rate"].iloc[:3], 0.1 * 0.5 ** (np.arange(3) / 10))


def test_numbers_come_back_in_the_targets_own_unit(folder) -> None:
    wanted = Settings(
        ("diabetes.csv",), "target", model="builders:number", loss="mean_squared_error", learning_rate=0.01
    )
    wanted = replace(wanted, out="run")
    run = fit(wanted)
    scores = run.record["figures"]["validation"]["scores"]
    assert scores["r2"] > 0.4
    deviation = run.task.deviation
    assert scores["rmse"] ** 2 / deviation**2 == pytest.approx(
        run.epochs["validation_loss"].iloc[-1], rel=1e-3
    )


@pytest.mark.slow
def test_counts_come_from_a_positive_output(folder) -> None:
    wanted = Settings(("diabetes.csv",), "target", model="builders:positive", learning_rate=0.001, out="run")
    run = fit(wanted)
    assert run.record["figures"]["validation"]["scores"]["poisson_deviance"] < 1e3
    with fails("the loss is nan", "softplus"):
        fit(replace(wanted, model="builders:number", out="other"))
    assert not Path("other").exists()


@pytest.mark.slow
def test_weights_and_the_seed_decide(folder) -> None:
    def weights(out: str, **more) -> bytes:
        wanted = Settings(("cancer.csv",), "target", model="builders:network", epochs=1, learning_rate=0.01)
        fit(replace(wanted, out=out, **more))
        return Path(out, "model.safetensors").read_bytes()

    first = weights("a")
    assert weights("b") == first
    # Layers are named the same, whatever was built in the process before.
    assert Path("a/model.json").read_bytes() == Path("b/model.json").read_bytes()
    assert weights("c", seed=1) != first
    assert weights("d", class_weight="0=5") != first


def test_a_class_of_ones_own_is_found_again_in_a_new_process(folder) -> None:
    wanted = Settings(("cancer.csv",), "target", model="builders:own", epochs=1, learning_rate=0.01)
    fit(replace(wanted, out="run"))
    code = "from steepest.cli import main; main(['predict', 'run', 'cancer.csv', '--out', 'predicted.csv'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv("predicted.csv")) == 569


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("builders:networ", ["no function 'networ'", "Did you mean 'network'"]),
        ("nowhere:network", ["'nowhere'", "can't be imported"]),
        ("builders:no_model", ["returned int"]),
        ("builders:failing", ["RuntimeError: the builder's own words"]),
        ("builders:narrow", ["takes no rows of 30 features", "(None, 3)", "columns.width"]),
        ("builders:wide", ["(None, 4)", "(None, 1)"]),
        ("builders:unregistered", ["register_keras_serializable"]),
        ("lineer", ["Did you mean 'linear'", "module:function"]),
    ],
)
def test_what_is_wrong_with_a_builder_is_said(folder, model, words) -> None:
    with fails(*words):
        fit(Settings(("cancer.csv",), "target", model=model, epochs=1, out="run"))
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"l2": 0.1}, ["--l2", "Keras"]),
        ({"hidden": (3,)}, ["--hidden", "Keras"]),
        ({"embedding": 3}, ["--embedding", "Keras"]),
        ({"schedule": "reduce_on_plateau"}, ["reduce_on_plateau"]),
        ({"loss": "quantile", "model": "builders:positive"}, ["quantile"]),
    ],
)
def test_settings_that_are_of_no_use_are_refused(folder, settings, words) -> None:
    wanted = {"model": "builders:network", "epochs": 1, "out": "run"} | settings
    data = "diabetes.csv" if "loss" in settings else "cancer.csv"
    with fails(*words):
        fit(Settings((data,), "target", **wanted))


def test_a_compiled_model_keeps_its_own_optimizer(folder) -> None:
    with fails("--optimizer", "compiles its model"):
        fit(Settings(("iris.csv",), "target", model="builders:logits", optimizer="sgd", out="run"))


def test_a_divergence_leaves_a_run_that_shows_it(folder) -> None:
    wanted = Settings(
        ("diabetes.csv",),
        "target",
        model="builders:deep",
        loss="mean_squared_error",
        optimizer="sgd",
        learning_rate=30.0,
        epochs=9,
        out="run",
    )
    with fails("The descent diverged at step ", "rate of 30", "Try --learning-rate 3 or --clip-norm 1"):
        fit(wanted)
    run = Run(Path("run"))
    failure = run.record["descent"]["failure"]
    assert failure["layer"].endswith(("dense", "dense_1"))
    assert failure["what"] in ("loss", "gradient", "parameters")
    assert failure["largest_parameter"] > 1
    assert len(run.steps) == failure["step"]
    assert failure["loss"] in ("inf", "nan")
    assert 0 < len(failure["rows"]) == len(failure["losses"]) <= 10
    (place, *_) = failure["places"]
    assert place.startswith("diabetes.csv, line ")
    assert run.record["figures"] == {"training": None, "validation": None}
    found = run.findings[0]
    assert (found["finding"], found["severity"]) == ("diverged", "error")
    assert place in found["where"]
    assert run.record["findings"] == run.findings
    # Another run may take its place.
    assert fit(replace(wanted, learning_rate=0.01)).path == Path("run")


def test_backing_off_is_refused(folder) -> None:
    with fails("back-off is not for Keras models", "--learning-rate auto"):
        fit(
            Settings(("cancer.csv",), "target", model="builders:network", on_divergence="back-off", out="run")
        )


def test_rates_by_step() -> None:
    rates = Rates([0.5, 0.25])
    assert [float(rates(step)) for step in (0, 1, 7)] == [0.5, 0.25, 0.25]
    assert Rates.from_config(rates.get_config()).rates == [0.5, 0.25]

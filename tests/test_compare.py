"""`steepest compare`: whole descents from one start that differ in how they descend."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import steepest
from steepest import SteepestError
from steepest.cli import main
from steepest.data.rows import MEMORY
from steepest.settings import Settings
from steepest.trials.comparing import compare
from steepest.trials.telling import says_of_comparison
from steepest.trials.variants import DEFAULT, planned, read_variant

FILES = [
    "animation.html",
    "compare.json",
    "history.parquet",
    "landscape.json",
    "path.safetensors",
    "report.html",
]
ROWS = 300
VARIANTS = [
    {"batch_size": "all", "epochs": 40},
    {"batch_size": 7},
    {"optimizer": "adam", "learning_rate": 0.1},
    {"learning_rate": 1e4},
]


@pytest.fixture(scope="module")
def frame():
    draws = np.random.default_rng(0)
    x = draws.normal(size=(ROWS, 2))
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": x @ [1.0, -2.0] + draws.normal(size=ROWS)})


@pytest.fixture(scope="module")
def settings():
    return Settings(MEMORY, "y", optimizer="sgd", learning_rate=0.05, epochs=3, tolerance=0.0)


@pytest.fixture(scope="module")
def compared(frame, settings, tmp_path_factory):
    said = []
    out = tmp_path_factory.mktemp("compared") / "new" / "c"
    return compare(settings, VARIANTS, frame, out=out, say=said.append), said


def test_the_folder_is_whole_and_nothing_is_left_beside_it(compared):
    found, _ = compared
    assert sorted(each.name for each in found.path.iterdir()) == FILES
    assert [each.name for each in found.path.parent.iterdir()] == ["c"]
    assert json.loads((found.path / "compare.json").read_text("utf-8")) == json.loads(
        json.dumps(found.record)
    )


def test_each_variant_is_the_descent_that_fit_makes_of_it(compared, frame, settings, tmp_path):
    found, _ = compared
    history = pd.read_parquet(found.path / "history.parquet")
    for variant, entry in zip(VARIANTS[:3], found.record["variants"], strict=False):
        given = {"optimizer": "sgd", "learning_rate": 0.05, "epochs": 3, "tolerance": 0.0, **variant}
        run = steepest.fit(frame, "y", out=str(tmp_path / entry["name"]), **given)
        ours = history[history["variant"] == entry["name"]]
        np.testing.assert_allclose(ours["loss"], run.steps["loss"], rtol=1e-5)
        np.testing.assert_array_equal(ours["step"], run.steps["step"])
        np.testing.assert_array_equal(ours["epoch"], run.steps["epoch"])
        assert entry["validation_loss"] == pytest.approx(run.epochs["validation_loss"].iloc[-1], rel=1e-5)
        path = load_file(found.path / "path.safetensors")
        last = path[f"{found.record['variants'].index(entry)}.layer_1.weights"][-1]
        np.testing.assert_allclose(last, run.parameters["layer_1"]["weights"], rtol=1e-4)


def test_all_begin_at_one_place_and_are_judged_by_the_same_rows(compared):
    found, _ = compared
    path = load_file(found.path / "path.safetensors")
    for number, entry in enumerate(found.record["variants"]):
        np.testing.assert_array_equal(path[f"{number}.layer_1.weights"][0], path["0.layer_1.weights"][0])
        steps = path[f"{number}.steps"]
        assert steps[0] == 0
        assert len(steps) <= 100
        assert steps[-1] == (entry["steps"] - entry["diverged"])
    history = pd.read_parquet(found.path / "history.parquet")
    best = history[history["variant"] == "optimizer adam, learning rate 0.1"]
    assert best["sample_loss"].iloc[-1] == pytest.approx(found.record["variants"][2]["loss"])
    assert found.record["sample_rows"] == found.record["split"]["training_rows"]


def test_rows_and_seconds_are_those_of_the_steps(compared):
    found, _ = compared
    history = pd.read_parquet(found.path / "history.parquet")
    rows = found.record["split"]["training_rows"]
    for entry, batch in zip(found.record["variants"][:2], (rows, 7), strict=False):
        part = history[history["variant"] == entry["name"]]
        sizes = [min(batch, rows - first) for first in range(0, rows, batch)]
        np.testing.assert_array_equal(part["rows"], np.cumsum(sizes * entry["epochs"]))
        assert entry["rows_seen"] == rows * entry["epochs"]
        assert (part["seconds"].diff().dropna() > 0).all()
        assert part["seconds"].iloc[-1] < entry["seconds"]


def test_a_variant_that_diverges_is_told_and_spoils_no_picture(compared):
    found, said = compared
    entry = found.record["variants"][3]
    assert entry["diverged"]
    assert any(line.startswith("learning rate 10000: ") for line in said)
    assert "learning rate 10000 diverged" in says_of_comparison(found.record)
    above = json.loads((found.path / "landscape.json").read_text("utf-8"))
    assert np.abs([*above["x"], *above["y"]]).max() < 100


def test_everything_is_drawn_from_the_folder_alone(compared, tmp_path):
    found, _ = compared
    for against in ("step", "rows", "seconds"):
        figure = steepest.plot.loss_by(found.path, against)
        labels = [text.get_text() for text in figure.legends[0].texts] if figure.legends else []
        labels = labels or [text.get_text() for text in figure.axes[0].get_legend().texts]
        assert len(labels) == len(VARIANTS)
    assert steepest.plot.from_above(found.path).axes
    steepest.plot.animate(found.path, tmp_path / "a.html")
    assert (tmp_path / "a.html").read_bytes() == (found.path / "animation.html").read_bytes()
    page = (found.path / "report.html").read_text("utf-8")
    assert page.count("<figure") == 4
    assert 'href="animation.html"' in page


def test_variants_are_words_after_one_option(frame, tmp_path, capsys):
    file, out = tmp_path / "t.csv", tmp_path / "c"
    frame.to_csv(file, index=False)
    words = ["compare", str(file), "--target", "y", "--epochs", "1", "--learning-rate", "0.01", "--json"]
    main([*words, "--out", str(out), "--variants", "batch_size=all", "batch-size=32,optimizer=adam"])
    lines = capsys.readouterr().out.splitlines()
    names = [each["name"] for each in json.loads(lines[-1])["variants"]]
    assert names == ["batch size all", "batch size 32, optimizer adam"]
    assert [line[: len(name)] for line, name in zip(lines[1:3], names, strict=True)] == names
    with pytest.raises(SystemExit):
        main([*words, "--out", str(out)])
    assert "add --overwrite" in capsys.readouterr().err


def test_where_no_rate_is_given_each_finds_its_own(frame, tmp_path):
    said = []
    wanted = Settings(MEMORY, "y", epochs=2)
    found = compare(
        wanted, [{"optimizer": "sgd"}, {"optimizer": "adam"}], frame, out=tmp_path / "c", say=said.append
    )
    rates = [each["learning_rate"] for each in found.record["variants"]]
    assert rates[0] != rates[1]
    assert sum("The learning rate is" in line for line in said) == 2
    assert all(
        each["search"]["choice"] == rate for each, rate in zip(found.record["variants"], rates, strict=True)
    )


def test_batch_mini_batch_and_stochastic_descent_unless_told_otherwise():
    assert list(planned(Settings(), ())) == ["batch size all", "batch size 32", "batch size 1"]
    assert len(DEFAULT) == 3


@pytest.mark.parametrize(
    ("variants", "says"),
    [
        (["batch_size"], "is no list of settings"),
        (["optimizer=sgd,optimizer=adam"], "sets optimizer twice"),
        (["optimiser=sgd", "optimizer=adam"], "Did you mean 'optimizer'"),
        (["model=mlp", "optimizer=adam"], "Variants can't differ in model"),
        (["epochs=2.5", "epochs=1"], "epochs = '2.5', but it takes a whole number"),
        (["optimizer=sgd"], "From 2 to 8 variants"),
        ([f"epochs={count}" for count in range(1, 10)], "From 2 to 8 variants"),
        (["epochs=2", "epochs=2"], "Two variants are the same"),
        (["optimizer=adm", "epochs=2"], "Did you mean 'adam'"),
        (["learning_rate=-1", "epochs=2"], "A learning rate is a number above zero"),
    ],
)
def test_what_can_not_be_compared_is_refused_before_anything_is_read(variants, says, tmp_path):
    with pytest.raises(SteepestError, match=says):
        compare(
            Settings(("nowhere.csv",), "y"), [read_variant(each) for each in variants], out=tmp_path / "c"
        )
    assert not list(tmp_path.iterdir())


def test_a_keras_model_is_refused(tmp_path):
    with pytest.raises(SteepestError, match="not on made:up"):
        compare(Settings(("nowhere.csv",), "y", model="made:up"), out=tmp_path / "c")

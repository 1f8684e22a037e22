"""`steepest.training.fit` on real data: every choice does what it says, and the model learns."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import fields, replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pytest
from scipy.special import expit
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.preprocessing import StandardScaler

from steepest import networks, training
from steepest.checking import check
from steepest.combining import combine
from steepest.descent.losses import LOSSES
from steepest.descent.optimizers import LINE_SEARCH, OPTIMIZERS
from steepest.descent.schedules import SCHEDULES, schedule_by_name
from steepest.errors import SteepestError
from steepest.prediction import predict
from steepest.preparation import prepare
from steepest.run import open_model, open_run
from steepest.settings import Settings
from steepest.tasks import LOSS_KINDS
from whole_tables import read_table

EXAMPLES = Path(__file__).parent.parent / "examples"

SAME = ("model.safetensors", "history.parquet", "columns.json", "model.json")
"""The files that two fits with the same settings write byte for byte alike."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Real tables as CSV: tumours, flowers, wines, diabetes patients."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("breast_cancer", "iris", "wine", "diabetes"):
        loaded = getattr(datasets, f"load_{name}")(as_frame=True)
        table = loaded.frame
        if name == "iris":
            table["target"] = np.asarray(loaded.target_names)[table["target"]]
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture
def fit(monkeypatch, folder, tmp_path):
    """Fit a table of `folder`, or a path, without the report: that is slow, and has its own tests."""
    monkeypatch.setattr(training, "_write_report", lambda *_: None)
    count = iter(range(100))

    def fit(data, target="target", **settings):
        file = data if isinstance(data, Path) else folder / f"{data}.csv"
        out = tmp_path / f"run-{next(count)}"
        given = {"data": (str(file),), "target": target, "out": str(out), "learning_rate": 0.01}
        return training.fit(Settings(**given | settings))

    return fit


def scores(run, part="validation"):
    return run.record["figures"][part]["scores"], run.record["figures"][part]["baseline"]["scores"]


def same(one, other):
    return [(one.path / name).read_bytes() == (other.path / name).read_bytes() for name in SAME]


LEARNED = {
    "mean_squared_error": ("diabetes", "rmse", 1),
    "mean_absolute_error": ("diabetes", "mae", 1),
    "huber": ("diabetes", "rmse", 1),
    "quantile": ("diabetes", "mae", 1),
    "poisson": ("diabetes", "poisson_deviance", 1),
    "binary_cross_entropy": ("breast_cancer", "log_loss", 1),
    "hinge": ("breast_cancer", "accuracy", -1),
    "categorical_cross_entropy": ("iris", "log_loss", 1),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns(fit, loss):
    data, score, sign = LEARNED[loss]
    run = fit(data, loss=loss, learning_rate=0.05, epochs=20)
    ours, baseline = scores(run)
    assert sign * ours[score] < sign * baseline[score] * (0.8 if sign > 0 else 1.2)
    assert run.record["descent"]["loss"] == loss
    assert run.task.kind == LOSS_KINDS[loss]


OF_BATCHES = [name for name in OPTIMIZERS if name != LINE_SEARCH]


@pytest.mark.parametrize(("optimizer", "schedule"), [*zip(cycle(OF_BATCHES), SCHEDULES, strict=False)])
def test_every_optimizer_and_schedule_learns(fit, optimizer, schedule):
    run = fit("breast_cancer", optimizer=optimizer, schedule=schedule, learning_rate=0.02, epochs=5)
    assert (run.record["descent"]["optimizer"], run.record["descent"]["schedule"]) == (optimizer, schedule)
    expected = schedule_by_name(schedule, 0.02, len(run.steps))(np.arange(len(run.steps)))
    np.testing.assert_allclose(run.steps["learning_rate"], expected, rtol=1e-6)
    assert scores(run)[0]["auc"] > 0.9
    assert run.epochs["loss"].is_monotonic_decreasing


def test_that_list_leaves_no_optimizer_out():
    assert len(OF_BATCHES) <= len(SCHEDULES)


def test_a_line_search_learns_from_all_rows(fit):
    run = fit("breast_cancer", optimizer="lbfgs", batch_size="all", epochs=30, learning_rate="auto")
    assert run.record["descent"]["learning_rate"] == 1
    assert scores(run)[0]["auc"] > 0.95
    with pytest.raises(SteepestError, match="needs the loss of all rows"):
        fit("breast_cancer", optimizer="lbfgs")


@pytest.mark.parametrize(("batch_size", "steps"), [("all", 1), (1, 150), (64, 3), (1000, 1)])
def test_batch_mini_batch_and_stochastic_descent_are_one_path(fit, batch_size, steps):
    run = fit("iris", batch_size=batch_size, epochs=2, validation=0)
    assert len(run.steps) == 2 * steps
    assert run.epochs["rows"].tolist() == [150, 150]
    assert run.record["descent"]["batch_size"] == batch_size


def test_epochs_default_to_5000_steps_within_10_and_500(fit, monkeypatch):
    seen = []

    def stop(settings, prepared, epochs, *_):
        seen.append(epochs)
        raise SteepestError("enough")

    monkeypatch.setattr(networks, "problem", stop)
    for batch_size in ("all", 30, 1):
        with pytest.raises(SteepestError, match="enough"):
            fit("iris", batch_size=batch_size, validation=0)
    assert seen == [500, 500, 34]


def test_the_linear_model_reaches_the_optimum_of_scikit_learn(fit, folder):
    """Minimise mean log loss + l2 Σ w²; scikit-learn minimises C Σ log loss + Σ w² / 2."""
    strength = 0.01
    run = fit(
        "breast_cancer",
        l2=strength,
        validation=0,
        batch_size="all",
        learning_rate=0.05,
        epochs=3000,
        tolerance=0,
    )
    table = pd.read_csv(folder / "breast_cancer.csv")
    features, target = StandardScaler().fit_transform(table.iloc[:, :-1]), table["target"]
    peer = LogisticRegression(C=1 / (2 * strength * len(table)), tol=1e-10, max_iter=10_000).fit(
        features, target
    )
    np.testing.assert_allclose(run.parameters["layer_1"]["weights"][:, 0], peer.coef_[0], atol=2e-4)
    np.testing.assert_allclose(run.parameters["layer_1"]["bias"], peer.intercept_, atol=2e-4)


def test_l1_makes_weights_exactly_zero_and_l2_smaller(fit):
    plain, l1, l2 = (
        fit("breast_cancer", learning_rate=0.01, epochs=20, **penalty)
        for penalty in ({}, {"l1": 0.05}, {"l2": 0.1})
    )
    weights = [run.parameters["layer_1"]["weights"] for run in (plain, l1, l2)]
    assert np.sum(weights[0] == 0) == 0
    assert 10 <= np.sum(weights[1] == 0) < 30
    assert np.sum(weights[2] ** 2) < np.sum(weights[0] ** 2) / 2
    assert np.sum(weights[2] == 0) == 0


def test_no_penalty_falls_on_biases(fit):
    run = fit("breast_cancer", l1=100.0, validation=0, epochs=5, optimizer="sgd", learning_rate=0.01)
    assert not run.parameters["layer_1"]["weights"].any()
    share = run.task.baseline[1]
    assert run.parameters["layer_1"]["bias"][0] == pytest.approx(np.log(share / (1 - share)), rel=0.05)


def test_a_row_of_weight_2_is_that_row_twice(fit, folder, tmp_path):
    table = pd.read_csv(folder / "breast_cancer.csv").assign(times=np.arange(569) % 3)
    table.to_csv(tmp_path / "weighted.csv", index=False)
    twice = table.loc[table.index.repeat(table["times"])]
    twice.to_csv(tmp_path / "twice.csv", index=False)
    prepared = [
        prepare(Settings(data=(str(tmp_path / name),), target="target", validation=0, **more))
        for name, more in (("weighted.csv", {"weights": "times"}), ("twice.csv", {"drop": ("times",)}))
    ]
    np.testing.assert_array_equal(prepared[0].training.weights, table["times"])
    assert prepared[1].training.weights is None
    assert "times" not in prepared[0].plan.feature_names
    # Features are scaled by plain means, so only rows of equal scale can be compared: use the mean loss.
    common = {"batch_size": "all", "epochs": 1, "optimizer": "sgd", "learning_rate": 1e-12, "validation": 0}
    weighted = fit(tmp_path / "weighted.csv", weights="times", **common)
    losses = [weighted.steps["loss"][0]]
    plan = weighted.plan.encode(read_table([str(tmp_path / "twice.csv")]).rows)
    outputs = plan @ weighted.parameters["layer_1"]["weights"][:, 0] + weighted.parameters["layer_1"]["bias"]
    losses.append(np.mean(np.logaddexp(0, outputs) - twice["target"] * outputs))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_balanced_class_weights_equal_explicit_ones(fit, folder):
    target = pd.read_csv(folder / "breast_cancer.csv")["target"]
    explicit = ",".join(
        f"{label}={len(target) / (2 * count)!r}" for label, count in target.value_counts().items()
    )
    runs = [
        fit("breast_cancer", validation=0, epochs=2, class_weight=each)
        for each in ("balanced", explicit, None)
    ]
    assert same(runs[0], runs[1]) == [True] * 4
    assert not same(runs[0], runs[2])[0]


def test_class_and_row_weights_multiply(folder, tmp_path):
    table = pd.read_csv(folder / "breast_cancer.csv").assign(w=np.linspace(0, 2, 569))
    table.to_csv(tmp_path / "w.csv", index=False)
    settings = Settings(
        data=(str(tmp_path / "w.csv"),), target="target", validation=0, weights="w", class_weight="1=3"
    )
    expected = table["w"] * np.where(table["target"] == 1, 3, 1)
    np.testing.assert_allclose(prepare(settings).training.weights, expected, rtol=1e-6)


def test_class_weights_do_not_touch_the_validation_rows(folder):
    settings = Settings(data=(str(folder / "breast_cancer.csv"),), target="target", class_weight="balanced")
    prepared = prepare(settings)
    assert prepared.training.weights is not None
    assert prepared.validation.weights is None


def test_whole_groups_are_held_out(tmp_path):
    """The group's values stand in a second column, whose features tell which groups the plan knows."""
    groups = np.random.default_rng(0).integers(0, 30, 600)
    table = pd.DataFrame(
        {"group": groups, "copy": [f"g{each}" for each in groups], "y": np.arange(600) % 7 * 1.5}
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    prepared = prepare(
        Settings(data=(str(tmp_path / "t.csv"),), target="y", split_by="group", validation=0.3)
    )
    of_groups = [index for index, name in enumerate(prepared.plan.feature_names) if name != "copy = other"]
    assert len(of_groups) > 15
    assert prepared.training.features[:][:, of_groups].sum() == len(prepared.training.target)
    assert prepared.validation.features[:][:, of_groups].sum() == 0
    held = prepared.facts["split"]["validation_rows"]
    assert held + prepared.facts["split"]["training_rows"] == 600
    assert abs(held - 180) < 40
    assert {"name": "group", "reason": "It is the column to split by."} in prepared.facts["dropped"]


def test_validation_rows_may_come_from_a_file(fit, folder, tmp_path):
    table = pd.read_csv(folder / "diabetes.csv")
    table[:300].to_csv(tmp_path / "train.csv", index=False)
    held = table[300:].copy()
    held["bmi"] += 10
    held.loc[held.index[:5], "target"] = np.nan
    held.to_csv(tmp_path / "held.csv", index=False)
    run = fit(tmp_path / "train.csv", validation=str(tmp_path / "held.csv"), epochs=1, loss="huber")
    assert run.record["split"] == {
        "training_rows": 300,
        "validation_rows": 137,
        "how": f"the rows of {tmp_path / 'held.csv'} are held out",
    }
    assert run.record["data"]["left_out"][0]["rows"] == 5
    assert "held.csv" in run.record["data"]["left_out"][0]["reason"]
    (bmi,) = [column for column in run.plan.columns if column.name == "bmi"]
    assert bmi.mean == pytest.approx(table["bmi"][:300].mean())
    assert run.task.center == pytest.approx(table["target"][:300].mean())
    assert run.record["figures"]["validation"]["rows"] == 137


def test_validation_0_holds_no_rows_out(fit):
    run = fit("iris", validation=0, epochs=1)
    assert run.record["figures"]["validation"] is None
    assert run.record["figures"]["training"]["rows"] == 150
    assert "validation_loss" not in run.epochs


def test_dropped_columns_are_not_learned_from(fit):
    run = fit("iris", drop=("petal width (cm)", "petal length (cm)"), epochs=1)
    assert [column.name for column in run.plan.columns] == ["sepal length (cm)", "sepal width (cm)"]
    assert {"name": "petal width (cm)", "reason": "It was left out by --drop."} in run.record["dropped"]


def test_rows_without_a_target_are_left_out_and_counted(fit, folder, tmp_path):
    table = pd.read_csv(folder / "diabetes.csv")
    table.loc[::10, "target"] = np.nan
    table.to_csv(tmp_path / "t.csv", index=False)
    table.dropna().to_csv(tmp_path / "clean.csv", index=False)
    run, clean = fit(tmp_path / "t.csv", epochs=1), fit(tmp_path / "clean.csv", epochs=1)
    assert run.record["data"]["rows"] == 442
    assert run.record["data"]["left_out"] == [{"reason": "the target 'target' is missing", "rows": 45}]
    assert sum(run.record["split"][f"{part}_rows"] for part in ("training", "validation")) == 442 - 45
    assert same(run, clean) == [True] * 4


def test_a_run_again_from_its_own_settings_gives_the_same_bytes_and_another_seed_does_not(fit, tmp_path):
    chosen = {"model": "mlp", "hidden": (5,), "dropout": 0.2, "l2": 1e-3, "epochs": 2, "seed": 7}
    run = fit("iris", optimizer="momentum", schedule="cosine", **chosen)
    settings = combine(str(run.path / "settings.toml"), {"out": str(tmp_path / "again")})
    assert settings == replace(settings, optimizer="momentum", schedule="cosine", **chosen)
    assert same(run, training.fit(settings)) == [True] * 4
    other = training.fit(replace(settings, seed=8, out=str(tmp_path / "other")))
    assert same(run, other)[:2] == [False, False]


def test_what_is_imported_in_a_thread_is_waited_for_when_a_fit_fails(fit, monkeypatch, tmp_path):
    (tmp_path / "imported_slowly.py").write_text("import time\ntime.sleep(1)\nover = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(training, "WANTED_LATER", ("imported_slowly",))

    def minimize(*_, **__):
        raise SteepestError("enough")

    monkeypatch.setattr(networks, "minimize", minimize)
    with pytest.raises(SteepestError, match="enough"):
        fit("iris", validation=0)
    assert sys.modules["imported_slowly"].over


def test_the_seed_decides_the_start_and_the_order(fit, monkeypatch):
    seen = []

    def minimize(objective, start, data, **settings):
        seen.append((start["layer_1"]["weights"], settings["seed"]))
        raise SteepestError("enough")

    monkeypatch.setattr(networks, "minimize", minimize)
    for seed in (3, 4):
        with pytest.raises(SteepestError, match="enough"):
            fit("iris", seed=seed, validation=0)
    assert [seed for _, seed in seen] == [3, 4]
    assert not np.array_equal(seen[0][0], seen[1][0])


def test_every_format_and_a_glob_give_the_same_features(folder, tmp_path):
    table = pd.read_csv(folder / "wine.csv")
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    table.to_csv(tmp_path / "t.csv.gz", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    pyarrow.feather.write_feather(arrow, tmp_path / "t.feather")
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, arrow.to_pylist())))
    for number, start in enumerate(range(0, len(table), 70)):
        table[start : start + 70].to_csv(tmp_path / f"part-{number}.csv", index=False)
    parts = tuple(str(tmp_path / f"part-{number}.csv") for number in range(3))
    first = prepare(Settings(data=(str(folder / "wine.csv"),), target="target"))
    for data in (*((str(tmp_path / f"t.{end}"),) for end in ("csv.gz", "parquet", "feather", "jsonl")),
                 (str(tmp_path / "part-*.csv"),), parts):  # fmt: skip
        other = prepare(Settings(data=data, target="target"))
        assert (other.plan, other.task) == (first.plan, first.task), data
        pairs = ((first.training, other.training), (first.validation, other.validation))
        for mine, theirs in pairs:
            np.testing.assert_array_equal(mine.features[:], theirs.features[:])
            np.testing.assert_array_equal(mine.target, theirs.target)


def test_probabilities_are_those_computed_by_hand(fit, tmp_path):
    """From the two files alone: (x - mean) / deviation, one feature a category, a sigmoid."""
    random = np.random.default_rng(1)
    table = pd.DataFrame({"size": random.normal(40, 9, 200), "colour": random.choice(["red", "blue"], 200)})
    chance = expit((table["size"] - 40) / 9 + (table["colour"] == "red"))
    table["sold"] = np.where(random.random(200) < chance, "yes", "no")
    table.to_csv(tmp_path / "t.csv", index=False)
    run = fit(tmp_path / "t.csv", "sold", learning_rate=0.01, epochs=10)
    plan = {
        column["name"]: column for column in json.loads((run.path / "columns.json").read_text())["columns"]
    }
    features = [
        (table["size"] - plan["size"]["mean"]) / plan["size"]["deviation"],
        *((table["colour"] == value) for value in plan["colour"]["values"]),
    ]
    weights = run.parameters["layer_1"]["weights"][:, 0]
    by_hand = expit(np.column_stack(features) @ weights + run.parameters["layer_1"]["bias"][0])
    rows = read_table([str(tmp_path / "t.csv")], columns=["size", "colour"]).rows
    np.testing.assert_allclose(predict(run, rows), by_hand, rtol=1e-5)


@pytest.mark.parametrize(
    ("data", "model"), [pytest.param("wine", "linear", marks=pytest.mark.slow), ("iris", "mlp")]
)
def test_classes_are_learned_and_their_probabilities_add_up(fit, data, model, folder):
    run = fit(data, model=model, hidden=(16,), learning_rate=0.02, epochs=40)
    assert scores(run)[0]["accuracy"] > 0.9
    columns = [column.name for column in run.plan.columns]
    probabilities = predict(run, read_table([str(folder / f"{data}.csv")], columns=columns).rows)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)


def test_numbers_are_predicted_in_their_own_unit(fit):
    run = fit("diabetes", loss="mean_squared_error", learning_rate=0.05, epochs=30)
    ours, baseline = scores(run)
    assert 40 < ours["rmse"] < 65 < baseline["rmse"] < 100
    last = run.epochs.iloc[-1]
    assert last["validation_mean_absolute_error"] == pytest.approx(ours["mae"], rel=1e-4)


def test_a_callback_can_stop_a_fit_and_sees_every_epoch(fit, folder, tmp_path):
    import steepest

    class Two(steepest.Callback):
        def on_epoch_end(self, figures):
            if figures["epoch"] == 2:
                raise steepest.StopDescent("two are enough")

    settings = Settings(data=(str(folder / "iris.csv"),), target="target", out=str(tmp_path / "r"), epochs=9)
    run = training.fit(settings, callbacks=[Two()])
    assert len(run.epochs) == 2
    assert "two are enough" in run.record["descent"]["why_it_stopped"]


def test_a_descent_that_diverges_says_where_and_what_to_try(fit, tmp_path):
    with pytest.raises(SteepestError) as error:
        fit("diabetes", loss="mean_squared_error", optimizer="sgd", learning_rate=1e6, epochs=5)
    said = str(error.value)
    assert "The descent diverged at step " in said
    assert "learning rate of 1e+06" in said
    assert "Try --learning-rate 100000" in said
    (folder,) = tmp_path.iterdir()
    assert f"{folder / 'report.html'} shows how it came to that" in said
    run = open_run(folder)
    failure = run.record["descent"]["failure"]
    assert f"at step {failure['step']:,} " in said
    assert failure["layer"] == "layer_1"
    assert failure["largest_parameter"] > 1
    assert failure["rows"]
    assert len(run.steps) == failure["step"]
    assert run.record["figures"] == {"training": None, "validation": None}
    for refused in (lambda: open_model(folder), lambda: fit("diabetes", from_=str(folder))):
        with pytest.raises(SteepestError, match=r"diverged at step .* has no model"):
            refused()
    # Another run may take its place.
    assert fit("diabetes", epochs=1, out=str(folder)).path == folder


def test_a_fit_that_backs_off_says_so(fit):
    run = fit("diabetes", optimizer="sgd", learning_rate=30.0, epochs=60, on_divergence="back-off")
    setbacks = run.record["descent"]["setbacks"]
    assert setbacks[0]["learning_rate"] == 30.0
    assert f"Step {setbacks[0]['step']:,} at a learning rate of 30 was not finite" in run.record["notes"][0]
    assert run.steps.learning_rate.iloc[-1] == pytest.approx(30 / 3 ** len(setbacks))


WRONG = {
    "model": ("lin", "Did you mean 'linear'"),
    "loss": ("hubber", "Did you mean 'huber'"),
    "optimizer": ("adm", "Did you mean 'adam'"),
    "schedule": ("cosin", "Did you mean 'cosine'"),
    "learning_rate": (0.0, "A learning rate is a number above zero, or 'auto', not 0.0"),
    "batch_size": (0, "A batch size is a whole number from 1, or 'all', not 0"),
    "epochs": (0, "A fit needs at least one epoch, not 0"),
    "seed": (2**32, "A seed is a whole number from 0 to 4294967295, not 4294967296"),
    "hidden": ((8, 0), "Each hidden layer needs at least one unit"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_refused_before_anything_is_read(name):
    value, said = WRONG[name]
    with pytest.raises(SteepestError, match=said):
        training.fit(replace(Settings(data=("there is none.csv",), target="y"), **{name: value}))
    assert name in {field.name for field in fields(Settings)}


# The flights: predict whether one arrives more than 15 minutes late, for days that are held out whole.


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return runpy.run_path(str(EXAMPLES / "flights.py"))["departures"]()


def test_a_slice_of_the_flights(fit, flights, tmp_path):
    chosen = flights[::16]
    assert len(chosen) > 20_000
    chosen.to_csv(tmp_path / "flights.csv", index=False)
    run = fit(tmp_path / "flights.csv", "late", split_by="date", learning_rate=0.01, epochs=5)
    ours, baseline = scores(run)
    print(ours)
    assert ours["auc"] > 0.66
    assert ours["log_loss"] < baseline["log_loss"]
    missing = int(chosen["late"].isna().sum())
    assert run.record["data"]["left_out"] == [{"reason": "the target 'late' is missing", "rows": missing}]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "least"), [("linear", 0.70), ("mlp", 0.74)])
def test_all_flights_on_the_days_that_scikit_learn_holds_out(fit, flights, tmp_path, model, least):
    split = GroupShuffleSplit(test_size=0.2, random_state=0)
    known, held = next(split.split(flights, groups=flights["date"]))
    for name, rows in (("known", known), ("held", held)):
        flights.iloc[rows].to_csv(tmp_path / f"{name}.csv", index=False)
    example = combine(str(EXAMPLES / "flights.toml"), {"data": ("-",)})
    chosen = {
        name: getattr(example, name) for name in ("hidden", "dropout", "batch_size", "epochs", "schedule")
    }
    run = fit(
        tmp_path / "known.csv",
        "late",
        validation=str(tmp_path / "held.csv"),
        model=model,
        drop=("date",),
        **chosen,
    )
    late = flights.iloc[held]["late"]
    table = read_table([str(tmp_path / "held.csv")], columns=[column.name for column in run.plan.columns])
    auc = roc_auc_score(late.dropna().astype(int), predict(run, table.rows)[late.notna()])
    print(f"{model}: AUC {auc:.4f}, {run.record['seconds']}")
    assert auc == pytest.approx(scores(run)[0]["auc"])
    assert auc >= least


def test_no_worker_searches_along_a_line_by_itself():
    asked = Settings(optimizer="lbfgs", batch_size="all", local_steps=2)
    with pytest.raises(SteepestError, match="L-BFGS takes each step with all workers"):
        check(asked)
    check(replace(asked, local_steps=1))

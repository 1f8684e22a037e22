"""`--select`: which columns are chosen, from which rows, and what a run says of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, lars_path

import steepest
from expecting import fails
from steepest import preparation, selection
from steepest.cli import main
from steepest.data.learning import learn
from steepest.data.order import generator, permutation
from steepest.data.split import rows_held_out
from steepest.preparation import prepare
from steepest.selection import HELD_OUT, JUDGING, Sample, select
from steepest.settings import Settings
from steepest.tasks import Task

ROWS = 2000


def draws(seed: int = 5) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def built(rows: int = ROWS) -> pd.DataFrame:
    """Twelve columns, of which two numbers and a category of several values decide the target."""
    noise = draws()
    table = pd.DataFrame(noise.normal(size=(rows, 10)), columns=[f"noise {number}" for number in range(10)])
    table["warm"], table["dry"] = noise.normal(size=(2, rows))
    table["place"] = noise.choice(["hill", "wood", "lake", "town"], rows)
    table["coin"] = noise.choice(["heads", "tails"], rows)
    effect = table["place"].map({"hill": -1.0, "wood": 0.0, "lake": 1.0, "town": 1.5})
    table["y"] = 2 * table["warm"] - table["dry"] + effect + noise.normal(size=rows)
    return table


def prepared(table: pd.DataFrame, **settings):
    return prepare(Settings(data=("memory",), target="y", **settings), table)


def chosen(found) -> set[str]:
    return {column.name for column in found.plan.columns}


@pytest.fixture
def quick(monkeypatch):
    """A shorter path: where it matters which rows and settings count, not how near the minimum is."""
    monkeypatch.setattr(selection, "STRENGTHS", 6)
    monkeypatch.setattr(selection, "STEPS", 15)


def test_auto_finds_the_columns_that_decide_and_few_others():
    found = prepared(built(), select="auto")
    assert {"warm", "dry", "place"} <= chosen(found)
    assert len(chosen(found)) <= 5
    told = found.facts["selection"]
    assert set(told["columns"]) == chosen(found)
    assert set(told["columns"]) | set(told["left_out"]) == set(built()) - {"y"}
    assert told["of_none"] > 3 * told["of_all"]
    assert told["of_chosen"] == pytest.approx(told["of_all"], rel=0.02)


@pytest.mark.parametrize(("count", "columns"), [(1, {"warm"}), (3, {"warm", "dry", "place"})])
def test_so_many_columns_as_were_asked_for(quick, count, columns):
    found = prepared(built(), select=count)
    assert chosen(found) == columns
    assert [each.reason for each in found.plan.dropped] == ["--select left it out."] * (14 - count)


def test_leaving_out_what_decides_costs_what_it_should():
    told = prepared(built(), select=1).facts["selection"]
    noise, dry, place = 1, 1, np.var([-1, 0, 1, 1.5])
    variance = 4 + dry + place + noise
    assert told["of_chosen"] == pytest.approx((dry + place + noise) / variance, rel=0.1)
    assert told["of_all"] == pytest.approx(noise / variance, rel=0.1)


def test_more_columns_than_there_are_leave_none_out(quick):
    assert len(chosen(prepared(built(400), select=99))) >= 12


def encoded(features: np.ndarray, target: np.ndarray) -> tuple:
    table = pa.table({f"c{number}": column for number, column in enumerate(features.T)})
    plan = learn(table)
    return plan, Sample(plan.encode(table), target.astype(np.float32), np.ones(len(target), np.float32))


def test_columns_are_taken_up_as_by_lars():
    data = load_diabetes()
    target = (data.target - data.target.mean()) / data.target.std()
    plan, sample = encoded(data.data, target)
    order = permutation(generator(0, JUDGING).bit_generator, len(target))
    learning = order[round(HELD_OUT * len(order)) :]
    x = data.data[learning] - data.data.mean(0)
    x = (x - x.mean(0)) / data.data.std(0)
    _, _, path = lars_path(x, target[learning] - target[learning].mean(), method="lasso")
    entered = np.argsort((path != 0).argmax(1), kind="stable")
    task = Task("y", "number", "mean_squared_error", "", baseline=(0.0,))
    found = select(5, task, plan, sample, seed=0).record
    assert found["columns"] == [f"c{number}" for number in entered[:5]]


def test_the_path_of_classes_is_that_of_penalised_logistic_regression():
    data = load_breast_cancer()
    plan, sample = encoded(data.data[:, :10], data.target)
    task = Task("y", "binary", "binary_cross_entropy", "", (0, 1), baseline=(0.37, 0.63))
    found = select("auto", task, plan, sample, seed=0).record
    order = permutation(generator(0, JUDGING).bit_generator, len(data.target))
    held = round(HELD_OUT * len(order))
    x = (data.data[:, :10] - data.data[:, :10].mean(0)) / data.data[:, :10].std(0)
    for place in (6, 12, 18):
        model = LogisticRegression(
            l1_ratio=1,
            solver="saga",
            C=1 / (found["path"]["strength"][place] * (len(order) - held)),
            max_iter=5000,
        ).fit(x[order[held:]], data.target[order[held:]])
        probability = model.predict_proba(x[order[:held]])[np.arange(held), data.target[order[:held]]]
        assert found["path"]["loss"][place] == pytest.approx(-np.log(probability).mean(), rel=0.03)
        assert found["path"]["columns"][place] == pytest.approx((model.coef_ != 0).sum(), abs=1)


@pytest.mark.parametrize("labels", [pytest.param(["no", "yes"], marks=pytest.mark.slow), ["u", "v", "w"]])
def test_columns_that_decide_classes_are_found(labels):
    table = built()
    table["y"] = pd.qcut(table["y"], len(labels), labels=labels).astype(str)
    assert chosen(prepared(table, select=3)) == {"warm", "dry", "place"}


def test_a_rare_value_counts_by_what_it_explains_not_by_how_rare_it_is(quick):
    noise = draws()
    rare, weak = noise.random(ROWS) < 0.03, noise.normal(size=ROWS)
    table = pd.DataFrame({"rare": rare, "weak": weak, "y": 6 * rare + 0.5 * weak + noise.normal(size=ROWS)})
    assert chosen(prepared(table, select=1)) == {"rare"}


def test_rows_held_out_have_no_say(quick):
    table = built()
    mask = rows_held_out(0, ROWS, 0.2, seed=0)
    before = prepared(table, select="auto")
    changed = table.copy()
    changed.loc[mask, "warm"] = 0.0
    changed.loc[mask, "noise 1"] = changed.loc[mask, "y"]
    after = prepared(changed, select="auto")
    assert after.facts["selection"] == before.facts["selection"]
    assert after.plan == before.plan
    changed = table.copy()
    changed.loc[~mask, "noise 1"] = changed.loc[~mask, "y"]
    assert prepared(changed, select="auto").facts["selection"] != before.facts["selection"]


def test_a_file_of_rows_held_out_has_no_say(quick, tmp_path):
    table = built(600)
    table.to_csv(tmp_path / "held.csv", index=False)
    first = prepared(table, select=2, validation=str(tmp_path / "held.csv"))
    table.assign(warm=0.0, coin="heads").to_csv(tmp_path / "held.csv", index=False)
    second = prepared(table, select=2, validation=str(tmp_path / "held.csv"))
    assert first.facts["selection"] == second.facts["selection"]


def test_forty_files_choose_as_one_does(quick, tmp_path):
    table = built()
    table.to_csv(tmp_path / "one.csv", index=False)
    (tmp_path / "parts").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(ROWS), 40)):
        table.iloc[rows].to_csv(tmp_path / "parts" / f"{number:02d}.csv", index=False)
    one, forty = (
        prepare(Settings(data=(str(tmp_path / each),), target="y", select="auto"))
        for each in ("one.csv", "parts/*.csv")
    )
    assert one.facts["selection"] == forty.facts["selection"]


def test_rows_of_no_weight_have_no_say(quick):
    table = built()
    table["weight"] = draws(1).integers(0, 2, ROWS)
    table.loc[table["weight"] == 0, "coin"] = np.where(table["y"] > 0, "heads", "tails")[table["weight"] == 0]
    assert "coin" in chosen(prepared(table.drop(columns="weight"), select=4))
    assert "coin" not in chosen(prepared(table, select=4, weights="weight"))


def test_the_cache_knows_which_columns_were_asked_for(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "CACHED_FROM", 0)
    built(500).to_csv(tmp_path / "built.csv", index=False)
    settings = Settings(data=(str(tmp_path / "built.csv"),), target="y")
    found = [prepare(replace(settings, select=count)) for count in (2, 4, None, 2)]
    assert [len(chosen(each)) for each in found] == [2, 4, 14, 2]
    assert found[0].facts["selection"] == found[3].facts["selection"]
    assert found[2].facts["selection"] is None


def test_a_run_says_what_was_left_out_and_predicts_without_it(quick, tmp_path):
    table = built(600)
    table.to_csv(tmp_path / "built.csv", index=False)
    said: list[str] = []
    run = steepest.fit(
        str(tmp_path / "built.csv"), "y", select=2, epochs=1, out=str(tmp_path / "run"), say=said.append
    )
    sentence = run.record["selection"]["says"]
    assert "Of 14 columns 2 were chosen" in sentence
    assert sentence in said
    assert sentence in (run.path / "report.html").read_text("utf-8")
    assert "--select 2" in run.record["command"]
    assert {"name": "coin", "reason": "--select left it out."} in run.record["dropped"]
    assert run.record["model"]["features"] == 2
    table[["warm", "dry"]].to_csv(tmp_path / "new.csv", index=False)
    main(["predict", str(run.path), str(tmp_path / "new.csv"), "--out", str(tmp_path / "predicted.csv")])
    assert len(pd.read_csv(tmp_path / "predicted.csv")) == 600


def test_going_on_keeps_the_columns(quick, tmp_path, capsys):
    built(300).to_csv(tmp_path / "built.csv", index=False)
    first = ["fit", str(tmp_path / "built.csv"), "--target", "y", "--select", "2", "--epochs", "1"]
    main([*first, "--out", str(tmp_path / "run")])
    again = [
        "fit",
        "--from",
        str(tmp_path / "run"),
        "--epochs",
        "1",
        "--out",
        str(tmp_path / "more"),
        "--json",
    ]
    main(again)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["model"]["features"] == 2
    with pytest.raises(SystemExit):
        main([*again, "--overwrite", "--select", "3"])
    assert "--select is 3" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", [0, -1, "some", "1.5"])
def test_what_makes_no_sense_is_refused(wanted, tmp_path):
    with fails("--select takes auto or a number of columns", repr(wanted)):
        steepest.fit(built(50), "y", select=wanted, out=str(tmp_path / "run"))

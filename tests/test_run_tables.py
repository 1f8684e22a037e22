"""A run's tables as pandas, and as one object of JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.metrics import confusion_matrix, mean_squared_error

import steepest
from logged import without_a_diagnosis
from steepest.cli import main
from steepest.run import open_run

PAGE = Path(__file__).parents[1] / "docs" / "command-line.md"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A model of two classes with rows held out, one of numbers without, and one whose descent diverged."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        without_a_diagnosis(patch)
        asked = {"batch_size": 64, "epochs": 3, "learning_rate": 0.1}
        cancer = load_breast_cancer(as_frame=True).frame
        cancer["held"] = np.arange(len(cancer)) % 4 == 0
        cancer.to_csv(folder / "cancer.csv", index=False)
        load_diabetes(as_frame=True).frame.assign(same=1).to_csv(folder / "diabetes.csv", index=False)
        steepest.fit(
            folder / "cancer.csv", "target", **asked, validation_column="held", out=str(folder / "classes")
        )
        rows = folder / "diabetes.csv"
        steepest.fit(rows, "target", **asked, validation=0, out=str(folder / "numbers"))
        with pytest.raises(steepest.SteepestError, match="diverged"):
            steepest.fit(
                rows, "target", **(asked | {"learning_rate": 1e30}), optimizer="sgd", out=str(folder / "none")
            )
    return folder


def test_what_the_report_shows_is_there_as_tables(runs):
    run = open_run(runs / "classes")
    tables, record = run.tables, run.record
    assert tables["steps"].equals(run.steps)
    assert tables["epochs"].equals(run.epochs)
    scores = tables["scores"].set_index(["rows", "score"])
    held = record["figures"]["validation"]
    assert scores.loc[("validation", "auc")].tolist() == [held["scores"]["auc"], 0.5]
    assert set(scores.index.get_level_values("rows")) == {"training", "validation"}
    assert tables["columns"]["name"].tolist() == [each["name"] for each in record["columns"]]
    assert tables["importances"].iloc[0].to_dict() == record["importances"]["entries"][0]
    assert tables["findings"].to_dict("records") == run.findings
    assert tables["calibration"]["rows"].sum() == held["rows"]
    assert tables["roc"]["true_positive_rate"].iloc[-1] == 1
    assert tables["precision_recall"]["recall"].iloc[0] == 1
    assert "setbacks" not in tables, "there were none"

    frame = pd.read_csv(runs / "cancer.csv")
    main(["predict", str(run.path), str(runs / "cancer.csv"), "--out", str(runs / "predicted.csv")])
    predicted = pd.read_csv(runs / "predicted.csv")["prediction"]
    counted = confusion_matrix(frame["target"][frame["held"]], predicted[frame["held"]])
    np.testing.assert_array_equal(tables["confusion"], counted)
    assert (tables["confusion"].index.name, tables["confusion"].columns.name) == ("true", "predicted")


def test_tables_of_numbers(runs):
    tables = open_run(runs / "numbers").tables
    assert {"residuals", "predicted_against_true", "dropped"} <= {*tables}
    assert not {"roc", "confusion", "words"} & {*tables}
    assert tables["dropped"]["name"].tolist() == ["same"]
    assert set(tables["scores"]["rows"]) == {"training"}
    assert tables["residuals"]["rows"].sum() <= 442
    assert (tables["residuals"]["from"] < tables["residuals"]["to"]).all()
    rmse = tables["scores"].set_index("score").loc["rmse"]
    target = load_diabetes().target
    assert rmse["baseline"] == pytest.approx(np.sqrt(mean_squared_error(target, np.full(442, target.mean()))))


def documented():
    """The names that the page of the command line promises, and those within them."""
    lines = PAGE.read_text("utf-8").partition("## steepest show")[2].splitlines()
    rows = [line.split("|")[1:3] for line in lines if line.startswith("| `") and not line.startswith("| `-")]
    return {
        name: re.findall(r"`(\w+)`", what)
        for names, what in rows
        for name in re.findall(r"`(\w+)`", names)
        if name != "RUN"
    }


@pytest.mark.parametrize("name", ["classes", "numbers", "none"])
def test_show_prints_what_its_page_promises(runs, name, capsys):
    def refuse(constant):
        raise ValueError(constant)

    main(["show", str(runs / name), "--json"])
    out = capsys.readouterr().out
    shown = json.loads(out.splitlines()[-1], parse_constant=refuse)
    promised = documented()
    assert {*shown} == {*promised}
    for part in ("data", "split", "target", "model", "descent"):
        assert {*promised[part]} - {"reason", "null"} <= {*shown[part]}, part
    assert shown["settings"]["target"] == "target"
    for judged in filter(None, shown["figures"].values()):
        assert {*judged} == {"rows", "scores", "baseline", "notes"}
    for finding in shown["findings"]:
        assert {*finding} == {"finding", "severity", "where", "evidence", "try"}
    assert (shown["descent"]["failure"] is None) == (name != "none")
    for figure in (shown["descent"]["why_it_stopped"], f"{shown['data']['rows']:,} rows", shown["command"]):
        assert figure in out

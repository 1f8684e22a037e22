"""Runs as ONNX: onnxruntime computes what ``steepest predict`` does."""

from __future__ import annotations

import datetime
import json

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporting import RUNS, fitted, predicted, run_of
from real_data import demand
from steepest import export
from steepest.data.column import Column
from steepest.data.columns import Plan
from steepest.export.columns import features
from steepest.export.graph import ROWS, Graph
from steepest.export.inputs import column_arrays, column_input


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def computed(model: onnx.ModelProto, inputs) -> dict[str, np.ndarray]:
    runtime = session(model)
    return dict(zip([each.name for each in runtime.get_outputs()], runtime.run(None, inputs), strict=True))


def assert_predicts(run, model, table) -> None:
    expected, found = predicted(run, table), computed(model, export.onnx_inputs(run, table))
    assert found["prediction"].shape == (len(table),)
    if run.task.labels:
        of_labels = expected.iloc[:, 1:].to_numpy()
        np.testing.assert_allclose(found["probabilities"][:, -of_labels.shape[1] :], of_labels, atol=1e-5)
        np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, atol=1e-6)
        assert np.mean(found["prediction"] == expected["prediction"]) > 0.999
    else:
        np.testing.assert_allclose(
            found["prediction"], expected["prediction"], rtol=1e-5, atol=1e-5 * run.task.deviation
        )


@pytest.mark.parametrize("name", RUNS)
def test_onnxruntime_predicts_real_rows_as_the_run_does(name):
    run, table = run_of(name)
    model = export.to_onnx(run)
    onnx.checker.check_model(model, full_check=True)
    assert_predicts(run, model, table)


def test_lags_are_columns_of_the_inputs(tmp_path):
    table = demand()
    run = fitted(tmp_path, table, "value", lags={"value": (48, 336)}, drop=["date"])
    model = export.to_onnx(run)
    assert [each.name for each in model.graph.input] == ["value 48 rows before", "value 336 rows before"]
    assert_predicts(run, model, table)


@pytest.mark.parametrize("name", ["flights", "adult"])
def test_rows_with_nothing_but_gaps_and_values_that_were_never_seen(name):
    run, table = run_of(name)
    model, rows = export.to_onnx(run), table.head(60).copy()
    assert_predicts(run, model, rows.mask(pd.DataFrame(True, rows.index, rows.columns)))
    texts = [each.name for each in run.plan.columns if each.type == "string"]
    assert_predicts(run, model, rows.assign(**dict.fromkeys(texts, "never seen é 漢")))
    numbers = [each.name for each in run.plan.columns if each.kind == "number"]
    assert_predicts(run, model, rows.assign(**dict.fromkeys(numbers, -1e7)))


def test_inputs_are_the_columns_as_the_metadata_say():
    run, _ = run_of("flights")
    model = export.to_onnx(run)
    said = {each.key: each.value for each in model.metadata_props}
    types = {each.name: each.type for each in session(model).get_inputs()}
    assert types == {
        "month": "tensor(double)",
        "dep_delay": "tensor(double)",
        "carrier": "tensor(string)",
        "tailnum": "tensor(string)",
        "origin": "tensor(string)",
        "distance": "tensor(double)",
        "time_hour": "tensor(int64)",
        "day": "tensor(int64)",
        "early": "tensor(double)",
    }
    assert list(json.loads(said["inputs"])) == list(types)
    assert json.loads(said["labels"]) == ["in time", "late"]
    assert json.loads(said["not_included"]) == {}
    assert (said["target"], said["kind"], said["run"]) == ("late", "binary", "run")
    assert said["steepest_version"] == model.producer_version == "0.1.0"
    assert str(run.path.parent).encode() not in model.SerializeToString()


def test_inputs_can_be_made_by_hand():
    run, table = run_of("flights")
    inputs = {
        name: table[[name]].to_numpy("float64", na_value=np.nan)
        for name in ("month", "dep_delay", "distance", "early")
    }
    inputs |= {name: table[[name]].fillna("").to_numpy(object) for name in ("carrier", "tailnum", "origin")}
    times = table[["time_hour", "day"]].astype("datetime64[us]")
    inputs |= {name: times[[name]].to_numpy().astype(np.int64) for name in times}
    found = computed(export.to_onnx(run), inputs)["probabilities"][:, 1]
    np.testing.assert_allclose(found, predicted(run, table)["probability of late"], atol=1e-5)


def test_columns_beyond_the_operators_are_told_and_their_features_are_inputs():
    run, _ = run_of("mails")
    model = export.to_onnx(run)
    said = {each.key: each.value for each in model.metadata_props}
    assert json.loads(said["not_included"]) == {"words": "it is cut into words"}
    assert json.loads(said["inputs"]) == {"features": ["distance", "tailnum is missing"]}
    types = {each.name: (each.type, each.shape[1]) for each in session(model).get_inputs()}
    assert types == {
        "features": ("tensor(float)", 2),
        "tailnum.places": ("tensor(int32)", 1),
        "words.places": ("tensor(int32)", "length of words"),
        "words.values": ("tensor(float)", "length of words"),
    }


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ({"b": "text"}, ["a word", "two words more", "a word more", None]),
        ({"b": "hashed"}, ["a", "b", "c", None]),
        ({"b": "category"}, [f"value {number}" for number in range(300)]),
    ],
)
def test_a_model_of_nothing_but_sparse_features(tmp_path, kind, values):
    rows = 600
    drawn = np.random.default_rng(0).integers(0, len(values), rows)
    table = pd.DataFrame({"b": [values[each] for each in drawn], "y": np.arange(rows) % 2 == 0})
    run = fitted(tmp_path, table, "y", kinds=kind)
    assert_predicts(run, export.to_onnx(run), table)


def test_numbers_that_can_not_be_computed_with_show_in_what_is_predicted():
    run, table = run_of("adult")
    model, inputs = export.to_onnx(run), export.onnx_inputs(run, table.head(4))
    inputs["age"] = np.array([[np.inf], [-np.inf], [1e300], [40.0]])
    wrong = np.isnan(computed(model, inputs)["probabilities"])
    assert wrong.all(axis=1).tolist() == [True, True, True, False]


def test_names_of_columns_and_outputs_do_not_get_mixed_up(tmp_path):
    draws = np.random.default_rng(0).normal(size=(400, 3))
    names = ["prediction", "IsNaN/1", "constant/2"]
    table = pd.DataFrame(draws, columns=names).assign(y=draws.sum(axis=1))
    run = fitted(tmp_path, table, "y")
    model = export.to_onnx(run)
    onnx.checker.check_model(model, full_check=True)
    found = computed(model, export.onnx_inputs(run, table))
    np.testing.assert_allclose(found["prediction_"], predicted(run, table)["prediction"], atol=1e-5)


def test_a_column_without_a_name_is_refused(tmp_path):
    run = fitted(tmp_path, pd.DataFrame({"": np.arange(400.0) ** 2, "y": np.arange(400.0)}), "y")
    with pytest.raises(export.SteepestError, match="A column has no name"):
        export.to_onnx(run)


def test_an_empty_text_may_be_a_value_of_its_own(tmp_path):
    values = ["", "late", None, "early"] * 100
    table = pd.DataFrame({"note": values, "y": [str(value) for value in values]})
    run = fitted(tmp_path, table, "y", optimizer="adam", learning_rate=0.1)
    assert column_input(run.plan.columns[0]).missing == "?"
    assert_predicts(run, export.to_onnx(run), table)
    assert len(set(predicted(run, table)["prediction"])) == 4


COLUMNS = {
    "number": Column("x", "number", "number", mean=-3.5, deviation=0.25, missing=True),
    "integer": Column("x", "number", "integer", mean=1e9, deviation=7.0),
    "boolean": Column("x", "boolean", "boolean", mean=0.3, missing=True),
    "category": Column("x", "category", "string", values=("b", "a", "ä b"), missing=True),
    "category with others": Column("x", "category", "string", values=("b", "a"), other=True),
    "whole numbers": Column("x", "category", "integer", values=("7", "-1"), other=True, missing=True),
    "timestamp": Column(
        "x", "time", "timestamp", mean=1e9, deviation=1e8, missing=True,
        parts=("elapsed", "time of day", "weekday", "time of year"),
    ),
    "date": Column("x", "time", "date", mean=0.0, deviation=1e8, parts=("weekday", "time of year")),
    "time": Column("x", "time", "time", mean=4e4, deviation=1e4, missing=True, parts=("time of day",)),
    "gaps": Column("x", "missing", "string", missing=True),
}  # fmt: skip

TYPES = {
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "timestamp": pa.timestamp("us"),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "whole numbers": pa.int64(),
    "category": pa.string(),
    "category with others": pa.string(),
    "gaps": pa.string(),
}

FINITE = st.floats(-1e30, 1e30, allow_subnormal=False)
MICROSECONDS = {"min_value": datetime.datetime(1600, 1, 1), "max_value": datetime.datetime(2400, 1, 1)}
VALUES = {
    "number": FINITE,
    "integer": st.integers(-(2**62), 2**62),
    "boolean": st.booleans(),
    "category": st.sampled_from(["a", "b", "ä b", "", " a"]) | st.text(min_size=1),
    "category with others": st.sampled_from(["a", "b", "c"]) | st.text(min_size=1),
    "whole numbers": st.sampled_from([7, -1, 0, 77]),
    "timestamp": st.datetimes(**MICROSECONDS),
    "date": st.dates(MICROSECONDS["min_value"].date(), MICROSECONDS["max_value"].date()),
    "time": st.times(),
    "gaps": st.text(min_size=1),
}


@pytest.fixture(scope="module")
def programs():
    """For each of `COLUMNS` the ONNX model of its features."""
    made = {}
    for name, column in COLUMNS.items():
        graph = Graph()
        graph.input("x", column_input(column).type, [ROWS, 1])
        parts = features(graph, column)
        graph.output("features", graph.add("Concat", *parts, axis=1), "float", [ROWS, "features"])
        made[name] = session(graph.model("features", {}))
    return made


@pytest.mark.parametrize("name", COLUMNS)
def test_features_are_those_of_the_plan_whatever_the_values(programs, name):
    plan = Plan((COLUMNS[name],), dropped=())

    @settings(max_examples=60, deadline=None)
    @given(st.lists(VALUES[name] | st.none(), min_size=1, max_size=20))
    def same(values):
        values = [None if value == "" else value for value in values]  # which is missing, as in a CSV file
        table = pa.table({"x": pa.array(values, TYPES[name])})
        (found,) = programs[name].run(None, column_arrays(plan, table))
        np.testing.assert_allclose(found, plan.encode(table), rtol=1e-6, atol=1e-6)

    same()


def test_days_of_the_year_over_two_centuries(programs):
    """Each day's place on the circle of the year, beside pandas' day of the year."""
    days = pd.date_range("1890-01-01", "2110-12-31", freq="D")
    inputs = {"x": days.to_numpy("datetime64[us]").astype(np.int64)[:, None]}
    (found,) = programs["date"].run(None, inputs)
    turns = 2 * np.pi * (days.dayofyear.to_numpy() - 1) / 365.2425
    np.testing.assert_allclose(found[:, -2:], np.stack([np.sin(turns), np.cos(turns)], axis=1), atol=1e-6)
    assert (found[:, :7].argmax(axis=1) == days.dayofweek).all()

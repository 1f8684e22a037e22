"""What the Spark ML front end is without a session: parameters, vectors, and what it asks for."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_sessions import SOURCES
from steepest.errors import SteepestError
from steepest.spark import DescentClassifier, DescentRegressor
from steepest.spark.java import require_java
from steepest.spark.parameters import ClassifierParameters, RegressorParameters, table
from steepest.spark.vectors import element_names, flattened


def test_every_parameter_can_be_set_read_and_explained():
    for estimator, parameters in (
        (DescentClassifier, ClassifierParameters),
        (DescentRegressor, RegressorParameters),
    ):
        made = estimator()
        explained = made.explainParams()
        for row in table(parameters):
            title = row.name[0].upper() + row.name[1:]
            assert f"{row.name}: {row.doc} (default: {row.default})" in explained
            assert getattr(made, f"get{title}")() == row.default
            assert getattr(made, f"set{title}")(row.default) is made
            assert made.isSet(row.name)
        assert {each.name for each in made.params} == {row.name for row in table(parameters)}


def test_parameters_hold_only_what_they_may():
    assert DescentClassifier(hidden=(8, 4), batchSize="all", learningRate=1).getHidden() == [8, 4]
    assert DescentClassifier(clipNorm=None).setParams(epochs=3).getEpochs() == 3
    for parameters, message in (
        ({"hidden": ["8"]}, "hidden takes a list of whole numbers, not ..8.."),
        ({"labelCol": None}, "labelCol takes text, not None"),
        ({"batchSize": 2.5}, "batchSize takes a whole number or text, not 2.5"),
        (
            {"learningrate": 1.0},
            "DescentClassifier has no parameter 'learningrate'. Did you mean 'learningRate'",
        ),
    ):
        with pytest.raises(SteepestError, match=message):
            DescentClassifier(**parameters)
    with pytest.raises(SteepestError, match="DescentRegressor has no parameter 'classWeight'"):
        DescentRegressor(classWeight="balanced")


def test_the_documentation_has_every_parameter_and_no_other():
    page = (Path(__file__).parents[1] / "docs" / "spark.md").read_text("utf-8")
    rows = {row.name: row.default for row in (*table(RegressorParameters), *table(ClassifierParameters))}
    told = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE))
    shown = {name: "" if value is None else f"`{json.dumps(value)}`" for name, value in rows.items()}
    assert told == shown


numbers = st.floats(allow_nan=False, width=64)


@given(st.data(), st.integers(1, 5), st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_flattened_is_a_matrix_column_by_column(data, width, chunks):
    rows = [data.draw(st.lists(numbers, min_size=width, max_size=width)) for _ in range(sum(chunks))]
    ends = np.cumsum([0, *chunks])
    kind = data.draw(st.sampled_from([pa.list_(pa.float64()), pa.large_list(pa.float64())]))
    whole = pa.array([[0.0] * 9, *rows, [1.0]], kind)[1:-1]
    column = pa.chunked_array([whole[a:b] for a, b in itertools.pairwise(ends)], kind)
    names = tuple(f"v {place}" for place in range(width))
    found = flattened(pa.table({"a": range(len(rows)), "v": column, "z": range(len(rows))}), {"v": names})
    assert found.column_names == ["a", *names, "z"]
    expected = np.array(rows).reshape(len(rows), width)
    for place, name in enumerate(names):
        np.testing.assert_array_equal(found[name].to_numpy(), expected[:, place])


def test_flattened_refuses_what_is_no_matrix():
    with pytest.raises(SteepestError, match="A vector in the column 'v' has 2 elements; 1 were expected"):
        flattened(pa.table({"v": [[1.0], [1.0, 2.0]]}), {"v": ("x",)})
    with pytest.raises(SteepestError, match="1 rows have no vector"):
        flattened(pa.table({"v": [[1.0], None]}), {"v": ("x",)})


def test_names_of_elements_are_distinct():
    twice = {
        "ml_attr": {"attrs": {"numeric": [{"idx": 0, "name": "x"}], "binary": [{"idx": 1, "name": "x"}]}}
    }
    assert element_names("v", twice, 2) == ("v 0", "v 1")
    one = {"ml_attr": {"attrs": {"numeric": [{"idx": 0, "name": "x"}, {"idx": 1}]}}}
    assert element_names("v", one, 2) == ("x", "v 1")
    assert element_names("v", one, 2, taken=["x"]) == ("v 0", "v 1")


def test_spark_is_imported_by_those_who_ask_for_it(monkeypatch):
    script = "import sys, steepest; assert 'pyspark' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": SOURCES})
    monkeypatch.delitem(sys.modules, "steepest.spark")
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(SteepestError, match=r"needs PySpark .*pip install 'steepest\[spark\]'"):
        importlib.import_module("steepest.spark")


def test_java_is_asked_for_by_its_name(monkeypatch, tmp_path):
    require_java()
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SteepestError, match=r"JAVA_HOME is .* which has no bin/java.* openjdk-17"):
        require_java()
    for said, message in (
        ('version "1.8.0_392"', "needs Java 17 or later; .* is Java 1"),
        ("no", "not tell its"),
    ):
        java.write_text(f"#!/bin/sh\necho 'openjdk {said}' >&2\n")
        java.chmod(0o755)
        with pytest.raises(SteepestError, match=message):
            require_java()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SteepestError, match="no java is on the PATH"):
        require_java()

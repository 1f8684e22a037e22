"""A whole fit by several processes, without Spark: what one process makes of the same rows."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranks import together
from real_data import flights
from steepest.data.sliced import SlicedSource, share_of_rows
from steepest.data.source import open_source
from steepest.leading import follow
from steepest.preparation import prepare
from steepest.run import open_run
from steepest.settings import Settings, settings_from_json, settings_to_json
from steepest.training import fit

ROWS = 12_000

CASES = {
    "linear": {},
    "mlp": {"model": "mlp", "hidden": (16,), "learning_rate": 0.003, "split_by": "date", "batch_size": 64},
    "weighed": {"class_weight": "balanced", "validation_column": "later", "weights": "distance"},
    "keras": {"model": "test_leading:network", "weights": "distance", "batch_size": 64},
    "chosen": {"select": 5, "validation": 0.0, "schedule": "cosine", "learning_rate": 0.01},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("flights") / "flights.parquet"
    rows = flights().iloc[:: 336_776 // ROWS][:ROWS]
    columns = ["month", "sched_dep_time", "carrier", "origin", "dest", "distance", "time_hour"]
    late = (rows["arr_delay"] > 15).astype("boolean").mask(rows["arr_delay"].isna())
    date = rows["month"].astype(str) + "-" + rows["day"].astype(str)
    later = np.arange(ROWS) > 9_000
    pq.write_table(
        pa.Table.from_pandas(rows[columns].assign(late=late, date=date, later=later), preserve_index=False),
        path,
        row_group_size=1_000,
    )
    return path


def network(columns):
    """Build the Keras model of the case of that name."""
    from steepest.keras import keras

    layers = keras.layers
    inner = [layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.2)]
    return keras.Sequential([layers.Input((columns.width,)), *inner, layers.Dense(1, "sigmoid")])


def settings(table, case):
    drop = () if "validation_column" in CASES[case] else ("later",)
    return Settings(data=(str(table),), target="late", epochs=3, drop=drop, **CASES[case])


def fit_together(group, folder, path):
    asked = settings_from_json(json.loads(path))
    source = open_source(list(asked.data))
    mine = SlicedSource(source, *share_of_rows(source.rows, group.rank, group.size))
    if group.rank:
        follow(prepare(asked, mine, group=group), (), folder / "checkpoints")
        return
    fit(replace(asked, out=str(folder / "run")), mine, group=group)


@pytest.mark.parametrize(
    ("case", "size"),
    [
        ("mlp", 2),
        ("keras", 2),
        pytest.param("mlp", 3, marks=pytest.mark.slow),
        pytest.param("weighed", 2, marks=pytest.mark.slow),
        pytest.param("linear", 2, marks=pytest.mark.slow),
        pytest.param("chosen", 2, marks=pytest.mark.slow),
    ],
)
def test_the_run_of_one_process(case, size, table, tmp_path):
    asked = settings(table, case)
    alone = fit(replace(asked, out=str(tmp_path / "alone")))
    first, *_ = together("test_leading:fit_together", size, tmp_path, json.dumps(settings_to_json(asked)))
    run = open_run(first / "run")
    for part in ("split", "columns", "dropped", "target", "model"):
        assert run.record[part] == alone.record[part]
    workers = run.record["workers"]
    assert [each["worker"] for each in workers] == list(range(size))
    assert sum(each["rows"] for each in workers) == alone.record["split"]["training_rows"]
    assert run.record["descent"]["learning_rate"] == pytest.approx(
        alone.record["descent"]["learning_rate"], rel=1e-5
    )
    for layer, parts in alone.parameters.items():
        for name, values in parts.items():
            np.testing.assert_allclose(run.parameters[layer][name], values, atol=2e-5)
    for part in ("training", "validation"):
        mine, theirs = run.record["figures"][part], alone.record["figures"][part]
        assert (mine is None) == (theirs is None)
        if mine:
            pd.testing.assert_series_equal(
                pd.Series(mine["scores"]), pd.Series(theirs["scores"]), rtol=1e-3, atol=1e-4
            )
    assert [each["finding"] for each in run.findings] == [each["finding"] for each in alone.findings]

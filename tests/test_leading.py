"""A whole fit by several processes, without Spark: what one process makes of the same rows."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranks import together
from real_data import flights
from steepest import training
from steepest.data.sliced import SlicedSource, share_of_rows
from steepest.data.source import open_source
from steepest.leading import follow
from steepest.passes import Known
from steepest.preparation import prepare
from steepest.run import open_run
from steepest.settings import Settings, settings_from_json, settings_to_json
from steepest.trained import trained_by
from steepest.training import fit

ROWS = 12_000

CASES = {
    "linear": {},
    "mlp": {"model": "mlp", "hidden": (16,), "learning_rate": 0.003, "split_by": "date", "batch_size": 64},
    "weighed": {"class_weight": "balanced", "validation_column": "later", "weights": "distance"},
    "keras": {"model": "test_leading:network", "weights": "distance", "batch_size": 64},
    "file": {"validation": "the first rows", "class_weight": "balanced"},
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
    whole = pa.Table.from_pandas(
        rows[columns].assign(late=late, date=date, later=later), preserve_index=False
    )
    pq.write_table(whole, path, row_group_size=1_000)
    pq.write_table(whole.slice(0, 1_501), path.with_name("held.parquet"))
    return path


def network(columns):
    """Build the Keras model of the case of that name."""
    from steepest.keras import keras

    layers = keras.layers
    inner = [layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.2)]
    return keras.Sequential([layers.Input((columns.width,)), *inner, layers.Dense(1, "sigmoid")])


def settings(table, case):
    drop, more = () if "validation_column" in CASES[case] else ("later",), dict(CASES[case])
    if "validation" in more:
        more["validation"] = more["validation"] and str(table.with_name("held.parquet"))
    return Settings(data=(str(table),), target="late", epochs=3, drop=drop, **more)


def share(group, *names):
    source = open_source(list(names))
    return SlicedSource(source, *share_of_rows(source.rows, group.rank, group.size))


def fit_together(group, folder, path):
    asked, seen = settings_from_json(json.loads(path)), []
    group = replace(group, seen=lambda: seen.append(time.monotonic()))
    mine = share(group, *asked.data)
    held_out = share(group, asked.validation) if isinstance(asked.validation, str) else None
    before = open_run(asked.from_) if asked.from_ else None
    if group.rank:
        (folder.parent / "pid").write_text(str(os.getpid()))
        known = Known(before.task, before.plan) if before else None
        follow(prepare(asked, mine, held_out, known=known, group=group), (), folder / "checkpoints")
        assert seen
        return
    judge = training._judge

    def once_alone(*what):
        wait_for(lambda: not Path("/proc", (folder.parent / "pid").read_text()).exists())
        return judge(*what)

    training._judge = once_alone
    training.trained_by = lambda model: counting(trained_by(model), seen)
    fit(replace(asked, out=str(folder / "run")), mine, group=group, held_out=held_out, before=before)


def counting(module, seen):
    """Return the module, whose search for the learning rate is seen to go on."""

    def search_rate(*what):
        before = len(seen)
        found = module.search_rate(*what)
        assert len(seen) > before + 1
        return found

    return SimpleNamespace(**{**vars(module), "search_rate": search_rate})


def wait_for(what):
    end = time.monotonic() + 100
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def require_close(run, alone):
    for layer, parts in alone.parameters.items():
        for name, values in parts.items():
            np.testing.assert_allclose(run.parameters[layer][name], values, atol=2e-5)


@pytest.mark.parametrize(
    ("case", "size"),
    [
        ("mlp", 2),
        pytest.param("keras", 2, marks=pytest.mark.slow),
        pytest.param("file", 2, marks=pytest.mark.slow),
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
    require_close(run, alone)
    for part in ("training", "validation"):
        mine, theirs = run.record["figures"][part], alone.record["figures"][part]
        assert (mine is None) == (theirs is None)
        if mine:
            pd.testing.assert_series_equal(
                pd.Series(mine["scores"]), pd.Series(theirs["scores"]), rtol=1e-3, atol=1e-4
            )
    assert [each["finding"] for each in run.findings] == [each["finding"] for each in alone.findings]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["mlp", "keras"])
@pytest.mark.parametrize("more", [{}, {"learning_rate": 1e-5}])
def test_they_go_on_from_a_run_of_one_process(case, more, table, tmp_path):
    asked = replace(settings(table, case), learning_rate=0.003)
    first = fit(replace(asked, epochs=1, out=str(tmp_path / "first")))
    asked = replace(asked, from_=str(first.path), epochs=2, **more)
    alone = fit(replace(asked, out=str(tmp_path / "alone")))
    folder, _ = together("test_leading:fit_together", 2, tmp_path, json.dumps(settings_to_json(asked)))
    run = open_run(folder / "run")
    assert len(run.epochs) == len(alone.epochs) == (2 if more else 3)
    require_close(run, alone)

"""Fits on a real YARN, from and to a real HDFS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyspark")
pytest.importorskip("hdfs_native")

import steepest
from hadoop_cluster import hadoop
from real_data import flights
from spark_sessions import SETTINGS, YARN, spark_environment
from steepest.run import open_run
from steepest.storage import storage_at

pytestmark = pytest.mark.slow

CLASSIFY = Path(__file__).with_name("hadoop") / "classify.py"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with hadoop(tmp_path_factory.mktemp("hadoop"), yarn=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def table(cluster, tmp_path_factory):
    """Give a folder with two Parquet files of flights that are in the folder flights of HDFS as well."""
    folder = tmp_path_factory.mktemp("flights")
    rows = flights().dropna(subset=["arr_delay"]).iloc[::40]
    rows["late"] = rows["arr_delay"] > 15
    known = pa.Table.from_pandas(rows[["late", "month", "carrier", "dest", "distance"]], preserve_index=False)
    for number in range(2):
        name = f"{number}.parquet"
        pq.write_table(known.slice(number * 5_000, 5_000), folder / name, row_group_size=1_000)
        storage_at(f"{cluster.url}/flights").put(folder / name, name)
    return folder


def submitted(words, cluster, cwd, **conf):
    """Run words with Spark's environment; what is set is said as ``spark-submit`` would be told."""
    settings = {**SETTINGS, **YARN, **conf}
    said = " ".join(f"--conf '{name}={value}'" for name, value in settings.items())
    with spark_environment(cluster.conf) as environment:
        ran = subprocess.run(
            [str(word).replace("SPARK_HOME", environment["SPARK_HOME"]) for word in words],
            env={**os.environ, **environment, "PYSPARK_SUBMIT_ARGS": f"{said} pyspark-shell"},
            check=False,
            capture_output=True,
            text=True,
            timeout=400,
            cwd=cwd,
        )
    assert ran.returncode == 0, ran.stderr[-5_000:]
    return ran


def test_the_command_line_fits_from_hdfs_on_yarn_to_hdfs(cluster, table, tmp_path):
    url = cluster.url.rstrip("/")
    code = "from steepest.cli import main; main()"
    options = ["--learning-rate", "0.01", "--epochs", "2", "--batch-size", "64"]
    on = ["--on", "spark", "--master", "yarn", "--workers", "2"]
    words = ["fit", f"{url}/flights/*.parquet", "--target", "late", *options, *on, "--out", f"{url}/runs/x"]
    ran = submitted([sys.executable, "-c", code, *words], cluster, tmp_path)
    run = open_run(f"{url}/runs/x")
    files = sorted(map(str, table.glob("*.parquet")))
    alone = steepest.fit(
        files, "late", learning_rate=0.01, epochs=2, batch_size=64, out=str(tmp_path / "alone")
    )
    for layer, parts in alone.parameters.items():
        for name, values in parts.items():
            np.testing.assert_allclose(run.parameters[layer][name], values, atol=1e-5)
    assert len(run.steps) == len(alone.steps)
    assert sum(each["rows"] for each in run.record["workers"]) == run.record["split"]["training_rows"]
    assert "time spent waiting" in ran.stdout
    assert not list(tmp_path.glob("runs*")), "the run is on HDFS alone"


def test_a_script_that_is_submitted_to_the_cluster_saves_its_model_to_hdfs(cluster, table, tmp_path):
    options = [word for name, value in {**SETTINGS, **YARN}.items() for word in ("--conf", f"{name}={value}")]
    submit = ["SPARK_HOME/bin/spark-submit", "--master", "yarn", "--deploy-mode", "cluster"]
    submitted([*submit, *options, CLASSIFY, "/flights", "/models/late"], cluster, tmp_path)
    run = open_run(f"{cluster.url.rstrip('/')}/models/late/run")
    assert run.record["split"]["training_rows"] == pq.ParquetDataset(table).read().num_rows
    assert len(run.record["workers"]) == 2
    assert run.record["figures"]["training"]["scores"]["auc"] > 0.55

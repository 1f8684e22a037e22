"""Spark ML models that are loaded elsewhere than they were fitted."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as sql

from hadoop_cluster import hadoop
from real_data import flights
from spark_sessions import SOURCES, spark
from steepest.spark import DescentClassificationModel, DescentClassifier

AGAIN = """
import sys
from spark_sessions import spark
from steepest.spark import DescentClassificationModel

with spark("local[1]") as session:
    model = DescentClassificationModel.load(sys.argv[1])
    model.transform(session.read.parquet(sys.argv[2])).orderBy("distance").write.parquet(sys.argv[3])
"""


@pytest.mark.slow
def test_a_cluster_and_a_fresh_session_give_the_same_bytes(tmp_path):
    rows, model, first, again = (str(tmp_path / name) for name in ("rows", "model", "first", "again"))
    known = flights().dropna(subset=["arr_delay"]).drop_duplicates("distance")
    known["late"] = known["arr_delay"] > 15
    with spark("local-cluster[2,1,2048]") as session:
        frame = session.createDataFrame(known[["late", "distance", "dep_delay", "carrier", "hour"]])
        frame.repartition(4).write.parquet(rows)
        frame = session.read.parquet(rows)
        classifier = DescentClassifier(
            labelCol="late", hidden=[16], learningRate=0.01, epochs=5, numWorkers=2
        )
        fitted = classifier.fit(frame)
        fitted.save(model)
        fitted.transform(frame).orderBy("distance").write.parquet(first)
    environment = {**os.environ, "PYTHONPATH": SOURCES}
    subprocess.run(
        [sys.executable, "-c", AGAIN, model, rows, again], check=True, env=environment, timeout=300
    )
    assert pq.read_table(first).equals(pq.read_table(again))
    assert pq.read_table(first).num_rows == len(known)


@pytest.mark.slow
def test_a_model_is_saved_to_hdfs_and_loaded_from_it(tmp_path):
    with hadoop(tmp_path) as cluster, spark("local[2]", cluster.conf) as session:
        frame = session.range(500).select((sql.col("id") % 7).alias("x"), (sql.col("id") % 2).alias("label"))
        model = DescentClassifier(learningRate=0.1, epochs=1).fit(frame)
        place = f"{cluster.url.rstrip('/')}/models/with spaces"
        model.save(place)
        with pytest.raises(Exception, match="already exists"):
            model.save(place)
        model.write().overwrite().save(place)
        loaded = DescentClassificationModel.load(place)
        assert loaded.transform(frame).collect() == model.transform(frame).collect()
        model.save("models/late")  # on the default file system, which is HDFS
        assert DescentClassificationModel.load("models/late").run.record == model.run.record

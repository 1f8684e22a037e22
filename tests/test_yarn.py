"""Spark on a real YARN with a real HDFS: what the tests of distributed fits stand on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyspark")

import pyspark

from hadoop_cluster import POM, hadoop
from spark_sessions import SETTINGS, YARN, spark, spark_environment

JOB = Path(__file__).with_name("hadoop") / "job.py"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with hadoop(tmp_path_factory.mktemp("hadoop"), yarn=True) as cluster:
        yield cluster


def test_hadoop_is_of_the_version_of_pysparks_jars():
    spaces = {"": "http://maven.apache.org/POM/4.0.0"}
    ours = ElementTree.parse(POM).findtext("./dependencies/dependency/version", namespaces=spaces)
    jars = Path(pyspark.__file__).parent / "jars"
    theirs = [jar.name for jar in jars.glob("hadoop-client-api-*.jar")]
    assert theirs == [f"hadoop-client-api-{ours}.jar"], "pom.xml's version is to be that of PySpark's jars"


def where(_rows):
    import socket

    from pyspark import BarrierTaskContext

    import steepest

    context = BarrierTaskContext.get()
    said = f"{context.partitionId()} {os.environ['CONTAINER_ID']}"
    yield context.allGather(said), steepest.__file__, socket.gethostname()


@pytest.mark.slow
def test_a_barrier_stage_of_two_containers(cluster):
    with spark("yarn", cluster.conf) as session:
        tasks = session.sparkContext.parallelize(range(2), 2).barrier().mapPartitions(where).collect()
        assert session.sparkContext.applicationId.startswith("application_")
    (first, _, _), (second, _, _) = tasks
    assert first == second
    partitions, containers = zip(*(each.split() for each in first), strict=True)
    assert partitions == ("0", "1")
    assert len(set(containers)) == 2


@pytest.mark.slow
def test_spark_submit_in_cluster_mode_reads_and_writes_hdfs(cluster, tmp_path):
    client = pytest.importorskip("hdfs_native").Client(cluster.url)
    written = pa.BufferOutputStream()
    pq.write_table(pa.table({"late": range(100_000)}), written, row_group_size=10_000)
    with client.create("/job/rows.parquet") as file:
        file.write(written.getvalue().to_pybytes())
    settings = {**SETTINGS, **YARN, "spark.submit.deployMode": "cluster"}
    options = [word for name, value in settings.items() for word in ("--conf", f"{name}={value}")]
    with spark_environment(cluster.conf) as environment:
        submit = [f"{environment['SPARK_HOME']}/bin/spark-submit", "--master", "yarn", *options]
        words = [JOB, "/job/rows.parquet", "/job/sums"]
        ran = subprocess.run(
            [*submit, *words],
            env={**os.environ, **environment},
            check=False,
            capture_output=True,
            text=True,
            timeout=180,
            cwd=tmp_path,
        )
    assert ran.returncode == 0, ran.stderr[-5_000:]
    (part,) = [each.path for each in client.list_status("/job/sums") if each.path.endswith(".parquet")]
    with client.read(part) as file:
        assert pq.read_table(pa.BufferReader(file.read())).to_pylist() == [{"late": sum(range(100_000))}]

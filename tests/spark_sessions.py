"""Spark sessions for the tests, on 127.0.0.1; neither their JVM nor a file of theirs outlives them."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pyspark
from pyspark import SparkContext
from pyspark.sql import SparkSession

import steepest

SOURCES = os.pathsep.join(map(str, (Path(steepest.__file__).parents[1], Path(__file__).parent)))
"""What a worker imports from: the package and the tests' own modules."""

PYTHON = {
    "SPARK_LOCAL_IP": "127.0.0.1",
    "PYSPARK_PYTHON": sys.executable,
    "PYTHONPATH": SOURCES,
    "JAX_PLATFORMS": "cpu",
}
"""What the driver, the executors and their Python workers have in their environment."""

SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "1g",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.executor.memory": "1g",
    "spark.sql.shuffle.partitions": "4",
    # The session begins when all executors are there; a stage that asks for more fails in 2 s.
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",
    "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "1s",
    "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "2",
    **{f"spark.executorEnv.{name}": value for name, value in PYTHON.items()},
}

YARN = {
    "spark.executor.instances": "2",
    "spark.executor.cores": "1",
    # The machine that runs the tests is every node: nothing need be copied to reach Spark's own 460 MB.
    "spark.yarn.jars": f"local:{Path(pyspark.__file__).parent}/jars/*",
    "spark.yarn.scheduler.heartbeat.interval-ms": "500",
    **{f"spark.yarn.appMasterEnv.{name}": value for name, value in PYTHON.items()},
}
"""Two executors of one core, on a YARN of `hadoop_cluster`."""


@contextmanager
def spark_environment(hadoop: Path | None = None) -> Iterator[dict[str, str]]:
    """Give the environment of a process that starts Spark; its ``SPARK_HOME`` takes what executors write.

    Parameters
    ----------
    hadoop
        The HADOOP_CONF_DIR of the cluster to use: ``conf`` of what `hadoop_cluster.hadoop` yields.
    """
    with tempfile.TemporaryDirectory(prefix="spark-", ignore_cleanup_errors=True) as home:
        for part in Path(pyspark.__file__).parent.iterdir():
            (Path(home) / part.name).symlink_to(part)
        conf = {"HADOOP_CONF_DIR": str(hadoop), "YARN_CONF_DIR": str(hadoop)} if hadoop else {}
        yield {**PYTHON, **conf, "SPARK_HOME": home, "SPARK_LOCAL_DIRS": f"{home}/local"}


@contextmanager
def spark(master: str, hadoop: Path | None = None, **conf: str) -> Iterator[SparkSession]:
    """Start a session in a JVM of its own and end both.

    Parameters
    ----------
    master
        ``local-cluster[2,1,2048]`` (executors, cores and MiB of each), ``local[N]``, or ``yarn`` with two
        executors of one core.
    hadoop
        As in `spark_environment`; ``yarn`` needs it.
    conf
        More settings by name, ``**{"spark.executor.memory": "512m"}``, over `SETTINGS`.
    """
    settings = {**SETTINGS, **(YARN if master == "yarn" else {}), **conf}
    with spark_environment(hadoop) as environment, patch.dict(os.environ, environment):
        builder = SparkSession.builder.master(master).appName("steepest-tests")
        for name, value in settings.items():
            builder = builder.config(name, value)
        try:
            session = builder.getOrCreate()
            session.sparkContext.setLogLevel("ERROR")
            yield session
            session.stop()
        finally:
            _end_jvm()


def _end_jvm() -> None:
    """End the JVM that PySpark would keep for the next session, with its memory and its environment."""
    gateway = SparkContext._gateway
    if gateway is None:
        return
    if SparkContext._active_spark_context is not None:
        SparkContext._active_spark_context.stop()
    SparkContext._gateway = SparkContext._jvm = None
    gateway.shutdown()
    gateway.proc.stdin.close()
    try:
        gateway.proc.wait(60)
    finally:
        gateway.proc.kill()

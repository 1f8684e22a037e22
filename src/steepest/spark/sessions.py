"""The Spark session of a fit that the command line begins."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from steepest.errors import SteepestError
from steepest.settings import Settings
from steepest.spark.java import require_java

QUIET = Path(__file__).with_name("log4j2.properties")
"""Lets Spark write errors only, from its first line on."""


@contextmanager
def session_for(settings: Settings) -> Iterator[SparkSession]:
    """Give the session that is there, or begin one and end it.

    Where the settings name no master, Spark's own rules say which: that of ``spark-submit``, of
    ``spark-defaults.conf``, of the variable ``MASTER``, else ``local[*]``.

    Raises
    ------
    SteepestError
        If there is no Java, or no session can be begun.
    """
    found = SparkSession.getActiveSession()
    if found is not None:
        yield found
        return
    require_java()
    session = _begun(settings)
    try:
        session.sparkContext.setLogLevel("ERROR")
        yield session
    finally:
        session.sparkContext.setLogLevel("OFF")  # tasks that are ended with it would be told as errors
        session.stop()


def _begun(settings: Settings) -> SparkSession:
    """Begin a session with room for as many workers as are asked for."""
    options = [f"-Dlog4j2.configurationFile={QUIET.as_uri()}", os.environ.get("SPARK_SUBMIT_OPTS", "")]
    os.environ["SPARK_SUBMIT_OPTS"] = " ".join(filter(None, options))
    try:
        SparkContext._ensure_initialized(conf=_asked(settings))  # so that what Spark is set to can be seen
        session = SparkSession.builder.config(conf=_completed(settings, SparkConf())).getOrCreate()
    except Exception as error:  # Spark has errors of many kinds, the JVM's among them
        why = str(error).strip().split("\n")[0].rstrip(".:")
        raise SteepestError(
            f"Spark did not start: {why}.",
            hint="Check --master, and that the cluster can be reached from this machine.",
        ) from error
    context = session.sparkContext
    if str(context.master).startswith("local") and "PYSPARK_PYTHON" not in os.environ:
        context.pythonExec = sys.executable  # python3 need not be one that has this package
    return session


def _asked(settings: Settings) -> SparkConf:
    conf = SparkConf().setAppName(f"steepest fit --target {settings.target}")
    conf.set("spark.ui.showConsoleProgress", "false")
    return conf.setMaster(settings.master) if settings.master else conf


def _completed(settings: Settings, conf: SparkConf) -> SparkConf:
    """Return what Spark is set to, with what a fit needs where nothing is said of it."""
    # All workers run at once: the session begins when all executors are there, and with enough of them.
    conf.setIfMissing("spark.scheduler.minRegisteredResourcesRatio", "1.0")
    cores = int(str(conf.get("spark.executor.cores", "1")))
    return conf.setIfMissing("spark.executor.instances", str(-(-(settings.workers or 1) // cores)))

"""What a fit on Spark needs of the cluster, asked before anything runs: Spark would wait for minutes."""

from __future__ import annotations

import time

from pyspark.sql import SparkSession

from steepest.errors import SteepestError

STARTING = 15.0
"""Seconds in which executors of a session that has just begun may appear."""

WAITING = "spark.scheduler.maxRegisteredResourcesWaitingTime"
"""Says how long Spark itself waits for executors before a session begins."""

LOOK = 0.5
"""Seconds between two looks at the cluster."""


def require_spark(session: SparkSession) -> None:
    """Refuse sessions in which all workers can't run at the same time.

    Raises
    ------
    SteepestError
        With what to change.
    """
    if not hasattr(session, "_jsparkSession"):
        raise SteepestError(
            "A fit needs Spark itself; this session only connects to a server (Spark Connect).",
            hint="Run it where the driver runs: spark-submit, or SparkSession.builder.master(...).",
        )
    settings = session.sparkContext.getConf()
    if settings.get("spark.dynamicAllocation.enabled", "false") == "true":
        raise SteepestError(
            "All workers of a fit must run at once; with dynamic allocation Spark may take executors away.",
            hint="Set spark.dynamicAllocation.enabled=false and spark.executor.instances.",
        )


def slots(session: SparkSession) -> int:
    """Return how many tasks the cluster runs at the same time."""
    spark = session.sparkContext._jsc.sc()
    profile = spark.resourceProfileManager().defaultResourceProfile()
    return int(spark.maxNumConcurrentTasks(profile))


def free_slots(session: SparkSession, wanted: int, seconds: float) -> int:
    """Wait until so many tasks have room, or the time is over; return how many have, of those wanted."""
    end = time.monotonic() + seconds
    while (room := slots(session)) < wanted and time.monotonic() < end:
        time.sleep(LOOK)
    return max(1, min(room, wanted))


def require_slots(session: SparkSession, workers: int) -> None:
    """Refuse more workers than there is room for; executors that are just starting are waited for.

    Raises
    ------
    SteepestError
        With how many there is room for.
    """
    if workers < 1:
        raise SteepestError(f"A fit needs at least one worker, not {workers}.")
    room = free_slots(session, workers, STARTING)
    if room < workers:
        raise SteepestError(
            f"The fit asks for {workers} workers at the same time; the cluster has room for {room}.",
            hint=f"Ask for {room}, or add executors (spark.executor.instances, spark.executor.cores); those "
            f"that take long to start are waited for with {WAITING}=10min.",
        )

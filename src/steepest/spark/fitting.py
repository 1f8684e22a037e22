"""A fit on Spark: one barrier stage of as many tasks as workers, begun again when a worker is lost.

Spark itself never runs such a stage again (`Could not recover from a failed barrier ResultStage`), so the
driver does, from the last checkpoint, with as many workers as there is room for then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JJavaError, Py4JNetworkError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from steepest.checkpoints import OtherDescentError
from steepest.data.cache import cache_folder, key_of
from steepest.data.rows import SPARK
from steepest.errors import SteepestError
from steepest.run import Run
from steepest.settings import Settings, settings_to_json, to_toml
from steepest.spark.checks import free_slots, require_slots, require_spark
from steepest.spark.division import divided
from steepest.spark.faults import other_rows, reason_in, session_gone, told_in
from steepest.spark.frames import zone_of
from steepest.spark.stage import RESULT, Task, versions
from steepest.spark.vectors import flattened
from steepest.storage import Storage, storage_at
from steepest.trained import DivergenceError
from steepest.training import MODELS, check
from steepest.unfinished import SETTINGS, check_out, folder_of, in_the_making, kept, named
from steepest.worker import RUN

ATTEMPTS = 4
"""How often a fit is begun before it is given up."""

BACKOFF = 2.0
"""Seconds before the second attempt; before each one after it, twice as many."""

ROOM = 60.0
"""Seconds to wait for executors to come back."""

STALLED = 600.0
"""Seconds without progress after which a worker is taken for stuck."""


def fit_frame(
    frame: DataFrame,
    settings: Settings,
    *,
    workers: int,
    vectors: Mapping[str, tuple[str, ...]] | None = None,
    shared: str | None = None,
    say: Callable[[str], None] = lambda _: None,
    overwrite: bool = False,
    stalled: float = STALLED,
) -> Run:
    """Fit on the rows of a DataFrame, each worker on those of a partition.

    Parameters
    ----------
    frame
        The rows; it is repartitioned unless it has as many partitions as there are workers.
    settings
        What to do. ``out`` may be a local folder or one on HDFS.
    workers
        How many tasks take part, all at the same time.
    vectors
        Columns that hold arrays of numbers -> the names of the columns that these become.
    shared
        A folder that all workers and the driver reach, for checkpoints; ``None`` chooses one.
    say
        Is told, in a sentence each, what a reader would want to know on the way.
    overwrite
        Whether a run of the same name may be replaced.
    stalled
        Seconds without progress after which a worker is taken for stuck, ended, and the fit begun again.

    Returns
    -------
    Run
        The same as on one machine; its record has ``workers`` as well.

    Raises
    ------
    SteepestError
        If the settings, the rows or the cluster can't be used, or a worker was lost each time.
    """
    session = frame.sparkSession
    settings = replace(settings, data=SPARK)
    names = {name: tuple(elements) for name, elements in (vectors or {}).items()}
    schema = _arriving(flattened(frame.limit(0).toArrow(), names).schema, zone_of(frame))

    def stage(task: Task, count: int) -> None:
        # Spark takes a dot in a name for a part of a column.
        rows = frame.toDF(*(f"column {place}" for place in range(len(frame.columns))))
        whole = replace(
            task, columns=tuple(frame.columns), vectors=names, schema=schema.serialize().to_pybytes()
        )
        rows = divided(rows, workers, count)
        rows.mapInArrow(whole.on_batches, RESULT, barrier=True).collect()

    asked = {"settings": settings_to_json(settings), "parts": workers}
    return _fit(session, settings, asked, workers, shared, stage, say, overwrite, stalled)


def _arriving(schema: pa.Schema, zone: str) -> pa.Schema:
    """Return the columns as a worker gets them: times by the session's clock, not as UTC."""
    return pa.schema(
        field.with_type(pa.timestamp(field.type.unit, zone))
        if pa.types.is_timestamp(field.type) and field.type.tz
        else field
        for field in schema
    )


def fit_files(
    session: SparkSession,
    settings: Settings,
    *,
    workers: int,
    shared: str | None = None,
    say: Callable[[str], None] = lambda _: None,
    overwrite: bool = False,
    stalled: float = STALLED,
) -> Run:
    """Fit on Parquet files that every worker can read, each reading its share of the rows itself.

    The parameters are those of `fit_frame`; the rows are the files of ``settings.data``, in the order in
    which one machine reads them, so that the run is the same to rounding.
    """

    def stage(task: Task, count: int) -> None:
        numbers = session.sparkContext.parallelize(range(count), count)
        numbers.barrier().mapPartitions(task.on_files).collect()

    asked = {"settings": settings_to_json(settings)}
    return _fit(session, settings, asked, workers, shared, stage, say, overwrite, stalled)


Stage = Callable[[Task, int], None]


def _fit(
    session: SparkSession,
    settings: Settings,
    asked: dict[str, Any],
    workers: int,
    shared: str | None,
    stage: Stage,
    say: Callable[[str], None],
    overwrite: bool,
    stalled: float,
) -> Run:
    check(settings)
    if settings.model not in MODELS:
        raise SteepestError(
            f"On Spark there is no model {settings.model!r} yet.", hint=f"There are: {', '.join(MODELS)}."
        )
    if settings.from_:
        raise SteepestError("On Spark a fit can't go on from another run yet.", hint="Leave --from out.")
    require_spark(session)
    require_slots(session, workers)
    folder = folder_of(settings)
    check_out(folder, settings, overwrite)
    storage = _shared(session, asked, folder, shared)
    storage.require_writable()
    settings, failure = replace(settings, out=named(settings, folder)), None
    with in_the_making(folder, settings, None, overwrite) as work:
        task = Task(settings_to_json(settings), storage.url, 0, stalled, versions())
        try:
            _attempts(session, storage, task, workers, stage, say)
        except DivergenceError as error:
            failure = error
        storage.get(RUN, work / RUN)
        for path in (work / RUN).iterdir():
            path.replace(work / path.name)
        (work / RUN).rmdir()
        (work / SETTINGS).write_text(to_toml(settings), "utf-8")
    storage.remove("")
    if failure is not None:
        raise failure
    run = kept(settings, folder)
    _tell_of_skew(run, say)
    return run


def _shared(session: SparkSession, asked: dict[str, Any], folder: Path, shared: str | None) -> Storage:
    """Return the storage for what was asked: another fit has another, the same one finds its own again."""
    key = key_of({"run": str(folder.absolute()), **asked})
    if shared is None:
        alone = str(session.sparkContext.master).startswith("local")
        shared = str(cache_folder() / "spark") if alone else _home(session)
    return storage_at(f"{shared.rstrip('/')}/{key}")


def _home(session: SparkSession) -> str:
    """Return a folder in the user's home on the cluster's own file system."""
    jvm: Any = session._jvm
    hadoop = session._jsparkSession.sessionState().newHadoopConf()
    files = jvm.org.apache.hadoop.fs.FileSystem.get(hadoop)
    home = f"{files.getUri()}{files.getHomeDirectory().toUri().getPath()}"
    if not home.startswith("hdfs://"):
        raise SteepestError(
            f"The workers and the driver need a folder that all of them reach; the cluster's own is {home}.",
            hint="Name one: --shared hdfs://namenode:9000/tmp, or a folder that is mounted everywhere.",
        )
    return f"{home}/.steepest"


def _attempts(
    session: SparkSession,
    storage: Storage,
    task: Task,
    workers: int,
    stage: Stage,
    say: Callable[[str], None],
) -> None:
    """Run the stage until it ends well.

    Raises
    ------
    SteepestError
        If it can't, or did not for the last time.
    """
    before = [int(name.rpartition("/")[2]) for name in storage.names("attempts/")]
    first = max(before, default=-1) + 1
    for attempt in range(first, first + ATTEMPTS):
        try:
            stage(replace(task, attempt=attempt), workers)
        except Py4JNetworkError as error:
            raise session_gone() from error
        except (Py4JJavaError, PySparkException) as error:  # what happened is told as text
            told = told_in(str(error))
            if isinstance(told, OtherDescentError):
                storage.remove("")
                raise other_rows() from None
            if told is not None:
                raise told from None
            why = reason_in(str(error))
            if attempt == first + ATTEMPTS - 1:
                raise SteepestError(
                    f"The fit failed {ATTEMPTS} times; the last time: {why}.",
                    hint=f"What was reached is in {storage.url}; the same fit goes on from there.",
                ) from error
            pause = BACKOFF * 2 ** (attempt - first)
            say(f"Attempt {attempt - first + 1} failed: {why}. It is begun again from the last checkpoint.")
            time.sleep(pause)
            room = free_slots(session, workers, ROOM)
            if room < workers:
                say(f"There is room for {room} workers now; the fit goes on with these.")
                workers = room
        else:
            return


def _tell_of_skew(run: Run, say: Callable[[str], None]) -> None:
    """Say so where one worker has many more rows than the others, and all wait for it."""
    rows = [each["rows"] for each in run.record["workers"]]
    mean = sum(rows) / len(rows)
    if max(rows) > 1.5 * mean:
        worst = rows.index(max(rows))
        say(
            f"Worker {worst} has {max(rows) / sum(rows):.0%} of the rows, and the others wait for it: "
            f"frame.repartition({len(rows)}) before the fit gives each as many."
        )

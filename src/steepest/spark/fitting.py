"""A fit on Spark: what is checked, brought and kept around the attempts at it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from steepest.callbacks import Callback, telling_of_failure
from steepest.checking import check
from steepest.continuing import earlier
from steepest.copies import ROWS
from steepest.data.cache import cache_folder, key_of
from steepest.data.files import is_url, local_path
from steepest.data.rows import SPARK, RowSource
from steepest.errors import SteepestError
from steepest.loggers.named import loggers_of
from steepest.mirroring import ATTEMPTS
from steepest.preparation import require_files
from steepest.run import Run
from steepest.settings import ON_SPARK, Settings, settings_to_json, to_toml
from steepest.spark.attempts import Stage, attempted
from steepest.spark.bringing import bring_modules, bring_rows, bring_run, held_out, opened
from steepest.spark.checks import require_slots, require_spark
from steepest.spark.division import divided
from steepest.spark.frames import zone_of
from steepest.spark.plain import plain
from steepest.spark.stage import RESULT, Task, versions
from steepest.spark.telling import Listener
from steepest.spark.vectors import flattened
from steepest.storage import Storage, storage_at
from steepest.trained import MODELS, DivergenceError
from steepest.training import interruptible
from steepest.unfinished import MAY_DIFFER, SETTINGS, check_out, folder_of, in_the_making, kept, named
from steepest.worker import RUN


def fit_frame(
    frame: DataFrame,
    settings: Settings,
    *,
    vectors: Mapping[str, tuple[str, ...]] | None = None,
    say: Callable[[str], None] = lambda _: None,
    overwrite: bool = False,
) -> Run:
    """Fit on the rows of a DataFrame, each worker on those of a partition.

    Parameters
    ----------
    frame
        The rows. Where they are nothing but columns of Parquet files, workers read these; any other frame is
        repartitioned unless it has as many partitions as there are workers.
    settings
        What to do, by how many workers. ``out`` may be a local folder or one on HDFS.
    vectors
        Columns that hold arrays of numbers -> the names of the columns that these become.
    say
        Is told, in a sentence each, what a reader would want to know on the way.
    overwrite
        Whether a run of the same name may be replaced.

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
    settings = replace(settings, data=SPARK, on=ON_SPARK)
    workers = _workers(settings)
    names = {name: tuple(elements) for name, elements in (vectors or {}).items()}
    schema = _arriving(flattened(frame.limit(0).toArrow(), names).schema, zone_of(frame))
    found = plain(frame, schema, elsewhere=not _alone(session))
    if found:
        stage = _stage_of_files(session, files=found.files, columns=found.columns)
    else:
        stage = stage_over(frame, names, schema, workers)
    data = json.dumps(found) if found else f"in {workers} parts"
    listener = Listener(loggers_of(settings.log), say)
    return _fit(session, settings, stage, listener, overwrite, held_out(settings), data)


def stage_over(
    frame: DataFrame, vectors: Mapping[str, tuple[str, ...]], schema: pa.Schema, workers: int
) -> Stage:
    """Return what gives each worker its part of a frame's rows, which were divided among so many at first."""

    def stage(task: Task, count: int) -> None:
        # Spark takes a dot in a name for a part of a column.
        rows = frame.toDF(*(f"column {place}" for place in range(len(frame.columns))))
        whole = replace(
            task, columns=tuple(frame.columns), vectors=vectors, schema=schema.serialize().to_pybytes()
        )
        rows = divided(rows, workers, count)
        rows.mapInArrow(whole.on_batches, RESULT, barrier=True).collect()

    return stage


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
    say: Callable[[str], None] = lambda _: None,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Fit on files: the run is that of one machine, to rounding.

    Each worker reads its share of the rows of Parquet files that it reaches. All other files are read here,
    as on one machine, and their rows are brought to the shared storage.

    Parameters
    ----------
    session
        Where to fit.
    settings
        What to do; the rows are the files of ``settings.data``, in the order in which one machine reads them.
    callbacks
        See `steepest.Callback`; they are told of the progress about once a second, of steps when the run is
        complete, and of no end of the descent.
    say, overwrite
        See `fit_frame`.
    """
    settings = replace(settings, on=ON_SPARK)
    check(settings)
    require_files(settings)
    sources = {ROWS: opened(settings, settings.data), **held_out(settings)}
    listener = Listener([*callbacks, *loggers_of(settings.log)], say)
    return _fit(session, settings, _stage_of_files(session), listener, overwrite, sources)


def _stage_of_files(session: SparkSession, **what: Any) -> Stage:
    """Return what gives each worker its share of files."""

    def stage(task: Task, count: int) -> None:
        numbers = session.sparkContext.parallelize(range(count), count)
        numbers.barrier().mapPartitions(replace(task, **what).on_files).collect()

    return stage


def _fit(
    session: SparkSession,
    settings: Settings,
    stage: Stage,
    listener: Listener,
    overwrite: bool,
    sources: Mapping[str, RowSource],
    data: str = "",
) -> Run:
    """Fit by stages of Spark; what the workers can't reach is first brought to the shared storage.

    Parameters
    ----------
    session, settings, stage, listener, overwrite
        See `fit_frame`; what runs a task, and who hears of it.
    sources
        Rows of files, by what they are called in the storage.
    data
        What tells a frame's rows from others.
    """
    _require_possible(session, settings)
    before = earlier(settings)
    folder = folder_of(settings)
    check_out(folder, settings, overwrite)
    listener.ask(named(settings, folder), settings_to_json(settings))
    prints = [data, *(each.fingerprint() for each in sources.values())]
    storage = _shared(session, settings, folder, prints)
    storage.require_writable()
    settings, failure = replace(settings, out=named(settings, folder)), None
    holds = partial(goes_on, storage)
    with (
        telling_of_failure(lambda _, error: listener.fail(error)),
        in_the_making(folder, settings, None, overwrite, holds) as work,
        interruptible(named(settings, folder), holds, listener.say),
    ):
        bring_rows(storage, settings, sources, not _alone(session), listener)
        bring_run(storage, before)
        if settings.model not in MODELS:
            bring_modules(storage)
        same = versions(keras=settings.model not in MODELS)
        task = Task(settings_to_json(settings), storage.url, 0, settings.stalled, same)
        try:
            attempted(session, storage, task, stage, _workers(settings), listener)
        except DivergenceError as error:
            failure = error
        storage.get(RUN, work / RUN)
        for path in (work / RUN).iterdir():
            path.replace(work / path.name)
        (work / RUN).rmdir()
        (work / SETTINGS).write_text(to_toml(settings), "utf-8")
    storage.remove("")
    run = kept(settings, folder)
    listener.end(run)
    if failure is not None:
        raise failure
    _tell_of_skew(run, listener.say)
    return run


def _require_possible(session: SparkSession, settings: Settings) -> None:
    """Refuse what can't be done on Spark, or not on this cluster, before anything is read."""
    check(settings)
    if settings.model not in MODELS:
        import_module("steepest.keras.building").builder_of(settings.model)
    require_spark(session)
    require_slots(session, _workers(settings))


def _workers(settings: Settings) -> int:
    assert settings.workers is not None  # noqa: S101 - a fit on Spark is checked to name a number
    return settings.workers


def _shared(session: SparkSession, settings: Settings, folder: Path, data: list[str | None]) -> Storage:
    """Return the storage for this fit: another fit has another, the same one finds its own again."""
    decides = {name: value for name, value in settings_to_json(settings).items() if name not in MAY_DIFFER}
    key = key_of({"run": str(folder.absolute()), "settings": decides, "data": data})
    return storage_for(session, settings, key)


def storage_for(session: SparkSession, settings: Settings, key: str) -> Storage:
    """Return the storage of this name that all workers reach."""
    shared = settings.shared or (str(cache_folder() / "spark") if _alone(session) else _home(session))
    if not is_url(shared):
        shared = str(Path(local_path(shared)).absolute())  # workers need not be in this folder
    return storage_at(f"{shared.rstrip('/')}/{key}")


def _alone(session: SparkSession) -> bool:
    """Tell whether all workers run on this machine."""
    return str(session.sparkContext.master).startswith("local")


def goes_on(storage: Storage) -> bool:
    """Tell whether a fit that ended before its time can go on; if not, nothing of it stays."""
    try:
        if any(storage.names(f"{attempt}/") for attempt in storage.names(f"{ATTEMPTS}/")):
            return True
        storage.remove("")
    except SteepestError:
        return True  # nobody knows
    return False


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

"""A fit on Spark: one barrier stage of as many tasks as workers, begun again when a worker is lost.

Spark itself never runs such a stage again (`Could not recover from a failed barrier ResultStage`), so the
driver does, from the last checkpoint, with as many workers as there is room for then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JJavaError, Py4JNetworkError
from pyspark import InheritableThread
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from steepest.callbacks import Callback, notifier
from steepest.checkpoints import OtherDescentError
from steepest.copies import copy_rows, read_by_all
from steepest.data.cache import cache_folder, key_of
from steepest.data.rows import SPARK
from steepest.data.source import open_source
from steepest.errors import SteepestError
from steepest.preparation import named as named_columns
from steepest.preparation import require_columns, require_files
from steepest.run import Run
from steepest.settings import ON_SPARK, Settings, settings_to_json, to_toml
from steepest.spark.checks import free_slots, require_slots, require_spark
from steepest.spark.division import divided
from steepest.spark.faults import other_rows, reason_in, session_gone, told_in
from steepest.spark.frames import zone_of
from steepest.spark.stage import RESULT, Task, versions
from steepest.spark.telling import Listener, listening
from steepest.spark.vectors import flattened
from steepest.storage import Storage, storage_at
from steepest.trained import DivergenceError
from steepest.training import MODELS, check, interruptible
from steepest.unfinished import MAY_DIFFER, SETTINGS, check_out, folder_of, in_the_making, kept, named
from steepest.worker import ATTEMPTS as ATTEMPTED
from steepest.worker import RUN

ATTEMPTS = 4
"""How often a fit is begun before it is given up."""

BACKOFF = 2.0
"""Seconds before the second attempt; before each one after it, twice as many."""

ROOM = 60.0
"""Seconds to wait for executors to come back."""

STALLED = Settings().stalled
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
    settings = replace(settings, data=SPARK, on=ON_SPARK, workers=workers, shared=shared, stalled=stalled)
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

    return _fit(session, settings, stage, Listener((), say), say, overwrite, data=f"in {workers} parts")


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
        See `steepest.Callback`; they are told of the progress about once a second, and of no end.
    workers, shared, say, overwrite, stalled
        See `fit_frame`.
    """
    settings = replace(settings, on=ON_SPARK, workers=workers, shared=shared, stalled=stalled)
    check(settings)
    require_files(settings)
    source = open_source(list(settings.data), drop=settings.drop, max_rejected=settings.max_rejected)
    require_columns(source.schema.names, named_columns(settings), source.names)
    seen = partial(notifier(callbacks), "rows_seen")

    def bring(storage: Storage) -> None:
        if not read_by_all(source, elsewhere=not _alone(session)):
            copy_rows(
                source,
                storage,
                drop=settings.drop,
                say=say,
                seen=lambda doing, rows, of: seen(doing=doing, rows=rows, of=of),
            )

    def stage(task: Task, count: int) -> None:
        numbers = session.sparkContext.parallelize(range(count), count)
        numbers.barrier().mapPartitions(task.on_files).collect()

    listener, print_ = Listener(callbacks, say), source.fingerprint()
    return _fit(session, settings, stage, listener, say, overwrite, bring, print_)


Stage = Callable[[Task, int], None]


def _fit(
    session: SparkSession,
    settings: Settings,
    stage: Stage,
    listener: Listener,
    say: Callable[[str], None],
    overwrite: bool,
    bring: Callable[[Storage], None] = lambda _: None,
    data: str | None = None,
) -> Run:
    """Fit by stages of Spark, whose rows are first brought to the shared storage where they must be."""
    _require_possible(session, settings)
    folder = folder_of(settings)
    check_out(folder, settings, overwrite)
    storage = _shared(session, settings, folder, data)
    storage.require_writable()
    settings, failure = replace(settings, out=named(settings, folder)), None
    holds = partial(_goes_on, storage)
    with (
        in_the_making(folder, settings, None, overwrite, holds) as work,
        interruptible(named(settings, folder), holds, say),
    ):
        bring(storage)
        task = Task(settings_to_json(settings), storage.url, 0, settings.stalled, versions())
        try:
            _attempts(session, storage, task, settings.workers or 1, stage, listener, say)
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


def _require_possible(session: SparkSession, settings: Settings) -> None:
    """Refuse what can't be done on Spark, or not on this cluster, before anything is read."""
    check(settings)
    if settings.model not in MODELS:
        raise SteepestError(
            f"On Spark there is no model {settings.model!r} yet.", hint=f"There are: {', '.join(MODELS)}."
        )
    if settings.from_:
        raise SteepestError(
            "On Spark a fit can't go on from another run yet.",
            hint="Leave --from out, or go on on this machine: --on here.",
        )
    if isinstance(settings.validation, str):
        raise SteepestError(
            "On Spark the rows to judge by can't be in a file of their own yet.",
            hint="Hold out a share (--validation 0.2), or those of which --validation-column says true.",
        )
    require_spark(session)
    require_slots(session, settings.workers or 1)


def _shared(session: SparkSession, settings: Settings, folder: Path, data: str | None) -> Storage:
    """Return the storage for this fit: another fit has another, the same one finds its own again."""
    decides = {name: value for name, value in asdict(settings).items() if name not in MAY_DIFFER}
    key = key_of({"run": str(folder.absolute()), "settings": decides, "data": data})
    shared = settings.shared or (str(cache_folder() / "spark") if _alone(session) else _home(session))
    return storage_at(f"{shared.rstrip('/')}/{key}")


def _alone(session: SparkSession) -> bool:
    """Tell whether all workers run on this machine."""
    return str(session.sparkContext.master).startswith("local")


def _goes_on(storage: Storage) -> bool:
    """Tell whether a fit that ended before its time can go on; if not, nothing of it stays."""
    try:
        if any(storage.names(f"{attempt}/") for attempt in storage.names(f"{ATTEMPTED}/")):
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


def _attempts(
    session: SparkSession,
    storage: Storage,
    task: Task,
    workers: int,
    stage: Stage,
    listener: Listener,
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
            with listening(storage, attempt, workers, listener):
                _waited_for(partial(stage, replace(task, attempt=attempt), workers))
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


def _waited_for(stage: Callable[[], None]) -> None:
    """Run a stage in a thread, so that a signal finds this one free to speak to Spark.

    Py4J has a connection for each thread; one that is interrupted while it waits for an answer is of no use.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            stage()
        except BaseException as error:
            errors.append(error)

    thread = InheritableThread(run, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


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

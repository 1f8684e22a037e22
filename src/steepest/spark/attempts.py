"""Attempts at a fit on Spark: one barrier stage of as many tasks as workers, again when a worker is lost.

Spark itself never runs such a stage again (`Could not recover from a failed barrier ResultStage`), so the
driver does, from the last checkpoint, with as many workers as there is room for then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from py4j.protocol import Py4JJavaError, Py4JNetworkError
from pyspark import InheritableThread
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from steepest.checkpoints import OtherDescentError
from steepest.errors import SteepestError
from steepest.mirroring import ATTEMPTS
from steepest.spark.checks import free_slots
from steepest.spark.faults import other_rows, reason_in, session_gone, told_in
from steepest.spark.stage import Task
from steepest.spark.telling import Listener, listening
from steepest.storage import Storage
from steepest.worker import RUN

MOST = 4
"""How often a fit is begun before it is given up."""

BACKOFF = 2.0
"""Seconds before the second attempt; before each one after it, twice as many."""

ROOM = 60.0
"""Seconds to wait for executors to come back."""

Stage = Callable[[Task, int], None]
"""Runs a task in so many workers, and returns when all have ended well."""


def attempted(
    session: SparkSession, storage: Storage, task: Task, stage: Stage, workers: int, listener: Listener
) -> None:
    """Run the stage until it ends well.

    Parameters
    ----------
    session
        Where it runs.
    storage
        What all attempts share.
    task
        What each worker does; it is told the number of its attempt.
    stage
        Runs it.
    workers
        How many are to take part; after a loss there may be fewer.
    listener
        Hears what the workers tell, and of attempts that failed.

    Raises
    ------
    SteepestError
        If it can't, or did not for the last time.
    """
    storage.remove(RUN)  # of a driver that was lost before it took it
    before = [int(name.rpartition("/")[2]) for name in storage.names(f"{ATTEMPTS}/")]
    first = max(before, default=-1) + 1
    for attempt in range(first, first + MOST):
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
            if storage.names(f"{RUN}/"):
                return  # a worker was lost when all was done
            why = reason_in(str(error))
            if attempt == first + MOST - 1:
                raise SteepestError(
                    f"The fit failed {MOST} times; the last time: {why}.",
                    hint=f"What was reached is in {storage.url}; the same fit goes on from there.",
                ) from error
            pause = BACKOFF * 2 ** (attempt - first)
            listener.say(
                f"Attempt {attempt - first + 1} failed: {why}. It is begun again from the last checkpoint."
            )
            time.sleep(pause)
            room = free_slots(session, workers, ROOM)
            if room < workers:
                listener.say(f"There is room for {room} workers now; the fit goes on with these.")
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

"""Fits on Spark whose workers stop, are stuck, get other rows, or are wrong themselves."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as sql

from spark_sessions import SOURCES, spark
from steepest.errors import SteepestError
from test_spark_fit import (
    ASKED,
    UNEVEN,
    children,
    gone,
    numbered,
    on_spark,
    once_kept,
    refused,
    require_close,
    require_same,
    rows,
    wait_for,
)

pytestmark = pytest.mark.slow

FAULTY = """
import time
from pathlib import Path
import steepest.data.shared as shared
import steepest.spark.stage as stage
MARKS, version, placed = Path({folder!r}), stage._version, shared._placed
stage.SILENT = 6.0
def other_version(name):
    return "0.1" if name == "jax" and (MARKS / "versions").exists() else version(name)
def stuck(group, window, rows):
    if group.rank == 1 and (MARKS / "stuck").exists():
        (MARKS / "stuck").unlink()
        time.sleep(1_000)
    return placed(group, window, rows)
stage._version, shared._placed = other_version, stuck
"""
"""What the executors' Python imports first: it does what files in a folder ask for."""


def imports_first(folder: Path, source: str) -> dict[str, str]:
    folder.joinpath("sitecustomize.py").write_text(source.format(folder=str(folder)))
    return {"spark.executorEnv.PYTHONPATH": os.pathsep.join([str(folder), SOURCES])}


@pytest.fixture(scope="module")
def marks(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module")
def session(marks) -> Iterator[SparkSession]:
    with spark("local-cluster[2,1,2048]", **imports_first(marks, FAULTY)) as found:
        yield found


@pytest.fixture(scope="module")
def undisturbed(session, tmp_path_factory):
    return on_spark(rows(session, *UNEVEN), ASKED, tmp_path_factory.mktemp("undisturbed"))


def test_a_stopped_worker(session, undisturbed, tmp_path):
    said, before = [], []

    def stop() -> None:
        before.extend(children())
        os.kill(before[1], signal.SIGSTOP)

    with once_kept(tmp_path, stop) as when:
        run = on_spark(rows(session, *UNEVEN), ASKED, tmp_path, say=said.append)
    print(f"over {time.monotonic() - when[0]:.1f} s after it was stopped: {said}")
    (attempt,) = [text for text in said if text.startswith("Attempt")]
    assert re.match(r"Attempt 1 failed: worker \d said nothing for 6 s and was ended\.", attempt)
    require_same(run, undisturbed)
    wait_for(lambda: gone(before), 10)


def test_a_stuck_worker(session, undisturbed, marks, tmp_path):
    said = []
    with once_kept(tmp_path, (marks / "stuck").touch) as when:
        run = on_spark(rows(session, *UNEVEN), ASKED, tmp_path, say=said.append, stalled=20.0)
    print(f"over {time.monotonic() - when[0]:.1f} s after it was stuck: {said}")
    (attempt,) = [text for text in said if text.startswith("Attempt")]
    assert re.match(r"Attempt 1 failed: worker \d made no progress for 20 s \(epoch \d+\)\.", attempt)
    require_same(run, undisturbed)
    assert not children()


def test_fewer_workers_go_on_with_the_same_order(session, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr("steepest.spark.attempts.free_slots", lambda *_: 1)
    said = []
    with once_kept(tmp_path, lambda: os.kill(children()[0], signal.SIGKILL)):
        run = on_spark(rows(session, *UNEVEN), ASKED, tmp_path, say=said.append)
    assert "There is room for 1 workers now; the fit goes on with these." in said
    assert len(run.record["workers"]) == 1
    require_close(run, undisturbed)


def test_other_rows_in_the_next_attempt(session, tmp_path):
    draw = sql.udf(lambda _: __import__("random").random(), "double")
    frame = rows(session, *UNEVEN).withColumn("z", draw("a"))
    with (
        once_kept(tmp_path, lambda: os.kill(children()[0], signal.SIGKILL)) as when,
        pytest.raises(SteepestError) as error,
    ):
        on_spark(frame, ASKED, tmp_path)
    print(f"known {time.monotonic() - when[0]:.1f} s later")
    assert str(error.value) == (
        "The fit can't go on from its last checkpoint: the rows are not those of the attempt before. If they "
        "come out differently each time, write them to storage and fit what is read from there. The next fit "
        "begins anew."
    )
    assert not list(tmp_path.glob("shared/*"))


def test_other_versions(session, marks, tmp_path):
    (marks / "versions").touch()
    try:
        said = refused(numbered(session), ASKED, tmp_path)
    finally:
        (marks / "versions").unlink()
    assert re.fullmatch(
        r"Worker 0 has jax 0\.1; the driver has [\d.]+\. Ship one environment to all: .*", said
    )


def test_rows_that_cannot_be_computed(session, tmp_path):
    def broken(number):
        return 1.0 / (1_500 - number)

    frame = numbered(session).withColumn("z", sql.udf(broken, "double")("id"))
    assert refused(frame, ASKED, tmp_path).startswith(
        "Spark can't compute the rows: ZeroDivisionError: float division by zero. "
    )
    frame = numbered(session).withColumn("z", sql.expr("cast(if(id = 1500, 'x', '1') as int)"))
    said = refused(frame, ASKED, tmp_path)
    assert said.startswith("Spark can't compute the rows: [CAST_INVALID_INPUT] The value 'x' of the type")


def test_a_negative_weight_on_one_worker(session, tmp_path):
    frame = numbered(session).withColumn("w", sql.expr("if(id = 1500, -1.0D, 1.0D)"))
    assert refused(frame, ASKED | {"weights": "w"}, tmp_path) == (
        "The column of row weights 'w' holds -1.0 at a Spark DataFrame, row 501 of a worker's; weights lie "
        "between 0 and 1e+15. Correct them, or take these rows out."
    )


def test_no_labels(session, tmp_path):
    frame = numbered(session).withColumn("late", sql.expr("cast(null as boolean)"))
    assert (
        refused(frame, ASKED, tmp_path) == "The target 'late' is missing in every row. Name another target."
    )


def test_a_fit_after_failed_ones(session, undisturbed, tmp_path):
    require_same(on_spark(rows(session, *UNEVEN), ASKED, tmp_path), undisturbed)

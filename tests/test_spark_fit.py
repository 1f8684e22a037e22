"""A fit on Spark: the weights of one process, whatever is lost on the way, or an error for a person."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql

import steepest
from spark_sessions import spark
from steepest.errors import SteepestError
from steepest.run import Run
from steepest.settings import Settings
from steepest.spark import checks
from steepest.spark.fitting import fit_files, fit_frame

COLUMNS = ("sin(id) a", "cos(id * 3) b", "cast(id % 7 as string) c", "sin(id) + cos(id * 3) > 0.3 late")

ASKED = {
    "target": "late",
    "model": "mlp",
    "hidden": (8,),
    "optimizer": "adam",
    "schedule": "cosine",
    "learning_rate": 0.003,
    "batch_size": 64,
    "epochs": 60,
    "checkpoint_every": 0.0,
}
"""6,000 steps: long enough for something to be lost on the way."""

GIVES_UP = 100.0
"""Seconds after which a test has waited long enough."""


@pytest.fixture(scope="module")
def session() -> Iterator[SparkSession]:
    with spark("local-cluster[2,1,2048]") as found:
        yield found


def rows(session: SparkSession, *counts: int) -> DataFrame:
    """Return so many rows in each partition."""
    most = max(counts)
    mine = " or ".join(
        f"id >= {part * most} and id < {part * most + count}" for part, count in enumerate(counts)
    )
    whole = session.range(0, most * len(counts), numPartitions=len(counts))
    return whole.where(mine).selectExpr(*COLUMNS)


EVEN, UNEVEN, EMPTY = (4_000, 4_000), (7_200, 800), (0, 8_000)


@pytest.fixture(scope="module")
def fitted(session, tmp_path_factory) -> Callable[..., Run]:
    """Give what fits each frame by each settings once, undisturbed."""
    found: dict[str, Run] = {}

    def fit(counts: tuple[int, ...], asked: dict[str, object], workers: int = 2) -> Run:
        key = f"{counts} {asked} {workers}"
        if key not in found:
            folder = tmp_path_factory.mktemp("undisturbed")
            found[key] = on_spark(rows(session, *counts), asked, folder, workers=workers)
        return found[key]

    return fit


def on_spark(
    frame: DataFrame,
    asked: dict[str, object],
    folder: Path,
    say: Callable[[str], None] = lambda _: None,
    **more: object,
) -> Run:
    placed = {"workers": 2, "shared": str(folder / "shared"), "out": str(folder / "run")}
    return fit_frame(frame, Settings(**{**asked, **placed, **more}), say=say)


def weights(run: Run) -> dict[str, np.ndarray]:
    return {f"{layer}.{name}": each for layer, of in run.parameters.items() for name, each in of.items()}


def require_close(run: Run, alone: Run) -> None:
    for name, values in weights(alone).items():
        assert np.abs(weights(run)[name] - values).max() < 1e-5, name
    np.testing.assert_allclose(run.steps["loss"], alone.steps["loss"], rtol=1e-4, atol=1e-5)


def require_same(run: Run, undisturbed: Run) -> None:
    for name, values in weights(undisturbed).items():
        assert weights(run)[name].tobytes() == values.tobytes(), name
    assert run.steps["loss"].tolist() == undisturbed.steps["loss"].tolist()


def by_one_process(frame: DataFrame, asked: dict[str, object], folder: Path) -> Run:
    return steepest.fit(frame.toArrow(), **asked, out=str(folder / "alone"))


# --- the weights of one process


def same_as_one_process(fitted, session, counts, folder):
    run = fitted(counts, ASKED)
    alone = by_one_process(rows(session, *counts), ASKED, folder)
    assert alone.record["descent"]["steps"] == 6_000
    require_close(run, alone)
    assert [each["worker"] for each in run.record["workers"]] == [0, 1]


@pytest.mark.slow
def test_uneven_partitions(fitted, session, tmp_path):
    same_as_one_process(fitted, session, UNEVEN, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("counts", [EVEN, EMPTY])
def test_other_partitions(counts, fitted, session, tmp_path):
    same_as_one_process(fitted, session, counts, tmp_path)
    require_same(on_spark(rows(session, *counts), ASKED, tmp_path), fitted(counts, ASKED))


@pytest.mark.slow
def test_files(session, tmp_path):
    table = str(tmp_path / "table")
    rows(session, 1_000, 4_000, 3_000).write.parquet(table)
    asked = ASKED | {"data": tuple(sorted(map(str, Path(table).glob("*.parquet"))))}
    runs = [
        fit_files(
            session,
            Settings(**asked, out=str(tmp_path / name), workers=workers, shared=str(tmp_path / "shared")),
        )
        for name, workers in (("first", 2), ("again", 2))
    ]
    alone = steepest.fit(**asked, out=str(tmp_path / "alone"))
    require_close(runs[0], alone)
    require_same(*runs)
    frame = on_spark(session.read.parquet(table), ASKED, tmp_path / "frame")
    require_same(frame, runs[0])
    first, second = (each["rows"] for each in frame.record["workers"])
    assert abs(first - second) < 200, "each has half of the rows, however they are cut into files"


@pytest.mark.slow
def test_rows_that_were_shuffled_come_in_one_order(session, tmp_path):
    shuffled = rows(session, *EVEN).repartition(5)
    runs = []
    for each in ("first", "again"):
        (tmp_path / each).mkdir()
        runs.append(on_spark(shuffled, ASKED, tmp_path / each))
    require_same(*runs)


# --- what is lost on the way


def processes() -> dict[int, tuple[int, str]]:
    """Return the processes that this one has begun, and theirs: number -> parent and command."""
    found: dict[int, tuple[int, str]] = {}
    for each in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(each.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            found[int(each.name)] = parent, each.joinpath("cmdline").read_bytes().decode().replace("\0", " ")
        except OSError:
            continue
    ours = {os.getpid()}
    while more := {number for number, (parent, _) in found.items() if parent in ours} - ours:
        ours |= more
    return {number: found[number] for number in ours - {os.getpid()}}


def children() -> list[int]:
    """Return the processes of the fit itself."""
    return sorted(number for number, (_, command) in processes().items() if "steepest.worker" in command)


def executors() -> list[int]:
    backend = "CoarseGrainedExecutorBackend"
    return sorted(number for number, (_, command) in processes().items() if backend in command)


def wait_for(what: Callable[[], object], seconds: float = GIVES_UP) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@contextmanager
def once_kept(folder: Path, act: Callable[[], object]) -> Iterator[list[float]]:
    """Do something in the midst of the descent; give when it was done, and see that it was."""
    when: list[float] = []

    def disturb() -> None:
        wait_for(lambda: any(folder.glob("shared/*/attempts/0000/checkpoint-*")))
        act()
        when.append(time.monotonic())

    thread = threading.Thread(target=disturb)
    thread.start()
    yield when
    thread.join()
    assert when


def gone(numbers: list[int]) -> bool:
    return not any(Path(f"/proc/{number}").exists() for number in numbers)


def disturbed(session, folder, victims, asked) -> Run:
    """Fit while processes are lost."""
    said, before = [], []

    def act() -> None:
        before.extend(children())
        for number in victims():
            os.kill(number, signal.SIGKILL)

    began = time.monotonic()
    with once_kept(folder, act) as when:
        said_at = []

        def say(text: str) -> None:
            if text.startswith("Attempt"):
                said.append(text)
                said_at.append(time.monotonic())

        run = on_spark(rows(session, *UNEVEN), asked, folder, say=say)
    print(
        f"lost after {when[0] - began:.1f} s, known {said_at[0] - when[0]:.1f} s later, "
        f"over {time.monotonic() - when[0]:.1f} s later: {said}"
    )
    assert said[0].startswith("Attempt 1 failed: ")
    assert said[0].endswith(". It is begun again from the last checkpoint.")
    assert len(said) == 1
    wait_for(lambda: gone(before), 10)
    assert not children()
    return run


def test_a_killed_worker(session, tmp_path):
    asked = ASKED | {"epochs": 12}
    run = disturbed(session, tmp_path, lambda: children()[1:], asked)
    require_close(run, by_one_process(rows(session, *UNEVEN), asked, tmp_path))


KILLED = {
    "a worker": lambda: children()[1:],
    "the first worker": lambda: children()[:1],
    "a Python worker": lambda: [processes()[children()[1]][0]],
    "an executor": lambda: executors()[1:],
}


@pytest.mark.slow
@pytest.mark.parametrize("victims", KILLED.values(), ids=KILLED)
def test_the_weights_are_those_without_a_loss(victims, session, fitted, tmp_path):
    require_same(disturbed(session, tmp_path, victims, ASKED), fitted(UNEVEN, ASKED))


@pytest.mark.slow
def test_a_cancelled_fit_ends_and_the_same_one_goes_on(session, fitted, tmp_path):
    undisturbed, said = fitted(UNEVEN, ASKED), []
    with (
        once_kept(tmp_path, session.sparkContext.cancelAllJobs) as when,
        pytest.raises(
            SteepestError, match=r"The fit was cancelled in Spark\. The same fit goes on where it was"
        ),
    ):
        on_spark(rows(session, *UNEVEN), ASKED, tmp_path, say=said.append)
    assert time.monotonic() - when[0] < 20
    assert not [text for text in said if text.startswith("Attempt")]
    wait_for(lambda: not children(), 10)
    run = on_spark(rows(session, *UNEVEN), ASKED, tmp_path)
    require_same(run, undisturbed)


# --- what is wrong from the start


def refused(frame, asked, folder, **more) -> str:
    began, said = time.monotonic(), []
    with pytest.raises(SteepestError) as error:
        on_spark(frame, asked, folder, say=said.append, **more)
    assert not said
    assert time.monotonic() - began < 30
    wait_for(lambda: not children(), 10)
    return str(error.value)


def at_row(number: int, value: str, otherwise: str) -> sql.Column:
    return sql.expr(f"if(id = {number}, {value}, {otherwise})")


def numbered(session) -> DataFrame:
    return session.range(0, 2_000, numPartitions=2).selectExpr("id", *COLUMNS)


def test_an_infinite_value_on_one_worker(session, tmp_path):
    frame = numbered(session).withColumn("a", at_row(1_500, "cast('infinity' as double)", "a"))
    assert refused(frame, ASKED, tmp_path) == (
        "column 'a' has 1 infinite value: a Spark DataFrame, row 501 of a worker's. "
        "Leave such cells empty (missing), replace them by a number, or leave the column out."
    )


def test_more_workers_than_room(session, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "STARTING", 0.5)
    assert refused(numbered(session), ASKED, tmp_path, workers=5) == (
        "The fit asks for 5 workers at the same time; the cluster has room for 2. "
        "Ask for 2, or add executors (spark.executor.instances, spark.executor.cores); those that take long "
        "to start are waited for with spark.scheduler.maxRegisteredResourcesWaitingTime=10min."
    )


def test_executors_that_spark_may_take_away(session, tmp_path):
    conf = session.sparkContext._conf
    conf.set("spark.dynamicAllocation.enabled", "true")
    try:
        assert refused(numbered(session), ASKED, tmp_path) == (
            "All workers of a fit must run at once; with dynamic allocation Spark may take executors away. "
            "Set spark.dynamicAllocation.enabled=false and spark.executor.instances."
        )
    finally:
        conf.set("spark.dynamicAllocation.enabled", "false")

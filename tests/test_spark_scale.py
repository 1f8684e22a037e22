"""Fits on Spark of more workers, of more rows than they have memory for, and from a cluster that breaks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import steepest
from hadoop_cluster import hadoop
from spark_sessions import SOURCES, spark
from steepest.run import open_run
from steepest.settings import Settings
from steepest.spark.fitting import fit_files
from test_spark_campaign import imports_first
from test_spark_fit import (
    ASKED,
    UNEVEN,
    by_one_process,
    children,
    executors,
    gone,
    on_spark,
    once_kept,
    processes,
    refused,
    require_close,
    require_same,
    rows,
    wait_for,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(r"ignore:os.fork\(\) was called:RuntimeWarning"),  # PySpark forks for a JVM
]

LACKING = """
import sys
class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name == "steepest":
            raise ModuleNotFoundError("No module named 'steepest'", name=name)
sys.meta_path.insert(0, Lacking())
"""


def test_a_worker_without_the_package(tmp_path):
    with spark("local-cluster[1,1,1024]", **imports_first(tmp_path, LACKING)) as session:
        frame = session.range(100, numPartitions=1).selectExpr("sin(id) a", "id > 50 late")
        assert refused(frame, ASKED, tmp_path, workers=1) == (
            "A worker has no package 'steepest'. Ship the driver's environment to all workers: docs/spark.md "
            "says how."
        )


def test_four_workers(tmp_path):
    with spark("local-cluster[4,1,1024]", **{"spark.executor.memory": "512m"}) as session:
        frame = rows(session, 2_000, 3_000, 2_500, 500)
        asked = ASKED | {"epochs": 10}
        (tmp_path / "again").mkdir()
        run = on_spark(frame, asked, tmp_path, workers=4)
        require_same(on_spark(frame, asked, tmp_path / "again", workers=4), run)
        alone = by_one_process(frame, asked, tmp_path)
        assert alone.record["descent"]["steps"] == 1_000
        require_close(run, alone)


def anonymous(number: int) -> int:
    """Return the bytes that a process has in memory and no file holds."""
    try:
        return 1024 * int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{number}/status").read_text())[1])
    except (OSError, TypeError):
        return 0


def test_ten_million_rows(tmp_path):
    columns = [f"(xxhash64(id, {number}) % 1000) / 1000D x{number}" for number in range(20)]
    most = {"worker": 0, "executor": 0}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            most["worker"] = max([most["worker"], *map(anonymous, children())])
            most["executor"] = max([most["executor"], *map(anonymous, executors())])

    with spark("local-cluster[2,1,1024]", **{"spark.executor.memory": "512m"}) as session:
        frame = session.range(0, 10_000_000, numPartitions=2).selectExpr(*columns)
        frame = frame.selectExpr("*", "x0 + x1 * x2 > 0.1 late")
        looking = threading.Thread(target=look)
        looking.start()
        began = time.monotonic()
        asked = {"target": "late", "batch_size": 4096, "epochs": 1, "learning_rate": 0.01, "memory": "1GB"}
        try:
            run = on_spark(frame, asked, tmp_path)
        finally:
            over.set()
            looking.join()
    print(f"{time.monotonic() - began:.0f} s, { ({name: each >> 20 for name, each in most.items()}) } MiB")
    print(run.record["seconds"], run.record["workers"])
    assert run.record["split"]["training_rows"] + run.record["split"]["validation_rows"] == 10_000_000
    assert most["worker"] < 10**9
    assert most["executor"] < 10**9


def test_a_lost_data_node(tmp_path):
    (tmp_path / "hadoop").mkdir()
    with hadoop(tmp_path / "hadoop") as cluster, spark("local-cluster[2,1,1024]", cluster.conf) as session:
        url = f"{cluster.url}/flights"
        session.range(0, 1_000_000, numPartitions=4).selectExpr(
            *(f"sin(id * {number}) x{number}" for number in range(1, 10)), "sin(id) > 0.3 late"
        ).write.parquet(url)
        asked = ASKED | {"data": (f"{url}/*.parquet",), "batch_size": 1_000, "epochs": 2}

        def stop() -> None:
            wait_for(lambda: len(children()) == 2)
            time.sleep(3)
            cluster.stop_datanode(0)

        stopping = threading.Thread(target=stop)
        stopping.start()
        began = time.monotonic()
        said: list[str] = []
        shared = f"{cluster.url}/shared"
        settings = Settings(**asked, out=str(tmp_path / "run"), workers=2, shared=shared)
        run = fit_files(session, settings, say=said.append)
        stopping.join()
        print(f"{time.monotonic() - began:.0f} s", said, run.record["seconds"])
        alone = steepest.fit(**asked, out=str(tmp_path / "alone"))
        require_close(run, alone)
        assert np.isfinite(run.steps["loss"]).all()


DRIVER = """
import sys
from pathlib import Path
from spark_sessions import SOURCES, spark
from steepest.run import open_run
from test_spark_fit import ASKED, UNEVEN, on_spark, rows
with spark("local-cluster[2,1,1024]") as session:
    on_spark(rows(session, *UNEVEN), ASKED, Path(sys.argv[1]))
"""


def test_a_killed_driver(tmp_path):
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": SOURCES}
    with subprocess.Popen(command, env=environment) as driver, once_kept(tmp_path, driver.kill) as when:
        wait_for(children)
        before = sorted(processes())
        driver.wait()
    wait_for(lambda: gone(before), 30)
    print(f"all {len(before)} processes had ended {time.monotonic() - when[0]:.1f} s later")
    subprocess.run(command, env=environment, check=True, timeout=300)
    with spark("local[1]") as session:
        alone = by_one_process(rows(session, *UNEVEN), ASKED, tmp_path)
    run = open_run(tmp_path / "run")
    require_close(run, alone)
    assert not list(tmp_path.glob("shared/*"))

"""Runs and checkpoints in a local folder and on a real HDFS: what has a name is whole."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from pyarrow import fs

import steepest
from expecting import fails
from hadoop_cluster import hadoop
from steepest.data.source import open_source
from steepest.storage import Storage, _Hadoop, storage_at, storage_of
from steepest.unfinished import _local, unfinished_of

HERE = Path(__file__).parent


STEEPEST = [sys.executable, "-c", "from steepest.cli import main; main()"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with hadoop(tmp_path_factory.mktemp("hadoop")) as cluster:
        yield cluster


@pytest.fixture(params=["local", pytest.param("hdfs", marks=pytest.mark.slow)])
def storage(request, tmp_path):
    if request.param == "local":
        return storage_at(str(tmp_path / "kept"))
    return storage_at(f"{request.getfixturevalue('cluster').url}/{tmp_path.name}")


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "made"
    (folder / "deep" / "er").mkdir(parents=True)
    for number, name in enumerate(("a b", "deep/ä?#;%20", "deep/er/big", "empty")):
        (folder / name).write_bytes(bytes(range(256)) * 6_000 * number)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def test_folders_come_back_as_they_went(storage, folder, tmp_path):
    assert storage.names() == []
    storage.put(folder, "runs/first")
    storage.get("runs/first", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(folder)
    assert storage.names() == ["runs"]
    assert storage.names("runs/f") == ["runs/first"]
    assert storage.names("runs/g") == []
    assert storage.exists("runs/first/deep")
    assert not storage.exists("runs/second")


def test_a_name_that_is_taken(storage, folder, tmp_path):
    (file := tmp_path / "file").write_text("new")
    for source, name in ((folder, "run"), (folder / "a b", "one")):
        storage.put(source, name)
        with fails(f"{storage.url}/{name} exists"):
            storage.put(file, name)
    storage.put(file, "one", replace=True)
    storage.get("one", file)
    assert file.read_text() == "new"
    (folder / "empty").unlink()
    storage.put(folder, "run", replace=True)
    storage.get("run", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(folder)
    assert inside(storage) == ["one", "run"]


def inside(storage) -> list[str]:
    """All that is there, also what names() does not tell."""
    return sorted(storage._inside(storage.path))


def test_what_is_not_there(storage, folder, tmp_path):
    storage.put(folder, "run")
    with fails("there is no", f"{storage.url}/none", "There are: run"):
        storage.get("none", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    storage.remove("none")
    storage.remove("run")
    assert inside(storage) == []


def test_what_was_left_aside_goes(storage, folder):
    storage._copy_in(folder, storage._aside("run"))
    storage._copy_in(folder, storage._aside("runs"))
    assert storage.names() == []
    storage.put(folder, "run")
    assert [each for each in inside(storage) if each.startswith(".run.")] == []
    assert len(inside(storage)) == 2


def test_a_folder_that_takes_nothing(tmp_path):
    (tmp_path / "file").touch()
    with fails(f"{tmp_path}/file/runs can't be used"):
        storage_at(f"{tmp_path}/file/runs").require_writable()


def test_other_urls_are_refused():
    with fails("s3://bucket/runs", "renaming"):
        storage_at("s3://bucket/runs")
    for url in ("hdfs://namenode:9000", "hdfs://namenode:9000/"):
        with fails("names no folder"):
            storage_of(url)


def test_a_name_node_that_is_not_there_is_told_at_once(tmp_path):
    table = pd.DataFrame({"x": [1.0, 2.0], "y": [1, 2]})
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        node = f"127.0.0.1:{nobody.getsockname()[1]}"
        for act in (
            lambda: storage_at(f"hdfs://{node}/runs"),
            lambda: steepest.fit(table, "y", out=f"hdfs://{node}/runs/x"),
            lambda: steepest.diagnose(f"hdfs://{node}/runs/x"),
            lambda: storage_at("hdfs://nameservice/runs"),
        ):
            began = time.perf_counter()
            with fails("cannot be reached", "Check the address"):
                act()
            assert time.perf_counter() - began < 10


def flights(rows: int = 3_000) -> pd.DataFrame:
    draws = np.random.default_rng(0)
    table = pd.DataFrame(draws.normal(size=(rows, 3)), columns=["a", "b", "c"])
    table["late"] = (table["a"] - table["b"] + draws.normal(size=rows) > 0).astype(int)
    return table


def test_a_fit_reads_from_hdfs_and_its_run_is_kept_there(cluster, tmp_path):
    flights().to_csv(tmp_path / "flights.csv", index=False)
    storage = storage_at(f"{cluster.url}/quick")
    storage.put(tmp_path / "flights.csv", "flights.csv")
    url = f"{cluster.url}/quick/run"
    far = steepest.fit(f"{cluster.url}/quick/flights.csv", "late", epochs=2, learning_rate=0.01, out=url)
    near = steepest.fit(
        str(tmp_path / "flights.csv"), "late", epochs=2, learning_rate=0.01, out=str(tmp_path / "run")
    )
    storage.get("run", tmp_path / "kept")
    kept = contents(tmp_path / "kept")
    assert kept["model.safetensors"] == (near.path / "model.safetensors").read_bytes()
    assert sorted(each.name for each in (tmp_path / "kept").iterdir()) == sorted(
        each.name for each in near.path.iterdir()
    )
    assert far.name == url
    assert contents(far.path) == kept
    with fails(f"{url} exists"):
        steepest.fit(flights(), "late", epochs=2, learning_rate=0.01, out=url)
    steepest.fit(flights(), "late", epochs=3, learning_rate=0.01, out=url, overwrite=True)
    said = subprocess.run([*STEEPEST, "show", url, "--json"], capture_output=True, text=True, check=True)
    assert f"run: {url} " in said.stdout
    assert json.loads(said.stdout.splitlines()[-1])["report"] == f"{url}/report.html"
    assert far.path.is_dir()
    copy = far.path
    del far
    assert not copy.exists()
    assert inside(storage) == ["flights.csv", "run"]


@pytest.mark.parametrize("name", ["a b", "deep"])
def test_what_was_lost_on_its_way_is_written_again(folder, name, tmp_path):
    local = pytest.importorskip("fsspec.implementations.local")

    class Losing(local.LocalFileSystem):
        """Says that all is written, and keeps nothing of the first file that is not empty."""

        lost: ClassVar = []

        def open(self, path, mode="rb", **more):
            file = super().open(path, mode, **more)
            if mode == "wb" and not self.lost:
                self.lost.append(path)
                return Path(os.devnull).open("wb")
            return file

    (folder / "a b").write_bytes(b"7")
    with socket.create_server(("127.0.0.1", 0)) as node:
        url = f"hdfs://127.0.0.1:{node.getsockname()[1]}{tmp_path}/kept"
        storage = Storage(url, str(tmp_path / "kept"), fs.PyFileSystem(_Hadoop(Losing())))
        storage.put(folder / name, name)
    assert Losing.lost
    made, kept = folder / name, tmp_path / "kept" / name
    assert contents(kept) == contents(made)
    assert kept.is_dir() or kept.read_bytes() == made.read_bytes()
    assert inside(storage) == [name]


FORKED = """
import socket, subprocess
from steepest.data.files import open_remote
with socket.create_server(("127.0.0.1", 0)) as node:
    open_remote(f"hdfs://127.0.0.1:{node.getsockname()[1]}/runs")
subprocess.run(["true"], check=True, preexec_fn=lambda: None)  # as PySpark starts its JVM
"""


def test_who_used_hdfs_may_start_a_program_by_a_fork():
    pytest.importorskip("hdfs_native")
    with subprocess.Popen([sys.executable, "-c", FORKED], start_new_session=True) as process:
        try:
            assert process.wait(30) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_is_put_is_put_by_the_same_command(cluster, tmp_path):
    flights().to_csv(tmp_path / "flights.csv", index=False)
    url = f"{cluster.url}/killed/run"
    words = [
        "fit",
        str(tmp_path / "flights.csv"),
        "--target",
        "late",
        "--epochs",
        "2",
        "--learning-rate",
        "0.01",
        "--out",
        url,
    ]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    storage = storage_at(f"{cluster.url}/killed")
    assert storage.names() == []
    assert inside(storage), "it was killed in the middle"
    assert unfinished_of(_local(url)).is_dir()
    subprocess.run([*STEEPEST, *words], cwd=tmp_path, check=True, capture_output=True)
    near = steepest.fit(
        str(tmp_path / "flights.csv"), "late", epochs=2, learning_rate=0.01, out=str(tmp_path / "near")
    )
    storage.get("run", tmp_path / "kept")
    kept = contents(tmp_path / "kept")
    assert kept["model.safetensors"] == (near.path / "model.safetensors").read_bytes()
    assert sorted(each.name for each in (tmp_path / "kept").iterdir()) == sorted(
        each.name for each in near.path.iterdir()
    )
    assert inside(storage) == ["run"]
    assert not unfinished_of(_local(url)).exists()


KILLED = """
import os, signal, sys
from pyarrow import fs
from steepest import storage
from steepest.cli import main

class Mortal(storage._Hadoop):
    opened = 0

    def open_output_stream(self, path, metadata):
        Mortal.opened += 1
        if Mortal.opened == 6:  # the first ones see whether anything can be written
            os.kill(os.getpid(), signal.SIGKILL)
        return super().open_output_stream(path, metadata)

storage._Hadoop = Mortal
sys.argv[0] = "steepest"
main()
"""


@pytest.mark.slow
def test_no_permission_is_told_before_a_fit_begins(cluster, tmp_path):
    storage_at(f"{cluster.url}/closed").require_writable()
    flights().to_csv(tmp_path / "flights.csv", index=False)
    words = [str(tmp_path / "flights.csv"), "--target", "late", "--out", f"{cluster.url}/closed/run"]
    ran = subprocess.run(
        [*STEEPEST, "fit", *words],
        env={**os.environ, "HADOOP_USER_NAME": "somebody"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert ran.returncode == 2
    assert "somebody has no WRITE permission there" in ran.stderr
    assert "epoch" not in ran.stdout


@pytest.mark.slow
def test_a_data_node_may_stop(cluster, tmp_path):
    """While a file is read, while others are written, and before another is."""
    table = flights(200_000)
    table.to_csv(tmp_path / "long.csv", index=False)
    storage = storage_at(f"{cluster.url}/long")
    storage.put(tmp_path / "long.csv", "long.csv")
    stretches = open_source(f"{storage.url}/long.csv").stretches()
    read = [next(stretches).rows]
    begun, over = threading.Barrier(5, timeout=60), threading.Event()

    def write(number: int) -> None:
        small = tmp_path / f"small {number}"
        small.write_bytes(bytes(500))
        many = storage_at(f"{storage.url}/{number}")
        for count in itertools.count(1):
            many.put(small, str(count))
            many.put(small, "last", replace=True)
            if count == 3:
                begun.wait()
            if count > 3 and over.is_set():
                return

    writers = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for each in writers:
        each.start()
    begun.wait()
    cluster.stop_datanode(0)
    over.set()
    for number, each in enumerate(writers):
        each.join()
        storage.get(str(number), tmp_path / str(number))
        assert {path.stat().st_size for path in (tmp_path / str(number)).iterdir()} == {500}
    read += [stretch.rows for stretch in stretches]
    assert sum(each.num_rows for each in read) == len(table)
    assert np.array_equal(np.concatenate([each["a"].to_numpy() for each in read]), table["a"])
    storage.put(tmp_path / "long.csv", "again.csv")
    storage.get("again.csv", tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "long.csv").read_bytes()

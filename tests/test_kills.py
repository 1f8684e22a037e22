"""A fit that is killed at any moment and started until it ends leaves what one leaves that nobody killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

import steepest
from campaigns import among
from expecting import fails
from mortal import SAID
from steepest import preparation
from steepest.checkpoints import contents
from steepest.data import cache
from steepest.settings import Settings
from steepest.training import fit
from steepest.unfinished import in_the_making, unfinished_of

MORTAL = Path(__file__).with_name("mortal.py")

TABLE = (
    *("fit", "../table.csv", "--target", "bought", "--batch-size", "16", "--patience", "2"),
    *("--checkpoint-every", "0", "--out", "runs/it"),
)
SEARCHING = (*TABLE, "--model", "mlp", "--hidden", "8", "--dropout", "0.2")
FIT = (*SEARCHING, "--learning-rate", "0.01")
SHORT = ("--epochs", "2")
"""Over within a hundred changes to the file system."""

LONG_FIT = (*FIT, "--epochs", "6")

CASES = {
    "new": (*SEARCHING, *SHORT),
    "in place of another": (*FIT, *SHORT, "--overwrite"),
    "from another": (*FIT, "--epochs", "1", "--from", "runs/before"),
    "a Keras model": (*TABLE, *SHORT, "--model", "network:build"),
    "diverges": (*FIT, *SHORT, "--optimizer", "sgd", "--learning-rate", "1e30"),
}

NETWORK = """
import keras

def build(columns):
    layers = keras.layers
    return keras.Sequential([
        keras.Input((columns.width,)), layers.Dense(8, "relu"), layers.Dropout(0.2),
        layers.BatchNormalization(), layers.Dense(1, "sigmoid")])
"""

FILES = ("model.safetensors", "model.json", "columns.json", "history.parquet", "rejected.csv")
"""What is the same, byte for byte."""

LYING = ["begun.json", "checkpoints", "lock", "settings.toml"]
"""What a run has when it is begun."""

TIMES = ("created", "seconds", "rows_per_second")


class End(NamedTuple):
    """How a process ended, and at how many moments it might have been killed."""

    status: int
    moments: int


Start = Callable[..., End]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a table of 300 rows, of which two can't be used."""
    place, draws = tmp_path_factory.mktemp("kills"), np.random.default_rng(0)
    numbers = draws.normal(size=(300, 3)).round(4)
    table = pd.DataFrame(numbers, columns=["age", "price", "visits"])
    table["colour"] = draws.choice(["red", "green", "blue"], 300)
    table["bought"] = (numbers[:, 0] - numbers[:, 1] + draws.normal(size=300) > 0).astype(int)
    lines = table.to_csv(index=False).splitlines()
    lines[50:50], lines[200:200] = ["1,2,3"], ["1,2,3,red,0,6"]
    (place / "table.csv").write_text("\n".join(lines) + "\n", "utf-8")
    (place / "network.py").write_text(NETWORK, "utf-8")
    return place


@pytest.fixture(scope="module")
def surroundings(place) -> dict[str, str]:
    """What processes find around them, in whatever folder they work."""
    code = str(Path(steepest.__file__).parents[1])
    own = {"STEEPEST_CACHE": "cache", "PYTHONPATH": f"{code}{os.pathsep}{place}", "OPENBLAS_NUM_THREADS": "1"}
    return os.environ | own


@pytest.fixture(scope="module")
def start(place, surroundings) -> Iterator[Start]:
    """``start(folder, words, moment)`` runs ``steepest`` in a folder and kills it at a moment, if not 0."""
    with subprocess.Popen(
        [sys.executable, MORTAL, "--serve"],
        env=surroundings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:

        def ask(folder: Path, words: tuple[str, ...], moment: int = 0) -> End:
            server.stdin.write(json.dumps([str(folder), moment, words]) + "\n")
            server.stdin.flush()
            return End(*json.loads(server.stdout.readline()))

        yield ask
        server.stdin.close()


@pytest.fixture(scope="module")
def begin(place, start) -> Callable[[str, str], Path]:
    """Return a function that makes a folder in which a case may begin."""

    def make(case: str, name: str) -> Path:
        folder = place / name
        folder.mkdir()
        if case == "in place of another":
            shutil.copytree(other("--epochs", "1", "--seed", "1"), folder / "runs" / "it")
        if case == "from another":
            shutil.copytree(other("--epochs", "1"), folder / "runs" / "before")
        return folder

    def other(*words: str) -> Path:
        folder = place / "-".join(("other", *words))
        if not folder.exists():
            folder.mkdir()
            assert start(folder, (*FIT, *words)).status == 0
        return folder / "runs" / "it"

    return make


class Whole(NamedTuple):
    """What a process leaves that nobody kills."""

    folder: Path
    end: End


@pytest.fixture(scope="module")
def whole(begin, start) -> Callable[[str], Whole]:
    """Return a function that runs a case without a kill, once."""
    known: dict[str, Whole] = {}

    def run(case: str) -> Whole:
        if case not in known:
            folder = begin(case, f"{case}, whole")
            known[case] = Whole(folder, start(folder, CASES[case]))
            assert known[case].end.status == (2 if case == "diverges" else 0), (folder / SAID).read_text()
        return known[case]

    return run


def without_times(found: dict) -> dict:
    return {
        name: without_times(each) if isinstance(each, dict) else each
        for name, each in found.items()
        if name not in TIMES
    }


def tree(folder: Path) -> list[str]:
    """Return what lies in a folder; the parts of a history are named by the times in them."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return sorted(re.sub(r"history-\w{32}", "history-*", name) for name in names)


def assert_same(folder: Path, expected: Path) -> None:
    """Compare what two processes have left, and with what they ended."""
    said = (folder / SAID).read_text()
    assert tree(folder) == tree(expected), said
    assert "can't be used:" not in said.replace("Left out 2 rows: they can't be used:", ""), "torn"
    found, wanted = folder / "runs" / "it", expected / "runs" / "it"
    if not wanted.exists():
        assert said == (expected / SAID).read_text()
        return
    for name in FILES:
        assert (found / name).read_bytes() == (wanted / name).read_bytes(), name
    record, expected_record = (
        without_times(json.loads((run / "record.json").read_text())) for run in (found, wanted)
    )
    assert record == expected_record
    epochs = [
        pd.read_csv(run / "history.csv", dtype=str).drop(columns=list(TIMES[1:])) for run in (found, wanted)
    ]
    pd.testing.assert_frame_equal(*epochs)
    if "network:build" in record["command"]:
        return  # its checkpoints are Keras', and hold times
    arrays = [contents(run / "checkpoints") for run in (found, wanted)]
    assert arrays[0].keys() == arrays[1].keys()
    assert all(arrays[0][name].tobytes() == arrays[1][name].tobytes() for name in arrays[1])


def is_over(case: str, folder: Path) -> bool:
    """Tell whether the process was killed after all was done: then there is nothing to start anew."""
    return "--overwrite" not in CASES[case] and (folder / "runs" / "it").exists()


def killed_at(case: str, moment: int, begin, start: Start, whole) -> bool:
    """Kill a case at a moment, let it end and compare; tell whether it came to that moment."""
    folder = begin(case, f"{case}, killed at {moment}")
    first = start(folder, CASES[case], moment)
    if first.status != -signal.SIGKILL:
        return False
    if not is_over(case, folder):
        end = start(folder, CASES[case])
        assert end.status == whole(case).end.status, (folder / SAID).read_text()
    assert_same(folder, whole(case).folder)
    shutil.rmtree(folder)
    return True


@pytest.mark.parametrize("quarter", among([1, 2, 3], 1))
def test_killed_at_some_changes_of_the_file_system(quarter, begin, start, whole):
    moment = whole("new").end.moments * quarter // 4
    assert killed_at("new", moment, begin, start, whole)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_at_each_change_of_the_file_system(case, begin, start, whole):
    wrong = []
    for moment in range(1, 1000):
        try:
            if not killed_at(case, moment, begin, start, whole):
                break
        except AssertionError as error:
            wrong.append(f"{case}, killed at {moment}: {error}")
    assert moment > 20
    assert not wrong, "\n\n".join(wrong)


def start_until_it_ends(folder: Path, surroundings: dict[str, str], moments: Iterator[float]) -> int:
    """Kill processes after so many seconds each, until one ends; return how many were killed."""
    command = [sys.executable, MORTAL, *LONG_FIT]
    for kills, moment in enumerate(moments):
        with (
            (folder / SAID).open("wb") as said,
            subprocess.Popen(command, cwd=folder, env=surroundings, stderr=said, stdout=said) as it,
        ):
            try:
                assert it.wait(moment) == 0, (folder / SAID).read_text()
            except subprocess.TimeoutExpired:
                it.kill()
        if (folder / "runs" / "it").exists():
            return kills + (it.returncode != 0)
    raise AssertionError("moments never end")


@pytest.mark.slow
def test_killed_at_random_moments(place, surroundings):
    draws = np.random.Generator(np.random.Philox(0))
    expected = place / "random, whole"
    expected.mkdir()
    began = time.perf_counter()
    assert start_until_it_ends(expected, surroundings, iter([600.0])) == 0
    life, kills = time.perf_counter() - began, 0
    while kills < 100:
        folder = place / f"random, after {kills}"
        folder.mkdir()
        kills += start_until_it_ends(folder, surroundings, iter(lambda: draws.uniform(0, life), None))
        assert_same(folder, expected)
        shutil.rmtree(folder)


def test_a_run_that_had_hardly_begun_is_begun_anew(tmp_path):
    folder, settings = tmp_path / "it", Settings(data=("a.csv",), target="y")
    work = unfinished_of(folder)
    (work / "checkpoints").mkdir(parents=True)
    for name in ("lock", "begun.json", ".settings.toml"):
        (work / name).write_text('"torn')
    (work / "thesis.txt").write_text("mine")
    with fails("exists and is no interrupted run"), in_the_making(folder, settings, "key", overwrite=False):
        pass
    (work / "thesis.txt").unlink()
    with in_the_making(folder, settings, "key", overwrite=False):
        assert sorted(path.name for path in work.iterdir()) == LYING
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoints", "settings.toml"]


def test_all_is_on_the_disk_before_it_takes_its_name(place, tmp_path, monkeypatch):
    synced: set[int] = set()
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(preparation, "CACHED_FROM", 0)
    monkeypatch.setattr(os, "fsync", lambda file: synced.add(os.fstat(file).st_ino))
    run = fit(
        Settings(
            data=(str(place / "table.csv"),), target="bought", epochs=1, out=str(tmp_path / "runs" / "it")
        )
    )
    for whole in (run.path, *(entry.path for entry in cache.entries())):
        for path in (whole, *whole.rglob("*")):
            assert path.stat().st_ino in synced, path
    assert cache.entries()

"""A fit keeps to the memory that it was given, however large the data: the system enforces it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import steepest
from exporting import fitted
from steepest.errors import SteepestError
from steepest.memory import BASE, bytes_of, least_memory

COLUMNS = 30

BLOCK = 2**17

WORDS, HALF = 3_000_000, 6
"""Different words, so many that they are hashed, and words of half a row of text."""

CHILD = """
import json, re, sys, threading, time
from pathlib import Path
most = {}
def look():
    status = Path("/proc/self/status").read_text()
    for name in ("VmHWM", "RssAnon", "RssShmem"):
        most[name] = max(most.get(name, 0), 1024 * int(re.search(name + r":\\s+(\\d+)", status)[1]))
def watch():
    while True:
        look()
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
from steepest.cli import main
main(sys.argv[1:])
look()
print(json.dumps(most))
"""


class Group:
    """A control group with a hard limit of memory, of either version."""

    def __init__(self, limit: int) -> None:
        old = Path("/sys/fs/cgroup/memory")
        self.path = (old if old.is_dir() else Path("/sys/fs/cgroup")) / f"steepest-{secrets.token_hex(4)}"
        self.path.mkdir()
        self.names = ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
        if not old.is_dir():
            self.names = ("memory.max", "memory.peak")
        self.write(self.names[0], limit)

    def write(self, name: str, value: int) -> None:
        (self.path / name).write_text(f"{value}")

    @property
    def peak(self) -> int:
        return int((self.path / self.names[1]).read_text())


@pytest.fixture
def group() -> Iterator[type[Group]]:
    made = []

    def make(limit: int) -> Group:
        made.append(Group(limit))
        return made[-1]

    if os.geteuid() != 0:
        pytest.skip("only root may make a control group")
    try:
        make(2**30)
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    yield make
    for each in made:
        each.path.rmdir()


def write_parquet(folder: Path, size: int) -> str:
    """Write random numbers as float64; each block of rows has others, at the speed of the disk."""
    draws = np.random.default_rng(0)
    block, weights = draws.normal(size=(BLOCK + 1009, COLUMNS)), draws.normal(size=COLUMNS)
    names = [*(f"x{column}" for column in range(COLUMNS)), "y"]
    schema = pa.schema([(name, pa.float64()) for name in names])
    with pq.ParquetWriter(
        folder / "x.parquet", schema, compression="none", use_dictionary=False, write_statistics=False
    ) as writer:
        while (folder / "x.parquet").stat().st_size < size:
            rows = block[(first := int(draws.integers(1009))) : first + BLOCK]
            target = rows @ weights + draws.normal(size=BLOCK)
            writer.write_table(pa.table([*rows.T.copy(), target], schema=schema))
    return str(folder / "x.parquet")


def write_csv(folder: Path, size: int) -> str:
    draws = np.random.default_rng(0)
    rows = draws.normal(size=(20_000, COLUMNS))
    table = np.column_stack([rows, rows @ draws.normal(size=COLUMNS) + draws.normal(size=len(rows))])
    lines = [",".join(f"{value:.5f}" for value in row) for row in table]
    with (folder / "x.csv").open("w") as file:
        file.write(",".join([*(f"x{column}" for column in range(COLUMNS)), "y"]) + "\n")
        while file.tell() < size:
            file.write("\n".join(lines[number] for number in draws.permutation(len(lines))) + "\n")
    return str(folder / "x.csv")


def write_text(folder: Path, size: int) -> str:
    """Write rows of words by Zipf's law, put together from halves at random; the words decide ``y``."""
    draws = np.random.default_rng(0)
    ranks = np.cumsum(1 / np.arange(1, WORDS + 1))
    words = np.minimum(np.searchsorted(ranks, draws.random((BLOCK, HALF)) * ranks[-1]), WORDS - 1)
    scores = np.where(np.arange(WORDS) < 50, 0, draws.normal(size=WORDS))[words].sum(axis=1)
    names = pa.array([f"word{word}" for word in range(WORDS)])
    ends = pa.array(np.arange(0, words.size + 1, HALF), pa.int32())
    halves = pc.binary_join(pa.ListArray.from_arrays(ends, names.take(pa.array(words.ravel()))), " ")
    schema = pa.schema({"text": pa.string(), "y": pa.int8()})
    with pq.ParquetWriter(
        folder / "x.parquet", schema, compression="none", use_dictionary=False, write_statistics=False
    ) as writer:
        while (folder / "x.parquet").stat().st_size < size:
            first, second = draws.permutation(BLOCK), draws.permutation(BLOCK)
            text = pc.binary_join_element_wise(halves.take(first), halves.take(second), " ")
            classes = (scores[first] + scores[second] > 0).astype(np.int8)
            writer.write_table(pa.table([text, classes], schema=schema))
    return str(folder / "x.parquet")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "memory", "times", "score", "more"),
    [
        (write_parquet, "1100MB", 20, "r2", []),
        (write_csv, "1100MB", 4, "r2", []),
        (write_text, "1700MB", 1.2, "auc", ["--kind", "text=words"]),
    ],
    ids=["Parquet", "CSV", "text"],
)
def test_a_fit_of_data_many_times_its_memory_keeps_to_it(
    group, tmp_path, monkeypatch, write, memory, times, score, more
):
    limit = bytes_of(memory)
    file = write(tmp_path, times * limit)
    assert Path(file).stat().st_size >= times * limit
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))
    fenced = group(limit)
    options = ["--target", "y", "--memory", memory, "--epochs", "2", "--batch-size", "256", "--json", *more]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "fit", file, *options, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: fenced.write("cgroup.procs", os.getpid()),
    )
    (tmp_path / "x").with_suffix(Path(file).suffix).unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    most = json.loads(done.stdout.splitlines()[-1])
    own = most["RssAnon"] + most["RssShmem"]
    print(f"{most['VmHWM'] / 2**20:.0f} MiB resident, at most {own / 2**20:.0f} MiB its own")
    assert own < limit
    assert fenced.peak <= limit
    # The libraries' own pages may be counted for another process that has them, too.
    assert most["VmHWM"] < limit + 2**28
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["figures"]["validation"]["scores"][score] > 0.9
    (kept,) = (tmp_path / "cache").glob("*/training.target.bin")
    assert sum(each.stat().st_size for each in kept.parent.iterdir()) > limit


@pytest.mark.slow
@pytest.mark.parametrize(("write", "out"), [(write_parquet, "p.parquet"), (write_csv, "p.csv")])
def test_predictions_stream_through_less_memory_than_the_rows_take(group, tmp_path, write, out):
    draws = np.random.default_rng(0).normal(size=(500, COLUMNS))
    rows = pd.DataFrame(draws, columns=[f"x{column}" for column in range(COLUMNS)])
    run = fitted(tmp_path, rows.assign(y=draws.sum(axis=1)), "y")
    limit = 600 * 2**20
    file = write(tmp_path, 2 * limit)
    fenced = group(limit)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "predict", str(run.path), file, "--out", str(tmp_path / out)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: fenced.write("cgroup.procs", os.getpid()),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    most = json.loads(done.stdout.splitlines()[-1])
    assert most["RssAnon"] + most["RssShmem"] < limit
    assert fenced.peak <= limit
    rows = int(done.stdout.split()[0].replace(",", ""))
    assert steepest.open_source([str(tmp_path / out)]).rows in (rows, None)
    assert rows > 10**6


def test_a_bound_that_cannot_be_kept_is_refused_with_the_least_that_can(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))
    write_parquet(tmp_path, 2**20)
    with pytest.raises(
        SteepestError, match=r"--memory 100MB is too little.*30 features.*--memory \d+MB"
    ) as raised:
        steepest.fit(str(tmp_path / "x.parquet"), "y", memory="100MB", out=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    least = str(raised.value).rsplit("--memory ", 1)[1].strip(".")
    monkeypatch.setattr("steepest.training._write_report", lambda *_: None)
    steepest.fit(str(tmp_path / "x.parquet"), "y", memory=least, epochs=1, out=str(tmp_path / "run"))


def test_the_least_memory_does_not_grow_with_the_rows_beyond_a_window():
    assert least_memory(10**7, 120, 124, 256) == least_memory(10**10, 120, 124, 256)
    assert least_memory(1, 4, 8, 32) < BASE + 2**10
    assert least_memory(10**7, 120, 124, 10**7) > 6 * 10**7 * 120, "a batch is in memory as a whole"

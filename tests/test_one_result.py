"""The same rows give the same bytes, wherever they come from and however they are read and kept."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import steepest
from steepest import preparation, training
from steepest.data import blocks, learning, order, pieces, rows, split, text
from steepest.data.blocks import Blocks
from steepest.data.cache import entries
from steepest.data.gather import Mapped
from steepest.run import Run
from steepest.settings import Settings

SAME = ("model.safetensors", "history.parquet", "columns.json", "model.json")
"""The files that two fits of the same rows write byte for byte alike."""

ROWS = 2_000


def table_of(count: int, seed: int = 0) -> pa.Table:
    """Return rows with numbers, gaps, whole numbers, categories and a target with gaps."""
    draws = np.random.default_rng(seed)
    # Quarters are the same in text, as float32 and as float64.
    size, weight = (np.round(draws.normal(size=count) * 40) / 4 for _ in range(2))
    kind = np.array(["red", "green", "blue"])[draws.integers(0, 3, count)]
    late = size + weight * (kind == "red") + draws.normal(size=count) > 0.5
    return pa.table(
        {
            "size": pa.array(size, mask=draws.random(count) < 0.1),
            "weight": weight,
            "number": draws.integers(0, 50, count),
            "kind": kind,
            "late": pa.array(np.where(late, "yes", "no"), mask=draws.random(count) < 0.02),
        }
    )


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    make_small(monkeypatch, tmp_path)


def make_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stretches, runs, blocks, windows of a few rows; a folder and a cache of one's own; no report."""
    monkeypatch.setattr(training, "_write_report", lambda *_: None)
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rows, "STRETCH_ROWS", 190)
    monkeypatch.setattr(text, "BLOCK_BYTES", 3_000)
    monkeypatch.setattr(text, "LOOK_BYTES", 500)
    monkeypatch.setattr(split, "RUN", 300)
    monkeypatch.setattr(learning, "BLOCK", 256)
    monkeypatch.setattr(order, "WINDOW", 512)
    for module in (order, pieces):
        monkeypatch.setattr(module, "BLOCK", 64)
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 256 * 4 * 8)


KEPT = ("memory", "cache", "fleeting")

SHAPES = [(1_000, 32), (700, 700), (1_001, 1_001)]


@pytest.fixture(params=KEPT)
def kept(request, monkeypatch):
    """Encoded rows in memory, in the mapped cache, or in a cache that is larger than the memory."""
    keep(request.param, monkeypatch)
    return request.param


def keep(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "CACHED_FROM", 2**26 if where == "memory" else 0)
    if where != "memory":
        monkeypatch.setattr(preparation, "memory_budget", lambda _: 2**40 if where == "cache" else 4)


def fit(data: Any, out: str, **more: Any) -> Run:
    return steepest.fit(
        data,
        "late",
        **{"epochs": 2, "batch_size": 32, "seed": 7, "learning_rate": 0.01} | more,
        out=out,
        overwrite=True,
    )


def result(run: Run) -> dict[str, Any]:
    """Return what must be the same: the bytes of files, and the figures."""
    files = {name: (run.path / name).read_bytes() for name in SAME}
    return files | {name: run.record[name] for name in ("figures", "split", "columns", "target")}


class Own(steepest.RowSource):
    """A user's own source, of uneven batches."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self.schema = table, table.schema

    def stretches(self, columns=None, first=0):
        while first < len(self.table):
            yield self.table.slice(first, 1 + first % 97).select(columns)
            first += 1 + first % 97


def parquet(table: pa.Table, path: str, group: int) -> str:
    pq.write_table(table, path, row_group_size=group)
    return path


def forty(table: pa.Table) -> str:
    """Write forty files with odd row groups."""
    Path("forty").mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(table)), 40)):
        parquet(table.take(part), f"forty/{number:02}.parquet", 1 + number % 7)
    return "forty/*.parquet"


def hive(table: pa.Table) -> str:
    """Write folders by a whole number; the order of the rows is theirs."""
    numbers = table["number"].to_numpy()
    for number in np.unique(numbers):
        Path(f"hive/number={number:02}").mkdir(parents=True)
        parquet(table.filter(numbers == number).drop("number"), f"hive/number={number:02}/x.parquet", 9)
    return "hive"


def csv(table: pa.Table, path: str) -> str:
    table.to_pandas().to_csv(path, index=False)
    return path


def zipped(table: pa.Table) -> str:
    Path("x.csv.gz").write_bytes(gzip.compress(Path(csv(table, "x.csv")).read_bytes()))
    return "x.csv.gz"


def arrow(table: pa.Table) -> str:
    with pa.ipc.new_file("x.arrow", table.schema) as sink:
        sink.write_table(table, max_chunksize=123)
    return "x.arrow"


def json_lines(table: pa.Table) -> str:
    Path("x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return "x.jsonl"


def in_memory_url(table: pa.Table) -> str:
    import fsspec

    file_system = fsspec.filesystem("memory")
    with file_system.open("/one_result/x.parquet", "wb") as file:
        pq.write_table(table, file, row_group_size=77)
    return "memory://one_result/x.parquet"


def arrays(table: pa.Table) -> dict[str, Any]:
    return {
        name: column.to_numpy() if pa.types.is_primitive(column.type) else column.to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def duckdb(table: pa.Table) -> Any:
    import duckdb as database

    return database.connect().from_arrow(table)


SOURCES = {
    "pandas": lambda table: table.to_pandas(),
    "reader": lambda table: pa.RecordBatchReader.from_batches(table.schema, table.to_batches(101)),
    "Polars": pl.DataFrame,
    "arrays": arrays,
    "own": Own,
    "CSV": lambda table: csv(table, "x.csv"),
    "CSV.gz": zipped,
    "forty": forty,
    "Arrow": arrow,
    "JSON": json_lines,
    "memory://": in_memory_url,
    "file://": lambda table: f"file://{Path(parquet(table, 'x.parquet', 1_000)).resolve()}",
    "DuckDB": duckdb,
}


def prepared(data: Any, **more: Any) -> dict[str, Any]:
    """Return all that a fit makes of its rows before it learns from them; with it, its result is settled."""
    names = tuple([data] if isinstance(data, str) else ("memory",))
    wanted = Settings(**{"data": names, "target": "late", "seed": 7, **more})
    made = preparation.prepare(wanted, None if isinstance(data, str) else data)
    arrays = [
        array.copy()
        for part in (made.training, made.validation)
        for source in (part.features, Mapped(part.target, part.features.fleeting))
        for window in Blocks((source,), len(source), 32, seed=7).epochs(0, 2)
        for array in (window.arrays[0], window.rows)
    ]
    facts = {name: made.facts[name] for name in ("split", "columns", "dropped")}
    counted = {name: made.facts["data"][name] for name in ("rows", "left_out")}
    return {
        "arrays": [(array.dtype.str, array.shape, array.tobytes()) for array in arrays],
        "learned": (made.task, made.plan.to_json(), facts, counted),
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, Any]:
    """What one Arrow table in memory gives, with everything small as in each test."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, tmp_path_factory.mktemp("expected"))
        keep("memory", patch)
        table = table_of(ROWS)
        return {"rows": prepared(table), "run": result(fit(table, "run"))}


@pytest.mark.parametrize("name", SOURCES)
def test_any_source_gives_the_same_rows(kept, expected, name):
    if name == "DuckDB":
        pytest.importorskip("duckdb")
    assert prepared(SOURCES[name](table_of(ROWS))) == expected["rows"]
    from_files = name in ("CSV", "CSV.gz", "forty", "Arrow", "JSON", "file://", "memory://")
    assert len(entries()) == (kept != "memory" and from_files), "rows of files are kept for the next run"


QUICK = [("CSV.gz", "fleeting"), ("forty", "cache"), ("pandas", "fleeting")]
OTHERS = [(name, where) for name in SOURCES for where in KEPT if (name, where) not in QUICK]


@pytest.mark.parametrize(
    ("name", "where"), [*QUICK, *(pytest.param(*each, marks=pytest.mark.slow) for each in OTHERS)]
)
def test_any_source_gives_the_same_bytes(expected, monkeypatch, name, where):
    keep(where, monkeypatch)
    run = fit(SOURCES[name](table_of(ROWS)), "run")
    assert result(run) == expected["run"]
    steps = -(-expected["run"]["split"]["training_rows"] // 32)
    assert len(pd.read_parquet("run/history.parquet")) == 2 * steps


def test_a_hive_gives_the_same_as_its_rows_in_order(kept):
    table = table_of(ROWS).sort_by("number")
    ordered = table.select([*(name for name in table.column_names if name != "number"), "number"])
    assert prepared(hive(table)) == prepared(ordered)


def test_windows_in_memory_and_on_disk_are_many(expected, monkeypatch):
    """Guard the other tests: what is small here is small enough to make several of everything."""
    keep("fleeting", monkeypatch)
    opened = steepest.open_source(csv(table_of(ROWS), "x.csv"))
    assert len(list(opened.stretches())) > 5
    prepared = preparation.prepare(Settings(data=("x.csv",), target="late", seed=7))
    assert prepared.training.features.fleeting
    assert len(prepared.training.features) > 3 * order.WINDOW > 3 * learning.BLOCK
    shapes = blocks.Blocks((prepared.training.features,), len(prepared.training.features), 32).shapes()
    assert len(shapes) > 3
    assert len(prepared.validation.features) > 256, "more than a window of validation rows"


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    count=st.integers(20, 900),
    group=st.integers(1, 400),
    stretch=st.integers(20, 500),
    block=st.integers(400, 9_000),
    seed=st.integers(0, 2**32 - 1),
)
def test_sizes_of_any_kind_change_no_row(monkeypatch, count, group, stretch, block, seed):
    table = table_of(count, seed % 5)
    keep("memory", monkeypatch)
    wanted = prepared(table, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "STRETCH_ROWS", stretch)
        patch.setattr(text, "BLOCK_BYTES", block)
        keep("fleeting", patch)
        assert prepared(parquet(table, "x.parquet", group), seed=seed) == wanted
        assert prepared(csv(table, "x.csv"), seed=seed) == wanted


@pytest.mark.parametrize(
    ("model", "count", "batch_size"),
    [("mlp", 1_001, 50), *(pytest.param("linear", *each, marks=pytest.mark.slow) for each in SHAPES)],
)
def test_models_and_sizes_give_the_same_bytes(monkeypatch, model, count, batch_size):
    options = {"model": model, "hidden": (8,), "batch_size": batch_size, "seed": count}
    table = table_of(count)
    keep("memory", monkeypatch)
    wanted = result(fit(table, "whole", **options))
    keep("fleeting", monkeypatch)
    assert result(fit(parquet(table, "x.parquet", 77), "parquet", **options)) == wanted


def test_other_rows_another_order_or_another_seed_are_told_apart(expected):
    table = table_of(ROWS)
    swapped = table.take([1, 0, *range(2, ROWS)])
    for data, options in ((swapped, {}), (table, {"seed": 8}), (table.slice(1), {})):
        assert prepared(data, **options)["arrays"] != expected["rows"]["arrays"]

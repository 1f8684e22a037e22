"""Files on a real HDFS: to the bit the weights of local ones, without a JVM in the process; clear errors."""

from __future__ import annotations

import gzip
import io
import socket
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from expecting import fails
from hadoop_cluster import hadoop
from steepest.data.source import open_source
from steepest.settings import Settings
from steepest.training import fit

pytestmark = pytest.mark.slow

ROWS = 60_000

ODD_NAMES = [
    "part 1.csv",
    "part#2.csv",
    "part;3.csv",
    "part%204.csv",
    "part?5.csv",
    "pärt6.csv",
    "part[7].csv",
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with hadoop(tmp_path_factory.mktemp("hadoop")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def url(cluster) -> str:
    return cluster.url


@pytest.fixture(scope="module")
def client(url):
    return pytest.importorskip("hdfs_native").Client(url)


@pytest.fixture(scope="module")
def put(client):
    """Write a file, in place of one that may be there."""
    from hdfs_native import WriteOptions

    def write(path: str, content: bytes) -> None:
        with client.create(path, WriteOptions(overwrite=True, create_parent=True)) as file:
            file.write(content)

    return write


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """A table as one CSV, as several, as Parquet files and as a folder of these; each larger than a block."""
    draws, folder = np.random.default_rng(0), tmp_path_factory.mktemp("local")
    table = pd.DataFrame(draws.normal(size=(ROWS, 3)).round(6), columns=["age", "price", "visits"])
    table["colour"] = draws.choice(["red", "green", "blue"], ROWS)
    table["year"] = np.arange(ROWS) // (ROWS // 2) + 2013
    table["bought"] = (table["age"] - table["price"] + draws.normal(size=ROWS) > 0).astype(int)
    table.to_csv(folder / "all.csv", index=False)
    (folder / "all.csv.gz").write_bytes(gzip.compress((folder / "all.csv").read_bytes(), 1))
    for number, first in enumerate(range(0, ROWS, ROWS // 3)):
        piece = table[first : first + ROWS // 3]
        piece.to_csv(folder / f"part-{number}.csv", index=False)
        piece.to_parquet(folder / f"part-{number}.parquet", row_group_size=7_777)
    years = pa.dataset.partitioning(pa.schema([("year", pa.int64())]), flavor="hive")
    pa.dataset.write_dataset(
        pa.Table.from_pandas(table), folder / "set", format="parquet", partitioning=years
    )
    return folder


def weights(data: str, out: Path) -> bytes:
    settings = Settings(
        data=(data,), target="bought", model="mlp", hidden=(8,), batch_size=512, epochs=2, out=str(out)
    )
    return (fit(settings).path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("data", ["all.csv", "all.csv.gz", "part-*.csv", "part-?.parquet", "set", "set/*/*"])
def test_the_weights_are_those_of_local_files(url, put, local, tmp_path, data):
    for path in (each for each in local.rglob("*") if each.is_file()):
        put(f"/same/{path.relative_to(local)}", path.read_bytes())
    assert weights(f"{url}/same/{data}", tmp_path / "far") == weights(f"{local}/{data}", tmp_path / "near")
    assert "libjvm" not in Path("/proc/self/maps").read_text()


def test_names_hold_any_characters(url, put):
    for number, name in enumerate(ODD_NAMES):
        put(f"/odd/{name}", b"x\n%d\n" % number)
        if not set("?[") & set(name):
            assert values(f"{url}/odd/{name}") == [number]
    assert sorted(values(f"{url}/odd/*.csv")) == list(range(len(ODD_NAMES)))
    assert sorted(values(f"{url}/odd/part?[0-9].csv")) == [0, 1, 2, 4]
    assert values(f"{url}/odd/part[[]7].csv") == [6]


def values(url: str) -> list[int]:
    return [row["x"] for stretch in open_source(url).stretches() for row in stretch.rows.to_pylist()]


def test_what_is_not_there_is_told(url, put):
    put("/few/x.csv", b"x\n1\n")
    put("/few/empty.csv", b"")
    with fails(f"there is no file {url}/few/none.csv."):
        open_source(f"{url}/few/none.csv")
    with fails(f"no file matches '{url}/few/*.json'"):
        open_source(f"{url}/few/*.json")
    with fails(f"{url}/few is a folder", f"{url}/few/*.csv"):
        open_source(f"{url}/few")
    with fails("empty.csv is empty"):
        open_source(f"{url}/few/*.csv")


def test_a_wrong_name_node_is_told_at_once():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        began = time.perf_counter()
        for node, why in ((f"127.0.0.1:{port}", "refused"), ("nowhere.invalid:8020", "not known")):
            with fails(f"hdfs://{node}/x.csv cannot be reached", why):
                open_source(f"hdfs://{node}/x.csv")
        with fails("hdfs://127.0.0.1/x.csv cannot be reached"):
            open_source("hdfs://127.0.0.1/x.csv")
    assert time.perf_counter() - began < 10


def in_format(rows: int, ending: str) -> bytes:
    table = pd.DataFrame({"a": np.arange(rows), "b": [f"text {number}" for number in range(rows)]})
    if ending == "csv":
        return table.to_csv(index=False).encode()
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(table), written, row_group_size=1_000)
    return written.getvalue()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("what", ["grows", "goes"])
def test_a_file_that_changes_while_it_is_read(url, put, client, ending, what):
    path = f"/changes/{what}.{ending}"
    put(path, in_format(200_000, ending))
    source = open_source(url + path)
    before = source.fingerprint()
    assert open_source(url + path).fingerprint() == before
    stretches = source.stretches()
    next(stretches)
    if what == "goes":
        client.delete(path)
    else:
        put(path, in_format(300_000, ending))
        assert open_source(url + path).fingerprint() != before
    said = "any more" if what == "goes" else "changed since it was opened"
    for rows in (stretches, source.stretches()):
        with fails(path, said):
            list(rows)

"""Rows as a stream: those that PyArrow, pandas and Python's csv read, from anywhere, a few at a time."""

from __future__ import annotations

import bz2
import contextlib
import csv
import functools
import gzip
import http.server
import io
import json
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import real_data
from expecting import fails
from steepest.data import rows, text
from steepest.data.kinds import converted, in_type
from steepest.data.rows import Reconsidered, RowSource
from steepest.data.source import open_source

many = functools.partial(
    settings, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder, so that messages name files as a person would."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(monkeypatch):
    """Blocks of a few rows."""
    monkeypatch.setattr(text, "BLOCK_BYTES", 40)
    monkeypatch.setattr(text, "LOOK_BYTES", 25)
    monkeypatch.setattr(rows, "STRETCH_ROWS", 3)


def passed(source: RowSource, columns=None, first=0):
    """Return the rows, places and rejected rows of a pass, as often begun anew as the source says."""
    try:
        stretches = list(source.stretches(columns, first))
    except Reconsidered as reconsidered:
        return passed(reconsidered.source, columns, first)
    found = [row for stretch in stretches for row in stretch.rows.to_pylist()]
    places = [stretch.locate(row) for stretch in stretches for row in range(len(stretch.rows))]
    return found, places, [each for stretch in stretches for each in stretch.rejected]


def write(table: pa.Table, name: str, chunk: int = 4) -> None:
    if name.endswith("parquet"):
        pq.write_table(table, name, row_group_size=chunk)
    elif name.endswith("arrow"):
        with pa.ipc.new_file(name, table.schema) as sink:
            sink.write_table(table, max_chunksize=chunk)
    elif name.endswith("arrows.ipc"):
        with pa.ipc.new_stream(name, table.schema) as sink:
            sink.write_table(table, max_chunksize=chunk)
    else:
        written = io.StringIO()
        if "json" in name:
            written.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
        else:
            writer = csv.writer(written)
            writer.writerow(table.column_names)
            writer.writerows(row.values() for row in table.to_pylist())
        data = written.getvalue().encode()
        packed = {
            "gz": gzip.compress,
            "bz2": bz2.compress,
            "zst": functools.partial(pa.compress, codec="zstd"),
        }
        Path(name).write_bytes(packed.get(name.rsplit(".", 1)[1], bytes)(data))


# The same rows, wherever they are -----------------------------------------------------------------------

LETTERS = st.text(st.sampled_from('ab",\n\r é;'), max_size=6).map(lambda text: f"v{text}")
TABLES = st.lists(
    st.tuples(
        LETTERS,
        st.one_of(st.none(), st.integers(-99, 99)),
        st.floats(-1e6, 1e6).map(lambda number: round(number, 3) + 0.0005),
        st.booleans(),
    ),
    min_size=1,
    max_size=30,
).map(
    lambda found: pa.table(
        {name: list(column) for name, column in zip("tixb", zip(*found, strict=True), strict=True)}
    )
)
ENDINGS = ["csv", "csv.gz", "csv.zst", "parquet", "arrow", "arrows.ipc", "jsonl", "ndjson.bz2"]


@pytest.mark.parametrize("ending", ENDINGS)
@many(max_examples=25)
@given(table=TABLES, first=st.integers(0, 32), parts=st.integers(1, 3))
def test_the_same_rows_from_any_files_and_from_any_row_on(folder, small, ending, table, first, parts):
    size = -(-len(table) // parts)
    names = []
    for begin in range(0, len(table), size):
        names.append(f"part-{begin:03}.{ending}")
        write(table.slice(begin, size), names[-1], chunk=2)
    source = open_source(names, max_rejected=0)
    found, places, rejected = passed(source)
    assert found == table.to_pylist()
    assert not rejected
    assert source.names == tuple(names)
    assert source.rows in (None, len(table))
    later, later_places, _ = passed(source, ["x", "t"], first)
    assert later == table.select(["x", "t"]).to_pylist()[first:]
    assert later_places == places[first:]


@many(max_examples=60)
@given(table=TABLES, crlf=st.booleans())
def test_places_are_those_of_pythons_csv_module(folder, small, table, crlf):
    write(table, "x.csv")
    content = Path("x.csv").read_bytes()
    if not crlf:
        content = content.replace(b"\r\n", b"\n")[:-1]
    (folder / "x.csv").write_bytes(content)
    reader = csv.reader(io.StringIO(content.decode(), newline=""))
    lines, begins = [], 1
    for record in reader:
        lines += [begins] if record else []
        begins = reader.line_num + 1
    assert passed(open_source("x.csv"))[1] == [f"x.csv, line {line}" for line in lines[1:]]


def test_flights_as_pyarrow_reads_them(folder, monkeypatch):
    part = real_data.flights().iloc[::8]
    part.to_csv("flights.csv", index=False)
    monkeypatch.setattr(text, "BLOCK_BYTES", 300_000)
    monkeypatch.setattr(text, "LOOK_BYTES", 3_000)
    expected = pyarrow.csv.read_csv(
        "flights.csv", convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True)
    )
    stretches = list(open_source("flights.csv").stretches())
    assert len(stretches) > 10
    for name, column in zip(expected.column_names, expected.columns, strict=True):
        parts = [in_type(stretch.rows[name], column.type) for stretch in stretches]
        assert pa.chunked_array([chunk for part in parts for chunk in part.chunks]).equals(column), name


@pytest.mark.parametrize("text_", ['5" pipe,1', '"a""b",2', '"a\nb",3', 'x" ,"\n4"', '"",5', '" ""\n"" ",6'])
@pytest.mark.parametrize("size", [1, 7, 16, 33])
def test_quotes_of_all_kinds_across_blocks(folder, monkeypatch, text_, size):
    monkeypatch.setattr(text, "BLOCK_BYTES", size)
    (folder / "x.csv").write_text("t,n\n" + f"{text_}\nplain,7\n" * 5)
    expected = list(csv.reader(io.StringIO((folder / "x.csv").read_text(), newline="")))[1:]
    found, _, rejected = passed(open_source("x.csv", max_rejected=0))
    assert [[row["t"] or "", str(row["n"])] for row in found] == [[t, n] for t, n in expected]
    assert not rejected


@pytest.mark.parametrize("cell", ["x" * 3_000_000, '"' + "x\n" * 1_000_000 + '"', '5" x' + "y" * 2_000_000])
def test_cells_larger_than_the_readers_blocks(folder, cell):
    (folder / "x.csv").write_text(f"t,n\n{cell},1\nplain,2\n")
    found, places, _ = passed(open_source("x.csv", max_rejected=0))
    assert [(row["t"] == cell.strip('"'), row["n"]) for row in found] == [(True, 1), (False, 2)]
    assert places == ["x.csv, line 2", f"x.csv, line {3 + cell.count(chr(10))}"]


# Types that a first look does not settle ----------------------------------------------------------------


def late(folder, beginning: list[str], rest: list[str], **options):
    lines = [f"{cell},{number}" for number, cell in enumerate(beginning + rest)]
    (folder / "x.csv").write_text("\n".join(["a,n", *lines]) + "\n")
    return open_source("x.csv", **options)


def test_text_after_numbers_makes_the_column_text(folder, small):
    source = late(folder, ["1"] * 30, ["word"] * 40)
    with pytest.raises(
        Reconsidered, match=r"'a' was taken for numbers .* text, .* x.csv, line 32: 'word'"
    ) as raised:
        list(source.stretches())
    assert raised.value.source.schema.field("a").type == pa.string()
    found, _, rejected = passed(raised.value.source)
    assert [row["a"] for row in found] == ["1"] * 30 + ["word"] * 40
    assert not rejected


def test_numbers_after_text_make_the_column_numbers(folder, small):
    source = late(folder, ["unknown"] * 4, ["7"] * 1000)
    with pytest.raises(Reconsidered, match=r"taken for text .* numbers, .* x.csv, line (7|6): '7'") as raised:
        list(source.stretches())
    found, _, rejected = passed(raised.value.source)
    assert [row["a"] for row in found] == [7.0] * 1000
    assert [(each.line, each.reason) for each in rejected] == [
        (line, "column 'a': 'unknown' is not a number") for line in range(2, 6)
    ]


def test_text_that_is_often_a_number_stays_text(folder, small):
    found, _, rejected = passed(late(folder, ["u"] * 6, ["7"] * 100 + ["u"] * 50))
    assert {row["a"] for row in found} == {"u", "7"}
    assert not rejected


def test_a_column_without_values_is_settled_by_the_first(folder, small):
    source = late(folder, [""] * 20, ["", "2013-01-01", "2013-01-02T10:00:00", "2013-01-03 10:00:00.5"])
    assert source.schema.field("a").type == pa.null()
    found, _, _ = passed(source)
    assert [pd.Timestamp(row["a"]) for row in found[-3:]] == [
        pd.Timestamp("2013-01-01"),
        pd.Timestamp("2013-01-02 10:00"),
        pd.Timestamp("2013-01-03 10:00:00.5"),
    ]


@pytest.mark.parametrize(
    ("usual", "odd", "reason"),
    [
        ("1.5", "1,5x", "'1,5x' is not a number"),
        ("1", "true", "'true' is not a number"),
        ("2013-02-28", "2013-02-29", "'2013-02-29' is not a date"),
        ("2013-02-28T10:00Z", "2013-02-28T10:00", "is not a date with a time zone"),
        ("10:30", "25:30", "'25:30' is not a time of day"),
        ("true", "maybe", "'maybe' is not true or false"),
    ],
)
def test_values_of_another_kind_are_rejected_with_their_line(folder, small, usual, odd, reason):
    source = late(folder, [usual] * 150, [f'"{odd}"'] + [usual] * 50)
    found, places, rejected = passed(source)
    assert len(found) == 200
    assert len({row["a"] for row in found}) == 1
    assert places[149:151] == ["x.csv, line 151", "x.csv, line 153"]
    assert [each[:2] for each in rejected] == [("x.csv", 152)]
    assert reason in rejected[0].reason
    assert passed(source, ["n"])[0] == [{"n": row["n"]} for row in found]  # whatever columns are asked for
    assert passed(source, ["n"], 151)[2] == []
    assert passed(source, ["n"], 149)[2] == rejected
    assert len(passed(late(folder, [usual] * 150, [f'"{odd}"'], drop=["a"]))[0]) == 151


def test_whole_numbers_decimals_and_signs_go_together(folder, small):
    found, _, _ = passed(late(folder, ["1"] * 9, ["+2.5", ".5", "1e3", "-inf", "NA", "0"]))
    assert [row["a"] for row in found[9:]] == [2.5, 0.5, 1000, -np.inf, None, 0]


@pytest.mark.parametrize("blank", range(20, 30))  # so that a block begins here or there
def test_a_column_that_is_settled_by_mixed_values(folder, small, blank):
    source = late(folder, [""] * blank, ["5", "bad", "6"] * 2 + ["7"] * 20, max_rejected=0.2)
    found, _, rejected = passed(source)
    assert [row["a"] for row in found[blank:]] == [5, 6, 5, 6] + [7] * 20
    assert [each.line for each in rejected] == [blank + 3, blank + 6]


def test_what_looks_like_a_date_but_is_none_that_can_be_kept():
    texts = pa.chunked_array([["2013-01-01T00:00:00.5", "0001-01-01T00:00:00.5", None, "u"]])
    values, fits = converted("dates", texts)
    assert values.to_pylist() == [pd.Timestamp("2013-01-01T00:00:00.5"), None]
    assert fits.tolist() == [True, False, True, False]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2])
def test_how_many_rows_may_be_rejected(folder, small, share):
    source = late(folder, ["1"] * 95, ["bad"] * 5, max_rejected=share)
    if share < 0.05:
        with fails("'a' mixes types", "numbers", "5 values", "'bad'", "x.csv, line 97", "--max-rejected"):
            list(source.stretches())
    else:
        assert len(passed(source)[2]) == 5
    list(source.stretches(first=1))  # only a pass over all rows judges


def test_rejected_rows_of_all_reasons_add_up(folder, small):
    lines = ["1,2"] * 150 + ["1", "1,2,3"]
    (folder / "x.csv").write_text("\n".join(["a,b", *lines]) + "\n")
    with fails("2 of 152 rows", "x.csv, line 152", "1 cells for the 2 columns of line 1", "--max-rejected"):
        list(open_source("x.csv").stretches())
    rejected = passed(open_source("x.csv", max_rejected=0.02))[2]
    assert [(each.line, each.reason[:7]) for each in rejected] == [(152, "1 cells"), (153, "3 cells")]
    with fails("x.csv, line 152", "1 cells"):
        list(open_source("x.csv", max_rejected=0).stretches())


@pytest.mark.parametrize("position", [0, 7, 59])
def test_bytes_that_are_not_utf8_are_rejected_where_they_matter(folder, small, position):
    lines = [b'"two\nlines",%d,x' % number for number in range(60)]
    lines[position] = b"caf\xe9,0,x"
    (folder / "x.csv").write_bytes(b"\n".join([b"t,n,k", *lines]) + b"\n")
    found, _, rejected = passed(open_source("x.csv", max_rejected=0.1))
    assert len(found) == 59
    assert rejected == [("x.csv", 2 + 2 * position, "bytes that are not UTF-8 text (e9)")]
    assert len(passed(open_source("x.csv", drop=["t"], max_rejected=0))[0]) == 60


def test_a_quote_that_is_never_closed_ends_the_pass(folder, small, monkeypatch):
    (folder / "x.csv").write_text("a,b\n" + "1,2\n" * 30 + '3,"4\n' + "5,6\n" * 300)
    with fails("x.csv, after line 31", "never closed"):
        list(open_source("x.csv").stretches())
    monkeypatch.setattr(text, "RECORD_BYTES", 100)
    with fails("x.csv", "x.csv, line 32: a row of more than", "never closed"):
        list(open_source("x.csv").stretches())


def test_a_pass_that_is_left_early_lets_go_of_its_file(folder, small):
    (folder / "x.csv.gz").write_bytes(gzip.compress(b"a\n") + gzip.compress(b"1\n" * 500))  # two members
    stretches = open_source("x.csv.gz").stretches()
    assert next(stretches).rows.num_rows > 0
    stretches.close()
    assert len(passed(open_source("x.csv.gz"))[0]) == 500


# JSON lines ---------------------------------------------------------------------------------------------


def test_lines_of_json_that_cannot_be_used(folder, small):
    lines = [json.dumps({"a": number, "t": "u", "d": "2013-01-01"}) for number in range(100)]
    lines[20:20] = [
        '{"a": ',
        "[1]",
        '{"a": "late", "t": "u"}',
        '{"a": 1, "a": 2}',
        '{"d": "someday"}',
        "",
        '{"t": 5}',
    ]
    (folder / "x.jsonl").write_bytes("\n".join(lines).encode() + b'\n{"t": "\xe9"}\n')
    found, places, rejected = passed(open_source("x.jsonl", max_rejected=0.1))
    assert [row["a"] for row in found] == list(range(100))
    assert places[19:21] == ["x.jsonl, line 20", "x.jsonl, line 28"]
    assert [(each.line, each.reason.split(" (")[0]) for each in rejected] == [
        (21, "broken JSON"),
        (22, "a JSON list instead of an object"),
        (23, "column 'a': 'late' is not a number"),
        (24, "broken JSON"),
        (25, "column 'd': 'someday' is not a date"),
        (27, "column 't': 5 is not text"),
        (108, "bytes that are not UTF-8 text"),
    ]


def test_a_column_that_comes_late_in_json(folder, small):
    (folder / "x.jsonl").write_text('{"a": 1}\n' * 20 + '{"a": 2, "b": true}\n')
    with pytest.raises(Reconsidered, match=r"x.jsonl, line 21: a column 'b'") as raised:
        list(open_source("x.jsonl").stretches())
    found, _, _ = passed(raised.value.source)
    assert found == [{"a": 1, "b": None}] * 20 + [{"a": 2, "b": True}]
    assert len(passed(open_source("x.jsonl", columns=["a"]))[0]) == 21
    pq.write_table(pa.table({"a": [3]}), "y.parquet")
    with fails("x.jsonl, line 21", "'b'", "other files lack"):
        list(open_source(["x.jsonl", "y.parquet"]).stretches())


def test_json_that_turns_out_otherwise(folder, small):
    (folder / "x.jsonl").write_text('{"a": 1}\n' * 20 + '{"a": "u"}\n' * 30)
    with pytest.raises(Reconsidered, match=r"numbers .* text, the first at x.jsonl, line 21: 'u'"):
        list(open_source("x.jsonl").stretches())


# Files that change --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow", "jsonl"])
@pytest.mark.parametrize("what", ["grows", "shrinks", "goes", "loses a column"])
def test_a_file_that_changes_while_it_is_read(folder, small, monkeypatch, ending, what):
    name = f"x.{ending}"
    table = pa.table({"a": range(500), "b": [f"text {number}" for number in range(500)]})
    write(table, name)
    before = open_source(name)
    stretches = before.stretches()
    next(stretches)
    content = (folder / name).read_bytes()
    if what == "goes":
        (folder / name).unlink()
    elif what == "loses a column":
        write(table.drop_columns("b"), name)
    else:
        (folder / name).write_bytes(content[:50] if what == "shrinks" else content + content)
    with fails(name, "any more" if what == "goes" else "changed since it was opened"):
        list(stretches)
    with fails(name, "any more" if what == "goes" else "changed"):
        list(before.stretches())
    with fails(name):
        before.fingerprint()


def test_fingerprints(folder):
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text("x,y\n1,2\n")
    first = open_source("a.csv").fingerprint()
    assert len(first) == 64
    assert open_source("a.csv").fingerprint() == first
    others = [open_source("b.csv"), open_source(["a.csv", "b.csv"]), open_source("a.csv", drop=["y"])]
    assert len({first, *(each.fingerprint() for each in others)}) == 4
    (folder / "a.csv").write_text("x,y\n1,3\n")
    assert open_source("a.csv").fingerprint() != first
    assert open_source({"x": [1]}).fingerprint() is None


# Folders and file systems -------------------------------------------------------------------------------


def test_folders_whose_names_hold_columns(folder):
    for year, kind in ((2013, "a%20b"), (2014, "__HIVE_DEFAULT_PARTITION__")):
        path = folder / "sales" / f"year={year}" / f"kind={kind}"
        path.mkdir(parents=True)
        pq.write_table(pa.table({"x": [year, year + 1]}), path / "part-0.parquet")
    (folder / "sales" / "_SUCCESS.parquet").write_bytes(b"")
    source = open_source("sales")
    assert source.rows == 4
    assert source.schema.names == ["x", "year", "kind"]
    assert passed(source)[0] == [
        {"x": 2013, "year": 2013, "kind": "a b"},
        {"x": 2014, "year": 2013, "kind": "a b"},
        {"x": 2014, "year": 2014, "kind": None},
        {"x": 2015, "year": 2014, "kind": None},
    ]
    assert passed(source, ["year"], 1)[0] == [{"year": 2013}, {"year": 2014}, {"year": 2014}]
    assert passed(open_source("sales", columns=["kind"]))[0][0] == {"kind": "a b"}
    assert open_source("sales", drop=["kind"]).schema.names == ["x", "year"]
    with fails("sales/year=2013", "'z'"):
        open_source("sales", columns=["z"])


def test_files_by_their_address(folder):
    (folder / "a b.csv").write_text("x\n1\n")
    assert passed(open_source((folder / "a b.csv").as_uri()))[0] == [{"x": 1}]


@pytest.fixture
def fsspec():
    return pytest.importorskip("fsspec")


def test_a_file_system_of_fsspec(fsspec):
    remote = fsspec.filesystem("memory")
    for year in (2013, 2014):
        with remote.open(f"/data/year={year}/x.parquet", "wb") as file:
            pq.write_table(pa.table({"x": [year]}), file)
        with remote.open(f"/text/{year}.csv.gz", "wb") as file:
            file.write(gzip.compress(b"x\n%d\n" % year))
    with (
        remote.open("/text/x.arrow", "wb") as file,
        pa.ipc.new_file(file, pa.schema([("x", pa.int64())])) as sink,
    ):
        sink.write_table(pa.table({"x": [1]}))
    assert passed(open_source("memory://data"))[0] == [{"x": 2013, "year": 2013}, {"x": 2014, "year": 2014}]
    source = open_source("memory://text/*.csv.gz")
    assert source.names == ("memory:///text/2013.csv.gz", "memory:///text/2014.csv.gz")
    assert passed(source)[0] == [{"x": 2013}, {"x": 2014}]
    assert passed(open_source("memory://text/x.arrow"))[0] == [{"x": 1}]
    assert source.fingerprint() == open_source("memory://text/*.csv.gz").fingerprint()
    remote.pipe("/text/2014.csv.gz", gzip.compress(b"x\n2015\n"))
    with fails("2014.csv.gz", "changed"):
        list(source.stretches())
    with fails("no file matches"):
        open_source("memory://text/*.parquet")
    with fails("there is no file memory://text/none.csv"):
        open_source("memory://text/none.csv")
    remote.rm("/text", recursive=True)
    remote.rm("/data", recursive=True)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving(folder):
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_web_server(fsspec, folder):
    pytest.importorskip("aiohttp")
    frame = pd.DataFrame({"x": range(3000), "t": "text"})
    frame.to_csv("x.csv.gz", index=False)
    frame.to_csv("y.csv", index=False)
    with serving(folder) as address:
        for name in ("x.csv.gz", "y.csv"):
            source = open_source(f"{address}/{name}?token=1")
            assert len(source.fingerprint()) == 64
            assert [row["x"] for row in passed(source)[0]] == list(range(3000))
        with fails("there is no file", "z.csv"):
            open_source(f"{address}/z.csv")


def test_packages_that_are_not_installed_are_named(folder, monkeypatch):
    import importlib.util

    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("fsspec", "hdfs_native") else known(name)
    )
    for address in ("s3://bucket/x.csv", "hdfs://host/x.csv"):
        with fails(address, "not installed", "pip install 'steepest[remote]'"):
            open_source(address)


# Memory -------------------------------------------------------------------------------------------------

FRAME = pd.DataFrame(
    {"x": [1.5, np.nan, 2.5, 4.0], "t": ["u", "v", None, "u"], "b": [True, False, True, True]}
)
ROWS = [{"x": None if np.isnan(x) else x, "t": t, "b": b} for x, t, b in FRAME.itertuples(index=False)]


@pytest.mark.parametrize(
    "data",
    [
        FRAME,
        FRAME.convert_dtypes(),
        pl.from_pandas(FRAME),
        pa.Table.from_pandas(FRAME, preserve_index=False),
        pa.RecordBatch.from_pandas(FRAME, preserve_index=False),
        {"x": FRAME["x"].to_numpy(), "t": FRAME["t"].tolist(), "b": FRAME["b"].to_numpy()},
        {"x": FRAME["x"].to_numpy().astype(">f8"), "t": FRAME["t"], "b": pa.array(FRAME["b"])},
    ],
    ids=["pandas", "nullable", "polars", "table", "batch", "arrays", "mixed"],
)
def test_rows_in_memory(small, data):
    source = open_source(data)
    assert source.names == ("memory",)
    assert source.rows == 4
    found, places, _ = passed(source)
    assert found == ROWS
    assert places == [f"memory, row {row}" for row in range(1, 5)]
    assert len(list(source.stretches())) == 2
    assert passed(source, ["b", "x"], 2)[0] == [{"b": row["b"], "x": row["x"]} for row in ROWS[2:]]
    assert open_source(data, drop=["t"]).schema.names == ["x", "b"]
    with fails("no column 'xx'", "'x'"):
        open_source(data, columns=["xx"])


@pytest.mark.parametrize("kind", ["dense", "mapped", "csr", "coo"])
def test_matrices(small, folder, kind):
    values = np.arange(20.0, dtype=np.float32).reshape(5, 4)
    np.save("x.npy", values)
    made = {
        "dense": values,
        "mapped": np.load("x.npy", mmap_mode="r"),
        "csr": scipy.sparse.csr_matrix(values),
        "coo": scipy.sparse.coo_array(values),
    }[kind]
    source = open_source(made)
    assert source.schema == pa.schema([(str(place), pa.float32()) for place in range(4)])
    assert [list(row.values()) for row in passed(source)[0]] == values.tolist()
    assert passed(source, ["3", "1"], 4)[0] == [{"3": 19.0, "1": 17.0}]
    source = open_source({"f": made, "y": np.arange(5)})
    assert source.schema.names == ["f 0", "f 1", "f 2", "f 3", "y"]
    assert passed(source, ["y", "f 2"], 3)[0] == [{"y": 3, "f 2": 14.0}, {"y": 4, "f 2": 18.0}]


def test_a_stream_that_can_be_read_once_is_kept_until_its_source_goes(small):
    table = pa.table({"x": range(10), "t": pa.array([str(i) for i in range(10)], pa.string_view())})
    source = open_source(table.to_reader(max_chunksize=4), drop=[])
    kept = source.path
    assert source.rows == 10
    assert source.names == ("memory",)
    assert source.schema.field("t").type == pa.string()
    for _ in range(2):
        found, places, _ = passed(source)
        assert found == table.to_pylist()
        assert places[9] == "memory, row 10"
    assert passed(source, ["t"], 7)[0] == [{"t": "7"}, {"t": "8"}, {"t": "9"}]
    assert passed(source, ["t"], 7)[1][0] == "memory, row 8"
    del source
    assert not kept.exists()
    with fails("no rows"):
        open_source(table.schema.empty_table().to_reader())

    def breaking():
        yield table.to_batches()[0]
        raise OSError("the line is dead")

    with fails("the line is dead"):
        open_source(pa.RecordBatchReader.from_batches(table.schema, breaking()))


def test_a_relation_of_duckdb():
    duckdb = pytest.importorskip("duckdb")
    relation = duckdb.sql("select range as x, range::varchar as t from range(200000)")
    source = open_source(relation, columns=["x"])
    assert source.rows == 200_000
    assert sum(pa.compute.sum(stretch.rows["x"]).as_py() for stretch in source.stretches()) == sum(
        range(200_000)
    )


class Own(RowSource):
    schema = pa.schema([("a", pa.int64()), ("b", pa.int64())])

    def stretches(self, columns=None, first=0):
        for start in range(first, 6, 2):
            batch = pa.record_batch({"a": [start, start + 1][: 6 - start], "b": [0, 0][: 6 - start]})
            yield batch if start % 4 else pa.Table.from_batches([batch])


def test_a_source_of_ones_own():
    source = open_source(Own(), drop=["b"])
    assert (source.rows, source.names, source.fingerprint()) == (None, ("memory",), None)
    found, places, _ = passed(source, first=1)
    assert found == [{"a": number} for number in range(1, 6)]
    assert places[0] == "memory, row 2"
    with fails("no column 'b'"):
        list(source.stretches(["b"]))
    assert open_source(source).schema.names == ["a"]


@pytest.mark.parametrize("data", [5, None, [1, 2], iter([1])])
def test_what_holds_no_rows(data):
    with fails("rows cannot be taken from", type(data).__name__, "DataFrame"):
        open_source(data)


# Bounded memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "arrow"])
def test_a_pass_holds_a_few_stretches_only(folder, monkeypatch, ending):
    size = 200_000
    monkeypatch.setattr(text, "BLOCK_BYTES", size)
    monkeypatch.setattr(text, "LOOK_BYTES", size)
    monkeypatch.setattr(rows, "STRETCH_BYTES", size)
    count = {"csv": 300_000, "jsonl": 120_000, "parquet": 1_500_000, "arrow": 1_500_000}[ending]
    table = pa.table(
        {"x": np.arange(count) + 0.25, "t": [f"text {number % 1000}" for number in range(count)]}
    )
    write(table, f"x.{ending}", chunk=count)  # one huge row group, one huge batch
    whole = table.nbytes
    del table
    source = open_source(f"x.{ending}")
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    most = found = 0
    for stretch in source.stretches():
        found += len(stretch.rows)
        most = max(most, pa.total_allocated_bytes() - before + tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert found == count
    assert most < whole / 2
    assert most < 12 * size + 5 * 2**20

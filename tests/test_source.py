"""Rows from files: what comes back, and what is said when nothing can."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import real_data
from expecting import fails
from steepest.errors import SteepestError
from whole_tables import Table, read_table, table_of

FORMATS = ["csv", "csv.gz", "tsv", "parquet", "feather", "arrow", "jsonl", "ndjson.gz"]


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    frame = real_data.flights().copy()
    frame["time_hour"] = pd.to_datetime(frame["time_hour"]).dt.tz_localize(None).astype("datetime64[s]")
    return frame


def write(rows: pa.Table, path, ending: str) -> None:
    if ending == "parquet":
        pq.write_table(rows.replace_schema_metadata({"written by": "a test"}), path)
    elif ending == "feather":
        pyarrow.feather.write_feather(rows, path)
    elif ending == "arrow":
        with pa.ipc.new_stream(path, rows.schema) as sink:
            sink.write_table(rows)
    elif ending.startswith(("json", "ndjson")):
        rows.to_pandas().to_json(path, orient="records", lines=True, date_format="iso")
    else:
        rows.to_pandas().to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder, so that messages name files as a person would."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("ending", FORMATS)
def test_flights_come_back_from_every_format(flights, folder, ending):
    part = flights if ending == "parquet" else flights.iloc[:: 4 if ending == "csv" else 20]
    rows = pa.Table.from_pandas(part, preserve_index=False).replace_schema_metadata(None)
    write(rows, f"flights.{ending}", ending)
    table = read_table([f"flights.{ending}"])
    assert table.files == (f"flights.{ending}",)
    assert table.rows.column_names == rows.column_names
    assert table.rows.schema.metadata is None  # what pandas notes down is not part of the rows
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        if name == "time_hour":
            assert pa.types.is_timestamp(table.rows[name].type)  # in seconds or finer
        else:
            assert table.rows[name].type == column.type
        assert table.rows[name].cast(column.type).equals(column), name


def test_csv_agrees_with_pandas(flights, folder):
    flights.iloc[:5000].to_csv("flights.csv", index=False)
    expected = pd.read_csv("flights.csv", parse_dates=["time_hour"])
    ours = read_table(["flights.csv"]).rows.to_pandas()
    expected["time_hour"] = expected["time_hour"].astype(ours["time_hour"].dtype)
    pd.testing.assert_frame_equal(ours.fillna(np.nan), expected.fillna(np.nan), check_dtype=False)


# Types ---------------------------------------------------------------------------------------------


def read(folder, text: str | bytes, name: str = "x.csv", **arguments) -> Table:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return read_table([name], **arguments)


def test_types_are_those_of_the_whole_file_not_of_its_beginning(folder):
    many = 150_000  # several of the reader's blocks
    rows = read(folder, "a,b,c\n" + "1,,7\n" * many + "1.5,2020-01-01,8\n").rows
    assert [str(kind) for kind in rows.schema.types] == ["double", "date32[day]", "int64"]
    assert rows["b"].null_count == many
    assert pc.sum(rows["a"]).as_py() == many + 1.5


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "2"], pa.int64()),
        (["1", "2.5"], pa.float64()),
        (["true", "false"], pa.bool_()),
        (["2013-01-31", "2013-02-01"], pa.date32()),
        (["2013-01-31", "2013-02-01T10:30:00"], pa.timestamp("s")),
        (["2013-01-31T10:30:00Z", "2013-02-01T10:30:00+02:00"], pa.timestamp("s", "UTC")),
        (["10:30", "11:45"], pa.time32("s")),
        (["a", "b", "1"], pa.string()),
        (["01234", "00501"], pa.int64()),
    ],
)
def test_types_of_csv_cells(folder, cells, expected):
    # The second column keeps a missing value from being a blank line.
    rows = read(folder, "x,y\n" + "".join(f"{cell},t\n" for cell in ["", *cells, "", *cells])).rows
    assert rows["x"].type == expected
    assert rows["x"].null_count == 2


def test_what_counts_as_missing(folder):
    cells = ["", "NA", "N/A", "NaN", "null", "NULL", "None", '""', '"NA"']
    rows = read(folder, "number,text\n" + "".join(f"{cell},{cell}\n" for cell in cells) + "1,none\n").rows
    assert rows["number"].to_pylist() == [None] * len(cells) + [1]
    assert rows["text"].to_pylist() == [None] * len(cells) + ["none"]


def test_byte_order_mark_quotes_and_blank_lines(folder):
    text = '\ufeffname,n\r\n"a, ""b""",1\r\n\r\n"two\nlines",2\r\nlast,3\r\n'
    table = read(folder, text)
    assert table.rows.to_pydict() == {"name": ['a, "b"', "two\nlines", "last"], "n": [1, 2, 3]}
    assert [table.locate(row) for row in range(3)] == ["x.csv, line 2", "x.csv, line 4", "x.csv, line 6"]


def test_quoted_newlines_anywhere_in_a_large_file(folder):
    cells = ["line\n" * (1 + i % 7) for i in range(100_000)]  # several of the reader's blocks
    pd.DataFrame({"i": range(len(cells)), "text": cells}).to_csv("x.csv", index=False)
    rows = read_table(["x.csv"]).rows
    assert rows["i"].to_pylist() == list(range(len(cells)))
    assert rows["text"].to_pylist() == cells


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs", "Cc"])), st.integers(-9, 9)), min_size=1
    )
)
def test_any_text_survives_csv_and_every_row_is_located(folder, rows):
    rows = [("v" + text, number) for text, number in rows]
    written = io.StringIO()
    lines = []
    writer = csv.writer(written)
    writer.writerow(["text", "number"])
    for row in rows:
        lines.append(written.getvalue().count("\n") + 1)
        writer.writerow(row)
    table = read(folder, written.getvalue())
    assert list(zip(*table.rows.to_pydict().values(), strict=True)) == rows
    assert [table.locate(row) for row in range(len(rows))] == [f"x.csv, line {line}" for line in lines]


# Several files -------------------------------------------------------------------------------------


def test_several_files_are_one_table_in_the_order_named(folder):
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "b.csv").write_text("x,y\n1,a\n2,b\n")
    (folder / "deep" / "er" / "a.csv").write_text("y,x\nc,3.5\n")
    pq.write_table(pa.table({"x": pa.array([None, None], pa.null()), "y": ["d", "e"]}), "deep/z.parquet")
    table = read_table(["b.csv", "deep/**/*.csv", "deep/*.parquet"])
    assert table.files == ("b.csv", "deep/er/a.csv", "deep/z.parquet")
    assert table.rows.to_pydict() == {"x": [1.0, 2.0, 3.5, None, None], "y": ["a", "b", "c", "d", "e"]}
    assert [table.locate(row) for row in range(5)] == [
        "b.csv, line 2",
        "b.csv, line 3",
        "deep/er/a.csv, line 2",
        "deep/z.parquet, row 1",
        "deep/z.parquet, row 2",
    ]
    with pytest.raises(IndexError):
        table.locate(5)
    with pytest.raises(IndexError):
        table.locate(-1)


def test_a_glob_is_sorted_and_a_name_with_brackets_is_a_name(folder):
    for name in ("part-10.csv", "part-2.csv", "part-1.csv", "part[1].csv"):
        (folder / name).write_text("x\n1\n")
    assert read_table(["part-*.csv"]).files == ("part-1.csv", "part-10.csv", "part-2.csv")
    assert read_table(["part[1].csv"]).files == ("part[1].csv",)


def test_types_widen_between_files(folder):
    pq.write_table(
        pa.table({"d": pa.array(["u", "v"]).dictionary_encode(), "n": pa.array([1, 2], pa.int8())}),
        "a.parquet",
    )
    pq.write_table(pa.table({"d": ["w", "u"], "n": [1.5, None]}), "b.parquet")
    (folder / "c.csv").write_text("d,n\nx,\n")
    (folder / "e.csv").write_text("d,n\n")  # an empty part of a whole
    rows = read_table(["a.parquet", "b.parquet", "c.csv", "e.csv"]).rows
    assert rows.to_pydict() == {"d": ["u", "v", "w", "u", "x"], "n": [1.0, 2.0, 1.5, None, None]}
    (folder / "f.csv").write_text("t\n2013-01-01\n")
    (folder / "g.csv").write_text("t\n2013-01-01T10:00:00\n")
    assert str(read_table(["f.csv", "g.csv"]).rows["t"].type) == "timestamp[s]"


def test_large_integers_stay_exact(folder):
    (folder / "a.csv").write_text("n\n9007199254740993\n")
    pq.write_table(pa.table({"n": pa.array([1], pa.int8())}), "b.parquet")
    assert read_table(["a.csv", "b.parquet"]).rows["n"].to_pylist() == [9007199254740993, 1]


def test_files_with_other_columns(folder):
    (folder / "a.csv").write_text("x,y\n1,2\n")
    (folder / "b.csv").write_text("x,z\n1,2\n")
    with fails("b.csv differs from a.csv", "lacks 'y'", "also has 'z'", "--drop"):
        read_table(["a.csv", "b.csv"])
    assert read_table(["a.csv", "b.csv"], drop=["y", "z"]).rows.to_pydict() == {"x": [1, 1]}


def test_types_that_do_not_go_together_between_files(folder):
    (folder / "a.csv").write_text("x,y\n1,2\n")
    (folder / "b.csv").write_text("x,y\n1,2\n2,late\n3,later\n4,7\n5,8\n")
    with fails("'y'", "numbers", "2 values", "'late'", "b.csv, line 3", "--drop y"):
        read_table(["a.csv", "b.csv"])
    pq.write_table(pa.table({"x": [2], "y": [True]}), "c.parquet")
    with fails("'y'", "booleans", "1 value", "'2'", "a.csv, line 2"):
        read_table(["a.csv", "c.parquet"])
    pq.write_table(pa.table({"x": [2], "y": pa.array([0], pa.timestamp("ms", "UTC"))}), "d.parquet")
    pq.write_table(pa.table({"x": [2], "y": pa.array([0], pa.timestamp("ms"))}), "e.parquet")
    with fails("'y'", "dates with a time zone in d.parquet", "dates in e.parquet", "--drop y"):
        read_table(["d.parquet", "e.parquet"])


# Choosing columns ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FORMATS)
def test_columns_are_left_out_or_chosen(folder, ending):
    write(pa.table({"a": [1.5, 2.5], "b": ["u", "v"], "c": [True, False]}), f"x.{ending}", ending)
    assert read_table([f"x.{ending}"], drop=["b"]).rows.column_names == ["a", "c"]
    assert read_table([f"x.{ending}"], columns=["c", "b"]).rows.column_names == ["b", "c"]
    with fails("no column 'bb'", "'b'"):
        read_table([f"x.{ending}"], drop=["bb"])
    with fails("no column 'cc'", "'c'"):
        read_table([f"x.{ending}"], columns=["a", "cc"])
    with fails("no column left"):
        read_table([f"x.{ending}"], drop=["a", "b", "c"])


def test_a_dropped_column_is_not_even_converted(folder):
    mixed = "x,y\n" + "1,1\n" * 30 + "2,late\n"
    assert read(folder, mixed, drop=["y"]).rows.column_names == ["x"]
    lines = '{"x": 1, "y": 1}\n{"x": 2, "y": "late"}\n'
    assert read(folder, lines, "x.jsonl", drop=["y"]).rows.to_pydict() == {"x": [1, 2]}
    assert read(folder, lines, "x.jsonl", columns=["x"]).rows.to_pydict() == {"x": [1, 2]}


# Bad input -----------------------------------------------------------------------------------------


def test_mixed_types_in_a_csv_column(flights, folder):
    part = flights.iloc[:30_000].astype({"dep_delay": object})
    part.iloc[20_310, part.columns.get_loc("dep_delay")] = "late"
    part.iloc[25_000, part.columns.get_loc("dep_delay")] = "very late"
    part.to_csv("flights.csv", index=False)
    with fails("'dep_delay'", "numbers", "2 values", "'late'", "flights.csv, line 20312", "--drop dep_delay"):
        read_table(["flights.csv"])


def test_mixed_dates_and_a_name_for_the_shell(folder):
    with fails("'the day'", "dates", "1 value", "'2013-02-29'", "x.csv, line 4", "--drop 'the day'"):
        read(folder, "the day,n\n2013-02-27,1\n2013-02-28,2\n2013-02-29,3\n")


def test_text_in_which_some_values_are_digits_is_text(folder):
    assert read(folder, "grade,n\nA,1\nB,2\n3,3\nC,4\n").rows["grade"].to_pylist() == ["A", "B", "3", "C"]


def test_times_in_json(folder):
    lines = (
        '{"d": "2013-01-31", "t": "2013-01-31T10:30:00.250", "z": "2013-01-31T10:30:00.5Z", "s": "2013"}\n'
    )
    rows = read(folder, lines + '{"d": null, "t": null, "z": null, "s": "2013-01-31"}\n', "x.jsonl").rows
    assert [str(rows[name].type) for name in "dtzs"] == [
        "timestamp[us]",
        "timestamp[ns]",
        "timestamp[ns, tz=UTC]",
        "string",
    ]
    assert rows["t"].to_pylist() == [pd.Timestamp("2013-01-31T10:30:00.250"), None]


def test_mixed_types_in_json(folder):
    with fails("'y'", "numbers", "1 value", "'late'", "x.jsonl, line 4", "--drop y"):
        read(folder, '{"y": 1}\n\n{"y": 2}\n{"y": "late"}\n{"y": null}\n', "x.jsonl")


def test_missing_files(folder):
    (folder / "flights.csv").write_text("x\n1\n")
    (folder / "flights.txt").write_text("x\n1\n")
    with fails("there is no file flihgts.csv", "Did you mean 'flights.csv'?"):
        read_table(["flihgts.csv"])
    with fails("there is no folder nowhere"):
        read_table(["nowhere/flights.csv"])
    with fails("no file matches '*.parquet'"):
        read_table(["flights.csv", "*.parquet"])
    with fails("no file is named"):
        read_table([])
    with fails("flights.csv is named twice"):
        read_table(["flights.csv", "fl*.csv"])
    with fails("is a folder", "*.csv"):
        read_table([str(folder)])
    with fails("flights.txt", ".parquet", ".jsonl"):
        read_table(["flights.txt"])


@pytest.mark.parametrize("ending", FORMATS)
def test_empty_and_broken_files(folder, ending):
    (folder / f"x.{ending}").write_bytes(b"")
    with fails(f"x.{ending} is empty"):
        read_table([f"x.{ending}"])
    rows = pa.table({"a": np.arange(5000.0), "b": [f"text {i}" for i in range(5000)]})
    write(rows, f"x.{ending}", ending)
    content = (folder / f"x.{ending}").read_bytes()
    half = content[: len(content) // 2]
    (folder / f"y.{ending}").write_bytes(half[: half.rindex(b"\n") + 2] if ending in ("csv", "tsv") else half)
    with fails(f"y.{ending}"):
        read_table([f"y.{ending}"])
    if not ending.endswith(("csv", "tsv")):
        (folder / f"z.{ending}").write_bytes(b"nothing of the kind")
        with fails(f"z.{ending}"):
            read_table([f"z.{ending}"])


@pytest.mark.parametrize("text", ["a,b\n", "a,b", "\ufeffa,b\r\n"])
def test_column_names_without_rows(folder, text):
    with fails("x.csv", "no rows"):
        read(folder, text)


def test_no_rows_in_other_formats(folder):
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), "x.parquet")
    with fails("x.parquet", "no rows"):
        read_table(["x.parquet"])
    with fails("x.csv is empty"):
        read(folder, "\n\n")


def test_columns_of_one_name_and_of_none(folder):
    with fails("x.csv", "more than one column named 'a'"):
        read(folder, "a,b,a\n1,2,3\n")
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), "x.parquet")
    with fails("x.parquet", "more than one column named 'a'"):
        read_table(["x.parquet"])
    with fails("x.jsonl", "no columns"):
        read(folder, "{}\n{}\n", "x.jsonl")


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_ragged_lines(folder, name):
    text = "a,b\n" + '1,"2\n2"\n' * 10 + "1,2,3\n1,2\n"
    content = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    with fails(f"{name}, line 22: 3 cells for the 2 columns", "quotes"):
        read(folder, content, name)
    with fails("x.csv, line 3: 1 cells for the 2 columns"):
        read(folder, "a,b\n1,2\n3\n")


def test_a_quote_that_is_never_closed_loses_no_rows(folder):
    with fails("x.csv, after line 2", "never closed"):
        read(folder, 'a,b\n1,2\n3,"4\n5,6\n7,8')
    with fails("x.csv, after line 0", "never closed"):
        read(folder, '"a,b\n1,2\n')
    assert read(folder, 'a,b\n5" pipe,6\n').rows["a"].to_pylist() == ['5" pipe']


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_bytes_that_are_no_text(folder, name):
    line = b'{"a": "caf\xe9", "b": 1}\n' if name == "x.jsonl" else b"caf\xe9,1\n"
    first = b'{"a": "tea", "b": 1}\n' if name == "x.jsonl" else b"a,b\ntea,1\n"
    number = 2 if name == "x.jsonl" else 3
    with fails(f"{name}, line {number}", "UTF-8", "e9"):
        read(folder, first + line, name)
    with fails("y.csv, line 1", "UTF-8"):
        read(folder, b"a,caf\xe9\n1,2\n", "y.csv")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"a": 1}\n{"a": \n', ["x.jsonl, line 2", "broken JSON"]),
        ('[{"a": 1}]\n', ["x.jsonl, line 1", "list", "object"]),
        ('{"a": 1, "a": 2}\n', ["x.jsonl", "twice"]),
        ('{"a": 1}{"a": 2}\n{"a": 3}\n', ["x.jsonl, line 1", "broken JSON"]),
        ('{\n"a": 1\n}\n', ["x.jsonl, line 1", "broken JSON"]),
        ("\n\n", ["x.jsonl"]),
    ],
)
def test_broken_json(folder, text, parts):
    with fails(*parts):
        read(folder, text, "x.jsonl")


def test_rows_are_named_by_their_lines_while_the_file_is_there(folder):
    assert read(folder, '{"a": 1}\n\n{"a": 2}\n', "x.jsonl").locate(1) == "x.jsonl, line 3"
    table = read(folder, "a\n1\n")
    (folder / "x.csv").unlink()
    assert table.locate(0) == "x.csv, row 1"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 10_000),
    st.binary(min_size=1, max_size=6),
    st.sampled_from(["parquet", "feather", "csv", "jsonl"]),
)
def test_damaged_bytes_give_a_table_or_one_error(folder, place, damage, ending):
    rows = pa.table({"a": [1.5, None, 3.5] * 5, "b": ["u", None, "w"] * 5})
    write(rows, f"whole.{ending}", ending)
    content = bytearray((folder / f"whole.{ending}").read_bytes())
    place %= len(content)
    content[place : place + len(damage)] = damage
    (folder / f"x.{ending}").write_bytes(content)
    with contextlib.suppress(SteepestError):
        read_table([f"x.{ending}"]).rows.validate(full=True)


# Rows in memory ------------------------------------------------------------------------------------


def test_rows_in_memory(flights):
    part = flights.iloc[:1000]
    from_frame = table_of(part)
    from_arrays = table_of({name: part[name].to_numpy() for name in part})
    from_arrow = table_of(from_frame.rows)
    assert from_frame.files == ("memory",)
    assert from_frame.rows["dep_time"].null_count == part["dep_time"].isna().sum() > 0
    assert from_arrow.rows.equals(from_frame.rows)
    assert from_arrays.rows.to_pydict() == from_frame.rows.to_pydict()
    assert from_frame.locate(999) == "memory, row 1000"
    assert table_of(pd.DataFrame({0: [1, 2]}, index=[5, 6])).rows.to_pydict() == {"0": [1, 2]}


@pytest.mark.parametrize(
    ("frame", "parts"),
    [
        ([1, 2], ["list", "DataFrame"]),
        ({"a": [1, 2], "b": [1]}, ["'a': 2", "'b': 1"]),
        ({"a": []}, ["no rows"]),
        ({}, ["no columns"]),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), ["more than one column named 'a'"]),
        ({"a": [1, 2, None, "late", "x", 3]}, ["'a'", "int", "2 values", "'late'", "memory, row 4"]),
        (pd.DataFrame({"a": [1, pd.NA, "late", 2]}), ["'a'", "int", "1 value", "'late'", "memory, row 3"]),
        ({"a": np.zeros((2, 2, 2))}, ["'a'"]),
        ({"a": 3}, ["'a'"]),
    ],
)
def test_bad_rows_in_memory(frame, parts):
    with fails(*parts):
        table_of(frame)


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_first_line_tells_what_separates_the_fields(tmp_path, mark):
    file = tmp_path / "marks.csv"
    file.write_text("\n".join(mark.join(row) for row in (["a", "b"], ["1", "x"], ["2", "y"])) + "\n")
    assert read_table([str(file)]).rows.to_pydict() == {"a": [1, 2], "b": ["x", "y"]}

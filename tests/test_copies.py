"""Rows that are read once and kept for workers elsewhere: they are those of the files, stretch by stretch."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steepest.copies import HELD_OUT, ROWS, copied_rows, copy_rows, read_by_all
from steepest.data.rows import settled
from steepest.data.sliced import SlicedSource, share_of_rows
from steepest.data.source import open_source
from steepest.errors import SteepestError
from steepest.storage import storage_at


@pytest.fixture
def table(tmp_path):
    """Give a CSV file of some stretches: whole numbers turn out to be decimals, two rows can't be used."""
    path = tmp_path / "table.csv"
    path.write_text(
        "number,word,day\n"
        + "".join(f"{row},{'ab'[row % 2] * 40},2013-01-{row % 28 + 1:02}\n" for row in range(300_000))
        + "1.5,c,2013-02-28,more\n"
        + "".join(f"{row}.5,c,\n" for row in range(300_000))
        + "x,c,2013-02-28\n",
        "utf-8",
    )
    return path


def read(source, **options):
    return settled(source, lambda settled: list(settled.stretches(**options)))


def copied(table, tmp_path, **options):
    storage = storage_at(str(tmp_path / "shared"))
    copy_rows(open_source(str(table), **options), storage, drop=options.get("drop", ()))
    (tmp_path / "own").mkdir(exist_ok=True)
    return storage, copied_rows(storage, tmp_path / "own")


def test_copied_rows_are_the_rows_of_the_files_stretch_by_stretch(table, tmp_path):
    _, copy = copied(table, tmp_path)
    source = open_source(str(table))
    expected, found = read(source), read(copy)
    assert len(expected) >= 3
    assert len({each.rows.schema for each in expected}) > 1, "the file is to change its types"
    assert [each.rows for each in found] == [each.rows for each in expected]
    assert [each.rows.schema for each in found] == [each.rows.schema for each in expected]
    assert found[0].rejected == tuple(row for each in expected for row in each.rejected) != ()
    assert not any(each.rejected for each in found[1:])
    assert (copy.names, copy.fingerprint(), copy.rows) == (source.names, source.fingerprint(), 600_000)
    assert found[1].locate(5) == f"{table}, row {expected[0].rows.num_rows + 6}"


def test_rows_to_judge_by_are_kept_beside_the_others(table, tmp_path):
    storage = storage_at(str(tmp_path / "shared"))
    copy_rows(open_source({"number": [1, 2]}), storage)
    copy_rows(open_source({"number": [3]}), storage, HELD_OUT)
    (tmp_path / "own").mkdir()
    found = [copied_rows(storage, tmp_path / "own", called) for called in (ROWS, HELD_OUT)]
    assert [read(each)[0].rows["number"].to_pylist() for each in found] == [[1, 2], [3]]


def test_the_first_share_has_a_row_if_there_is_one():
    for rows in range(1, 9):
        shares = [share_of_rows(rows, rank, 4) for rank in range(4)]
        assert shares[0][1] > shares[0][0] == 0
        assert [last for _, last in shares[:-1]] == [first for first, _ in shares[1:]]
        assert shares[-1][1] == rows
        counts = [last - first for first, last in shares]
        assert max(counts) - min(counts) <= 1


def test_shares_of_copied_rows_are_all_rows_and_one_of_them_has_what_was_rejected(table, tmp_path):
    _, copy = copied(table, tmp_path)
    shares = [read(SlicedSource(copy, *share_of_rows(copy.rows, rank, 3))) for rank in range(3)]
    together = pa.concat_tables(
        [each.rows.select(["word"]) for share in shares for each in share], promote_options="permissive"
    )
    whole = pa.concat_tables([each.rows.select(["word"]) for each in read(open_source(str(table)))])
    assert together.equals(whole)
    assert [sum(len(each.rejected) for each in share) for share in shares] == [2, 0, 0]


def test_columns_that_are_left_out_are_no_part_of_the_copy_but_known(table, tmp_path):
    _, copy = copied(table, tmp_path, drop=("number",))
    assert copy.schema.field("number").type == pa.null()
    rejected = read(open_source(copy, drop=("number",)))[0].rejected
    assert len(rejected) == 1, "a word in a column that is left out is no reason"
    assert read(copy, columns=["day"], first=599_990)[0].rows.num_rows == 11


def test_rows_are_copied_once(table, tmp_path):
    storage, _ = copied(table, tmp_path)
    table.unlink()
    seen = []
    copy_rows(open_source({"number": [1]}), storage, seen=lambda *what: seen.append(what))
    assert seen == []
    assert copied_rows(storage, tmp_path / "own").rows == 600_000


def test_what_one_process_says_of_the_rows_is_said_when_they_are_copied(tmp_path):
    path = tmp_path / "mixed.csv"
    path.write_text("x\n" + "1\n" * 50 + "many words\n" * 49, "utf-8")
    storage = storage_at(str(tmp_path / "shared"))
    with pytest.raises(SteepestError, match="mixes types"):
        copy_rows(open_source(str(path)), storage)
    assert copied_rows(storage, tmp_path) is None


def test_workers_read_parquet_themselves_where_they_reach_it(table, tmp_path):
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "table.parquet")
    parquet = open_source(str(tmp_path / "table.parquet"))
    assert read_by_all(parquet, elsewhere=False)
    assert not read_by_all(parquet, elsewhere=True)
    assert not read_by_all(open_source(str(table)), elsewhere=False)
    assert not read_by_all(open_source({"x": [1]}), elsewhere=False)

"""Which frames are nothing but columns of Parquet files, and how the rows of all others are divided."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyspark")

from pyspark.sql import functions as sql

import steepest.spark
from spark_sessions import spark
from steepest.data.source import open_source
from steepest.spark.division import divided
from steepest.spark.plain import Plain, plain


@pytest.fixture(scope="module")
def session():
    with spark("local[2]") as session:
        yield session


@pytest.fixture(scope="module")
def folder(session, tmp_path_factory):
    """Give a folder with a blank in its name and two files of 50 rows."""
    folder = str(tmp_path_factory.mktemp("rows") / "a table")
    rows = session.range(0, 100, numPartitions=2).withColumns(
        {"x": sql.sin("id"), "when": sql.timestamp_seconds("id"), "late": sql.col("id") % 2 == 0}
    )
    rows.write.parquet(folder)
    rows.write.partitionBy("late").parquet(folder + " by late")
    return folder


def found(frame) -> Plain | None:
    return plain(frame, frame.limit(0).toArrow().schema, elsewhere=False)


PLAIN = {
    "some columns": lambda frame: frame.select("late", "x"),
    "an empty one": lambda frame: frame.select("x", sql.lit(None).cast("boolean").alias("late")),
    "seen as a view": lambda frame: frame.drop("when"),
}

OTHERS = {
    "times": lambda frame: frame.select("x", "when"),
    "fewer rows": lambda frame: frame.select("x").where("x > 0"),
    "the first rows": lambda frame: frame.select("x").limit(10),
    "computed": lambda frame: frame.select(sql.col("x") * 2),
    "renamed": lambda frame: frame.select(sql.col("x").alias("y")),
    "another empty value": lambda frame: frame.select("x", sql.lit(1).alias("late")),
    "a union": lambda frame: frame.select("x").union(frame.select("x")),
    "no file": lambda frame: frame.sparkSession.range(3),
    "in other letters": lambda frame: frame.select("X"),
}


@pytest.mark.parametrize("select", PLAIN.values(), ids=PLAIN)
def test_columns_of_files(select, session, folder):
    frame = select(session.read.parquet(folder))
    files = sorted(map(str, Path(folder).glob("*.parquet")))
    assert found(frame) == Plain(tuple(files), tuple(frame.columns), open_source(files).fingerprint())


@pytest.mark.parametrize("select", OTHERS.values(), ids=OTHERS)
def test_anything_else(select, session, folder):
    assert found(select(session.read.parquet(folder))) is None


def test_files_that_spark_reads_in_its_own_way(session, folder):
    assert found(session.read.parquet(folder + " by late").select("x")) is None
    assert found(session.read.option("mergeSchema", "true").parquet(folder).select("x")) is None
    assert found(session.read.schema("x float, late boolean").parquet(folder)) is None


def test_files_that_workers_do_not_reach(session, folder):
    frame = session.read.parquet(folder).select("x")
    assert plain(frame, frame.limit(0).toArrow().schema, elsewhere=True) is None


def test_a_fit_reads_the_columns_that_it_was_given(session, folder, tmp_path):
    frame = session.read.parquet(folder).select("late", "id", "x")
    assert found(frame)
    where = {"shared": str(tmp_path), "out": str(tmp_path / "run")}
    run = steepest.spark.fit("linear", frame, "late", workers=1, drop=["id"], epochs=2, **where)
    assert [column.name for column in run.plan.columns] == ["x"]
    assert [each["name"] for each in run.record["dropped"]] == ["id"]
    assert run.record["split"]["training_rows"] + run.record["split"]["validation_rows"] == 100


def test_rows_in_order_are_dealt_out_evenly_and_stay_in_order(session):
    frame = session.range(0, 1_000, numPartitions=5).where("id >= 100")  # the first partition has fewer rows

    def parts(frame):
        return [[row.id for row in part] for part in frame.rdd.glom().collect()]

    first, second = parts(divided(frame, 2, 2))
    assert len(first) == len(second) == 450
    assert sorted(first) == first
    assert sorted(first + second) == list(range(100, 1_000))
    assert sorted(second) == second
    assert parts(divided(frame, 2, 1)) == [first + second]

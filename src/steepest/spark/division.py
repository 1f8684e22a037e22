"""How a frame's rows are divided among workers, and in which order: the same one in every attempt.

A descent goes on from a checkpoint only if the rows have the numbers that they had. Spark keeps the order of
rows that it reads: these are dealt out by their numbers. What went through a shuffle comes in the order in
which the network brought it: such rows are put in the order of their hash. When fewer workers are left, each
takes several of the parts that the frame had at first, one after the other.
"""

from __future__ import annotations

from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sql
from pyspark.sql.types import ArrayType, DataType, MapType, StructType, VariantType

PART, BITS = "part", 33
"""The column that numbers the rows; a row's part is in the bits from this one on."""


def divided(frame: DataFrame, parts: int, workers: int) -> DataFrame:
    """Return a frame's rows in as many partitions as there are workers.

    Parameters
    ----------
    frame
        The rows; the names of its columns have no dots.
    parts
        How many workers there were at first: the order of the rows depends on it, and not on ``workers``.
    workers
        How many there are now, at most as many.
    """
    in_order, fits = _comes_in_order(frame), _one_task_each(_rdd(frame), parts)
    if not fits:
        frame = _given(frame, parts, sql.pmod(PART, sql.lit(parts))) if in_order else frame.repartition(parts)
    hashed = [f"`{field.name}`" for field in frame.schema if _has_hash(field.dataType)]
    if hashed and not in_order:
        frame = frame.sortWithinPartitions(sql.xxhash64(*hashed))
    if workers == parts:
        return frame
    return _given(frame, workers, sql.floor(sql.shiftright(PART, BITS) * workers / parts))


def _given(frame: DataFrame, workers: int, worker: Column) -> DataFrame:
    """Return the rows in partitions, each row in that which its number `PART` says, in their order."""
    numbered = frame.withColumn(PART, sql.monotonically_increasing_id())
    return numbered.repartitionById(workers, worker.cast("int")).sortWithinPartitions(PART).drop(PART)


def _rdd(frame: DataFrame) -> Any:
    return frame._jdf.queryExecution().toRdd()


def _one_task_each(rdd: Any, parts: int) -> bool:
    """Tell whether there are so many partitions, and each is computed by one task from its first rows on.

    Spark refuses barrier stages with unions, or in which partitions are joined.
    """
    waiting, seen = [rdd], set()
    while waiting:
        each = waiting.pop()
        if each.getNumPartitions() != parts:
            return False
        depends = each.dependencies()
        for dependency in map(depends.apply, range(depends.size())):
            before = dependency.rdd()
            if not dependency.getClass().getName().endswith("ShuffleDependency") and before.id() not in seen:
                seen.add(before.id())
                waiting.append(before)
    return True


def _comes_in_order(frame: DataFrame) -> bool:
    """Tell whether Spark gives the same rows in the same order whenever it is asked."""
    return str(_rdd(frame).outputDeterministicLevel().toString()) == "DETERMINATE"


def _has_hash(kind: DataType) -> bool:
    """Tell whether Spark can hash values of this type."""
    if isinstance(kind, StructType):
        return all(_has_hash(field.dataType) for field in kind)
    if isinstance(kind, ArrayType):
        return _has_hash(kind.elementType)
    return not isinstance(kind, (MapType, VariantType))

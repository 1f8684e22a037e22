"""Columns of a DataFrame: those that are learned from, and whether a frame has what a model needs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sql
from pyspark.sql.classic.dataframe import DataFrame as ClassicFrame
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import DataType, DoubleType, FloatType

from steepest.data.column_types import type_of
from steepest.data.columns import Plan
from steepest.data.encode import CALLED, GOES_WITH
from steepest.data.faults import require_distinct
from steepest.errors import SteepestError, nearest
from steepest.spark.vectors import element_names, width_of

FOLDS = re.compile(r"(CrossValidator|TrainValidationSplit)_[0-9a-f]{12}_rand")
"""A column by which Spark ML's tuning draws its folds, and which the frames that it fits still have."""


def column(name: str) -> Column:
    """Return a column by its name, whatever characters that has."""
    return sql.col(f"`{name.replace('`', '``')}`")


def require_frame(frame: object) -> None:
    """Refuse what can't be fitted.

    Raises
    ------
    SteepestError
        If it is no DataFrame of a Spark session that this process drives, streams, or has two columns of the
        same name.
    """
    if not isinstance(frame, ClassicFrame):
        kind = f"{type(frame).__module__.partition('.')[0]} {type(frame).__name__}"
        remote = isinstance(frame, DataFrame)
        raise SteepestError(
            "fit takes a DataFrame of a session that this process drives, not one of Spark Connect."
            if remote
            else f"fit takes a Spark DataFrame, not a {kind}.",
            hint="Start the session without remote()."
            if remote
            else "spark.createDataFrame(...) makes one; steepest.fit takes tables in memory.",
        )
    if frame.isStreaming:
        raise SteepestError(
            "fit needs rows that come to an end, and this DataFrame is a stream.",
            hint="Fit on a DataFrame from spark.read; the model's transform takes streams.",
        )
    require_distinct(frame.columns, "the DataFrame")


def require_columns(frame: DataFrame, roles: Mapping[str, str | None]) -> None:
    """Refuse names that the frame does not have, and one name for two things.

    Parameters
    ----------
    frame
        The frame.
    roles
        Parameter -> the column that it names, if it names one.

    Raises
    ------
    SteepestError
        With the nearest name.
    """
    found: dict[str, str] = {}
    for parameter, name in roles.items():
        if name is None:
            continue
        if name not in frame.columns:
            raise SteepestError(
                f"The DataFrame has no column {name!r} ({parameter}).", hint=nearest(name, frame.columns)
            )
        if name in found:
            raise SteepestError(
                f"{parameter} and {found[name]} name the same column, {name!r}.", hint="Name another column."
            )
        found[name] = parameter


def features_of(
    frame: DataFrame, vector: str | None, raw: Sequence[str] | None, others: Collection[str]
) -> list[str]:
    """Return the names of the columns to learn from.

    Parameters
    ----------
    frame
        The frame.
    vector, raw
        What ``featuresCol`` and ``inputCols`` name.
    others
        Columns that have another role.

    Raises
    ------
    SteepestError
        If a column is of a type that can't be learned from, or it is not clear which are meant.
    """
    if vector is not None and raw is not None:
        raise SteepestError(
            "featuresCol and inputCols are both set.",
            hint="Set one: featuresCol for a column of vectors, inputCols for raw columns.",
        )
    if vector is not None:
        if not is_vector(frame, vector):
            raise SteepestError(
                f"featuresCol names {vector!r}, which holds {type_name(frame, vector)} values, not vectors.",
                hint=f"Learn from raw columns: inputCols=[{vector!r}]; or assemble vectors: VectorAssembler.",
            )
        return [vector]
    chosen = list(raw) if raw is not None else _implied(frame, others)
    if not chosen:
        raise SteepestError("There is no column to learn from.", hint="Name at least one in inputCols.")
    for name in chosen:
        hint = "Turn it into a number first, or name the columns to learn from in inputCols."
        require_learnable(frame, name, hint)
    return chosen


def require_learnable(frame: DataFrame, name: str, hint: str) -> None:
    """Refuse a column of a type that can't be learned from.

    Raises
    ------
    SteepestError
        With a hint.
    """
    if not is_vector(frame, name) and _arrow_type(frame, name) is None:
        raise SteepestError(
            f"The column {name!r} holds {type_name(frame, name)} values, which can't be learned from.",
            hint=hint,
        )


def _implied(frame: DataFrame, others: Collection[str]) -> list[str]:
    """Return all columns but those of another role; a vector among them is hardly meant as one of many."""
    chosen = [name for name in frame.columns if name not in others and not FOLDS.fullmatch(name)]
    for name in chosen:
        if is_vector(frame, name):
            raise SteepestError(
                f"The column {name!r} holds vectors, and featuresCol is not set.",
                hint=f"Learn from the vectors: featuresCol={name!r}; or from raw columns: inputCols=[...].",
            )
    return chosen


def is_vector(frame: DataFrame, name: str) -> bool:
    """Tell whether a column holds Spark ML's vectors."""
    return isinstance(frame.schema[name].dataType, VectorUDT)


def type_name(frame: DataFrame, name: str) -> str:
    """Return what Spark calls the type of a column."""
    return frame.schema[name].dataType.simpleString()


def _arrow_type(frame: DataFrame, name: str) -> pa.DataType | None:
    """Return the type in which a column reaches Python; None if Spark can't send it."""
    kind: DataType = frame.schema[name].dataType
    try:
        return to_arrow_type(kind, timezone="UTC")
    except PySparkException:
        return None


def with_arrays(frame: DataFrame, names: Sequence[str]) -> list[Column]:
    """Return the columns of these names, vectors as arrays of numbers; a missing vector stays missing."""
    return [_as_array(name).alias(name) if is_vector(frame, name) else column(name) for name in names]


def _as_array(name: str) -> Column:
    # vector_to_array fails where there is no vector, without saying in which column.
    return sql.when(column(name).isNotNull(), vector_to_array(column(name)))


def vectors_of(
    frame: DataFrame, features: Sequence[str], others: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Return the vectors among the features -> the names of their elements.

    Raises
    ------
    SteepestError
        If the metadata does not tell how long the vectors are, and no row does.
    """
    found: dict[str, tuple[str, ...]] = {}
    taken = {*others, *(name for name in features if not is_vector(frame, name))}
    for name in features:
        if is_vector(frame, name):
            metadata = frame.schema[name].metadata
            width = width_of(metadata) or _first_width(frame, name)
            found[name] = element_names(name, metadata, width, taken)
            taken |= set(found[name])
    return found


def _first_width(frame: DataFrame, name: str) -> int:
    first = frame.where(column(name).isNotNull()).select(sql.size(_as_array(name))).first()
    if first is None:
        raise SteepestError(
            f"No row of the DataFrame has a vector in the column {name!r}.", hint="Give it at least one row."
        )
    return int(first[0])


def different_labels(frame: DataFrame, label: str, most: int) -> int:
    """Return how many different values a label has, counted up to ``most``.

    Raises
    ------
    SteepestError
        If it has none.
    """
    there = column(label).isNotNull()
    if isinstance(frame.schema[label].dataType, (FloatType, DoubleType)):
        there &= ~sql.isnan(column(label))
    labels = frame.select(column(label)).where(there)
    count = (labels.distinct() if most > 1 else labels).limit(most).count()
    if count == 0:
        rows = "no rows" if frame.isEmpty() else f"no row with a value in the label column {label!r}"
        raise SteepestError(f"The DataFrame has {rows}.", hint="There is nothing to learn from.")
    return count


def require_learned(frame: DataFrame, plan: Plan, vectors: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the columns that a model needs of a frame, if the frame has them as they were learned.

    Raises
    ------
    SteepestError
        If a column is missing or of another type.
    """
    elements = {element for names in vectors.values() for element in names}
    for name in vectors:
        require_columns(frame, {"featuresCol": name})
        if not is_vector(frame, name):
            raise SteepestError(
                f"The column {name!r} holds {type_name(frame, name)} values, and vectors were learned from.",
                hint="Assemble the vector as for training.",
            )
    raw = {each.name: each for each in plan.columns if each.name not in elements}
    for name, learned in raw.items():
        if name not in frame.columns:
            raise SteepestError(
                f"The DataFrame has no column {name!r}, which the model was trained with.",
                hint=nearest(name, frame.columns),
            )
        arrow = _arrow_type(frame, name)
        found = "unsupported" if arrow is None else type_of(arrow)
        if found not in ("null", *GOES_WITH[learned.type]) and learned.kind != "missing":
            raise SteepestError(
                f"The column {name!r} holds {type_name(frame, name)} values where {CALLED[learned.type]} were"
                " learned.",
                hint="Give the column the type that it had in training.",
            )
    return [*raw, *vectors]


def zone_of(frame: DataFrame) -> str:
    """Return the time zone by whose clock a frame's timestamps are read."""
    zone: Any = frame.sparkSession.conf.get("spark.sql.session.timeZone")
    return str(zone)

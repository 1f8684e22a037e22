"""Frames that are nothing but columns of Parquet files: workers read these themselves.

That is many times faster than through Spark's JVM and Arrow: see `benchmarks/spark.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyspark.sql import DataFrame

from steepest.copies import read_by_all
from steepest.data.source import open_source
from steepest.errors import SteepestError

PARQUET = "org.apache.spark.sql.execution.datasources.parquet.ParquetFileFormat"

SAID = {"path", "paths", "serialization.format"}
"""Options of a reader that don't change what it reads."""

ALIKE = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_string)
"""Types whose values Spark and Arrow read alike: a time or a decimal may be turned into another."""


class Plain(NamedTuple):
    """What workers read in a frame's place.

    Attributes
    ----------
    files, columns
        Files, and which of their columns; one that they have not is empty.
    fingerprint
        Of the files.
    """

    files: tuple[str, ...]
    columns: tuple[str, ...]
    fingerprint: str | None


def plain(frame: DataFrame, schema: pa.Schema, elsewhere: bool) -> Plain | None:
    """Return the files of which a frame has columns as they are, and which; ``None`` for any other frame.

    Parameters
    ----------
    frame
        The rows.
    schema
        The columns as Spark would give them.
    elsewhere
        Whether workers run on other machines.
    """
    found = _files(frame)
    if found is None:
        return None
    files, empty = found
    try:
        source = open_source(files)
    except SteepestError:  # Spark may still read them
        return None
    there = [each for each in schema if each.name not in empty]
    if not read_by_all(source, elsewhere) or not all(_is_alike(each, source.schema) for each in there):
        return None
    return Plain(tuple(files), tuple(schema.names), source.fingerprint())


def _is_alike(wanted: pa.Field, schema: pa.Schema) -> bool:
    if wanted.name not in schema.names or schema.field(wanted.name).type != wanted.type:
        return False
    return any(kind(wanted.type) for kind in ALIKE)


def _files(frame: DataFrame) -> tuple[list[str], set[str]] | None:
    """Return the files, and the columns that are empty, if the frame's plan is to read and nothing else."""
    plan: Any = frame._jdf.queryExecution().optimizedPlan()
    empty: set[str] = set()
    if _kind(plan) == "Project":
        for each in map(plan.projectList().apply, range(plan.projectList().size())):
            if _kind(each) == "Alias" and _kind(each.child()) == "Literal" and each.child().value() is None:
                empty.add(each.name())
            elif _kind(each) != "AttributeReference":
                return None
        plan = plan.child()
    if _kind(plan) != "LogicalRelation" or _kind(plan.relation()) != "HadoopFsRelation":
        return None
    relation = plan.relation()
    said = relation.options().keys().toSeq()
    options = {str(said.apply(place)).lower() for place in range(said.size())}
    if _name(relation.fileFormat()) != PARQUET or relation.partitionSchema().size() or options - SAID:
        return None
    names = sorted(map(_as_named, relation.location().inputFiles()))
    if not names or any(set(name) & set("*?[%") for name in names):
        return None
    return names, empty


def _as_named(url: str) -> str:
    """Return what a file of this machine is called here, and the URL of any other."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" else url


def _name(thing: Any) -> str:
    return str(thing.getClass().getName())


def _kind(thing: Any) -> str:
    return _name(thing).rpartition(".")[2]

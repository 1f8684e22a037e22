"""What one process has seen of its rows, as plain JSON to pass on to others: tables and summaries as text."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from steepest.data.summary import Summary

COUNTS = ("counted", "sampled", "frequent")
"""The parts of a summary that are arrays."""


def as_text(table: pa.Table) -> str:
    """Return a table as text.

    Examples
    --------
    >>> from_text(as_text(pa.table({"day": ["Mon", None]}))).to_pylist()
    [{'day': 'Mon'}, {'day': None}]
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return base64.b64encode(sink.getvalue()).decode()


def from_text(text: str) -> pa.Table:
    """Return the table that `as_text` wrote."""
    table: pa.Table = pa.ipc.open_stream(base64.b64decode(text)).read_all()
    return table


def counts_to_text(counted: pa.StructArray | None) -> str | None:
    """Return counts as text, and None as it is."""
    return None if counted is None else as_text(pa.table({"counts": counted}))


def counts_from_text(text: str | None) -> pa.StructArray | None:
    """Return what `counts_to_text` wrote."""
    return None if text is None else from_text(text)["counts"].combine_chunks()


def summary_to_json(summary: Summary) -> dict[str, Any]:
    """Return a summary as plain JSON."""
    plain = {field.name: getattr(summary, field.name) for field in dataclasses.fields(summary)}
    return plain | {name: counts_to_text(plain[name]) for name in COUNTS}


def summary_from_json(stored: Mapping[str, Any]) -> Summary:
    """Return the summary that `summary_to_json` wrote."""
    return Summary(**{**stored, **{name: counts_from_text(stored[name]) for name in COUNTS}})

"""Columns that are equal to each other in every row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from steepest.data.summary import Summary, plain_values


def alike_by_summary(names: Iterable[str], summaries: Mapping[str, Summary]) -> Iterable[list[str]]:
    """Group columns that their summaries do not tell apart."""
    groups: dict[object, list[str]] = {}
    for name in names:
        each = summaries[name]
        figures = (each.minimum, each.maximum, each.mean, each.squared_deviation, each.characters)
        groups.setdefault((each.type, each.missing, figures), []).append(name)
    return groups.values()


def equal_columns(names: list[str], values: Mapping[str, pa.ChunkedArray]) -> list[tuple[str, ...]]:
    """Group the columns that are equal in every row."""
    if len(names) < 2:
        return []
    plain = {name: plain_values(values[name]) for name in names}
    groups: list[list[str]] = []
    for name in names:
        same = next((group for group in groups if plain[group[0]].equals(plain[name])), None)
        if same is None:
            groups.append([name])
        else:
            same.append(name)
    return [tuple(group) for group in groups if len(group) > 1]

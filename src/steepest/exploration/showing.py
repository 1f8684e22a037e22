"""What `steepest explore` prints: a table of the columns, and the remarks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from steepest.diagnosis.svg import clean
from steepest.terminal import number

MOST_LISTED = 40
"""Columns that are printed, those that tell most of the target first."""

NAME, OTHERS = 20, 66
"""Characters of a name, and of all figures but a column's values, for which the rest of the line is."""

SHORT = {"auc": "AUC", "accuracy": "accuracy", "r2": "R²"}
"""What heads the column of scores."""

MARKS = {"error": "error", "warning": "warning", "information": "note"}


def print_exploration(record: Mapping[str, Any], out: Path | None) -> None:
    """Print what was found, and where the page is."""
    console = Console(highlight=False, soft_wrap=True)
    data, sample = record["data"], record["sample"]
    console.print(
        escape(f"{', '.join(data['files'])}: {data['rows']:,} rows, {len(record['columns'])} columns")
    )
    console.print(escape(f"{record['target']['why']}; {says_of_target(record['target'])}"))
    console.print(f"{says_of_sample(sample)}.\n")
    console.print(_columns(record, max(console.width - OTHERS, 12)), soft_wrap=False)
    if len(record["columns"]) > MOST_LISTED:
        console.print(f"and {len(record['columns']) - MOST_LISTED} columns more")
    if record["findings"]:
        console.print("")
    for found in record["findings"]:
        console.print(
            escape(f"{MARKS[found['severity']]}: {found['where']}: {found['evidence']}. ({found['finding']})")
        )
        console.print(escape(f"  {found['try']}"))
    if out is not None:
        console.print(f"\nreport: {escape(str(out))}")


def _columns(record: Mapping[str, Any], room: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title, justify in (
        ("column", "left"),
        ("kind", "left"),
        ("missing", "right"),
        ("different", "right"),
        ("values", "left"),
        ("tells", "right"),
        (SHORT[record["target"]["score"]], "right"),
    ):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for column in by_signal(record)[:MOST_LISTED]:
        table.add_row(
            escape(clean(column["name"], NAME)),
            column["kind"],
            f"{column['missing'] / record['sample']['of']:.1%}" if column["missing"] else "",
            different(column),
            escape(clean(values(column), room)),
            "" if column["explained"] is None else f"{column['explained']:.1%}",
            "" if column["score"] is None else f"{column['score']:.3f}",
        )
    return table


def by_signal(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the columns, those that tell most of the target first."""
    return sorted(record["columns"], key=lambda column: -(column["explained"] or 0.0))


def different(column: Mapping[str, Any]) -> str:
    """Write how many different values a column has."""
    return "> 100,000" if column["different"] is None else f"{column['different']:,}"


def values(column: Mapping[str, Any]) -> str:
    """Say in a few words what a column's values are.

    Examples
    --------
    >>> values({"type": "number", "minimum": 0.5, "maximum": 12345.6, "top": None})
    '0.5 to 12,346'
    """
    if column["top"]:
        frequent = [
            f"{each['value']} {each['share']:.0%}" for each in column["top"][:3] if each["share"] > 0.01
        ]
        return ", ".join(frequent) or f"such as {column['top'][0]['value']}"
    if column["minimum"] is None:
        return ""
    low, high = column["minimum"], column["maximum"]
    if isinstance(low, str):
        return f"{low} to {high}"
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def says_of_target(target: Mapping[str, Any]) -> str:
    """Say in a few words how the target is distributed.

    Examples
    --------
    >>> says_of_target({"labels": ["no", "yes"], "rows": [3, 1]})
    'no 75.0%, yes 25.0%'
    """
    if "labels" in target:
        whole = sum(target["rows"])
        shares = [
            f"{label} {rows / whole:.1%}"
            for label, rows in zip(target["labels"], target["rows"], strict=True)
        ]
        return ", ".join(shares[:8]) + (f" and {len(shares) - 8} more" if len(shares) > 8 else "")
    return (
        f"{number(target['minimum'])} to {number(target['maximum'])}, mean {number(target['mean'])}, "
        f"deviation {number(target['deviation'])}"
    )


def says_of_sample(sample: Mapping[str, Any]) -> str:
    """Say which figures are of a sample."""
    if sample["rows"] == sample["of"]:
        return f"All figures are of all {sample['of']:,} rows"
    return (
        f"Counts, bounds and means are of {sample['of']:,} rows; quantiles, relations and conditions of "
        f"{sample['rows']:,} drawn from them"
    )

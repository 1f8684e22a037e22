"""What `steepest tune` and `steepest compare` print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from steepest.diagnosis.svg import clean
from steepest.terminal import number
from steepest.trials.telling import (
    COMPARED,
    TRIED,
    compared_rows,
    rate_rows,
    says_of_comparison,
    says_of_tuning,
    tried_rows,
)

NAME = 40
"""Characters of a name."""

WIDEST = 200
"""Characters of a line of a table: a narrow terminal wraps it, but no figure is cut."""


def print_tuning(record: Mapping[str, Any], out: Path | None) -> None:
    """Print the rates of the best search, what else was tried, and the command to fit with."""
    console = Console(highlight=False, soft_wrap=True)
    tried = record["tried"]
    shown = tried[record["best"] or 0]
    _print_table(["learning rate", "loss reached", ""], rate_rows(shown["search"]))
    if len(tried) > 1:
        console.print("")
        _print_table(TRIED, tried_rows(record))
    console.print(f"\n{escape(says_of_tuning(record))}")
    if record["command"]:
        console.print(escape(record["command"]))
    if out is not None:
        console.print(f"report: {escape(str(out / 'report.html'))}")


def print_comparison(record: Mapping[str, Any], out: Path) -> None:
    """Print the variants beside each other."""
    console = Console(highlight=False, soft_wrap=True)
    _print_table(COMPARED, compared_rows(record))
    console.print(f"\n{escape(says_of_comparison(record))}")
    console.print(f"report: {escape(str(out / 'report.html'))}")


def _print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    table, rows = Table(box=None, pad_edge=False), list(rows)
    for index, header in enumerate(headers):
        words = any(isinstance(row[index], str) for row in rows)
        table.add_column(header, justify="left" if words else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(escape(clean(cell, NAME)) if isinstance(cell, str) else _cell(cell) for cell in row))
    Console(highlight=False, width=WIDEST).print(table)


def _cell(value: float | None) -> str:
    return f"{value:,}" if isinstance(value, int) else number(value)

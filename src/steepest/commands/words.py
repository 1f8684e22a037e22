"""What the commands share: the application, its options and how words are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from steepest.settings import AUTO, Settings

app = typer.Typer(
    help="Gradient descent you can see, on data of any size.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DEFAULT = Settings()

INTERRUPTED = 130
"""What Typer returns after Ctrl-C."""

MOST_ROWS = 100_000
"""Rows that can be named one by one."""

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object last.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Data = Annotated[
    list[str],
    typer.Argument(help="CSV, Parquet, Arrow/Feather, JSON lines, svmlight; files, globs, folders or URLs."),
]


def hidden_units(text: str) -> tuple[int, ...]:
    """Read a list of units, such as 64,32."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list such as 64,32") from None


def batch_size_of(text: str) -> str | int:
    """Read a batch size."""
    if text == "all":
        return "all"
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a whole number nor 'all'") from None


def rate_of(text: str) -> str | float:
    """Read a learning rate."""
    if text == AUTO:
        return text
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a number nor {AUTO!r}") from None


def selection_of(text: str) -> str | int:
    """Read how many columns to choose; other words are judged later."""
    try:
        return int(text)
    except ValueError:
        return text


def kinds_of(texts: list[str]) -> dict[str, str]:
    """Read kinds of columns, such as merchant=hashed."""
    kinds = {}
    for text in texts:
        name, sign, kind = text.partition("=list:")
        if sign:
            kind = f"list:{kind}"
        else:
            name, sign, kind = text.rpartition("=")
        if not (name and sign and kind):
            raise typer.BadParameter(f"{text!r} is no kind of a column, such as merchant=hashed")
        kinds[name] = kind
    return kinds


def lags_of(texts: list[str]) -> dict[str, tuple[int, ...]]:
    """Read lags of columns, such as demand:48,336."""
    lags: dict[str, tuple[int, ...]] = {}
    for text in texts:
        column, _, numbers = text.rpartition(":")
        rows = several(numbers)
        if not column or not rows or not all(each.isdecimal() for each in rows):
            raise typer.BadParameter(f"{text!r} names no lags, such as demand:48,336")
        lags[column] = (*lags.get(column, ()), *map(int, rows))
    return lags


def columns_of(text: str) -> tuple[str, ...]:
    """Read the columns of a cross, such as merchant,hour."""
    return tuple(several(text))


def tables_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what options that may be repeated give, by their settings' names."""
    return {
        "drop": tuple(values["drop"] or ()),
        "lags": lags_of(values["lags"] or []),
        "kinds": kinds_of(values["kinds"] or []),
        "cross": tuple(map(columns_of, values["cross"] or [])),
    }


def several(text: str) -> list[str]:
    """Read words between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def rows_of(text: str) -> list[int]:
    """Read numbers of rows, such as 0,5,10 or 0-9."""
    rows: list[int] = []
    for part in several(text):
        first, sign, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not sign)):
            raise typer.BadParameter(f"{part!r} is neither the number of a row nor a range such as 0-9")
        numbers = range(int(first), int(last or first) + 1)
        if len(rows) + len(numbers) > MOST_ROWS:
            raise typer.BadParameter(f"{text!r} names more than {MOST_ROWS:,} rows")
        rows += numbers
    return rows


def validation_of(text: str) -> str | float:
    """Read a share of rows, the last of them, or the name of a file."""
    try:
        return float(text)
    except ValueError:
        return text


def option(help_: str, *names: str, **more: Any) -> Any:
    """Return an option whose help tells its default itself."""
    return typer.Option(*names, help=help_, show_default=False, **more)


def print_json(content: dict[str, Any]) -> None:
    """Print one machine-readable object, in a line."""
    print(json.dumps(content, ensure_ascii=False, allow_nan=False))

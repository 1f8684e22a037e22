"""Pages of HTML that need no network: what they share."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from steepest.diagnosis.svg import colours

if TYPE_CHECKING:
    import pandas as pd

DASH = "–"

TABLE_ROWS = 50
"""Rows of a table on a page, at most."""


def render(template: str, **parts: Any) -> str:
    """Return a page made of one of the package's templates, in which every text is escaped.

    Parameters
    ----------
    template
        Its path in the package, with slashes. It also knows ``light`` and ``dark``, the colours on either
        ground as CSS custom properties, ``table_rows``, and this module's functions as filters.
    **parts
        What it shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("steepest", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        number=number, sentence=sentence, duration=duration, thin=thin, fields=fields, zip=zip
    )
    page = environment.get_template(template)
    return page.render(light=colours(dark=False), dark=colours(dark=True), table_rows=TABLE_ROWS, **parts)


def thin(table: pd.DataFrame) -> pd.DataFrame:
    """Keep at most TABLE_ROWS rows, spread evenly, with the first and the last."""
    if len(table) <= TABLE_ROWS:
        return table
    return table.iloc[np.linspace(0, len(table) - 1, TABLE_ROWS).round().astype(int)]


def fields(entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[list[Any]]:
    """Lay entries out as the rows of a table; what one lacks is left blank."""
    return [[entry.get(name, "") for name in names] for entry in entries]


def number(value: object) -> str:
    """Write a number for a person: whole ones in full, others to 4 significant digits; words stay words.

    Examples
    --------
    >>> [number(value) for value in (1234567, 0.123456, 12345.678, 3e-07, 0.0, None, float("nan"), "relu")]
    ['1,234,567', '0.1235', '12,346', '3.000e−07', '0', '–', '–', 'relu']
    """
    if value is None:
        return DASH
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return str(value)
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}"
    real = float(value)
    if math.isnan(real):
        return DASH
    if real == 0 or math.isinf(real):
        written = f"{real:g}".replace("inf", "∞")
    elif 1e-4 <= abs(real) < 1e9:
        written = f"{real:,.{max(0, 3 - math.floor(math.log10(abs(real))))}f}"
    else:
        written = f"{real:.3e}"
    return written.replace("-", "−")


def sentence(words: str) -> str:
    """Begin words with a capital letter and end them with a full stop.

    Examples
    --------
    >>> sentence("the last epoch was reached")
    'The last epoch was reached.'
    """
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def duration(seconds: float) -> str:
    """Write a duration for a person.

    Examples
    --------
    >>> [duration(seconds) for seconds in (0.25, 83.2, 7384)]
    ['0.25 s', '1 min 23 s', '2 h 3 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

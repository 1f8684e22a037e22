"""Parts of a table as they stream by: some rows, and how to name the place of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class Part(NamedTuple):
    """Consecutive rows of a table.

    Attributes
    ----------
    rows
        The rows.
    locate
        Row, counted from 0 within these -> where it stands, for a person.
    """

    rows: pa.Table
    locate: Callable[[int], str]


def subset(part: Part, chosen: npt.NDArray[np.bool_]) -> Part:
    """Return the rows that are chosen: bool [rows]."""
    if chosen.all():
        return part
    numbers = np.flatnonzero(chosen)
    return Part(part.rows.filter(pa.array(chosen)), lambda row: part.locate(int(numbers[row])))


def piece(part: Part, first: int, count: int) -> Part:
    """Return ``count`` rows from ``first`` on."""
    return Part(part.rows.slice(first, count), lambda row: part.locate(first + row))

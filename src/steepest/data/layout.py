"""How encoded rows are kept: numbers as they are, each one-hot group as one small code."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float32]

Codes = npt.NDArray[np.uint8 | np.uint16]

ROWS_AT_ONCE = 1 << 12
"""How many rows are expanded at a time: few enough for their features to stay in the cache."""


class Packed(NamedTuple):
    """Rows as they are kept; `Layout.expand` turns them into features.

    Attributes
    ----------
    numbers
        float32 [rows, numbers].
    codes
        uint8 or uint16 [rows, codes]: in each group of 0/1 features the place of the 1; the group's width, or
        more, for none.
    """

    numbers: Features
    codes: Codes


class Run(NamedTuple):
    """Features side by side that come from one place.

    Attributes
    ----------
    source
        ``"numbers"``: as many columns of numbers, or ``"code"``: one code.
    width
        The number of features.
    """

    source: str
    width: int


@dataclass(frozen=True)
class Layout:
    """Where each feature of a packed row comes from; plain data.

    Parameters
    ----------
    runs
        All features from left to right. Numbers and codes are kept in the order of the features.

    Examples
    --------
    >>> layout = layout_of([Run("numbers", 1), Run("code", 3)])
    >>> rows = Packed(np.array([[0.5], [2.0]], np.float32), np.array([[1], [3]], np.uint8))
    >>> layout.expand(rows, out := np.empty((2, 4), np.float32))
    >>> out
    array([[0.5, 0. , 1. , 0. ],
           [2. , 0. , 0. , 0. ]], dtype=float32)
    """

    runs: tuple[Run, ...]

    @property
    def width(self) -> int:
        """The number of features."""
        return sum(run.width for run in self.runs)

    @property
    def numbers(self) -> int:
        """The number of columns of numbers."""
        return sum(run.width for run in self.runs if run.source == "numbers")

    @property
    def code_widths(self) -> tuple[int, ...]:
        """For each code the number of its features."""
        return tuple(run.width for run in self.runs if run.source == "code")

    @property
    def code_type(self) -> type[np.uint8] | type[np.uint16]:
        """The type of all codes: the smallest that holds the greatest width."""
        return np.uint8 if max(self.code_widths, default=0) < 1 << 8 else np.uint16

    @property
    def plain(self) -> bool:
        """Whether the features are the numbers, and nothing else."""
        return not self.code_widths

    def empty(self, rows: int) -> Packed:
        """Return room for packed rows."""
        return Packed(
            np.empty((rows, self.numbers), np.float32),
            np.empty((rows, len(self.code_widths)), self.code_type),
        )

    def expand(self, packed: Packed, out: Features) -> None:
        """Write every feature of packed rows.

        Parameters
        ----------
        packed
            Rows.
        out
            float32 [rows, width], C-contiguous.
        """
        if not out.flags.c_contiguous:
            raise ValueError("features are written to C-contiguous arrays only")
        if self.plain:
            np.copyto(out, packed.numbers)
            return
        for begins in range(0, len(out), ROWS_AT_ONCE):
            block = slice(begins, begins + ROWS_AT_ONCE)
            self._expand_block(packed.numbers[block], packed.codes[block], out[block])

    def _expand_block(self, numbers: Features, codes: Codes, out: Features) -> None:
        out.fill(0.0)
        number_places, widths, begins = self._places
        for theirs, ours in number_places:
            out[:, ours] = numbers[:, theirs]
        # A code that sets none writes a zero to its last feature, so that no row needs to be told apart.
        places = np.minimum(codes, widths - 1).astype(np.intp)
        places += begins
        places += (np.arange(len(out)) * out.shape[1])[:, None]
        out.reshape(-1)[places] = codes < widths

    @functools.cached_property
    def _places(self) -> tuple[list[tuple[slice, slice]], Codes, npt.NDArray[np.intp]]:
        """Where each run of numbers is and goes to, the width of each code, and its first feature."""
        numbers: list[tuple[slice, slice]] = []
        code_begins: list[int] = []
        theirs = ours = 0
        for source, width in self.runs:
            if source == "numbers":
                numbers.append((slice(theirs, theirs + width), slice(ours, ours + width)))
                theirs += width
            else:
                code_begins.append(ours)
            ours += width
        return numbers, np.array(self.code_widths, self.code_type), np.array(code_begins, np.intp)


def layout_of(runs: Iterable[Run]) -> Layout:
    """Return the layout of these runs; numbers side by side become one run."""
    merged: list[Run] = []
    for run in runs:
        if merged and run.source == merged[-1].source == "numbers":
            merged[-1] = Run("numbers", merged[-1].width + run.width)
        else:
            merged.append(run)
    return Layout(tuple(merged))

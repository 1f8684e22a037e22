"""How encoded rows are kept: numbers as they are, each one-hot group as one small code, the rest as places.

Dense features are expanded when rows are used. Sparse ones, of which a row has a few among very many, never
are: what is kept of them is where they are not 0.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float32]

Codes = npt.NDArray[np.uint8 | np.uint16]

DENSE = ("numbers", "code")
"""The sources of runs that are expanded."""

ROWS_AT_ONCE = 1 << 12
"""How many rows are expanded at a time: few enough for their features to stay in the cache."""


class Ragged(NamedTuple):
    """The sparse features of list columns: pairs of a place and a value, as many as each row has.

    Attributes
    ----------
    lengths
        int32 [rows, lists]: how many pairs a row has in each list column.
    places
        int32 [pairs]: row by row, list by list within a row; ascending within a row's list, each place once.
    values
        float32 [pairs]: finite, never 0.
    """

    lengths: npt.NDArray[np.int32]
    places: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]


class Packed(NamedTuple):
    """Rows as they are kept; `Layout.expand` turns numbers and codes into the dense features.

    Attributes
    ----------
    numbers
        float32 [rows, numbers].
    codes
        uint8 or uint16 [rows, codes]: in each group of 0/1 features the place of the 1; the group's width, or
        more, for none.
    places
        int32 [rows, categories]: the place of the feature that is 1 in each sparse category; `Layout.sparse`
        for none.
    ragged
        The pairs of list columns.
    """

    numbers: Features
    codes: Codes
    places: npt.NDArray[np.int32]
    ragged: Ragged


class Run(NamedTuple):
    """Features side by side that come from one place.

    Attributes
    ----------
    source
        Dense: ``"numbers"``, as many columns of numbers, or ``"code"``, one code. Sparse: ``"category"``, one
        place, or ``"list"``, pairs.
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
        All features from left to right. Numbers, codes, categories and lists are each kept in this order;
        each sparse run has the places that follow those of the sparse run before.

    Examples
    --------
    >>> layout = layout_of([Run("numbers", 1), Run("code", 3)])
    >>> rows = layout.empty(2)
    >>> rows.numbers[:], rows.codes[:] = [[0.5], [2.0]], [[1], [3]]
    >>> layout.expand(rows, out := np.empty((2, 4), np.float32))
    >>> out
    array([[0.5, 0. , 1. , 0. ],
           [2. , 0. , 0. , 0. ]], dtype=float32)
    """

    runs: tuple[Run, ...]

    @property
    def width(self) -> int:
        """The number of dense features."""
        return sum(run.width for run in self.runs if run.source in DENSE)

    @property
    def sparse(self) -> int:
        """The number of sparse features; also the place that stands for none."""
        return sum(run.width for run in self.runs if run.source not in DENSE)

    @property
    def categories(self) -> int:
        """The number of sparse categories, each with at most one feature a row."""
        return sum(run.source == "category" for run in self.runs)

    @property
    def lists(self) -> int:
        """The number of list columns, each with any number of features a row."""
        return sum(run.source == "list" for run in self.runs)

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
        """Whether the dense features are the numbers, and nothing else."""
        return not self.code_widths

    def empty(self, rows: int) -> Packed:
        """Return room for packed rows, in which no list has a pair yet."""
        return Packed(
            np.empty((rows, self.numbers), np.float32),
            np.empty((rows, len(self.code_widths)), self.code_type),
            np.empty((rows, self.categories), np.int32),
            Ragged(np.zeros((rows, self.lists), np.int32), np.empty(0, np.int32), np.empty(0, np.float32)),
        )

    def expand(self, packed: Packed, out: Features) -> None:
        """Write every dense feature of packed rows.

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
        for source, width in (run for run in self.runs if run.source in DENSE):
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

"""Columns of an Arrow table as what a Keras model takes: an array for each input, the target, row weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steepest.errors import SteepestError


@dataclass(frozen=True)
class Input:
    """What one input of a model takes.

    Parameters
    ----------
    name
        The input's; empty for the only one.
    columns
        Columns of numbers, and of arrays of numbers, whose elements stand side by side.
    shape
        Of a row.
    """

    name: str
    columns: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Columns:
    """Which columns are what.

    Parameters
    ----------
    inputs
        Of the model.
    widths
        Numbers in a row of each column of arrays.
    target, weights, held_out
        Columns; ``None`` for what there is not.
    """

    inputs: tuple[Input, ...]
    widths: dict[str, int]
    target: str
    weights: str | None
    held_out: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)

    @staticmethod
    def from_json(stored: dict[str, Any]) -> Columns:
        """Return what `to_json` wrote."""
        inputs = [
            Input(each["name"], tuple(each["columns"]), tuple(each["shape"])) for each in stored["inputs"]
        ]
        return Columns(**{**stored, "inputs": tuple(inputs)})

    def x(self, rows: pa.Table) -> Any:
        """Return an array ``[rows, *shape]`` of the only input, or one for each input's name."""
        arrays = {each.name: self._joined(rows, each) for each in self.inputs}
        return arrays.get("", arrays)

    def y(self, rows: pa.Table) -> np.ndarray:
        """Return the target ``[rows]``, or ``[rows, width]`` where it is a column of arrays."""
        return self._numbers(rows, self.target)

    def _joined(self, rows: pa.Table, wanted: Input) -> np.ndarray:
        out = np.empty((len(rows), math.prod(wanted.shape)), np.float32)
        first = 0
        for name in wanted.columns:
            numbers = self._numbers(rows, name).reshape(len(rows), self.widths.get(name, 1))
            out[:, first : first + numbers.shape[1]] = numbers
            first += numbers.shape[1]
        return out.reshape(len(rows), *wanted.shape)

    def _numbers(self, rows: pa.Table, name: str) -> np.ndarray:
        column = rows.column(name).combine_chunks()
        if name not in self.widths:
            numbers: np.ndarray = column.to_numpy(zero_copy_only=False)
            return numbers
        lengths, width = pc.list_value_length(column), self.widths[name]
        if pc.any(pc.not_equal(lengths, width)).as_py():
            other = next(each for each in pc.unique(lengths).to_pylist() if each != width)
            raise SteepestError(
                f"An array in the column {name!r} has {other:,} elements; {width:,} were expected.",
                hint="Give all rows arrays of one length.",
            )
        elements: np.ndarray = pc.list_flatten(column).to_numpy(zero_copy_only=False)
        return elements.reshape(len(rows), width)


def missing(rows: pa.Table) -> dict[str, int]:
    """Return how many rows have no value, or one that is not a number, in each column.

    Examples
    --------
    >>> missing(pa.table({"speed": [1.0, None, float("nan")], "image": [[1.0], [None], None]}))
    {'speed': 2, 'image': 2}
    """
    return {name: _missing(rows.column(name)) for name in rows.column_names}


def _missing(column: pa.ChunkedArray) -> int:
    if not pa.types.is_list(column.type):
        return int(pc.sum(pc.is_null(column, nan_is_null=True)).as_py() or 0)
    count: int = column.null_count
    for chunk in column.chunks:
        lost = pc.is_null(pc.list_flatten(chunk), nan_is_null=True)
        count += len(pc.unique(pc.list_parent_indices(chunk).filter(lost)))
    return count


def require_all(counts: Sequence[dict[str, int]]) -> None:
    """Refuse missing values, counted in parts of the rows: Keras would train on NaN.

    Raises
    ------
    SteepestError
        With the first such column.
    """
    for name in counts[0]:
        count = sum(each[name] for each in counts)
        if count:
            raise SteepestError(
                f"{count:,} rows have no number in the column {name!r}, and a Keras model takes no others.",
                hint="Fill or drop these rows (frame.fillna, frame.dropna), or leave the column out.",
            )

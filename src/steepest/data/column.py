"""What was learned about one column: plain data."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class PairTable(NamedTuple):
    """Where pairs of words are found.

    Attributes
    ----------
    words
        Word -> its number, of all words of pairs.
    keys
        int64 [pairs]: (number of the first word) 2^32 + (number of the second).
    places
        int32 [pairs]: the place of each.
    """

    words: dict[str, int]
    keys: npt.NDArray[np.int64]
    places: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Sparse:
    """How a column's values take places among the sparse features.

    Parameters
    ----------
    bits
        Values are hashed to 2^bits places; 0 where each value of `Column.values`, or each number, has a place
        of its own.
    separator
        What separates the values of a list that is written as text.
    columns, types
        The columns of a cross, and the types that they had.
    documents, counts
        The number of training rows with a text, and in how many of them each value of `Column.values` occurs:
        what tf-idf needs.
    frequent
        The values of a hashed column that are known by name: the most frequent of those that were counted.
    numbers
        Features have numbers below this one, which are their places; 0 where they have none.
    """

    bits: int = 0
    separator: str = ""
    columns: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    documents: int = 0
    counts: tuple[int, ...] = ()
    frequent: tuple[str, ...] = ()
    numbers: int = 0


@dataclass(frozen=True)
class Column:
    """What was learned about one column: all that turns its values into features.

    Parameters
    ----------
    name
        The column's name in the table; of a cross, its columns' names with " x " between them.
    kind
        "number", "boolean", "category", "time" or "missing" (only whether there is no value); of sparse
        features "category", "hashed", "cross", "list", "pairs" (maps to numbers), "text" (words and pairs of
        them), "words" or "characters".
    type
        The type that the training rows had, as in `steepest.data.summary.Summary`.
    mean, deviation
        The mean of the training values and the root of their mean squared deviation from it; for times in
        seconds. Of maps 0 and the root of the rows' mean squared length, √(Σ v² / rows).
    values
        The values that have a feature each, most frequent first.
    other
        Whether a category has a feature for all values that have none of their own.
    missing
        Whether there is a (dense) feature that says that the value is missing.
    parts
        Keys of `steepest.data.encode.PARTS`: what is taken from a time.
    sparse
        How values take places among the sparse features; None where all features are dense.
    """

    name: str
    kind: str
    type: str
    mean: float = 0.0
    deviation: float = 1.0
    values: tuple[str, ...] = ()
    other: bool = False
    missing: bool = False
    parts: tuple[str, ...] = ()
    sparse: Sparse | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the table that it is made of."""
        return self.sparse.columns if self.kind == "cross" and self.sparse else (self.name,)

    @functools.cached_property
    def place_of(self) -> dict[str, int]:
        """Value -> its place among the features of the column."""
        return {value: place for place, value in enumerate(self.values)}

    @functools.cached_property
    def pair_table(self) -> PairTable:
        """Where the values are found that are pairs of words, with a space between them."""
        pairs = [(place, value.split(" ")) for place, value in enumerate(self.values) if " " in value]
        different = dict.fromkeys(word for _, both in pairs for word in both)
        words = {word: number for number, word in enumerate(different)}
        keys = [words[first] << 32 | words[second] for _, (first, second) in pairs]
        return PairTable(words, np.array(keys, np.int64), np.array([place for place, _ in pairs], np.int32))

"""What a person wants of columns, where it is not what the rows would decide."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steepest.errors import SteepestError, nearest

KINDS = ("number", "category", "hashed", "text", "words", "characters", "list", "pairs")
"""The kinds that may be asked for; ``list:|`` is text in which ``|`` separates the values of a list."""

FEWEST_BITS, MOST_BITS = 10, 28


@dataclass(frozen=True)
class Wishes:
    """What is wanted of columns.

    Parameters
    ----------
    kinds
        Column -> one of `KINDS`, or ``list:`` and a separator.
    cross
        Columns of which each combination of values becomes a feature.
    hash_bits
        Hashed values have 2^hash_bits places.
    minimum_count
        In how many rows a value, a word or a pair of words occurs at least to have a feature of its own; None
        leaves it to the number of rows.
    sparse
        Whether columns may have sparse features at all; where not, text, lists and maps are not learned from,
        and of a large category the most frequent values are.

    Raises
    ------
    SteepestError
        If a wish can't be fulfilled for any table.

    Examples
    --------
    >>> Wishes(kinds={"merchant": "hashd"})
    Traceback (most recent call last):
    steepest.errors.SteepestError: column 'merchant' can't be of the kind 'hashd'. Did you mean 'hashed'? ...
    """

    kinds: Mapping[str, str] = field(default_factory=dict)
    cross: tuple[tuple[str, ...], ...] = ()
    hash_bits: int = 20
    minimum_count: int | None = None
    sparse: bool = True

    def __post_init__(self) -> None:
        for name, kind in self.kinds.items():
            if kind not in KINDS and not (kind.startswith("list:") and len(kind) > len("list:")):
                raise SteepestError(
                    f"column {name!r} can't be of the kind {kind!r}.",
                    hint=nearest(kind, KINDS) or f"Kinds are {', '.join(KINDS)} and list:SEPARATOR.",
                )
        for columns in self.cross:
            if len(columns) < 2 or len(set(columns)) < len(columns):
                raise SteepestError(
                    f"a cross is of two or more different columns, not of {', '.join(columns) or 'none'}.",
                    hint="Write --cross merchant,hour.",
                )
        if again := next((one for one, other in itertools.combinations(self.cross, 2) if one == other), None):
            raise SteepestError(f"the cross of {' and '.join(again)} was asked for twice.")
        if not FEWEST_BITS <= self.hash_bits <= MOST_BITS:
            raise SteepestError(
                f"hashed values have 2^{FEWEST_BITS} to 2^{MOST_BITS} places, not 2^{self.hash_bits}.",
                hint=f"Give a number of bits from {FEWEST_BITS} to {MOST_BITS}.",
            )
        if self.minimum_count is not None and self.minimum_count < 1:
            raise SteepestError(f"the minimum count is at least 1, not {self.minimum_count}.")

    def require(self, names: Sequence[str], leave_out: Sequence[str]) -> None:
        """Refuse wishes about columns that there are not, or that are not learned from.

        Parameters
        ----------
        names
            The columns of the table.
        leave_out
            Those that are no features.

        Raises
        ------
        SteepestError
            If there is such a wish, or a column has the name of a cross.
        """
        for name in (*self.kinds, *(each for columns in self.cross for each in columns)):
            if name not in names:
                raise SteepestError(f"the table has no column {name!r}.", hint=nearest(name, names))
            if name in leave_out:
                raise SteepestError(
                    f"column {name!r} is not learned from, so it has no kind and is in no cross.",
                    hint="Leave it out of --kind and --cross.",
                )
        if same := next((name for name in self.crosses if name in names), None):
            raise SteepestError(
                f"the table has a column {same!r}, which is what the cross would be called.",
                hint="Rename that column.",
            )

    def separator(self, name: str) -> str:
        """Return what separates the values of a list that is written as text; nothing for other columns."""
        return self.kinds.get(name, "").removeprefix("list:") if ":" in self.kinds.get(name, "") else ""

    @property
    def crosses(self) -> dict[str, tuple[str, ...]]:
        """Name of a cross -> its columns.

        Examples
        --------
        >>> Wishes(cross=(("merchant", "hour"),)).crosses
        {'merchant x hour': ('merchant', 'hour')}
        """
        return {" x ".join(columns): columns for columns in self.cross}


def wishes_from_json(stored: Mapping[str, Any]) -> Wishes:
    """Return the wishes that ``dataclasses.asdict`` made plain."""
    return Wishes(**{**stored, "cross": tuple(map(tuple, stored["cross"]))})

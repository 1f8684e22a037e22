"""The one error that a person meets: what happened, where, and what to try next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SteepestError(Exception):
    """Something that the user can put right: bad input, a missing file, a diverging descent.

    Parameters
    ----------
    what
        One sentence: what happened and where (file, line, column, step).
    hint
        One sentence: what to try next.

    Examples
    --------
    >>> print(SteepestError("the table has no column 'late'.", hint="Did you mean 'lat'?"))
    the table has no column 'late'. Did you mean 'lat'?
    """

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(f"{what} {hint}".strip())
        self.what = what
        self.hint = hint


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint that names the closest of the known names, or lists the first of them.

    Examples
    --------
    >>> nearest("adm", ["sgd", "adam"])
    "Did you mean 'adam'? Known: 'sgd', 'adam'."
    """
    known = list(names)
    lowered = {each.lower(): each for each in reversed(known)}
    match = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    guess = f"Did you mean {lowered[match[0]]!r}? " if match else ""
    listed = ", ".join(map(repr, known[:12])) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    return f"{guess}Known: {listed}."

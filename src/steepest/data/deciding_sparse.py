"""What becomes of text, large categories, lists, maps, crosses, and columns whose kind was asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from steepest.data.column import Column, Sparse
from steepest.data.columns import Dropped
from steepest.data.counting import most_frequent
from steepest.data.deciding import (
    FEWEST_TO_JUDGE,
    LONG_TEXT,
    MINIMUM_COUNT,
    MOST_FEATURES,
    SMALL_TABLE,
    learn_number,
)
from steepest.data.encode import CALLED
from steepest.data.maps import MAPS, NAMED, NESTED, NUMBERED
from steepest.data.sparse import TEXTS
from steepest.data.summary import Summary
from steepest.data.vocabulary import Words, ranked
from steepest.data.wishes import Wishes
from steepest.errors import SteepestError

MOST_LEARNED = 1 << 18
"""The greatest number of values or words of one column that have a feature each."""

FEWEST_ROWS = 2
"""In how many rows a word occurs at least to have a feature: one of a single row is only learned by heart."""

MOST_NUMBERS = 1 << 26
"""Features of a map have their number as their place if all numbers are below this one."""

CAN_BE = {
    "number": ("number", "integer"),
    "category": ("string", "integer"),
    "hashed": ("string", "integer", NUMBERED, NAMED),
    "list": ("list",),
    "pairs": (NUMBERED, NAMED),
    **dict.fromkeys(TEXTS, ("string",)),
}
"""Kind -> the types of columns that can be of it."""

TOO_RARE = "Its values differ too little, or are too rare each, to learn from."

NO_PAIRS = "No row has any value in it but 0."

NO_WORDS = "It holds text, but no word stands in as many rows as it takes to learn from one."


def decide_sparse(
    name: str, summary: Summary, words: Words | None, wishes: Wishes
) -> Column | Dropped | None:
    """Decide what becomes of a column that has sparse features, or a kind that was asked for.

    Parameters
    ----------
    name
        The column's name.
    summary
        The summary of all training rows.
    words
        What is known of its words, if it is text.
    wishes
        What is wanted.

    Returns
    -------
    Column, Dropped or None
        None where `steepest.data.deciding.decide` has the say.

    Raises
    ------
    SteepestError
        If it can't be of the kind that is wanted.
    """
    if summary.missing == summary.rows:
        return None
    wish = _wish(name, summary, wishes)
    kind = wish or _kind_of(summary)
    if not kind or (summary.minimum == summary.maximum and summary.type not in NESTED):
        return None
    if reason := _why_useless(summary):
        return Dropped(name, reason)
    if kind in TEXTS and words is not None:
        learned = _learn_text(name, kind, summary, words, wishes)
    elif kind == "number":
        learned = learn_number(name, summary)
    elif summary.type in MAPS:
        learned = _learn_pairs(name, kind, summary, wishes)
    else:
        learned = _learn_values(name, kind, summary, wishes)
    if learned is None and kind in TEXTS:
        return Dropped(name, NO_WORDS)
    if learned is None:
        return None if wish is None and summary.type == "string" else Dropped(name, TOO_RARE)
    return dataclasses.replace(learned, missing=summary.missing > 0)


def decide_cross(
    name: str, columns: tuple[str, ...], summaries: Mapping[str, Summary], wishes: Wishes
) -> Column | Dropped:
    """Decide what becomes of a cross.

    Parameters
    ----------
    name, columns
        Its name, and its columns.
    summaries
        Name -> summary, of the cross and of its columns.
    wishes
        What is wanted.

    Raises
    ------
    SteepestError
        If a column has values that are not crossed.
    """
    for each in columns:
        found = summaries[each].type
        if found not in ("string", "integer", "boolean", "null"):
            raise SteepestError(
                f"column {each!r} holds {CALLED[found]}: only text, whole numbers and booleans are crossed.",
                hint="Leave it out of --cross, or make a column of a few values of it.",
            )
    summary = summaries[name]
    if summary.minimum == summary.maximum:
        return Dropped(name, "All rows have the same combination, or none.")
    learned = _learn_values(name, "category", summary, wishes, always_sparse=True)
    if learned is None or learned.sparse is None:
        return Dropped(name, TOO_RARE)
    types = tuple(summaries[each].type for each in columns)
    sparse = dataclasses.replace(learned.sparse, columns=columns, types=types)
    return dataclasses.replace(learned, kind="cross", type="string", sparse=sparse)


def _wish(name: str, summary: Summary, wishes: Wishes) -> str | None:
    """Return the kind that is wanted of a column."""
    asked = wishes.kinds.get(name)
    kind = None if asked is None else asked.split(":")[0]
    if kind is None or summary.type in CAN_BE[kind]:
        return kind
    can = [each for each, types in CAN_BE.items() if summary.type in types]
    raise SteepestError(
        f"column {name!r} holds {CALLED[summary.type]}, which can't be of the kind {asked!r}.",
        hint=f"It can be of the kind {' or '.join(can)}." if can else "Leave its kind to the rows.",
    )


def _kind_of(summary: Summary) -> str | None:
    """Return the kind of sparse features that a column is of, by what it holds."""
    if summary.type in NESTED:
        return "list" if summary.type == "list" else "pairs"
    if summary.type != "string":
        return None
    mostly_different = _mean_count(summary) < 2
    if (mostly_different or summary.counted is None) and not is_short(summary):
        return "text"
    if mostly_different and summary.rows >= FEWEST_TO_JUDGE:
        return None
    return "category"


def _why_useless(summary: Summary) -> str:
    """Return why lists or maps say nothing that can be learned, or nothing."""
    if summary.type == "list" and summary.counted is not None:
        every = pc.min(summary.counted.field(1)).as_py() in (None, summary.rows)
        return "All of its lists hold the same values." if every else ""
    return NO_PAIRS if summary.type in MAPS and not summary.squared_deviation else ""


def is_short(summary: Summary) -> bool:
    """Tell whether values of text are too short, on the average, to be taken for more than names."""
    return summary.characters <= LONG_TEXT * (summary.rows - summary.missing)


def _mean_count(summary: Summary) -> float:
    """Return how often a value of text occurs, on the average over different values."""
    counted = summary.sampled if summary.counted is None else summary.counted
    if counted is None or not len(counted):
        return float("inf")
    return float(pc.mean(counted.field(1)).as_py())


def _learn_values(
    name: str, kind: str, summary: Summary, wishes: Wishes, *, always_sparse: bool = False
) -> Column | None:
    """Learn a category, a list or a cross, hashed where its values are not counted."""
    separator = wishes.separator(name)
    of = "string" if separator else summary.type
    counted: Any = summary.frequent if summary.counted is None else summary.counted
    if kind == "hashed" or summary.counted is None:
        named = () if counted is None else tuple(map(_text, most_frequent(counted).field(0).to_pylist()))
        sparse = Sparse(bits=wishes.hash_bits, separator=separator, frequent=named)
        return Column(name, "list" if kind == "list" else "hashed", of, sparse=sparse)
    least = wishes.minimum_count or (MINIMUM_COUNT if summary.rows >= SMALL_TABLE else 1)
    often = counted.filter(pc.greater_equal(counted.field(1), least))
    values = tuple(map(_text, most_frequent(often, MOST_LEARNED).field(0).to_pylist()))
    other = len(values) < len(counted)
    if not values:
        return None
    if kind == "category" and len(values) <= MOST_FEATURES and not always_sparse:
        return Column(name, kind, of, values=values, other=other)
    return Column(name, kind, of, values=values, other=other, sparse=Sparse(separator=separator))


def _learn_pairs(name: str, kind: str, summary: Summary, wishes: Wishes) -> Column | None:
    """Learn the numbers or names of a map's features, hashed where these can't all have a place."""
    squares = summary.squared_deviation or 0.0
    if not math.isfinite(squares):
        raise SteepestError(
            f"column {name!r} has values too large to compute with.", hint="Divide all of them by a number."
        )
    deviation = math.sqrt(squares / (summary.rows - summary.missing))
    column = Column(name, "pairs", summary.type, deviation=deviation)
    within = summary.type == NUMBERED and 0 <= summary.minimum <= summary.maximum < MOST_NUMBERS
    if kind != "hashed" and within:
        return dataclasses.replace(column, sparse=Sparse(numbers=summary.maximum + 1))
    if kind != "hashed" and summary.counted is not None:
        often = pc.greater_equal(summary.counted.field(1), wishes.minimum_count or FEWEST_ROWS)
        values = most_frequent(summary.counted.filter(often), MOST_LEARNED).field(0).to_pylist()
        return dataclasses.replace(column, values=tuple(values), sparse=Sparse()) if values else None
    known: Any = summary.frequent if summary.counted is None else most_frequent(summary.counted)
    named = () if known is None else tuple(known.field(0).to_pylist())
    return dataclasses.replace(column, sparse=Sparse(bits=wishes.hash_bits, frequent=named))


def _text(value: str | int) -> str:
    return str(value)


def _learn_text(name: str, kind: str, summary: Summary, words: Words, wishes: Wishes) -> Column | None:
    """Learn the words of a text, hashed where they are not counted."""
    if words.counted is None:
        named = () if words.frequent is None else tuple(words.frequent.field(0).to_pylist())
        return Column(name, kind, summary.type, sparse=Sparse(bits=wishes.hash_bits, frequent=named))
    terms = ranked(words, wishes.minimum_count or FEWEST_ROWS, MOST_LEARNED)
    if not terms:
        return None
    values, counts = zip(*terms, strict=True)
    sparse = Sparse(documents=summary.rows - summary.missing, counts=counts)
    return Column(name, kind, summary.type, values=values, sparse=sparse)

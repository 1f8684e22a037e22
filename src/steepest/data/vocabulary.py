"""The words of text columns, counted: counts of parts add up, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.counting import add, counts_of, most_frequent
from steepest.data.listing import texts_of
from steepest.data.passing import counts_from_text, counts_to_text
from steepest.data.tokens import Tokens, lengths_of, n_grams_of, pieces_of, tokens_of

MOST_WORDS = 1 << 20
"""How many different words of a column are counted ..."""

MOST_WORD_BYTES = 1 << 26
"""... of how many bytes together ..."""

MOST_PAIRS = 1 << 21
"""... and how many different pairs of them: some 150 MB in all. Beyond that, words are hashed."""


class Words(NamedTuple):
    """What is known of the words of a column.

    Attributes
    ----------
    counted
        In how many rows each word occurs, as `steepest.data.counting.count` returns it; None where there are
        too many words or pairs.
    pairs
        In how many rows each pair of neighbouring words occurs: of (place of the first in ``counted``) 2^32 +
        (place of the second).
    frequent
        The most frequent words and pairs of those that were counted before there were too many; else None.
    total, most
        The number of different words and pairs in a row, added up, and the greatest: not less than it is.
    """

    counted: Any  # pyarrow.StructArray or None, as the next two
    pairs: Any
    frequent: Any
    total: int
    most: int


NOTHING = Words(
    counts_of(pa.array([], pa.large_string()), np.zeros(0, np.int64)),
    counts_of(pa.array([], pa.int64()), np.zeros(0, np.int64)),
    *(None, 0, 0),
)
"""What is known of no rows."""


def count_words(
    texts: pa.Array | pa.ChunkedArray, times: npt.NDArray[np.int64], kind: str, *, counting: bool = True
) -> Words:
    """Count the words of some texts.

    Parameters
    ----------
    texts
        Text [texts]; a missing one has no words.
    times
        The number of rows in which each stands, [texts].
    kind
        "text" (words and pairs of neighbours), "words", or "characters" (n-grams of words).
    counting
        Whether words are counted, or only how many a row has.

    Examples
    --------
    >>> found = count_words(pa.array(["to be", "or not to be"]), np.array([1, 2]), "text")
    >>> found.counted.to_pylist()[:2], found.most
    ([{'values': 'to', 'counts': 3}, {'values': 'be', 'counts': 3}], 7)
    >>> [(term, count) for term, count in ranked(found, 3)]
    [('be', 3), ('to', 3), ('to be', 3)]
    """
    whole = texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([texts])
    found = NOTHING if counting else NOTHING._replace(counted=None, pairs=None)
    for begins, piece in pieces_of(texts_of(whole)):
        weights = times[begins : begins + len(piece)]
        counted = pairs = None
        lengths = lengths_of(piece, kind)
        if found.counted is not None:
            tokens = n_grams_of(tokens_of(piece)) if kind == "characters" else tokens_of(piece)
            counted, pairs = _count(tokens, weights, kind == "text")
        seen = Words(counted, pairs, None, int(lengths @ weights), int(lengths.max(initial=0)))
        found = merge_words(found, seen)
    return found


def merge_words(a: Words, b: Words) -> Words:
    """Return what is known of the rows of both."""
    total, most = a.total + b.total, max(a.most, b.most)
    if a.counted is None or b.counted is None:
        known = [each for each in (_known(a), _known(b)) if each is not None]
        frequent = most_frequent(add(*known) if len(known) == 2 else known[0]) if known else None
        return Words(None, None, frequent, total, most)
    if not len(a.counted) or not len(b.counted):
        return _bounded((a if len(a.counted) else b)._replace(total=total, most=most))
    counted = add(a.counted, b.counted)
    place = pc.index_in(b.counted.field(0), value_set=counted.field(0)).to_numpy().astype(np.int64)
    keys = b.pairs.field(0).to_numpy()
    moved = place[keys >> 32] << 32 | place[keys & 0xFFFFFFFF]
    pairs = add(a.pairs, counts_of(pa.array(moved), b.pairs.field(1).to_numpy()))
    return _bounded(Words(counted, pairs, None, total, most))


def _bounded(words: Words) -> Words:
    """Return what is known of words, only the most frequent ones if there are too many."""
    few = len(words.counted) <= MOST_WORDS and len(words.pairs) <= MOST_PAIRS
    if few and words.counted.field(0).nbytes <= MOST_WORD_BYTES:
        return words
    return words._replace(counted=None, pairs=None, frequent=_known(words))


def ranked(words: Words, least: int, most: int | None = None) -> list[tuple[str, int]]:
    """Return words and pairs, most frequent first (equally frequent ones by text), and their counts.

    Parameters
    ----------
    words
        What was counted.
    least
        The number of rows in which each occurs at least.
    most
        The greatest number of them.
    """
    table = most_frequent(_terms(words, least), most)
    return list(zip(*(table.field(each).to_pylist() for each in (0, 1)), strict=True))


def words_to_json(words: Words) -> dict[str, Any]:
    """Return what is known of words as plain JSON."""
    return {
        name: each if isinstance(each, int) else counts_to_text(each)
        for name, each in words._asdict().items()
    }


def words_from_json(stored: Mapping[str, Any]) -> Words:
    """Return what `words_to_json` wrote."""
    plain: dict[str, Any] = {
        name: each if isinstance(each, int) else counts_from_text(each) for name, each in stored.items()
    }
    return Words(**plain)


def _known(words: Words) -> pa.StructArray | None:
    """Return the most frequent words and pairs that are known by name."""
    return words.frequent if words.counted is None else most_frequent(_terms(words, 1))


def _terms(words: Words, least: int) -> pa.StructArray:
    """Return the counts of words and pairs, as text, that occur in so many rows."""
    counted, pairs = words.counted, words.pairs
    often = pairs.filter(pc.greater_equal(pairs.field(1), least))
    keys = often.field(0).to_numpy()
    ends = [counted.field(0).take(pa.array(each)) for each in (keys >> 32, keys & 0xFFFFFFFF)]
    alone = counted.filter(pc.greater_equal(counted.field(1), least))
    return counts_of(
        pa.concat_arrays(
            [alone.field(0), pc.binary_join_element_wise(*ends, pa.scalar(" ", pa.large_string()))]
        ),
        np.concatenate([alone.field(1).to_numpy(), often.field(1).to_numpy()]),
    )


def _count(
    tokens: Tokens, times: npt.NDArray[np.int64], pairs: bool
) -> tuple[pa.StructArray, pa.StructArray]:
    """Return in how many rows each word occurs, and each pair."""
    rows, codes, words = tokens
    counts = [_rows_with(codes, rows, times)]
    together = rows[1:] == rows[:-1] if pairs else np.zeros(max(len(rows) - 1, 0), bool)
    both = (codes[:-1] * len(words) + codes[1:])[together]
    keys, of_pairs = _rows_with(both, rows[1:][together], times)
    first, second = np.divmod(keys, max(len(words), 1))
    return (
        counts_of(words.take(pa.array(counts[0][0])), counts[0][1]),
        counts_of(pa.array(first << 32 | second), of_pairs),
    )


def _rows_with(
    codes: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], times: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the different codes, rising, and in how many rows each occurs."""
    bits = len(times).bit_length()
    keys = codes << bits | rows
    keys.sort()
    keys = keys[np.diff(keys, prepend=-1) > 0]
    found = keys >> bits
    firsts = np.flatnonzero(np.diff(found, prepend=-1))
    sums = np.add.reduceat(times[keys & ((1 << bits) - 1)], firsts) if len(firsts) else np.zeros(0, np.int64)
    return found[firsts], sums

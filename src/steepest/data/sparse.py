"""Text, large categories, lists, maps and crosses to places among the sparse features."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.column import Column, Sparse
from steepest.data.hashing import hashes_of_texts, mixed, places_of, places_of_pairs
from steepest.data.layout import Run
from steepest.data.listing import elements, split, texts_of
from steepest.data.maps import entries, summed
from steepest.data.tokens import Tokens, n_grams_of, pieces_of, tokens_of

ONE_A_ROW = ("category", "hashed", "cross")
"""Kinds of which a row has at most one feature; the others are lists."""

TEXTS = ("text", "words", "characters")
"""Kinds that are made of words."""

Places = npt.NDArray[np.int32]


class ListPairs(NamedTuple):
    """What is kept of a list column: the parts of `steepest.data.layout.Ragged`, with lengths [rows]."""

    lengths: npt.NDArray[np.int32]
    places: Places
    values: npt.NDArray[np.float32]


def sparse_of(column: Column) -> Sparse:
    """Return how a sparse column takes its places."""
    return column.sparse or Sparse()


def run_of(column: Column) -> Run:
    """Return where the features of a sparse column come from.

    Examples
    --------
    >>> run_of(Column("merchant", "hashed", "string", sparse=Sparse(bits=20)))
    Run(source='category', width=1048576)
    """
    sparse = sparse_of(column)
    width = 1 << sparse.bits if sparse.bits else sparse.numbers or len(column.values) + column.other
    return Run("category" if column.kind in ONE_A_ROW else "list", width)


def pack_sparse(column: Column, values: pa.ChunkedArray) -> Places | ListPairs:
    """Return the places of a sparse column's values, counted from its first one.

    Parameters
    ----------
    column
        What was learned.
    values
        Values [rows] as of `steepest.data.summary.plain_values`; of a cross what `crossed` returns.

    Returns
    -------
    numpy.ndarray or ListPairs
        For what has one feature a row, int32 [rows]: the place, or the width of the column's run for none.
    """
    if column.kind in TEXTS:
        return _text(column, values)
    if column.kind == "list":
        return _list(column, values)
    if column.kind == "pairs":
        return _map(column, values)
    return _category(column, texts_of(values))


def crossed(columns: Sequence[pa.ChunkedArray]) -> pa.DictionaryArray:
    """Return the combination of columns' values in each row, as text; none where one is missing.

    Commas and backslashes of a value get a backslash before them, so no two combinations are written alike.

    Examples
    --------
    >>> crossed([pa.chunked_array([["u", "u", None]]), pa.chunked_array([[3, 14, 3]])]).to_pylist()
    ['u, 3', 'u, 14', None]
    """
    return functools.reduce(_crossed, map(_escaped, columns))


def _escaped(values: pa.ChunkedArray) -> pa.DictionaryArray:
    encoded = texts_of(values).combine_chunks().dictionary_encode()
    escaped = pc.replace_substring_regex(encoded.dictionary, r"([\\,])", r"\\\1")
    return pa.DictionaryArray.from_arrays(encoded.indices, escaped.cast(pa.large_string()))


def _crossed(a: pa.DictionaryArray, b: pa.DictionaryArray) -> pa.DictionaryArray:
    width = max(len(b.dictionary), 1)
    both = pc.add(
        pc.multiply(a.indices.cast(pa.int64()), width), b.indices.cast(pa.int64())
    ).dictionary_encode()
    of_a, of_b = np.divmod(both.dictionary.to_numpy(zero_copy_only=False).astype(np.int64), width)
    ends = [each.dictionary.take(pa.array(of)) for each, of in ((a, of_a), (b, of_b))]
    texts = pc.binary_join_element_wise(*ends, pa.scalar(", ", pa.large_string()))
    return pa.DictionaryArray.from_arrays(both.indices, texts)


def _category(column: Column, texts: pa.ChunkedArray | pa.Array) -> Places:
    whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    encoded = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    none = run_of(column).width
    places = _places_of_values(column, encoded.dictionary)
    for_missing = (
        len(column.values) if column.other and not column.missing and column.kind == "category" else none
    )
    codes = pc.fill_null(encoded.indices, len(places)).to_numpy(zero_copy_only=False)
    of_code: Places = np.append(np.where(places < 0, none, places), for_missing).astype(np.int32)
    kept: Places = of_code[codes]
    return kept


def _list(column: Column, values: pa.ChunkedArray) -> ListPairs:
    separator = sparse_of(column).separator
    lists = split(values, separator) if separator else values
    if pa.types.is_null(lists.type):
        return _pairs(len(lists), np.empty(0, np.int64), 0)[0]
    rows, found = elements(lists)
    encoded = found.dictionary_encode()
    places = _places_of_values(column, encoded.dictionary)[encoded.indices.to_numpy()]
    bits = run_of(column).width.bit_length()
    return _pairs(len(lists), (rows << bits | places)[places >= 0], bits)[0]


def _map(column: Column, maps: pa.ChunkedArray) -> ListPairs:
    """Return the values of maps, divided by the column's deviation."""
    rows, keys, values = entries(maps)
    numbers = sparse_of(column).numbers
    if numbers:
        places = np.asarray(keys, np.int64)
        there = (places >= 0) & (places < numbers)
    else:
        encoded = keys.dictionary_encode()
        places = _places_of_values(column, texts_of(encoded.dictionary))[encoded.indices.to_numpy()]
        there = places >= 0
    if not there.all():
        rows, places, values = rows[there], places[there], values[there]
    rows, places, values = summed(rows, places, values)
    with np.errstate(over="ignore"):
        scaled = (values / column.deviation).astype(np.float32)
    there = scaled != 0
    lengths = np.bincount(rows[there], minlength=len(maps)).astype(np.int32)
    return ListPairs(lengths, places[there].astype(np.int32), scaled[there])


def _places_of_values(column: Column, values: pa.Array) -> npt.NDArray[np.int64]:
    """Return the places of different values, -1 for those that have none."""
    bits = sparse_of(column).bits
    if bits:
        return places_of(hashes_of_texts(values, column.name), bits).astype(np.int64)
    rest, place_of = len(column.values) if column.other else -1, column.place_of
    return np.array([place_of.get(value, rest) for value in values.to_pylist()], np.int64)


def _pairs(
    rows: int, keys: npt.NDArray[np.int64], bits: int
) -> tuple[ListPairs, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return each place of each row once, at value 1; how often it occurred, and in which row.

    Parameters
    ----------
    rows
        The number of rows.
    keys
        int64 [pairs]: row 2^bits + place. They are sorted in place.
    bits
        So many that any place has fewer.
    """
    keys.sort()
    is_first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    firsts = np.flatnonzero(is_first)
    kept = keys[firsts]
    owners = kept >> bits
    lengths = np.bincount(owners, minlength=rows).astype(np.int32)
    places = (kept & ((1 << bits) - 1)).astype(np.int32)
    counts = np.empty(len(firsts), np.int64)
    np.subtract(firsts[1:], firsts[:-1], out=counts[:-1])
    counts[-1:] = len(keys) - firsts[-1:]
    return ListPairs(lengths, places, np.ones(len(kept), np.float32)), counts, owners


def _text(column: Column, values: pa.ChunkedArray) -> ListPairs:
    parts = [_of_piece(column, piece) for _, piece in pieces_of(texts_of(values))]
    if not parts:
        return ListPairs(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
    return ListPairs(*map(np.concatenate, zip(*parts, strict=True)))


def _of_piece(column: Column, texts: pa.LargeStringArray) -> ListPairs:
    """Return tf-idf, or tf where words are hashed: (1 + ln count) idf, each row at length 1.

    The inverse document frequency is ln((1 + documents) / (1 + count of documents)) + 1, as in scikit-learn's
    TfidfVectorizer (``sublinear_tf=True``).
    """
    tokens = tokens_of(texts)
    if column.kind == "characters":
        tokens = n_grams_of(tokens)
    bits = run_of(column).width.bit_length()
    pairs, counts, owners = _pairs(len(texts), _keys(column, tokens, bits), bits)
    weights = (1.0 + np.log(np.arange(1, counts.max(initial=0) + 1)))[counts - 1]
    idf = inverse_frequencies(column)
    if idf is not None:
        weights *= idf[pairs.places]
    norms = np.sqrt(np.bincount(owners, weights * weights, len(texts)))
    return pairs._replace(values=(weights / norms[owners]).astype(np.float32))


def inverse_frequencies(column: Column) -> npt.NDArray[np.float64] | None:
    """Return the inverse document frequency of each value, [values]; None where they are hashed."""
    sparse = sparse_of(column)
    return None if sparse.bits else _inverse(sparse.documents, sparse.counts)


@functools.lru_cache(16)
def _inverse(documents: int, counts: tuple[int, ...]) -> npt.NDArray[np.float64]:
    frequencies: npt.NDArray[np.float64] = np.log((1.0 + documents) / (1.0 + np.array(counts))) + 1.0
    return frequencies


def _keys(column: Column, tokens: Tokens, bits: int) -> npt.NDArray[np.int64]:
    """Return row 2^bits + place of all words, and of pairs where they count, that have a place."""
    hashed = sparse_of(column).bits
    rows, codes, words = tokens
    first = rows << bits
    if hashed:
        hashes = hashes_of_texts(words, column.name)
        found = [first + places_of(hashes, hashed).astype(np.int64)[codes]]
        if column.kind == "text":
            # The lowest bits of mixed(first) + second, from those of both.
            begin, end = (places_of(each, hashed).astype(np.int64) for each in (mixed(hashes), hashes))
            places = (begin[codes[:-1]] + end[codes[1:]]) & ((1 << hashed) - 1)
            found.append((first[1:] + places)[rows[1:] == rows[:-1]])
        return np.concatenate(found)
    place_of = column.place_of
    places = np.array([place_of.get(word, -1) for word in words.to_pylist()], np.int64)[codes]
    found = [(first + places)[places >= 0]]
    if column.kind == "text":
        places = _places_of_pairs(column, words, codes)
        found.append((first[1:] + places)[(places >= 0) & (rows[1:] == rows[:-1])])
    return np.concatenate(found)


def _places_of_pairs(column: Column, words: pa.Array, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the place of each two neighbours, -1 for those that have none."""
    known, keys, places = column.pair_table
    numbers = np.array([known.get(word, -1) for word in words.to_pylist()], np.int64)[codes]
    sought = numbers[:-1] << 32 | numbers[1:]
    maybe = np.flatnonzero((numbers[:-1] >= 0) & (numbers[1:] >= 0))
    found = pc.fill_null(pc.index_in(pa.array(sought[maybe]), value_set=pa.array(keys)), -1)
    all_places = np.full(len(sought), -1, np.int64)
    all_places[maybe] = np.append(places, np.int32(-1))[found.to_numpy(zero_copy_only=False)]
    return all_places


def hashed_name(column: Column, place: int) -> str:
    """Return the name of the most frequent value that falls to a hashed place, if one is known."""
    names = _named(column.name, column.kind, sparse_of(column)).get(place, [])
    if not names:
        return ""
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


@functools.lru_cache(16)
def _named(name: str, kind: str, sparse: Sparse) -> dict[int, list[str]]:
    """Return place -> the values that are known by name and fall there, most frequent first."""
    both = [value.split(" ") if kind == "text" else [value] for value in sparse.frequent]
    first, last = (
        hashes_of_texts(pa.array([each[end] for each in both], pa.string()), name) for end in (0, -1)
    )
    is_pair = np.array([len(each) == 2 for each in both], bool)
    of_pairs = places_of_pairs(first, last, sparse.bits)
    places = np.where(is_pair, of_pairs, places_of(first, sparse.bits))
    named: dict[int, list[str]] = {}
    for value, place in zip(sparse.frequent, places.tolist(), strict=True):
        named.setdefault(place, []).append(value)
    return named


def sparse_value(column: Column, place: int) -> str:
    """Return the value or word that a sparse column's feature stands for.

    Examples
    --------
    >>> sparse_value(Column("merchant", "category", "string", values=("8812",), sparse=Sparse()), 0)
    '8812'
    """
    if sparse_of(column).numbers:
        return str(place)
    if not sparse_of(column).bits:
        return column.values[place] if place < len(column.values) else "any other"
    known = hashed_name(column, place)
    return f"{known} (bucket {place})" if known else f"bucket {place}"


def sparse_name(column: Column, place: int) -> str:
    """Return the name of a sparse column's feature.

    Examples
    --------
    >>> merchant = Column("merchant", "category", "string", values=("8812",), other=True, sparse=Sparse())
    >>> sparse_name(merchant, 0), sparse_name(merchant, 1)
    ('merchant = 8812', 'merchant = any other')
    >>> sparse_name(Column("body", "text", "string", sparse=Sparse(bits=20)), 51)
    'body: bucket 51'
    """
    value = sparse_value(column, place)
    is_unnamed = bool(sparse_of(column).bits) and value == f"bucket {place}"
    sign = " =" if column.kind in ONE_A_ROW and not is_unnamed else ":"
    return f"{column.name}{sign} {value}"

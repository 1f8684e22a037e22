"""Text, large categories, lists and crosses to places among the sparse features."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from steepest.data.column import Column, Sparse
from steepest.data.hashing import hashes_of_pairs, hashes_of_texts, places_of
from steepest.data.layout import Run
from steepest.data.tokens import Tokens, n_grams_of, pieces_of, tokens_of

ONE_A_ROW = ("category", "hashed", "cross")
"""Kinds of which a row has at most one feature; the others are lists."""

TEXTS = ("text", "words", "characters")
"""Kinds that are made of words."""

Places = npt.NDArray[np.int32]


class Pairs(NamedTuple):
    """What is kept of a list column: the parts of `steepest.data.layout.Ragged`, with lengths [rows]."""

    lengths: npt.NDArray[np.int32]
    places: Places
    values: npt.NDArray[np.float32]


def sparse_of(column: Column) -> Sparse:
    """Return how a sparse column takes its places."""
    assert column.sparse is not None
    return column.sparse


def run_of(column: Column) -> Run:
    """Return where the features of a sparse column come from.

    Examples
    --------
    >>> run_of(Column("merchant", "hashed", "string", sparse=Sparse(bits=20)))
    Run(source='category', width=1048576)
    """
    bits = sparse_of(column).bits
    width = 1 << bits if bits else len(column.values) + column.other
    return Run("category" if column.kind in ONE_A_ROW else "list", width)


def pack_sparse(column: Column, values: pa.ChunkedArray) -> Places | Pairs:
    """Return the places of a sparse column's values, counted from its first one.

    Parameters
    ----------
    column
        What was learned.
    values
        Values [rows], as `steepest.data.summary.plain_values` returns them; of a cross what `crossed` returns.

    Returns
    -------
    numpy.ndarray or Pairs
        For what has one feature a row, int32 [rows]: the place, or the width of the column's run for none.
    """
    if column.kind in TEXTS:
        return _text(column, values)
    if column.kind == "list":
        return _list(column, values)
    return _category(column, texts_of(values))


def texts_of(values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Return values as text: whole numbers as their digits, also where they are kept as decimals.

    Examples
    --------
    >>> texts_of(pa.array([8812.0, None, 0.5])).to_pylist(), texts_of(pa.array([True])).to_pylist()
    (['8812', None, '0.5'], ['true'])
    """
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_floating(values.type):
        whole = pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), 2.0**53))
        digits = pc.if_else(whole, values, None).cast(pa.int64()).cast(pa.string())
        return pc.coalesce(digits, values.cast(pa.string()))
    return values if pa.types.is_large_string(values.type) else values.cast(pa.string())


def split(texts: pa.ChunkedArray, separator: str) -> pa.ChunkedArray:
    """Return text as lists of what stands between separators, without white space around it.

    Examples
    --------
    >>> split(pa.chunked_array([["red| blue", "", None]]), "|").to_pylist()
    [['red', 'blue'], [''], None]
    """
    chunks = [pc.split_pattern(chunk, separator) for chunk in texts_of(texts).chunks]
    trimmed = [
        type(each).from_arrays(
            each.offsets,
            pc.utf8_trim_whitespace(each.values),
            mask=each.is_null() if each.null_count else None,
        )
        for each in map(_compact, chunks)
    ]
    return pa.chunked_array(trimmed, trimmed[0].type if trimmed else pa.list_(pa.string()))


def _compact(lists: pa.ListArray) -> pa.ListArray:
    """Return lists that begin at the beginning of their memory, as some functions of Arrow need them."""
    return pa.concat_arrays([lists]) if lists.offset == 0 else lists.take(pa.array(np.arange(len(lists))))


def elements(lists: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """Return the values that stand in lists, but for missing and empty ones, and the row of each.

    Examples
    --------
    >>> rows, values = elements(pa.chunked_array([[["u", None], None, [], ["v", "u", ""]]]))
    >>> rows.tolist(), values.to_pylist()
    ([0, 2, 2], ['u', 'v', 'u'])
    """
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    rows = np.repeat(np.arange(len(lists)), lengths)
    values = texts_of(pc.list_flatten(lists))
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    there = pc.fill_null(pc.not_equal(values, ""), False)
    return rows[np.asarray(there)], values.filter(there)


def crossed(columns: Sequence[pa.ChunkedArray]) -> pa.DictionaryArray:
    """Return the combination of columns' values in each row, as text; none where one is missing.

    Commas and backslashes of a value get a backslash before them, so that no two combinations are written alike.

    Examples
    --------
    >>> crossed([pa.chunked_array([["u", "u", None]]), pa.chunked_array([[3, 14, 3]])]).to_pylist()
    ['u, 3', 'u, 14', None]
    """
    whole: pa.DictionaryArray | None = None
    for column in columns:
        encoded = texts_of(column).combine_chunks().dictionary_encode()
        escaped = pc.replace_substring_regex(encoded.dictionary, r"([\\,])", r"\\\1")
        part = pa.DictionaryArray.from_arrays(encoded.indices, escaped.cast(pa.large_string()))
        whole = part if whole is None else _crossed(whole, part)
    assert whole is not None
    return whole


def _crossed(a: pa.DictionaryArray, b: pa.DictionaryArray) -> pa.DictionaryArray:
    width = max(len(b.dictionary), 1)
    both = pc.add(
        pc.multiply(a.indices.cast(pa.int64()), width), b.indices.cast(pa.int64())
    ).dictionary_encode()
    of_a, of_b = np.divmod(both.dictionary.to_numpy(zero_copy_only=False).astype(np.int64), width)
    texts = pc.binary_join_element_wise(
        a.dictionary.take(pa.array(of_a)), b.dictionary.take(pa.array(of_b)), ", "
    )
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
    return np.append(np.where(places < 0, none, places), for_missing).astype(np.int32)[codes]


def _list(column: Column, values: pa.ChunkedArray) -> Pairs:
    separator = sparse_of(column).separator
    lists = split(values, separator) if separator else values
    if pa.types.is_null(lists.type):
        return _pairs(len(lists), np.empty(0, np.int64), np.empty(0, np.int64), 1)[0]
    rows, found = elements(lists)
    encoded = found.dictionary_encode()
    places = _places_of_values(column, encoded.dictionary)[encoded.indices.to_numpy()]
    return _pairs(len(lists), rows[places >= 0], places[places >= 0], run_of(column).width)[0]


def _places_of_values(column: Column, values: pa.Array) -> npt.NDArray[np.int64]:
    """Return the places of different values, -1 for those that have none."""
    bits = sparse_of(column).bits
    if bits:
        return places_of(hashes_of_texts(values, column.name), bits).astype(np.int64)
    rest, place_of = len(column.values) if column.other else -1, column.place_of
    return np.array([place_of.get(value, rest) for value in values.to_pylist()], np.int64)


def _pairs(
    rows: int, of: npt.NDArray[np.int64], places: npt.NDArray[np.int64], width: int
) -> tuple[Pairs, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return each place of each row once, at value 1; and how often it occurred, and in which row."""
    keys = of * width + places
    keys.sort()
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    counts = np.diff(firsts, append=len(keys))
    owners, kept = np.divmod(keys[firsts], width)
    lengths = np.bincount(owners, minlength=rows).astype(np.int32)
    return Pairs(lengths, kept.astype(np.int32), np.ones(len(kept), np.float32)), counts, owners


def _text(column: Column, values: pa.ChunkedArray) -> Pairs:
    parts = [_of_piece(column, piece) for _, piece in pieces_of(texts_of(values))]
    if not parts:
        return Pairs(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def _of_piece(column: Column, texts: pa.LargeStringArray) -> Pairs:
    """Return tf-idf, or tf where words are hashed: (1 + ln count) idf, each row at length 1.

    The inverse document frequency is ln((1 + documents) / (1 + count of documents)) + 1, as in scikit-learn's
    TfidfVectorizer (``sublinear_tf=True``).
    """
    tokens = tokens_of(texts)
    if column.kind == "characters":
        tokens = n_grams_of(tokens)
    rows, places = _terms(column, tokens)
    pairs, counts, owners = _pairs(len(texts), rows, places, run_of(column).width)
    weights = 1.0 + np.log(counts)
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


def _terms(column: Column, tokens: Tokens) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows and places of all words, and of pairs where they count, that have a place."""
    bits = sparse_of(column).bits
    rows, codes, words = tokens
    if bits:
        hashes = hashes_of_texts(words, column.name)
        places = places_of(hashes, bits).astype(np.int64)[codes]
    else:
        place_of = column.place_of
        places = np.array([place_of.get(word, -1) for word in words.to_pylist()], np.int64)[codes]
    if column.kind == "text":
        together = rows[1:] == rows[:-1]
        first, second = codes[:-1][together], codes[1:][together]
        if bits:
            of_pairs = places_of(hashes_of_pairs(hashes[first], hashes[second]), bits).astype(np.int64)
        else:
            of_pairs = _places_of_pairs(column, words, first, second)
        rows, places = np.concatenate([rows, rows[1:][together]]), np.concatenate([places, of_pairs])
    return (rows, places) if bits else (rows[places >= 0], places[places >= 0])


def _places_of_pairs(
    column: Column, words: pa.Array, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    known, keys, places = column.pair_table
    numbers = np.array([known.get(word, -1) for word in words.to_pylist()], np.int64)
    sought = numbers[first] << 32 | numbers[second]  # negative where either is in no pair, which no key is
    found = pc.index_in(pa.array(sought), value_set=pa.array(keys))
    return np.append(places, -1)[pc.fill_null(found, -1).to_numpy(zero_copy_only=False)].astype(np.int64)


def hashed_name(column: Column, place: int) -> str:
    """Return what is known by name of a hashed place: the most frequent value that falls there, or nothing."""
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
    places = places_of(np.where(is_pair, hashes_of_pairs(first, last), first), sparse.bits)
    named: dict[int, list[str]] = {}
    for value, place in zip(sparse.frequent, places.tolist(), strict=True):
        named.setdefault(place, []).append(value)
    return named


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
    sign = " =" if column.kind in ONE_A_ROW else ":"
    if not sparse_of(column).bits:
        value = column.values[place] if place < len(column.values) else "any other"
        return f"{column.name}{sign} {value}"
    known = hashed_name(column, place)
    return f"{column.name}{sign} {known} (bucket {place})" if known else f"{column.name}: bucket {place}"

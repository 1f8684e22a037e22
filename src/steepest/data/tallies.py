"""What is counted for sparse features, a block of rows at a time: words, and how many values a row has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from steepest.data.deciding_sparse import is_short
from steepest.data.listing import LISTS, elements, split
from steepest.data.maps import MAPS, NESTED, lengths_of
from steepest.data.sparse import TEXTS, crossed
from steepest.data.summary import Summary, plain_values
from steepest.data.vocabulary import (
    NOTHING,
    Words,
    count_words,
    merge_words,
    words_from_json,
    words_to_json,
)
from steepest.data.wishes import Wishes

Tallied = dict[str, Words]
"""Name of a column of text, lists or maps -> what is known of its words, or how many values a row has."""

Typed = tuple[pa.ChunkedArray, str | None]
"""Values, and the type that they stand for where it is not their own."""


def with_nested(rows: pa.Table, types: Mapping[str, str]) -> pa.Table:
    """Return rows in which columns of lists and of maps have one type each.

    Parameters
    ----------
    rows
        A table.
    types
        Name of a column -> its type as in `steepest.data.summary.Summary`.
    """
    for name, kind in types.items():
        values, wanted = rows[name], NESTED.get(kind)
        if wanted is None or values.type == wanted or pa.types.is_null(values.type):
            continue
        if kind == "list":
            nested = pa.chunked_array([_as_lists_of_text(chunk) for chunk in values.chunks], wanted)
        else:
            nested = values.cast(wanted, safe=False)  # large integers are rounded
        rows = rows.set_column(rows.column_names.index(name), name, nested)
    return rows


def _as_lists_of_text(lists: pa.Array) -> pa.Array:
    nested = lists.type.value_type
    if pa.types.is_dictionary(nested):  # which Arrow does not convert within lists
        lists = lists.cast(pa.list_(pa.dictionary(pa.int32(), nested.value_type)))
        whole = pa.concat_arrays([lists])
        lists = pa.ListArray.from_arrays(
            whole.offsets, whole.values.cast(nested.value_type), mask=whole.is_null()
        )
    return lists.cast(LISTS)


def sparse_columns(values: Mapping[str, pa.ChunkedArray], wishes: Wishes) -> dict[str, Typed]:
    """Return the columns that wishes make of others: lists that are written as text, and crosses."""
    lists = {name: wishes.separator(name) for name in values if wishes.separator(name)}
    made: dict[str, Typed] = {
        name: (_as_text_lists(values[name], separator), "list") for name, separator in lists.items()
    }
    for name, columns in wishes.crosses.items():
        parts = [plain_values(values[each]) for each in columns]
        if all(_is_crossed(part.type) for part in parts):
            made[name] = (pa.chunked_array([crossed(parts)]), "string")
        else:  # refused once everything is known
            made[name] = (pa.chunked_array([pa.nulls(len(parts[0]), pa.string())]), "string")
    return made


def _as_text_lists(values: pa.ChunkedArray, separator: str) -> pa.ChunkedArray:
    plain = plain_values(values)
    text = pa.types.is_string(plain.type) or pa.types.is_large_string(plain.type)
    return split(plain if text else plain.cast(pa.string()), separator).cast(LISTS)


def _is_crossed(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_integer,
        pa.types.is_boolean,
        pa.types.is_null,
    )
    return any(test(kind) for test in tests)


def tallied(
    values: Mapping[str, pa.ChunkedArray], found: Mapping[str, Summary], before: Tallied, wishes: Wishes
) -> Tallied:
    """Return what is counted of a block of rows.

    Parameters
    ----------
    values
        Name -> values [rows].
    found
        Name -> the summary of these values.
    before
        What is known of the rows before.
    wishes
        What is wanted.
    """
    return {
        name: _words(name, each, found[name], before.get(name, NOTHING), wishes)
        for name, each in values.items()
        if found[name].type in NESTED or _may_be_text(name, found[name], wishes)
    }


def _may_be_text(name: str, summary: Summary, wishes: Wishes) -> bool:
    is_text = summary.type == "string" and name not in wishes.crosses
    return is_text and wishes.kinds.get(name, "text") in TEXTS


def _words(name: str, values: pa.ChunkedArray, summary: Summary, before: Words, wishes: Wishes) -> Words:
    if summary.type in NESTED:
        lengths = lengths_of(values) if summary.type in MAPS else np.bincount(elements(values)[0])
        return NOTHING._replace(total=int(lengths.sum()), most=int(lengths.max(initial=0)))
    if summary.counted is None:
        texts, times = plain_values(values), np.ones(len(values), np.int64)
    else:  # each different text once
        texts, times = summary.counted.field(0), summary.counted.field(1).to_numpy()
    kind = wishes.kinds.get(name, "text")
    return count_words(texts, times, kind, counting=before.counted is not None)


def merge_tallied(a: Tallied, b: Tallied) -> Tallied:
    """Return what is known of the rows of both."""
    return {name: merge_words(a.get(name, NOTHING), b.get(name, NOTHING)) for name in dict.fromkeys((*a, *b))}


def without_hopeless(found: Tallied, summaries: Mapping[str, Summary], wishes: Wishes) -> Tallied:
    """Return what was counted without the words of columns of very many short values, which are no text.

    Should longer values follow, their words are hashed.
    """
    return {
        name: words._replace(counted=None, pairs=None, frequent=None)
        if name not in wishes.kinds and summaries[name].counted is None and is_short(summaries[name])
        else words
        for name, words in found.items()
    }


def tallied_to_json(found: Tallied) -> dict[str, Any]:
    """Return what was counted as plain JSON."""
    return {name: words_to_json(words) for name, words in found.items()}


def tallied_from_json(stored: Mapping[str, Any]) -> Tallied:
    """Return what `tallied_to_json` wrote."""
    return {name: words_from_json(each) for name, each in stored.items()}

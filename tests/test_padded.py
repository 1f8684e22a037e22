"""Sparse features column by column: places and values side by side."""

from __future__ import annotations

import dataclasses
import mmap

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from steepest.data import blocks as block_module
from steepest.data import order, pieces
from steepest.data.blocks import Blocks
from steepest.data.padded import Padded, Placed, longest, taken
from steepest.data.pairs import in_strips, pairs_of

WIDTHS = (5, 9)
"""Places of two lists, the second after the first."""


@st.composite
def listed(draw):
    """Return rows of two lists, ``[row][list] -> {place: value}``, and the same in strips."""
    of_list = [st.dictionaries(st.integers(0, width - 1), st.integers(1, 9)) for width in WIDTHS]
    rows = draw(st.lists(st.tuples(*of_list), min_size=1, max_size=9))
    lengths = np.array([[len(each) for each in row] for row in rows])
    pairs = [
        (first + place, value)
        for row in rows
        for first, each in zip((0, WIDTHS[0]), row, strict=True)
        for place, value in sorted(each.items())
    ]
    places, values = np.array(pairs, np.float32).reshape(-1, 2).T
    strips = in_strips(lengths, places.astype(np.int32), values, sum(WIDTHS), draw(st.integers(1, 5)))
    return rows, strips


def both(pairs, number):
    first = number * WIDTHS[0]
    most = longest(pairs, number)
    return [Padded(pairs, number, part, first, WIDTHS[number], most) for part in ("places", "values")]


@given(listed(), st.integers(0, 1), st.data())
def test_a_list_side_by_side_is_what_the_rows_hold(found, number, data):
    rows, pairs = found
    places, values = both(pairs, number)
    numbers = np.array(data.draw(st.lists(st.integers(-1, len(rows) - 1), min_size=1, max_size=12)))
    held, weights = (taken(each, numbers) for each in (places, values))
    assert (held.dtype, weights.dtype) == (places.dtype, values.dtype) == (np.int32, np.float32)
    assert held.shape == weights.shape
    assert places.shape == values.shape == (len(rows), places.shape[1])
    assert held.shape[1] <= places.shape[1]
    for row, some, theirs in zip(numbers, held, weights, strict=True):
        real = some < WIDTHS[number]
        expected = rows[row][number] if row >= 0 else {}
        assert dict(zip(some[real].tolist(), theirs[real].tolist(), strict=True)) == expected
        assert (some[~real] == WIDTHS[number]).all()
        assert not theirs[~real].any()


@given(listed(), st.integers(1, 4), st.integers(0, 3))
def test_windows_hold_the_rows_whatever_their_length(found, size, seed):
    rows, pairs = found
    blocks = Blocks(tuple(both(pairs, 1)), len(rows), size, seed, padded=False)
    seen = []
    for window in blocks.epochs(0, 1):
        places, values = window.arrays
        assert places.shape == values.shape == (*window.rows.shape, places.shape[2])
        for row, some in zip(window.rows.ravel(), places.reshape(-1, places.shape[2]), strict=True):
            assert sorted(some[some < WIDTHS[1]].tolist()) == sorted(rows[row][1])
            seen.append(row)
    assert sorted(seen) == list(range(len(rows)))


def test_the_greatest_length_is_of_the_list_alone():
    lengths = np.array([[1, 7], [2, 0], [0, 3]])
    count = lengths.sum()
    pairs = in_strips(lengths, np.zeros(count, np.int32), np.ones(count, np.float32), 1, length=2)
    assert [longest(pairs, number) for number in (0, 1)] == [1, 4]
    assert [Padded(pairs, number, "places", 0, 1, longest(pairs, number)).shape for number in (0, 1)] == [
        (3, 2),
        (3, 8),
    ]


def test_places_of_a_category_count_from_its_first():
    places = np.array([[2, 14], [5, 10], [20, 20]], np.int32)  # 20 is none
    first, second = Placed(places, 0, 0, 10), Placed(places, 1, 10, 10)
    assert taken(first, np.array([2, 0, 1])).tolist() == [[10], [2], [5]]
    assert taken(second, np.array([2, 0, 1])).tolist() == [[10], [4], [0]]


def views(pairs, places, fleeting):
    """Return what a model with a list and a category takes of rows."""
    most = longest(pairs, 0)
    lists = [Padded(pairs, 0, part, 0, 50, most) for part in ("places", "values")]
    return (*lists, Placed(places, 0, 50, 9, fleeting))


@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_rows_that_are_let_go_are_those_in_memory(tmp_path, monkeypatch, shuffle):
    for module in (order, pieces):
        monkeypatch.setattr(module, "BLOCK", 16)
    monkeypatch.setattr(order, "WINDOW", 64)
    monkeypatch.setattr(block_module, "WINDOW_BYTES", 4000)
    told = []
    monkeypatch.setattr(pieces, "advise", lambda array, *what: told.append((id(array), *what)))
    matrix = scipy.sparse.random_array((200, 50), density=0.1, rng=2, format="csr", dtype=np.float32)
    inside = pairs_of(matrix, 4)
    places = np.random.default_rng(0).integers(50, 60, (200, 1)).astype(np.int32)
    arrays = {name: stored(tmp_path, getattr(inside, name)) for name in ("places", "values", "lists")}
    outside = dataclasses.replace(inside, **arrays, fleeting=True)
    held, let_go = (
        Blocks(views(*rows), 200, 7, 1, shuffle=shuffle, padded=False)
        for rows in ((inside, places, False), (outside, stored(tmp_path, places), True))
    )
    windows = zip(held.epochs(0, 1), let_go.epochs(0, 1), strict=True)
    for mine, theirs in windows:
        for one, other in zip(mine.arrays, theirs.arrays, strict=True):
            np.testing.assert_array_equal(one, other)
    once = sorted(told)
    told.clear()
    for _ in Blocks((outside, let_go.arrays[2]), 200, 7, 1, shuffle=shuffle, padded=False).epochs(0, 1):
        pass
    assert sorted(told) == once, "both halves of a list are read together"
    gone = {array for array, *_, advice in once if advice == mmap.MADV_DONTNEED}
    assert gone == {*map(id, arrays.values()), id(let_go.arrays[2].places)}


def stored(folder, array):
    """Return an array as it is in a mapped file."""
    file = folder / f"{len(list(folder.iterdir()))}.bin"
    array.tofile(file)
    return np.memmap(file, array.dtype, "r", shape=array.shape)

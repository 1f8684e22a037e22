"""Sparse features column by column: places and values side by side."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steepest.data.blocks import Blocks
from steepest.data.padded import Padded, Placed, taken
from steepest.data.pairs import in_strips

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
    return [Padded(pairs, number, part, first, WIDTHS[number]) for part in ("places", "values")]


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
    assert [Padded(pairs, number, "places", 0, 1).shape for number in (0, 1)] == [(3, 2), (3, 8)]


def test_places_of_a_category_count_from_its_first():
    places = np.array([[2, 14], [5, 10], [20, 20]], np.int32)  # 20 is none
    first, second = Placed(places, 0, 0, 10), Placed(places, 1, 10, 10)
    assert taken(first, np.array([2, 0, 1])).tolist() == [[10], [2], [5]]
    assert taken(second, np.array([2, 0, 1])).tolist() == [[10], [4], [0]]

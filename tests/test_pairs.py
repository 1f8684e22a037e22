"""Sparse rows in strips, and what steps look up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array, random_array

from steepest.data.pairs import (
    LENGTHS,
    NOWHERE,
    bucket,
    in_strips,
    numbers_for,
    pairs_of,
    strip_length,
    touched,
)


def dense(strips, rows, width, lists=1):
    """Return what one batch of strips stands for, ``[rows, lists, width]``."""
    out = np.zeros((rows * lists, width), np.float64)
    real = strips.places != NOWHERE
    assert not strips.values[~real].any()
    owners = np.broadcast_to(strips.owners[:, None], strips.places.shape)
    np.add.at(out, (owners[real], strips.places[real].astype(int)), strips.values[real])
    return out.reshape(rows, lists, width)


@st.composite
def matrices(draw):
    rows, width = draw(st.integers(1, 12)), draw(st.integers(1, 30))
    density, seed = draw(st.sampled_from([0, 0.1, 0.5, 1])), draw(st.integers(0, 99))
    return csr_array(random_array((rows, width), density=density, rng=seed, dtype=np.float32))


@given(matrices(), st.integers(1, 17), st.data())
def test_batches_hold_the_rows_that_were_asked_for(matrix, length, data):
    pairs = pairs_of(matrix, length)
    steps, size = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    numbers = st.integers(-1, matrix.shape[0] - 1)
    rows = np.array(data.draw(st.lists(numbers, min_size=steps * size, max_size=steps * size)))
    batches = pairs.batches(rows.reshape(steps, size))
    whole = np.vstack([matrix.toarray(), np.zeros(matrix.shape[1])])  # -1 is the last row, which is empty
    for step in range(steps):
        found = dense(type(batches)(*(each[step] for each in batches)), size, matrix.shape[1])
        np.testing.assert_allclose(found[:, 0], whole[rows.reshape(steps, size)[step]])


@given(matrices(), st.data())
def test_some_rows_are_those_rows(matrix, data):
    numbers = st.integers(0, matrix.shape[0] - 1)
    rows = np.array(data.draw(st.lists(numbers, max_size=9)), np.int64)
    some = pairs_of(matrix, 3).subset(rows)
    assert len(some) == len(rows)
    batches = some.batches(np.arange(len(rows))[None]) if len(rows) else None
    if batches is not None:
        found = dense(type(batches)(*(each[0] for each in batches)), len(rows), matrix.shape[1])
        np.testing.assert_allclose(found[:, 0], matrix.toarray()[rows])


def test_lists_of_a_row_are_kept_apart_and_shuffled_one_by_one():
    lengths = np.array([[2, 1], [0, 3], [1, 0]])
    places, values = np.array([5, 6, 1, 2, 3, 4, 0]), np.arange(1, 8, dtype=np.float32)
    pairs = in_strips(lengths, places, values, 7, length=2)
    batch = pairs.batches(np.arange(3)[None])
    before = dense(type(batch)(*(each[0] for each in batch)), 3, 7, lists=2)
    assert before[0, 0, [5, 6]].tolist() == [1, 2]
    assert before[1, 1, [2, 3, 4]].tolist() == [4, 5, 6]
    order = np.array([2, 0, 1])
    batch = pairs.shuffled(1, order).batches(np.arange(3)[None])
    after = dense(type(batch)(*(each[0] for each in batch)), 3, 7, lists=2)
    np.testing.assert_array_equal(after[:, 0], before[:, 0])
    np.testing.assert_array_equal(after[:, 1], before[order, 1])


@given(st.integers(0, 2**31))
def test_buckets_are_little_larger(count):
    assert count <= bucket(count) <= max(count, count * 9 / 8)
    assert bucket(bucket(count)) == bucket(count)


@pytest.mark.parametrize(
    ("pairs", "rows", "most", "length"), [(300, 100, 3, 3), (8_000, 100, 500, 16), (1_000, 100, 40, 4)]
)
def test_strips_are_as_long_as_rows_are(pairs, rows, most, length):
    assert strip_length(pairs, rows, most) == length
    assert length in LENGTHS or length == most


def test_few_shapes_of_what_steps_look_up_are_compiled():
    rows, _ = touched([np.arange(17)[None]], numbers_for(20))
    assert rows.shape == (1, bucket(17)) == (1, 18)


@given(
    st.lists(st.lists(st.integers(-1, 12), min_size=4, max_size=4), min_size=1, max_size=4),
    st.integers(1, 11),
)
def test_what_steps_look_up(places, width):
    first = np.array(places)
    second = first[:, :2, None].astype(np.uint32)
    rows, renumbered = touched([first, second], numbers_for(width))
    for step in range(len(first)):
        real = rows[step][rows[step] != NOWHERE]
        assert sorted(real) == sorted({place for place in first[step] if 0 <= place < width})
        for before, after in zip((first, second), renumbered, strict=True):
            there = (before[step] >= 0) & (before[step] < width)
            np.testing.assert_array_equal(rows[step][after[step][there]], before[step][there])
            assert (after[step][~there] == NOWHERE).all()

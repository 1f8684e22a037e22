"""The order of rows: a permutation for every seed, epoch and number of rows, and nothing else's business."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steepest.data import order
from steepest.data.order import ORDER, epoch_order, generator

seeds = st.integers(0, 2**63)
epochs = st.integers(0, 10**6)


def visited(seed: int, epoch: int, rows: int) -> np.ndarray:
    return np.concatenate(list(epoch_order(seed, epoch, rows)))


@pytest.fixture
def small_windows(monkeypatch):
    """Rows are shuffled in windows of 12, which are made of blocks of 3."""
    monkeypatch.setattr(order, "WINDOW", 12)
    monkeypatch.setattr(order, "BLOCK", 3)


@given(seed=seeds, epoch=epochs, rows=st.integers(1, 500))
def test_an_epoch_visits_every_row_once(seed, epoch, rows) -> None:
    assert sorted(visited(seed, epoch, rows)) == list(range(rows))
    np.testing.assert_array_equal(visited(seed, epoch, rows), visited(seed, epoch, rows))


@given(seed=seeds, epoch=epochs, rows=st.integers(10, 500))
def test_epochs_and_seeds_do_not_repeat_each_other(seed, epoch, rows) -> None:
    first = visited(seed, epoch, rows)
    assert not np.array_equal(first, visited(seed, epoch + 1, rows))
    assert not np.array_equal(first, visited(seed + 1, epoch, rows))
    assert not np.array_equal(first, visited(epoch, seed, rows)) or seed == epoch


@pytest.mark.parametrize("rows", [12, 13, 14, 15, 24, 36, 37, 100, 361])
def test_rows_beyond_a_window(small_windows, rows) -> None:
    """Each window holds whole blocks, in an order that hides them; all windows together hold every row."""
    orders = set()
    for epoch in range(20):
        windows = list(epoch_order(7, epoch, rows))
        assert sorted(np.concatenate(windows)) == list(range(rows))
        orders.add(tuple(np.concatenate(windows)))
        assert len(windows) == -(-rows // 12)
        for window in windows:
            blocks, counts = np.unique(window // 3, return_counts=True)
            assert len(blocks) <= 4
            assert (counts == np.minimum(3, rows - 3 * blocks)).all()
    assert len(orders) == 20


@pytest.mark.parametrize("rows", [13, 36, 37, 361])
def test_a_window_is_like_the_whole(small_windows, rows) -> None:
    """Of the four parts of the data a window has a block each; the last one has what is left."""
    parts = np.arange(5) * -(-rows // 3) // 4
    for epoch in range(5):
        *windows, _ = epoch_order(3, epoch, rows)
        for window in windows:
            of_parts = np.histogram(np.unique(window // 3), parts - 0.5)[0]
            assert (of_parts == 1).all() or window is windows[-1]


def test_every_block_comes_into_every_window(small_windows) -> None:
    firsts = [set(next(epoch_order(0, epoch, 36)) // 3) for epoch in range(40)]
    assert set.union(*firsts) == set(range(12))
    assert len(set(map(frozenset, firsts))) > 30


def test_rows_of_different_blocks_are_mixed(small_windows) -> None:
    neighbours = [np.diff(window // 3) for epoch in range(30) for window in epoch_order(0, epoch, 120)]
    assert (np.concatenate(neighbours) == 0).mean() < 0.35, "in their blocks it would be two thirds"


def test_the_first_rows_beyond_the_real_window() -> None:
    rows = order.WINDOW + 1
    windows = list(epoch_order(0, 0, rows))
    assert [len(windows), sum(map(len, windows))] == [2, rows]
    assert (np.bincount(np.concatenate(windows), minlength=rows) == 1).all()


def test_every_permutation_is_equally_likely() -> None:
    """24 permutations of 4 rows in 4,800 epochs; χ² of 23 degrees of freedom exceeds 55 once in 5,000."""
    drawn, counts = np.unique([visited(0, epoch, 4) for epoch in range(4800)], axis=0, return_counts=True)
    assert len(drawn) == 24
    assert ((counts - 200) ** 2 / 200).sum() < 55


def test_nothing_else_decides_the_order() -> None:
    expected = visited(3, 5, 50)
    np.random.seed(1)  # noqa: NPY002 - the global state is what is tested
    np.random.random(7)  # noqa: NPY002
    visited(3, 4, 50)
    generator(3, 1).permutation(50)
    windows = epoch_order(3, 5, 50)
    visited(9, 9, 9)
    np.testing.assert_array_equal(np.concatenate(list(windows)), expected)


def test_the_order_is_the_same_in_every_version() -> None:
    """A run that goes on under a later version visits the same rows."""
    raw = np.random.Philox(np.random.SeedSequence([2, 0, 3])).random_raw(10)
    np.testing.assert_array_equal(visited(2, 3, 10), np.argsort(raw >> np.uint64(4)))
    assert visited(0, 0, 10).tolist() == [0, 8, 9, 3, 7, 5, 1, 2, 6, 4]


def test_purposes_draw_from_streams_of_their_own() -> None:
    draws = {purpose: tuple(generator(0, purpose).integers(2**60, size=4)) for purpose in (ORDER, 1, 2)}
    assert len(set(draws.values())) == 3

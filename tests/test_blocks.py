"""Windows of batches from memory: exactly the rows of the order, and the thread that makes them."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steepest.data import blocks
from steepest.data.blocks import Blocks, Window
from steepest.data.order import epoch_order
from steepest.data.prefetch import prefetch


def table(rows: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Return arrays of several shapes and types in which every row is told by its number, and weights."""
    number = np.arange(rows)
    arrays = (number.astype(np.float32), np.stack([number, -number], 1).reshape(rows, 2, 1), number % 2 == 0)
    return arrays, np.float32(1) + number.astype(np.float32) / 8


def copies(windows):
    return [Window(tuple(map(np.copy, w.arrays)), w.weights.copy(), w.rows.copy()) for w in windows]


@given(
    rows=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    window_bytes=st.sampled_from([1, 100, 400, 10**6]),
    padded=st.booleans(),
    shuffle=st.booleans(),
)
def test_windows_hold_the_rows_of_the_order(rows, batch_size, window_bytes, padded, shuffle) -> None:
    arrays, weights = table(rows)
    batch_size = min(batch_size, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "WINDOW_BYTES", window_bytes)
        source = Blocks(arrays, weights, batch_size, seed=5, shuffle=shuffle, padded=padded)
        per_epoch = len(source.shapes())
        windows = copies(source.epochs(2, 4))
        shapes = source.shapes() * 2
    assert [window.rows.shape for window in windows] == shapes
    for epoch in (2, 3):
        mine = windows[(epoch - 2) * per_epoch :][:per_epoch]
        order = np.concatenate(list(epoch_order(5, epoch, rows))) if shuffle else np.arange(rows)
        visited = np.concatenate([window.rows.ravel() for window in mine])
        np.testing.assert_array_equal(visited[: len(order)], order)
        assert (visited[len(order) :] == -1).all(), "padding comes last"
        assert padded or len(visited) == rows
    assert source.steps == -(-rows // batch_size)
    for window in windows:
        real = window.rows >= 0
        np.testing.assert_array_equal(window.weights[real], weights[window.rows[real]])
        assert (window.weights[~real] == 0).all()
        numbers = window.arrays[0].astype(int)
        np.testing.assert_array_equal(numbers[real], window.rows[real])
        assert ((numbers >= 0) & (numbers < rows)).all(), "padding repeats real rows"
        for found, array in zip(window.arrays, arrays, strict=True):
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array[numbers])
        steps = window.rows.shape[0]
        assert steps == 1 or steps * batch_size * (4 + 16 + 1) <= window_bytes


def test_batches_are_cut_from_the_order_however_many_windows_there_are(monkeypatch) -> None:
    arrays, weights = table(100)
    source = Blocks(arrays, weights, 7)
    (whole,) = copies(source.epochs(0, 1))
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 21 * 7 * 4)
    several = copies(source.epochs(0, 1))
    assert len(several) == 4
    together = np.concatenate([window.rows for window in several])
    np.testing.assert_array_equal(together[:15], whole.rows)
    assert (together[15:] == -1).all(), "the last window is filled up with steps that are all padding"


def test_a_window_stays_while_the_next_ones_are_made(monkeypatch) -> None:
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 100)
    source = Blocks(*table(60), 4)
    expected, alive = copies(source.epochs(0, 2)), []
    for number, window in enumerate(source.epochs(0, 2)):
        alive = [*alive, window][-3:]
        for age, kept in enumerate(reversed(alive)):
            for found, array in zip(
                (*kept.arrays, kept.weights),
                (*expected[number - age].arrays, expected[number - age].weights),
                strict=True,
            ):
                np.testing.assert_array_equal(found, array)
    assert number > 2 * 3


def test_windows_can_be_used_without_a_copy(monkeypatch) -> None:
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 100)
    for window in Blocks(*table(60), 3).epochs(0, 1):
        assert all(each.ctypes.data % 64 == 0 for each in (*window.arrays, window.weights))
        assert all(each.flags.c_contiguous for each in (*window.arrays, window.weights))


def test_the_rows_given_are_not_touched() -> None:
    arrays, weights = table(30)
    before = [each.copy() for each in (*arrays, weights)]
    for window in Blocks(arrays, weights, 4).epochs(0, 1):
        for each in (*window.arrays, window.weights):
            assert not any(np.shares_memory(each, given) for given in (*arrays, weights))
            each[:] = 0
    for array, copy in zip((*arrays, weights), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def thread_is_alive() -> bool:
    return any(thread.name.startswith("steepest-blocks") for thread in threading.enumerate())


def test_prefetch_keeps_order_and_makes_one_ahead() -> None:
    made = []

    def items():
        for number in range(5):
            made.append(number)
            yield number

    ahead = prefetch(items())
    assert not made, "nothing happens before it is asked for"
    for number, item in enumerate(ahead):
        time.sleep(0.02)
        assert item == number
        assert made == list(range(min(number + 2, 5)))
    assert not thread_is_alive()


def test_prefetch_makes_items_in_a_thread() -> None:
    def items():
        yield threading.current_thread().name

    assert next(prefetch(items())).startswith("steepest-blocks")


def test_prefetch_passes_an_exception_on_where_it_happened() -> None:
    def items():
        yield 1
        raise KeyError("broken")

    ahead = prefetch(items())
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="broken"):
        next(ahead)
    assert not thread_is_alive()


def test_prefetch_stops_its_thread_when_it_is_closed() -> None:
    def forever():
        while True:
            yield 0

    ahead = prefetch(forever())
    next(ahead)
    assert thread_is_alive()
    ahead.close()
    assert not thread_is_alive()

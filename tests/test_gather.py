"""Rows in mapped files, of other types, and sparse ones come out of the windows like those in memory."""

from __future__ import annotations

import dataclasses
import mmap
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from steepest.data import blocks, order, pieces
from steepest.data.blocks import Blocks
from steepest.data.gather import Converted, Mapped, Sparse, advise
from steepest.data.gather import pages as pages_of
from steepest.data.pairs import Pairs, pairs_of


@pytest.fixture
def mapped(tmp_path):
    """Return an array as it is in a mapped file."""

    def store(array: np.ndarray, offset: int = 0) -> np.ndarray:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.bin"
        file.write_bytes(b"\0" * offset + array.tobytes())
        return np.memmap(file, array.dtype, "r", offset=offset, shape=array.shape)

    return store


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(order, "WINDOW", 64)
    monkeypatch.setattr(order, "BLOCK", 16)
    monkeypatch.setattr(pieces, "BLOCK", 16)
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 400)


def gathered(arrays, weights, **options) -> list[tuple[np.ndarray, ...]]:
    source = Blocks(arrays, weights, batch_size=3, seed=1, **options)
    return [(*map(np.copy, each.arrays), each.weights.copy(), each.rows) for each in source.epochs(0, 2)]


@pytest.mark.parametrize("shuffle", [True, False, "batch"])
@pytest.mark.parametrize("rows", [1, 63, 64, 200])
def test_rows_come_alike_from_everywhere(mapped, small, shuffle, rows):
    table = np.random.default_rng(0).normal(size=(rows, 4)) * (np.arange(4) % 2)
    wanted, weights = table.astype(np.float32), np.arange(rows, dtype=np.float32)
    expected = gathered((wanted,), weights, shuffle=shuffle)
    kinds = {
        "mapped": (mapped(wanted), mapped(weights)),
        "let go": (Mapped(mapped(wanted, 4096 + 12), True), mapped(weights)),
        "kept": (Mapped(mapped(wanted), False), weights),
        "float64": (Converted(mapped(table), np.dtype(np.float32)), weights),
        "sparse": (Sparse(scipy.sparse.csr_array(wanted), np.dtype(np.float32)), weights),
    }
    for name, (array, weight) in kinds.items():
        for window, other in zip(gathered((array,), weight, shuffle=shuffle), expected, strict=True):
            for mine, theirs in zip(window, other, strict=True):
                assert mine.dtype == theirs.dtype, name
                np.testing.assert_array_equal(mine, theirs, err_msg=name)


def pairs(mapped, rows: int) -> tuple[Pairs, Pairs]:
    """Return sparse rows in memory, and the same in mapped files, to be let go."""
    matrix = scipy.sparse.random_array((rows, 50), density=0.1, rng=2, format="csr", dtype=np.float32)
    inside = pairs_of(matrix, 4)
    arrays = {name: mapped(getattr(inside, name)) for name in ("begins", "places", "values", "lists")}
    return inside, dataclasses.replace(inside, **arrays, fleeting=True)


@pytest.mark.parametrize("shuffle", [True, False, "batch"])
@pytest.mark.parametrize("rows", [1, 63, 64, 200])
def test_pairs_come_alike_from_everywhere(mapped, small, shuffle, rows):
    inside, outside = pairs(mapped, rows)
    numbers = np.arange(rows, dtype=np.float32)
    skips = range(3) if rows == 200 else [0]
    for skip in skips:
        one, other = (
            list(Blocks((each, numbers), rows, 3, 1, shuffle, longest=7).epochs(0, 2, skip))
            for each in (inside, outside)
        )
        assert len(one) > 10 or rows < 200
        for window, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(window.rows, same.rows)
            for mine, theirs in zip(window.arrays[0], same.arrays[0], strict=True):
                assert mine.dtype == theirs.dtype
                np.testing.assert_array_equal(mine, theirs)


def test_strips_are_let_go_once_each_epoch(mapped, small, monkeypatch):
    outside, told = pairs(mapped, 200)[1], []
    monkeypatch.setattr(pieces, "advise", lambda array, *what: told.append((array.ndim, what)))
    list(Blocks((outside,), 200, 3).epochs(0, 2))
    gone = np.zeros(len(outside.places))
    for first, last, advice in (what for axes, what in told if axes == 2):
        gone[first:last] += advice == mmap.MADV_DONTNEED
    assert (gone[1:] == 4).all(), "places and values, each in two epochs"


def test_some_fleeting_rows_are_those_rows(mapped, monkeypatch):
    monkeypatch.setattr("steepest.data.pairs.ROWS_AT_ONCE", 8)
    inside, outside = pairs(mapped, 200)
    rows = np.arange(3, 200, 7)
    one, other = inside.subset(rows), outside.subset(rows)
    for name in ("begins", "places", "values", "lists"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert not other.mapped()


def test_rows_that_all_weigh_one():
    array = np.arange(7, dtype=np.float32)
    for one, other in zip(gathered((array,), 7), gathered((array,), np.ones(7, np.float32)), strict=True):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_the_system_is_told_what_comes(mapped, small, monkeypatch):
    told = []
    monkeypatch.setattr(pieces, "advise", lambda array, *what: told.append(what))
    array = mapped(np.arange(200, dtype=np.float32))
    gathered((array,), 200)
    assert {advice for *_, advice in told} == {mmap.MADV_WILLNEED}
    ahead = np.zeros(200)
    for first, last, _ in told:
        ahead[first:last] += 1
    assert (ahead == 2).all(), "every row once in each of two epochs"
    told.clear()
    gathered((np.arange(200, dtype=np.float32),), 200)
    assert not told, "memory needs no advice"


@pytest.mark.parametrize("shuffle", [True, False])
def test_fleeting_rows_are_let_go_once_each_epoch(mapped, small, monkeypatch, shuffle):
    told = []
    monkeypatch.setattr(pieces, "advise", lambda array, *what: told.append(what))
    gathered((Mapped(mapped(np.arange(200, dtype=np.float32)), True),), 200, shuffle=shuffle)
    gone = sorted((first, last) for first, last, advice in told if advice == mmap.MADV_DONTNEED)
    assert gone == sorted(2 * [(first, min(first + 16, 200)) for first in range(0, 200, 16)])


def resident(file) -> int:
    """Return the bytes of a mapped file that are in this process's memory."""
    maps = Path("/proc/self/smaps").read_text().split(str(file))[1:]
    return sum(1024 * int(re.search(r"Rss: +(\d+)", each)[1]) for each in maps)


def test_fleeting_pages_do_not_stay(tmp_path):
    file = tmp_path / "rows.bin"
    np.zeros((50_000, 40), np.float32).tofile(file)
    array = np.memmap(file, np.float32, "r", shape=(50_000, 40))
    for fleeting in (False, True):
        for window in Blocks((Mapped(array, fleeting),), 50_000, batch_size=100).epochs(0, 1):
            assert not window.arrays[0].any()
        assert (resident(file) < 2**18) == fleeting


def test_fleeting_strips_do_not_stay(mapped):
    inside, _ = pairs(mapped, 1)
    places = mapped(np.zeros((200_001, 16), np.uint32))
    whole = dataclasses.replace(
        inside,
        begins=np.arange(1, 200_002),
        places=places,
        values=np.zeros((200_001, 16), np.float32),
        lists=np.zeros(200_001, np.uint16),
    )
    for fleeting in (False, True):
        rows = dataclasses.replace(whole, fleeting=fleeting)
        for window in Blocks((rows,), 200_000, batch_size=500).epochs(0, 1):
            assert not window.arrays[0].values.any()
        rows.subset(np.arange(0, 200_000, 9))
        # The first strip is looked at again and again, and Linux may map 2 MiB at once.
        assert (resident(places.filename) < 2**22) == fleeting


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.sampled_from([4096, 2**16]))
def test_pages(first, more, size):
    last = first + more
    start, end = pages_of(first, last, size)
    assert start % size == end % size == 0
    assert first - size < start <= first < last <= end < last + size


def test_advice_on_any_rows_of_a_file_leaves_them_as_they_are(mapped):
    rows = np.arange(5000, dtype=np.int32)
    array = mapped(rows, 1236)
    for first, last in ((0, 5000), (0, 1), (4999, 5000), (1000, 3000), (7, 7)):
        for advice in (mmap.MADV_WILLNEED, mmap.MADV_DONTNEED):
            advise(array, first, last, advice)
    np.testing.assert_array_equal(array, rows)


@pytest.mark.parametrize("fleeting", [True, False])
@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_windows_may_be_passed_over(mapped, small, shuffle, fleeting):
    array = Mapped(mapped(np.arange(800, dtype=np.float32).reshape(200, 4)), fleeting)
    source = Blocks((array,), 200, batch_size=3, seed=1, shuffle=shuffle)
    whole = [(each.arrays[0].copy(), each.rows) for each in source.epochs(0, 2)]
    count = len(source.shapes())
    assert count > 3
    for skip in (1, count - 1, count):
        later = [(each.arrays[0].copy(), each.rows) for each in source.epochs(0, 2, skip)]
        for mine, theirs in zip(later, whole[skip:], strict=True):
            np.testing.assert_array_equal(mine[0], theirs[0])
            np.testing.assert_array_equal(mine[1], theirs[1])

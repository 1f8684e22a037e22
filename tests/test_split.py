"""Which rows are held out: exactly as many as asked, whole groups, and always the same."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import real_data
from steepest.data import split
from steepest.data.split import Groups, check_fraction, in_places, rows_held_out
from steepest.errors import SteepestError

FRACTIONS = st.floats(0.001, 0.999)
SEEDS = st.integers(0, 2**64)


def column(values) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values)])


def held_out(rows, fraction, seed, groups=None):
    """All rows at once, or groups that were counted in two parts."""
    if groups is None:
        sizes = [split.RUN] * (rows // split.RUN) + ([rows % split.RUN] if rows % split.RUN else [])
        parts = [rows_held_out(run, size, fraction, seed) for run, size in enumerate(sizes)]
        return np.concatenate(parts)
    counts = Groups(seed)
    counts.add(groups[: rows // 3])
    counts.add(groups[rows // 3 :])
    return counts.held_out(fraction)(groups)


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 3000), FRACTIONS, SEEDS)
def test_as_many_rows_as_asked(rows, fraction, seed):
    mask = held_out(rows, fraction, seed)
    assert mask.dtype == np.bool_
    assert mask.shape == (rows,)
    assert mask.sum() == min(max(round(fraction * rows), 1), rows - 1)
    np.testing.assert_array_equal(mask, held_out(rows, fraction, seed))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 300), FRACTIONS, SEEDS, st.integers(1, 40))
def test_as_many_rows_as_asked_over_several_runs(rows, fraction, seed, run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "RUN", run)
        mask = held_out(rows, fraction, seed)
    assert mask.sum() == min(max(round(fraction * rows), 1), rows - 1)
    for first in range(0, rows - run, run):
        assert abs(mask[first : first + run].sum() - fraction * run) < 2


def test_another_seed_holds_out_other_rows_evenly():
    masks = np.stack([held_out(1000, 0.2, seed) for seed in range(400)])
    assert len({mask.tobytes() for mask in masks}) == 400
    # Each row is held out in 400 draws with probability 1/5: five standard deviations are 40 draws.
    assert np.abs(masks.sum(axis=0) - 80).max() < 40
    assert np.abs(np.corrcoef(masks[:50])[np.triu_indices(50, 1)]).max() < 0.2


def test_the_rows_held_out_do_not_change_between_versions():
    assert np.flatnonzero(held_out(20, 0.25, 0)).tolist() == [3, 7, 9, 10, 15]
    days = column(["Mon", "Tue", "Wed", "Thu", "Fri"])
    assert np.flatnonzero(held_out(5, 0.4, 0, days)).tolist() == [0, 3]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.none() | st.integers(0, 9), min_size=2, max_size=60).filter(lambda each: len(set(each)) > 1),
    FRACTIONS,
    SEEDS,
    st.randoms(),
)
def test_whole_groups_whatever_the_order_of_the_rows(values, fraction, seed, random):
    mask = held_out(len(values), fraction, seed, column(values))
    held = {value for value, out in zip(values, mask, strict=True) if out}
    kept = {value for value, out in zip(values, mask, strict=True) if not out}
    assert held
    assert kept
    assert not held & kept
    shuffled = list(values)
    random.shuffle(shuffled)
    again = held_out(len(values), fraction, seed, column(shuffled))
    assert {value for value, out in zip(shuffled, again, strict=True) if out} == held


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), FRACTIONS, SEEDS)
def test_the_groups_taken_first_come_nearest_to_the_fraction(sizes, fraction, seed):
    values = [group for group, size in enumerate(sizes) for _ in range(size)]
    taken = held_out(len(values), fraction, seed, column(values)).sum()
    # The order is the same for every fraction, so many fractions show all that can be taken.
    possible = {
        held_out(len(values), each, seed, column(values)).sum() for each in np.linspace(1e-9, 1 - 1e-9, 120)
    }
    assert taken in possible
    assert abs(taken - fraction * len(values)) == min(abs(each - fraction * len(values)) for each in possible)
    assert len(possible) == len(sizes) - 1


def test_days_of_flights_are_held_out_whole():
    flights = real_data.flights()
    days = column(flights["month"] * 100 + flights["day"])
    mask = held_out(len(flights), 0.2, 0, days)
    assert abs(mask.mean() - 0.2) < 0.002  # half of the largest day
    per_day = flights.assign(held=mask).groupby(["month", "day"])["held"].mean()
    assert set(per_day) == {0.0, 1.0}
    assert 60 < per_day.sum() < 86


def test_missing_groups_and_other_types():
    for values in (["u", None, "u", None], [1.5, math.nan, 1.5, None], [True, None, True, None]):
        mask = held_out(4, 0.5, 3, column(values))
        assert mask.tolist() in ([True, False, True, False], [False, True, False, True])
    plain = column(["u", "v", "u", "w"])
    np.testing.assert_array_equal(held_out(4, 0.5, 3, plain), held_out(4, 0.5, 3, plain.dictionary_encode()))
    uneven = pa.chunked_array([["u"], ["v", "u"], [], ["w"]], pa.string())
    np.testing.assert_array_equal(held_out(4, 0.5, 3, plain), held_out(4, 0.5, 3, uneven))


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, math.nan])
def test_fractions_that_cannot_be_held_out(fraction):
    with pytest.raises(SteepestError, match=f"{fraction}, which is not between 0 and 1.*--validation 0.2"):
        check_fraction(fraction)


@pytest.mark.parametrize(
    ("groups", "part"), [(["Mon"] * 3, "one value"), ([None] * 3, "one value"), ([[1], [2]], "list")]
)
def test_groups_that_cannot_be_split(groups, part):
    with pytest.raises(SteepestError, match=part) as raised:
        held_out(len(groups), 0.5, 0, column(groups))
    assert raised.value.hint


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | st.integers(-9, 9), min_size=1, max_size=20), SEEDS)
def test_equal_groups_of_other_types(values, seed):
    here = in_places(column(values), seed).tolist()
    assert here == in_places(pa.array(values, pa.float64()), seed).tolist()
    days = pa.array(values, pa.date32())
    assert in_places(days, seed).tolist() == in_places(days.cast(pa.timestamp("ms")), seed).tolist()


def test_orders_of_groups_are_all_drawn():
    values = column(["u", "v", "w"])
    first = {tuple(held_out(3, 0.34, seed, values).tolist()) for seed in range(60)}
    assert first == set(itertools.permutations([True, False, False]))

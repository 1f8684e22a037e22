"""Packed rows: what is kept, and the features that are made of it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder

import real_data
from steepest.data import layout as layouts
from steepest.data.column import Column
from steepest.data.columns import Plan
from steepest.data.layout import Layout, Packed, Run, layout_of
from steepest.data.learning import learn


def expanded(layout: Layout, packed: Packed) -> np.ndarray:
    out = np.full((len(packed.numbers), layout.width), np.nan, np.float32)
    layout.expand(packed, out)
    return out


def one_by_one(layout: Layout, packed: Packed) -> np.ndarray:
    """Make the features in plain Python."""
    rows = []
    for numbers, codes in zip(packed.numbers.tolist(), packed.codes.tolist(), strict=True):
        row: list[float] = []
        for source, width in layout.runs:
            if source == "numbers":
                row += [numbers.pop(0) for _ in range(width)]
            else:
                code = codes.pop(0)
                row += [float(code == place) for place in range(width)]
        rows.append(row)
    return np.array(rows, np.float32).reshape(len(rows), layout.width)


RUNS = st.builds(Run, st.sampled_from(["numbers", "code"]), st.integers(1, 5)) | st.builds(
    Run, st.just("code"), st.sampled_from([254, 255, 256, 300])
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(RUNS, max_size=7).map(layout_of),
    st.integers(0, 9),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 4, 1 << 12]),
)
def test_features_are_those_made_one_by_one(layout, rows, seed, at_once):
    random = np.random.default_rng(seed)
    packed = layout.empty(rows)
    packed.numbers[:] = random.normal(size=packed.numbers.shape)
    largest = np.iinfo(packed.codes.dtype).max
    beyond = [min(width + 2, largest) for width in layout.code_widths]
    packed.codes[:] = random.integers(0, beyond, packed.codes.shape, endpoint=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "ROWS_AT_ONCE", at_once)
        np.testing.assert_array_equal(expanded(layout, packed), one_by_one(layout, packed))
    assert packed.numbers.shape[1] + sum(layout.code_widths) == layout.width
    assert hash(layout) == hash(Layout(tuple(layout.runs)))


@pytest.mark.parametrize(("width", "kept"), [(1, np.uint8), (255, np.uint8), (256, np.uint16)])
def test_codes_are_as_small_as_the_greatest_width_allows(width, kept):
    layout = layout_of([Run("code", 2), Run("code", width)])
    packed = layout.empty(2)
    assert packed.codes.dtype == kept
    packed.codes[:] = [[0, width], [2, width - 1]]
    expected = np.zeros((2, 2 + width))
    expected[0, 0] = expected[1, -1] = 1
    np.testing.assert_array_equal(expanded(layout, packed), expected)


def test_numbers_side_by_side_are_one_run():
    assert layout_of([Run("numbers", 1)] * 3 + [Run("code", 2)] * 2).runs == (
        Run("numbers", 3),
        Run("code", 2),
        Run("code", 2),
    )


def test_features_of_a_plan_of_numbers_are_the_numbers():
    rows = pa.table({"x": [1.0, 2.0, 4.0], "y": [3, 1, 9], "b": [True, False, True]})
    plan = learn(rows)
    assert plan.layout.plain
    np.testing.assert_array_equal(plan.pack(rows).numbers, plan.encode(rows))
    assert not learn(rows.append_column("c", pa.array(["u", "v", "u"]))).layout.plain


def test_what_is_kept_of_each_kind_of_column():
    rows = pa.table(
        {
            "n": [1.0, None, 4.0],
            "c": ["u", None, "v"],
            "b": [True, None, False],
            "t": pa.array([0, None, 8 * 86_400], pa.timestamp("s")),
        }
    )
    plan = learn(rows)
    assert plan.layout == layout_of(
        [
            *[Run("numbers", 1), Run("code", 1)],
            *[Run("code", 2), Run("code", 1)],
            *[Run("numbers", 1), Run("code", 1)],
            *[Run("numbers", 1), Run("code", 7), Run("code", 1)],
        ]
    )
    packed = plan.pack(rows)
    assert packed.codes.tolist() == [[1, 0, 1, 1, 3, 1], [0, 2, 0, 0, 7, 0], [1, 1, 1, 1, 4, 1]]
    np.testing.assert_allclose(packed.numbers, [[-1, 1, -1], [0, 0.5, 0], [1, 0, 1]])
    np.testing.assert_array_equal(plan.encode(rows), one_by_one(plan.layout, packed))


def test_zero_has_no_sign():
    column = Column("x", "number", "number", mean=0.0, deviation=2.0)
    features = Plan((column,), ()).encode(pa.table({"x": [-0.0, 0.0, -4.0]}))
    assert np.signbit(features[:, 0]).tolist() == [False, False, True]


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.float16()])
def test_nan_is_missing(kind):
    column = Column("x", "number", "number", mean=1.0, deviation=2.0, missing=True)
    values = pa.array(np.array([3.0, np.nan, 0.0], kind.to_pandas_dtype()))
    np.testing.assert_array_equal(
        Plan((column,), ()).encode(pa.table({"x": values})), [[1, 0], [0, 1], [-0.5, 0]]
    )


def test_features_go_to_contiguous_arrays_only():
    layout = layout_of([Run("code", 2)])
    with pytest.raises(ValueError, match="contiguous"):
        layout.expand(layout.empty(3), np.empty((3, 4), np.float32)[:, ::2])


def test_flights_are_kept_in_a_tenth_of_their_features():
    frame = real_data.flights()[["carrier", "origin", "dest", "distance", "dep_delay"]].iloc[::20]
    rows = pa.Table.from_pandas(frame, preserve_index=False)
    plan = learn(rows)
    packed = plan.pack(rows)
    assert packed.codes.dtype == np.uint8
    features = plan.encode(rows)
    assert (packed.numbers.nbytes + packed.codes.nbytes) * 10 < features.nbytes
    names = [name.split(" = ")[1] for name in plan.feature_names[plan.groups["origin"]]]
    theirs = OneHotEncoder(categories=[names], sparse_output=False).fit_transform(frame[["origin"]])
    np.testing.assert_array_equal(features[:, plan.groups["origin"]], theirs)

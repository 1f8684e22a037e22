"""The column plan from a stream: however the rows are cut, in bounded memory, merged from parts."""

from __future__ import annotations

import datetime
import itertools
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import real_data
from expecting import fails
from steepest.data import counting, learning, summary
from steepest.data.columns import Plan
from steepest.data.counting import count, hashes_of, sample
from steepest.data.learning import Learner, learn
from steepest.errors import SteepestError


def learned(parts: list[pa.Table], **options) -> Learner:
    learner = Learner(**options)
    for part in parts:
        learner.update(part)
    return learner


def cut(rows: pa.Table, places: list[int]) -> list[pa.Table]:
    edges = [0, *sorted(places), rows.num_rows]
    return [rows.slice(begins, ends - begins) for begins, ends in itertools.pairwise(edges)]


def small(patch: pytest.MonkeyPatch) -> None:
    """Make every limit so small that a few rows pass it."""
    patch.setattr(learning, "BLOCK", 8)
    patch.setattr(summary, "MOST_VALUES", 9)
    patch.setattr(counting, "MOST_SAMPLED", 5)


COLUMNS = {
    "number": st.floats(-9, 9) | st.sampled_from([math.nan, 0.0, -0.0]),
    "whole": st.integers(-(2**62), 2**62) | st.integers(-3, 3),
    "text": st.sampled_from(["u", "v", "w", ""]),
    "words": st.text(max_size=2),
    "flag": st.booleans(),
    "day": st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1)),
    "time": st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)),
}
TYPES = {
    "number": pa.float64(),
    "whole": pa.int64(),
    "text": pa.dictionary(pa.int32(), pa.string()),
    "words": pa.string(),
    "flag": pa.bool_(),
    "day": pa.date32(),
    "time": pa.timestamp("us"),
}


@st.composite
def tables(draw) -> pa.Table:
    rows = draw(st.integers(1, 40))
    drawn = {
        name: pa.array(draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), TYPES[name])
        for name, values in COLUMNS.items()
    }
    return pa.table({**drawn, "twin": drawn["number"], "other twin": drawn["number"], "row": range(rows)})


def differences(a: Learner, b: Learner) -> list[str]:
    """Return the columns about which two learners do not know the very same."""
    assert a._now().twins == b._now().twins
    return [name for name, each in a.summaries.items() if each != b.summaries[name]]


def outcome(learner: Learner) -> Plan | str:
    try:
        return learner.plan()
    except SteepestError as error:
        return str(error)


@settings(deadline=None, max_examples=50)
@given(tables(), st.data())
def test_any_cut_gives_the_same_bits(rows, data):
    places = data.draw(st.lists(st.integers(0, rows.num_rows), max_size=6))
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        whole, pieces = learned([rows]), learned(cut(rows, places))
        assert differences(whole, pieces) == []
        assert outcome(pieces) == outcome(whole)


@settings(deadline=None, max_examples=50)
@given(tables(), st.data())
def test_merged_learners_know_what_one_knows(rows, data):
    places = data.draw(st.lists(st.integers(0, rows.num_rows), max_size=3))
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        whole, merged = learned([rows]), Learner()
        for part in cut(rows, places):
            piece = learned(cut(part, data.draw(st.lists(st.integers(0, part.num_rows), max_size=2))))
            before = piece.summaries
            merged.merge(piece)
            assert piece.summaries == before
        assert merged._now().twins == whole._now().twins
        for name, one in whole.summaries.items():
            other = merged.summaries[name]
            for field in ("type", "rows", "missing", "infinite", "minimum", "maximum", "characters"):
                assert getattr(other, field) == getattr(one, field)
            assert other.value_counts == one.value_counts
            assert (other.sampled is None) == (one.sampled is None)
            assert one.sampled is None or other.sampled.equals(one.sampled)
            if one.mean is not None:
                largest = max(abs(float(one.minimum)), abs(float(one.maximum)))
                assert other.mean == pytest.approx(one.mean, rel=1e-12, abs=1e-12 * largest)
                assert other.squared_deviation == pytest.approx(
                    one.squared_deviation, rel=1e-9, abs=1e-12 * largest**2
                )


@pytest.fixture(scope="module")
def flights() -> pa.Table:
    frame = real_data.flights().copy()
    frame["time_hour"] = pd.to_datetime(frame["time_hour"])
    return pa.Table.from_pandas(frame, preserve_index=False)


def test_flights_in_batches_give_the_same_bits(flights):
    whole = learn(flights, leave_out=["arr_delay"])
    batches = [pa.Table.from_batches([each]) for each in flights.to_batches(max_chunksize=10_007)]
    pieces = learned(batches, leave_out=["arr_delay"])
    assert pieces.plan() == whole
    delays = flights["arr_delay"].to_pandas().dropna()
    found = pieces.summaries["arr_delay"]
    assert found.missing == flights.num_rows - len(delays)
    assert found.mean == pytest.approx(delays.mean(), rel=1e-12)
    assert found.squared_deviation == pytest.approx(delays.var(ddof=0) * len(delays), rel=1e-9)


def test_a_learner_goes_on_after_its_plan():
    parts = [pa.table({"x": [1.0, 2.0]}), pa.table({"x": [3.0, None]})]
    learner = learned(parts[:1])
    assert learner.plan() == learn(parts[0])
    learner.update(parts[1])
    assert learner.plan() == learn(pa.concat_tables(parts))


# Types that change ---------------------------------------------------------------------------------

DAYS = [datetime.date(2013, 1, 1), datetime.date(2013, 1, 20)]
TIMES = [datetime.datetime(2013, 2, 1, 6), datetime.datetime(2013, 3, 1, 18, 30)]
CHANGES = {
    "integers, then numbers": ([1, 2], [2.5, None], pa.float64()),
    "numbers, then integers": ([1.5, 2.5], [7, None], pa.float64()),
    "nothing, then numbers": (pa.array([None, None]), [1.5, 2.5], pa.float64()),
    "no number, then text": (pa.array([None, None], pa.float64()), ["u", "v"], pa.string()),
    "integers, then nothing": ([1, 2], pa.array([None, None], pa.string()), pa.int64()),
    "small integers, then large": (pa.array([1, 2], pa.int8()), [2**40, 3], pa.int64()),
    "integers, then such without a sign": ([1, 2], pa.array([3, 2**63 + 2**40], pa.uint64()), pa.uint64()),
    "days, then times": (DAYS, TIMES, pa.timestamp("us")),
    "times, then days": (TIMES, DAYS, pa.timestamp("us")),
    "text, then large text": (["u", "v"], pa.array(["v", "w"], pa.large_string()), pa.string()),
    "text, then a dictionary": (["u", "v"], pa.array(["v", "w"]).dictionary_encode(), pa.string()),
    "numbers with names, then bytes": ([{"a": 1}, {"a": 2}], [b"x", None], None),
}


@pytest.mark.parametrize("block", [1, 2, 3, 100])
@pytest.mark.parametrize(("first", "then", "kind"), CHANGES.values(), ids=CHANGES)
def test_types_that_go_together(monkeypatch, first, then, kind, block):
    monkeypatch.setattr(learning, "BLOCK", block)
    use = pa.array([1, 2])
    parts = [pa.table({"x": pa.array(values), "use": use}) for values in (first, then)]
    if kind is None:
        assert "struct<" in learned(parts).plan().dropped[0].reason
        return
    whole = pa.concat_tables([part.set_column(0, "x", part["x"].cast(kind)) for part in parts])
    plan, expected = learned(parts).plan(), learn(whole)
    assert plan.feature_names == expected.feature_names
    for column, other in zip(plan.columns, expected.columns, strict=True):
        assert (column.type, column.values, column.parts) == (other.type, other.values, other.parts)
        assert column.mean == pytest.approx(other.mean, rel=1e-12)
        assert column.deviation == pytest.approx(other.deviation, rel=1e-12)
    merged = learned(parts[:1])
    merged.merge(learned(parts[1:]))
    assert merged.plan().feature_names == expected.feature_names
    assert merged.plan().columns[0].type == expected.columns[0].type


def test_types_that_do_not_go_together_are_named_with_their_place():
    learner = learned([pa.table({"x": [1, 2]})])
    with fails("'x'", "text where earlier rows hold numbers", "'late'", "line 8 of f"):
        learner.update(pa.table({"x": [None, "late"]}), lambda row: f"line {row + 7} of f")
    merged = learned([pa.table({"x": [1, 2]})])
    with fails("'x'", "numbers", "booleans"):
        merged.merge(learned([pa.table({"x": [True]})]))


def test_columns_that_are_lacking_or_new():
    learner = learned([pa.table({"x": [1], "y": [2]})])
    learner.update(pa.table({"y": [2.5], "x": [3]}))
    assert learner.summaries["x"].maximum == 3
    with fails("lack", "'y'"):
        learner.update(pa.table({"x": [1]}))
    with fails("have", "'z'", "earlier rows lack"):
        learner.merge(learned([pa.table({"x": [1], "y": [2], "z": [3]})]))
    with fails("no column 'xs'", "'x'"):
        Learner(leave_out=["xs"]).update(pa.table({"x": [1]}))


def test_nothing_to_learn_from():
    with fails("no column to learn from"):
        Learner().plan()
    nothing, rows = Learner(), pa.table({"x": [1.0, 2.0]})
    assert nothing.summaries == {}
    nothing.merge(Learner())
    nothing.update(rows.slice(0, 0))
    assert nothing.summaries["x"].rows == 0
    nothing.merge(learned([rows]))
    assert nothing.plan() == learn(rows)


def test_infinite_values_are_named_at_once(monkeypatch):
    monkeypatch.setattr(learning, "BLOCK", 100)
    for values in ([None, -math.inf, 1.0], pa.array([0, math.inf, 1], pa.float32())):
        learner = learned([pa.table({"x": [1.0, 2.0], "y": [1.0, 2.0]})], leave_out=["y"])
        with fails("'x'", "1 infinite", "line 8 of f"):
            learner.update(pa.table({"x": values, "y": [0.0] * 3}), lambda row: f"line {row + 7} of f")
    learner = learned([pa.table({"x": [1.0, 2.0], "y": [1.0, math.inf]})], leave_out=["y"])
    assert learner.summaries["y"].infinite == 1


# What is decided from summaries --------------------------------------------------------------------


def test_twins_are_equal_in_every_block(monkeypatch):
    monkeypatch.setattr(learning, "BLOCK", 2)
    base = [1.0, 2.0, 3.0, math.nan, 5.0, 6.0]
    later = [1.0, 2.0, 3.0, math.nan, 5.0, 7.0]
    swapped = [2.0, 1.0, 3.0, math.nan, 5.0, 6.0]
    rows = pa.table({"a": base, "b": later, "c": base, "d": later, "e": swapped})
    reasons = {each.name: each.reason for each in learn(rows).dropped}
    assert set(reasons) == {"c", "d"}
    assert "'a'" in reasons["c"]
    assert "'b'" in reasons["d"]
    early, late = (learned([each]) for each in (rows.slice(0, 4), rows.slice(4)))
    assert [each.name for each in early.plan().dropped] == ["b", "c", "d"]
    assert [each.name for each in late.plan().dropped] == ["c", "d", "e"]
    early.merge(late)
    assert {each.name: each.reason for each in early.plan().dropped} == reasons


def test_a_sample_holds_the_integers_with_the_smallest_hashes():
    random = np.random.default_rng(1)
    values = random.integers(-(2**60), 2**60, 30_000).repeat(random.integers(1, 4, 30_000))
    counts = pd.Series(hashes_of(pa.array(values))).value_counts().sort_index()[: counting.MOST_SAMPLED]
    random.shuffle(values)
    found = sample(pa.array(values))
    assert found.field(0).to_pylist() == counts.index.tolist()
    assert found.field(1).to_pylist() == counts.tolist()
    counted = count(pa.array(values))
    assert sample(counted.field(0), counted.field(1).to_numpy()).equals(found)


def test_dictionaries_with_repeated_and_missing_entries():
    odd = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, None, 3]), pa.array(["u", "u", None, "v"]))
    assert count(odd).to_pylist() == [{"values": "u", "counts": 2}, {"values": "v", "counts": 1}]
    found = summary.summarise(pa.chunked_array([odd, odd.slice(3)]))
    assert (found.rows, found.missing, found.value_counts) == (7, 3, {"u": 2, "v": 2})


@pytest.mark.parametrize("repeated", [False, True])
def test_identifiers_beyond_what_is_counted(repeated):
    rows = 3 * learning.BLOCK
    values = np.random.default_rng(0).permutation(rows)
    if repeated:
        values //= 2
    reasons = [each.reason for each in learn(pa.table({"n": values, "use": values % 7})).dropped]
    assert reasons == ([] if repeated else ["It looks like a counter: integers, none of which occurs twice."])


@pytest.mark.parametrize(
    ("width", "said"), [(9, "over 100,000 different values"), (60, "It holds text, but no word")]
)
def test_text_beyond_what_is_counted(width, said):
    rows = 2 * learning.BLOCK
    names = pa.array(np.arange(rows)).cast(pa.string())
    names = pa.compute.utf8_lpad(names, width, "0")
    assert said in learn(pa.table({"n": names, "use": np.arange(rows) % 7})).dropped[0].reason


def test_memory_does_not_grow_with_the_rows(monkeypatch):
    def block(number: int) -> pa.Table:
        random = np.random.default_rng(number)
        whole = random.integers(0, 2**60, learning.BLOCK)
        numbers = random.normal(size=learning.BLOCK)
        return pa.table({"i": whole, "x": numbers, "s": pa.array(whole).cast(pa.string())})

    learner = Learner()
    sizes = []
    before = pa.total_allocated_bytes()
    for number in range(12):
        if number == 3:
            monkeypatch.setattr(summary, "count", None)  # no value is counted any more
        learner.update(block(number))
        sizes.append(pa.total_allocated_bytes() - before)
    assert max(sizes[3:]) <= 3 << 20  # the most frequent values are known by name
    assert learner.summaries["i"].counted is None
    assert len(learner.summaries["i"].sampled) == counting.MOST_SAMPLED
    assert isinstance(learner.plan(), Plan)

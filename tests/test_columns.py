"""The summary of a column, and the column plan: against scikit-learn and pandas, on real rows."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import functools
import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import real_data
from expecting import fails
from steepest.data import columns, deciding, summary
from steepest.data.columns import Plan, plan_from_json
from steepest.data.learning import learn
from steepest.data.summary import merge, summarise
from steepest.data.wishes import Wishes
from steepest.errors import SteepestError


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    frame = real_data.flights().iloc[::7].reset_index(drop=True)
    frame["time_hour"] = pd.to_datetime(frame["time_hour"])
    frame["late"] = pd.array(frame["arr_delay"] > 15, dtype="boolean").astype("boolean")
    frame.loc[frame["arr_delay"].isna(), "late"] = pd.NA
    return frame


@pytest.fixture(scope="module")
def rows(flights) -> pa.Table:
    return pa.Table.from_pandas(flights, preserve_index=False)


@pytest.fixture(scope="module")
def plan(rows) -> Plan:
    return learn(rows)


# Summaries -----------------------------------------------------------------------------------------

VALUES = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    pa.float64(): st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0]),
    pa.string(): st.text(max_size=3),
    pa.bool_(): st.booleans(),
    pa.timestamp("us", "America/New_York"): st.datetimes(
        datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1), timezones=st.just(datetime.UTC)
    ),
    pa.date32(): st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1)),
    pa.time64("us"): st.times(),
    pa.decimal128(10, 2): st.decimals(-1000, 1000, places=2),
}


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_merged_summaries_of_any_parts_are_that_of_the_whole(data):
    kind = data.draw(st.sampled_from(list(VALUES)))
    parts = data.draw(st.lists(st.lists(st.none() | VALUES[kind], max_size=8), min_size=1, max_size=5))
    arrays = [pa.array(part, kind) for part in parts]
    whole = summarise(pa.chunked_array(arrays, kind))
    merged = functools.reduce(merge, map(summarise, arrays))
    for field in ("type", "rows", "missing", "infinite", "minimum", "maximum", "value_counts"):
        assert getattr(merged, field) == getattr(whole, field)
    assert (merged.mean is None) == (whole.mean is None)
    if whole.mean is not None:
        tiny = float(np.finfo(np.float64).tiny)  # squares below it have fewer digits
        largest = max(abs(float(whole.minimum)), abs(float(whole.maximum)))
        assert merged.mean == pytest.approx(whole.mean, rel=1e-12, abs=1e-12 * largest)
        assert merged.squared_deviation == pytest.approx(
            whole.squared_deviation, rel=1e-12, abs=1e-12 * largest**2 * whole.rows + tiny
        )


@pytest.mark.parametrize("name", ["dep_time", "distance", "carrier", "late", "time_hour"])
def test_summaries_agree_with_pandas(flights, rows, name):
    found, column = summarise(rows[name]), flights[name]
    assert found.rows == len(column)
    assert found.missing == column.isna().sum()
    assert found.infinite == 0
    if name == "time_hour":
        column = (column - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    assert found.value_counts == column.value_counts().to_dict()
    assert found.minimum == column.min()
    assert found.maximum == column.max()
    if name != "carrier":
        numbers = column.dropna().astype(float)
        assert found.mean == pytest.approx(numbers.mean(), rel=1e-12)
        assert found.squared_deviation == pytest.approx(numbers.var(ddof=0) * len(numbers), rel=1e-9)


def test_summaries_of_other_types():
    dictionary = pa.array(["u", None, "u"]).dictionary_encode()
    assert summarise(dictionary) == summarise(pa.array(["u", None, "u"]))
    assert summarise(dictionary).type == "string"
    assert summarise(pa.array(["u", None], pa.string_view())).value_counts == {"u": 1}
    assert summarise(pa.array([decimal.Decimal("1.5"), None])).mean == 1.5
    assert summarise(pa.array([1500], pa.duration("ms"))).mean == 1.5
    assert summarise(pa.array([None, None])).type == "null"
    assert summarise(pa.array([[1], None])).type == "unsupported"
    assert summarise(pa.array([b"x"])).type == "unsupported"
    assert summarise(pa.array([2**62, 2**62 + 1])).maximum == 2**62 + 1
    zone = pa.array(
        [datetime.datetime(2013, 7, 1, 3, tzinfo=datetime.UTC)], pa.timestamp("s", "America/New_York")
    )
    assert summarise(zone).mean == datetime.datetime(2013, 6, 30, 23, tzinfo=datetime.UTC).timestamp()
    with fails("'Mars/Olympus'", "time zone"):
        summarise(pa.array([0], pa.timestamp("s", "Mars/Olympus")))
    with fails("integer", "string"):
        merge(summarise(pa.array([1])), summarise(pa.array(["u"])))
    assert merge(summarise(pa.array([None])), summarise(pa.array([1.5]))).type == "number"
    assert merge(summarise(pa.array([1])), summarise(pa.array([1.5]))).type == "number"


def test_values_are_counted_up_to_a_limit_in_any_order(monkeypatch):
    monkeypatch.setattr(summary, "MOST_VALUES", 4)
    parts = [summarise(pa.array(part)) for part in ([1, 2], [2, 3], [3, 4], [5, 1])]
    assert merge(parts[0], parts[1]).value_counts == {1: 1, 2: 2, 3: 1}
    assert functools.reduce(merge, parts).value_counts is None
    assert functools.reduce(merge, reversed(parts)).value_counts is None
    assert functools.reduce(merge, parts[:3]).value_counts == {1: 1, 2: 2, 3: 2, 4: 1}
    assert summarise(pa.array([1, 2, 3, 4, 5])).value_counts is None


# Features against oracles --------------------------------------------------------------------------


def test_numbers_agree_with_scikit_learn(flights, rows, plan):
    features = plan.encode(rows)
    for name in ("dep_time", "distance", "hour", "air_time"):
        place = plan.groups[name]
        scaled = StandardScaler().fit_transform(flights[[name]])[:, 0]
        np.testing.assert_allclose(features[:, place.start], np.nan_to_num(scaled), rtol=1e-5, atol=1e-6)
        missing = flights[name].isna().to_numpy()
        assert plan.feature_names[place][1:] == ((f"{name} is missing",) if missing.any() else ())
        if missing.any():
            np.testing.assert_array_equal(features[:, place.start + 1], missing)


def test_categories_agree_with_scikit_learn(flights, rows, plan):
    features = plan.encode(rows)
    for name in ("origin", "carrier", "dest"):
        encoder = OneHotEncoder(min_frequency=deciding.MINIMUM_COUNT, sparse_output=False)
        expected = encoder.fit_transform(flights[[name]])
        names = encoder.get_feature_names_out([name])
        theirs = {
            each.replace("_infrequent_sklearn", " = other").replace(f"{name}_", f"{name} = "): i
            for i, each in enumerate(names)
        }
        ours = plan.feature_names[plan.groups[name]]
        assert set(ours) == set(theirs)
        np.testing.assert_array_equal(
            features[:, plan.groups[name]], expected[:, [theirs[each] for each in ours]]
        )
        counts = flights[name].value_counts()
        kept = [each.removeprefix(f"{name} = ") for each in ours if not each.endswith("= other")]
        assert kept == sorted(kept, key=lambda value: (-counts[value], value))
    missing = flights["tailnum"].isna().to_numpy()
    assert plan.feature_names[plan.groups["tailnum"]] == ("tailnum is missing",)
    np.testing.assert_array_equal(features[:, plan.groups["tailnum"].start], missing)


def test_booleans(flights, rows, plan):
    place = plan.groups["late"]
    assert plan.feature_names[place] == ("late", "late is missing")
    late = flights["late"].astype("float64")
    expected = np.column_stack([late.fillna(late.mean()), late.isna()])
    np.testing.assert_allclose(plan.encode(rows)[:, place], expected, rtol=1e-6)


def test_times_agree_with_pandas(flights, rows, plan):
    local = rows.set_column(
        rows.column_names.index("time_hour"),
        "time_hour",
        rows["time_hour"].cast(pa.timestamp("ms", "America/New_York")),
    )
    clock = flights["time_hour"].dt.tz_convert("America/New_York").dt.tz_localize(None)
    learned = learn(local)
    place = learned.groups["time_hour"]
    seconds = (clock - pd.Timestamp(0)).dt.total_seconds()
    day = 2 * np.pi * (clock.dt.hour / 24 + clock.dt.minute / 1440)
    year = 2 * np.pi * (clock.dt.dayofyear - 1) / 365.2425
    expected = np.column_stack(
        [
            (seconds - seconds.mean()) / seconds.std(ddof=0),
            np.sin(day),
            np.cos(day),
            *[clock.dt.dayofweek == each for each in range(7)],
            np.sin(year),
            np.cos(year),
        ]
    )
    np.testing.assert_allclose(learned.encode(local)[:, place], expected, atol=1e-5)
    assert [name.removeprefix("time_hour ") for name in learned.feature_names[place]] == [
        "elapsed", "time of day (sine)", "time of day (cosine)",
        "= Monday", "= Tuesday", "= Wednesday", "= Thursday", "= Friday", "= Saturday", "= Sunday",
        "time of year (sine)", "time of year (cosine)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "kind", "parts"),
    [
        (["2013-01-01", "2013-01-05"], pa.date32(), ("elapsed",)),
        (["2013-01-01", "2013-01-08"], pa.date32(), ("elapsed", "weekday")),
        (["2013-01-01", "2013-12-31"], pa.date32(), ("elapsed", "weekday", "time of year")),
        (["2013-01-01T06:00:00", "2013-01-02T06:00:00"], pa.timestamp("s"), ("elapsed",)),
        (["2013-01-01T06:00:00", "2013-01-02T07:00:00"], pa.timestamp("ns"), ("elapsed", "time of day")),
        (["06:00:00", "18:30:00"], pa.time32("s"), ("time of day",)),
        (["06:00:00", "18:30:00"], pa.time64("ns"), ("time of day",)),
    ],
)
def test_the_parts_of_times_that_vary(values, kind, parts):
    if pa.types.is_time(kind):
        values = [datetime.time.fromisoformat(value) for value in values]
    column = pa.chunked_array([pa.array([*values, None]).cast(kind)])
    plan = learn(pa.table({"t": column}))
    assert plan.columns[0].parts == parts
    features = plan.encode(pa.table({"t": column}))
    assert not features[2, :-1].any()
    np.testing.assert_array_equal(features[:, -1], [0, 0, 1])
    if parts == ("time of day",):
        np.testing.assert_allclose(features[0, :2], [1, 0], atol=1e-6)


def test_encoding_by_blocks_changes_nothing(rows, plan, monkeypatch):
    part = pa.concat_tables([rows.slice(0, 300), rows.slice(300, 5), rows.slice(305, 700)])
    whole = plan.encode(part)
    monkeypatch.setattr(columns, "ROWS_AT_ONCE", 64)
    np.testing.assert_array_equal(plan.encode(part), whole)
    assert whole.dtype == np.float32
    assert whole.flags.c_contiguous
    assert whole.shape == (1005, plan.width)
    assert plan.encode(rows.slice(0, 0)).shape == (0, plan.width)


def test_the_statistics_are_those_of_the_training_rows_in_float64():
    base = 1e9  # where float32 cannot tell neighbours apart
    plan = learn(pa.table({"x": [base, base + 1, base + 2, base + 3]}))
    np.testing.assert_allclose(
        plan.encode(pa.table({"x": [base + 1.5, base + 4]}))[:, 0], [0, 2.5 / 1.25**0.5], rtol=1e-6
    )


# Other rows than those of training -----------------------------------------------------------------


def test_rows_are_found_by_name_and_missing_values_have_a_place():
    training = pa.table(
        {
            "n": [1.0, 3.0, None],
            "c": pa.array(["u", None, "v"]).dictionary_encode(),
            "b": [True, None, False],
            "full": [1, 2, 4],
            "whole": ["u", "v", "v"],
        }
    )
    plan = learn(training)
    assert plan.feature_names == (
        "n", "n is missing", "c = u", "c = v", "c is missing", "b", "b is missing", "full",
        "whole = v", "whole = u",
    )  # fmt: skip
    other = pa.table(
        {
            "more": [0, 0],
            "whole": ["w", None],
            "full": pa.array([None, None], pa.null()),
            "b": pa.array([None, True]),
            "c": pa.array(["w", None], pa.large_string()),
            "n": pa.array([3, None], pa.int32()),
        }
    )
    np.testing.assert_array_equal(
        plan.encode(other), [[1, 0, 0, 0, 0, 0.5, 1, 0, 0, 0], [0, 1, 0, 0, 1, 1, 0, 0, 0, 0]]
    )


def test_rare_and_unseen_values_share_a_feature():
    values = ["often"] * 990 + ["sometimes"] * 10 + ["rare"] * 9 + ["other"] * 20
    plan = learn(pa.table({"c": values}))
    assert plan.feature_names == ("c = often", "c = other", "c = sometimes", "c = any other")
    other = pa.table({"c": ["rare", "never seen", None, "other"]})
    np.testing.assert_array_equal(plan.encode(other), [[0, 0, 0, 1]] * 3 + [[0, 1, 0, 0]])
    small = learn(pa.table({"c": values[-30:]}))
    assert small.feature_names == ("c = other", "c = rare", "c = sometimes")


@pytest.mark.parametrize(
    ("zeros", "kinds", "features"),
    [
        (1_000, {}, ("gain = 0", "gain = 5178", "gain = 99999", "gain = other")),
        (1_000, {"gain": "number"}, ("gain",)),
        (900, {}, ("gain",)),
    ],
    ids=["nearly all", "asked for", "not all"],
)
def test_integers_that_are_nearly_always_the_same_are_a_category(zeros, kinds, features):
    values = [0] * zeros + [99_999] * 40 + [5_178] * 55 + [7] * 9
    plan = learn(pa.table({"gain": values}), wishes=Wishes(kinds=kinds))
    assert plan.feature_names == features


def test_integers_are_taken_for_text_where_text_was_learned():
    plan = learn(pa.table({"grade": ["K", "1", "2", "K"]}))
    np.testing.assert_array_equal(plan.encode(pa.table({"grade": [2, 1]})), [[0, 0, 1], [0, 1, 0]])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_rows_that_are_encoded_are_finite(data):
    def table(rows: int) -> pa.Table:
        drawn = {
            str(kind): pa.array(data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), kind)
            for kind, values in VALUES.items()
        }
        return pa.table(drawn)

    with contextlib.suppress(SteepestError):
        plan = learn(table(6))
        assert plan_from_json(json.loads(json.dumps(plan.to_json()))) == plan
        for other in (table(4), table(1)):
            assert np.isfinite(plan.encode(other)).all()


# Columns that are left out -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([None] * 30, "missing"),
        ([math.nan] * 30, "missing"),
        ([2013] * 30, "2013"),
        (["EWR"] * 30, "'EWR'"),
        (list(range(100, 130)), "counter"),
        (list(range(0, 3 * 30, 3)), "counter"),
        ([f"N{i}" for i in range(16)] * 2, None),
        ([f"N{i}" for i in range(15)] * 2, None),
        ([f"N{i}" for i in range(17)] + ["N0"] * 13, "17 different values"),
        ([f"{i:060d}" for i in range(5)], "text"),
        ([[1, 2]] * 30, "list"),
        ([b"x", b"y"] * 15, "binary"),
        (list(range(19)), None),
        ([7 * i * i for i in range(30)], None),
    ],
)
def test_columns_that_say_nothing_are_dropped_with_a_word(values, reason):
    table = pa.table({"x": values, "use": [i % 7 for i in range(len(values))]})
    plan = learn(table)
    if reason is None:
        assert plan.dropped == ()
    else:
        assert [each.name for each in plan.dropped] == ["x"]
        assert reason in plan.dropped[0].reason
        assert plan.dropped[0].reason.endswith((".", "'."))
        assert plan.feature_names == ("use",)


def test_an_identifier_by_its_name():
    scattered = [1000 * i * i + 7 for i in range(30)]
    plan = learn(pa.table({"customer_ID": scattered, "income": scattered[::-1]}))
    assert [each.name for each in plan.dropped] == ["customer_ID"]
    assert "identifier" in plan.dropped[0].reason


def test_one_value_and_missing_ones_leave_the_indicator():
    plan = learn(pa.table({"x": [5.0, None, 5.0], "c": ["u", None, None]}))
    assert plan.feature_names == ("x is missing", "c is missing")
    np.testing.assert_array_equal(plan.encode(pa.table({"x": [None, 9], "c": ["w", None]})), [[1, 0], [0, 1]])


def test_too_many_values_and_values_that_are_all_rare(monkeypatch):
    monkeypatch.setattr(deciding, "MOST_VALUES", 100)
    monkeypatch.setattr(summary, "MOST_VALUES", 100)
    many = [f"v{i % 101}" for i in range(300)]
    rare = [f"v{i % 2}" for i in range(300)]
    assert [each.kind for each in learn(pa.table({"x": many, "y": rare})).columns] == ["hashed", "category"]
    rare = [f"v{i // 3}" for i in range(1200)]
    monkeypatch.setattr(deciding, "MOST_VALUES", 1000)
    monkeypatch.setattr(summary, "MOST_VALUES", 1000)
    assert "rare" in learn(pa.table({"x": rare, "y": [1, 2] * 600})).dropped[0].reason


def test_integers_with_more_values_than_are_counted(monkeypatch):
    monkeypatch.setattr(summary, "MOST_VALUES", 100)
    assert "counter" in learn(pa.table({"x": list(range(300)), "y": [1, 2] * 150})).dropped[0].reason
    assert learn(pa.table({"x": [*range(299), 0], "y": [1, 2] * 150})).dropped == ()


def test_a_column_that_repeats_another(rows):
    twice = rows.select(["distance", "origin", "hour"]).append_column("miles", rows["distance"])
    plan = learn(twice.append_column("from", rows["origin"]))
    assert [(each.name, "'distance'" in each.reason) for each in plan.dropped] == [
        ("miles", True),
        ("from", False),
    ]


def test_flights_drop_the_year_and_keep_the_rest(plan):
    assert [(each.name, each.reason) for each in plan.dropped] == [
        ("year", "It has the same value in every row: 2013.")
    ]
    assert plan.width == len(plan.feature_names) == len(set(plan.feature_names))
    assert [place.start for place in plan.groups.values()][1:] == [
        place.stop for place in plan.groups.values()
    ][:-1]


def test_a_plan_is_plain_json(plan, rows):
    stored = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    again = plan_from_json(stored)
    assert again == plan
    assert stored == plan.to_json()
    np.testing.assert_array_equal(again.encode(rows.slice(0, 100)), plan.encode(rows.slice(0, 100)))


@pytest.mark.parametrize("damage", ["columns", "kind", "parts", "name", "extra"])
def test_a_damaged_plan(plan, damage):
    stored = plan.to_json()
    if damage == "columns":
        del stored["columns"]
    elif damage == "kind":
        stored["columns"][0]["kind"] = "magic"
    elif damage == "parts":
        stored["columns"][0]["parts"] = ["century"]
    elif damage == "name":
        del stored["columns"][0]["name"]
    else:
        stored["columns"][0]["extra"] = 1
    with fails("plan"):
        plan_from_json(stored)


# Bad input -----------------------------------------------------------------------------------------


def test_leaving_out(rows):
    plan = learn(rows, leave_out=["late", "year"])
    assert "late" not in plan.groups
    assert plan.dropped == ()
    with fails("no column 'lat'", "Did you mean 'late'?"):
        learn(rows, leave_out=["lat"])


def test_nothing_left():
    with fails("no column to learn from", "'x'", "missing"):
        learn(pa.table({"x": pa.array([None, None], pa.float64()), "y": [1, 2]}), leave_out=["y"])
    with fails("no column to learn from"):
        learn(pa.table({"y": [1, 2]}), leave_out=["y"])


def test_infinite_values():
    table = pa.table({"x": [1.0, math.inf, None, -math.inf]})
    with fails("'x'", "2 infinite", "row 2", "missing"):
        learn(table)
    with fails("'x'", "2 infinite", "line 1 of f"):
        learn(table, locate=lambda row: f"line {row} of f")
    plan = learn(pa.table({"x": [1.0, 2.0]}))
    with fails("'x'", "2 infinite", "line 1 of f"):
        plan.encode(table, lambda row: f"line {row} of f")
    with fails("'x'", "1 infinite value", "row 2"):
        plan.encode(table.slice(0, 2))


def test_values_too_large_to_compute_with():
    with fails("'x'", "too large", "1e+200"):
        learn(pa.table({"x": [1e200, -1e200]}))
    plan = learn(pa.table({"x": [1.0, 2.0]}))
    with fails("'x'", "too far", "1e+300", "row 2"):
        plan.encode(pa.table({"x": [1.0, 1e300]}))


@pytest.mark.parametrize(
    ("learned", "given", "parts"),
    [
        ([1.5, 2.5], ["1", "late", "2"], ["numbers", "text", "'late'", "place 1"]),
        ([1, 2], [True, False], ["numbers", "booleans", "place 0"]),
        ([True, False], [None, 1], ["booleans", "numbers", "place 1"]),
        (["u", "v"], [None, 1.5], ["text", "numbers", "1.5", "place 1"]),
        (
            [datetime.date(2013, 1, 1), datetime.date(2013, 2, 1)],
            ["2013-01-01", "soon"],
            ["dates", "'soon'", "place 1"],
        ),
        ([1, 2], [[1], [2]], ["numbers", "lists", "place 0"]),
        ([1, 2], [[b"u"], [b"v"]], ["numbers", "nested", "place 0"]),
    ],
)
def test_values_of_another_type(learned, given, parts):
    plan = learn(pa.table({"x": learned}))
    with fails("'x'", *parts):
        plan.encode(pa.table({"x": given}), lambda row: f"place {row}")


def test_a_missing_column(rows, plan):
    renamed = rows.rename_columns(["dist" if name == "distance" else name for name in rows.column_names])
    with fails("'distance'", "Did you mean 'dist'?"):
        plan.encode(renamed)

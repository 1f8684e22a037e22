"""Lags: against pandas' shift on whole tables, however the rows are cut, and through fits to predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import steepest
from expecting import fails
from interruptions import StopsAfter
from steepest import tasks, training
from steepest.cli import main
from steepest.combining import combine
from steepest.data import rows as rows_module
from steepest.data import text
from steepest.data.columns import plan_from_json
from steepest.data.lags import MOST_LAG, LaggedSource, Lags, lags_in
from steepest.data.rows import RowSource, Stretch, settled
from steepest.data.source import open_source
from steepest.data.spool import SpooledPasses
from steepest.diagnosis.model_rules import leaking_column
from steepest.explaining import table_of
from steepest.prediction import naive_forecasts, open_rows, predict, predictions
from steepest.preparation import prepare
from steepest.settings import Settings

FIT = {"learning_rate": 0.05, "epochs": 2, "batch_size": 16, "loss": "mean_squared_error"}
HOURS = 200


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "_write_report", lambda *_: None)
    monkeypatch.setattr(training, "_diagnose", lambda *_: {"findings": [], "curvature": []})
    return tmp_path


def demand(hours: int = HOURS, seed: int = 3) -> pd.DataFrame:
    """Return hours with a demand that goes by the day, of which some are missing, and the weather."""
    random = np.random.default_rng(seed)
    hour = np.arange(hours)
    load = 50 + 20 * np.sin(hour * np.pi / 12) + random.normal(0, 3, hours)
    load[[7, 60, hours - 50]] = np.nan
    return pd.DataFrame(
        {
            "time": pd.Timestamp("2024-03-01") + pd.to_timedelta(hour, "h"),
            "warm": (15 + random.normal(0, 5, hours)).round(1),
            "load": load.round(2),
        }
    )


def shifted(frame: pd.DataFrame, lags: dict[str, tuple[int, ...]]) -> pd.DataFrame:
    """Return the frame with lags as pandas makes them: what must come out."""
    return frame.assign(**{lag.name: frame[lag.column].shift(lag.rows) for lag in Lags(lags).named.values()})


def prepared(data, target: str = "load", **more):
    """Return what a fit needs of its data."""
    names = (
        ("memory",) if isinstance(data, pd.DataFrame) else tuple([data] if isinstance(data, str) else data)
    )
    asked = combine(None, {"data": names, "target": target, **more})
    return prepare(asked, data if names == ("memory",) else None)


def encoded(found) -> list[bytes]:
    parts = [found.training, found.validation]
    return [array.tobytes() for part in parts for array in (part.features[:], np.asarray(part.target))]


def read(source: RowSource, columns=None, first: int = 0) -> pd.DataFrame:
    stretches = [each.rows.to_pandas() for each in source.stretches(columns, first)]
    return pd.concat(stretches, ignore_index=True)


class Cut(RowSource):
    """A table that comes in stretches of given sizes, over and over."""

    def __init__(self, table: pa.Table, sizes: list[int]) -> None:
        self.table, self.sizes, self.schema = table, sizes, table.schema

    def stretches(self, columns=None, first=0):
        start = 0
        while start < self.table.num_rows:
            for size in self.sizes:
                begin, end = max(start, first), min(start + size, self.table.num_rows)
                if begin < end:
                    yield self.table.slice(begin, end - begin).select(columns or self.schema.names)
                start += size


NUMBERS = st.none() | st.floats(-1e6, 1e6) | st.integers(-100, 100)
COLUMN_LAGS = st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True).map(tuple)


@hypothesis_settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(NUMBERS, st.none() | st.integers(-9, 9), st.booleans()), min_size=1, max_size=60),
    st.lists(st.integers(1, 25), min_size=1, max_size=5),
    COLUMN_LAGS,
    COLUMN_LAGS,
    st.integers(0, 62),
)
def test_lags_are_those_of_pandas_however_the_rows_are_cut_and_wherever_one_begins(
    rows, sizes, of_a, of_b, first
):
    a, b, c = zip(*rows, strict=True)
    frame = pd.DataFrame({"a": [np.nan if each is None else float(each) for each in a], "b": b, "c": c})
    table = pa.table({"a": pa.array(frame["a"], from_pandas=True), "b": pa.array(b, pa.int64()), "c": c})
    lags = {"a": of_a, "b": of_b, "c": (1, 30)}
    source = LaggedSource(open_source(Cut(table, sizes)), Lags(lags))
    expected = shifted(frame.astype(float), lags).iloc[first:]
    names = list(Lags(lags).named)
    got = [each.rows for each in source.stretches(None, first)]
    if first >= len(frame):
        assert not got
        return
    assert pa.concat_tables(got).column_names == [*table.column_names, *names] == source.schema.names
    whole = pa.concat_tables(got)
    for name in names:
        assert whole[name].type == pa.float64()
        assert not np.isnan(whole[name].drop_null().to_numpy()).any(), "missing is null"
        np.testing.assert_array_equal(whole[name].to_numpy(), expected[name].to_numpy())
    one = read(source, [names[-1], "b"], first)
    assert list(one.columns) == [names[-1], "b"]
    np.testing.assert_array_equal(one[names[-1]], expected[names[-1]].to_numpy())


@hypothesis_settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 59), COLUMN_LAGS, st.lists(st.integers(1, 25), min_size=1, max_size=3), st.data())
def test_nothing_looks_ahead(row, lags, sizes, data):
    """Whatever stands in a row and below it, what lags say of it and of those above it stays."""
    values = np.arange(60.0)
    others = data.draw(st.lists(st.floats(-1e9, 1e9), min_size=60 - row, max_size=60 - row))
    wanted = Lags({"y": lags})
    was, now = (
        read(LaggedSource(open_source(Cut(pa.table({"y": each}), sizes)), wanted), [*wanted.named])[: row + 1]
        for each in (values, np.concatenate([values[:row], others]))
    )
    pd.testing.assert_frame_equal(was, now)
    assert not (now.to_numpy() == values[: row + 1, None]).any(), "no lag is the row's own value"


@pytest.mark.parametrize("kept", [False, True], ids=["read", "kept after the first pass"])
def test_several_files_are_one_table(folder, monkeypatch, kept):
    monkeypatch.setattr(rows_module, "STRETCH_ROWS", 16)
    monkeypatch.setattr(text, "BLOCK_BYTES", 300)
    frame = demand()
    lags = {"load": (1, 24, 48), "warm": (24,)}
    for number, begin in enumerate(range(0, HOURS, 37)):
        part = frame[begin : begin + 37]
        part.to_csv(f"part-{number}.csv", index=False)
        pq.write_table(
            pa.Table.from_pandas(part, preserve_index=False), f"part-{number}.parquet", row_group_size=9
        )
    expected = shifted(frame, lags)
    for pattern in ("part-*.csv", "part-*.parquet"):
        opened = open_source(pattern)
        inner = SpooledPasses(opened, folder) if kept else opened
        source = LaggedSource(inner, lags_in(opened.schema, lags))
        assert source.lags.time == "time"
        for first in (0, 0, 1, 36, 37, 38, 150, 199):
            got = read(source, None, first)
            again = expected[first:].reset_index(drop=True)
            pd.testing.assert_frame_equal(got, again, check_dtype=False)
        if kept:
            inner.close()
    (stretch,) = (each for each in source.stretches(["load 24 rows before"], 199))
    assert stretch.locate(0) == "part-5.parquet, row 15"


def test_a_column_that_was_wrongly_judged_keeps_its_lags(monkeypatch):
    """Whole numbers may become decimals, and a column whose first values look like numbers become text."""
    monkeypatch.setattr(text, "LOOK_BYTES", 200)
    monkeypatch.setattr(text, "BLOCK_BYTES", 300)
    late = [*map(str, range(60)), *(f"{each % 7} o'clock" for each in range(242))]
    frame = pd.DataFrame({"y": [*range(150), *np.arange(150, 302) + 0.25], "x": late})
    frame.to_csv("late.csv", index=False)
    lags = {"y": (1, 100)}
    said = []
    found = prepare(Settings(data=("late.csv",), target="y", lags=lags), say=said.append)
    assert any("Its rows are read anew" in each for each in said)
    expected = shifted(frame, lags)
    assert [each.name for each in found.plan.columns] == ["x", "y 1 row before", "y 100 rows before"]
    source = LaggedSource(open_source("late.csv"), Lags(lags))
    got = settled(source, lambda source: read(source, ["y 100 rows before"]))
    np.testing.assert_array_equal(got["y 100 rows before"], expected["y 100 rows before"])


def test_what_can_be_no_lag_is_refused():
    frame = {"y": [1.0, 2.0, 3.0], "name": ["a", "b", "c"], "x 1 row before": [1, 2, 3], "x": [1, 2, 3]}
    for lags, says in (
        ({"y": (0,)}, "not 0"),
        ({"y": (3, -1)}, "not -1"),
        ({"y": (MOST_LAG + 1,)}, "not 1,048,577"),
        ({"y": (2, 2)}, "2, 2"),
        ({"y": ()}, "none"),
        ({"z": (1,)}, "no column 'z'"),
        ({"name": (1,)}, "'name' holds string"),
        ({"x": (1,)}, "has a column 'x 1 row before'"),
    ):
        with fails(says):
            steepest.fit(frame, "y", lags=lags, out="run")
        with fails(says):
            steepest.explore(frame, "y", lags=lags)
    assert not Path("run").exists()


# The order of rows --------------------------------------------------------------------------------


def timed(times, kind=None) -> pa.Table:
    return pa.table({"time": pa.array(times, kind), "y": np.arange(float(len(times)))})


def passed(table: pa.Table, sizes=(2,)) -> int:
    source = LaggedSource(open_source(Cut(table, list(sizes))), lags_in(table.schema, {"y": (1,)}))
    return sum(each.rows.num_rows for each in source.stretches(["y 1 row before"]))


def test_rows_that_are_not_in_the_order_of_time_are_refused_with_file_and_line(monkeypatch):
    monkeypatch.setattr(text, "BLOCK_BYTES", 500)
    frame = demand()
    frame.loc[120, "time"] -= pd.Timedelta("3h")
    frame[:100].to_csv("a.csv", index=False)
    frame[100:].to_csv("b.csv", index=False)
    for asked in ({"lags": {"load": (1,)}}, {"validation": "last:0.2"}):
        with fails("b.csv, line 22", "'time' is 2024-03-05 21:00:00", "after 2024-03-05 23:00:00"):
            prepared(["a.csv", "b.csv"], **asked)
    found = prepared(["a.csv", "b.csv"], lags={"load": (1,)}, drop=("time",))
    assert found.facts["split"]["how"].endswith("in the order of the table, which is taken for that of time")
    prepared(["a.csv", "b.csv"])  # where the order is of no account


def test_times_may_stand_still_and_be_missing_but_not_go_back():
    day = pd.Timestamp("2024-03-01")
    kinds = (pa.timestamp("s"), pa.timestamp("ns"), pa.date32(), pa.date64())
    for kind in kinds:
        assert passed(timed([day, day, None, day + pd.Timedelta("1D")], kind)) == 4
        with fails("memory, row 4"):
            passed(timed([day, day + pd.Timedelta("1D"), None, day], kind))
    assert passed(timed([None, None], pa.timestamp("s"))) == 2


def test_times_with_a_zone_are_moments():
    """The clock goes back at the end of summer, time does not."""
    moments = pd.date_range("2024-10-26 23:00", periods=5, freq="30min", tz="UTC")
    assert passed(timed(moments, pa.timestamp("us", "Europe/Vienna"))) == 5
    naive = moments.tz_convert("Europe/Vienna").tz_localize(None)
    with fails("not in the order of time", "row 5"):
        passed(timed(naive, pa.timestamp("us")))


def test_of_two_columns_of_times_none_tells_the_order():
    day = pd.Timestamp("2024-03-01")
    table = timed([day, day - pd.Timedelta("1D")], pa.timestamp("s"))
    assert lags_in(table.schema, {"y": (1,)}).time == "time"
    assert lags_in(table.append_column("other", table["time"]).schema, {"y": (1,)}).time is None
    assert lags_in(table.append_column("clock", pa.array([1, 2], pa.time32("s"))).schema, {}).time == "time"
    assert passed(table.append_column("other", table["time"])) == 2


def test_a_row_that_cannot_be_used_is_an_error_where_it_would_shift_the_lags(folder):
    frame = demand()
    lines = frame.to_csv(index=False).splitlines()
    lines[100] = "2024-03-05 03:00:00,1,2,3,4"
    Path("broken.csv").write_text("\n".join(lines) + "\n")
    with fails("broken.csv, line 101", "lags of all later"):
        prepared("broken.csv", lags={"load": (1,)})
    found = prepared("broken.csv", validation="last:0.2")
    assert {"reason": "they can't be used: rejected.csv says why", "rows": 1} in found.facts["data"][
        "left_out"
    ]
    found.rejected(folder)
    assert "broken.csv,101," in Path("rejected.csv").read_text()


def test_rejected_rows_are_told_where_a_pass_counts_groups_first(folder):
    lines = ["shop,miles,y", *(f"s{row % 9},{row * 7 % 13},{row * 5 % 11}" for row in range(300))]
    lines[50] = "too,many,cells,here"
    Path("shops.csv").write_text("\n".join(lines) + "\n")
    found = prepared("shops.csv", "y", split_by="shop")
    assert found.facts["data"]["rows"] == 300
    found.rejected(folder)
    assert "shops.csv,51," in Path("rejected.csv").read_text()


# Fits ---------------------------------------------------------------------------------------------

LAGS = {"load": (1, 24, 48), "warm": (3,)}


def contents(run) -> dict[str, bytes]:
    return {name: (run.path / name).read_bytes() for name in ("model.safetensors", "history.parquet")}


def test_a_fit_is_that_of_columns_that_pandas_shifted():
    """All that comes after sees ordinary columns: the same bytes, figures, predictions, contributions."""
    frame = demand()
    ours = steepest.fit(frame, "load", lags=LAGS, out="ours", **FIT)
    theirs = steepest.fit(shifted(frame, LAGS), "load", validation="last:0.2", out="theirs", **FIT)
    assert contents(ours) == contents(theirs)
    assert ours.plan.columns == theirs.plan.columns
    for part in ("training", "validation"):
        a, b = (each.record["figures"][part] for each in (ours, theirs))
        assert a["scores"] == b["scores"]
    a = pa.concat_tables(predictions(ours, open_rows(ours.plan, frame)))
    b = pa.concat_tables(predictions(theirs, open_rows(theirs.plan, shifted(frame, LAGS))))
    assert a.num_rows == HOURS
    assert a.equals(b)
    why = [
        steepest.explain(run, data, [0, 30, 199])
        for run, data in ((ours, frame), (theirs, shifted(frame, LAGS)))
    ]
    assert table_of(why[0]).equals(table_of(why[1]))


def test_bytes_are_the_same_from_files_from_memory_and_after_an_interruption(monkeypatch):
    monkeypatch.setattr(text, "BLOCK_BYTES", 700)
    frame = demand()
    for number, begin in enumerate(range(0, HOURS, 90)):
        part = frame[begin : begin + 90]
        part.to_csv(f"part-{number}.csv", index=False, date_format="%Y-%m-%dT%H:%M:%S")
        pq.write_table(pa.Table.from_pandas(part, preserve_index=False), f"part-{number}.parquet")
    sources = (frame, "part-*.csv", "part-*.parquet")
    first, *others = (prepared(data, lags=LAGS) for data in sources)
    for other in others:
        assert other.plan == first.plan
        assert encoded(other) == encoded(first)
    keys = {prepared("part-*.csv", lags=lags).key for lags in (LAGS, {"load": (1,)}, {})}
    assert len(keys) == 3, "rows with other lags are not taken from the cache"
    asked = {"lags": LAGS, "checkpoint_every": 0.0, **FIT, "epochs": 4}
    with pytest.raises(KeyboardInterrupt):
        steepest.fit(
            "part-*.csv", "load", out="resumed", callbacks=[StopsAfter(2, KeyboardInterrupt)], **asked
        )
    assert main(["resume", "resumed"]) is None
    whole = steepest.fit(frame, "load", out="whole", **asked)
    assert contents(whole) == contents(steepest.run.open_run("resumed"))


def test_the_last_rows_are_held_out_of_those_with_a_target():
    frame = demand()
    frame.loc[HOURS - 24 :, "load"] = np.nan  # the day that is to be forecast
    labelled = frame[frame["load"].notna()]
    held = []
    for more in ({"lags": {"load": (24,)}}, {"lags": {"load": (24,)}, "validation": "last:0.2"}):
        found = prepared(frame, **more)
        assert found.facts["split"]["validation_rows"] == round(0.2 * len(labelled)) == 35
        assert found.facts["split"]["how"] == "the last 0.2 of the rows are held out, in the order of 'time'"
        truth = tasks.true_values(found.task, np.asarray(found.validation.target))
        np.testing.assert_allclose(truth, labelled["load"][-35:], rtol=1e-6)
        held.append(encoded(found))
    assert held[0] == held[1]
    without = prepared(frame, validation="last:0.2")
    np.testing.assert_array_equal(without.validation.target, found.validation.target)
    assert without.plan.lags is None


def test_the_best_naive_forecast_is_the_baseline_and_others_are_told(monkeypatch, capsys):
    monkeypatch.setattr(text, "BLOCK_BYTES", 700)
    frame = demand()
    run = steepest.fit(frame, "load", lags={"load": (12, 24), "warm": (1,)}, out="run", **FIT)
    found = run.record["figures"]["validation"]
    assert found["baseline"]["what"] == "predicting the load 24 rows before"
    lags = shifted(frame, {"load": (12,)})[-39:]
    worse = np.sqrt(np.nanmean((lags["load"] - lags["load 12 rows before"]) ** 2))
    said = next(note for note in found["notes"] if "other naive forecasts" in note)
    assert float(said.split("before: ")[1].rstrip(".")) == pytest.approx(worse, rel=0.05)
    frame.to_csv("later.csv", index=False)
    assert main(["evaluate", "run", "later.csv"]) is None
    out = capsys.readouterr().out
    assert "baseline: predicting the load 24 rows before" in out
    lacking = shifted(frame, {"load": (12, 24), "warm": (1,)})[frame["load"].notna()].isna().any(axis=1).sum()
    assert f"{lacking} rows lack a value to which lags look back." in out


def test_a_lag_that_tells_nearly_all_is_no_leak():
    skills = {"load 24 rows before": 0.99, "warm": 0.1}
    assert (
        leaking_column({"columns": skills, "settings": {"lags": {}}})["where"]
        == "column 'load 24 rows before'"
    )
    assert leaking_column({"columns": skills, "settings": {"lags": {"load": (24,)}}}) is None
    load = np.arange(3000) % 24 * 1.0
    frame = pd.DataFrame({"load": load, "copy": load})
    found = steepest.explore(frame, "load", lags={"load": (24,)}).findings
    assert [each["where"] for each in found if each["finding"] == "leaking_column"] == ["column 'copy'"]


def test_classes_have_lags_and_no_naive_forecast():
    frame = demand().assign(high=lambda each: (each["load"] > 50).astype(int)).drop(columns="load")
    run = steepest.fit(frame, "high", lags={"high": (1, 24)}, out="run", epochs=1, learning_rate=0.1)
    assert "always predicting" in run.record["figures"]["validation"]["baseline"]["what"]
    assert {"high 1 row before", "high 24 rows before"} <= {each.name for each in run.plan.columns}


def test_a_column_can_be_learned_from_by_its_past_alone():
    frame = demand()
    run = steepest.fit(frame, "load", lags={"warm": (24,)}, drop=["warm"], out="run", **FIT)
    assert [each.name for each in run.plan.columns] == ["time", "warm 24 rows before"]
    later = frame.copy()
    later.loc[100:, "warm"] = 1e3
    was, now = (
        pa.concat_tables(predictions(run, open_rows(run.plan, each)))["prediction"].to_numpy()
        for each in (frame, later)
    )
    np.testing.assert_array_equal(was[:124], now[:124])
    assert (was[124:] != now[124:]).all()


def test_rows_are_predicted_from_what_the_given_table_holds(capsys):
    frame = demand()
    steepest.fit(frame, "load", lags=LAGS, out="run", **FIT)
    new = frame[150:].drop(columns="load").assign(load=[*frame["load"][150:180], *[np.nan] * 20])
    new.to_csv("new.csv", index=False)
    assert main(["predict", "run", "new.csv", "--out", "p.csv", "--json"]) is None
    said = capsys.readouterr()
    lacking = shifted(new, LAGS)[list(Lags(LAGS).named)].isna().any(axis=1).sum()
    assert f"{lacking} rows lack a value" in said.err
    assert json.loads(said.out.splitlines()[-1])["without_past"] == lacking == 50
    got = pd.read_csv("p.csv")
    assert len(got) == 50
    run = steepest.run.open_run("run")
    expected = predict(run, pa.Table.from_pandas(shifted(new, LAGS), preserve_index=False))
    np.testing.assert_allclose(got["prediction"], expected, rtol=1e-6)
    new.drop(columns="load").to_csv("none.csv", index=False)
    with pytest.raises(SystemExit):
        main(["predict", "run", "none.csv", "--out", "p.csv"])
    assert "no column 'load'" in capsys.readouterr().err
    new.assign(load=np.nan).to_csv("unknown.csv", index=False)
    assert main(["predict", "run", "unknown.csv", "--out", "p.csv"]) is None
    assert "50 rows lack a value" in capsys.readouterr().err
    new[::-1].to_csv("turned.csv", index=False)
    with pytest.raises(SystemExit):
        main(["predict", "run", "turned.csv", "--out", "p.csv"])
    assert "turned.csv, line 3" in capsys.readouterr().err


def test_ways_to_hold_rows_out_that_go_with_lags_and_that_do_not():
    frame = demand().assign(month=lambda each: each["time"].dt.day, last=lambda each: each.index >= 170)
    for more in ({"lags": {"load": (1,)}}, {"validation": "last:0.2"}):
        with fails("--split-by draws groups"):
            prepared(frame, split_by="month", **more)
    for validation in ("last:", "last:1.5", "last:x"):
        with fails("not between 0 and 1" if "1.5" in validation else "names no share"):
            prepared(frame, validation=validation)
    lags = {"load": (1,)}
    marked = prepared(frame, validation_column="last", lags=lags)
    assert marked.facts["split"]["validation_rows"] == frame["last"].sum()
    assert prepared(frame, validation=0.0, lags=lags).validation is None
    frame[:150].to_csv("train.csv", index=False)
    frame[150:].to_csv("later.csv", index=False)
    named = prepared("train.csv", validation="later.csv", lags=lags)
    features = named.validation.features
    (naive,) = naive_forecasts(named.task, named.plan, features).values()
    own = frame["load"][150:].shift(1)  # what is in another file is not looked back to
    there = frame["load"][150:].notna()
    mean = frame["load"][:150].shift(1)[frame["load"][:150].notna()].mean()
    np.testing.assert_allclose(naive, own[there].fillna(mean), rtol=1e-6)


def test_spark_is_refused():
    for more in ({"lags": {"load": (1,)}}, {"validation": "last:0.2"}):
        with fails("A fit on Spark knows no order"):
            combine(None, {"data": ("a.csv",), "target": "load", "on": "spark", "workers": 2, **more})


def test_going_on_from_a_run_keeps_its_lags():
    frame = demand()
    frame.to_csv("load.csv", index=False)
    steepest.fit("load.csv", "load", lags=LAGS, out="whole", **{**FIT, "epochs": 3})
    steepest.fit("load.csv", "load", lags=LAGS, out="first", **FIT)
    assert main(["fit", "load.csv", "--from", "first", "--epochs", "1", "--out", "longer"]) is None
    longer, whole = (steepest.run.open_run(each) for each in ("longer", "whole"))
    assert contents(longer) == contents(whole)
    assert longer.plan.lags == whole.plan.lags == Lags({"load": (1, 24, 48), "warm": (3,)}, "time")
    with fails("learned with the lags"):
        steepest.fit("load.csv", "load", from_="first", lags={"load": (1,)}, out="other")


def test_explore_tune_and_compare_see_lags_as_columns(capsys):
    frame = demand()
    frame.to_csv("load.csv", index=False)
    ours, theirs = (
        steepest.explore(frame, "load", lags=LAGS).record,
        steepest.explore(shifted(frame, LAGS), "load").record,
    )
    assert ours["columns"] == theirs["columns"]
    assert ours["associations"] == theirs["associations"]
    lags = ["--lags", "load:1,24", "--lags", "load:48", "--lags", "warm:3"]
    assert main(["explore", "load.csv", "--target", "load", *lags]) is None
    assert "load 48 rows before" in capsys.readouterr().out
    for command in (["tune"], ["compare", "--variants", "batch_size=16", "batch_size=32", "--out", "both"]):
        asked = ["--target", "load", *lags, "--kind", "warm=number", "--epochs", "1"]
        rate = ["--learning-rate", "0.1"] if command[0] == "compare" else []
        assert main([command[0], "load.csv", *command[1:], *asked, *rate, "--json"]) is None
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        if command[0] == "compare":
            assert found["split"]["how"].startswith("the last 0.2")


def test_the_command_that_makes_a_run_again_has_its_lags(capsys):
    frame = demand()
    frame.to_csv("load.csv", index=False)
    asked = [
        "--target",
        "load",
        "--lags",
        "load:1,24",
        "--learning-rate",
        "0.1",
        "--epochs",
        "1",
        "--out",
        "a",
    ]
    assert main(["fit", "load.csv", *asked]) is None
    run = steepest.run.open_run("a")
    assert "--lags load:1,24" in run.record["command"]
    Path("s.toml").write_text((run.path / "settings.toml").read_text())
    assert main(["fit", "--settings", "s.toml", "--out", "b"]) is None
    assert contents(run) == contents(steepest.run.open_run("b"))
    for wrong in ("load", "load:", "load:x", ":3", "load:-1"):
        with pytest.raises(SystemExit):
            main(["fit", "load.csv", "--target", "load", "--lags", wrong])
        assert "names no lags" in capsys.readouterr().err


def test_a_plan_without_lags_is_stored_as_it_always_was():
    plan = prepared(demand().assign(warm=1), lags=LAGS, kinds={"warm": "number"}).plan
    stored = json.loads(json.dumps(plan.to_json()))
    assert plan_from_json(stored) == plan
    assert plan.lags == Lags(LAGS, "time")
    too_long = prepared(demand(), lags={"load": (1, 190)})  # which no training row has
    assert too_long.plan.lags == Lags({"load": (1,)}, "time"), "what is not learned from is not looked for"
    alone = replace(plan, lags=plan.lags.only(["load 24 rows before"]))
    assert alone.lags == Lags({"load": (24,)}, "time")
    assert alone.lags.reads(["load 24 rows before", "warm"]) == ("load", "warm", "time")
    before = {name: each for name, each in stored.items() if name != "lags"}
    assert plan_from_json(before).lags is None
    assert "lags" not in plan_from_json(before).to_json()


def test_stretches_that_have_rejected_rows_only_are_passed():
    """A source may tell of a row that can't be used where it has no other."""
    table = pa.table({"y": [1.0, 2.0]})
    rejected = rows_module.Rejected("a.csv", 2, "4 cells for 1 column")

    class Odd(RowSource):
        schema = table.schema

        def stretches(self, columns=None, first=0):
            yield Stretch(table.slice(0, 0), str, (rejected,))
            yield Stretch(table.slice(first), str)

    stretches = LaggedSource(open_source(Odd()), Lags({})).stretches()
    assert [(each.rows.num_rows, each.rejected) for each in stretches] == [(0, (rejected,)), (2, ())]
    with fails("a.csv, line 2"):
        read(LaggedSource(open_source(Odd()), Lags({"y": (1,)})))


def test_settings_say_what_is_held_out():
    assert Settings(validation="last:0.1").in_order
    assert Settings(lags={"y": (1,)}).in_order
    assert not Settings(validation="last.csv").in_order
    assert Settings(validation="last.csv").validation_file == "last.csv"
    assert Settings(validation="last:0.1").validation_file is None
    assert not Settings(validation="last:0").holds_out

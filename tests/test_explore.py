"""`explore`: what it finds in real and built tables, the same however they come, and what it shows."""

from __future__ import annotations

import html.parser
import itertools
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

import steepest
from expecting import fails
from real_data import flights
from steepest.cli import main
from steepest.data.learning import Learner
from steepest.exploration import exploring
from steepest.exploration.exploring import explore

ROWS = 3000
HOSTILE = '<script>alert(1)</script> & "x" \'$'


def generator(seed: int = 5) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def built(rows: int = ROWS) -> pd.DataFrame:
    """A table with one column for each thing that is worth a remark."""
    noise = generator()
    size = noise.normal(size=rows)
    price = 50 + 10 * size + 5 * noise.normal(size=rows)
    table = pd.DataFrame(
        {
            "counter": np.arange(rows),
            "size": size,
            "same size": size,
            "length": size * 3 + 0.1 * noise.normal(size=rows),
            "cut": noise.choice(["good", "fair", "ideal"], rows),
            "one": 7,
            "empty": pd.Series([None] * rows, dtype=object),
            "name": [f"n{number:05d}" for number in noise.permutation(rows)],
            "customer_id": noise.integers(0, 50 * rows, rows),
            "note": [
                f"{number} is the number of this row, and this is a rather long remark on it"
                for number in range(rows)
            ],
            "day": pd.date_range("2020-01-01", periods=rows, freq="D"),
            "mixed": noise.choice(["1", "a", "2.5"], rows),
            "income": np.exp(1.5 * noise.normal(size=rows)),
            "gap": np.where(noise.random(rows) < 0.7, np.nan, noise.normal(size=rows)),
            "bad": np.where(np.arange(rows) == 17, np.inf, noise.normal(size=rows)),
            "cents": price * 100,
            "price": price,
        }
    )
    table.loc[:3, "customer_id"] = 1
    return table


@pytest.fixture(scope="module")
def found():
    return explore(built(), "price")


def where(found, finding: str) -> list[str]:
    return [each["where"] for each in found.findings if each["finding"] == finding]


def test_each_remark_is_made_where_it_belongs_and_nowhere_else(found):
    assert {
        each["finding"]: where(found, each["finding"])
        for each in found.findings
        if each["finding"] != "conditioning"
    } == {
        "infinite_values": ["column 'bad'"],
        "leaking_column": ["column 'cents'"],
        "identifier_column": ["column 'customer_id'", "column 'counter'", "column 'name'"],
        "duplicate_column": ["columns 'size', 'same size'"],
        "correlated_columns": ["columns 'size', 'length'"],
        "missing_values": ["column 'gap'"],
        "constant_column": ["column 'one'"],
        "empty_column": ["column 'empty'"],
        "text_column": ["column 'note'"],
        "skewed_column": ["column 'income'"],
        "sorted_rows": ["column 'counter'", "column 'day'"],
    }


def test_findings_have_their_form_and_come_by_severity(found):
    for each in found.findings:
        assert list(each) == ["finding", "severity", "evidence", "where", "try"]
        assert all(each.values())
    order = ["error", "warning", "information"]
    places = [order.index(each["severity"]) for each in found.findings]
    assert places == sorted(places)


def test_figures_of_columns_are_numpys_and_pandas(found):
    table = built()
    columns = found.columns
    income = table["income"]
    assert columns.loc["income", "mean"] == pytest.approx(income.mean())
    assert columns.loc["income", "deviation"] == pytest.approx(income.std(ddof=0))
    assert columns.loc["income", "skewness"] == pytest.approx(income.skew(), rel=0.01)
    assert columns.loc["income", "skewness_of_logarithm"] == pytest.approx(np.log(income).skew(), abs=0.01)
    for share, value in columns.loc["income", "quantiles"].items():
        assert value == pytest.approx(income.quantile(float(share.rstrip("%")) / 100))
    shown = columns.loc["income", "histogram"]
    assert sum(shown["rows"]) + shown["below"] + shown["above"] == ROWS
    assert shown["rows"] == np.histogram(income, shown["edges"])[0].tolist()
    assert columns.loc["gap", "missing"] == table["gap"].isna().sum()
    assert columns.loc["bad", "infinite"] == 1
    assert columns.loc["bad", "maximum"] == table["bad"][table["bad"] < np.inf].max()
    assert columns.loc["cut", "different"] == 3
    counts = table["cut"].value_counts(normalize=True)
    assert {each["value"]: each["share"] for each in columns.loc["cut", "top"]} == pytest.approx(
        counts.to_dict()
    )
    assert columns.loc["day", ["minimum", "maximum"]].tolist() == [
        "2020-01-01 00:00:00",
        "2028-03-18 00:00:00",
    ]
    assert columns.loc["customer_id", "different_in_sample"] == table["customer_id"].nunique() / ROWS


def test_kinds_of_columns(found):
    assert found.columns["kind"].to_dict() == {
        **dict.fromkeys(["size", "same size", "length", "income", "gap", "bad", "cents"], "number"),
        **dict.fromkeys(["counter", "name"], "identifier"),
        **dict.fromkeys(["cut", "mixed"], "category"),
        "customer_id": "number", "one": "constant", "empty": "empty", "note": "text", "day": "time",
    }  # fmt: skip


@pytest.mark.parametrize("load", [load_breast_cancer, load_diabetes, load_iris, load_wine])
def test_healthy_real_tables_get_no_warning(load):
    found = explore(load(as_frame=True).frame, "target")
    assert [each for each in found.findings if each["severity"] != "information"] == []


def test_a_leak_into_classes_is_found():
    table = load_wine(as_frame=True).frame
    table["cellar"] = table["target"].map({0: "north", 1: "south", 2: "west"})
    assert where(explore(table, "target"), "leaking_column") == ["column 'cellar'"]


def test_noise_has_no_signal():
    noise = generator()
    table = pd.DataFrame(noise.normal(size=(4000, 12))).rename(columns=str)
    table["category"] = noise.choice(list("abcdef"), 4000)
    for target in (noise.choice(["u", "v"], 4000), noise.normal(size=4000)):
        assert where(explore(table.assign(y=target), "y"), "no_signal") == ["target 'y'"]


def test_scrambled_labels_of_real_data_have_no_signal_and_the_labels_themselves_have():
    table = load_breast_cancer(as_frame=True).frame
    assert where(explore(table, "target"), "no_signal") == []
    table["target"] = generator().permutation(table["target"])
    assert where(explore(table, "target"), "no_signal") == ["target 'target'"]


def test_rare_classes_are_told_and_a_chance_hit_on_five_rows_is_no_leak():
    noise = generator()
    x = noise.normal(size=5000)
    rare = x > np.sort(x)[-6]
    found = explore({"x": x, "y": rare}, "y")
    assert "5" in next(each["evidence"] for each in found.findings if each["finding"] == "class_imbalance")
    assert where(found, "leaking_column") == []
    even = explore({"x": x, "y": x + noise.normal(size=5000) > 0}, "y")
    assert where(even, "class_imbalance") == []


def test_a_target_with_a_long_tail():
    noise = generator()
    x = noise.normal(size=2000)
    assert where(explore({"x": x, "y": np.exp(x + noise.normal(size=2000))}, "y"), "skewed_target")
    assert not where(explore({"x": x, "y": x + noise.normal(size=2000)}, "y"), "skewed_target")


def test_rows_without_a_target_are_counted(tmp_path):
    table = pd.DataFrame({"x": np.arange(100.0) % 7, "y": np.arange(100.0) % 11})
    table.loc[:24, "y"] = np.nan
    found = explore(table, "y")
    assert found.record["sample"]["of"] == 75
    assert found.record["data"]["left_out"] == [{"reason": "the target 'y' is missing", "rows": 25}]
    assert where(found, "rows_left_out") == ["rows"]


def test_nearly_equal_columns_make_a_long_valley():
    noise = generator()
    a, b = noise.normal(size=(2, 2000))
    near = a + 1e-4 * noise.normal(size=2000)
    found = explore({"a": a, "b": b, "near": near, "y": 1e4 * (a - near) + b}, "y")
    (long,) = [each for each in found.findings if each["finding"] == "ill_conditioned"]
    assert long["severity"] == "warning"
    assert long["where"] in ("columns 'a', 'near'", "columns 'near', 'a'")
    plain = explore({"a": a, "b": b, "y": a + b}, "y")
    assert plain.record["conditioning"]["after"]["number"] < 2


def test_scaling_is_what_makes_the_condition_good():
    noise = generator()
    table = {"m": noise.normal(size=500), "mm": 1000 * noise.normal(size=500)}
    found = explore({**table, "y": table["m"] + table["mm"] / 1000 + noise.normal(size=500)}, "y")
    before, after = (found.record["conditioning"][when] for when in ("before", "after"))
    x = np.column_stack([np.ones(500), table["m"], table["mm"]])
    assert before["number"] == pytest.approx(np.linalg.cond(x) ** 2, rel=1e-6)
    x[:, 1:] = (x[:, 1:] - x[:, 1:].mean(0)) / x[:, 1:].std(0)
    assert after["number"] == pytest.approx(np.linalg.cond(x) ** 2, rel=1e-4)


def test_forty_files_tell_what_one_does(tmp_path):
    table = built(2000).drop(columns=["empty", "mixed"])
    table.to_csv(tmp_path / "one.csv", index=False)
    (tmp_path / "parts").mkdir()
    for number, part in enumerate(np.array_split(np.arange(2000), 40)):
        table.iloc[part].to_csv(tmp_path / "parts" / f"{number:02d}.csv", index=False)
    one, forty = (
        explore(each, "price").record
        for each in (str(tmp_path / "one.csv"), str(tmp_path / "parts" / "*.csv"))
    )
    assert len(forty["data"].pop("files")) == 40
    one["data"].pop("files")
    assert forty == one


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 900), max_size=5))
def test_what_is_learned_of_parts_merges_into_what_is_learned_of_the_whole(places):
    table = pa.Table.from_pandas(built(900), preserve_index=False)
    whole = Learner(table.column_names)
    whole.update(table)
    merged = Learner(table.column_names)
    edges = [0, *sorted(places), 900]
    for a, b in itertools.pairwise(edges):
        part = Learner(table.column_names)
        part.update(table.slice(a, b - a))
        merged.merge(part)
    assert merged.twins == whole.twins == (("size", "same size"),)
    for name, summary in whole.summaries.items():
        other = merged.summaries[name]
        for field in ("rows", "missing", "infinite", "minimum", "maximum", "value_counts", "characters"):
            assert getattr(other, field) == getattr(summary, field), (name, field)
        assert other.mean == pytest.approx(summary.mean)
        assert other.squared_deviation == pytest.approx(summary.squared_deviation)


def test_sorted_rows_are_sampled_as_well_as_shuffled_ones(monkeypatch):
    monkeypatch.setattr(exploring, "SAMPLED", 4096)
    noise = generator()
    x = np.sort(noise.normal(size=30_000))
    y = x + noise.normal(size=30_000)
    found = explore({"x": x, "y": y}, "y")
    assert found.record["sample"]["rows"] == 4096
    assert found.columns.loc["x", "order"] == "rising"
    assert found.columns.loc["x", "score"] == pytest.approx(0.5, abs=0.05)
    assert found.columns.loc["x", "quantiles"]["50%"] == pytest.approx(0, abs=0.08)
    assert found.columns.loc["x", "mean"] == pytest.approx(x.mean())  # of all rows
    again = explore({"x": x, "y": y}, "y", seed=1)
    assert again.columns.loc["x", "quantiles"] != found.columns.loc["x", "quantiles"]
    assert again.columns.loc["x", "mean"] == found.columns.loc["x", "mean"]


def test_the_flights():
    table = flights()[
        ["dep_delay", "arr_delay", "carrier", "origin", "dest", "distance", "time_hour", "flight"]
    ]
    found = explore(table.assign(late=table["arr_delay"] > 15), "late")
    assert where(found, "leaking_column") == ["column 'arr_delay'"]
    assert found.columns.loc["dep_delay", "score"] == pytest.approx(0.9, abs=0.05)


def test_wide_tables_are_bounded(monkeypatch):
    monkeypatch.setattr(exploring, "MOST_COMPARED", 5)
    monkeypatch.setattr(exploring, "MOST_CONDITIONED", 7)
    noise = generator()
    table = pd.DataFrame(noise.normal(size=(400, 30))).rename(columns=str)
    found = explore(table.assign(y=table["21"] + 0.1 * noise.normal(size=400)), "y").record
    assert len(found["associations"]["columns"]) == 5
    assert "21" in found["associations"]["columns"]
    assert (found["conditioning"]["features"], found["conditioning"]["of"]) == (7, 30)


def test_bad_input_is_told(tmp_path):
    with fails("has no column 'prise'"):
        explore(built(50), "prise")
    with fails("one value only"):
        explore({"x": [1.0, 2.0, 3.0], "y": [1, 1, 1]}, "y")
    with fails("can't be written"):
        explore(load_iris(as_frame=True).frame, "target").write_report(tmp_path / "no" / "page.html")


@pytest.mark.parametrize("rows", [2, 3, 7])
def test_tables_of_a_few_rows(rows):
    found = explore({"x": [float(row) for row in range(rows)], "y": [row % 2 for row in range(rows)]}, "y")
    json.dumps(found.record, allow_nan=False)


def test_a_table_of_the_target_alone(tmp_path):
    found = explore({"y": [1.0, 2.5, 3.0, 7.0] * 9}, "y")
    assert found.record["columns"] == []
    found.write_report(tmp_path / "page.html")


class Page(html.parser.HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data


def test_the_page_shows_what_was_found_and_escapes_names(tmp_path):
    table = built().rename(columns={"cents": HOSTILE, "cut": "<b>cut</b>"})
    found = explore(table, "price")
    found.write_report(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    page = Page(text)
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags
    assert "b" not in tags
    assert HOSTILE in page.words
    for each in found.findings:
        assert each["finding"].replace("_", " ").capitalize() in page.words
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    used = found.columns[found.columns["unused"].isna()]
    assert len(drawings) == 3 + len(used)  # relations, associations, the target
    assert all(attributes["role"] == "img" for attributes in drawings)
    assert tags.count("details") == len(drawings)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert not re.search(r"(?:src|href)=\"(?!#)", text)


def test_the_command_prints_a_table_and_writes_the_page(tmp_path, capsys):
    built().drop(columns="mixed").to_csv(tmp_path / "built.csv", index=False)
    page = tmp_path / "page.html"
    main(
        [
            "explore",
            str(tmp_path / "built.csv"),
            "--target",
            "price",
            "--drop",
            "cents",
            "--out",
            str(page),
            "--json",
        ]
    )
    printed = capsys.readouterr().out
    record = json.loads(printed.splitlines()[-1])
    assert "cents" not in {column["name"] for column in record["columns"]}
    assert "duplicate_column" in printed
    assert "customer_id" in printed
    assert str(page) in printed.replace("\n", "")
    assert page.stat().st_size > 10_000


def test_the_command_tells_errors_in_a_line(tmp_path, capsys):
    built(50).to_csv(tmp_path / "built.csv", index=False)
    with pytest.raises(SystemExit) as stopped:
        main(["explore", str(tmp_path / "built.csv"), "--target", "prize"])
    assert stopped.value.code == 2
    assert "Did you mean 'price'?" in capsys.readouterr().err


def test_it_is_a_public_name():
    assert steepest.explore is explore

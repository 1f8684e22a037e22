"""The figures and the report: what they keep, what they escape, and that every edge can be drawn."""

from __future__ import annotations

import html.parser
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler

from steepest.diagnosis import plots
from steepest.diagnosis.pages import number
from steepest.diagnosis.report import verdict, write_report
from steepest.diagnosis.svg import clean, svg
from steepest.evaluation import evaluate

HOSTILE = """<script>alert("1")</script> & 'x' $\\frac$ id="axes_1" url(#a) ]]> -->"""


def generator() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([7])))


def history(
    count: int = 300, epoch_count: int = 10, *, validation: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    step = np.arange(1, count + 1)
    noise = generator()
    steps = pd.DataFrame(
        {
            "step": step,
            "epoch": (step - 1) * epoch_count // count + 1,
            "loss": 0.3 + 0.5 * np.exp(-step / 40) + 0.05 * noise.standard_normal(count),
            "gradient_norm": 2 * np.exp(-step / 60) * noise.uniform(0.5, 1.5, count) + 0.01,
            "learning_rate": 1e-3 * 0.5 * (1 + np.cos(np.pi * step / count)),
        }
    )
    epochs = steps.groupby("epoch", as_index=False)[["loss", "learning_rate"]].mean()
    epochs.insert(1, "rows", 400_000)
    epochs.insert(2, "seconds", 1.234)
    if validation:
        epochs["validation_loss"] = epochs["loss"] + 0.02 + 0.004 * epochs["epoch"]
        epochs["validation_accuracy"] = 0.9 - epochs["loss"] / 4
    return steps, epochs


def evaluations(kind: str) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Score a fitted scikit-learn model on even (training) and odd (held-out) rows of a real data set."""
    load = {"binary": load_breast_cancer, "classes": load_digits, "number": load_diabetes}[kind]
    features, truth = load(return_X_y=True)
    features = StandardScaler().fit_transform(features)
    if kind == "number":
        model = LinearRegression().fit(features[::2], truth[::2])
        predicted, baseline, labels = model.predict(features), truth[::2].mean(), []
    else:
        model = LogisticRegression(C=0.01).fit(features[::2], truth[::2])
        predicted = model.predict_proba(features)
        baseline = np.bincount(truth[::2]) / len(truth[::2])
        labels = ["malignant", "benign"] if kind == "binary" else [str(digit) for digit in range(10)]
        if kind == "binary":
            predicted, baseline = predicted[:, 1], baseline[1]
    parts = [
        evaluate(kind, truth[start::2], predicted[start::2], baseline=baseline, labels=labels)
        for start in (0, 1)
    ]
    return parts[0], parts[1], labels


def make_record(kind: str) -> dict[str, Any]:
    training, validation, labels = evaluations(kind)
    return {
        "steepest": "0.1.0",
        "created": "2025-11-22T18:12:00+00:00",
        "command": f"steepest fit {kind}.csv --target outcome --model mlp --hidden 64,32 --out runs/demo",
        "settings_toml": 'target = "outcome"\nmodel = "mlp"\nhidden = [64, 32]\nlearning_rate = 0.001\n',
        "data": {
            "files": [f"{kind}.csv", "a_second_file_with_a_long_name_of_many_words_and_years_2013.parquet"],
            "rows": validation["rows"] + training["rows"] + 8255,
            "left_out": [{"reason": "the target is missing", "rows": 8255}],
        },
        "split": {
            "training_rows": training["rows"],
            "validation_rows": validation["rows"],
            "how": "Every second row is held out.",
        },
        "target": {
            "name": "outcome",
            "kind": kind,
            "labels": labels,
            "why": "The target holds two values, so the loss is binary cross-entropy.",
        },
        "model": {
            "name": "mlp",
            "hidden": [64, 32],
            "activation": "relu",
            "parameters": 6337,
            "features": 64,
        },
        "descent": {
            "loss": "binary cross-entropy",
            "optimizer": "adam",
            "learning_rate": 0.001,
            "schedule": "cosine",
            "batch_size": 32,
            "epochs": 10,
            "steps": 300,
            "seed": 0,
            "why_it_stopped": "It reached the last epoch.",
            "seconds": 83.2,
            "rows_per_second": 2_345_678.9,
        },
        "columns": [
            {"name": f"column_{i}", "kind": "number", "features": 1, "missing": i * 1000, "note": ""}
            for i in range(8)
        ]
        + [
            {
                "name": "a_rather_long_column_name_as_they_are",
                "kind": "category",
                "features": 105,
                "missing": 2512,
                "note": "12 rare values share one feature",
            }
        ],
        "dropped": [{"name": "year", "reason": "it has one value only"}],
        "figures": {"validation": validation, "training": training},
        "importances": {
            "how": "By how much the held-out loss rises when a column's values are shuffled (3 times).",
            "kind": "permutation",
            "entries": [
                {"name": f"column_{i}", "value": 0.2 * 0.7**i, "spread": 0.01 * 0.8**i} for i in range(14)
            ],
        },
        "notes": [
            "8,255 rows were left out because their target is missing.",
            "year was dropped: one value only.",
        ],
    }


KINDS = ("binary", "classes", "number")


@pytest.fixture(params=KINDS, scope="module")
def record(request: pytest.FixtureRequest) -> dict[str, Any]:
    return make_record(request.param)


@pytest.fixture(scope="module")
def page(record: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    return rendered(tmp_path_factory.mktemp("page"), record, *history())


class Elements(html.parser.HTMLParser):
    """Every start tag with its attributes, and the text outside of <style>."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += " "

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def rendered(path, record: dict[str, Any], steps: pd.DataFrame, epochs: pd.DataFrame) -> str:
    write_report(path / "report.html", record, steps, epochs)
    return (path / "report.html").read_text(encoding="utf-8")


def replaced(part: Any, name: str) -> Any:
    """Put a hostile name in the place of every text and every key's text value of a record."""
    if isinstance(part, dict):
        fixed = {"kind", "created"}
        return {key: value if key in fixed else replaced(value, name) for key, value in part.items()}
    if isinstance(part, list):
        return [replaced(each, name) for each in part]
    return name if isinstance(part, str) else part


def test_a_page_is_whole_and_refers_to_nothing_outside(page):
    elements = Elements(page)
    assert elements.open == []
    assert page.startswith('<!doctype html>\n<html lang="en">')
    assert {"charset": "utf-8"} in [attributes for tag, attributes in elements.tags if tag == "meta"]
    assert not {"script", "link", "img", "image", "iframe", "object"} & {tag for tag, _ in elements.tags}
    assert set(re.findall(r"https?://[^\s\"'<]*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\((?!#)", page)
    identifiers = {attributes["id"] for _, attributes in elements.tags if "id" in attributes}
    for _, attributes in elements.tags:
        target = attributes.get("href") or ""
        assert target == "" or (target[0] == "#" and target[1:] in identifiers)
    for reference in re.findall(r"url\(#([^)]*)\)", page):
        assert reference in identifiers


def test_a_page_says_what_the_record_says(record, page):
    text = " ".join(Elements(page).text.split())
    assert verdict(record) in text
    for part in ("validation", "training"):
        for value in record["figures"][part]["scores"].values():
            assert number(value) in text
    for value in record["figures"]["validation"]["baseline"]["scores"].values():
        assert f"baseline {number(value)}" in text
    for expected in (
        *record["notes"],
        record["command"],
        record["target"]["why"],
        record["split"]["how"],
        record["importances"]["how"],
        "the target is missing 8,255",
        "year it has one value only",
        "a_rather_long_column_name_as_they_are category 105 2,512 12 rare values share one feature",
        "It reached the last epoch.",
        "1 min 23 s",
        "2,345,679",
        "Written by Steepest 0.1.0.",
    ):
        assert expected in text


def test_names_from_data_stay_text(record, tmp_path):
    plain = Elements(rendered(tmp_path, replaced(record, "x" * len(HOSTILE)), *history()))
    hostile = Elements(rendered(tmp_path, replaced(record, HOSTILE), *history()))
    # A hostile name changes texts and digests, but makes no element and no attribute.
    assert [(tag, set(attributes)) for tag, attributes in hostile.tags] == [
        (tag, set(attributes)) for tag, attributes in plain.tags
    ]
    assert hostile.open == []
    assert HOSTILE in hostile.text
    assert "<script" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_ids_are_unique_on_a_page(page):
    elements = Elements(page)
    identifiers = [attributes["id"] for _, attributes in elements.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers)) > 100
    for _, attributes in elements.tags:
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in identifiers


def test_the_same_input_gives_the_same_bytes(record, page, tmp_path):
    assert rendered(tmp_path, record, *history()) == page


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"target": {"name": "late"}, "figures": {"validation": None, "training": None}, "importances": None},
        {"descent": {"loss": "huber"}, "importances": {"entries": []}, "data": {"rows": 3}},
    ],
)
def test_a_record_with_absent_parts_is_a_page(record, tmp_path):
    steps, epochs = history(20, 2, validation=False)
    page = rendered(tmp_path, record, steps[["step", "epoch", "loss"]], epochs)
    assert Elements(page).open == []
    assert "No rows were scored" in page
    assert "Learning rate</h3>" not in page
    assert "None" not in page
    empty = rendered(tmp_path, record, steps[:0], epochs[:0])
    assert "<svg" not in empty


def test_tables_hold_at_most_50_rows_with_the_first_and_the_last(tmp_path):
    steps, epochs = history(5000, 1000)
    page = rendered(tmp_path, {}, steps, epochs)
    for body in re.findall(r"<tbody>(.*?)</tbody>", page, re.S):
        assert body.count("<tr>") <= 50
    body = re.search(r"<tbody>(.*?)</tbody>", page, re.S)
    assert body is not None
    first = re.findall(r"<tr><td[^>]*>([^<]*)", body[1])
    assert (first[0], first[-1]) == ("1", "1,000")
    assert "50 of 1,000 rows" in page


def test_the_verdict_tells_worse_from_better_and_training_from_held_out():
    def said(ours: float, part: str) -> str:
        scores = {"rmse": ours, "mae": 1.0, "r2": 0.1}
        usual = {"what": "always predicting the mean", "scores": {"rmse": 4.0, "mae": 1.0, "r2": 0.0}}
        return verdict(
            {"figures": {part: {"kind": "number", "rows": 5, "scores": scores, "baseline": usual}}}
        )

    assert "25.0% below the 4.000 of always predicting the mean" in said(3.0, "validation")
    assert "worse than the 4.000" in said(5.0, "validation")
    assert "the same as that" in said(4.0, "validation")
    assert said(3.0, "validation").startswith("On 5 held-out rows")
    assert said(3.0, "training").startswith("On 5 training rows")
    assert "No rows were held out" in said(3.0, "training")


def test_tiles_say_which_scores_beat_the_baseline(tmp_path):
    scores = {"auc": 0.4, "average_precision": None, "accuracy": 0.8, "log_loss": 0.7, "brier": 0.1}
    usual = {"auc": 0.5, "average_precision": None, "accuracy": 0.7, "log_loss": 0.6, "brier": 0.2}
    evaluation = {"kind": "binary", "rows": 9, "scores": scores, "baseline": {"what": "x", "scores": usual}}
    page = rendered(tmp_path, {"figures": {"validation": evaluation}}, *history(2, 1))
    tones = re.findall(r'<li(?: class="(\w+)")?><span class="name">', page)
    assert tones == ["worse", "", "better", "worse", "better"]


@given(st.data())
def test_thinning_keeps_extremes_means_and_gaps(data):
    count = data.draw(st.integers(1, 3000))
    bins = data.draw(st.integers(1, 300))
    noise = np.random.Generator(np.random.Philox(np.random.SeedSequence([count, bins])))
    values = noise.standard_cauchy(count)
    values[noise.random(count) < data.draw(st.sampled_from([0.0, 0.3, 1.0]))] = np.nan
    thin = plots.by_bin(np.arange(1, count + 1), values, bins)
    finite = values[np.isfinite(values)]
    assert len(thin) <= max(bins, 100)
    assert thin["step"].iloc[-1] == count
    assert (np.diff(thin["step"]) > 0).all()
    if len(finite) == 0:
        assert thin[["mean", "lowest", "highest"]].isna().all(axis=None)
        return
    assert thin["lowest"].min() == finite.min()
    assert thin["highest"].max() == finite.max()
    groups = np.searchsorted(thin["step"], np.arange(1, count + 1))
    expected = pd.Series(values).groupby(groups).mean()
    np.testing.assert_allclose(thin["mean"], expected, rtol=1e-9, atol=1e-9 * np.abs(finite).max())


def test_three_million_steps_make_a_small_picture():
    count = 3_000_000
    step = np.arange(1, count + 1)
    loss = np.ones(count, np.float32)
    loss[1_234_567] = 90.0
    steps = pd.DataFrame({"step": step, "epoch": step // 300_001 + 1, "loss": loss})
    epochs = pd.DataFrame({"epoch": np.arange(1, 11), "loss": 1.0, "validation_loss": 1.1})
    figure = plots.loss_by_step(steps, epochs)
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].dataLim.y1 == 90.0
    assert len(svg(figure, title="Loss", description="")) < 40_000


def edge_histories() -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    steps, epochs = history(60, 6)
    gaps, broken = steps.copy(), epochs.copy()
    gaps.loc[3:9, ["loss", "gradient_norm"]] = np.nan
    gaps.loc[20, "loss"] = np.inf
    broken.loc[:2, "validation_loss"] = np.nan
    blank = steps.assign(loss=np.nan, gradient_norm=np.inf)
    return {
        "one step": history(1, 1),
        "one epoch": history(50, 1),
        "no validation": history(60, 6, validation=False),
        "gaps": (gaps, broken),
        "nothing finite": (blank, epochs.assign(loss=np.nan, validation_loss=np.nan)),
        "zero and negative": (steps.assign(loss=-steps["loss"], gradient_norm=0.0), epochs),
        "huge": (steps.assign(loss=1e30 * steps["loss"] ** 60), epochs.assign(loss=1e-30)),
        "epochs without steps": (steps[steps["epoch"] < 3], epochs),
    }


@pytest.mark.parametrize("name", edge_histories())
def test_every_history_can_be_drawn(name, tmp_path):
    steps, epochs = edge_histories()[name]
    page = rendered(tmp_path, {}, steps, epochs)
    assert 2 <= page.count("<svg") <= 4
    assert ">nan<" not in page


@pytest.mark.parametrize(
    ("kind", "truth", "prediction", "baseline"),
    [
        ("binary", [1], [0.7], 0.5),
        ("binary", [0, 1], [0.5, 0.5], 1.0),
        ("binary", [0, 0, 1], [0.0, 0.0, 0.0], 0.0),
        ("classes", [1], [[0.2, 0.8]], [0.5, 0.5]),
        ("classes", np.arange(40), np.eye(40), np.full(40, 1 / 40)),
        ("number", [3.0], [3.0], 3.0),
        ("number", [1e100, -1e100], [0.0, 0.0], 0.0),
        ("counts", [0, 0], [0.0, 0.0], 0.0),
    ],
)
def test_every_evaluation_can_be_drawn(kind, truth, prediction, baseline, tmp_path):
    evaluation = evaluate(kind, truth, prediction, baseline=baseline)
    steps, epochs = history(10, 1)
    page = rendered(tmp_path, {"figures": {"validation": evaluation}}, steps, epochs)
    assert page.count("<svg") == 4 + len(evaluation["curves"])
    assert "nan" not in page.replace("quantile-mean", "")


def test_importances_draw_signs_gaps_and_any_name():
    entries = [{"name": HOSTILE, "value": -2.0}, {"name": "到着地\x00\ud800", "value": 1.0, "spread": None}]
    picture = svg(plots.importances(entries, "weights"), title="到着地", description="x")
    assert "到着地" in picture
    ElementTree.fromstring(picture)
    formulas = [{"name": "$\\frac$", "value": 1.0}, {"name": "$a_b$", "value": 1.0}]
    picture = svg(plots.importances(formulas, "weights"), title="", description="")
    assert ">$\\frac$<" in picture
    assert ">$a_b$<" in picture
    many = [{"name": str(i), "value": 1.0 / (i + 1)} for i in range(100)]
    assert len(plots.importances(many, "permutation").axes[0].get_yticklabels()) == 20


def test_a_picture_follows_the_theme_and_is_named():
    title = f"Loss & {HOSTILE}"
    picture = svg(plots.learning_rate(history()[0]), title=title, description="falls\x00")
    root = ElementTree.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    assert (root.tag, root.get("role"), root.get("width")) == (f"{space}svg", "img", None)
    assert re.fullmatch(r"0 0 [\d.]+ [\d.]+", root.get("viewBox") or "")
    assert [child.tag for child in root[:2]] == [f"{space}title", f"{space}desc"]
    assert [child.text for child in root[:2]] == [title, "falls\ufffd"]
    assert "currentColor" in picture
    assert "#010203" not in picture
    assert not re.search(r"fill: ?(#fff|white|#000000)", picture)
    assert not re.search(r"<metadata|<!DOCTYPE|<\?xml|font-family|DejaVu|<style", picture)


def test_drawing_leaves_matplotlib_as_it_was():
    with mpl.rc_context({"font.size": 31.0, "lines.linestyle": ":", "svg.fonttype": "path"}):
        before = dict(mpl.rcParams)
        figure = plots.loss_by_epoch(history()[1])
        picture = svg(figure, title="Loss", description="")
        assert dict(mpl.rcParams) == before
    # ... and the user's settings leave the project's figures as they are.
    assert picture == svg(plots.loss_by_epoch(history()[1]), title="Loss", description="")


def test_the_scale_is_logarithmic_beyond_a_factor_of_fifty():
    def scale(lowest: float) -> str:
        steps = pd.DataFrame({"step": [1, 2], "epoch": 1, "gradient_norm": [1.0, lowest]})
        return plots.gradient_norm(steps).axes[0].get_yscale()

    assert [scale(lowest) for lowest in (1 / 49, 1 / 51, 0.0, -1e9)] == ["linear", "log", "linear", "linear"]


def test_the_lowest_validation_loss_is_marked_and_ends_of_epochs_meet_their_steps():
    steps, epochs = history(300, 10)
    best = epochs["epoch"][epochs["validation_loss"].idxmin()]
    labels = [str(line.get_label()) for line in plots.loss_by_epoch(epochs).axes[0].lines]
    assert f"lowest: epoch {best}" in labels
    drawn = plots.loss_by_step(steps, epochs).axes[0].lines[1]
    np.testing.assert_array_equal(drawn.get_xdata(), np.arange(30, 301, 30))
    np.testing.assert_array_equal(drawn.get_ydata(), epochs["validation_loss"])


def test_names_are_cleaned():
    assert clean("a" * 30, 10) == "a" * 9 + "…"
    assert clean("tab\tnew\nline\x7f\ufffe", 30) == "tab\ufffdnew\ufffdline\x7f\ufffd"

"""Fits of tables with text, large categories and lists, from files to predictions."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import steepest
from interruptions import StopsAfter
from steepest.data import cache
from steepest.errors import SteepestError
from steepest.prediction import evaluate_run, predict
from steepest.run import open_run
from steepest.settings import Settings

ROWS, WORDS, MERCHANTS = 1_500, 400, 500


def table(seed=0):
    """Return mails: what tells spam are words, the merchant and the number of links."""
    draw = np.random.default_rng(seed)
    words = np.array([f"word{number}" for number in range(WORDS)])
    weights, of_merchant = draw.normal(size=WORDS), draw.normal(size=MERCHANTS)
    rows = []
    for _ in range(ROWS):
        chosen = draw.integers(0, WORDS, size=draw.integers(8, 40))
        merchant, links = int(draw.integers(0, MERCHANTS)), float(draw.integers(0, 9))
        score = weights[chosen].sum() + of_merchant[merchant] + links - 4
        tags = [f"tag{number}" for number in draw.integers(0, 5, size=draw.integers(0, 4))]
        rows.append((" ".join(words[chosen]), f"m{merchant}", tags, links, score > 0, score))
    names = ("body", "merchant", "tags", "links", "spam", "score")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


@pytest.fixture(scope="module")
def mails(tmp_path_factory):
    path = tmp_path_factory.mktemp("mails") / "mails.parquet"
    pq.write_table(table(), path, row_group_size=300)
    return str(path)


ASKED = {
    "optimizer": "adagrad",
    "learning_rate": 0.3,
    "epochs": 6,
    "batch_size": 32,
    "drop": ["score"],
    "minimum_count": 1,
}


@pytest.fixture(scope="module")
def runs(mails, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        model: steepest.fit(mails, "spam", model=model, out=str(folder / model), hidden=[8], **ASKED)
        for model in ("linear", "mlp")
    }


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_words_and_merchants_are_learned_from(runs, model):
    run = runs[model]
    kinds = {column["name"]: column["kind"] for column in run.record["columns"]}
    assert kinds == {"body": "text", "merchant": "category", "tags": "list", "links": "number"}
    assert run.plan.layout.sparse > WORDS + 256
    assert run.record["figures"]["training"]["scores"]["auc"] > 0.8
    assert run.record["figures"]["validation"]["scores"]["auc"] > 0.65
    assert run.parameters["table"].shape[0] == run.plan.layout.sparse


def test_importances_name_words_and_columns(runs):
    weights = runs["linear"].record["importances"]
    assert weights["kind"] == "weights"
    assert any(entry["name"].startswith("body: ") for entry in weights["entries"])
    values = [abs(entry["value"]) for entry in weights["entries"]]
    assert values == sorted(values, reverse=True)
    shuffled = runs["mlp"].record["importances"]["entries"]
    assert {entry["name"] for entry in shuffled} == {"body", "merchant", "tags", "links"}
    assert "body" in {entry["name"] for entry in shuffled[:2]}
    assert all(entry["value"] for entry in shuffled), "a column that nobody shuffles costs exactly nothing"


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_a_run_predicts_what_it_was_judged_by(runs, mails, model):
    run = open_run(runs[model].path)
    rows = pq.read_table(mails)
    predicted = predict(run, rows)
    auc = evaluate_run(run, [mails])["scores"]["auc"]
    both = run.record["figures"]
    assert min(both[part]["scores"]["auc"] for part in both) <= auc <= 1
    single = np.concatenate([predict(run, rows.slice(first, 1)) for first in (0, 700, 1_499)])
    np.testing.assert_allclose(single, predicted[[0, 700, 1_499]], rtol=2e-5)


def test_the_linear_models_output_is_what_its_weights_say(runs, mails):
    run, rows = runs["linear"], pq.read_table(mails).slice(0, 20)
    packed = run.plan.pack(rows)
    table_weights = np.append(run.parameters["table"][:, 0], 0.0)
    outputs = run.plan.encode(rows) @ run.parameters["layer_1"]["weights"][:, 0]
    outputs = outputs + run.parameters["layer_1"]["bias"] + table_weights[packed.places].sum(axis=1)
    owners = np.repeat(np.arange(20), packed.ragged.lengths.sum(axis=1))
    np.add.at(outputs, owners, table_weights[packed.ragged.places] * packed.ragged.values)
    np.testing.assert_allclose(predict(run, rows), 1 / (1 + np.exp(-outputs)), rtol=1e-5)


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_new_values_nothing_but_new_words_and_no_words_at_all(runs, model):
    rows = pa.table(
        {
            "body": ["unheard of", "", None, "word1 " * 50_000, "слово 单词 คำ"],
            "merchant": ["new", None, "m1", "m2", "newer"],
            "tags": [["new"], [], None, ["tag1", "tag1"], ["tag1", None]],
            "links": [1.0, 2.0, 3.0, 4.0, 5.0],
        }
    )
    assert np.isfinite(predict(runs[model], rows)).all()


def test_the_cache_the_memory_and_the_format_make_no_difference(mails, runs, tmp_path, monkeypatch):
    monkeypatch.setattr("steepest.preparation.CACHED_FROM", 0)
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))
    asked = {**ASKED, "model": "mlp", "hidden": [8]}
    cached = steepest.fit(mails, "spam", out=str(tmp_path / "cached"), **asked)
    assert cache.entries()
    again = steepest.fit(mails, "spam", out=str(tmp_path / "again"), **asked)
    lines = tmp_path / "mails.jsonl"
    pq.read_table(mails).to_pandas().to_json(lines, orient="records", lines=True)
    of_lines = steepest.fit(str(lines), "spam", out=str(tmp_path / "lines"), **asked)
    for run in (cached, again, of_lines):
        np.testing.assert_array_equal(run.parameters["table"], runs["mlp"].parameters["table"])


def test_an_interrupted_fit_goes_on_to_the_byte(mails, runs, tmp_path, monkeypatch):
    asked = {**ASKED, "model": "mlp", "hidden": [8], "out": str(tmp_path / "run")}
    with pytest.raises(KeyboardInterrupt):
        steepest.fit(mails, "spam", callbacks=[StopsAfter(2, KeyboardInterrupt)], **asked)
    run = steepest.fit(mails, "spam", **asked)
    np.testing.assert_array_equal(run.parameters["table"], runs["mlp"].parameters["table"])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
def test_more_epochs_lead_where_all_at_once_would(mails, tmp_path, optimizer):
    asked = {**ASKED, "optimizer": optimizer, "l2": 1e-4}
    first, whole = (
        steepest.fit(mails, "spam", out=str(tmp_path / f"{epochs}"), **{**asked, "epochs": epochs})
        for epochs in (2, 5)
    )
    more = steepest.fit(
        mails, "spam", from_=str(first.path), out=str(tmp_path / "more"), **{**asked, "epochs": 3}
    )
    jax.tree.map(np.testing.assert_array_equal, more.parameters, whole.parameters)


DENSE = {"model": "test_sparse_fit:dense"}


def dense(columns):
    """Build no model: nobody asks for it."""


@pytest.mark.parametrize(
    "options",
    [DENSE, pytest.param({"on": "spark", "workers": 2}, marks=pytest.mark.slow)],
    ids=["Keras", "on Spark"],
)
def test_what_has_no_sparse_features_does_not_go_on_from_a_run_that_has(mails, runs, tmp_path, options):
    with pytest.raises(SteepestError, match="has sparse features, which neither"):
        steepest.fit(
            mails,
            "spam",
            from_=str(runs["linear"].path),
            out=str(tmp_path / "run"),
            **{**ASKED, **options},
        )


@pytest.mark.parametrize(
    ("target", "options"),
    [
        pytest.param("score", {"drop": ["spam"]}, marks=pytest.mark.slow),
        ("tags", {"drop": ["spam", "score"]}),
        pytest.param(
            "spam", {"optimizer": "lbfgs", "batch_size": "all", "epochs": 20}, marks=pytest.mark.slow
        ),
        ("spam", {"optimizer": "adam", "learning_rate": "auto", "l2": 1e-4}),
        ("spam", {"validation": 0, "weights": "links", "class_weight": "balanced"}),
    ],
    ids=["numbers", "classes", "line search", "found rate", "weights"],
)
def test_other_fits(mails, tmp_path, target, options):
    rows = pq.read_table(mails)
    tags = [f"{len(each)} tags" for each in rows["tags"].to_pylist()]
    if target == "tags":
        rows = rows.set_column(rows.column_names.index("tags"), "tags", pa.array(tags))
    run = steepest.fit(rows, target, out=str(tmp_path / "run"), **{**ASKED, **options})
    assert np.isfinite(run.steps["loss"]).all()
    assert run.steps["loss"].iloc[-1] < run.steps["loss"].iloc[0]


def test_nothing_but_text(tmp_path):
    rows = table().select(["body", "spam"])
    run = steepest.fit(rows, "spam", out=str(tmp_path / "run"), **{**ASKED, "drop": []})
    assert run.plan.width == 0
    assert run.record["figures"]["training"]["scores"]["auc"] > 0.8


def test_columns_of_sparse_features_are_not_chosen_among(mails, tmp_path):
    rows = pq.read_table(mails).append_column("noise", pa.array(np.random.default_rng(0).normal(size=ROWS)))
    run = steepest.fit(rows, "spam", select=1, out=str(tmp_path / "run"), **ASKED)
    assert [column.name for column in run.plan.columns] == ["body", "merchant", "tags", "links"]
    assert run.record["selection"]["left_out"] == ["noise"]
    assert run.record["selection"]["stay"] == ["body", "merchant", "tags"]
    with pytest.raises(SteepestError, match="nothing to choose from"):
        steepest.fit(rows.select(["body", "spam"]), "spam", select=1, out=str(tmp_path / "text"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"on_divergence": "back-off"}, "no back-off"),
        ({"curvature": True}, "no curvature"),
        (DENSE, "no sparse features"),
        ({"on": "spark", "workers": 2}, "no sparse features"),
        ({"embedding": 0, "model": "mlp"}, "at least one number"),
    ],
)
def test_what_sparse_features_do_not_go_with(mails, tmp_path, options, says):
    asked = {**ASKED, "kinds": {"body": "words"}, **options}
    with pytest.raises(SteepestError, match=says):
        steepest.fit(mails, "spam", out=str(tmp_path / "run"), **asked)


def test_a_builder_of_one_argument_gets_dense_features_only():
    keras = Settings(**DENSE).wishes
    assert not keras.sparse
    assert dataclasses.replace(keras, sparse=True) == Settings().wishes

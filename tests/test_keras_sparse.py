"""Keras models with inputs for text, large categories and lists."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import jax
import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steepest
import steepest.keras
from expecting import fails
from real_data import mails as real_mails
from steepest import preparation
from steepest.cli import main
from steepest.combining import combine
from steepest.data import cache
from steepest.data.order import epoch_order
from steepest.keras import SparseEmbedding
from steepest.keras.building import build
from steepest.keras.sparse import keras_columns
from steepest.prediction import evaluate_run, predict
from steepest.run import open_run
from steepest.settings import Settings
from test_sparse_fit import ROWS, table

BUILDERS = """
import keras

def deep(columns, sparse):
    features = keras.Input((columns.width,), name="features")
    inputs = {name: column.inputs() for name, column in sparse.items()}
    parts = [features, *(sparse[name].embedding(4)(each) for name, each in inputs.items())]
    hidden = keras.layers.Dense(6, "relu")(keras.layers.Concatenate()(parts))
    return keras.Model({"features": features, **inputs}, keras.layers.Dense(1, "sigmoid")(hidden))

def wide_and_deep(columns, sparse):
    features = keras.Input((columns.width,), name="features")
    inputs = {name: column.inputs() for name, column in sparse.items()}
    parts = [features, *(sparse[name].embedding(8)(each) for name, each in inputs.items())]
    hidden = keras.layers.Dense(8, "relu")(keras.layers.Concatenate()(parts))
    wide = [sparse[name].weights(1)(each) for name, each in inputs.items()]
    log_odds = keras.layers.Add()([keras.layers.Dense(1)(hidden), *wide])
    flat = [features, *(each for both in inputs.values() for each in both)]
    return keras.Model(flat, keras.layers.Activation("sigmoid")(log_odds))

def text(columns, sparse):
    words = sparse["text"].inputs()
    return keras.Model(words, keras.layers.Dense(1, "sigmoid")(sparse["text"].embedding(8)(words)))

@keras.saving.register_keras_serializable("steepest_tests")
class Own(keras.Model):
    def __init__(self, width, **settings):
        super().__init__(**settings)
        self.width, self.out = width, keras.layers.Dense(1, "sigmoid")
        self.words = __import__("steepest.keras").keras.SparseEmbedding(width, 4)
    def call(self, rows):
        words = self.words([rows["body.places"], rows["body.values"]])
        return self.out(keras.ops.concatenate([rows["features"], words], axis=1))
    def get_config(self):
        return {**super().get_config(), "width": self.width}

def own(columns, sparse):
    return Own(sparse["body"].width)

def only_features(columns, sparse):
    layers = [keras.Input((columns.width,), name="features"), keras.layers.Dense(1, "sigmoid")]
    return keras.Sequential(layers)

def unnamed(columns, sparse):
    return keras.Sequential([keras.Input((columns.width,), name="x"), keras.layers.Dense(1)])

def optional(columns, units=1):
    return keras.Sequential([keras.Input((columns.width,)), keras.layers.Dense(units, "sigmoid")])
"""

ASKED = {"learning_rate": 0.02, "epochs": 3, "drop": ["score"], "minimum_count": 1}


@pytest.fixture(autouse=True, scope="module")
def builders(tmp_path_factory):
    """Let the module of builders be found."""
    folder = tmp_path_factory.mktemp("builders")
    (folder / "sparse_builders.py").write_text(BUILDERS, "utf-8")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def mails(tmp_path_factory):
    path = tmp_path_factory.mktemp("mails") / "mails.parquet"
    pq.write_table(table(), path, row_group_size=300)
    return str(path)


@pytest.fixture(scope="module")
def run(mails, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return steepest.fit(mails, "spam", model="sparse_builders:deep", out=str(folder / "run"), **ASKED)


# The layer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("combine", ["mean", "sum"])
def test_the_layer_is_what_numpy_computes(combine):
    draw = np.random.default_rng(0)
    places = draw.integers(-1, 9, (6, 4)).astype(np.int32)  # -1, 7 and 8 are none
    places[5] = 7
    values = draw.random((6, 4)).astype(np.float32)
    layer = SparseEmbedding(7, 3, combine)
    for given in ([places, values], [places], places):
        weights = values if isinstance(given, list) and len(given) == 2 else np.ones((6, 4))
        found = np.asarray(layer(given))
        embeddings = np.asarray(layer.table)
        for row in range(6):
            real = (places[row] >= 0) & (places[row] < 7)
            expected = (embeddings[places[row][real]] * weights[row][real, None]).sum(axis=0)
            if combine == "mean":
                expected = expected / (weights[row][real].sum() or 1)
            np.testing.assert_allclose(found[row], expected, atol=1e-6)
    assert not found[5].any()


def test_the_layer_is_written_down_and_read_again(tmp_path):
    places, values = keras.Input((None,), dtype="int32"), keras.Input((None,))
    model = keras.Model([places, values], SparseEmbedding(5, 2, "sum", "ones")([places, values]))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    rows = [np.array([[0, 4, 5]]), np.array([[1.0, 2.0, 9.0]])]
    assert model.predict(rows, verbose=0).tolist() == again.predict(rows, verbose=0).tolist() == [[3.0, 3.0]]
    assert again.layers[-1].get_config() == model.layers[-1].get_config()


def test_a_layer_that_there_is_not():
    with fails("'men'"):
        SparseEmbedding(5, 2, "men")
    with pytest.raises(steepest.SteepestError, match="not 0 and 2"):
        SparseEmbedding(0, 2)


# The same as others --------------------------------------------------------------------------------


def by_hand(plan, rows):
    """Return every column's places and values of rows, padded by hand to the longest row of all."""
    packed, found, at = plan.pack(rows), {}, 0
    lists = [name for name in plan.sparse_groups if name in ("body", "tags")]
    cells = {name: [] for name in lists}
    for lengths in packed.ragged.lengths:
        for name, length in zip(lists, lengths, strict=True):
            first = plan.sparse_groups[name].start
            cells[name].append(
                (packed.ragged.places[at : at + length] - first, packed.ragged.values[at : at + length])
            )
            at += length
    for name, of_rows in cells.items():
        group = plan.sparse_groups[name]
        length = max(1, *(len(places) for places, _ in of_rows))
        places = np.full((len(of_rows), length), group.stop - group.start, np.int32)
        values = np.zeros((len(of_rows), length), np.float32)
        for row, (some, weights) in enumerate(of_rows):
            places[row, : len(some)], values[row, : len(some)] = some, weights
        found[name] = [places, values]
    group = plan.sparse_groups["merchant"]
    merchant = packed.places[:, :1] - group.start
    merchant = np.where(packed.places[:, :1] < group.stop, merchant, group.stop - group.start)
    found["merchant"] = [merchant, np.ones(merchant.shape, np.float32)]
    return {name: found[name] for name in plan.sparse_groups}


def test_a_fit_is_what_keras_own_fit_makes_of_padded_arrays(run, mails, tmp_path):
    asked = {**ASKED, "epochs": 2, "validation": 0, "batch_size": 64}
    fitted = steepest.fit(mails, "spam", model="sparse_builders:deep", out=str(tmp_path / "run"), **asked)
    plan, rows = fitted.plan, pq.read_table(mails)
    keras.utils.set_random_seed(0)
    start = build("sparse_builders:deep", plan, fitted.task)
    arrays = by_hand(plan, rows)

    features = keras.Input((plan.width,))
    inputs = {name: [keras.Input((None,), dtype="int32"), keras.Input((None,))] for name in arrays}
    tables = {
        name: keras.layers.Embedding(group.stop - group.start + 1, 4)
        for name, group in plan.sparse_groups.items()
    }
    parts = [features]
    for name, (places, values) in inputs.items():
        sums = keras.ops.sum(tables[name](places) * values[..., None], axis=1)
        total = keras.ops.sum(values, axis=1, keepdims=True)
        parts.append(sums / keras.ops.where(total > 0, total, 1))
    hidden = keras.layers.Dense(6, "relu")
    last = keras.layers.Dense(1, "sigmoid")
    twin = keras.Model(
        [features, *keras.tree.flatten(list(inputs.values()))],
        last(hidden(keras.layers.Concatenate()(parts))),
    )
    ours = {layer.name: layer.get_weights() for layer in start.layers if layer.get_weights()}
    embeddings = [values for name, values in ours.items() if name.startswith("sparse_embedding")]
    for table_, (values,) in zip(tables.values(), embeddings, strict=True):
        table_.set_weights([np.vstack([values, np.zeros((1, 4))])])
    hidden.set_weights(ours["dense"])
    last.set_weights(ours["dense_1"])
    twin.compile(keras.optimizers.Adam(0.02), "binary_crossentropy")

    everything = [plan.encode(rows), *(each for both in arrays.values() for each in both)]
    target = np.array(rows["spam"].to_pylist(), np.float32)[:, None]
    for epoch in range(2):
        (order,) = epoch_order(0, epoch, ROWS)
        shuffled = [each[order] for each in everything]
        twin.fit(shuffled, target[order], batch_size=64, shuffle=False, verbose=0)
    expected = twin.predict(everything, verbose=0)[:, 0]
    assert np.ptp(expected) > 0.7
    np.testing.assert_allclose(predict(fitted, rows), expected, atol=1e-5)


@pytest.mark.slow
def test_the_wide_and_deep_model_is_steepests_own(mails, tmp_path):
    rows = pq.read_table(mails)
    asked = {**ASKED, "epochs": 1, "out": str(tmp_path / "own"), "optimizer": "adagrad"}
    own = steepest.fit(mails, "spam", model="mlp", hidden=[8], **asked)
    model = build("sparse_builders:wide_and_deep", own.plan, own.task)
    parameters = own.parameters
    tables = {name: parameters["table"][group] for name, group in own.plan.sparse_groups.items()}
    assert all(np.abs(each[:, 8]).max() > 0 for each in tables.values())
    layers = [layer for layer in model.layers if isinstance(layer, SparseEmbedding)]
    deep, wide = ([layer for layer in layers if layer.combine == combine] for combine in ("mean", "sum"))
    for index, each in enumerate(tables.values()):
        deep[index].set_weights([each[:, :8]])
        wide[index].set_weights([each[:, 8:]])
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    # Steepest has the categories before the lists.
    order = [name for name in tables if name == "merchant"] + [name for name in tables if name != "merchant"]
    weights = parameters["layer_1"]["weights"]
    theirs = np.split(weights[own.plan.width :], len(tables))
    blocks = [theirs[order.index(name)] for name in tables]
    dense[0].set_weights(
        [np.vstack([weights[: own.plan.width], *blocks]), np.asarray(parameters["layer_1"]["bias"])]
    )
    dense[1].set_weights([np.asarray(parameters["layer_2"][name]) for name in ("weights", "bias")])
    arrays = by_hand(own.plan, rows)
    merchant_places = {"merchant.places": arrays.pop("merchant")[0]}
    named = {
        f"{name}.{part}": each
        for name, both in arrays.items()
        for part, each in zip(PARTS, both, strict=True)
    }
    found = model.predict({"features": own.plan.encode(rows), **merchant_places, **named}, verbose=0)
    np.testing.assert_allclose(found[:, 0], predict(own, rows), atol=2e-6)


PARTS = ("places", "values")


# From files to predictions -------------------------------------------------------------------------


def test_words_and_merchants_are_learned_from(run):
    kinds = {column["name"]: column["kind"] for column in run.record["columns"]}
    assert kinds == {"body": "text", "merchant": "category", "tags": "list", "links": "number"}
    assert run.record["model"]["layers"].count("SparseEmbedding") == 3
    assert run.record["figures"]["validation"]["scores"]["auc"] > 0.7
    importances = run.record["importances"]
    assert importances["kind"] == "permutation"
    assert {entry["name"] for entry in importances["entries"]} == set(kinds)
    assert importances["entries"][0]["name"] == "body"
    assert "course" in json.loads((run.path / "evidence.json").read_text("utf-8"))


def test_a_run_predicts_what_it_was_judged_by(run, mails):
    opened, rows = open_run(run.path), pq.read_table(mails)
    predicted = predict(opened, rows)
    auc = evaluate_run(opened, [mails])["scores"]["auc"]
    both = run.record["figures"]
    assert min(both[part]["scores"]["auc"] for part in both) <= auc <= 1
    single = np.concatenate([predict(opened, rows.slice(first, 1)) for first in (0, 700, 1_499)])
    np.testing.assert_allclose(single, predicted[[0, 700, 1_499]], rtol=2e-5)


def test_a_run_is_read_without_its_builder(run, mails, monkeypatch):
    expected = predict(run, pq.read_table(mails))
    monkeypatch.setattr(sys, "path", [each for each in sys.path if "builders" not in each])
    monkeypatch.delitem(sys.modules, "sparse_builders")
    np.testing.assert_array_equal(predict(open_run(run.path), pq.read_table(mails)), expected)


def test_new_values_nothing_but_new_words_and_no_words_at_all(run):
    rows = pa.table(
        {
            "body": ["unheard of", "", None, "word1 " * 50_000, "слово 单词 คำ"],
            "merchant": ["new", None, "m1", "m2", "newer"],
            "tags": [["new"], [], None, ["tag1", "tag1"], ["tag1", None]],
            "links": [1.0, 2.0, 3.0, 4.0, 5.0],
        }
    )
    assert np.isfinite(predict(run, rows)).all()


def same_weights(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.parameters, other.parameters)


def test_rows_that_are_mapped_and_let_go_make_no_difference(mails, run, tmp_path, monkeypatch):
    prepared = preparation._prepared
    monkeypatch.setattr(preparation, "_prepared", lambda *given: prepared(*given[:4], True, *given[5:]))
    monkeypatch.setattr("steepest.preparation.CACHED_FROM", 0)
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))
    cached = steepest.fit(mails, "spam", model="sparse_builders:deep", out=str(tmp_path / "cached"), **ASKED)
    assert cache.entries()
    assert cached.record["figures"] == run.record["figures"]
    same_weights(run, cached)


class StopsAfter(steepest.Callback):
    """Interrupts a descent once so many epochs are over."""

    def __init__(self, epochs):
        self.left = epochs

    def on_epoch_end(self, figures):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_an_interrupted_fit_goes_on_to_the_byte_in_several_windows(mails, run, tmp_path, monkeypatch):
    monkeypatch.setattr("steepest.data.blocks.WINDOW_BYTES", 2**19)
    asked = {**ASKED, "model": "sparse_builders:deep"}
    whole = steepest.fit(mails, "spam", out=str(tmp_path / "whole"), **asked)
    for name in ("trainable", "other"):
        for number, values in whole.parameters.get(name, {}).items():
            np.testing.assert_allclose(values, run.parameters[name][number], rtol=1e-3, atol=1e-4)
    with pytest.raises(KeyboardInterrupt):
        steepest.fit(mails, "spam", out=str(tmp_path / "run"), callbacks=[StopsAfter(2)], **asked)
    again = steepest.fit(mails, "spam", out=str(tmp_path / "run"), **asked)
    for name in ("model.safetensors", "model.json", "columns.json", "history.parquet"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.slow
def test_more_epochs_lead_where_all_at_once_would(mails, run, tmp_path):
    first, more = {**ASKED, "epochs": 1}, {**ASKED, "epochs": 2}
    start = steepest.fit(mails, "spam", model="sparse_builders:deep", out=str(tmp_path / "1"), **first)
    end = steepest.fit(
        mails,
        "spam",
        model="sparse_builders:deep",
        from_=str(start.path),
        out=str(tmp_path / "3"),
        **more,
    )
    same_weights(run, end)


def test_the_learning_rate_is_found_by_rows_that_the_trials_have_not_seen(mails, tmp_path):
    asked = {**ASKED, "learning_rate": "auto", "model": "sparse_builders:deep"}
    found = steepest.fit(mails, "spam", out=str(tmp_path / "found"), **asked)
    search = found.record["learning_rate"]
    assert 0.003 < search["choice"] < 0.3
    assert search["steps"] * 32 + search["rows"] <= 0.8 * ROWS
    assert found.record["figures"]["validation"]["scores"]["auc"] > 0.7


@pytest.mark.slow
def test_no_rate_is_sought_for_large_embeddings(mails, tmp_path, monkeypatch):
    monkeypatch.setattr("steepest.keras.searching.MOST_BYTES", 1_000)
    asked = {**ASKED, "learning_rate": "auto", "model": "sparse_builders:deep"}
    large = steepest.fit(mails, "spam", out=str(tmp_path / "large"), **asked)
    search = large.record["learning_rate"]
    assert (search["decided"], large.record["descent"]["learning_rate"]) == (False, pytest.approx(0.001))
    assert "too much for 12 rates at once" in search["why"]


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("spam", {"model": "sparse_builders:wide_and_deep", "weights": "links", "class_weight": "balanced"}),
        ("spam", {"model": "sparse_builders:own", "batch_size": "all", "schedule": "cosine"}),
        ("spam", {"model": "sparse_builders:only_features", "patience": 1}),
        (
            "spam",
            {
                "model": "sparse_builders:own",
                "kinds": {"body": "words", "merchant": "hashed"},
                "hash_bits": 10,
            },
        ),
    ],
    ids=["no dense features", "a class of one's own", "dense inputs alone", "kinds"],
)
def test_other_fits(mails, tmp_path, target, options):
    fitted = steepest.fit(mails, target, out=str(tmp_path / "run"), **{**ASKED, **options})
    assert np.isfinite(fitted.steps["loss"]).all()
    rows = pq.read_table(mails)
    np.testing.assert_array_equal(predict(fitted, rows), predict(open_run(fitted.path), rows))


def test_columns_whose_names_keras_does_not_take(tmp_path):
    rows = table().select(["body", "spam"]).rename_columns(["text", "spam"])
    for seed, name in enumerate(["text.places", "a/b%2F", "a%2Fb/"], 1):
        rows = rows.append_column(name, table(seed).column("merchant"))
    asked = {**plain(), "model": "sparse_builders:text", "cross": [("a/b%2F", "a%2Fb/")]}
    fitted = steepest.fit(rows, "spam", out=str(tmp_path / "run"), **asked)
    columns = keras_columns(fitted.plan)
    assert [*columns] == ["text", "text.places", "a/b%2F", "a%2Fb/", "a/b%2F x a%2Fb/"]
    names = [each.name for column in columns.values() for each in column.inputs()]  # which Keras makes
    assert len(set(names)) == 6


def plain():
    return {**ASKED, "epochs": 1, "drop": []}


@pytest.mark.slow
def test_the_builder_of_the_documentation_is_one(mails, builders, tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "keras.md").read_text("utf-8")
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", page, re.S) if "columns, sparse" in each)
    (builders / "of_the_page.py").write_text(block, "utf-8")
    fitted = steepest.fit(mails, "spam", model="of_the_page:build", out=str(tmp_path / "run"), **ASKED)
    assert fitted.record["figures"]["validation"]["scores"]["auc"] > 0.7


def test_a_table_without_keras_columns_has_none(tmp_path):
    rows = table().select(["links", "score", "spam"])
    fitted = steepest.fit(
        rows, "spam", model="sparse_builders:wide_and_deep", out=str(tmp_path / "run"), **plain()
    )
    assert fitted.record["figures"]["validation"]["scores"]["auc"] > 0.7
    assert "end" in json.loads((fitted.path / "evidence.json").read_text("utf-8"))
    assert steepest.explain(fitted, rows, [0])[0].how == "integrated gradients"


# What there is not ---------------------------------------------------------------------------------


def test_two_arguments_without_defaults_take_keras_columns():
    assert Settings(model="sparse_builders:deep").wishes == Settings().wishes
    assert not Settings(model="sparse_builders:optional").wishes.sparse
    with fails("asks for sparse features, which fits on Spark don't have"):
        combine(
            None,
            {"data": ("a.csv",), "target": "y", "model": "sparse_builders:deep", "on": "spark", "workers": 2},
        )


def test_an_input_that_there_is_not(mails, tmp_path):
    with fails("has an input 'x'", "features, body.places, body.values, merchant.places"):
        steepest.fit(mails, "spam", model="sparse_builders:unnamed", out=str(tmp_path / "run"), **ASKED)


def test_predictions_are_not_explained(run, mails, capsys):
    with pytest.raises(SystemExit):
        main(["explain", str(run.path), mails])
    assert "a Keras model with text, lists or large categories" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_divergence_says_where(mails, tmp_path):
    asked = {**ASKED, "optimizer": "sgd", "learning_rate": 1e30, "model": "sparse_builders:deep"}
    with fails("The descent diverged at step "):
        steepest.fit(mails, "spam", out=str(tmp_path / "run"), **asked)
    assert open_run(tmp_path / "run").findings[0]["finding"] == "diverged"


@pytest.mark.slow
def test_mails_are_told_from_spam(tmp_path):
    asked = {"learning_rate": 0.003, "epochs": 2, "model": "sparse_builders:text"}
    fitted = steepest.fit(real_mails(), "label", out=str(tmp_path / "run"), **asked)
    assert fitted.plan.width == 0
    assert fitted.record["figures"]["validation"]["scores"]["auc"] > 0.995

"""`steepest explain` and the words of the report: against scikit-learn, closed forms and plain NumPy."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

import steepest
from expecting import fails
from steepest.attribution import TOLERANCE, Entering, attribute
from steepest.cli import main
from steepest.data.column import Column, Sparse
from steepest.data.columns import Plan
from steepest.data.naming import held_of, names_of
from steepest.data.packed import packed_rows
from steepest.descent.models import Model
from steepest.diagnosis.report import write_report
from steepest.explaining import table_of
from steepest.importance import words_of
from steepest.prediction import outputs_of
from steepest.run import Run, Shape
from steepest.tasks import Task

HOSTILE = "<script>alert(1)</script>"
ROWS = 400
FIT = {"optimizer": "adagrad", "learning_rate": 0.3, "epochs": 4, "batch_size": 50, "validation": 0.0}
TEXT, CATEGORY = {"body": "words"}, {"shop": "hashed"}


def sold(**more) -> pa.Table:
    """Make rows of text, a large category, a list, a small category and numbers, some of them missing."""
    chance = random.Random(7)
    words = ["free", "offer", "meeting", "lunch", "winner", "report", "straße", "agenda"]
    body = [" ".join(chance.choices(words, k=chance.randrange(3, 9))) for _ in range(ROWS)]
    spam = ["free" in text.split()[:3] or "winner" in text for text in body]
    tags = [chance.sample(["red", "blue", HOSTILE], k=chance.randrange(3)) for _ in range(ROWS)]
    miles = [None if row % 9 == 4 else chance.randrange(100, 3000) for row in range(ROWS)]
    return pa.table(
        {
            "body": [None if row == 11 else text for row, text in enumerate(body)],
            "shop": [f"s{chance.randrange(300)}" for _ in range(ROWS)],
            "tags": tags,
            "origin": [chance.choice(["JFK", "EWR", None]) for _ in range(ROWS)],
            "miles": miles,
            "spam": ["yes" if each else "no" for each in spam],
            "kind": [["a", "b", "c"][each % 3] for each in map(len, body)],
            "minutes": [
                20 + (each or 900) / 8 + 5 * ("free" in text) for each, text in zip(miles, body, strict=True)
            ],
            **more,
        }
    )


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return sold()


@pytest.fixture(scope="module")
def spam(rows, tmp_path_factory) -> Run:
    """A linear model of two classes."""
    asked = {"kinds": TEXT | CATEGORY, "hash_bits": 12, "drop": ["kind", "minutes"], **FIT}
    return steepest.fit(rows, "spam", out=str(tmp_path_factory.mktemp("runs") / "spam"), **asked)


KIND = Task("kind", "classes", "categorical_cross_entropy", "", ("a", "b", "c"))
MINUTES = Task("minutes", "number", "mean_squared_error", "", (), center=200.0, deviation=110.0)


def made(plan: Plan, task: Task, hidden: tuple[int, ...] = (), activation: str = "relu") -> Run:
    """Return a run of a model with random weights."""
    layout, size = plan.layout, 4 if hidden else 0
    sparse = (layout.sparse, layout.categories + layout.lists, size)
    model = Shape(plan.width, hidden, task.outputs, activation, 0.0, *sparse).build()
    shapes, random = jax.eval_shape(model.init, jax.random.key(0)), np.random.Generator(np.random.Philox(5))

    def draw(leaf) -> np.ndarray:
        scale = 1.0 if leaf.ndim == 1 or leaf.shape[0] == layout.sparse else np.sqrt(2 / leaf.shape[0])
        return random.normal(0.0, scale, leaf.shape).astype(np.float32)

    return known(plan=plan, task=task, model=model, parameters=jax.tree.map(draw, shapes))


def known(**parts) -> Run:
    """Return a run of which the parts are known, and no file is read."""
    run = Run(Path("made"))
    vars(run).update(parts)
    return run


def own_outputs(run: Run, rows: pa.Table) -> np.ndarray:
    features = packed_rows(run.plan.layout, run.plan.pack(rows))
    return outputs_of(run.model, run.parameters, features)


def by_label(explanation) -> dict[str, float]:
    return {each.label: each.contribution for each in explanation.contributions}


# Linear models -------------------------------------------------------------------------------------


def test_contributions_of_a_linear_model_add_up_to_its_output(spam, rows):
    run = spam
    found = steepest.explain(run, rows, range(40))
    ours = own_outputs(run, rows)[:40]
    for each, output in zip(found, ours, strict=True):
        assert abs(each.baseline + sum(by_label(each).values()) - output) < 1e-5
        assert abs(each.output - output) < 1e-5
        assert abs(each.residual) < 1e-12
    assert {each.baseline for each in found} == {float(run.parameters["layer_1"]["bias"][0])}
    assert np.ptp(ours) > 1, "a constant output would be easily explained"


def test_words_add_their_tf_idf_times_their_weight(spam, rows):
    """scikit-learn's vectoriser and linear model, given our weights of words, tell the same."""
    run = spam
    body = run.plan.columns[0]
    vectoriser = TfidfVectorizer(sublinear_tf=True, vocabulary=body.place_of, lowercase=True)
    texts = [(text or "").replace("ß", "ss") for text in rows["body"].to_pylist()]
    seen = [text for text in texts if text]  # a missing text is no document
    weights = vectoriser.fit([*seen, *[""] * (body.sparse.documents - len(seen))]).transform(texts)
    group = run.plan.sparse_groups["body"]
    model = LogisticRegression()
    model.classes_, model.intercept_ = np.array([0, 1]), np.zeros(1)
    model.coef_ = run.parameters["table"][group].T.astype(float)
    of_text = model.decision_function(weights)
    for row, each in enumerate(steepest.explain(run, rows, range(30))):
        ours = [one for one in each.contributions if one.name.startswith("body: ")]
        words = {word.replace("ß", "ss") for word in texts[row].split()}
        assert {one.name for one in ours} == {f"body: {word}" for word in words}
        assert len(ours) == len(words)
        assert sum(one.contribution for one in ours) == pytest.approx(of_text[row], abs=1e-5)
        for one in ours:
            place = body.place_of[one.name.removeprefix("body: ")]
            assert one.value == pytest.approx(weights[row, place], rel=1e-5)
            assert one.contribution == pytest.approx(weights[row, place] * model.coef_[0, place], abs=1e-6)


def test_columns_are_named_by_their_own_values(spam, rows):
    run = spam
    names = dict(
        zip(run.plan.feature_names, run.parameters["layer_1"]["weights"][:, 0].tolist(), strict=True)
    )
    known = [each for each in rows["miles"].to_pylist() if each is not None]
    for each, row in zip(steepest.explain(run, rows, range(30)), rows.slice(0, 30).to_pylist(), strict=True):
        told = by_label(each)
        if row["miles"] is None:
            assert told["miles is missing"] == pytest.approx(names["miles is missing"], abs=1e-6)
        else:
            scaled = (row["miles"] - np.mean(known)) / np.std(known)
            assert told[f"miles = {row['miles']:,}"] == pytest.approx(scaled * names["miles"], abs=1e-5)
        origin = "origin is missing" if row["origin"] is None else f"origin = {row['origin']}"
        assert told[origin] == pytest.approx(names[origin], abs=1e-6)
        assert {label for label in told if label.startswith("tags")} == {
            f"tags: {tag}" for tag in row["tags"]
        }
        assert f"shop = {row['shop']}" in told
        assert ("body is missing" in told) == (row["body"] is None)
        sizes = [abs(one.contribution) for one in each.contributions]
        assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("kind", ["text", "words", "characters", "list"])
def test_hashed_features_are_named_after_what_the_row_has(kind):
    """Each feature bears the names of those words that, alone in a row, have that feature."""
    column = Column("body", kind, "list" if kind == "list" else "string", sparse=Sparse(bits=10))
    plan = Plan((column,), ())

    def places(value) -> set[int]:
        return set(plan.pack(pa.table({"body": pa.array([value])})).ragged.places.tolist())

    value = ["Red", "blue", "red"] if kind == "list" else "Free offer, free lunch!"
    (held,) = held_of(column, pa.chunked_array([[value]]))
    expected = {
        "list": ["Red", "blue", "red"],
        "words": ["free", "lunch", "offer"],
        "text": ["free", "free lunch", "free offer", "lunch", "offer", "offer free"],
    }
    assert held == expected.get(kind, held)
    assert len(held) > 20 or kind in expected
    named = dict(zip(names_of(column, held, sorted(places(value))), sorted(places(value)), strict=True))
    for word in held:
        if kind in ("words", "list") or (kind == "text" and " " not in word):
            (place,) = places([word] if kind == "list" else word)
            assert named[f"body: {word} (bucket {place})"] == place
    assert not any(name.startswith("body: bucket") for name in named), "every feature has a name"


def test_values_that_were_never_learned():
    shop = Column("shop", "category", "string", values=("s1", "s2"), other=True, sparse=Sparse())
    origin = Column("origin", "category", "string", values=("JFK",), other=True)
    run = made(Plan((shop, origin), ()), MINUTES)
    (found,) = steepest.explain(run, {"shop": ["brand new"], "origin": ["LGA"]})
    weights = run.parameters["table"][2, 0], run.parameters["layer_1"]["weights"][1, 0]
    assert by_label(found) == {
        "shop = brand new (any other)": pytest.approx(110 * weights[0], rel=1e-6),
        "origin = LGA (any other)": pytest.approx(110 * weights[1], rel=1e-6),
    }


# All other models ----------------------------------------------------------------------------------


def only_dense(values) -> Entering:
    none = np.empty(0, np.int32)
    return Entering(np.array(values, np.float32), none, 0, none, none, np.empty(0, np.float32))


def test_integrated_gradients_in_closed_form():
    def product(_, rows, key=None):
        return rows[:, 0] * rows[:, 1] ** 2

    found = attribute(Model(lambda _: {}, product), {}, only_dense([3.0, 2.0]), double=True)
    assert found.dense == pytest.approx([12 / 3, 12 * 2 / 3], abs=1e-12)

    def bent(_, rows, key=None):  # relu: the gradient begins where the row is at 0.3 / 1.1 of its way
        return jnp.maximum(rows[:, 0] + 0.5 * rows[:, 1] - 0.3, 0.0)

    found = attribute(Model(lambda _: {}, bent), {}, only_dense([0.1, 2.0]), double=True)
    share = 1 - 0.3 / 1.1
    assert found.dense == pytest.approx([0.1 * share, 1.0 * share], abs=TOLERANCE)
    assert (found.baseline, found.output) == (0.0, pytest.approx(0.8, abs=1e-6))


def by_hand(run, rows: pa.Table, row: int, steps: int = 20_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return integrated gradients of a wide and deep model with one hidden layer of relu, by midpoints."""
    packed = run.plan.pack(rows.slice(row, 1))
    dense, table = run.plan.encode(rows.slice(row, 1))[0].astype(float), run.parameters["table"].astype(float)
    size, first, last = table.shape[1] - 1, run.parameters["layer_1"], run.parameters["layer_2"]
    lengths, places, values = packed.ragged
    lists = np.repeat(np.arange(lengths.shape[1]), lengths[0])
    categories = packed.places[0]
    deep, wide = [], []  # what each sparse feature adds to the inputs of the first layer, and to the output
    for number, place in enumerate(categories):
        into = np.zeros((len(categories) + lengths.shape[1], size))
        into[number] = table[place, :size]
        deep.append(into.ravel()), wide.append(table[place, size])
    for of, place, value in zip(lists, places, values, strict=True):
        into = np.zeros((len(categories) + lengths.shape[1], size))
        into[len(categories) + of] = table[place, :size] * value / values[lists == of].sum()
        deep.append(into.ravel()), wide.append(table[place, size] * value)
    parts = np.vstack(
        [np.pad(np.diag(dense), ((0, 0), (0, len(deep[0])))), np.pad(deep, ((0, 0), (len(dense), 0)))]
    )
    wides = np.concatenate([np.zeros(len(dense)), wide])
    hidden = parts @ first["weights"]  # [features, units]: linear in the share
    shares = (np.arange(steps) + 0.5) / steps
    active = (shares[:, None] * hidden.sum(axis=0) + first["bias"] > 0).mean(axis=0)
    total = wides + (hidden * active) @ last["weights"][:, 0]
    return np.split(total, [len(dense), len(dense) + len(categories)])


def test_integrated_gradients_of_a_wide_and_deep_model(spam, rows):
    run = made(spam.plan, spam.task, (16,))
    ours = own_outputs(run, rows)
    for found in steepest.explain(run, rows, [0, 4, 11]):
        row = found.row
        dense, categories, pairs = by_hand(run, rows, row)
        assert found.how == "integrated gradients"
        assert abs(found.residual) <= TOLERANCE * max(1, abs(found.output - found.baseline))
        assert found.output == pytest.approx(ours[row], abs=1e-5)
        told = {one.name: one.contribution for one in found.contributions}
        assert told["shop"] == pytest.approx(categories[0], abs=2e-4)
        for name, group in run.plan.groups.items():
            expected = dense[group].sum()
            if name in run.plan.sparse_groups:  # told together with what is sparse of it
                continue
            if name in told:
                assert told[name] == pytest.approx(expected, abs=2e-4)
            else:
                assert abs(expected) < 1e-9
        of_lists = [one.contribution for one in found.contributions if ": " in one.name]
        assert sorted(of_lists) == pytest.approx(sorted(pairs), abs=2e-4)
    assert max(abs(pairs)) > 0.01


@pytest.mark.parametrize(("activation", "hidden"), [("relu", (64, 32)), ("tanh", (32, 16))])
def test_contributions_of_deep_networks_are_complete(spam, rows, activation, hidden):
    run = made(spam.plan, spam.task, hidden, activation)
    for each in steepest.explain(run, rows, range(0, 40, 8)):
        assert 0 < abs(each.residual) <= TOLERANCE * max(1, abs(each.output - each.baseline))


def test_a_keras_model_is_explained(spam, rows):
    import keras

    from steepest.keras.stored import arrays_of, form_of, model_from_json, nested

    plan = Plan(tuple(each for each in spam.plan.columns if each.name in ("origin", "miles")), ())
    layers = [keras.layers.Dense(16, "relu"), keras.layers.Dropout(0.1), keras.layers.BatchNormalization()]
    network = keras.Sequential([keras.Input((plan.width,)), *layers, keras.layers.Dense(1, "sigmoid")])
    model = model_from_json(form_of(network, "builders:network"), spam.task, plan)
    run = known(plan=plan, task=spam.task, model=model, parameters=nested(arrays_of(network)))
    ours = own_outputs(run, rows)
    for row, each in enumerate(steepest.explain(run, rows, range(6))):
        assert each.how == "integrated gradients"
        assert each.output == pytest.approx(ours[row], abs=1e-5)
        assert abs(each.residual) <= 1e-3
        assert {one.column for one in each.contributions} == {"origin", "miles"}
    with fails("a Keras model with text, lists or large categories"):
        steepest.explain(known(**vars(run) | {"plan": spam.plan}), rows)


# What is explained ---------------------------------------------------------------------------------


def test_the_class_that_is_explained(spam, rows):
    ((yes,), (no,)) = (steepest.explain(spam, rows, [2], label) for label in (None, "no"))
    assert (yes.of, no.of) == ("log-odds of spam = yes", "log-odds of spam = no")
    assert (yes.output, yes.baseline) == (-no.output, -no.baseline)
    assert by_label(yes) == {label: -value for label, value in by_label(no).items()}
    probability = yes.prediction["probability of yes"]
    assert math.log(probability / (1 - probability)) == pytest.approx(yes.output, abs=1e-4)


def test_the_class_of_several_that_is_explained(spam, rows):
    run = made(spam.plan, KIND, (16,))
    ours = own_outputs(run, rows)
    assert len(set(ours[:8].argmax(axis=1))) > 1
    for row, each in enumerate(steepest.explain(run, rows, range(8))):
        assert each.of == f"logit of kind = {each.prediction['prediction']}"
        assert each.output == pytest.approx(ours[row].max(), abs=1e-4)
    (found,) = steepest.explain(run, rows, [5], "b")
    assert (found.of, found.output) == ("logit of kind = b", pytest.approx(ours[5, 1], abs=1e-4))
    with fails("'kind' has no class 'd'"):
        steepest.explain(run, rows, [5], "d")


def test_numbers_are_explained_in_their_own_unit(spam, rows):
    run = made(spam.plan, MINUTES, (16,))
    for each in steepest.explain(run, rows, range(5)):
        assert each.of == "minutes"
        assert each.output == pytest.approx(each.prediction["prediction"], abs=1e-2)
        assert abs(each.residual) < 0.05
        assert abs(each.baseline - 200) < 5 * 110
    with fails("no class 'yes'"):
        steepest.explain(run, rows, label="yes")


class Parts(steepest.RowSource):
    """The rows, three at a time."""

    rows = ROWS

    def __init__(self, table: pa.Table) -> None:
        self.table, self.schema, self.given = table, table.schema, 0

    def stretches(self, columns=None, first=0):
        for begins in range(first, ROWS, 3):
            self.given += 1
            yield self.table.select(columns or self.schema.names).slice(begins, 3)


def test_rows_are_found_by_their_number(spam, rows):
    run = spam
    assert [each.row for each in steepest.explain(run, rows)] == list(range(10))
    assert [each.row for each in steepest.explain(run, rows.slice(0, 4))] == [0, 1, 2, 3]
    parts = Parts(rows)
    found = steepest.explain(run, parts, [37, 11, 13, 37])
    assert [each.row for each in found] == [37, 11, 13, 37]
    assert parts.given == 9, "nothing is read before the first or after the last"
    (alone,) = steepest.explain(run, rows.slice(13, 1))
    assert by_label(alone) == by_label(found[2]) != by_label(found[1])
    for odd, what in (([ROWS], "no row 400"), ([-1], "numbered from 0"), ([], "numbered from 0")):
        with fails(what):
            steepest.explain(run, rows, odd)


def test_the_command_line(spam, rows, tmp_path, capsys):
    data, expected = tmp_path / "rows.parquet", steepest.explain(spam, rows, [0, 4])
    pq.write_table(rows, data)
    command = ["explain", str(spam.path), str(data), "--rows", "0,4-4"]
    main([*command, "--top", "2", "--json"])
    *lines, last = capsys.readouterr().out.splitlines()
    content = json.loads(last)
    assert [each["row"] for each in content["rows"]] == [0, 4]
    assert [(one["name"], one["contribution"]) for one in content["rows"][1]["contributions"]] == [
        (one.name, one.contribution) for one in expected[1].contributions
    ]
    shown = "\n".join(lines)
    for each in expected:
        assert f"row {each.row}: predicted {each.prediction['prediction']}, at a probability of" in shown
        labels = [one.label for one in each.contributions]
        assert all(label in shown for label in labels[:2])
        assert f"{len(labels) - 2} others" in shown
    tables = {".csv": pyarrow.csv.read_csv, ".parquet": pq.read_table, ".json": lambda file: file}
    for ending, read in tables.items():
        main([*command, "--out", str(tmp_path / f"found{ending}")])
        found = read(tmp_path / f"found{ending}")
        if ending == ".json":
            assert json.loads(found.read_text("utf-8")) == content
        else:
            assert found.column_names == ["row", "name", "value", "contribution"]
            assert found["name"].to_pylist() == table_of(expected)["name"].to_pylist()
            sums = pd.DataFrame(found.to_pydict()).groupby("row")["contribution"].sum()
            assert sums.to_list() == pytest.approx([each.output for each in expected], abs=1e-9)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--rows", "x"], "'x' is neither the number of a row nor a range"),
        (["--rows", "0-999999"], "names more than 100,000 rows"),
        (["--out", "found.txt"], "names no format"),
        (["--out", "DATA"], "holds rows to explain; it is left as it is"),
    ],
)
def test_bad_input_is_one_line(spam, rows, tmp_path, capsys, words, what):
    data = tmp_path / "rows.parquet"
    pq.write_table(rows, data)
    words = [str(data) if word == "DATA" else word for word in words]
    with pytest.raises(SystemExit):
        main(["explain", str(spam.path), str(data), *words])
    assert what in capsys.readouterr().err
    assert pq.read_table(data).num_rows == ROWS


# The report ----------------------------------------------------------------------------------------


def test_the_record_has_the_words_for_and_against(spam):
    run = spam
    words = {each["column"]: each for each in run.record["words"]}
    assert list(words) == ["body", "shop", "tags"]
    for name, each in words.items():
        group = run.plan.sparse_groups[name]
        weights = pd.Series(
            run.parameters["table"][group, 0],
            [run.plan.sparse_name(place) for place in range(group.start, group.stop)],
        )
        rises, falls = weights[weights > 0].nlargest(20), weights[weights < 0].nsmallest(20)
        assert [one["value"] for one in each["for"]] == pytest.approx(rises.to_list())
        assert [one["value"] for one in each["against"]] == pytest.approx(falls.to_list())
        assert each["class"] == "yes"
        sign = " = " if name == "shop" else ": "
        assert {f"{name}{sign}{one['name']}" for one in each["for"]} <= set(rises.index)
    assert {"free", "winner"} == {one["name"] for one in words["body"]["for"][:2]}
    assert 0 < len(words["shop"]["against"]) <= 20


def words_of_model(run: Run) -> list[dict]:
    arrays = {"table": run.parameters["table"]}
    for name in run.parameters.keys() - {"table"}:
        arrays |= {f"{name}.{part}": values for part, values in run.parameters[name].items()}
    return words_of(run.task, SimpleNamespace(arrays=arrays), run.plan)


def test_the_words_of_classes_and_of_other_models(spam):
    run = made(spam.plan, KIND)
    words = words_of_model(run)
    assert [(each["column"], each["class"]) for each in words] == list(
        itertools.product(["body", "shop", "tags"], "abc")
    )
    weights = run.parameters["table"][run.plan.sparse_groups["shop"], 1]
    assert [one["value"] for one in words[4]["for"]] == pytest.approx(np.sort(weights)[:-11:-1].tolist())
    assert words[4]["against"] == []
    assert {each["class"] for each in words_of_model(made(spam.plan, MINUTES))} == {None}
    assert words_of_model(made(spam.plan, KIND, (16,))) == []


def test_the_page_escapes_words(spam, tmp_path):
    tags = next(each for each in spam.record["words"] if each["column"] == "tags")
    assert HOSTILE in {one["name"] for side in ("for", "against") for one in tags[side]}
    page = (spam.path / "report.html").read_text("utf-8")
    assert "body: for spam = yes" in page
    assert "shop: against spam = yes" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    words = [{"column": HOSTILE, "class": None, "for": [{"name": HOSTILE, "value": 1.0}], "against": []}] * 23
    write_report(
        tmp_path / "page.html", {"words": words, "target": {"name": HOSTILE}}, spam.steps, spam.epochs
    )
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "raises &lt;script&gt;" in page
    assert "lowers" not in page
    assert "The words for 3 more classes stand in record.json." in page
    assert "<script" not in page

"""Maps and sparse matrices as columns: against SciPy and scikit-learn."""

from __future__ import annotations

import itertools
import json
import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

import real_data
import steepest
from expecting import fails
from interruptions import StopsAfter
from steepest.data import learning, rows, summary
from steepest.data.columns import Plan, plan_from_json
from steepest.data.hashing import hashes_of_texts, places_of
from steepest.data.learning import Learner, learn, learner_from_json
from steepest.data.rows import MEMORY
from steepest.data.source import open_source
from steepest.data.wishes import Wishes
from steepest.prediction import predict
from steepest.settings import Settings
from steepest.trials.comparing import compare
from test_sparse_columns import learned, matrix, names

NUMBERS, NAMES = pa.map_(pa.int64(), pa.float64()), pa.map_(pa.string(), pa.float64())


def table(x, type_=NUMBERS, **others) -> pa.Table:
    return pa.table({"x": pa.array(x, type_), **others})


def packed(plan: Plan, x, type_=NUMBERS) -> list[list[float]]:
    """Return what a plan of one column makes of maps, in their own unit."""
    (column,) = plan.columns
    return (matrix(plan.pack(table(x, type_)), plan).toarray() * column.deviation).round(6).tolist()


# Numbers -------------------------------------------------------------------------------------------

VALUES = st.floats(-1e6, 1e6, width=32).filter(lambda value: value == 0 or abs(value) > 1e-3)


@st.composite
def matrices(draw):
    """Make matrices of whose pairs some are 0, NaN, out of order or there twice."""
    count, width = draw(st.integers(1, 12)), draw(st.sampled_from([257, 300, 5_000]))
    pairs = st.tuples(st.integers(0, width - 1), VALUES | st.just(math.nan))
    found = draw(st.lists(st.lists(pairs, max_size=6), min_size=count, max_size=count))
    begins = np.cumsum([0, *map(len, found)])
    flat = [pair for row in found for pair in row]
    numbers = np.array([number for number, _ in flat], draw(st.sampled_from([np.int32, np.int64])))
    values = np.array([value for _, value in flat], draw(st.sampled_from([np.float32, np.float64])))
    return scipy.sparse.csr_matrix((values, numbers, begins), (count, width))


@settings(deadline=None, max_examples=150)
@given(matrices(), st.integers(1, 5))
def test_a_matrix_comes_out_as_it_went_in(given_, step):
    data = np.nan_to_num(given_.data).astype(float)
    expected = scipy.sparse.csr_matrix((data, given_.indices, given_.indptr), given_.shape).toarray()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "STRETCH_ROWS", step)
        stretches = [each.rows for each in open_source({"x": given_}).stretches()]
    assert [len(each) for each in stretches[:-1]] == [step] * (len(stretches) - 1)
    whole = pa.concat_tables(stretches)
    if not expected.any():
        with fails("No row has any value in it but 0."):
            learn(whole)
        return
    plan = learn(whole)
    (x,) = plan.columns
    assert (x.kind, x.type) == ("pairs", "numbered")
    length = math.sqrt((expected**2).sum() / len(expected))
    assert x.deviation == pytest.approx(length, rel=1e-12)
    assert plan.layout.sparse == 1 + np.flatnonzero(expected.any(axis=0))[-1]
    found = matrix(plan.pack(whole), plan).toarray()
    np.testing.assert_allclose(found, expected[:, : plan.layout.sparse] / length, rtol=1e-6)


def test_matrices_of_few_columns_are_dense():
    of = {256: ["x 0", "x 255"], 257: ["x", "x"]}
    for width, (first, last) in of.items():
        made = open_source({"x": scipy.sparse.coo_array(np.ones((2, width)))}).schema.names
        assert (made[0], made[-1]) == (first, last)
    with fails("the matrix 'x' holds values of the type complex128"):
        open_source({"x": scipy.sparse.csr_array((2, 300), dtype=complex)})


@settings(deadline=None, max_examples=60)
@given(matrices(), st.lists(st.integers(0, 12), max_size=3), st.booleans(), st.integers(1, 4))
def test_a_pass_that_is_cut_anywhere_learns_the_same(given_, cuts, named, block):
    (stretch,) = open_source({"x": given_}).stretches()
    whole = pa.concat_tables([stretch.rows, table([None, [(1, 0.5)], [(1, 1)]])])
    if named:
        whole = whole.set_column(0, "x", whole["x"].cast(NAMES))
    cuts = sorted(min(cut, whole.num_rows) for cut in cuts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "BLOCK", block)
        plan = learned(whole).plan()
        assert learned(whole, tuple(cuts)).plan() == plan
    parts = [whole.slice(b, e - b) for b, e in itertools.pairwise([0, *cuts, whole.num_rows])]
    merged = Learner()
    for part in parts:
        merged.merge(learner_from_json(json.loads(json.dumps(learned(part).to_json()))))
    found, expected = merged.plan().columns[0], learned(whole).plan().columns[0]
    assert found.deviation == pytest.approx(expected.deviation, rel=1e-12)
    assert found.sparse == expected.sparse
    assert found.values == expected.values
    assert merged.pairs() == learned(whole).pairs()


def test_long_rows_are_read_and_held_back_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(rows, "STRETCH_BYTES", 16_000)
    monkeypatch.setattr(learning, "BLOCK_BYTES", 1 << 16)
    long = scipy.sparse.csr_array(np.ones((40, 500)))
    stretches = [each.rows for each in open_source({"x": long}).stretches()]
    assert [each.num_rows for each in stretches] == [2] * 20
    learner, held = Learner(), []
    for each in stretches:
        learner.update(each)
        held.append(sum(piece.num_rows for piece in learner._held))
    assert max(held) == 8  # of 8,000 bytes each
    assert learner.pairs() == {"x": (40 * 500, 500)}
    assert learner.plan().columns[0].deviation == math.sqrt(500)


def test_numbers_are_places_and_new_ones_have_none():
    plan = learn(table([[(3, 1.0), (0, 2.0)], [(5, -2.0)], []]))
    assert names(plan, "x") == [f"x: {number}" for number in range(6)]
    assert plan.columns[0].deviation == math.sqrt(9 / 3)
    assert packed(plan, [[(6, 1.0), (5, 4.0), (-1, 2.0), (2**40, 1.0)], [(1, 1.0), (1, -1.0)], None]) == [
        [0, 0, 0, 0, 0, 4],
        [0] * 6,
        [0] * 6,
    ]
    assert packed(plan, [[(2, 7), (4, None)]], pa.map_(pa.uint8(), pa.int16())) == [[0, 0, 7, 0, 0, 0]]
    assert packed(plan, [None], pa.null()) == [[0] * 6]
    assert plan_from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_missing_map_is_a_row_without_pairs_and_says_so():
    rows_ = table([[(300, 3.0)], None, [], [(300, 5.0)]])
    plan = learn(rows_)
    assert plan.feature_names == ("x is missing",)
    assert plan.encode(rows_)[:, 0].tolist() == [0, 1, 0, 0]
    assert plan.columns[0].deviation == math.sqrt(34 / 3)
    assert plan.pack(rows_).ragged.lengths[:, 0].tolist() == [1, 0, 0, 1]
    hidden = pa.MapArray.from_arrays([0, 2, 4], [7, 8, 9, 9], [1.0, 2, 3, 4], mask=pa.array([True, False]))
    assert packed(learn(pa.table({"x": hidden})), hidden.cast(NUMBERS))[1][9] == 7


def test_parts_of_other_types_and_parts_without_values():
    learner = Learner()
    for values, type_ in [
        ([None, None], pa.null()),
        ([[(1, 0.5)]], pa.map_(pa.int32(), pa.float32())),
        ([None], pa.null()),
        ([[(9, 2**60 + 1)]], pa.map_(pa.uint64(), pa.int64())),
        ([[(2, Decimal("2.5"))]], pa.map_(pa.uint64(), pa.decimal128(5, 2))),
    ]:
        learner.update(table(values, type_))
    plan = learner.plan()
    assert names(plan, "x")[-1] == "x: 9"
    assert plan.columns[0].deviation == pytest.approx(2**60 / math.sqrt(3), rel=1e-12)
    with fails("'x' holds named values where earlier rows hold numbered values: [('a', 1.0)]", "row 1"):
        learner.update(table([[("a", 1.0)]], NAMES))


# Names, and numbers that are none ------------------------------------------------------------------


def test_names_are_learned_where_several_rows_have_them():
    given_ = [[("b", 1.0), ("a", 2.0)], [("a", 1.0), ("c", 0.0)], [("b", 2.0), ("c", 1.0)], [("a", 1.0)]]
    plan = learn(table(given_, NAMES))
    assert names(plan, "x") == ["x: a", "x: b"]
    assert plan.columns[0].deviation == math.sqrt(12 / 4)
    assert packed(plan, [[("b", 3.0), ("new", 1.0), ("b", 1.0)], None], NAMES) == [[0, 4], [0, 0]]
    assert names(learn(table(given_, NAMES), wishes=Wishes(minimum_count=1)), "x")[-1] == "x: c"
    by_number = learn(table([[("7", 1.0)], [("7", 2.0)]], NAMES))
    assert packed(by_number, [[(7, 2.5), (8, 1.0)]]) == [[2.5]]
    assert learn(table([[("a", 1.0)], [("b", 1.0)], []], NAMES), wishes=Wishes(minimum_count=1))
    with fails("too rare"):
        learn(table([[("a", 1.0)], [("b", 1.0)]], NAMES))


@pytest.mark.parametrize(
    ("given_", "type_", "wishes"),
    [
        ([[(-3, 1.0), (8, 2.0)], [(8, 4.0)]], NUMBERS, {}),
        ([[(2**26, 1.0), (8, 2.0)], [(8, 4.0)]], NUMBERS, {}),
        ([[(3, 1.0), (8, 2.0)], [(8, 4.0)]], NUMBERS, {"kinds": {"x": "hashed"}}),
        ([[("u", 1.0), ("v", 2.0)], [("v", 4.0), ("w", 0.0)]], NAMES, {"kinds": {"x": "hashed"}}),
    ],
)
def test_others_are_hashed(given_, type_, wishes):
    plan = learn(table(given_, type_), wishes=Wishes(hash_bits=10, **wishes))
    assert plan.layout.sparse == 1024
    keys = pa.array([str(key) for row in given_ for key, _ in row])
    first, second, third = places_of(hashes_of_texts(keys, "x"), 10).tolist()[:3]
    assert second == third != first
    (a, b) = packed(plan, given_, type_)
    assert (a[first], a[second], b[second]) == (1, 2, 4)
    assert np.count_nonzero([a, b]) == 3
    known = ["x: u (bucket {})", "x: v (bucket {})"] if type_ == NAMES else ["x: bucket {}", "x: bucket {}"]
    told = [plan.sparse_name(place) for place in (first, second)]
    assert plan.columns[0].sparse.frequent == (("v", "u") if type_ == NAMES else ())
    assert told == [name.format(place) for name, place in zip(known, (first, second), strict=True)]


def test_numbers_below_2_to_the_26_are_places():
    plan = learn(table([[(2**26 - 1, 1.0)], [(0, 1.0)]]))
    assert plan.layout.sparse == 2**26
    assert plan.pack(table([[(2**26 - 1, 1.0)]])).ragged.places.tolist() == [2**26 - 1]


def test_names_that_are_too_many_to_count_are_hashed_and_some_known(monkeypatch):
    monkeypatch.setattr(summary, "MOST_VALUES", 30)
    monkeypatch.setattr(learning, "BLOCK", 20)
    given_ = [[("often", 1.0), (f"n{i % 50}", 2.0)] for i in range(100)]
    plan = learn(table(given_, NAMES), wishes=Wishes(hash_bits=12))
    assert plan.layout.sparse == 2**12
    assert any(plan.sparse_name(place).startswith("x: often (bucket") for place in range(2**12))


def test_values_that_meet_in_a_bucket_are_added_up():
    many = [[(-i, 1.0) for i in range(1, 5_001)]]
    plan = learn(table([*many, [(-1, 1.0)]]), wishes=Wishes(hash_bits=10))
    (row,) = packed(plan, many)
    assert sum(row) == pytest.approx(5_000, rel=1e-5)
    assert min(row) == 0 or max(row) > 1


# What can't be ---------------------------------------------------------------------------------------


def test_values_that_cannot_be_computed_with():
    with fails("'x'", "1 infinite value: row 2"):
        learn(table([[(1, 1.0)], [(1, 2.0), (2, -math.inf)]]))
    with fails("'x'", "too large to compute with"):
        learn(table([[(1, 1e200)], [(1, 2.0)]]))
    plan = learn(table([[(1, 1.0)], [(1, 2.0)]]))
    with fails("'x'", "1 infinite value: row 2"):
        plan.pack(table([[(1, 1.0)], [(1, math.inf), (1, -math.inf)]]))
    with fails("'x'", "too far from those it was trained with", "row 3"):
        plan.pack(table([None, [(1, 1.0)], [(1, 1e300)]]))
    assert plan.pack(table([[(1, 1e-300)]])).ragged.lengths.tolist() == [[0]]


def test_what_a_map_can_be():
    for kinds, said in [
        ({"x": "number"}, "pairs"),
        ({"x": "text"}, "hashed"),
        ({"x": "list"}, "hashed or pairs"),
    ]:
        with fails("'x' holds numbered values", *kinds.values(), said):
            learn(table([[(1, 1.0)]]), wishes=Wishes(kinds=kinds))
    with fails("'y' holds numbers", "'pairs'"):
        learn(table([[(1, 1.0)]], y=[1.5]), wishes=Wishes(kinds={"y": "pairs"}))
    with fails("'x' holds numbered values", "crossed"):
        learn(table([[(1, 1.0)], []], y=["a", "b"]), wishes=Wishes(cross=(("x", "y"),)))
    plan = learn(table([[(1, 1.0)], []]))
    for other, said in [(pa.array([1.5]), "numbers"), (pa.array([["a"]]), "lists"),
                        (pa.array([[("a", 1.0)]], NAMES), "named values")]:  # fmt: skip
        with fails(f"'x' holds {said} where numbered values were learned"):
            plan.pack(pa.table({"x": other}))
    with fails("'x' holds numbered values where numbers were learned", "...", "row 1"):
        learn(pa.table({"x": [1.5, 2.5]})).pack(table([[(i, 1.0) for i in range(1_000)]]))
    texts = pa.array([[("a", "b")], []], pa.map_(pa.string(), pa.string()))
    dropped = learn(pa.table({"x": texts, "y": [1.5, 2.5]})).dropped
    assert "have no encoding" in dropped[0].reason


def test_where_all_features_are_dense_maps_are_left_out():
    rows_ = table([[(1, 1.0)], []], y=[1.5, 2.5])
    plan = learn(rows_, wishes=Wishes(sparse=False))
    assert [each.name for each in plan.columns] == ["y"]
    assert plan.dropped[0].reason.startswith("It holds numbered values: a fit learns from them, but not")


# Fits ----------------------------------------------------------------------------------------------


def classes(count=1_200, width=700, seed=3):
    draw = np.random.default_rng(seed)
    x = scipy.sparse.random_array((count, width), density=15 / width, rng=draw, format="csr")
    return x, np.where(x @ draw.normal(size=width) + draw.normal(size=count) / 3 > 0, "yes", "no")


ASKED = {"optimizer": "adagrad", "learning_rate": 0.5, "epochs": 4, "batch_size": 64}


def test_the_minimum_is_that_of_scikit_learn(tmp_path):
    x, y = classes()
    run = steepest.fit(
        {"x": x, "y": y}, "y", out=str(tmp_path / "run"), optimizer="lbfgs", batch_size="all", epochs=300,
        l2=1e-3, validation=0,
    )  # fmt: skip
    deviation = run.plan.columns[0].deviation
    theirs = LogisticRegression(C=1 / (2e-3 * len(y)), tol=1e-10, max_iter=2_000).fit(x / deviation, y)
    np.testing.assert_allclose(
        run.parameters["table"][:, 0], theirs.coef_[0], atol=2e-3 * abs(theirs.coef_).max()
    )
    predicted = predict(run, next(iter(open_source({"x": x}).stretches())).rows)
    np.testing.assert_allclose(predicted, theirs.predict_proba(x / deviation)[:, 1], atol=2e-3)


@pytest.mark.parametrize("model", ["linear", pytest.param("mlp", marks=pytest.mark.slow)])
def test_a_fit_is_the_same_from_memory_and_from_files(model, tmp_path, monkeypatch):
    monkeypatch.setattr("steepest.preparation.CACHED_FROM", 0)
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))
    x, y = classes()
    asked = {**ASKED, "model": model, "hidden": [8]}
    of_memory = steepest.fit({"x": x, "y": y}, "y", out=str(tmp_path / "memory"), **asked)
    parts = [next(iter(open_source({"x": x[rows_], "y": y[rows_]}).stretches())).rows
             for rows_ in (slice(0, 500), slice(500, None))]  # fmt: skip
    narrow = pa.map_(pa.int32(), pa.float64())
    pq.write_table(parts[0].set_column(0, "x", parts[0]["x"].cast(narrow)), tmp_path / "a.parquet")
    pq.write_table(parts[1], tmp_path / "b.parquet", row_group_size=100)
    files = str(tmp_path / "*.parquet")
    with pytest.raises(KeyboardInterrupt):
        steepest.fit(
            files, "y", out=str(tmp_path / "files"), callbacks=[StopsAfter(2, KeyboardInterrupt)], **asked
        )
    for _ in range(2):  # the second is of the cache
        of_files = steepest.fit(files, "y", out=str(tmp_path / "files"), overwrite=True, **asked)
        assert of_files.plan == of_memory.plan
        np.testing.assert_array_equal(of_files.parameters["table"], of_memory.parameters["table"])
    whole = pa.concat_tables([parts[0], parts[1]])
    predicted = predict(of_files, whole)
    for row in (0, 499, 500, 1_199):
        np.testing.assert_allclose(predict(of_files, whole.slice(row, 1)), predicted[[row]], rtol=2e-5)


def test_words_for_and_against_and_explanations(tmp_path):
    x, y = classes()
    hashed = steepest.fit({"x": x, "y": y}, "y", out=str(tmp_path / "hashed"), kinds={"x": "hashed"},
                          hash_bits=12, **ASKED)  # fmt: skip
    plain = steepest.fit({"x": x, "y": y}, "y", out=str(tmp_path / "plain"), **ASKED)
    (words,) = plain.record["words"]
    weights = plain.parameters["table"][:, 0]
    assert words["for"][0]["name"] == str(weights.argmax())
    assert words["against"][0]["name"] == str(weights.argmin())
    assert plain.record["importances"]["entries"][0]["name"] == f"x: {abs(weights).argmax()}"
    (told,) = steepest.explain(plain, {"x": x}, rows=[7])
    row = dict(zip(x[[7]].indices.tolist(), x[[7]].data.tolist(), strict=True))
    assert {each.name: each.value for each in told.contributions} == pytest.approx(
        {f"x: {number}": value for number, value in row.items()}, rel=1e-6
    )
    by_weight = {f"x: {each}": weights[each] * row[each] / plain.plan.columns[0].deviation for each in row}
    assert {each.name: each.contribution for each in told.contributions} == pytest.approx(by_weight, rel=1e-4)
    assert told.output - told.baseline == pytest.approx(sum(by_weight.values()), rel=1e-4)
    (told,) = steepest.explain(hashed, {"x": x}, rows=[7])
    assert {each.name.split(" (")[0] for each in told.contributions} == {f"x: {each}" for each in row}
    page = (plain.path / "report.html").read_text()
    assert f">{weights.argmax()}<" in page


def test_what_needs_dense_features_says_so(tmp_path):
    x, y = classes(100)
    data = {"x": x, "n": np.arange(100.0) % 7, "y": y}
    with fails("x", "too many", "--drop x"):
        compare(Settings(MEMORY, "y", epochs=1), [{"batch_size": 7}, {}], data, out=tmp_path / "compared")
    told = steepest.explore(data, "y")
    (column,) = (each for each in told.record["columns"] if each["name"] == "x")
    assert column["kind"] == "unsupported"
    assert "It holds numbered values" in column["unused"]


@pytest.mark.slow
def test_real_mails_as_a_matrix(tmp_path):
    mails = real_data.mails()
    words = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(mails["text"])
    assert words.shape[1] > 20_000
    held_out = np.random.default_rng(0).random(len(mails)) < 0.2
    run = steepest.fit(
        {"words": words, "label": mails["label"], "held": held_out}, "label", validation_column="held",
        out=str(tmp_path / "run"),
    )  # fmt: skip
    ours = run.record["figures"]["validation"]["scores"]
    theirs = LogisticRegression(C=10).fit(words[~held_out], mails["label"][~held_out])
    accuracy = theirs.score(words[held_out], mails["label"][held_out])
    print("accuracy", ours["accuracy"], "and of scikit-learn", accuracy)
    assert ours["accuracy"] >= accuracy - 0.003

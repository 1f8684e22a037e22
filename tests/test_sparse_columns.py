"""Text, large categories, lists and crosses as sparse features: against scikit-learn and plain Python."""

from __future__ import annotations

import itertools
import json
import math
import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from expecting import fails
from steepest.data import learning, tokens, vocabulary
from steepest.data.column import Column, Sparse
from steepest.data.columns import Plan, plan_from_json
from steepest.data.hashing import hashes_of_texts
from steepest.data.layout import Packed
from steepest.data.learning import Learner, learn, learner_from_json
from steepest.data.tokens import n_grams_of, tokens_of
from steepest.data.wishes import Wishes

TARGET = ["late", "on time"]


def matrix(packed: Packed, plan: Plan) -> scipy.sparse.csr_array:
    """Return all sparse features, [rows, layout.sparse], made pair by pair."""
    rows, columns, values, pair = [], [], [], 0
    for row, places in enumerate(packed.places.tolist()):
        for place in places:
            if place < plan.layout.sparse:
                rows.append(row), columns.append(place), values.append(1.0)
        for length in packed.ragged.lengths[row].tolist():
            some = packed.ragged.places[pair : pair + length].tolist()
            assert some == sorted(set(some))
            rows += [row] * length
            columns += some
            values += packed.ragged.values[pair : pair + length].tolist()
            pair += length
    assert pair == len(packed.ragged.places) == len(packed.ragged.values)
    assert np.isfinite(packed.ragged.values).all()
    assert (packed.ragged.values != 0).all()
    shape = (len(packed.numbers), plan.layout.sparse)
    return scipy.sparse.csr_array((values, (rows, columns)), shape, dtype=np.float64)


def names(plan: Plan, column: str) -> list[str]:
    group = plan.sparse_groups[column]
    return [plan.sparse_name(place) for place in range(group.start, group.stop)]


def learned(rows: pa.Table, cuts: tuple[int, ...] = (), **wishes) -> Learner:
    learner = Learner(wishes=Wishes(**wishes))
    for begins, ends in itertools.pairwise([0, *cuts, rows.num_rows]):
        learner.update(rows.slice(begins, ends - begins))
    return learner


# Text ----------------------------------------------------------------------------------------------


def mails(count: int, seed: int = 0) -> list[str]:
    """Make texts of words that are the rarer the later they stand in the vocabulary."""
    chance = random.Random(seed)
    letters = [f"{a}{b}" for a, b in itertools.product("Abcdefgh", "Xyz12")]
    ends = [" ", ", ", "! ", "\n", " - "]
    return [
        "".join(
            letters[int(len(letters) * chance.random() ** 3)] + chance.choice(ends)
            for _ in range(chance.randrange(20, 60))
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize(("kind", "grams"), [("text", (1, 2)), ("words", (1, 1))])
def test_learned_text_agrees_with_scikit_learn(kind, grams):
    rows = pa.table({"body": mails(300), "use": [i % 3 for i in range(300)]})
    plan = learn(rows, wishes=Wishes(kinds={"body": kind}))
    others = [*mails(20, seed=1), "", "!?", "nothing that is known", "ax"]
    ours = matrix(plan.pack(pa.table({"body": others, "use": [0] * len(others)})), plan)
    theirs = TfidfVectorizer(sublinear_tf=True, ngram_range=grams, min_df=2, token_pattern=r"[A-Za-z0-9]+")
    theirs.fit(rows["body"].to_pylist())
    found = [name.removeprefix("body: ") for name in names(plan, "body")]
    assert set(found) == set(theirs.get_feature_names_out())
    expected = theirs.transform(others)[:, [theirs.vocabulary_[name] for name in found]]
    np.testing.assert_allclose(ours.toarray(), expected.toarray(), rtol=1e-6, atol=1e-7)
    assert ours.nnz == expected.nnz > 300


def test_words_stand_by_frequency_and_by_text():
    body = pa.table({"body": ["b a c", "a b", "c a", "d"]})
    plan = learn(body, wishes=Wishes(kinds={"body": "text"}))
    assert names(plan, "body") == ["body: a", "body: b", "body: c"]
    plan = learn(body, wishes=Wishes(kinds={"body": "text"}, minimum_count=1))
    assert names(plan, "body") == [
        f"body: {each}" for each in ["a", "b", "c", "a b", "a c", "b a", "c a", "d"]
    ]


def test_texts_are_told_from_categories_and_identifiers():
    texts = mails(40)
    rows = pa.table(
        {"body": [*texts, None], "grade": ["A", "B"] * 20 + ["A"], "id": [f"N{i}" for i in range(41)]}
    )
    plan = learn(rows)
    assert [(each.name, each.kind) for each in plan.columns] == [("body", "text"), ("grade", "category")]
    assert [each.name for each in plan.dropped] == ["id"]
    assert plan.feature_names == ("body is missing", "grade = A", "grade = B")
    assert plan.groups == {"body": slice(0, 1), "grade": slice(1, 3)}
    packed = plan.pack(rows)
    assert packed.ragged.lengths[40].tolist() == [0]
    assert plan.encode(rows)[-2:].tolist() == [[0, 0, 1], [1, 1, 0]]


SCRIPTS = {
    "Straße STRASSE ﬁn": ["strasse", "strasse", "fin"],
    "Ελλάς ΕΛΛΆΣ": ["ελλάσ", "ελλάσ"],
    "Привет, МИР": ["привет", "мир"],
    "e\u0301t\u00e9": ["\u00e9t\u00e9"],
    "中文很好abc": ["中", "文", "很", "好", "abc"],
    "ｶﾞｷﾞ Ａ１": ["ガ", "ギ", "a1"],
    "ひらが": ["ひ", "ら", "が"],
    "नमस्ते दुनिया": ["नमस्ते", "दुनिया"],
    "שלום עולם": ["שלום", "עולם"],
    "مرحبا بالعالم": ["مرحبا", "بالعالم"],
    "한국어 단어": ["한국어", "단어"],
    "ปีที่a": ["ปี", "ที่", "a"],
    "don't snake_case 3.14": ["don", "t", "snake", "case", "3", "14"],
    "😀a😀": ["a"],
    "𝒳²": ["x2"],
}


@pytest.mark.parametrize(("text", "words"), SCRIPTS.items())
def test_words_of_several_scripts(text, words):
    def split(texts: list[str]) -> list[list[str]]:
        found = tokens_of(pa.array(texts, pa.large_string()))
        rows: list[list[str]] = [[] for _ in texts]
        for row, code in zip(found.rows, found.codes, strict=True):
            rows[row].append(found.words[int(code)].as_py())
        assert len(set(found.words.to_pylist())) == len(found.words)
        return rows

    assert split([text]) == [words]
    assert split(["ab", text, "", text, "cd"]) == [["ab"], words, [], words, ["cd"]]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cn"])), max_size=6))
def test_any_text_is_cut_at_the_same_places_whatever_stands_beside_it(texts):
    whole = tokens_of(pa.array(texts, pa.large_string()))
    for row, text in enumerate(texts):
        alone = tokens_of(pa.array([text], pa.large_string()))
        found = [whole.words[int(code)].as_py() for code in whole.codes[whole.rows == row]]
        assert found == [alone.words[int(code)].as_py() for code in alone.codes]
        assert len(found) <= tokens.lengths_of(pa.array([text], pa.large_string()), "words")[0]


def test_n_grams_of_characters_agree_with_scikit_learn():
    texts = ["a ab abc abcd abcdef", "b", ""]
    found = n_grams_of(tokens_of(pa.array(texts, pa.large_string())))
    theirs = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).build_analyzer()
    for row, text in enumerate(texts):
        ours = [found.words[int(code)].as_py() for code in found.codes[found.rows == row]]
        assert sorted(ours) == sorted(theirs(text))
    rows = pa.table({"body": ["abc", "abd", "xab"], "use": [1, 2, 3]})
    plan = learn(rows, wishes=Wishes(kinds={"body": "characters"}))
    assert names(plan, "body") == ["body:  ab"]


def test_very_long_text(monkeypatch):
    long = "word " * 200_000
    column = Column(
        "body", "text", "string", values=("word", "word word"), sparse=Sparse(documents=2, counts=(2, 1))
    )
    plan = Plan((column,), ())
    packed = plan.pack(pa.table({"body": [long, "word", "x" * 1_000_000]}))
    assert packed.ragged.lengths[:, 0].tolist() == [2, 1, 0]
    idf = np.array([math.log(3 / 3) + 1, math.log(3 / 2) + 1])
    expected = (1 + np.log([200_000, 199_999])) * idf
    np.testing.assert_allclose(packed.ragged.values[:2], expected / np.linalg.norm(expected), rtol=1e-6)


def test_text_by_pieces_changes_nothing(monkeypatch):
    rows = pa.table({"body": [*mails(60), "Straße", "中文"], "use": [i % 3 for i in range(62)]})
    whole, plan = learned(rows, kinds={"body": "text"}).plan(), None
    monkeypatch.setattr(tokens, "PIECE_BYTES", 300)
    plan = learned(rows, kinds={"body": "text"}).plan()
    assert plan == whole
    pieces = plan.pack(rows)
    monkeypatch.undo()
    for one, other in zip(plan.pack(rows).ragged, pieces.ragged, strict=True):
        np.testing.assert_array_equal(one, other)


def test_long_texts_are_not_held_back(monkeypatch):
    monkeypatch.setattr(learning, "BLOCK_BYTES", 1 << 16)
    sizes = []
    learner = Learner()
    for number in range(40):
        learner.update(pa.table({"body": [f"{number} " + "word " * 5_000]}))
        sizes.append(sum(each.nbytes for each in learner._held))
    assert max(sizes) < 1 << 17
    assert learner.pairs() == {"body": (40 * (2 * 5_001 - 1), 2 * 5_001 - 1)}


def test_words_beyond_what_is_counted_are_hashed(monkeypatch):
    monkeypatch.setattr(vocabulary, "MOST_PAIRS", 50)
    rows = pa.table({"body": mails(60), "use": [i % 3 for i in range(60)]})
    plan = learn(rows, wishes=Wishes(kinds={"body": "text"}, hash_bits=12))
    (body, _) = plan.columns
    assert plan.layout.sparse == plan.sparse_groups["body"].stop == 2**12
    assert body.sparse.bits == 12
    packed = plan.pack(rows)
    ours = matrix(packed, plan)
    np.testing.assert_allclose(scipy.sparse.linalg.norm(ours, axis=1), 1, rtol=1e-6)
    text = "ax ax by"
    one = plan.pack(pa.table({"body": [text], "use": [0]})).ragged
    weights = np.array([1 + math.log(2), 1, 1, 1])
    np.testing.assert_allclose(np.sort(one.values), np.sort(weights / np.linalg.norm(weights)), rtol=1e-6)
    told = {plan.sparse_name(place) for place in one.places.tolist()}
    for word in ("ax", "by", "ax ax", "ax by"):
        assert any(name.startswith("body: ") and word in name and "(bucket " in name for name in told), word
    silent = Plan((Column("body", "text", "string", sparse=Sparse(bits=12)),), ())
    assert silent.sparse_name(51) == "body: bucket 51"


# Categories ----------------------------------------------------------------------------------------


def merchants(rows: int) -> pa.Table:
    chance = random.Random(3)
    values = [str(int(2000 * chance.random() ** 3)) for _ in range(rows)]
    return pa.table({"merchant": pa.array([None, *values[1:]]), "hour": [i % 24 for i in range(rows)]})


def test_a_large_category_is_learned():
    rows = merchants(20_000)
    plan = learn(rows)
    counts = pd.Series(rows["merchant"].to_pylist()).value_counts()
    kept = [value for value in counts.index if counts[value] >= 10]
    assert 256 < len(kept) < len(counts)
    found = names(plan, "merchant")
    assert found[-1] == "merchant = any other"
    assert set(found[:-1]) == {f"merchant = {value}" for value in kept}
    assert found[:-1] == sorted(found[:-1], key=lambda name: (-counts[name[11:]], name[11:]))
    assert plan.feature_names == ("merchant is missing", "hour")
    packed = plan.pack(rows)
    expected = [found.index(f"merchant = {each}") if each in kept else len(found) - 1 for each in
                rows["merchant"].to_pylist()]  # fmt: skip
    expected[0] = plan.layout.sparse
    assert packed.places[:, 0].tolist() == expected
    new = plan.pack(pa.table({"merchant": [990_001, 990_002, None], "hour": [1, 2, 3]}))
    assert new.places[:, 0].tolist() == [len(found) - 1, len(found) - 1, plan.layout.sparse]


def test_up_to_256_values_stay_dense():
    values = [f"v{i % 256}" for i in range(5120)]
    plan = learn(pa.table({"c": values}))
    assert plan.layout.sparse == 0
    assert plan.width == 256
    packed = plan.pack(pa.table({"c": values}))
    assert packed.places.shape == (5120, 0)
    assert packed.ragged.lengths.shape == (5120, 0)
    assert "sparse" not in plan.to_json()["columns"][0]
    assert learn(pa.table({"c": [f"v{i % 257}" for i in range(5140)]})).layout.sparse == 257


def test_values_that_are_too_many_to_count_are_hashed_and_some_known_by_name(monkeypatch):
    monkeypatch.setattr("steepest.data.summary.MOST_VALUES", 300)
    rows = merchants(20_000)
    plan = learn(rows, wishes=Wishes(hash_bits=10))
    (merchant, _) = plan.columns
    assert merchant.kind == "hashed"
    packed = plan.pack(rows)
    by_value: dict[str, set[int]] = {}
    for value, place in zip(rows["merchant"].to_pylist(), packed.places[:, 0].tolist(), strict=True):
        by_value.setdefault(value, set()).add(place)
    assert by_value.pop(None) == {1024}
    assert all(len(places) == 1 and max(places) < 1024 for places in by_value.values())
    assert len(set.union(*by_value.values())) > 800  # of 1024, with 1980 values
    (place,) = by_value["0"]
    assert plan.sparse_name(place).startswith("merchant = ")
    assert plan.sparse_name(place).endswith(f"(bucket {place})")
    shared = [place for place in range(1024) if " more (bucket" in plan.sparse_name(place)]
    fallen = {place: sum(place in places for places in by_value.values()) for place in shared}
    assert shared
    assert all(f" and {count - 1} more" in plan.sparse_name(place) for place, count in fallen.items())
    assert any(plan.sparse_name(place) == f"merchant: bucket {place}" for place in range(1024))
    new = plan.pack(pa.table({"merchant": ["new 1", "new 2"], "hour": [0, 1]})).places[:, 0]
    assert (new < 1024).all()


def test_hashes_are_the_same_everywhere():
    texts = pa.array(["", "8812", "Straße", "中"])
    assert hashes_of_texts(texts, "merchant").tolist() == LITERAL
    assert hashes_of_texts(texts.cast(pa.large_string()), "merchant").tolist() == LITERAL
    assert not set(hashes_of_texts(texts, "shop").tolist()) & set(LITERAL)
    plan = Plan((Column("body", "text", "string", sparse=Sparse(bits=20)),), ())
    assert plan.pack(pa.table({"body": ["Free money, free"]})).ragged.places.tolist() == LITERAL_PLACES


LITERAL = [11399762450391640825, 18066606892247643696, 11336075278459672465, 17590521630605498180]
LITERAL_PLACES = [426705, 490682, 968032, 998622]


def test_identifiers_are_no_categories():
    rows = pa.table({"id": [f"N{i}" for i in range(150_000)], "use": [i % 7 for i in range(150_000)]})
    plan = learn(rows)
    assert [each.name for each in plan.columns] == ["use"]
    again = learn(rows, wishes=Wishes(kinds={"id": "hashed"}))
    assert [each.kind for each in again.columns] == ["hashed", "number"]


# Lists and crosses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "wishes"),
    [
        ([["b", "a", "b"], [], None, ["c", None, "a"], ["a"]], {}),
        (
            pa.array([["b", "a", "b"], [], None, ["c", None, "a"], ["a"]], pa.large_list(pa.large_string())),
            {},
        ),
        (["b| a|b", "", None, "c||a", "a"], {"kinds": {"x": "list:|"}}),
    ],
)
def test_lists(values, wishes):
    rows = pa.table({"x": values, "use": range(5)})
    plan = learn(rows, wishes=Wishes(**wishes))
    assert names(plan, "x") == ["x: a", "x: b", "x: c"]
    expected = [[1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1], [1, 0, 0]]
    assert matrix(plan.pack(rows), plan).toarray().tolist() == expected
    assert plan.encode(rows)[:, 0].tolist() == [0, 0, 1, 0, 0]
    assert plan_from_json(json.loads(json.dumps(plan.to_json()))) == plan
    new = pa.table({"x": [rows["x"][0].as_py(), ["new"] if not wishes else "new"], "use": [1, 1]})
    assert matrix(plan.pack(new), plan).toarray().tolist() == [[1, 1, 0], [0, 0, 0]]
    with fails("'x'", "lists" if not wishes else "text"):
        plan.pack(pa.table({"x": [1.5], "use": [1]}))


def test_lists_of_numbers_and_a_part_without_values():
    rows = pa.table({"x": [[7, 12], [12], None], "use": [1, 2, 4]})
    plan = learn(rows)
    assert names(plan, "x") == ["x: 12", "x: 7"]
    assert plan.pack(pa.table({"x": pa.nulls(2), "use": [1, 1]})).ragged.lengths.tolist() == [[0], [0]]
    parts = [pa.table({"x": pa.nulls(2), "use": [1, 2]}), rows, pa.table({"x": [["7"]], "use": [3]})]
    learner = Learner()
    for part in parts:
        learner.update(part)
    assert names(learner.plan(), "x") == ["x: 12", "x: 7"]


def test_several_lists_are_interleaved():
    rows = pa.table({"x": [["a", "b"], ["b"], []], "y": [["u"], ["v", "u"], ["v"]], "z": ["p q", "q", "p q"]})
    plan = learn(rows, wishes=Wishes(kinds={"z": "words"}))
    packed = plan.pack(rows)
    assert packed.ragged.lengths.tolist() == [[2, 1, 2], [1, 2, 1], [0, 1, 2]]
    apart = [
        learn(rows.select([each]), wishes=Wishes(kinds={"z": "words"} if each == "z" else {}))
        for each in "xyz"
    ]
    expected = scipy.sparse.hstack([matrix(each.pack(rows), each) for each in apart])
    np.testing.assert_array_equal(matrix(packed, plan).toarray(), expected.toarray())


def test_crosses():
    rows = pa.table(
        {"m": ["a", "a, 1", "a", None, "a"], "h": [1, 2, 1, 2, None], "b": [True, False, True, True, True]}
    )
    plan = learn(rows, wishes=Wishes(cross=(("m", "h"), ("h", "b", "m"))))
    assert names(plan, "m x h") == ["m x h = a, 1", "m x h = a\\, 1, 2"]
    assert names(plan, "h x b x m") == ["h x b x m = 1, true, a", "h x b x m = 2, false, a\\, 1"]
    assert plan.pack(rows).places.tolist() == [[0, 2], [1, 3], [0, 2], [4, 4], [4, 4]]
    assert plan.reads == ("m", "h", "b")
    new = pa.table({"m": ["z", "a"], "h": pa.array([1.0, 1.0]), "b": [True, True]})
    assert plan.pack(new).places.tolist() == [[4, 4], [0, 2]]
    hashed = learn(
        merchants(3000), wishes=Wishes(cross=(("merchant", "hour"),), hash_bits=10, minimum_count=1)
    )
    assert hashed.columns[-1].kind == "cross"
    assert plan_from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_rare_combinations_share_a_feature():
    rows = pa.table({"m": ["a"] * 5 + ["b"], "h": [1, 1, 1, 2, 2, 2]})
    plan = learn(rows, wishes=Wishes(cross=(("m", "h"),), minimum_count=2))
    assert names(plan, "m x h") == ["m x h = a, 1", "m x h = a, 2", "m x h = any other"]
    other = pa.table({"m": ["b", None], "h": [1, 1]})
    assert plan.pack(other).places.tolist() == [[2], [3]]


# Wishes --------------------------------------------------------------------------------------------


def test_what_a_column_can_be():
    rows = pa.table(
        {"n": [3, 1, 3, 1], "x": [0.5, 1, 2, 3], "s": ["u", "v", "u", "w"], "t": [["a"], [], [], ["b"]]}
    )
    plan = learn(rows, wishes=Wishes(kinds={"n": "category", "s": "hashed"}, hash_bits=10))
    assert [each.kind for each in plan.columns] == ["category", "number", "hashed", "list"]
    assert plan.feature_names == ("n = 1", "n = 3", "x")
    new = rows.set_column(0, "n", pa.array([3.0, 1, 7, 3]))
    assert plan.encode(new)[:, :2].tolist() == [[0, 1], [1, 0], [0, 0], [0, 1]]
    for kinds, said in [
        ({"x": "text"}, "numbers"),
        ({"n": "words"}, "numbers"),
        ({"x": "category"}, "numbers"),
        ({"s": "number"}, "text"),
        ({"s": "list"}, "text"),
        ({"t": "hashed"}, "lists"),
    ]:
        with fails(*kinds, said, *kinds.values()):
            learn(rows, wishes=Wishes(kinds=kinds))
    with fails("no column 'm'"):
        learn(rows, wishes=Wishes(kinds={"m": "hashed"}))
    with fails("no column 'm'"):
        learn(rows, wishes=Wishes(cross=(("m", "n"),)))
    with fails("'x' holds numbers", "crossed"):
        learn(rows, wishes=Wishes(cross=(("x", "n"),)))
    with fails("'s' is not learned from"):
        learn(rows, leave_out=["s"], wishes=Wishes(kinds={"s": "hashed"}))
    with fails("has a column 'n x s'"):
        learn(rows.append_column("n x s", rows["n"]), wishes=Wishes(cross=(("n", "s"),)))


def test_a_counter_is_a_number_if_it_is_asked_for():
    rows = pa.table({"i": range(100), "use": [i % 3 for i in range(100)]})
    assert [each.name for each in learn(rows).columns] == ["use"]
    assert [each.name for each in learn(rows, wishes=Wishes(kinds={"i": "number"})).columns] == ["i", "use"]


# Any cut -------------------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from(["a", "B", "ü", "中文", "dd", "e-e"]), max_size=5)


@st.composite
def tables(draw) -> pa.Table:
    rows = draw(st.integers(2, 25))

    def column(values):
        return draw(st.lists(st.none() | values, min_size=rows, max_size=rows))

    return pa.table(
        {
            "text": pa.array(column(WORDS.map(" ".join)), pa.string()),
            "free": pa.array(column(WORDS.map(" ".join)), pa.string()),
            "tags": pa.array(column(WORDS), pa.list_(pa.string())),
            "parts": pa.array(column(WORDS.map("|".join)), pa.string()),
            "shop": pa.array(column(st.sampled_from("uvwxyz")), pa.string()),
            "hour": pa.array(column(st.integers(0, 3)), pa.int64()),
            "use": range(rows),
        }
    )


WISHED = {
    "kinds": {"text": "text", "parts": "list:|", "shop": "hashed", "hour": "number"},
    "cross": (("shop", "hour"),),
    "hash_bits": 10,
    "minimum_count": 1,
}


@settings(deadline=None, max_examples=40)
@given(tables(), st.data())
def test_any_cut_and_any_parts_give_the_same_plan_and_the_same_pairs(rows, data):
    cuts = tuple(sorted(data.draw(st.lists(st.integers(0, rows.num_rows), max_size=3))))
    rows = rows.append_column("known", pa.array(["u", "v", "u"] * 9).slice(0, rows.num_rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "BLOCK", 8)
        if data.draw(st.booleans()):
            patch.setattr(vocabulary, "MOST_WORDS", 2)
        if data.draw(st.booleans()):
            patch.setattr(learning, "BLOCK_BYTES", 20)
        whole, pieces = learned(rows, **WISHED), learned(rows, cuts, **WISHED)
        plan = whole.plan()
        assert pieces.plan() == plan
        merged = Learner(wishes=Wishes(**WISHED))
        for begins, ends in itertools.pairwise([0, *cuts, rows.num_rows]):
            part = learned(rows.slice(begins, ends - begins), **WISHED)
            merged.merge(learner_from_json(json.loads(json.dumps(part.to_json()))))
        other = merged.plan()
    assert [each.name for each in other.columns] == [each.name for each in plan.columns]
    for mine, theirs in zip(other.columns, plan.columns, strict=True):
        assert (mine.kind, mine.values, mine.other) == (theirs.kind, theirs.values, theirs.other)
        if mine.sparse is not None:
            assert mine.sparse.counts == theirs.sparse.counts
    assert merged.pairs() == whole.pairs() == pieces.pairs()
    assert plan_from_json(json.loads(json.dumps(plan.to_json()))) == plan
    packed = plan.pack(rows)
    apart = [plan.pack(rows.slice(row, 1)) for row in range(rows.num_rows)]
    np.testing.assert_array_equal(packed.places, np.concatenate([each.places for each in apart]))
    for number in range(3):
        joined = np.concatenate([each.ragged[number] for each in apart])
        np.testing.assert_array_equal(packed.ragged[number], joined)
    found = matrix(packed, plan)
    assert len({plan.sparse_name(place) for place in range(plan.layout.sparse)}) == plan.layout.sparse
    lists = [run for run in plan.layout.runs if run.source == "list"]
    if lists:
        known = whole.pairs()
        kept = [each for each in plan.columns if each.kind in ("text", "list", "words")]
        for column, lengths in zip(kept, packed.ragged.lengths.T, strict=True):
            assert lengths.sum() <= known[column.name][0]
            assert lengths.max() <= known[column.name][1]
    assert found.shape == (rows.num_rows, plan.layout.sparse)

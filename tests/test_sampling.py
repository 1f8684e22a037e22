"""A sample of rows that stream by: the same however they are cut, and fair."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steepest.data.sampling import MOST_CHARACTERS, RowSample


def table(rows: int) -> pa.Table:
    return pa.table({"row": range(rows), "text": [f"t{row % 7}" for row in range(rows)]})


def sampled(pieces: list[pa.Table], most: int = 20, seed: int = 3) -> RowSample:
    sample = RowSample(seed, 1, most)
    for piece in pieces:
        sample.update(piece)
    return sample


def cut(rows: pa.Table, places: list[int]) -> list[pa.Table]:
    edges = [0, *sorted(places), rows.num_rows]
    return [rows.slice(a, b - a) for a, b in itertools.pairwise(edges)]


@settings(max_examples=60)
@given(st.integers(0, 300), st.data())
def test_pieces_and_merged_parts_give_the_sample_of_the_whole(rows, data):
    whole = table(rows)
    places = data.draw(st.lists(st.integers(0, rows), max_size=6))
    pieces = cut(whole, places)
    at_once = sampled([whole]).table()
    assert sampled(pieces).table().equals(at_once) or rows == 0
    merged, first = RowSample(3, 1, 20), 0
    for piece in pieces:
        part = RowSample(3, 1, 20, first)
        part.update(piece)
        merged.merge(part)
        first += piece.num_rows
    assert merged.rows == rows
    assert merged.table().equals(at_once) or rows == 0


def test_fewer_rows_than_are_kept_are_all_there():
    assert sampled([table(20)]).table().equals(table(20))


def test_each_row_is_as_likely_as_any_other():
    counts = np.zeros(100)
    for seed in range(400):
        counts[sampled([table(100)], 10, seed).table()["row"].to_numpy()] += 1
    assert counts.sum() == 4000
    # Each count is binomial (400, 1/10): 40 with a deviation of 6.
    assert counts.min() > 40 - 5 * 6
    assert counts.max() < 40 + 5 * 6
    assert abs(counts[:50].sum() - 2000) < 5 * np.sqrt(400 * 50 * 0.1 * 0.9)


def test_a_smaller_sample_is_part_of_the_larger():
    sample = sampled([table(1000)], 200)
    small = sample.table(50)
    assert small.num_rows == 50
    assert set(small["row"].to_pylist()) < set(sample.table()["row"].to_pylist())
    assert sample.table(500).num_rows == 200


def test_another_seed_draws_other_rows():
    assert not sampled([table(1000)]).table().equals(sampled([table(1000)], seed=4).table())


def test_parts_that_do_not_follow_each_other_do_not_merge():
    a, b = sampled([table(10)]), RowSample(3, 1, 20, first=11)
    with pytest.raises(ValueError, match="one begins at the row"):
        a.merge(b)


def test_long_text_is_cut_and_dictionaries_are_resolved():
    rows = pa.table({"text": ["é" * 1000, None], "code": pa.array(["u", "v"]).dictionary_encode()})
    found = sampled([rows]).table()
    assert len(found["text"][0].as_py()) == MOST_CHARACTERS
    assert found["text"][1].as_py() is None
    assert found["code"].type == pa.string()


def test_types_that_differ_between_pieces_become_one():
    found = sampled(
        [
            pa.table({"x": pa.array([None, None]), "n": [1, 2]}),
            pa.table({"x": ["u", "v"], "n": [0.5, None]}),
        ]
    ).table()
    assert found.to_pydict() == {"x": [None, None, "u", "v"], "n": [1.0, 2.0, 0.5, None]}

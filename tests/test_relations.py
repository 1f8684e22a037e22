"""What columns tell of a target and of each other, against scikit-learn, NumPy, pandas and closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from steepest.exploration.associations import association, groups, ranks
from steepest.exploration.conditioning import condition, steps_for_a_tenth, steps_to_learn
from steepest.exploration.relations import (
    FOLDS,
    Bins,
    Target,
    bin_categories,
    bin_numbers,
    chance,
    explained_variance,
    folds_of,
    mutual_information,
    relate,
    surprise,
)


def generator(seed: int = 5) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def folds(rows: int) -> np.ndarray:
    return folds_of(rows, generator(1).permutation(rows))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=60))
def test_mutual_information_is_scikit_learns(pairs):
    a, b = np.array(pairs).T
    counts = np.zeros((5, 4))
    np.add.at(counts, (a, b), 1)
    assert mutual_information(counts) == pytest.approx(mutual_info_score(a, b), abs=1e-12)


def test_by_chance_the_information_is_what_is_taken_off_and_seldom_surprising():
    noise = generator()
    found = []
    for _ in range(300):
        counts = np.zeros((6, 4))
        np.add.at(counts, (noise.integers(0, 6, 2000), noise.integers(0, 4, 2000)), 1)
        found.append((mutual_information(counts), surprise(counts)))
    information, surprises = np.array(found).T
    assert information.mean() == pytest.approx(chance(counts), rel=0.1)
    assert abs(surprises.mean()) < 0.2
    assert surprises.std() == pytest.approx(1, abs=0.15)


@settings(max_examples=100)
@given(
    st.lists(st.one_of(st.none(), st.integers(-5, 5).map(float), st.floats(-1e6, 1e6)), max_size=80),
    st.integers(1, 9),
)
def test_bins_of_numbers_are_in_order_and_few(values, most):
    numbers = np.array([np.nan if each is None else each for each in values])
    codes = bin_numbers(numbers, most).codes
    there = ~np.isnan(numbers)
    order = np.argsort(numbers[there], kind="stable")
    assert (np.diff(codes[there][order]) >= 0).all()
    assert len(np.unique(codes[there])) <= max(most, 1)
    for value in np.unique(numbers[there]):
        assert len(np.unique(codes[numbers == value])) == 1
    if there.any() and not there.all():
        assert set(codes[~there]).isdisjoint(codes[there])


def test_bins_hold_about_as_many_rows_each():
    counts = np.bincount(bin_numbers(generator().lognormal(size=6400), 64).codes)
    assert len(counts) == 64
    assert counts.max() <= 101
    assert counts.min() >= 99


def test_missing_categories_and_rare_ones_have_bins_of_their_own():
    codes = bin_categories(pa.chunked_array([["v", "u", None], ["u", "w", "v", "u"]]), 2).codes
    assert codes.tolist() == [1, 0, 3, 0, 2, 1, 0]


def test_the_area_under_the_curve_is_that_of_held_out_shares():
    cancer = load_breast_cancer()
    target = Target("binary", cancer.target.astype(np.int64), None, folds(569))
    bins = bin_numbers(cancer.data[:, 0], 8)
    areas = []
    for fold in range(FOLDS):
        held = target.folds == fold
        learned = pd.Series(target.codes[~held])
        mean = learned.mean()
        by_bin = learned.groupby(bins.codes[~held])
        shares = (by_bin.sum() + mean) / (by_bin.count() + 1)
        areas.append(roc_auc_score(target.codes[held], shares.reindex(bins.codes[held]).fillna(mean)))
    assert relate(bins, target).score == pytest.approx(np.mean(areas), abs=1e-12)


def test_a_straight_line_is_explained_as_linear_regression_does():
    noise = generator()
    x = noise.normal(size=3000)
    y = 2 * x + noise.normal(size=3000)
    fold = folds(3000)
    predicted = cross_val_predict(LinearRegression(), x[:, None], y, cv=PredefinedSplit(fold))
    linear = 1 - ((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert explained_variance(bin_numbers(x, 30), y, fold)[0] == pytest.approx(linear, abs=0.01)


def test_relations_that_are_not_straight_are_seen_and_noise_is_not():
    noise = generator()
    x = noise.normal(size=4000)
    codes = (x**2 > 1).astype(np.int64)
    target = Target("binary", codes, None, folds(4000))
    assert relate(bin_numbers(x, 40), target).score > 0.99
    nothing = relate(bin_numbers(noise.normal(size=4000), 40), target)
    assert nothing.score == pytest.approx(0.5, abs=0.05)
    assert nothing.explained < 0.01
    assert nothing.surprise < 4


def test_a_column_that_is_the_target_in_another_unit_explains_all_of_it_even_with_long_tails():
    price = np.exp(generator().normal(size=5000) * 1.5)
    explained = explained_variance(bin_numbers(price * 0.92, 50), price, folds(5000))[1]
    assert explained > 0.999


def test_an_identifier_predicts_nothing_of_rows_held_out():
    target = Target("classes", generator().integers(0, 3, 600), None, folds(600))
    assert relate(Bins(np.arange(600)), target).signal < 0.1


def test_ranks_are_pandas():
    values = np.array([3.0, 1.0, np.nan, 3.0, 2.0, 3.0])
    assert np.array_equal(ranks(values) + 1, pd.Series(values).rank().to_numpy(), equal_nan=True)


def test_association_of_numbers_is_spearmans_correlation():
    data = load_diabetes().data[:, [0, 2, 4, 5]]
    found = association([bin_numbers(column, 8) for column in data.T])
    ranked = pd.DataFrame(data).rank().to_numpy()
    assert found == pytest.approx(np.abs(np.corrcoef(ranked.T)), abs=1e-5)


def test_association_of_categories_is_cramers_v():
    noise = generator()
    a = noise.integers(0, 4, 800)
    b = np.where(noise.random(800) < 0.6, a % 3, noise.integers(0, 3, 800))
    table = pd.crosstab(a, b).to_numpy()
    expected = np.outer(table.sum(1), table.sum(0)) / 800
    v = np.sqrt(((table - expected) ** 2 / expected).sum() / 800 / 2)
    assert association([Bins(a), Bins(b)])[0, 1] == pytest.approx(v, abs=1e-5)


def test_association_of_a_number_and_a_category_is_the_correlation_ratio():
    noise = generator()
    a = noise.integers(0, 4, 800)
    x = a % 2 + noise.normal(size=800)
    ranked = pd.Series(x).rank()
    between = ((ranked.groupby(a).transform("mean") - ranked.mean()) ** 2).sum()
    eta = np.sqrt(between / ((ranked - ranked.mean()) ** 2).sum())
    assert association([Bins(a), bin_numbers(x, 8)])[0, 1] == pytest.approx(eta, abs=1e-5)


def test_a_missing_number_counts_as_average():
    x = np.array([1.0, 2.0, np.nan, 4.0])
    strength = association([bin_numbers(x, 4), bin_numbers(np.array([1.0, 2.0, 2.5, 4.0]), 4)])
    assert 0.9 < strength[0, 1] <= 1
    nothing = association([bin_numbers(np.full(4, np.nan), 4), bin_numbers(x, 4)])
    assert nothing.tolist() == [[1, 0], [0, 1]]


def test_groups_are_linked_over_several_columns():
    strength = np.eye(5)
    for a, b in ((0, 2), (2, 4), (1, 3)):
        strength[a, b] = strength[b, a] = 0.95
    assert groups(strength) == [[0, 2, 4], [1, 3]]


def test_the_condition_number_is_numpys_squared():
    x = generator().normal(size=(200, 4)) * [1, 10, 100, 0.1]
    expected = np.linalg.cond(np.column_stack([np.ones(200), x])) ** 2
    found = condition(x, x[:, :1])
    assert found.number == pytest.approx(expected, rel=1e-9)
    assert found.flat == 0
    assert found.along[0] == 3


def test_features_that_add_up_are_flat_and_do_not_count():
    codes = generator().integers(0, 3, 300)
    one_hot = np.eye(3, dtype=np.float32)[codes]
    found = condition(one_hot, one_hot[:, :1])
    assert found.flat == 1
    assert found.number < 100


def test_nearly_equal_columns_are_named():
    noise = generator()
    x = noise.normal(size=(500, 3))
    x[:, 2] = x[:, 0] + 1e-3 * noise.normal(size=500)
    found = condition(x, x[:, 1:2])
    assert found.number > 1e5
    assert sorted(found.along) == [0, 2]


@pytest.mark.parametrize("number", [4.0, 100.0, 5000.0])
def test_plain_descent_takes_as_many_steps_as_foretold(number):
    curvature = np.array([1.0, 1.0 / number])
    rate = 2 / curvature.sum()
    error, steps = np.ones(2), 0
    while np.abs(error).max() > 0.1:
        error *= 1 - rate * curvature
        steps += 1
    assert steps == pytest.approx(steps_for_a_tenth(number), abs=1)
    assert steps_for_a_tenth(number) == pytest.approx(number / 2 * np.log(10), rel=0.15)


def test_descent_on_real_data_learns_nine_tenths_when_foretold():
    data = load_diabetes()
    x = (data.data - data.data.mean(0)) / data.data.std(0)
    y = data.target - data.target.mean()
    foretold = condition(x, y[:, None]).steps_to_learn
    largest = np.linalg.eigvalsh(x.T @ x)[-1]
    least = ((y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2).sum()
    largest = max(largest, len(x))  # the column of ones is a direction, too
    weights, steps = np.zeros(10), 0
    while ((y - x @ weights) ** 2).sum() - least > 0.1 * ((y**2).sum() - least):
        weights += x.T @ (y - x @ weights) / largest
        steps += 1
    assert steps == pytest.approx(foretold, abs=1)


def test_what_lies_across_the_valley_is_learned_at_once():
    curvatures = np.array([1.0, 1e-6])
    assert steps_to_learn(curvatures, np.array([1.0, 1e-9])) == 1
    assert steps_to_learn(curvatures, np.array([1e-9, 1.0])) == pytest.approx(np.log(10) / 2e-6, rel=1e-3)

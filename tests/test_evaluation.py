"""The scores against scikit-learn's on real data, the curves' shape, and every edge of the input."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.inspection import permutation_importance as sklearn_importance
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler

from steepest.errors import SteepestError
from steepest.evaluation import KINDS, SCORE_NAMES, evaluate, permutation_importance


def draws(seed: int = 3) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed])))


@pytest.fixture(scope="module")
def tumours() -> tuple[np.ndarray, np.ndarray]:
    """Truth and predicted probability on the odd rows, from a model fitted to the even ones."""
    features, truth = load_breast_cancer(return_X_y=True)
    features = StandardScaler().fit_transform(features)[:, [0, 5, 9]]
    model = LogisticRegression().fit(features[::2], truth[::2])
    return truth[1::2], model.predict_proba(features[1::2])[:, 1]


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    features, truth = load_digits(return_X_y=True)
    model = LogisticRegression(C=0.1).fit(features[::2] / 16, truth[::2])
    return truth[1::2], model.predict_proba(features[1::2] / 16)


@pytest.fixture(scope="module")
def patients() -> tuple[np.ndarray, np.ndarray]:
    features, truth = load_diabetes(return_X_y=True)
    return truth[1::2], LinearRegression().fit(features[::2], truth[::2]).predict(features[1::2])


def test_binary_scores_are_scikit_learns(tumours):
    truth, probability = tumours
    result = evaluate("binary", truth, probability, baseline=0.6, labels=["malignant", "benign"])
    constant = np.full(len(truth), 0.6)
    for scores, predicted in ((result["scores"], probability), (result["baseline"]["scores"], constant)):
        assert scores == pytest.approx(
            {
                "auc": metrics.roc_auc_score(truth, predicted),
                "average_precision": metrics.average_precision_score(truth, predicted),
                "accuracy": metrics.accuracy_score(truth, predicted > 0.5),
                "log_loss": metrics.log_loss(truth, predicted),
                "brier": metrics.brier_score_loss(truth, predicted),
            },
            rel=1e-12,
        )
    assert result["baseline"]["scores"]["auc"] == 0.5
    assert result["baseline"]["scores"]["average_precision"] == pytest.approx(truth.mean())
    assert "'benign' (60.0%)" in result["baseline"]["what"]
    assert result["notes"] == []


def test_class_scores_are_scikit_learns(digits):
    truth, probabilities = digits
    shares = np.linspace(1, 2, 10) / 15
    result = evaluate("classes", truth, probabilities, baseline=shares)
    constant = np.tile(shares, (len(truth), 1))
    for scores, predicted in ((result["scores"], probabilities), (result["baseline"]["scores"], constant)):
        codes = predicted.argmax(axis=1)
        assert scores == pytest.approx(
            {
                "accuracy": metrics.accuracy_score(truth, codes),
                "macro_f1": metrics.f1_score(truth, codes, average="macro", zero_division=0),
                "macro_auc": metrics.roc_auc_score(truth, predicted, multi_class="ovr"),
                "log_loss": metrics.log_loss(truth, predicted),
            },
            rel=1e-12,
        )
    expected = metrics.confusion_matrix(truth, probabilities.argmax(axis=1)).tolist()
    assert result["curves"]["confusion"] == {"labels": [str(digit) for digit in range(10)], "rows": expected}
    assert "'9', 13.3%" in result["baseline"]["what"]


@pytest.mark.parametrize("kind", ["counts", "number"])
def test_number_scores_are_scikit_learns(patients, kind):
    truth, prediction = patients
    result = evaluate(kind, truth, prediction, baseline=150.0)
    constant = np.full(len(truth), 150.0)
    for scores, predicted in ((result["scores"], prediction), (result["baseline"]["scores"], constant)):
        expected = {
            "rmse": metrics.root_mean_squared_error(truth, predicted),
            "mae": metrics.mean_absolute_error(truth, predicted),
            "r2": metrics.r2_score(truth, predicted),
        }
        if kind == "counts":
            expected["poisson_deviance"] = metrics.mean_poisson_deviance(truth, predicted)
        assert scores == pytest.approx(expected, rel=1e-12)


def test_float32_class_probabilities_score_without_a_warning(digits):
    truth, probabilities = digits
    single = evaluate("classes", truth, probabilities.astype(np.float32), baseline=np.full(10, 0.1))
    double = evaluate("classes", truth, probabilities, baseline=np.full(10, 0.1))
    assert single["scores"] == pytest.approx(double["scores"], rel=1e-5)


def test_probabilities_that_almost_sum_to_one_are_made_to():
    probabilities = np.array([[0.25, 0.75], [0.5, 0.5]])
    result = evaluate("classes", [0, 1], probabilities * 1.0005, baseline=[0.5, 0.5])
    assert result["scores"]["log_loss"] == pytest.approx(metrics.log_loss([0, 1], probabilities), rel=1e-12)


def test_certain_and_wrong_costs_what_scikit_learn_says():
    truth, probability = np.array([0, 1, 1]), np.array([1.0, 0.0, 0.5])
    result = evaluate("binary", truth, probability, baseline=0.0)
    assert result["scores"]["log_loss"] == pytest.approx(metrics.log_loss(truth, probability))
    assert np.isfinite(result["baseline"]["scores"]["log_loss"])


def test_curves_keep_their_shape_in_200_points():
    generator = draws()
    truth = (generator.random(50_000) < 0.2).astype(int)
    probability = 1 / (1 + np.exp(-(generator.normal(size=50_000) + 1.2 * truth - 1.5)))
    result = evaluate("binary", truth, probability, baseline=0.2)
    roc, recalled = result["curves"]["roc"], result["curves"]["precision_recall"]
    assert {len(values) for values in roc.values()} <= set(range(100, 201))
    assert {len(values) for values in recalled.values()} <= set(range(100, 201))
    assert (roc["false_positive_rate"][0], roc["true_positive_rate"][0], roc["threshold"][0]) == (0, 0, None)
    assert (roc["false_positive_rate"][-1], roc["true_positive_rate"][-1]) == (1, 1)
    assert (recalled["recall"][0], recalled["precision"][0]) == (1, pytest.approx(truth.mean()))
    assert (recalled["recall"][-1], recalled["precision"][-1], recalled["threshold"][-1]) == (0, 1, None)
    area = np.trapezoid(roc["true_positive_rate"], roc["false_positive_rate"])
    assert area == pytest.approx(result["scores"]["auc"], abs=1e-3)
    # No point of the whole curve is further than this from the thinned one.
    precision, recall, _ = metrics.precision_recall_curve(truth, probability)
    kept = np.interp(recall, recalled["recall"][::-1], recalled["precision"][::-1])
    assert np.abs(kept - precision)[recall > 0.02].max() < 0.02


def test_each_threshold_gives_its_point(tumours):
    truth, probability = tumours
    curves = evaluate("binary", truth, probability, baseline=0.6)["curves"]
    for recall, precision, threshold in list(zip(*curves["precision_recall"].values(), strict=True))[:-1]:
        called = probability >= threshold
        assert (recall, precision) == pytest.approx((called[truth == 1].mean(), truth[called].mean()))
    for false_rate, true_rate, threshold in list(zip(*curves["roc"].values(), strict=True))[1:]:
        called = probability >= threshold
        assert (false_rate, true_rate) == pytest.approx(
            (called[truth == 0].mean(), called[truth == 1].mean())
        )


def test_calibration_is_scikit_learns(tumours):
    truth, probability = tumours
    curve = evaluate("binary", truth, probability, baseline=0.6)["curves"]["calibration"]
    observed, predicted = calibration_curve(truth, probability, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(curve["observed"], observed, rtol=1e-12)
    np.testing.assert_allclose(curve["predicted"], predicted, rtol=1e-12)
    assert sum(curve["rows"]) == len(truth)


def test_one_class_only_leaves_none_and_a_note():
    result = evaluate("binary", [1, 1], [0.9, 0.4], baseline=0.5, labels=["early", "late"])
    assert result["scores"]["auc"] is None
    assert result["scores"]["average_precision"] is None
    assert result["scores"]["accuracy"] == 0.5
    assert "'late'" in result["notes"][0]
    assert set(result["curves"]) == {"calibration", "confusion"}
    result = evaluate("classes", [2, 2], np.full((2, 3), 1 / 3), baseline=np.full(3, 1 / 3), labels="abc")
    assert result["scores"]["macro_auc"] is None
    assert "'c'" in result["notes"][0]
    result = evaluate("number", [4.0, 4.0], [3.0, 5.0], baseline=4.0)
    assert result["scores"] == {"rmse": 1.0, "mae": 1.0, "r2": None}
    assert "one value" in result["notes"][0]


def test_a_class_without_rows_is_left_out_of_the_mean_area():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1]])
    result = evaluate("classes", [0, 1, 1], probabilities, baseline=[0.2, 0.7, 0.1])
    areas = [
        metrics.roc_auc_score([1, 0, 0], probabilities[:, 0]),
        metrics.roc_auc_score([0, 1, 1], probabilities[:, 1]),
    ]
    assert result["scores"]["macro_auc"] == pytest.approx(np.mean(areas))
    assert result["notes"][0].startswith("1 of 3 classes")


def test_many_classes_share_the_last_row_of_the_confusion_matrix():
    truth = np.repeat(np.arange(25), np.arange(1, 26))
    predicted = np.roll(truth, 1)
    result = evaluate("classes", truth, np.eye(25)[predicted], baseline=np.full(25, 0.04))
    confusion = result["curves"]["confusion"]
    assert confusion["labels"] == [*map(str, range(5, 25)), "all others"]
    whole = metrics.confusion_matrix(truth, predicted)
    np.testing.assert_array_equal(np.array(confusion["rows"])[:20, :20], whole[5:, 5:])
    assert np.sum(confusion["rows"]) == len(truth)
    assert "20 most frequent of 25" in result["notes"][0]


def test_counts_predicted_as_zero_have_no_deviance():
    result = evaluate("counts", [0, 2, 3], [0.5, 0.0, -1.0], baseline=1.0)
    assert result["scores"]["poisson_deviance"] is None
    assert result["notes"][0].startswith("2 predictions")


def test_residuals_count_every_row_and_are_not_flattened_by_an_extreme():
    generator = draws()
    truth = generator.normal(size=10_000)
    truth[17] = 1e6
    curve = evaluate("number", truth, np.zeros(10_000), baseline=0.0)["curves"]["residuals"]
    assert len(curve["rows"]) == 60
    assert len(curve["edges"]) == 61
    assert curve["edges"][-1] < 5
    assert curve["below"] + sum(curve["rows"]) + curve["above"] == 10_000
    assert curve["above"] == 50


def test_residuals_too_close_to_divide_share_a_bin():
    curve = evaluate("number", [1e17, 1e17 + 16], [0.0, 0.0], baseline=0.0)["curves"]["residuals"]
    assert curve["rows"] == [2]
    assert curve["edges"][0] < 1e17 < curve["edges"][1]


def test_the_sample_of_rows_is_bounded_and_the_same_each_time():
    truth = np.arange(5000.0)
    curves = [evaluate("number", truth, -truth, baseline=0.0)["curves"] for _ in range(2)]
    sample = curves[0]["predicted_against_true"]["sample"]
    assert len(set(sample["true"])) == 1000
    np.testing.assert_array_equal(sample["predicted"], -np.array(sample["true"]))
    assert curves[0] == curves[1]
    assert len(curves[0]["predicted_against_true"]["predicted"]) == 20


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e200])
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_that_are_not_finite_are_refused(kind, wrong):
    prediction: Any = [[0.5, 0.5], [wrong, 0.5]] if kind == "classes" else [0.5, wrong]
    with pytest.raises(SteepestError, match=r"1 of \d values of the model's predictions"):
        evaluate(kind, [0, 1], prediction, baseline=[0.5, 0.5] if kind == "classes" else 0.5)


@pytest.mark.parametrize(
    ("kind", "truth", "prediction", "baseline", "message"),
    [
        ("sorted", [1], [1], 1, "'sorted'"),
        ("number", [], [], 1, "no rows"),
        ("number", [1, 2], [1], 1, "do not fit 2 rows"),
        ("number", [1, 2], [[1], [2]], 1, "do not fit 2 rows"),
        ("number", [1, np.nan], [1, 2], 1, "1 of 2 values of the target"),
        ("binary", [0, 2], [0.1, 0.2], 0.5, "other values than 0 and 1"),
        ("binary", [0, 1], [0.1, 1.2], 0.5, "between 0 and 1"),
        ("classes", [0, 3], np.full((2, 3), 1 / 3), np.full(3, 1 / 3), "other codes"),
        ("classes", [0, 0.5], np.full((2, 3), 1 / 3), np.full(3, 1 / 3), "other codes"),
        ("classes", [0, 1], np.full((2, 3), 0.3), np.full(3, 1 / 3), "sum to one"),
        ("classes", [0, 1], np.full((2, 3), 1 / 3), np.full(2, 0.5), "each of the 2 classes"),
    ],
)  # fmt: skip
def test_input_that_cannot_be_evaluated_is_refused(kind, truth, prediction, baseline, message):
    with pytest.raises(SteepestError, match=message):
        evaluate(kind, truth, prediction, baseline=baseline)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(KINDS), rows=st.integers(1, 300))
def test_every_result_is_json_without_nan_and_loses_no_row(data, kind, rows):
    generator = draws(data.draw(st.integers(0, 1000)))
    scale = data.draw(st.sampled_from([0.0, 1e-300, 1.0, 1e17, 1e120]))
    if kind == "binary":
        truth, prediction, baseline = generator.integers(0, 2, rows), generator.integers(0, 3, rows) / 2, 0.3
    elif kind == "classes":
        weights = generator.integers(0, 3, (rows, 4)) + scale
        total = weights.sum(axis=1, keepdims=True)
        prediction = np.where(total > 0, weights / np.maximum(total, 1e-300), 0.25)
        truth, baseline = generator.integers(0, 4, rows), np.full(4, 0.25)
    else:
        truth, prediction = scale * generator.poisson(1.0, rows), scale * generator.normal(size=rows)
        baseline = float(scale)
    result = evaluate(kind, truth, prediction, baseline=baseline)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["rows"] == rows
    assert set(result["scores"]) == set(result["baseline"]["scores"]) <= set(SCORE_NAMES)
    curves = result["curves"]
    if "confusion" in curves:
        assert np.sum(curves["confusion"]["rows"]) == rows
    else:
        residuals = curves["residuals"]
        assert residuals["below"] + sum(residuals["rows"]) + residuals["above"] == rows
        assert sum(curves["predicted_against_true"]["rows"]) == rows


def test_permutation_importance_is_scikit_learns():
    features, truth = load_diabetes(return_X_y=True)
    model = LinearRegression().fit(features, truth)

    def loss_of(rows: np.ndarray, positions: np.ndarray) -> float:
        return float(np.mean((model.predict(rows) - truth[positions]) ** 2))

    groups = {f"column_{i}": slice(i, i + 1) for i in range(features.shape[1])}
    ours = permutation_importance(loss_of, features, groups, seed=0, repeats=100)
    theirs = sklearn_importance(
        model, features, truth, scoring="neg_mean_squared_error", n_repeats=100, random_state=0
    )
    values = {entry["name"]: entry["value"] for entry in ours}
    assert [entry["value"] for entry in ours] == sorted(values.values(), reverse=True)
    for i, (mean, spread) in enumerate(zip(theirs.importances_mean, theirs.importances_std, strict=True)):
        assert values[f"column_{i}"] == pytest.approx(mean, abs=6 * spread / 10 * np.sqrt(2))


def test_permutation_importance_shuffles_a_group_together_and_changes_nothing_else():
    features = np.arange(40.0).reshape(20, 2)
    kept = features.copy()
    seen: list[np.ndarray] = []

    def loss_of(rows: np.ndarray, positions: np.ndarray) -> float:
        seen.append(rows.copy())
        assert len(rows) == len(positions) == 12
        assert (np.diff(positions) > 0).all()
        # A group that is shuffled together keeps its columns in step.
        return float(
            np.abs(rows[:, 1] - rows[:, 0] - 1).sum() + np.abs(rows[:, 0] - features[positions, 0]).sum()
        )

    entries = permutation_importance(loss_of, features, {"both": slice(0, 2)}, seed=1, rows=12, repeats=2)
    np.testing.assert_array_equal(features, kept)
    assert len(seen) == 3
    for rows in seen:
        np.testing.assert_array_equal(rows[:, 1] - rows[:, 0], 1)
    assert entries[0]["value"] > 0
    again = permutation_importance(loss_of, features, {"both": slice(0, 2)}, seed=1, rows=12, repeats=2)
    other = permutation_importance(loss_of, features, {"both": slice(0, 2)}, seed=2, rows=12, repeats=2)
    assert entries == again != other


def test_permutation_importance_refuses_what_it_cannot_measure():
    features = np.arange(6.0).reshape(3, 2)
    with pytest.raises(SteepestError, match="'a'"):
        permutation_importance(lambda rows, positions: np.nan, features, {"a": slice(0, 1)}, seed=0)
    with pytest.raises(SteepestError, match="no rows"):
        permutation_importance(lambda rows, positions: 0.0, features[:0], {"a": slice(0, 1)}, seed=0)

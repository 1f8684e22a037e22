"""What a target asks for: its kind, the loss, its codes, and class weights."""

from __future__ import annotations

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.utils.class_weight import compute_class_weight

from steepest.data.summary import summarise
from steepest.descent.losses import LOSSES
from steepest.errors import SteepestError
from steepest.tasks import (
    KIND_LOSSES,
    LOSS_KINDS,
    METRICS,
    Task,
    class_weights,
    encode_target,
    learn_task,
    metric,
    output_bias,
    predictions,
    task_from_json,
    true_values,
)

RANDOM = np.random.default_rng(0)


def learn(values, loss=None, training=None):
    target = pa.chunked_array([values if isinstance(values, pa.Array) else pa.array(values)])
    chosen = target if training is None else target.filter(pa.array(training))
    return learn_task("y", summarise(target), summarise(chosen), loss)


KINDS = {
    "two texts": (["no", "yes"] * 10, "binary", ("no", "yes")),
    "two whole numbers": ([0, 1] * 10, "binary", (0, 1)),
    "two other whole numbers": ([7, -3] * 10, "binary", (-3, 7)),
    "two decimals": ([0.0, 1.0] * 10, "binary", (0, 1)),
    "two real numbers": ([1.5, 2.5] * 10, "binary", (1.5, 2.5)),
    "booleans": ([True, False] * 10, "binary", (False, True)),
    "a dictionary": (pa.array(["b", "a"] * 10).dictionary_encode(), "binary", ("a", "b")),
    "three texts": (["c", "a", "b"] * 10, "classes", ("a", "b", "c")),
    "few whole numbers, often": (list(range(5)) * 10, "classes", (0, 1, 2, 3, 4)),
    "few whole numbers, rarely": (list(range(5)) * 9, "counts", ()),
    "whole numbers as decimals": ([float(i) for i in range(5)] * 10, "classes", (0, 1, 2, 3, 4)),
    "many whole numbers": (list(range(21)) * 20, "counts", ()),
    "many whole numbers below 0": (list(range(-1, 20)) * 20, "number", ()),
    "real numbers": (RANDOM.normal(size=50), "number", ()),
    "real numbers above 0": (RANDOM.random(50), "number", ()),
    "decimals of Arrow": (pa.array(range(50)).cast(pa.decimal128(30, 2)), "counts", ()),
}


@pytest.mark.parametrize(("values", "kind", "labels"), KINDS.values(), ids=KINDS)
def test_the_kind_comes_from_the_values(values, kind, labels):
    task = learn(values)
    assert (task.kind, task.labels, task.loss) == (kind, labels, KIND_LOSSES[kind])
    assert task.outputs == (len(labels) if kind == "classes" else 1)


def test_every_loss_has_a_kind_and_every_kind_a_metric():
    assert set(LOSS_KINDS) == set(LOSSES)
    assert set(KIND_LOSSES) == set(METRICS) == set(LOSS_KINDS.values())
    assert all(LOSS_KINDS[loss] == kind for kind, loss in KIND_LOSSES.items())


@pytest.mark.parametrize(
    ("values", "loss", "kind"),
    [
        ([0, 1] * 10, "mean_squared_error", "number"),
        ([True, False] * 10, "quantile", "number"),
        ([0, 1] * 10, "poisson", "counts"),
        ([0, 1] * 10, "categorical_cross_entropy", "classes"),
        (["a", "b"] * 10, "hinge", "binary"),
        (RANDOM.random(50), "poisson", "counts"),
        (list(range(5)) * 10, "huber", "number"),
    ],
)
def test_a_loss_overrides_the_kind(values, loss, kind):
    task = learn(values, loss)
    assert (task.kind, task.loss) == (kind, loss)
    assert task.why.endswith("as asked")


@pytest.mark.parametrize(
    ("values", "loss", "said"),
    [
        (["a", "b"] * 10, "mean_squared_error", "needs numbers"),
        (["a", "b"] * 10, "poisson", "needs numbers from 0 up"),
        ([True, False] * 10, "poisson", "needs numbers from 0 up"),
        ([-1.0, 2.0, 3.5], "poisson", "needs numbers from 0 up"),
        ([1, 2, 3] * 20, "hinge", "needs two values"),
        (RANDOM.random(50), "binary_cross_entropy", "needs two values"),
        (RANDOM.random(1001), "categorical_cross_entropy", "needs at most 1,000 classes"),
        ([0, 1], "hubber", "Did you mean 'huber'"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(values, loss, said):
    with pytest.raises(SteepestError, match=said):
        learn(values, loss)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["a"] * 5, r"has one value only, 'a', in all 5 rows"),
        ([3.0] * 5, r"has one value only, 3, in all 5 rows"),
        ([f"id{i}" for i in range(30)], r"30 texts in 30 rows, which are hardly classes"),
        (pa.array([1, 2, 3], pa.timestamp("s")), r"holds timestamp values"),
        (pa.array([[1], [2]]), r"holds unsupported values"),
        (np.array([1e300, -1e300, 1e299]), r"too large to compute with"),
        (np.array([1e-300, 2e-300, 4e-300]), r"too small to compute with"),
    ],
)
def test_a_target_that_nothing_can_be_learned_from_is_refused(values, said):
    with pytest.raises(SteepestError, match=said):
        learn(values)


@pytest.mark.parametrize("values", [["a", "a", "b"], [1.5, 1.5, 2.5], [1, 1, 2]])
@pytest.mark.parametrize("loss", [None, "other"])
def test_training_rows_with_one_value_are_refused(values, loss):
    loss = loss and ("hinge" if values[0] == "a" else "mean_squared_error")
    with pytest.raises(SteepestError, match=f"always '?{values[0]}'?; there is nothing to learn"):
        learn(values, loss, np.array([True, True, False]))


def test_classes_come_from_all_rows_but_shares_from_training_rows_alone():
    task = learn(["a", "b", "a", "c"] * 5, training=np.arange(20) % 4 < 3)
    assert task.labels == ("a", "b", "c")
    np.testing.assert_allclose(task.baseline, [2 / 3, 1 / 3, 0])


def test_scale_comes_from_training_rows_alone():
    values, training = RANDOM.normal(5, 3, 100), np.arange(100) < 60
    task = learn(values, training=training)
    assert (task.center, task.deviation) == pytest.approx((values[:60].mean(), values[:60].std()), rel=1e-12)
    encoded = encode_target(task, pa.chunked_array([values]))
    np.testing.assert_allclose(true_values(task, encoded), values, rtol=1e-5)
    assert abs(encoded[:60].mean()) < 1e-6
    assert abs(encoded[:60].std() - 1) < 1e-6


@given(st.lists(st.sampled_from(["x", "y", "ü", ""]), min_size=4, max_size=40))
def test_codes_are_positions_of_the_sorted_labels(values):
    if len(set(values)) < 2 or 2 * len(set(values)) > len(values):
        return
    task = learn(values)
    labels, expected = np.unique(values, return_inverse=True)
    assert task.labels == tuple(labels)
    assert encode_target(task, pa.chunked_array([values])).tolist() == expected.tolist()


@pytest.mark.parametrize("values", [[0, 1], [0.0, 1.0], [False, True]])
@pytest.mark.parametrize("learned", [[0, 1], [0.0, 1.0], [False, True]])
def test_booleans_and_0_and_1_are_the_same_classes(learned, values):
    task = learn(learned * 10)
    assert encode_target(task, pa.chunked_array([values])).tolist() == [0.0, 1.0]


def test_an_unseen_label_is_named_with_its_place():
    task = learn(["no", "yes"] * 10)
    with pytest.raises(SteepestError, match=r"'maybe' \(line 3\), which is none of the classes .* no, yes"):
        encode_target(task, pa.chunked_array([["no", "maybe"]]), lambda row: f"line {row + 2}")


@pytest.mark.parametrize(("learned", "values"), [(["a", "b"] * 9, [1, 2]), ([1, 2] * 9, ["a", "b"])])
def test_labels_of_another_type_are_refused(learned, values):
    with pytest.raises(SteepestError, match="the run's classes are"):
        encode_target(learn(learned), pa.chunked_array([values]))


def test_text_for_a_number_is_refused():
    with pytest.raises(SteepestError, match="was trained on numbers"):
        encode_target(learn(RANDOM.normal(size=9)), pa.chunked_array([["a"]]))


@pytest.mark.parametrize(
    "values",
    [["a", "b", "b"], ["a", "b", "c", "a"] * 5, list(range(30)) * 2, RANDOM.normal(3, 2, 50)],
    ids=["binary", "classes", "counts", "number"],
)
def test_the_bias_starts_at_the_baseline(values):
    task = learn(values)
    outputs = np.broadcast_to(output_bias(task), (4, task.outputs) if task.kind == "classes" else (4,))
    expected = task.baseline[1] if task.kind == "binary" else task.baseline
    np.testing.assert_allclose(
        predictions(task, outputs), np.broadcast_to(expected, outputs.shape), rtol=1e-5
    )


def test_predictions_are_the_links_of_the_outputs():
    outputs = RANDOM.normal(size=(6, 3)) * 5
    binary = learn(["a", "b"] * 9)
    np.testing.assert_allclose(predictions(binary, outputs[:, 0]), expit(outputs[:, 0]), rtol=1e-5)
    classes = learn(["a", "b", "c"] * 9)
    np.testing.assert_allclose(predictions(classes, outputs), softmax(outputs, axis=1), rtol=1e-5)
    np.testing.assert_allclose(predictions(classes, outputs).sum(axis=1), 1, rtol=1e-12)
    counts = learn(list(range(30)))
    np.testing.assert_allclose(predictions(counts, outputs[:, 0]), np.exp(outputs[:, 0]), rtol=1e-5)
    number = learn(RANDOM.normal(5, 3, 50))
    np.testing.assert_allclose(
        predictions(number, outputs[:, 0]), outputs[:, 0] * number.deviation + number.center, rtol=1e-5
    )


def test_the_metric_is_accuracy_or_the_error_in_the_targets_unit():
    binary, number = learn(["a", "b"] * 9), learn(RANDOM.normal(5, 3, 50))
    outputs, codes = jnp.array([-1.0, 2.0, 3.0]), jnp.array([0.0, 1.0, 0.0])
    assert metric(binary, outputs, codes).tolist() == [1, 1, 0]
    classes = learn(["a", "b", "c"] * 9)
    assert metric(classes, jnp.eye(3), jnp.array([0, 1, 1])).tolist() == [1, 1, 0]
    np.testing.assert_allclose(
        metric(number, outputs, codes), np.array([1, 1, 3]) * number.deviation, rtol=1e-5
    )
    counts = learn(list(range(30)))
    np.testing.assert_allclose(metric(counts, outputs, codes), abs(np.exp(outputs) - codes), rtol=1e-5)


def test_balanced_class_weights_are_those_of_scikit_learn():
    values = np.array(["a"] * 5 + ["b"] * 3 + ["c"] * 12)
    expected = compute_class_weight("balanced", classes=np.unique(values), y=values)
    np.testing.assert_allclose(class_weights(learn(values), "balanced"), expected, rtol=1e-12)


def test_explicit_class_weights():
    task = learn([1, 2, 3] * 10)
    assert class_weights(task, None) is None
    assert class_weights(task, "3=0.5,1=4").tolist() == [4, 1, 0.5]
    assert class_weights(learn(["a=b", "c"] * 9), "a=b=2").tolist() == [2, 1]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("d=1", "names 'd', which is no class"),
        ("yess=1", "Did you mean 'yes'"),
        ("yes", "gives no class a weight. Write balanced"),
        ("", "gives no class a weight"),
        ("yes=two", "gives 'yes' the weight 'two'; weights lie between 0 and"),
        ("yes=-1", "the weight '-1'"),
        ("yes=nan", "the weight 'nan'"),
        ("yes=inf", "the weight 'inf'"),
        ("yes=0,no=0", "gives every class the weight 0"),
    ],
)
def test_wrong_class_weights_are_refused(wanted, said):
    with pytest.raises(SteepestError, match=said):
        class_weights(learn(["yes", "no"] * 9), wanted)


def test_class_weights_need_classes():
    with pytest.raises(SteepestError, match="needs a target with classes; 'y' is a number"):
        class_weights(learn(RANDOM.normal(size=9)), "balanced")


@pytest.mark.parametrize(("values", "kind", "labels"), KINDS.values(), ids=KINDS)
def test_a_task_survives_json(values, kind, labels):
    task = learn(values)
    read = task_from_json(json.loads(json.dumps(dataclasses.asdict(task))))
    assert read == task
    assert [type(label) for label in read.labels] == [type(label) for label in task.labels]
    assert isinstance(read, Task)

"""Descents that look up rows of tables, against the same descents with dense gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import random_array

import steepest
from campaigns import among
from interruptions import StopsAfter
from steepest.data.pairs import bucket
from steepest.descent.loop import Interrupted
from steepest.descent.models import rows_of
from steepest.errors import SteepestError

ROWS, WIDTH = 500, 60


def sparse_and_dense(seed=0):
    """Return a sparse table, one word that no row has among the others, and labels."""
    matrix = random_array((ROWS, WIDTH), density=0.08, rng=seed, format="csr", dtype=np.float32)
    true = np.random.default_rng(seed).normal(size=WIDTH)
    return matrix, (matrix @ true > 0).astype(np.float32)


MATRIX, LABELS = sparse_and_dense()

START = {"weights": np.zeros(WIDTH, np.float32), "bias": np.float32(0)}


def cross_entropy(outputs, target):
    return jnp.logaddexp(0, outputs) - target * outputs


def looked_up(parameters, batch):
    words = batch["words"]
    products = (rows_of(parameters["weights"], words.places) * words.values).sum(axis=-1)
    outputs = jax.ops.segment_sum(products, words.owners, num_segments=len(batch["target"]))
    return cross_entropy(outputs + parameters["bias"], batch["target"])


def dense(parameters, batch):
    return cross_entropy(batch["words"] @ parameters["weights"] + parameters["bias"], batch["target"])


DATA = {"words": MATRIX, "target": LABELS}


def both(optimizer, **options):
    """Return the results with lookups and without."""
    asked = {"optimizer": optimizer, "epochs": 4, "batch_size": 16, "tolerance": 0, **options}
    asked |= {"validation_data": DATA}
    return (
        steepest.minimize(looked_up, START, DATA, lookups={"words": "weights"}, **asked),
        steepest.minimize(dense, START, DATA, **asked),
    )


def furthest(one, other):
    return float(np.abs(np.asarray(one.parameters["weights"]) - other.parameters["weights"]).max())


@pytest.mark.parametrize(
    "optimizer",
    [
        steepest.SGD(0.5),
        steepest.SGD(0.5, clip_norm=0.05),
        pytest.param(steepest.SGD(0.1, momentum=0.9), marks=pytest.mark.slow),
        steepest.SGD(0.1, momentum=0.9, nesterov=True),
        steepest.AdaGrad(0.5),
        pytest.param(steepest.RMSProp(0.01), marks=pytest.mark.slow),
    ],
    ids=lambda rule: rule.name + ("" if rule.clip_norm is None else " clipped"),
)
def test_the_lazy_rule_is_the_dense_rule(optimizer):
    lazy, whole = both(optimizer)
    assert furthest(lazy, whole) < 1e-6
    np.testing.assert_allclose(lazy.history["loss"], whole.history["loss"], atol=1e-6)
    np.testing.assert_allclose(lazy.history["gradient_norm"], whole.history["gradient_norm"], atol=1e-6)
    np.testing.assert_allclose(lazy.epochs["validation_loss"], whole.epochs["validation_loss"], atol=1e-6)


@pytest.mark.parametrize("kind", among(["float64", "float32"], "float64"))
def test_tables_keep_their_type(kind):
    with jax.enable_x64(kind == "float64"):
        start = {**START, "weights": jnp.zeros(WIDTH, kind)}
        asked = {"optimizer": steepest.Adam(0.01), "epochs": 2, "batch_size": "all", "tolerance": 0}
        lazy = steepest.minimize(looked_up, start, DATA, lookups={"words": "weights"}, **asked)
        whole = steepest.minimize(dense, start, DATA, **asked)
        found, wanted = (np.asarray(each.parameters["weights"], float) for each in (lazy, whole))
    assert lazy.parameters["weights"].dtype == kind
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


BOTH = {"l1": 0.003, "l2": 0.01}


@pytest.mark.parametrize("penalty", among([{"l2": 0.01}, {"l1": 0.003}, BOTH], BOTH))
def test_penalties_are_caught_up_with(penalty):
    lazy, whole = both(steepest.SGD(0.5), **penalty)
    assert furthest(lazy, whole) < 2e-3 * np.abs(whole.parameters["weights"]).max()
    np.testing.assert_allclose(lazy.epochs["validation_loss"], whole.epochs["validation_loss"], rtol=1e-4)
    assert furthest(lazy, both(steepest.SGD(0.5))[0]) > 0.05, "without it, weights would be others"


@pytest.mark.parametrize(
    ("optimizer", "options", "share"),
    [
        (steepest.Adam(0.01), {}, 0.01),
        pytest.param(steepest.AdamW(0.01, weight_decay=0.1), {}, 0.01, marks=pytest.mark.slow),
        pytest.param(steepest.AdaGrad(0.5), {"l2": 0.001}, 0.01, marks=pytest.mark.slow),
        (steepest.SGD(steepest.schedules.cosine(0.3, steps=128), momentum=0.9), {}, 0.01),
    ],
    ids=["adam", "adamw", "adagrad with l2", "momentum with a schedule"],
)
def test_lazy_forms_are_near_the_dense_rule(optimizer, options, share):
    lazy, whole = both(optimizer, **options)
    assert furthest(lazy, whole) < share * np.abs(whole.parameters["weights"]).max()


def test_only_the_rows_of_a_batch_are_touched():
    start = START | {"weights": np.ones(WIDTH, np.float32)}
    one = {name: rows[:1] for name, rows in DATA.items()}
    result = steepest.minimize(
        looked_up, start, one, lookups={"words": "weights"}, optimizer="adam", batch_size=1, epochs=2
    )
    moved = np.flatnonzero(np.asarray(result.parameters["weights"]) != 1)
    assert moved.tolist() == sorted(MATRIX[[0]].indices.tolist())


def test_a_penalised_step_counts_the_rows_of_its_batch_once_each():
    start = START | {"weights": np.linspace(0.5, 1, WIDTH, dtype=np.float32)}
    few = {name: rows[:6] for name, rows in DATA.items()}
    words = np.unique(few["words"].indices)
    assert len(words) < bucket(len(words)), "there is padding"
    asked = {"batch_size": 6, "epochs": 1, "tolerance": 0, "l2": 0.1}
    result = steepest.minimize(looked_up, start, few, lookups={"words": "weights"}, **asked)
    loss, gradient = jax.value_and_grad(
        lambda each: dense(each, few | {"words": MATRIX[:6].toarray()}).mean()
    )(start)
    theta = start["weights"][words]
    of_words = np.asarray(gradient["weights"])[words] + 0.2 * theta
    norm = np.sqrt(np.square(of_words).sum() + float(gradient["bias"]) ** 2)
    np.testing.assert_allclose(result.history["loss"][0], loss + 0.1 * np.square(theta).sum(), rtol=1e-5)
    np.testing.assert_allclose(result.history["gradient_norm"][0], norm, rtol=1e-5)


def embedded(parameters, batch):
    """Look up two places a row, of one table; a place beyond it stands for none."""
    found = rows_of(parameters["table"], batch["places"])
    return (found.sum(axis=(1, 2)) + parameters["bias"] - batch["target"]) ** 2


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_places_in_columns_and_places_that_are_none(optimizer):
    draw = np.random.default_rng(1)
    places = draw.integers(0, 25, size=(200, 2)).astype(np.int32)  # 20 to 24 are none
    data = {"places": places, "target": draw.normal(size=200).astype(np.float32)}
    start = {"table": draw.normal(size=(20, 3)).astype(np.float32), "bias": np.float32(0)}
    asked = {"optimizer": optimizer, "epochs": 3, "batch_size": 8, "tolerance": 0}
    lazy = steepest.minimize(embedded, start, data, lookups={"places": "table"}, **asked)
    whole = steepest.minimize(embedded, start, data, **asked)
    np.testing.assert_allclose(lazy.parameters["table"], whole.parameters["table"], atol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "share"),
    [
        pytest.param(steepest.Adam(0.05, beta_1=0.5, beta_2=0.8), 1e-4, marks=pytest.mark.slow),
        (steepest.AdamW(0.05, beta_1=0.5, beta_2=0.8, weight_decay=0.5), 0.01),
    ],
    ids=["adam", "adamw"],
)
def test_adam_goes_on_with_a_row_that_rests(optimizer, share):
    places = np.array([0, 1] * 20 + [1] * 5 + [0] * 3)[:, None]  # the first 40 let corrections fade
    data = {"places": places, "target": np.random.default_rng(4).normal(3, 1, 48).astype(np.float32)}
    start = {"table": np.ones((2, 3), np.float32), "bias": np.float32(0)}
    asked = {"optimizer": optimizer, "batch_size": 1, "epochs": 1, "tolerance": 0, "shuffle": False}
    lazy = steepest.minimize(embedded, start, data, lookups={"places": "table"}, **asked)
    whole = steepest.minimize(embedded, start, data, **asked)
    np.testing.assert_allclose(lazy.parameters["table"], whole.parameters["table"], rtol=share)


def test_two_data_look_up_one_table():
    def objective(parameters, batch):
        found = sum(rows_of(parameters["table"], batch[name]).sum(axis=1) for name in ("first", "second"))
        return (found + parameters["bias"] - batch["target"]) ** 2

    draw = np.random.default_rng(2)
    data = {name: draw.integers(0, 9, size=(64, 2)) for name in ("first", "second")}
    data["target"] = draw.normal(size=64).astype(np.float32)
    start = {"table": np.zeros(9, np.float32), "bias": np.float32(0)}
    asked = {"optimizer": steepest.AdaGrad(0.1), "batch_size": 8, "tolerance": 0}
    lookups = dict.fromkeys(("first", "second"), "table")
    lazy = steepest.minimize(objective, start, data, lookups=lookups, **asked)
    whole = steepest.minimize(objective, start, data, **asked)
    np.testing.assert_allclose(lazy.parameters["table"], whole.parameters["table"], atol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "l2", "tolerance"),
    [
        (steepest.SGD(0.02, momentum=0.9), 0.0, 1e-5),
        (steepest.SGD(0.05), {"wide": 0.05, "deep": 0.01, "bias": 0.0}, 2e-3),
    ],
    ids=["momentum", "a penalty for each"],
)
def test_several_tables_of_several_shapes(optimizer, l2, tolerance):
    def objective(parameters, batch):
        wide = rows_of(parameters["wide"], batch["first"]).sum(axis=1)
        deep = rows_of(parameters["deep"], batch["second"]).sum(axis=(1, 2))
        return (wide + deep + parameters["bias"] - batch["target"]) ** 2

    draw = np.random.default_rng(3)
    data = {"first": draw.integers(0, 40, (96, 2)), "second": draw.integers(0, 15, (96, 1))}
    data["target"] = draw.normal(size=96).astype(np.float32)
    start = {
        "wide": draw.normal(size=40).astype(np.float32),
        "deep": draw.normal(size=(15, 3)).astype(np.float32),
        "bias": np.float32(0),
    }
    asked = {"optimizer": optimizer, "l2": l2, "batch_size": 4, "epochs": 2, "tolerance": 0}
    lookups = {"first": "wide", "second": "deep"}
    lazy = steepest.minimize(objective, start, data, lookups=lookups, **asked)
    whole = steepest.minimize(objective, start, data, **asked)
    for name in start:
        np.testing.assert_allclose(lazy.parameters[name], whole.parameters[name], atol=tolerance)
    assert np.abs(lazy.parameters["wide"] - start["wide"]).max() > 0.1


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_penalties_move_rows_that_no_step_looked_up_no_further_than_the_rule_would(penalty):
    start = START | {"weights": np.ones(WIDTH, np.float32)}
    few = {name: rows[:16] for name, rows in DATA.items()}
    absent = np.setdiff1d(np.arange(WIDTH), MATRIX[:16].indices)
    rule = steepest.AdaGrad(0.01, initial_accumulator=1e-4, epsilon=1e-14)
    asked = {"lookups": {"words": "weights"}, "optimizer": rule, "batch_size": 2, "tolerance": 0}
    result = steepest.minimize(looked_up, start, few, epochs=1, **{penalty: 0.01}, **asked)
    moved = 1 - np.asarray(result.parameters["weights"])[absent]
    steps = len(result.history)
    assert len(absent) > 5
    assert steps == 8
    assert (moved > 0).all()
    assert (moved <= steps * 0.01 * 1.001).all(), "the rule's steps are at most as long as its rate"


@pytest.mark.parametrize("windows", among([1, 2, 3], 1))
@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
def test_an_interrupted_descent_goes_on_to_the_byte(optimizer, windows, tmp_path, monkeypatch):
    monkeypatch.setattr("steepest.data.blocks.WINDOW_BYTES", 2**12)
    asked = {"optimizer": optimizer, "epochs": 2, "batch_size": 16, "tolerance": 0}
    asked["lookups"] = {"words": "weights"}
    through = steepest.minimize(looked_up, START, DATA, **asked)
    kept = {"checkpoint": tmp_path, "checkpoint_every": 1e9}
    with pytest.raises(Interrupted):
        steepest.minimize(
            looked_up, START, DATA, callbacks=[StopsAfter(windows, Interrupted)], **asked, **kept
        )
    assert list(tmp_path.glob("checkpoint-*")), "where it stood is kept"
    again = steepest.minimize(looked_up, START, DATA, **asked, **kept)
    for name, values in through.parameters.items():
        np.testing.assert_array_equal(again.parameters[name], values)
    np.testing.assert_array_equal(again.history["loss"], through.history["loss"])


def test_other_sparse_data_do_not_go_on(tmp_path):
    asked = {"batch_size": 16, "epochs": 2, "lookups": {"words": "weights"}, "checkpoint": tmp_path}
    with pytest.raises(Interrupted):
        steepest.minimize(looked_up, START, DATA, callbacks=[StopsAfter(1, Interrupted)], **asked)
    with pytest.raises(SteepestError, match="of another descent"):
        steepest.minimize(looked_up, START, DATA | {"words": 2 * MATRIX}, **asked)


def test_patience_keeps_the_best_epoch():
    held = {name: rows[:50] for name, rows in DATA.items()}
    asked = {
        "lookups": {"words": "weights"},
        "optimizer": steepest.SGD(20.0),
        "batch_size": 8,
        "tolerance": 0,
    }
    result = steepest.minimize(looked_up, START, DATA, validation_data=held, patience=2, epochs=30, **asked)
    best = result.best_epoch
    assert best < len(result.epochs)
    short = steepest.minimize(looked_up, START, DATA, epochs=best, **asked)
    np.testing.assert_array_equal(result.parameters["weights"], short.parameters["weights"])


def test_a_step_that_is_not_finite_is_found():
    data = DATA | {"target": np.where(np.arange(ROWS) == 77, np.nan, LABELS).astype(np.float32)}
    result = steepest.minimize(
        looked_up, START, data, lookups={"words": "weights"}, optimizer="adam", batch_size=16, epochs=1
    )
    assert result.failure.cause.rows.tolist() == [77]
    assert np.isfinite(result.parameters["weights"]).all()
    assert result.failure.step == len(result.history)


def test_weights_of_zero_move_nothing():
    weights = np.where(np.arange(ROWS) < 100, 1.0, 0.0)
    asked = {"optimizer": "adagrad", "batch_size": 4, "epochs": 2, "tolerance": 0, "weights": weights}
    lazy = steepest.minimize(looked_up, START, DATA, lookups={"words": "weights"}, **asked)
    whole = steepest.minimize(dense, START, DATA, **asked)
    assert furthest(lazy, whole) < 1e-6
    assert len(lazy.history) == len(whole.history)


@pytest.mark.parametrize(
    ("lookups", "options", "says"),
    [
        ({"wrds": "weights"}, {}, "data have no 'wrds'"),
        ({"words": "weigths"}, {}, "parameters have no 'weigths'"),
        ({"words": "bias"}, {}, "is no table"),
        ({"target": "weights"}, {}, "have no places"),
        ({"words": "weights"}, {"optimizer": "lbfgs", "batch_size": "all"}, "no lazy form"),
        ({"words": "weights"}, {"on_divergence": "back-off"}, "no back-off"),
        ({"words": "weights"}, {"l2": START | {"weights": np.arange(WIDTH) / 9.0}}, "same penalty"),
    ],
)
def test_what_can_not_be_looked_up(lookups, options, says):
    with pytest.raises(SteepestError, match=says):
        steepest.minimize(looked_up, START, DATA, lookups=lookups, **options)


def test_the_learning_rate_is_found():
    rule = steepest.AdaGrad()
    asked = {"optimizer": rule, "batch_size": 16, "epochs": 20, "lookups": {"words": "weights"}}
    search = steepest.find_learning_rate(looked_up, START, DATA, **asked)
    assert search.choice is not None
    again = steepest.find_learning_rate(looked_up, START, DATA, **asked)
    assert search == again

    def reached(rate):
        found = steepest.minimize(
            looked_up, START, DATA, **{**asked, "optimizer": steepest.AdaGrad(rate)}, validation_data=DATA
        )
        return found.epochs["validation_loss"].iloc[-1]

    assert reached(search.choice) < min(reached(search.choice / 100), reached(search.choice * 1000))

"""Descents that look up rows of tables, against the same descents with dense gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import random_array

import steepest
from interruptions import StopsAfter
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
        steepest.SGD(0.1, momentum=0.9),
        steepest.SGD(0.1, momentum=0.9, nesterov=True),
        steepest.AdaGrad(0.5),
        steepest.RMSProp(0.01),
    ],
    ids=lambda rule: rule.name + ("" if rule.clip_norm is None else " clipped"),
)
def test_the_lazy_rule_is_the_dense_rule(optimizer):
    lazy, whole = both(optimizer)
    assert furthest(lazy, whole) < 1e-6
    np.testing.assert_allclose(lazy.history["loss"], whole.history["loss"], atol=1e-6)
    np.testing.assert_allclose(lazy.history["gradient_norm"], whole.history["gradient_norm"], atol=1e-6)
    np.testing.assert_allclose(lazy.epochs["validation_loss"], whole.epochs["validation_loss"], atol=1e-6)


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_tables_keep_their_type(kind):
    with jax.enable_x64(kind == "float64"):
        start = {**START, "weights": jnp.zeros(WIDTH, kind)}
        asked = {"optimizer": steepest.Adam(0.01), "epochs": 2, "batch_size": "all", "tolerance": 0}
        lazy = steepest.minimize(looked_up, start, DATA, lookups={"words": "weights"}, **asked)
        whole = steepest.minimize(dense, start, DATA, **asked)
        found, wanted = (np.asarray(each.parameters["weights"], float) for each in (lazy, whole))
    assert lazy.parameters["weights"].dtype == kind
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("penalty", [{"l2": 0.01}, {"l1": 0.003}, {"l1": 0.003, "l2": 0.01}])
def test_penalties_are_caught_up_with(penalty):
    lazy, whole = both(steepest.SGD(0.5), **penalty)
    assert furthest(lazy, whole) < 2e-3 * np.abs(whole.parameters["weights"]).max()
    np.testing.assert_allclose(lazy.epochs["validation_loss"], whole.epochs["validation_loss"], rtol=1e-4)
    assert furthest(lazy, both(steepest.SGD(0.5))[0]) > 0.05, "without it, weights would be others"


@pytest.mark.parametrize(
    ("optimizer", "options", "share"),
    [
        (steepest.Adam(0.01), {}, 0.01),
        (steepest.AdamW(0.01, weight_decay=0.1), {}, 0.01),
        (steepest.AdaGrad(0.5), {"l2": 0.001}, 0.01),
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


@pytest.mark.parametrize("windows", [1, 2, 3])
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

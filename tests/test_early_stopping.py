"""Early stopping: Keras' own callback is the judge of which epoch is kept and when the descent stops."""

from __future__ import annotations

import math
from types import SimpleNamespace

import jax.numpy as jnp
import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from expecting import fails
from steepest import SGD, minimize, schedules
from steepest.data import blocks
from steepest.descent.stopping import Best, Patience

ROWS = np.zeros(2, np.float32)


def count(position, rows):
    """Each step adds one to the position: after epoch e of two batches it is 2 e."""
    return -position + 0 * rows


class Table:
    """A metric whose value after epoch e is the table's e-th; equal tables are equal metrics."""

    def __init__(self, values) -> None:
        self.values = np.asarray(values, np.float32)

    def __call__(self, position, rows):
        return jnp.asarray(self.values)[position.astype(int) // 2 - 1] + 0 * rows


def descend(values, name="figure", **more):
    given = {"optimizer": SGD(1.0), "batch_size": 1, "epochs": len(values), "tolerance": 0, **more}
    return minimize(
        count,
        0.0,
        ROWS,
        validation_data=ROWS,
        metrics={name: Table(values)},
        monitor=f"validation_{name}",
        **given,
    )


def keras_stops(values, patience, mode):
    """Return the epochs that Keras runs, and the one whose weights it restores."""
    kept = []
    model = SimpleNamespace(stop_training=False, set_weights=kept.append)
    stopping = keras.callbacks.EarlyStopping("figure", 0, patience, 0, mode, restore_best_weights=True)
    stopping.set_model(model)
    stopping.on_train_begin()
    epoch = 0
    for epoch, value in enumerate(values):
        model.get_weights = lambda epoch=epoch: epoch + 1
        stopping.on_epoch_end(epoch, {"figure": float(value)})
        if model.stop_training:
            break
    stopping.on_train_end()
    return epoch + 1, kept[0]


FIGURES = st.lists(
    st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, math.inf, -math.inf, math.nan]), min_size=1, max_size=9
)


@settings(deadline=None)
@given(FIGURES, st.integers(1, 4), st.booleans())
@example([1.0, math.nan, 0.5], 1, False)
def test_the_rule_is_that_of_keras(values, patience, rises) -> None:
    if math.isnan(values[0]):
        values = [1.0, *values]  # to Keras a NaN in the first epoch is the best for ever
    rule, best, epoch = Patience(patience, "accuracy" if rises else "loss"), Best(), 0
    for epoch, value in enumerate(values, 1):
        best = rule.judge(best, {"epoch": epoch, rule.monitor: value}, epoch)
        if rule.exhausted(best):
            break
    assert (epoch, best.parameters) == keras_stops(values, patience, "max" if rises else "min")
    assert best.epoch == best.parameters


@pytest.mark.parametrize("window_bytes", [1, 2**25])
@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("name", ["figure", "accuracy"])
def test_a_descent_stops_where_keras_does(name, patience, window_bytes, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "WINDOW_BYTES", window_bytes)
    values = [3.0, 2.0, 2.0, 2.5, 1.5, math.nan, 4.0, 1.5, 5.0]
    epochs, best = keras_stops(values, patience, "max" if name == "accuracy" else "min")
    result = descend(values, name, patience=patience)
    assert len(result.epochs) == epochs
    assert result.best_epoch == best
    assert float(result.parameters) == 2 * best
    assert result.steps == len(result.history) == 2 * epochs
    np.testing.assert_array_equal(result.epochs[f"validation_{name}"], values[:epochs])


def test_what_it_says() -> None:
    result = descend([3.0, 1.0, 2.0, 2.0, 0.0], patience=2)
    assert result.why_it_stopped == (
        "stopped at epoch 4: validation_figure was lowest, 1, at epoch 2, and has not improved in 2 epochs; "
        "the weights of epoch 2 are kept"
    )
    assert not result.converged
    result = descend([0.5, 0.25, 0.75], "accuracy", patience=1)
    assert result.why_it_stopped == (
        "stopped at epoch 2: validation_accuracy was highest, 0.5, at epoch 1, and has not improved in "
        "1 epoch; the weights of epoch 1 are kept"
    )


def test_the_best_epoch_is_kept_at_the_last_epoch() -> None:
    result = descend([3.0, 1.0, 2.0], patience=9)
    assert (float(result.parameters), result.best_epoch, result.steps) == (4.0, 2, 6)
    assert result.why_it_stopped == (
        "the last epoch (3) was reached; validation_figure was lowest, 1, at epoch 2; "
        "the weights of epoch 2 are kept"
    )
    result = descend([3.0, 2.0, 1.0], patience=9)
    assert result.why_it_stopped == "the last epoch (3) was reached"
    assert float(result.parameters) == 6.0


def test_the_best_epoch_is_kept_when_the_loss_converges() -> None:
    result = minimize(
        lambda p, rows: 1e9 - p + 0 * rows,
        0.0,
        ROWS,
        optimizer=SGD(1.0),
        batch_size=1,
        epochs=20,
        validation_data=ROWS,
        metrics={"figure": Table([3.0, 1.0, *[2.0] * 20])},
        patience=9,
        monitor="validation_figure",
    )
    assert "converged at epoch 6" in result.why_it_stopped
    assert (float(result.parameters), result.best_epoch) == (4.0, 2)


def test_after_a_failure_the_last_good_parameters_are_kept() -> None:
    result = minimize(
        lambda p, rows: jnp.where(p < 5, -p, jnp.nan) + 0 * rows,
        0.0,
        ROWS,
        optimizer=SGD(1.0),
        batch_size=1,
        epochs=9,
        validation_data=ROWS,
        metrics={"figure": Table([1.0, 2.0, 3.0])},
        patience=9,
        monitor="validation_figure",
    )
    assert result.failure.step == 6
    assert (float(result.parameters), result.best_epoch) == (5.0, 1)


def test_figures_that_are_never_numbers() -> None:
    result = descend([math.nan] * 5, patience=2)
    assert (len(result.epochs), result.best_epoch) == (3, 1)
    assert "validation_figure was never a number" in result.why_it_stopped


def test_any_number_is_better_than_none() -> None:
    result = descend([math.nan, 3.0, 4.0, 5.0], patience=2)
    assert (len(result.epochs), result.best_epoch) == (4, 2)


def test_without_patience_there_is_no_best_epoch() -> None:
    assert descend([1.0, 2.0]).best_epoch is None


def test_the_training_loss_can_be_watched() -> None:
    uphill = SGD(schedules.custom(lambda steps: -1.0))
    result = minimize(
        count, 0.0, ROWS, optimizer=uphill, batch_size=1, patience=2, monitor="loss", tolerance=0
    )
    assert (len(result.epochs), result.best_epoch, float(result.parameters)) == (3, 1, -2.0)


RISING = ["accuracy", "top_accuracy", "auc", "f1", "r2", "precision", "average_precision", "recall"]


@pytest.mark.parametrize("name", [*RISING, "loss", "mean_absolute_error", "error"])
def test_which_figures_rise(name) -> None:
    assert Patience(1, f"validation_{name}").rises == (name in RISING)


def test_what_is_refused() -> None:
    for patience in (0, -1, 1.5, True):
        with pytest.raises(Exception, match=f"whole number of epochs from 1; patience={patience}"):
            descend([1.0], patience=patience)
    with fails("No epoch has a figure 'validation_los'", "Did you mean 'validation_loss'?"):
        minimize(count, 0.0, ROWS, validation_data=ROWS, patience=1, monitor="validation_los")
    with fails("No epoch has a figure 'validation_loss'", "'loss'"):
        minimize(count, 0.0, ROWS, patience=1)
    with pytest.raises(Exception, match="patience is of no use without data"):
        minimize(lambda p: p**2, 0.0, patience=1, monitor="loss")


@pytest.mark.parametrize("rows", [9, 60])
def test_validation_in_windows_is_validation_in_one(rows) -> None:
    """Streamed at each epoch: the weighted means of NumPy, and those of one window."""
    draws = np.random.default_rng(rows)
    values, weights = draws.normal(size=rows), draws.integers(1, 4, rows)
    weights[4:8] = 0  # the second window has no weight
    settings = {
        "validation_data": values,
        "validation_weights": weights,
        "l2": 0.5,
        "epochs": 2,
        "batch_size": 2,
    }

    def run():
        return minimize(
            lambda p, b: (b - p) ** 2, 1.0, np.arange(4.0), metrics={"m": lambda p, b: abs(b - p)}, **settings
        ).epochs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steepest.feeding.VALIDATION_ROWS", 2)
        one = run()
        patch.setattr(blocks, "WINDOW_BYTES", 2 * 2 * 4)
        assert len(blocks.Blocks((values.astype(np.float32),), weights, 2).shapes()) > 2
        several = run()
    np.testing.assert_allclose(several.validation_loss, one.validation_loss, rtol=1e-5)
    np.testing.assert_allclose(several.validation_m, one.validation_m, rtol=1e-5)
    position = minimize(lambda p, b: (b - p) ** 2, 1.0, np.arange(4.0), **settings).parameters
    loss = np.average((values - float(position)) ** 2, weights=weights) + 0.5 * float(position) ** 2
    assert several.validation_loss.iloc[-1] == pytest.approx(loss, rel=1e-5)

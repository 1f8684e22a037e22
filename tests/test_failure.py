"""The post-mortem of a step that was not finite, and what is looked at on the way."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import steepest
from interruptions import StopsAfter
from steepest.descent.watching import EVERY

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
START = {"first": {"weights": jnp.ones(3)}, "second": {"scale": jnp.ones(())}}


def prediction(parameters, x):
    return (x @ parameters["first"]["weights"]) * parameters["second"]["scale"]


def squared(parameters, batch):
    return (prediction(parameters, batch) - 1) ** 2


def failing(objective, data, rate=0.01, batch_size=8, **more):
    result = steepest.minimize(
        objective, START, data, optimizer=steepest.SGD(rate), batch_size=batch_size, epochs=9, **more
    )
    assert result.failure is not None
    return result.failure


def test_a_row_that_holds_no_number_is_named() -> None:
    data = X.copy()
    data[17, 1] = np.nan
    failure = failing(squared, data)
    assert failure.cause.what == "loss"
    assert failure.cause.rows.tolist() == [17]
    assert np.isnan(failure.cause.losses).all()
    assert 17 in failure.rows


def test_a_row_without_a_gradient_is_named() -> None:
    data = X.copy()
    data[23] = 0.0

    def objective(parameters, batch):
        return jnp.sqrt(jnp.abs(prediction(parameters, batch)))

    failure = failing(objective, data)
    assert failure.cause.what == "gradient"
    assert failure.cause.rows.tolist() == [23]
    assert failure.cause.losses.tolist() == [0.0]


def test_the_layer_whose_gradient_is_not_finite_is_named() -> None:
    def objective(parameters, batch):
        scale = parameters["second"]["scale"] - parameters["second"]["scale"]
        return (batch @ parameters["first"]["weights"]) ** 2 + jnp.sqrt(scale)

    failure = failing(objective, X)
    assert (failure.cause.what, failure.cause.layer) == ("gradient", "second")


def test_a_step_too_far_names_the_layer_and_the_rows_of_the_greatest_losses() -> None:
    failure = failing(squared, X, rate=3e38, batch_size=40, weights=np.append(np.ones(39), 0.0))
    assert (failure.step, failure.cause.what) == (1, "parameters")
    losses = np.asarray(squared(START, X))[:39]
    assert failure.cause.rows.tolist() == np.argsort(-losses)[:10].tolist()
    np.testing.assert_allclose(failure.cause.losses, np.sort(losses)[::-1][:10], rtol=1e-5)


def test_the_layer_of_the_largest_parameter_is_named_where_all_are_lost() -> None:
    failure = failing(squared, X, rate=5.0, batch_size=40)
    assert failure.step > 2
    assert failure.cause.layer in START
    assert failure.cause.largest > 1e3


def test_a_loss_of_one_number_names_no_rows() -> None:
    failure = steepest.minimize(jnp.log, -1.0, epochs=3).failure
    assert failure is not None
    assert (failure.cause.what, failure.cause.layer) == ("loss", "all")
    assert failure.cause.rows.tolist() == failure.cause.losses.tolist() == []


@pytest.mark.parametrize("batch_size", [8, "all"])
@pytest.mark.parametrize("make", [steepest.SGD, steepest.Adam])
def test_update_ratios_are_those_of_the_steps_taken(batch_size, make) -> None:
    """Ratios as looked at by a callback-free descent, against parameters of descents that end there."""
    steps_per_epoch = 5 if batch_size == 8 else 1
    at = EVERY // steps_per_epoch * steps_per_epoch  # the first step of the window with that step in it

    def descend(epochs):
        return steepest.minimize(
            squared, START, X, optimizer=make(1e-3), batch_size=batch_size, epochs=epochs, tolerance=0
        )

    seen = descend(at // steps_per_epoch + 1).history.dropna().iloc[0]
    assert seen.step == at + 1
    before = descend(at // steps_per_epoch).parameters
    if batch_size == "all":
        after = descend(at + 1).parameters
        for layer, part in (("first", "weights"), ("second", "scale")):
            old, new = np.asarray(before[layer][part]), np.asarray(after[layer][part])
            ratio = np.linalg.norm(new - old) / np.linalg.norm(old)
            np.testing.assert_allclose(seen[f"update_ratio.{layer}"], ratio, rtol=1e-4)
    norms = [seen["gradient_norm.first"], seen["gradient_norm.second"]]
    np.testing.assert_allclose(np.linalg.norm(norms), seen.gradient_norm, rtol=1e-5)
    assert 0 < seen.update_ratio <= max(seen["update_ratio.first"], seen["update_ratio.second"])


def test_a_short_descent_looks_at_nothing() -> None:
    assert "update_ratio" not in steepest.minimize(squared, START, X, epochs=3).history


def test_looks_survive_a_checkpoint(tmp_path) -> None:
    def descend(epochs, checkpoint):
        return steepest.minimize(
            squared, START, X, batch_size=8, epochs=epochs, tolerance=0, checkpoint=checkpoint
        )

    whole = descend(800, None).history
    descend(450, tmp_path / "c")
    resumed = descend(800, tmp_path / "c").history
    assert whole.update_ratio.notna().sum() > 2
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name])


def test_a_descent_that_backs_off_goes_on_at_a_third_of_the_rate(tmp_path) -> None:
    told = []

    class Told(steepest.Callback):
        def on_setback(self, setback):
            told.append(setback)

    def descend(rate, **more):
        return steepest.minimize(
            squared, START, X, optimizer=steepest.SGD(rate), batch_size=8, epochs=60, tolerance=0, **more
        )

    stopped = descend(2.0)
    assert stopped.failure is not None
    result = descend(2.0, on_divergence="back-off", callbacks=[Told()], checkpoint=tmp_path / "c")
    assert result.failure is None
    assert told == list(result.setbacks)
    assert result.setbacks[0].step == stopped.failure.step
    assert result.setbacks[0].learning_rate == 2.0
    assert all(setback.back_to < setback.step for setback in result.setbacks)
    assert result.history.learning_rate.iloc[-1] == pytest.approx(2.0 / 3 ** len(result.setbacks))
    assert np.isfinite(result.history.loss).all()
    assert result.history.step.tolist() == list(range(1, 301))
    assert result.epochs.epoch.tolist() == list(range(1, 61))
    assert result.history.loss.tail(5).mean() < np.mean(squared(START, X))
    if result.setbacks[-1].back_to == 0:
        small = descend(2.0 / 3 ** len(result.setbacks))
        np.testing.assert_array_equal(small.history.loss, result.history.loss)


def test_backing_off_resumes_to_the_byte(tmp_path) -> None:
    """Data that diverges late: a rate that rises until the descent is not finite."""

    def descend(folder, callbacks=()):
        rates = steepest.schedules.custom(lambda step: 1e-3 * 1.04**step)
        return steepest.minimize(
            squared, START, X, optimizer=steepest.SGD(rates), batch_size=8, epochs=80, tolerance=0,
            on_divergence="back-off", checkpoint=folder, checkpoint_every=0, callbacks=callbacks,
        )  # fmt: skip

    whole = descend(tmp_path / "whole")
    assert whole.setbacks
    assert whole.setbacks[0].back_to > 0
    for windows in (3, 30, 11, 40, 25):
        try:
            descend(tmp_path / "cut", [StopsAfter(windows, steepest.Interrupted)])
        except steepest.Interrupted:
            continue
    resumed = descend(tmp_path / "cut")
    assert resumed.setbacks == whole.setbacks
    assert resumed.failure is None or resumed.failure.step == whole.failure.step
    for name in whole.history:
        np.testing.assert_array_equal(whole.history[name], resumed.history[name])
    for layer, part in (("first", "weights"), ("second", "scale")):
        np.testing.assert_array_equal(whole.parameters[layer][part], resumed.parameters[layer][part])


def test_a_descent_that_no_rate_saves_ends_with_its_failure() -> None:
    data = X.copy()
    data[3] = np.nan
    result = steepest.minimize(squared, START, data, batch_size=8, epochs=2, on_divergence="back-off")
    assert result.failure is not None
    assert len(result.setbacks) == 12


def test_there_are_two_ways_of_divergence() -> None:
    with pytest.raises(steepest.SteepestError, match=r"'back-of'.*'back-off'"):
        steepest.minimize(squared, START, X, on_divergence="back-of")

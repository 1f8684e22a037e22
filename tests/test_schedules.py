"""Schedules: every step of a long range against Optax and Keras, and the plateau rule against Keras'."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steepest.descent import schedules
from steepest.descent.schedules import SCHEDULES, PlateauState, schedule_by_name, watch
from steepest.errors import SteepestError

STEPS = np.arange(2000)
K = keras.optimizers.schedules


def optax_restarts(rate, first, longer, lower, final_share, cycles):
    """Return cosine cycles that are joined one by one."""
    lengths = [first * longer**cycle for cycle in range(cycles)]
    parts = [
        optax.cosine_decay_schedule(rate * lower**cycle, length, final_share)
        for cycle, length in enumerate(lengths)
    ]
    return optax.join_schedules(parts, np.cumsum(lengths)[:-1].tolist())


CASES = {
    "constant": (schedules.constant(0.1), optax.constant_schedule(0.1), None),
    "step": (
        schedules.step(0.1, every=300, factor=0.5),
        optax.exponential_decay(0.1, 300, 0.5, staircase=True),
        K.ExponentialDecay(0.1, 300, 0.5, staircase=True),
    ),
    "exponential": (
        schedules.exponential(0.1, decay_steps=300, decay_rate=0.5),
        optax.exponential_decay(0.1, 300, 0.5),
        K.ExponentialDecay(0.1, 300, 0.5),
    ),
    "inverse_time": (
        schedules.inverse_time(0.1, decay_steps=300, decay_rate=0.5),
        None,
        K.InverseTimeDecay(0.1, 300, 0.5),
    ),
    "polynomial": (
        schedules.polynomial(0.1, steps=1500, final=0.01, power=2.0),
        optax.polynomial_schedule(0.1, 0.01, 2.0, 1500),
        K.PolynomialDecay(0.1, 1500, 0.01, power=2.0),
    ),
    "cosine": (
        schedules.cosine(0.1, steps=1200, warmup_steps=200, final_share=0.1),
        optax.warmup_cosine_decay_schedule(0.0, 0.1, 200, 1400, 0.01),
        K.CosineDecay(0.0, 1200, alpha=0.1, warmup_target=0.1, warmup_steps=200),
    ),
    "cosine without warm-up": (
        schedules.cosine(0.1, steps=1500),
        optax.cosine_decay_schedule(0.1, 1500),
        K.CosineDecay(0.1, 1500),
    ),
    "cosine_restarts": (
        schedules.cosine_restarts(0.1, first_steps=100, longer=2.0, lower=0.8),
        optax_restarts(0.1, 100, 2, 0.8, 0.0, 5),
        K.CosineDecayRestarts(0.1, 100, 2.0, 0.8),
    ),
    "cosine_restarts that end above 0": (
        schedules.cosine_restarts(0.1, first_steps=100, longer=2.0, final_share=0.1),
        optax_restarts(0.1, 100, 2, 1.0, 0.1, 5),
        K.CosineDecayRestarts(0.1, 100, 2.0, alpha=0.1),
    ),
    "cosine_restarts, all of a cycle lower": (  # Keras' cycles all end at the same rate
        schedules.cosine_restarts(0.1, first_steps=100, longer=2.0, lower=0.8, final_share=0.1),
        optax_restarts(0.1, 100, 2, 0.8, 0.1, 5),
        None,
    ),
    "cosine_restarts of threes": (
        schedules.cosine_restarts(0.1, first_steps=10, longer=3.0),
        optax_restarts(0.1, 10, 3, 1.0, 0.0, 6),
        K.CosineDecayRestarts(0.1, 10, 3.0),
    ),
    "cosine_restarts of one length": (
        schedules.cosine_restarts(0.1, first_steps=70, longer=1.0, lower=0.9),
        optax_restarts(0.1, 70, 1, 0.9, 0.0, 29),
        K.CosineDecayRestarts(0.1, 70, 1.0, 0.9),
    ),
    "cosine_restarts of broken lengths": (
        schedules.cosine_restarts(0.1, first_steps=37, longer=1.3),
        None,
        K.CosineDecayRestarts(0.1, 37, 1.3),
    ),
    "one_cycle": (
        schedules.one_cycle(0.1, steps=1500),
        optax.cosine_onecycle_schedule(1500, 0.1),
        None,
    ),
    "one_cycle, other shares": (
        schedules.one_cycle(0.1, steps=1600, rise_share=0.25, start_share=0.1, final_share=0.001),
        optax.cosine_onecycle_schedule(1600, 0.1, 0.25, 10.0, 100.0),
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_step_is_optaxs_and_kerass(x64, name) -> None:
    schedule, in_optax, in_keras = CASES[name]
    rates = schedule(STEPS)
    assert rates.shape == STEPS.shape
    assert np.ptp(rates) > 0 or name == "constant"
    if in_optax is not None:
        expected = jax.vmap(in_optax)(STEPS) if name != "constant" else np.full(STEPS.shape, in_optax(0))
        np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-9)
    if in_keras is not None:
        expected = np.asarray(jax.jit(jax.vmap(in_keras))(jnp.asarray(STEPS)))
        # Keras computes in single precision, where a restart may fall on a neighbouring step.
        off = np.flatnonzero(~np.isclose(rates, expected, rtol=1e-4, atol=2e-6))
        restarts = np.flatnonzero(np.diff(rates) > 1e-3 * rates.max()) + 1
        assert set(off) <= (set(restarts) if "restarts" in name else set())


def test_every_named_schedule_is_tested() -> None:
    assert set(SCHEDULES) - {"reduce_on_plateau"} <= set(CASES)
    for name in SCHEDULES:
        assert schedule_by_name(name, 0.1, 100).name == name


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_a_pure_function_of_the_step(name) -> None:
    schedule = schedule_by_name(name, 0.1, 1000)
    rates = schedule(STEPS)
    np.testing.assert_array_equal(schedule(STEPS[500:700]), rates[500:700])
    np.testing.assert_array_equal(schedule(STEPS[::-7]), rates[::-7])
    assert schedule(STEPS[:0]).shape == (0,)


@pytest.mark.parametrize("name", SCHEDULES)
@given(rate=st.floats(1e-6, 1e3), steps=st.integers(1, 3000))
@example(rate=0.1, steps=100)
@example(rate=0.1, steps=1)
def test_named_schedules_stay_between_zero_and_the_rate(name, rate, steps) -> None:
    rates = schedule_by_name(name, rate, steps)(np.arange(steps))
    assert (rates[1:] > 0).all(), "only a warm-up begins at zero"
    assert (rates >= 0).all()
    assert (rates <= rate * (1 + 1e-12)).all()


@pytest.mark.parametrize(
    ("name", "last"),
    [("exponential", 0.01), ("polynomial", 0.01), ("step", 0.01), ("inverse_time", 0.1), ("cosine", 0.0)],
)
def test_named_schedules_come_down_as_far_as_they_say(name, last) -> None:
    rates = schedule_by_name(name, 1.0, 3000)(np.arange(3001))
    assert rates.max() == pytest.approx(1.0)
    assert rates[-2] == pytest.approx(last, abs=1e-3)


def test_named_restarts_are_three_cycles_each_twice_as_long() -> None:
    rates = schedule_by_name("cosine_restarts", 1.0, 700)(np.arange(700))
    assert (np.flatnonzero(np.diff(rates) > 0.5) + 1).tolist() == [100, 300]
    assert rates[-1] < 0.001


def kerass_rates(losses, rate, **settings):
    """Return the rate that Keras' callback leaves after each loss."""
    callback = keras.callbacks.ReduceLROnPlateau(**settings)
    callback.set_model(types.SimpleNamespace(optimizer=keras.optimizers.SGD(rate)))
    callback.on_train_begin()
    for loss in losses:
        callback.on_epoch_end(0, {"val_loss": loss})
        yield float(callback.model.optimizer.learning_rate.value)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("patience", "change", "minimum"), [(1, 0.0, 0.0), (2, 0.05, 0.1), (3, 0.15, 0.01)])
def test_the_plateau_rule_is_kerass(seed, patience, change, minimum) -> None:
    losses = np.random.default_rng(seed).normal(np.linspace(1.0, 0.0, 40), 0.3).round(1)
    schedule = schedules.reduce_on_plateau(
        1.0, factor=0.5, patience=patience, minimum_change=change, minimum_rate=minimum
    )
    state, ours = PlateauState(), []
    for loss in losses:
        state = watch(schedule.plateau, state, loss)
        ours.append(state.scale)
    theirs = kerass_rates(losses, 1.0, factor=0.5, patience=patience, min_delta=change, min_lr=minimum)
    np.testing.assert_allclose(ours, list(theirs), rtol=1e-6)
    assert ours[-1] < 1.0, "it has come down"


def test_a_plateau_never_raises_the_rate() -> None:
    """As in Keras, where a rate that is below the minimum stays as it is."""
    schedule = schedules.reduce_on_plateau(0.1, patience=1, minimum_rate=0.5)
    state = PlateauState()
    for loss in (1.0, 1.0, 1.0):
        state = watch(schedule.plateau, state, loss)
    assert state.scale == 1.0


def test_any_function_is_a_schedule() -> None:
    halves = schedules.custom(optax.exponential_decay(1.0, 1, 0.5))
    assert halves(np.arange(3)).tolist() == [1.0, 0.5, 0.25]
    assert schedules.custom(lambda steps: 0.5)(np.arange(3)).tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.constant(0.0), "learning_rate must be a number above zero"),
        (lambda: schedules.step(0.1, every=0), "every must be"),
        (lambda: schedules.step(0.1, every=1, factor=-1.0), "factor must be"),
        (lambda: schedules.exponential(0.1, decay_steps=0, decay_rate=0.5), "decay_steps must be"),
        (lambda: schedules.inverse_time(0.1, decay_steps=3, decay_rate=0.0), "decay_rate must be"),
        (lambda: schedules.polynomial(0.1, steps=3, power=0.0), "power must be"),
        (lambda: schedules.cosine(float("nan"), steps=3), "learning_rate must be"),
        (lambda: schedules.cosine_restarts(0.1, first_steps=3, longer=0.5), "at least as long.*0.5"),
        (lambda: schedules.one_cycle(0.1, steps=3, rise_share=1.0), "between 0 and 1, not 1.0"),
        (lambda: schedules.reduce_on_plateau(0.1, patience=0), "patience must be"),
        (lambda: schedule_by_name("cosin", 0.1, 10), "no schedule 'cosin'.*mean 'cosine'"),
    ],
)
def test_errors(make, message) -> None:
    with pytest.raises(SteepestError, match=message):
        make()

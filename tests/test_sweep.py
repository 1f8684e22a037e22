"""A sweep: every variant does what it would do alone, whatever becomes of the others."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steepest import SGD, Adam, Momentum, losses, models
from steepest.arguments import as_objective
from steepest.descent import epoch
from steepest.descent.state import NOT_FINITE, start
from steepest.descent.step import Batches, Constants, Program
from steepest.descent.sweep import _run, sweep

FEATURES, ROWS, BATCH = 6, 96, 8
RATES = np.array([1e-4, 0.003, 0.1, 0.5])


def as_it_is(parameters):
    return parameters


def network(rule):
    model, loss = models.multilayer(FEATURES, (5,)), losses.binary_cross_entropy()
    objective = as_objective(lambda p, batch: loss.per_row(model.apply(p, batch[0]), batch[1]), True)
    first = model.init(jax.random.key(1))
    program = Program(objective, rule.transformation, rule.preconditioner, as_it_is)
    return program, start(first, rule.transformation.init(first))


def window(seed=0):
    draws = np.random.default_rng(seed)
    x = draws.normal(size=(ROWS // BATCH, BATCH, FEATURES)).astype(np.float32)
    y = (x[..., 0] > 0).astype(np.float32)
    return Batches((x, y), np.ones(y.shape, np.float32), None)


def swept(program, state, windows, rates, *, sure=True):
    batches = [each._replace(rates=np.tile(rates, (len(each.weights), 1))) for each in windows]
    return sweep(program, Constants(jax.random.key(0), None), state, batches, len(rates), sure)


@pytest.mark.parametrize("rule", [SGD(), Momentum(), Adam()], ids=lambda rule: rule.name)
@pytest.mark.parametrize("sure", [True, False])
def test_each_variant_goes_the_way_that_it_would_go_alone(rule, sure):
    program, state = network(rule)
    windows = [window(0), window(1)]
    together = swept(program, state, windows, RATES, sure=sure)
    for k, rate in enumerate(RATES):
        alone, seen = state, []
        for each in windows:
            batches = each._replace(rates=np.full(len(each.weights), rate))
            alone, record = epoch.run_window(program, Constants(jax.random.key(0), None), alone, batches)
            seen.append(record.loss)
        np.testing.assert_allclose(together.losses[k], np.concatenate(seen), rtol=2e-4)
        for mine, its in zip(
            jax.tree.leaves(together.state.parameters), jax.tree.leaves(alone.parameters), strict=True
        ):
            np.testing.assert_allclose(mine[k], its, rtol=2e-3, atol=2e-5)
    assert not together.failed_at.any()


@pytest.mark.parametrize("sure", [True, False])
def test_a_variant_that_is_not_finite_is_recorded_and_changes_no_other(sure):
    quadratic = Program(lambda p, batch, key: p[0] ** 2, SGD().transformation, None, as_it_is)
    state = start(jnp.array([1.0]), SGD().transformation.init(jnp.array([1.0])))
    steps = Batches((), np.ones((99, 1), np.float32), None)
    mixed = swept(quadratic, state, [steps], np.array([0.1, 9.0, 0.2]), sure=sure)
    sound = swept(quadratic, state, [steps], np.array([0.1, 0.15, 0.2]), sure=sure)
    # |1 - 2 * 9|^(2 t) leaves float32 after t = 16 steps: 17^32 > 3.4e38 > 17^30
    assert mixed.failed_at.tolist() == [0, 17, 0]
    assert np.isfinite(mixed.losses[1, :16]).all()
    assert np.isnan(mixed.losses[1, 16:]).all()
    np.testing.assert_array_equal(mixed.losses[[0, 2]], sound.losses[[0, 2]])
    np.testing.assert_allclose(mixed.losses[0], 0.8 ** (2 * np.arange(99)), rtol=1e-4)
    if not sure:
        assert int(mixed.state.status[1]) == NOT_FINITE


def test_steps_without_weight_move_no_variant_where_not_every_step_counts():
    program, state = network(Momentum())
    full = window()
    padded = full._replace(weights=full.weights * (np.arange(len(full.weights)) < 3)[:, None])
    short = Batches(tuple(each[:3] for each in full.data), full.weights[:3], None)
    some, all_ = (swept(program, state, [each], RATES, sure=False) for each in (short, padded))
    for mine, its in zip(jax.tree.leaves(some.state), jax.tree.leaves(all_.state), strict=True):
        np.testing.assert_array_equal(mine, its)


def test_other_rates_compile_nothing():
    program, state = network(Adam())
    swept(program, state, [window()], RATES)
    before = _run._cache_size()
    swept(program, state, [window(3)], RATES * 3)
    assert _run._cache_size() == before
    swept(program, state, [window(3)], RATES[:3])
    assert _run._cache_size() > before

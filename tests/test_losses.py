"""Losses: values against scikit-learn and Keras, gradients against finite differences, and the extremes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax
from sklearn.metrics import (
    hinge_loss,
    log_loss,
    mean_absolute_error,
    mean_pinball_loss,
    mean_squared_error,
)

from steepest import losses
from steepest.errors import SteepestError

draws = np.random.default_rng(0)
ROWS = 40
OUTPUTS = draws.normal(scale=3.0, size=ROWS)
SCORES = draws.normal(scale=3.0, size=(ROWS, 4))
NUMBERS = draws.normal(scale=3.0, size=ROWS)
COUNTS = draws.poisson(2.0, ROWS).astype(float)
TWO = draws.integers(0, 2, ROWS).astype(float)
FOUR = draws.integers(0, 4, ROWS)

ORACLES = [
    (losses.mean_squared_error(), OUTPUTS, NUMBERS, mean_squared_error),
    (losses.mean_absolute_error(), OUTPUTS, NUMBERS, mean_absolute_error),
    *[(losses.huber(d), OUTPUTS, NUMBERS, keras.losses.Huber(delta=d)) for d in (0.5, 1.0, 2.5)],
    *[
        (losses.quantile(q), OUTPUTS, NUMBERS, lambda t, o, q=q: mean_pinball_loss(t, o, alpha=q))
        for q in (0.1, 0.5, 0.75)
    ],
    (losses.poisson(), OUTPUTS, COUNTS, lambda t, o: keras.losses.Poisson()(t, np.exp(o))),
    (losses.binary_cross_entropy(), OUTPUTS, TWO, lambda t, o: log_loss(t, expit(o), labels=[0, 1])),
    (
        losses.categorical_cross_entropy(),
        SCORES,
        FOUR,
        lambda t, o: log_loss(t, softmax(o, axis=1), labels=range(4)),
    ),
    (losses.hinge(), OUTPUTS, TWO, lambda t, o: keras.losses.Hinge()(2 * t - 1, o)),
]
each_loss = pytest.mark.parametrize(
    ("loss", "outputs", "targets", "oracle"), ORACLES, ids=[f"{c[0].name}-{i}" for i, c in enumerate(ORACLES)]
)


def test_every_loss_has_an_oracle() -> None:
    assert {loss.name for loss, *_ in ORACLES} == set(losses.LOSSES)


@each_loss
def test_each_rows_loss_is_the_oracles(loss, outputs, targets, oracle) -> None:
    ours = jax.jit(loss.per_row)(outputs, targets)
    theirs = [float(oracle(targets[row : row + 1], outputs[row : row + 1])) for row in range(ROWS)]
    assert ours.shape == (ROWS,)
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def test_the_mean_hinge_loss_is_scikit_learns() -> None:
    ours = losses.hinge().per_row(jnp.asarray(OUTPUTS), jnp.asarray(TWO)).mean()
    assert float(ours) == pytest.approx(hinge_loss(TWO, OUTPUTS), rel=1e-6)


@each_loss
def test_gradients_are_those_of_finite_differences(x64, loss, outputs, targets, oracle) -> None:
    total = jax.jit(lambda outputs: loss.per_row(outputs, jnp.asarray(targets)).sum())
    nudges = 1e-6 * np.eye(outputs.size).reshape(-1, *outputs.shape)
    differences = [float(total(outputs + nudge) - total(outputs - nudge)) / 2e-6 for nudge in nudges]
    np.testing.assert_allclose(np.ravel(jax.jit(jax.grad(total))(outputs)), differences, rtol=1e-6, atol=1e-7)


@each_loss
def test_extreme_outputs_are_finite(loss, outputs, targets, oracle) -> None:
    if loss.name == "poisson":  # the logarithm of a mean: exp(1e4) is beyond any floating-point number
        return
    look = jax.jit(jax.value_and_grad(lambda outputs: loss.per_row(outputs, jnp.asarray(targets)).sum()))
    for extreme in (1e4 * np.sign(outputs), -1e4 * np.sign(outputs)):
        value, gradient = look(extreme)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_cross_entropies_are_exact_at_the_extremes() -> None:
    two = jax.jit(losses.binary_cross_entropy().per_row)
    logits, targets = jnp.array([1e4, 1e4, -1e4, -1e4]), jnp.array([0.0, 1.0, 0.0, 1.0])
    assert two(logits, targets).tolist() == [1e4, 0.0, 0.0, 1e4]
    assert jax.jit(jax.grad(lambda z: two(z, targets).sum()))(logits).tolist() == [1.0, 0.0, 0.0, -1.0]
    several = jax.jit(losses.categorical_cross_entropy().per_row)
    scores, classes = jnp.array([[1e4, 0.0, -1e4]] * 3), jnp.array([0, 1, 2])
    assert several(scores, classes).tolist() == [0.0, 1e4, 2e4]
    gradient = jax.jit(jax.grad(lambda z: several(z, classes).sum()))(scores)
    assert gradient.tolist() == [[0.0, 0.0, 0.0], [1.0, -1.0, 0.0], [1.0, 0.0, -1.0]]


@pytest.mark.parametrize(
    ("loss", "targets", "expected"),
    [
        (losses.mean_squared_error(), NUMBERS, NUMBERS.mean()),
        (losses.mean_absolute_error(), NUMBERS[:39], np.median(NUMBERS[:39])),
        (losses.quantile(0.8), NUMBERS[:39], np.quantile(NUMBERS[:39], 0.8, method="inverted_cdf")),
        (losses.poisson(), COUNTS, COUNTS.mean()),
        (losses.binary_cross_entropy(), TWO, TWO.mean()),
    ],
    ids=lambda case: getattr(case, "name", ""),
)
def test_the_link_predicts_what_the_loss_is_for(x64, loss, targets, expected) -> None:
    """The best constant output, put through the link, is the mean, the median, the rate or the share."""
    total = jax.jit(lambda output: loss.per_row(jnp.full(len(targets), output), jnp.asarray(targets)).sum())
    best = minimize_scalar(lambda output: float(total(output)), bounds=(-9, 9), options={"xatol": 1e-9}).x
    assert float(loss.predict(jnp.asarray(best))) == pytest.approx(expected, abs=1e-4)


def test_links_of_several_outputs() -> None:
    predicted = losses.categorical_cross_entropy().predict(jnp.asarray(SCORES))
    np.testing.assert_allclose(predicted, softmax(SCORES, axis=1), rtol=1e-5)
    np.testing.assert_allclose(losses.hinge().predict(jnp.asarray(OUTPUTS)), expit(OUTPUTS), rtol=1e-5)
    assert losses.huber().predict(jnp.array([1.5])).tolist() == [1.5]


def test_equal_losses_share_their_functions() -> None:
    """What a program compiled for one is found again for the other."""
    for name in losses.LOSSES:
        first, second = losses.loss_by_name(name), losses.loss_by_name(name)
        assert first == second
        assert hash(first) == hash(second)
        assert first.name == name
    assert losses.huber(2.0).per_row is losses.huber(2.0).per_row
    assert losses.huber(2.0) != losses.huber(1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.huber(0.0), "above zero, not 0.0"),
        (lambda: losses.huber(-1.0), "above zero, not -1.0"),
        (lambda: losses.quantile(0.0), "between 0 and 1; 0.0"),
        (lambda: losses.quantile(1.0), "between 0 and 1; 1.0"),
        (lambda: losses.loss_by_name("hubr"), "no loss 'hubr'.*mean 'huber'"),
    ],
)
def test_errors(make, message) -> None:
    with pytest.raises(SteepestError, match=message):
        make()

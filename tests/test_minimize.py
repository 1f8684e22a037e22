"""`minimize` from the outside: what it finds, when it stops, what it says, and what it refuses."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge

import steepest
from steepest import SGD, AdaGrad, Adam, Callback, Momentum, RMSProp, StopDescent, minimize, schedules
from steepest.data import blocks
from steepest.data.order import epoch_order
from steepest.errors import SteepestError

X = np.round(np.random.default_rng(0).normal(size=(37, 3)) * 64) / 64
Y = np.round((X @ [1.0, -2.0, 0.5] + 0.25) * 64) / 64
W = np.random.default_rng(1).integers(0, 9, 37) / 4
ROWS = np.arange(4.0)


def distance(position, rows):
    """Squared distance to each row's number: the minimum is the rows' mean."""
    return (rows - position) ** 2


def squared_error(position, batch):
    features, targets = batch
    return (features @ position - targets) ** 2


def mean_squared_error(position, batch):
    return squared_error(position, batch).mean()


def rosenbrock(position):
    return (1 - position[0]) ** 2 + 100 * (position[1] - position[0] ** 2) ** 2


def cross_entropy(parameters, batch):
    features, targets = batch
    return optax.sigmoid_binary_cross_entropy(features @ parameters["weights"] + parameters["bias"], targets)


def constant(position):
    """A loss that does not change, with a gradient that is not zero."""
    return 1.0 + 1e-3 * position


# ---- the same descent, written as a plain loop


def batches(seed, epoch, rows, size):
    order = np.concatenate(list(epoch_order(seed, epoch, rows))) if size < rows else np.arange(rows)
    return [order[first : first + size] for first in range(0, rows, size)]


def plain_descent(transformation, features, targets, weights, size, epochs, seed):
    """Return the end and the losses of mini-batch least squares: no padding, no compiled epoch."""
    position, losses = np.zeros(features.shape[1]), []
    state = transformation.init(position)
    for epoch in range(epochs):
        for rows in batches(seed, epoch, len(features), size):
            if weights[rows].sum() == 0:
                continue
            errors = features[rows] @ position - targets[rows]
            losses.append(np.average(errors**2, weights=weights[rows]))
            gradient = 2 * features[rows].T @ (weights[rows] * errors) / weights[rows].sum()
            updates, state = transformation.update(jnp.asarray(gradient), state, position)
            position = position + np.asarray(updates)
    return position, losses


PLAIN = {
    "sgd": (SGD(0.05), optax.sgd(0.05)),
    "momentum": (Momentum(0.01), optax.sgd(0.01, 0.9)),
    "adam": (Adam(0.05), optax.adam(0.05, eps=1e-7)),
}


@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=4, deadline=None)
@given(
    rows=st.integers(1, 37),
    size=st.integers(1, 12),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["a number", "one a row", "weighted"]),
)
@example(rows=37, size=5, seed=0, kind="weighted")
def test_padding_changes_nothing(name, rows, size, seed, kind) -> None:
    """A padded descent, and one with a short last batch, are the plain loop."""
    rule, transformation = PLAIN[name]
    weights = W[:rows] + (W[:rows].sum() == 0) if kind == "weighted" else np.ones(rows)
    with jax.enable_x64(True):
        result = minimize(
            mean_squared_error if kind == "a number" else squared_error,
            jnp.zeros(3),
            (X[:rows], Y[:rows]),
            optimizer=rule,
            batch_size=size,
            epochs=2,
            tolerance=0,
            seed=seed,
            weights=weights if kind == "weighted" else None,
        )
        position, losses = plain_descent(transformation, X[:rows], Y[:rows], weights, size, 2, seed)
    np.testing.assert_allclose(result.history.loss, losses[: result.steps], rtol=1e-9, atol=1e-12)
    assert result.converged or result.steps == len(losses)
    if not result.converged:
        np.testing.assert_allclose(result.parameters, position, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PLAIN)
def test_how_an_epoch_is_cut_changes_no_bit(name, monkeypatch) -> None:
    """37 rows in batches of 5 are 8 steps: windows of 3, 3 and 2 steps."""
    settings = {"optimizer": PLAIN[name][0], "batch_size": 5, "epochs": 3}
    data = (X.astype(np.float32), Y.astype(np.float32))
    whole = minimize(squared_error, jnp.zeros(3), data, **settings)
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 3 * 5 * 16)
    assert blocks.Blocks(data, np.ones(37), 5).shapes() == [(3, 5), (3, 5), (2, 5)]
    cut = minimize(squared_error, jnp.zeros(3), data, **settings)
    assert np.asarray(whole.parameters).tobytes() == np.asarray(cut.parameters).tobytes()
    pd.testing.assert_frame_equal(whole.history, cut.history, check_exact=True)
    assert whole.steps == 24


def test_a_failure_is_found_wherever_an_epoch_is_cut(monkeypatch) -> None:
    """The windows begun before it was noticed are let go."""
    data = (X.astype(np.float32), Y.astype(np.float32))
    settings = {"optimizer": "sgd", "batch_size": 5, "epochs": 30, "l2": 1e6}
    whole = minimize(squared_error, jnp.zeros(3), data, **settings)
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 1 * 5 * 16)
    cut = minimize(squared_error, jnp.zeros(3), data, **settings)
    assert whole.failure is not None
    assert cut.failure is not None
    assert whole.failure.step == cut.failure.step == 6
    np.testing.assert_array_equal(whole.failure.rows, cut.failure.rows)
    assert np.isfinite(whole.parameters).all()
    assert np.asarray(whole.parameters).tobytes() == np.asarray(cut.parameters).tobytes()
    pd.testing.assert_frame_equal(whole.history, cut.history, check_exact=True)


def test_a_single_number_and_one_a_row_are_the_same_descent() -> None:
    same = {"optimizer": "momentum", "batch_size": 4, "epochs": 3, "seed": 2}
    by_row = minimize(squared_error, jnp.zeros(3), (X[:36], Y[:36]), **same)
    single = minimize(mean_squared_error, jnp.zeros(3), (X[:36], Y[:36]), **same)
    np.testing.assert_allclose(by_row.parameters, single.parameters, rtol=1e-5)


def test_whole_number_weights_are_rows_that_repeat() -> None:
    times = np.arange(37) % 4
    same = {"optimizer": Adam(0.1), "batch_size": "all", "epochs": 30}
    weighted = minimize(squared_error, jnp.zeros(3), (X, Y), weights=times, **same)
    repeated = minimize(squared_error, jnp.zeros(3), (np.repeat(X, times, 0), np.repeat(Y, times)), **same)
    np.testing.assert_allclose(weighted.history.loss, repeated.history.loss, rtol=1e-4)
    np.testing.assert_allclose(weighted.parameters, repeated.parameters, rtol=1e-4)


def test_batches_without_weight_are_no_steps() -> None:
    """And the history's epochs are still those in which the steps were taken."""
    weights = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    result = minimize(
        distance,
        0.0,
        np.arange(10.0),
        weights=weights,
        batch_size=2,
        epochs=2,
        shuffle=False,
        optimizer="adam",
    )
    plain = minimize(
        distance, 0.0, np.arange(4.0, 10.0), batch_size=2, epochs=2, shuffle=False, optimizer="adam"
    )
    assert result.parameters == plain.parameters
    assert result.history.step.tolist() == [1, 2, 3, 4, 5, 6]
    assert result.history.epoch.tolist() == [1, 1, 1, 2, 2, 2]


def test_a_window_without_weight(monkeypatch) -> None:
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 16)
    weights = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    result = minimize(distance, 0.0, np.arange(10.0), weights=weights, batch_size=2, epochs=2, shuffle=False)
    assert result.steps == 6


def test_windows_without_weight_are_waited_for(monkeypatch) -> None:
    """However slow the device is: their buffers are filled anew only when it is done with them."""
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 16)

    def slow(position, rows):
        square = jnp.full((128, 128), rows[0] / 1024)
        last = jax.lax.fori_loop(0, 50, lambda _, each: jnp.tanh(each @ each), square)
        return (rows - position) ** 2 + 0 * jax.lax.stop_gradient(last[0, 0])

    rows = np.arange(64.0)
    weighted = rows % 16 >= 12  # every fourth window
    given = {"batch_size": 2, "epochs": 2, "shuffle": False, "optimizer": SGD(0.01)}
    result = minimize(slow, 0.0, rows, weights=weighted, **given)
    assert result.parameters == minimize(distance, 0.0, rows[weighted], **given).parameters


# ---- where it ends up


def standardised_parameters():
    return {"weights": jnp.zeros(30), "bias": jnp.array(0.0)}


def test_logistic_regression_with_l2_is_scikit_learns(x64, cancer) -> None:
    features, targets = cancer
    result = minimize(
        cross_entropy,
        standardised_parameters(),
        cancer,
        optimizer=steepest.Nesterov(0.2),
        batch_size="all",
        epochs=3000,
        tolerance=0,
        l2={"weights": 1 / (2 * len(targets)), "bias": 0.0},
    )
    theirs = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000).fit(features, targets)
    np.testing.assert_allclose(result.parameters["weights"], theirs.coef_[0], atol=1e-4)
    assert float(result.parameters["bias"]) == pytest.approx(theirs.intercept_[0], abs=1e-4)


def test_mini_batches_reach_scikit_learns_optimum(cancer) -> None:
    features, targets = cancer
    result = minimize(
        cross_entropy,
        standardised_parameters(),
        cancer,
        optimizer=Adam(schedules.cosine(0.1, steps=200 * 18)),
        epochs=200,
        l2={"weights": 1 / (2 * len(targets)), "bias": 0.0},
        validation_data=cancer,
    )
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(features, targets)
    best = -theirs.predict_log_proba(features)[np.arange(len(targets)), targets.astype(int)].mean()
    best += (theirs.coef_**2).sum() / (2 * len(targets))
    assert result.epochs.validation_loss.iloc[-1] == pytest.approx(best, abs=1e-4)


@pytest.fixture(scope="module")
def lasso(cancer):
    """Logistic regression with 0.02 times the sum of the weights' sizes, and not of the intercept's."""
    model = LogisticRegression(l1_ratio=1.0, solver="saga", C=1 / (0.02 * 569), tol=1e-10, max_iter=50_000)
    return model.fit(*cancer)


DECAYING = schedules.exponential(0.1, decay_steps=1000, decay_rate=0.5)


@pytest.mark.parametrize(
    "rule",
    [SGD(0.5), Momentum(0.05), steepest.Nesterov(0.05), AdaGrad(1.0), RMSProp(DECAYING), Adam(DECAYING)],
    ids=lambda rule: rule.name,
)
def test_l1_reaches_scikit_learns_optimum_and_its_zeros(x64, rule, cancer, lasso) -> None:
    features, targets = (jnp.asarray(each) for each in cancer)
    result = minimize(
        lambda parameters: cross_entropy(parameters, (features, targets)).mean(),
        standardised_parameters(),
        optimizer=rule,
        epochs=12_000,
        tolerance=0,
        l1={"weights": 0.02, "bias": 0.0},
    )
    assert 5 < (lasso.coef_ == 0).sum() < 29
    np.testing.assert_array_equal(result.parameters["weights"] == 0, lasso.coef_[0] == 0)
    np.testing.assert_allclose(result.parameters["weights"], lasso.coef_[0], atol=1e-4)
    assert float(result.parameters["bias"]) == pytest.approx(lasso.intercept_[0], abs=1e-4)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("rule", [SGD(0.1), Momentum(0.01), steepest.Nesterov(0.01), Adam(0.1)])
def test_l1_leaves_zero_where_the_loss_pulls_harder(rule, clip_norm) -> None:
    """½(θ - 3)² + 2|θ| has its minimum at 1, where the smooth part's gradient has a norm of 2."""
    rule = dataclasses.replace(rule, clip_norm=clip_norm)
    result = minimize(lambda p: 0.5 * (p - 3.0) ** 2, 0.0, optimizer=rule, l1=2.0, epochs=999, tolerance=1e-8)
    assert float(result.parameters) == pytest.approx(1.0, abs=0.02)


def test_l2_is_the_closed_form_of_ridge(x64) -> None:
    result = minimize(
        squared_error,
        jnp.zeros(3),
        (X, Y),
        optimizer=SGD(0.2),
        batch_size="all",
        epochs=999,
        l2=0.3,
        tolerance=0,
    )
    theirs = Ridge(alpha=0.3 * len(X), fit_intercept=False).fit(X, Y)
    np.testing.assert_allclose(result.parameters, theirs.coef_, atol=1e-6)
    penalised = theirs.predict(X) - Y
    assert result.history.loss.iloc[-1] == pytest.approx(
        np.mean(penalised**2) + 0.3 * (theirs.coef_**2).sum(), rel=1e-6
    )


def test_penalties_for_each_parameter() -> None:
    start = {"a": jnp.array([1.0, 2.0]), "b": 3.0}
    strength = {"a": np.array([0.5, 0.0]), "b": 0.25}
    loss = minimize(lambda p: 0.0 * p["b"], start, l1=strength, l2=strength, epochs=1).history.loss[0]
    assert loss == pytest.approx(0.5 * 1 + 0.25 * 3 + 0.5 * 1 + 0.25 * 9)


def test_batch_descent_on_data_is_its_closed_form(x64) -> None:
    """Data in double precision, which no thread and no copy may round."""
    features = np.random.default_rng(3).normal(size=(37, 3))
    result = minimize(
        squared_error,
        jnp.zeros(3),
        (features, Y),
        optimizer=SGD(0.1),
        batch_size="all",
        epochs=40,
        tolerance=0,
    )
    hessian, best = 2 * features.T @ features / 37, np.linalg.lstsq(features, Y)[0]
    path = [best - np.linalg.matrix_power(np.eye(3) - 0.1 * hessian, t) @ best for t in range(41)]
    losses = [np.mean((features @ position - Y) ** 2) for position in path[:-1]]
    np.testing.assert_allclose(result.history.loss, losses, rtol=1e-11)
    np.testing.assert_allclose(result.parameters, path[-1], rtol=1e-11)


def test_lbfgs_finds_rosenbrocks_minimum() -> None:
    """A transformation that needs the value, the gradient and the function itself."""
    result = minimize(rosenbrock, jnp.array([-1.2, 1.0]), optimizer=optax.lbfgs(), epochs=100, tolerance=1e-5)
    np.testing.assert_allclose(result.parameters, [1.0, 1.0], atol=1e-4)
    assert result.converged
    assert result.steps < 60


def test_any_optax_transformation_on_a_pytree() -> None:
    rule, start = optax.lion(0.01), {"a": jnp.array([1.0, -2.0]), "b": [jnp.array(3.0)]}

    def bowl(p):
        return (p["a"] ** 2).sum() + (p["b"][0] - 1) ** 2

    result = minimize(bowl, start, optimizer=rule, epochs=25, tolerance=0)

    def step(carry, _):
        position, state = carry
        updates, state = rule.update(jax.grad(bowl)(position), state, position)
        return (optax.apply_updates(position, updates), state), None

    (position, _), _ = jax.lax.scan(step, (start, rule.init(start)), None, length=25)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), result.parameters, position)


# ---- the order of rows, the keys, the seed


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_follow_the_order_of_rows(shuffle) -> None:
    result = minimize(
        lambda p, rows: rows + 0 * p, 0.0, np.arange(23.0), batch_size=5, epochs=2, seed=4, shuffle=shuffle
    )
    means = [
        np.arange(23.0)[rows].mean()
        for epoch in range(2)
        for rows in (batches(4, epoch, 23, 5) if shuffle else np.split(np.arange(23), [5, 10, 15, 20]))
    ]
    np.testing.assert_allclose(result.history.loss, means, rtol=1e-6)


def noisy(position, rows, key=None):
    noise = 0.0 if key is None else jax.random.normal(key, ())
    return (rows - position + noise) ** 2


def test_the_same_seed_gives_the_same_bytes() -> None:
    def run(seed):
        settings = {"optimizer": Adam(0.1), "batch_size": 4, "epochs": 2, "seed": seed}
        result = minimize(noisy, jnp.zeros(()), np.arange(21.0), **settings)
        return np.asarray(result.parameters).tobytes(), result.history.to_numpy().tobytes()

    first, again, other = run(0), run(0), run(1)
    assert first == again
    assert first[0] != other[0]
    assert first[1] != other[1]


def test_the_key_is_new_in_each_step_and_none_in_validation() -> None:
    keys = set()

    def draw(position, rows, key):
        keys.add(key is None)
        return 0 * position + (0.5 if key is None else jax.random.uniform(key)) * jnp.ones(len(rows))

    def run(seed):
        settings = {"batch_size": 5, "epochs": 4, "shuffle": False, "seed": seed}
        return minimize(draw, 0.0, np.arange(10.0), validation_data=np.arange(3.0), **settings)

    first, other = run(0), run(1)
    assert keys == {True, False}
    assert first.history.loss.nunique() == 8
    assert not set(first.history.loss) & set(other.history.loss)
    assert first.epochs.validation_loss.tolist() == [0.5] * 4


# ---- when it stops, and what it says


def test_converged_by_the_gradient() -> None:
    result = minimize(lambda p: p**2, 1.0, optimizer=SGD(0.25), epochs=99, tolerance=1e-3)
    assert result.converged
    assert result.steps == 12  # the gradient is 2 · 2^-t, within 0.001 at t = 11
    assert float(result.parameters) == 2.0**-11
    assert result.why_it_stopped == "converged at step 12: the gradient's norm, 0.000977, is within 0.001"
    assert result.history.gradient_norm.tolist() == [2.0 * 2.0**-t for t in range(12)]


def test_converged_by_the_loss_at_a_step() -> None:
    """Five steps running without a change: the first step has none before it."""
    result = minimize(constant, 0.0, optimizer=SGD(1e-6), epochs=99)
    assert result.converged
    assert result.why_it_stopped == (
        "converged at step 6: the loss changed by at most 1e-06 of itself in 5 steps running"
    )
    assert result.steps == len(result.history) == 6


def test_converged_by_the_loss_at_an_epoch() -> None:
    settings = {"optimizer": SGD(1e-6), "batch_size": 2, "epochs": 99}
    result = minimize(lambda p, rows: constant(p) + 0 * rows, 0.0, np.arange(4.0), **settings)
    assert result.converged
    assert result.why_it_stopped == (
        "converged at epoch 6: the loss changed by at most 1e-06 of itself in 5 epochs running"
    )
    assert len(result.epochs) == 6
    assert result.steps == 12


def test_a_loss_that_moves_now_and_then_has_not_converged() -> None:
    """The loss falls at every fourth step: never five steps without a change."""
    rates = schedules.custom(lambda steps: np.where(steps % 4 == 3, 0.125, 0.0))
    result = minimize(lambda p: p + 1000.0, 0.0, optimizer=SGD(rates), epochs=40, tolerance=1e-5)
    assert not result.converged
    assert result.steps == 40


@pytest.mark.parametrize(
    ("data", "epochs", "why"),
    [(None, 300, "the last step (300) was reached"), (np.arange(8.0), 3, "the last epoch (3) was reached")],
)
def test_stopped_at_the_end(data, epochs, why) -> None:
    objective = (lambda p: (p - 1) ** 2) if data is None else distance
    result = minimize(objective, 0.0, data, optimizer=SGD(1e-4), epochs=epochs, batch_size=4)
    assert (result.why_it_stopped, result.converged, result.failure) == (why, False, None)
    assert result.steps == len(result.history) == (300 if data is None else 6)
    assert result.history.step.tolist() == list(range(1, result.steps + 1))
    expected = range(1, 301) if data is None else [1, 1, 2, 2, 3, 3]
    assert result.history.epoch.tolist() == list(expected)
    assert 0 < result.seconds < 60


def test_tolerance_of_zero_goes_on_while_anything_moves() -> None:
    settings = {"optimizer": SGD(0.1), "epochs": 50}
    assert minimize(lambda p: p**2, 1.0, tolerance=0, **settings).steps == 50
    assert minimize(lambda p: p**2, 1.0, tolerance=1e-2, **settings).steps < 50


class Recorder(Callback):
    def __init__(self, stop=None):
        self.events, self.stop = [], stop

    def on_descent_begin(self, epochs, rows):
        self.events.append(("begin", epochs, rows))

    def on_window_end(self, epoch, rows, loss):
        self.events.append(("window", epoch, rows, round(loss, 4)))

    def on_epoch_end(self, figures):
        self.events.append(("epoch", figures["epoch"], figures["rows"], round(figures["loss"], 4)))
        if self.stop is not None and figures["epoch"] == 2:
            raise StopDescent(*self.stop)

    def on_descent_end(self, result):
        self.events.append(("end", result.steps))


def test_callbacks_are_called_in_order(monkeypatch) -> None:
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 16)  # 10 rows: three windows of two batches of two
    first, second = Recorder(), Recorder()
    result = minimize(
        lambda p, rows: rows + 0 * p,
        0.0,
        np.arange(10.0),
        batch_size=2,
        epochs=2,
        shuffle=False,
        callbacks=[first, second],
    )
    epoch = [(4, 1.5), (8, 3.5), (10, 4.5)]
    assert first.events == [
        ("begin", 2, 10),
        *[("window", 1, *each) for each in epoch],
        ("epoch", 1, 10, 4.5),
        *[("window", 2, *each) for each in epoch],
        ("epoch", 2, 10, 4.5),
        ("end", 10),
    ]
    assert second.events == first.events
    assert result.epochs.epoch.tolist() == [1, 2]
    assert result.epochs.rows.tolist() == [10, 10]
    assert (result.epochs.rows_per_second > 0).all()


@pytest.mark.parametrize(("stop", "why"), [(("enough",), "enough"), ((), "a callback stopped it")])
def test_a_callback_stops_the_descent(stop, why) -> None:
    recorder = Recorder(stop)
    result = minimize(distance, 0.0, np.arange(10.0), batch_size=5, epochs=9, callbacks=[recorder])
    assert (result.why_it_stopped, result.converged, result.failure) == (why, False, None)
    assert result.steps == len(result.history) == 4
    assert len(result.epochs) == 2
    assert recorder.events[-1] == ("end", 4)
    shorter = minimize(distance, 0.0, np.arange(10.0), batch_size=5, epochs=2)
    assert result.parameters == shorter.parameters


# ---- a step that is not finite


@pytest.mark.parametrize("window_bytes", [2**25, 16])
def test_a_row_that_is_not_a_number(window_bytes, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "WINDOW_BYTES", window_bytes)
    rows = np.arange(20.0)
    rows[7] = np.nan
    recorder = Recorder()
    settings = {"optimizer": "momentum", "batch_size": 3, "seed": 1, "callbacks": [recorder]}
    result = minimize(distance, 0.0, rows, epochs=5, **settings)
    order = batches(1, 0, 20, 3)
    bad = next(number for number, batch in enumerate(order) if 7 in batch)
    assert bad > 0
    failure = result.failure
    assert (failure.step, failure.epoch, failure.learning_rate) == (bad + 1, 1, 0.01)
    assert np.isnan(failure.loss)
    assert failure.rows.tolist() == order[bad].tolist()
    assert not result.converged
    assert result.why_it_stopped == (
        f"not finite: at step {bad + 1} (epoch 1) the loss was nan at a learning rate of 0.01; "
        "the parameters before that step are kept"
    )
    assert result.steps == len(result.history) == bad + 1
    assert np.isfinite(result.history.loss[:-1]).all()
    velocity = position = 0.0
    for batch in order[:bad]:
        velocity = 0.9 * velocity + 2 * (position - rows[batch]).mean()
        position -= 0.01 * velocity
    assert float(result.parameters) == pytest.approx(position, rel=1e-5)
    assert recorder.events[-1] == ("end", bad + 1)


def test_there_are_no_epochs_before_a_failure_in_the_first() -> None:
    assert len(minimize(distance, 0.0, np.array([1.0, np.nan])).epochs) == 0


def test_a_failure_without_data_has_no_rows() -> None:
    assert minimize(jnp.log, -1.0, epochs=3).failure.rows.tolist() == []


def test_a_failure_in_a_short_last_batch_names_real_rows_only() -> None:
    rows = np.array([*range(9), np.nan])
    failure = minimize(distance, 0.0, rows, batch_size=4, shuffle=False, epochs=1).failure
    assert (failure.step, failure.rows.tolist()) == (3, [8, 9])


def test_a_failure_in_a_later_epoch() -> None:
    """Descent at a rate above the limit: finite for a while, then not."""
    settings = {"optimizer": SGD(5.0), "batch_size": 5, "epochs": 50}
    result = minimize(distance, 0.0, np.arange(10.0), **settings)
    assert result.failure.epoch > 1
    assert result.failure.step == result.steps
    assert result.failure.epoch == (result.steps + 1) // 2
    assert len(result.epochs) == result.failure.epoch - 1
    assert np.isfinite(result.parameters)
    assert "not finite" in result.why_it_stopped


def test_a_gradient_that_is_not_finite() -> None:
    result = minimize(jnp.sqrt, 0.0, epochs=3)
    assert "at step 1 the gradient" in result.why_it_stopped
    assert not np.isfinite(result.failure.gradient_norm)
    assert (result.steps, result.failure.loss, float(result.parameters)) == (1, 0.0, 0.0)


@pytest.mark.parametrize("epochs", [1, 3])
def test_an_update_that_is_not_finite(epochs) -> None:
    """The loss and the gradient of the first step are finite, but its update is not: nothing has moved."""
    result = minimize(lambda p: 100 * p, 0.0, optimizer=SGD(1e38), epochs=epochs)
    assert result.failure is not None
    assert float(result.parameters) == 0.0


# ---- validation


@pytest.mark.parametrize("rows", [1, 10, 512, 5000, 8193])
@pytest.mark.parametrize("kind", ["one a row", "weighted", "a number"])
def test_validation_figures(rows, kind) -> None:
    values = np.random.default_rng(0).normal(size=rows)
    weights = np.random.default_rng(1).integers(1, 5, rows) if kind == "weighted" else None
    objective = (lambda p, b: distance(p, b).mean()) if kind == "a number" else distance
    result = minimize(
        objective,
        1.0,
        np.arange(4.0),
        epochs=1,
        batch_size=2,
        l1=0.5,
        l2=0.25,
        validation_data=values,
        validation_weights=weights,
        metrics={"absolute": lambda p, b: abs(b - p)},
    )
    position, figures = float(result.parameters), result.epochs.iloc[-1]
    errors = abs(values - position)
    loss = np.average(errors**2, weights=weights) + 0.5 * abs(position) + 0.25 * position**2
    assert figures.validation_loss == pytest.approx(loss, rel=1e-5)
    assert figures.validation_absolute == pytest.approx(np.average(errors, weights=weights), rel=1e-5)


@pytest.mark.parametrize("rows", [10, 5000])
def test_metrics_that_count_or_are_a_single_number(rows) -> None:
    values = np.random.default_rng(0).normal(size=rows)
    weights = np.random.default_rng(1).integers(1, 9, rows) / 8
    metrics = {
        "above": lambda p, b: b > 0.5,
        "number": lambda p, b: (b > 0).astype(int),
        "largest": lambda p, b: b.max(),
        "root": lambda p, b: jnp.sqrt((b**2).mean()),
    }
    settings = {"validation_data": values, "validation_weights": weights, "metrics": metrics}
    figures = minimize(distance, 0.0, ROWS, epochs=1, **settings).epochs.iloc[-1]
    assert figures.validation_above == pytest.approx(np.average(values > 0.5, weights=weights), rel=1e-5)
    assert figures.validation_number == pytest.approx(np.average(values > 0, weights=weights), rel=1e-5)
    assert figures.validation_largest == pytest.approx(values.max(), rel=1e-5)
    assert figures.validation_root == pytest.approx(np.sqrt((values**2).mean()), rel=1e-5)


def test_validation_is_of_every_epoch_and_changes_nothing() -> None:
    settings = {"batch_size": 4, "epochs": 3, "optimizer": SGD(0.05)}
    plain = minimize(distance, 0.0, np.arange(20.0), **settings)
    watched = minimize(distance, 0.0, np.arange(20.0), validation_data=np.array([1.0, 3.0]), **settings)
    assert plain.parameters == watched.parameters
    for epochs in (1, 2, 3):
        position = float(
            minimize(distance, 0.0, np.arange(20.0), **(settings | {"epochs": epochs})).parameters
        )
        expected = ((position - 1) ** 2 + (position - 3) ** 2) / 2
        assert watched.epochs.validation_loss[epochs - 1] == pytest.approx(expected, rel=1e-5)
    assert watched.epochs.loss[0] == pytest.approx(watched.history.loss[:5].mean())


# ---- rates


def test_rates_go_on_over_windows_and_epochs(monkeypatch) -> None:
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 16)
    schedule = schedules.exponential(0.01, decay_steps=3, decay_rate=0.5)
    result = minimize(distance, 0.0, np.arange(10.0), optimizer=SGD(schedule), batch_size=2, epochs=3)
    rates = schedule(np.arange(15))
    np.testing.assert_array_equal(result.history.learning_rate, rates)
    # An epoch's last window has a step that is all padding: its rate is of no interest.
    np.testing.assert_array_equal(result.epochs.learning_rate, rates[4::5])


@pytest.mark.parametrize("validated", [True, False])
def test_the_rate_falls_on_a_plateau(validated) -> None:
    """On validation's plateau, where the loss of the descent's own rows still falls; else on their own."""
    schedule = schedules.reduce_on_plateau(0.5, factor=0.5, patience=2)
    result = minimize(
        lambda p, rows: jnp.where(rows < 0, 1.0, rows + p),
        0.0,
        np.full(4, 100.0),
        optimizer=SGD(schedule),
        batch_size=2,
        epochs=6,
        validation_data=np.full(3, -1.0) if validated else None,
    )
    expected = [0.5, 0.5, 0.5, 0.25, 0.25, 0.125] if validated else [0.5] * 6
    assert result.epochs.learning_rate.tolist() == expected
    steps = np.repeat(expected, 2)
    np.testing.assert_allclose(result.history.loss, 100 - np.cumsum(steps) + steps, rtol=1e-6)


def test_the_rate_falls_on_a_plateau_without_data() -> None:
    rule = SGD(schedules.reduce_on_plateau(1e-6, factor=0.5, patience=1))
    result = minimize(constant, 0.0, optimizer=rule, epochs=4, tolerance=0)
    assert result.history.learning_rate.tolist() == [1e-6, 1e-6, 5e-7, 2.5e-7]


# ---- what it takes and what it refuses


def test_pytrees_and_types_come_through() -> None:
    seen = {}
    data = {
        "pair": (np.ones((6, 2)), np.arange(6, dtype=np.int64)),
        "flag": np.arange(6) % 2 == 0,
        "pixels": np.arange(6, dtype=np.uint8).reshape(6, 1, 1),
        "half": np.ones(6, np.float16),
    }

    def objective(parameters, batch):
        seen.update(
            {
                "/".join(map(str, path)): (leaf.shape, str(leaf.dtype))
                for path, leaf in jax.tree_util.tree_leaves_with_path(batch)
            }
        )
        return ((batch["pair"][0] @ parameters["a"][0] - batch["pair"][1]) + parameters["b"]) ** 2

    start = {"a": [jnp.zeros(2)], "b": 0.0}
    result = minimize(objective, start, data, batch_size=4, epochs=1)
    assert jax.tree.structure(result.parameters) == jax.tree.structure(start)
    assert result.parameters["a"][0].shape == (2,)
    assert sorted(seen.values()) == sorted(
        [((4,), "bool"), ((4,), "float16"), ((4, 2), "float32"), ((4,), "int32"), ((4, 1, 1), "uint8")]
    )


def test_a_frame_is_data() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1, 1, 1]})
    result = minimize(
        lambda p, rows: ((rows - p) ** 2).sum(axis=1),
        jnp.zeros(2),
        frame,
        optimizer=SGD(0.1),
        batch_size="all",
        epochs=500,
    )
    np.testing.assert_allclose(result.parameters, [2.0, 1.0], atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_parameters_keep_their_type(x64, dtype) -> None:
    """Whatever the type of the data, and of the numbers that the objective makes of both."""
    start = {"a": jnp.zeros(2, dtype), "b": jnp.zeros((), "float32")}
    for optimizer in (SGD(0.1), optax.sgd(0.1)):
        result = minimize(
            lambda p, rows: (rows - p["a"].sum() - p["b"]) ** 2,
            start,
            np.array([0.25, 0.75]),
            optimizer=optimizer,
            batch_size="all",
            epochs=2,
        )
        assert jax.tree.map(lambda leaf: str(leaf.dtype), result.parameters) == {"a": dtype, "b": "float32"}
        assert float(result.parameters["b"]) == pytest.approx(0.14, rel=0.02)


def test_what_the_caller_owns_stays_as_it_was() -> None:
    start = {"a": jnp.array([1.0, 2.0]), "b": np.array([3.0], np.float32)}
    rows, weights = np.arange(12.0, dtype=np.float32), np.ones(12, np.float32)
    on_device = jnp.asarray(rows)
    for data, size in ((rows, 5), (rows, "all"), (on_device, 5)):
        for optimizer in ("adam", optax.adam(0.01)):
            ends = [
                minimize(
                    lambda p, rows: (rows - p["a"].sum() - p["b"]) ** 2,
                    start,
                    data,
                    optimizer=optimizer,
                    weights=weights,
                    batch_size=size,
                    epochs=2,
                ).parameters
                for _ in range(2)
            ]
            np.testing.assert_array_equal(ends[0]["a"], ends[1]["a"])
            assert not np.array_equal(ends[0]["a"], start["a"])
    assert start["a"].tolist() == [1.0, 2.0]
    assert start["b"].tolist() == [3.0]
    assert rows.tolist() == on_device.tolist() == list(range(12))
    assert weights.tolist() == [1.0] * 12


REFUSED = {
    "no parameters": (((distance, {}, ROWS), {}), "no parameters"),
    "whole parameters": (((distance, {"a": 1}, ROWS), {}), r"\['a'\] holds int32.*0.0 instead of 0"),
    "a whole parameter": (((distance, 1, ROWS), {}), "parameter given holds int32"),
    "no epochs": (((distance, 0.0, ROWS), {"epochs": 0}), "at least one epoch; epochs=0"),
    "half epochs": (((distance, 0.0, ROWS), {"epochs": 1.5}), "epochs=1.5"),
    "a seed below 0": (((distance, 0.0, ROWS), {"seed": -1}), "seed=-1"),
    "half a seed": (((distance, 0.0, ROWS), {"seed": 1.5}), "seed=1.5"),
    "a tolerance below 0": (((distance, 0.0, ROWS), {"tolerance": -1.0}), "tolerance=-1.0"),
    "no tolerance": (((distance, 0.0, ROWS), {"tolerance": float("nan")}), "tolerance=nan"),
    "an empty batch": (((distance, 0.0, ROWS), {"batch_size": 0}), "whole number from 1.*got 0"),
    "half a batch": (((distance, 0.0, ROWS), {"batch_size": 2.5}), "whole number from 1.*got 2.5"),
    "a word as batch": (((distance, 0.0, ROWS), {"batch_size": "some"}), "'all'; got 'some'"),
    "an unknown rule": (((distance, 0.0, ROWS), {"optimizer": "adm"}), "mean 'adam'"),
    "no rows": (((distance, 0.0, np.zeros(0)), {}), "no rows"),
    "no arrays": (((distance, 0.0, {}), {}), "data"),
    "no rows to validate": (((distance, 0.0, ROWS), {"validation_data": np.zeros(0)}), "no rows"),
    "uneven rows": (((squared_error, jnp.zeros(3), (X, Y[:9])), {}), r"number of rows: \[9, 37\]"),
    "text": (((distance, 0.0, np.array(["a", "b"])), {}), "holds <U1.*steepest fit"),
    "a single number": (((distance, 0.0, 3.0), {}), "rows as its first axis"),
    "large whole numbers": (((distance, 0.0, np.array([2**40, 1])), {}), "outside of int32.*astype"),
    "too few weights": (((distance, 0.0, ROWS), {"weights": [1.0]}), r"4 rows; got \(1,\)"),
    "weights below 0": (((distance, 0.0, ROWS), {"weights": [1, 1, 1, -1]}), "0 or above"),
    "weights without end": (((distance, 0.0, ROWS), {"weights": [1, 1, 1, np.inf]}), "finite"),
    "weights of 0": (((distance, 0.0, ROWS), {"weights": np.zeros(4)}), "not all 0"),
    "weights for a single number": (
        ((mean_squared_error, jnp.zeros(3), (X, Y)), {"weights": W}),
        "one loss for each row",
    ),
    "validation weights for a single number": (
        (
            (mean_squared_error, jnp.zeros(3), (X, Y)),
            {"validation_data": (X, Y), "validation_weights": W},
        ),
        "one loss for each row",
    ),
    "weights without data": (((constant, 0.0), {"weights": [1.0]}), "data"),
    "validation without data": (((constant, 0.0), {"validation_data": ROWS}), "data"),
    "validation weights without data": (
        ((distance, 0.0, ROWS), {"validation_weights": ROWS}),
        "validation_data",
    ),
    "metrics without data": (((distance, 0.0, ROWS), {"metrics": {"m": distance}}), "validation_data"),
    "a matrix of losses": (
        ((lambda p, b: b[:, None] * b * p, 0.0, ROWS), {}),
        r"4 rows the objective returned the shape \(4, 4\).*\(4,\)",
    ),
    "losses without data": (((lambda p: p * jnp.ones(3), 0.0), {}), r"single number; its shape is \(3,\)"),
    "a pair of losses": (((lambda p, b: (p, b), 0.0, ROWS), {}), "single number or one loss"),
    "a pair without data": (((lambda p: (p, p), 0.0), {}), "single number"),
    "a penalty below 0": (((distance, 0.0, ROWS), {"l1": -1.0}), "l1 must be 0 or above"),
    "an endless penalty": (((distance, 0.0, ROWS), {"l2": np.inf}), "l2 must be 0 or above"),
    "a penalty of another shape": (((distance, 0.0, ROWS), {"l2": {"a": 1.0}}), "l2 must be a number, or"),
    "a penalty of another size": (((distance, 0.0, ROWS), {"l2": np.ones(3)}), "l2 must be"),
    "l1 with optax": (((distance, 0.0, ROWS), {"optimizer": optax.sgd(0.1), "l1": 1.0}), "L1 needs one of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case) -> None:
    (arguments, settings), message = REFUSED[case]
    with pytest.raises(SteepestError, match=message) as raised:
        minimize(*arguments, **settings)
    assert "\n" not in str(raised.value)


def test_numbers_of_any_kind_are_numbers() -> None:
    settings = {"epochs": 2, "batch_size": 2}
    expected = minimize(lambda p, b: (b - p["a"]) ** 2, {"a": 0.0}, ROWS, l2=0.5, **settings).parameters
    for number in (np.float32(0.5), np.float64(0.5), jnp.float32(0.5)):
        found = minimize(lambda p, b: (b - p["a"]) ** 2, {"a": 0.0}, ROWS, l2=number, **settings).parameters
        assert found == expected

"""Update rules: step by step against Optax and Keras, and against closed forms on quadratics.

One list of rules is crossed with problems and floating-point types. Learning rates are powers of two,
because Keras keeps its rate in single precision; Adam's ε is negligible where Keras, which adds it
before the bias correction, is the oracle.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest

import steepest
from steepest.descent import schedules
from steepest.descent.optimizers import OPTIMIZERS, as_optimizer, optimizer_by_name
from steepest.descent.state import start
from steepest.descent.step import Batches, Constants, Program, take_step
from steepest.errors import SteepestError

EPS = 1e-15
K = keras.optimizers


def clipped(rule):
    return lambda rate: optax.chain(optax.clip_by_global_norm(0.5), rule(rate))


def optax_rmsprop(rate):
    return optax.rmsprop(rate, 0.9, eps=1e-7, eps_in_sqrt=True)


RULES = {
    "sgd": (steepest.SGD, optax.sgd, K.SGD),
    "momentum": (
        steepest.Momentum,
        lambda rate: optax.sgd(rate, 0.9),
        lambda rate: K.SGD(rate, momentum=0.9),
    ),
    "nesterov": (
        steepest.Nesterov,
        lambda rate: optax.sgd(rate, 0.9, nesterov=True),
        lambda rate: K.SGD(rate, momentum=0.9, nesterov=True),
    ),
    "adagrad": (steepest.AdaGrad, lambda rate: optax.adagrad(rate, 0.1, eps=1e-7), K.Adagrad),
    "rmsprop": (steepest.RMSProp, optax_rmsprop, K.RMSprop),
    "adam": (
        lambda rate: steepest.Adam(rate, epsilon=EPS),
        lambda rate: optax.adam(rate, eps=EPS),
        lambda rate: K.Adam(rate, epsilon=EPS),
    ),
    "adamw": (
        lambda rate: steepest.AdamW(rate, weight_decay=0.1, epsilon=EPS),
        lambda rate: optax.adamw(rate, eps=EPS, weight_decay=0.1),
        lambda rate: K.AdamW(rate, weight_decay=0.1, epsilon=EPS),
    ),
    "clipped momentum": (
        lambda rate: steepest.Momentum(rate, clip_norm=0.5),
        clipped(lambda rate: optax.sgd(rate, 0.9)),
        lambda rate: K.SGD(rate, momentum=0.9, global_clipnorm=0.5),
    ),
    "clipped adam": (
        lambda rate: steepest.Adam(rate, epsilon=EPS, clip_norm=0.5),
        clipped(lambda rate: optax.adam(rate, eps=EPS)),
        lambda rate: K.Adam(rate, epsilon=EPS, global_clipnorm=0.5),
    ),
}
CURVATURES = np.array([4.0, 1.0, 0.25])


def quadratic(position):
    return 0.5 * (position * CURVATURES.astype(position.dtype)) @ position


def rosenbrock(position):
    return (1 - position[0]) ** 2 + 100 * (position[1] - position[0] ** 2) ** 2


def logistic(cancer):
    def objective(position):
        features, targets = (jnp.asarray(each[:100], position.dtype) for each in cancer)
        return optax.sigmoid_binary_cross_entropy(features @ position, targets).mean()

    return objective


def ours(objective, position, rule):
    """Return the start of our own descent, without its front end, and its step: carry, rate -> carry."""
    program = Program(
        lambda position, batch, key: objective(position),
        rule.transformation,
        rule.preconditioner,
        lambda position: position,
    )
    limit = None if rule.clip_norm is None else jnp.asarray(rule.clip_norm, position.dtype)
    constants = Constants(jax.random.key(0), jnp.asarray(-1.0, position.dtype), clip_norm=limit)

    def step(state, rate):
        return take_step(program, constants, state, Batches((), jnp.ones(1), rate))[0]

    return start(position, rule.transformation.init(position)), step


def optaxs(objective, position, transformation):
    """Return the start and the step of Optax."""

    def step(carry, _):
        position, state = carry
        updates, state = transformation.update(jax.grad(objective)(position), state, position)
        return optax.apply_updates(position, updates), state

    return (position, transformation.init(position)), step


def kerass(objective, position, optimizer):
    """Return the start and the step of Keras."""
    optimizer.build([keras.Variable(np.asarray(position), dtype=str(position.dtype))])

    def step(carry, _):
        position, state = carry
        (position,), state = optimizer.stateless_apply(state, [jax.grad(objective)(position)], [position])
        return position, state

    return (position, [variable.value for variable in optimizer.variables]), step


def paths(rates, *descents):
    """Return the positions after each step of several descents, which are run side by side."""
    starts, steps = zip(*descents, strict=True)

    def go(carries, rate):
        carries = tuple(step(carry, rate) for step, carry in zip(steps, carries, strict=True))
        return carries, tuple(carry[0] for carry in carries)

    return [np.asarray(path) for path in jax.lax.scan(go, starts, rates)[1]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("problem", ["quadratic", "rosenbrock", "logistic"])
@pytest.mark.parametrize("name", RULES)
def test_each_step_is_that_of_optax_and_of_keras(name, problem, dtype, cancer) -> None:
    objective, first, rate = {
        "quadratic": (quadratic, [1.0, -2.0, 3.0], 2.0**-4),
        "rosenbrock": (rosenbrock, [-1.2, 1.0], 2.0**-11),
        "logistic": (logistic(cancer), np.zeros(30), 2.0**-7),
    }[problem]
    rule, in_optax, in_keras = RULES[name]
    with jax.enable_x64(dtype == "float64"):
        position = jnp.asarray(first, dtype)
        found, optax_path, keras_path = paths(
            jnp.full(100, rate, dtype),
            ours(objective, position, rule(rate)),
            optaxs(objective, position, in_optax(rate)),
            kerass(objective, position, in_keras(rate)),
        )
    tolerance = {"float32": 1e-4, "float64": 1e-11}[dtype]
    assert found.dtype == dtype
    assert np.abs(found[-1] - first).max() > 0.005, "it has moved"
    np.testing.assert_allclose(found, optax_path, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found, keras_path, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adagrad", "rmsprop", "adamw"])
def test_a_changing_rate_is_optaxs(x64, name) -> None:
    """Optax's velocity follows the new rate at once, and so does ours (Keras' does not)."""
    rule, in_optax, _ = RULES[name]
    schedule = schedules.exponential(0.1, decay_steps=20, decay_rate=0.5)
    rates = jnp.asarray(schedule(np.arange(60)))
    position = jnp.array([1.0, -2.0, 3.0])
    found, expected = paths(
        rates,
        ours(quadratic, position, rule(schedule)),
        optaxs(quadratic, position, in_optax(lambda step: rates[step])),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        ("sgd", K.SGD()),
        ("adagrad", K.Adagrad()),
        ("rmsprop", K.RMSprop()),
        ("adam", K.Adam()),
        ("adamw", K.AdamW()),
    ],
)
def test_defaults_are_kerass(rule, theirs) -> None:
    names = {
        "momentum": "momentum",
        "nesterov": "nesterov",
        "decay": "rho",
        "beta_1": "beta_1",
        "beta_2": "beta_2",
        "epsilon": "epsilon",
        "weight_decay": "weight_decay",
        "initial_accumulator": "initial_accumulator_value",
    }
    default, config = OPTIMIZERS[rule](), theirs.get_config()
    assert default.schedule.settings["learning_rate"] == pytest.approx(config["learning_rate"])
    assert default.clip_norm is config["global_clipnorm"]
    assert {names[name]: value for name, value in default.settings.items()} == {
        names[name]: config[names[name]] for name in default.settings
    }


def powers(matrix, first, steps):
    """Return ``M first, M² first, …``."""
    found = []
    for _ in range(steps):
        first = matrix @ first
        found.append(first)
    return np.array(found)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_descent_on_a_quadratic_is_its_closed_form(x64, rate) -> None:
    """Step by step, ``θ_t = (I - η A)^t θ_0``, for an A that is not diagonal."""
    root = np.random.default_rng(0).normal(size=(5, 5))
    matrix, first = root @ root.T / 5, np.arange(1.0, 6.0)
    (found,) = paths(
        jnp.full(80, rate), ours(lambda p: 0.5 * p @ matrix @ p, jnp.asarray(first), steepest.SGD(rate))
    )
    np.testing.assert_allclose(found, powers(np.eye(5) - rate * matrix, first, 80), rtol=1e-9)


@pytest.mark.parametrize(("name", "nesterov"), [("momentum", False), ("nesterov", True)])
def test_momentum_on_a_quadratic_is_its_closed_form(x64, name, nesterov) -> None:
    """Each eigenvector follows powers of a 2 × 2 matrix in (θ, velocity)."""
    rate, momentum = 0.1, 0.9
    (found,) = paths(
        jnp.full(80, rate),
        ours(quadratic, jnp.ones(3), OPTIMIZERS[name](rate, momentum=momentum)),
    )
    for column, curvature in enumerate(CURVATURES):
        look = 1 + momentum if nesterov else 1
        ahead = momentum**2 if nesterov else momentum
        matrix = np.array([[1 - rate * look * curvature, -rate * ahead], [curvature, momentum]])
        expected = powers(matrix, np.array([1.0, 0.0]), 80)[:, 0]
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("rule", "limit"),
    [
        (steepest.SGD, 2.0),
        (lambda rate: steepest.Momentum(rate, momentum=0.5), 2 + 2 * 0.5),
        (lambda rate: steepest.Momentum(rate, momentum=0.9), 2 + 2 * 0.9),
        (lambda rate: steepest.Nesterov(rate, momentum=0.5), (2 + 2 * 0.5) / (1 + 2 * 0.5)),
        (lambda rate: steepest.Nesterov(rate, momentum=0.9), (2 + 2 * 0.9) / (1 + 2 * 0.9)),
    ],
)
def test_the_largest_stable_rate(x64, rule, limit) -> None:
    """A curvature of 4 is stable up to the rate ``limit / 4``: θ dies out below it and grows above."""
    sizes = {}
    for side in (0.99, 1.01):
        rate = side * limit / 4.0
        (found,) = paths(jnp.full(3000, rate), ours(lambda p: 2.0 * p @ p, jnp.ones(1), rule(rate)))
        sizes[side] = np.abs(found[-10:]).max()
    assert sizes[0.99] < 1e-5
    assert sizes[1.01] > 1e5


@pytest.mark.parametrize(
    "rule",
    [
        steepest.SGD(1.0),
        steepest.Momentum(1.0),
        steepest.Nesterov(1.0, momentum=0.5),
        steepest.AdaGrad(1.0),
        steepest.RMSProp(1.0),
        steepest.Adam(1.0),
    ],
    ids=lambda rule: rule.name,
)
def test_the_preconditioner_is_what_a_gradient_that_stays_is_multiplied_by(x64, rule) -> None:
    gradient = jnp.array([0.5, -2.0, 1e-3])

    def go(state, _):
        updates, state = rule.transformation.update(gradient, state, jnp.zeros(3))
        return state, updates

    state, updates = jax.lax.scan(go, rule.transformation.init(jnp.zeros(3)), None, length=400)
    np.testing.assert_allclose(
        updates[-1], -gradient * rule.preconditioner(state, jnp.asarray(399)), rtol=1e-12
    )


def test_equal_settings_share_their_functions() -> None:
    """Another rate is the same program."""
    for make in OPTIMIZERS.values():
        first, second = make(0.1), make(schedules.step(0.2, every=3))
        assert first.transformation is second.transformation
        assert first.preconditioner is second.preconditioner
        if make is not steepest.LBFGS:
            assert first.transformation is make(0.1, clip_norm=1.0).transformation
    assert steepest.SGD(momentum=0.5).transformation is not steepest.SGD(momentum=0.9).transformation


def test_rules_by_name() -> None:
    for name, make in OPTIMIZERS.items():
        assert make().name == name
        assert as_optimizer(name).transformation is make().transformation
        assert as_optimizer(name).schedule.settings == make().schedule.settings
    rule = steepest.Adam(0.1)
    assert as_optimizer(rule) is rule
    assert as_optimizer(optax.lion(1e-4)).preconditioner is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: steepest.SGD(0.0), "learning_rate must be a number above zero, not 0.0"),
        (lambda: steepest.SGD(-1.0), "learning_rate must be"),
        (lambda: steepest.Adam(float("nan")), "learning_rate must be"),
        (lambda: steepest.Adam(float("inf")), "learning_rate must be"),
        (lambda: steepest.SGD(momentum=1.0), r"momentum must lie in \[0, 1\)"),
        (lambda: steepest.SGD(nesterov=True), "needs momentum.*momentum=0.9"),
        (lambda: steepest.RMSProp(decay=1.0), "decay must lie"),
        (lambda: steepest.Adam(beta_1=1.0), "beta_1 must lie"),
        (lambda: steepest.Adam(beta_2=-0.1), "beta_2 must lie"),
        (lambda: steepest.AdamW(clip_norm=0.0), "clip gradients to must be above zero"),
        (lambda: optimizer_by_name("adm"), "no optimizer 'adm'.*mean 'adam'"),
        (lambda: as_optimizer(3), "got int"),
    ],
)
def test_errors(make, message) -> None:
    with pytest.raises(SteepestError, match=message):
        make()


def test_lbfgs_finds_the_minimum_that_scikit_learn_finds():
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features, target = load_breast_cancer(return_X_y=True)
    features = StandardScaler().fit_transform(features)
    strength = 0.01
    theirs = LogisticRegression(C=1 / (2 * strength * len(target)), tol=1e-8, max_iter=1000)
    theirs.fit(features, target)

    def loss(parameters, batch):
        score = batch["features"] @ parameters["weights"] + parameters["bias"]
        return jnp.logaddexp(0, score) - batch["target"] * score

    result = steepest.minimize(
        loss,
        {"weights": np.zeros(features.shape[1], np.float32), "bias": np.float32(0)},
        {"features": features.astype(np.float32), "target": target.astype(np.float32)},
        optimizer=steepest.LBFGS(),
        batch_size="all",
        epochs=100,
        l2={"weights": strength, "bias": 0.0},
        tolerance=1e-5,
    )
    assert result.converged
    assert result.steps < 60
    np.testing.assert_allclose(result.parameters["weights"], theirs.coef_[0], atol=2e-3)


@pytest.mark.parametrize(("rate", "most"), [(1.0, 24), pytest.param(0.5, 40, marks=pytest.mark.slow)])
def test_lbfgs_takes_the_steps_of_optax_and_measures_no_point_twice(rate, most):
    draws = np.random.Generator(np.random.Philox(1))
    features = draws.normal(size=(200, 4)).astype(np.float32)
    target = (features @ [1, -2, 3, 0] + draws.normal(size=200) > 0).astype(np.float32)
    measured = []

    def losses(parameters, batch):
        jax.debug.callback(measured.append, parameters[0])
        score = batch[0] @ parameters
        return jnp.logaddexp(0, score) - batch[1] * score

    result = steepest.minimize(
        losses, np.zeros(4, np.float32), (features, target),
        optimizer=steepest.LBFGS(rate), batch_size="all", epochs=15, tolerance=0.0,
    )  # fmt: skip
    jax.effects_barrier()
    assert len(measured) <= most

    def loss(parameters):
        score = features @ parameters
        return jnp.mean(jnp.logaddexp(0, score) - target * score)

    solver, theirs, expected = optax.lbfgs(), jnp.zeros(4), []
    state = solver.init(theirs)
    for _ in range(15):
        value, gradient = jax.value_and_grad(loss)(theirs)
        expected.append(float(value))
        updates, state = solver.update(gradient, state, theirs, value=value, grad=gradient, value_fn=loss)
        theirs = theirs + rate * updates
    np.testing.assert_allclose(result.history["loss"], expected, rtol=1e-4)


def test_lbfgs_refuses_batches():
    with pytest.raises(SteepestError, match="L-BFGS needs the loss of all rows"):
        steepest.minimize(
            lambda p, x: (x - p) ** 2, 0.0, np.arange(9.0), optimizer="lbfgs", batch_size=3, epochs=1
        )

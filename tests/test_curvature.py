"""The largest curvature against exact Hessians, and the rules' limits on quadratics from both sides."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import steepest
from campaigns import among
from steepest.descent.models import multilayer
from steepest.descent.optimizers import as_optimizer
from steepest.diagnosis.curvature import _product, largest_curvature, stability

KEY = jax.random.key(3)


def quadratic(parameters, matrix):
    return 0.5 * parameters @ matrix @ parameters


def exact_hessian(loss, parameters):
    point, unravel = ravel_pytree(parameters)
    return np.asarray(jax.hessian(lambda theta: loss(unravel(theta)))(point))


def network(activation):
    """Return a small network's loss on 64 rows, and its parameters."""
    model = multilayer(5, (6, 4), activation=activation)
    generator = np.random.default_rng(0)
    features = jnp.asarray(generator.normal(size=(64, 5)))
    target = jnp.asarray(generator.normal(size=64))

    def loss(parameters):
        return jnp.mean((model.apply(parameters, features) - target) ** 2)

    return loss, model.init(jax.random.key(1))


@pytest.mark.parametrize("activation", among(["relu", "tanh", "gelu"], "tanh"))
def test_a_network_has_its_exact_largest_curvature(x64, activation):
    loss, parameters = network(activation)
    found = largest_curvature(loss, parameters, key=KEY, products=40)
    exact = np.linalg.eigvalsh(exact_hessian(loss, parameters))[-1]
    np.testing.assert_allclose(found.value, exact, rtol=1e-6)
    assert abs(found.value - exact) <= found.residual + 1e-9


@pytest.mark.parametrize("name", among(["adagrad", "rmsprop", "adam", "adamw"], "adagrad", "adam"))
def test_an_adaptive_rule_sees_the_preconditioned_curvature(x64, name):
    loss, parameters = network("tanh")
    rule = as_optimizer(name)
    state = rule.transformation.init(parameters)
    for _ in range(20):
        gradient = jax.grad(loss)(parameters)
        updates, state = rule.transformation.update(gradient, state, parameters)
        parameters = jax.tree.map(lambda theta, update: theta + 0.01 * update, parameters, updates)
    scale = rule.preconditioner(state, jnp.asarray(20))
    flat = np.asarray(ravel_pytree(scale)[0])
    found = largest_curvature(loss, parameters, scale=scale, key=KEY, products=60)
    exact = np.linalg.eigvals(flat[:, None] * exact_hessian(loss, parameters)).real.max()
    np.testing.assert_allclose(found.value, exact, rtol=1e-6)


def test_twenty_products_find_the_largest_of_many():
    generator = np.random.default_rng(1)
    orthogonal = np.linalg.qr(generator.normal(size=(300, 300)))[0]
    values = np.concatenate([np.geomspace(1e-4, 1, 299), [1.3]])
    matrix = jnp.asarray(orthogonal * values @ orthogonal.T, jnp.float32)
    found = largest_curvature(quadratic, jnp.zeros(300), matrix, key=KEY)
    assert found.products == 20
    assert found.value == pytest.approx(1.3, rel=1e-3)
    assert found.residual < 0.02


def test_one_number_scales_everything(x64):
    matrix = jnp.diag(jnp.array([1.0, 4.0]))
    assert largest_curvature(quadratic, jnp.ones(2), matrix, 0.5, key=KEY).value == pytest.approx(2.0)


def test_the_same_key_gives_the_same_bits():
    loss, parameters = network("relu")
    first, again = (largest_curvature(loss, parameters, key=KEY, products=5) for _ in range(2))
    assert first == again
    assert largest_curvature(loss, parameters, key=jax.random.key(4), products=5) != first


def test_a_second_point_compiles_nothing():
    largest_curvature(quadratic, jnp.ones(2), jnp.eye(2), key=KEY)
    compiled = _product._cache_size()
    largest_curvature(quadratic, jnp.zeros(2), 2 * jnp.eye(2), key=jax.random.key(9))
    assert _product._cache_size() == compiled


def test_an_infinite_loss_has_none():
    found = largest_curvature(lambda theta: jnp.sum(theta) / 0.0, jnp.zeros(2), key=KEY)
    assert np.isnan(found.value)
    assert np.isnan(found.residual)


def test_nothing_has_no_curvature():
    with pytest.raises(steepest.SteepestError, match="at least, not 0 and 20"):
        largest_curvature(lambda p: 0.0, {}, key=KEY)
    with pytest.raises(steepest.SteepestError, match="not 2 and 0"):
        largest_curvature(quadratic, jnp.ones(2), jnp.eye(2), key=KEY, products=0)


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([1, 2, 3, 7]),
    values=st.lists(st.sampled_from([-100.0, -1.0, 0.0, 1e-3, 1.0, 2.0, 1e4]), min_size=7, max_size=7),
    seed=st.integers(0, 2**31),
)
def test_any_symmetric_matrix_of_few_dimensions(size, values, seed):
    """Indefinite, degenerate, negative or zero: with a product for each dimension the value is exact."""
    with jax.enable_x64(True):
        orthogonal = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
        matrix = jnp.asarray(orthogonal * np.array(values[:size]) @ orthogonal.T)
        found = largest_curvature(quadratic, jnp.zeros(size), matrix, key=jax.random.key(seed))
    assert found.products == size
    assert found.value == pytest.approx(max(values[:size]), abs=1e-8 * max(map(abs, values)))
    assert found.residual <= 1e-6


RULES = {
    "sgd": steepest.SGD,
    "momentum": lambda rate: steepest.Momentum(rate, momentum=0.9),
    "heavy ball of 0.5": lambda rate: steepest.Momentum(rate, momentum=0.5),
    "nesterov": lambda rate: steepest.Nesterov(rate, momentum=0.9),
    "nesterov of 0.3": lambda rate: steepest.Nesterov(rate, momentum=0.3),
    # Constants so large beside the gradients that the state's part of the scale does not move.
    "adagrad": lambda rate: steepest.AdaGrad(rate, initial_accumulator=4.0),
    "rmsprop": lambda rate: steepest.RMSProp(rate, epsilon=4.0),
    "adam": lambda rate: steepest.Adam(rate, epsilon=2.0),
    "adam of 0.5": lambda rate: steepest.Adam(rate, beta_1=0.5, epsilon=2.0),
    "adamw": lambda rate: steepest.AdamW(rate, epsilon=2.0, weight_decay=1e-9),
}


CURVATURES = jnp.array([0.5, 3.0, 7.0])


def bowl(theta):
    return 0.5 * jnp.sum(CURVATURES * theta**2)


@pytest.mark.parametrize("name", RULES)
def test_the_limit_of_each_rule_on_a_quadratic_from_both_sides(x64, name):
    halved = name.startswith(("ada", "rms"))  # 1/√4, or 1/2
    curvature = largest_curvature(bowl, jnp.zeros(3), scale=0.5 if halved else None, key=KEY).value
    assert curvature == pytest.approx(3.5 if halved else 7.0)
    limit = stability(RULES[name](1.0)) / curvature

    def growth(rate):
        """Return how the gradient grows from step 50 on: Adam's first steps are larger than its rate."""
        start = jnp.full(3, 1e-30)
        result = steepest.minimize(bowl, start, optimizer=RULES[name](rate), epochs=300, tolerance=0)
        norms = result.history["gradient_norm"].to_numpy()[50:]
        return norms / norms[0]

    assert growth(0.97 * limit)[-1] < 0.1
    assert growth(1.03 * limit).max() > 100


@pytest.mark.parametrize("name", ["rmsprop", "adam"])
def test_the_limit_with_a_scale_of_its_own_for_each_parameter(x64, name):
    root = np.random.default_rng(2).normal(size=(4, 4))
    matrix = jnp.asarray(root @ root.T)
    rule = {"rmsprop": steepest.RMSProp(decay=1 - 1e-9), "adam": steepest.Adam(beta_2=1 - 1e-9)}[name]
    # The rule's own state, as if it had seen gradients of these sizes for a very long time.
    seen = {"nu": jnp.array([1e-4, 1e-2, 1.0, 9.0])} | (
        {"count": jnp.asarray(2e18, jnp.int64)} if name == "adam" else {}
    )
    state = optax.tree_utils.tree_set(rule.transformation.init(jnp.zeros(4)), **seen)
    scale = rule.preconditioner(state, jnp.asarray(0))
    curvature = largest_curvature(quadratic, jnp.zeros(4), matrix, scale, key=KEY).value
    limit = stability(rule) / curvature

    @jax.jit
    def distance(rate):
        def step(carry, _):
            theta, memory = carry
            updates, memory = rule.transformation.update(matrix @ theta, memory, theta)
            return (theta + rate * updates, memory), jnp.linalg.norm(theta) / 2e-9

        return jax.lax.scan(step, (jnp.full(4, 1e-9), state), length=20_000)[1]

    below, above = np.asarray(distance(0.97 * limit)), np.asarray(distance(1.03 * limit))
    assert below[-1] < 0.5
    assert above.max() > 100


def test_an_unknown_rule_has_no_limit():
    assert stability(as_optimizer(optax.lion(1e-3))) is None

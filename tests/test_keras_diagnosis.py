"""Why a Keras model's descent went as it did: `steepest.keras.fit(..., diagnose=True)`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import steepest.keras
from campaigns import among
from keras_manners import assert_same, bits, network, table
from steepest.diagnosis.curvature import stability
from steepest.keras.examining import objective_of, parameters_of
from steepest.keras.program import state_of
from steepest.keras.rules import as_rule, scale_of
from steepest.keras.seeing import layers_of

X, Y = table(rows=256)


def dense(optimizer: Any, *units: int, activation: str = "tanh", loss: str = "mse", **more: Any):
    keras.utils.set_random_seed(3)
    hidden = [keras.layers.Dense(each, activation=activation, **more) for each in units]
    model = keras.Sequential([keras.layers.Input((3,)), *hidden, keras.layers.Dense(1)])
    model.compile(optimizer, loss)
    return model


def fit(model: keras.Model, x: Any = X, y: Any = Y, **more: Any) -> keras.callbacks.History:
    more = {"epochs": 3, "batch_size": 32, "verbose": 0, "seed": 0} | more
    return steepest.keras.fit(model, x, y, diagnose=True, **more)


def found(history: keras.callbacks.History) -> list[str]:
    return [each["finding"] for each in history.findings]


RULES = [
    keras.optimizers.Adam(0.1, beta_1=0.0),
    keras.optimizers.Adam(0.1, beta_1=0.0, amsgrad=True),
    keras.optimizers.RMSprop(0.1),
    keras.optimizers.Adagrad(0.1),
]


@pytest.mark.parametrize("optimizer", RULES, ids=lambda rule: type(rule).__name__)
def test_the_scale_is_what_keras_multiplies_a_gradient_by(optimizer) -> None:
    """Without a first moment, Keras' own step is the rate times scale times gradient."""
    variable = keras.Variable(np.ones(4, "float32"))
    optimizer.build([variable])
    for scale in (1.0, 3.0, 0.2):
        gradient = jnp.asarray(np.array([0.1, 1.0, -2.0, 1e-4], "float32") * scale)
        before = np.array(variable.value)
        optimizer.apply([gradient])
    (found,) = scale_of(optimizer, lambda each: each.value)
    np.testing.assert_allclose(before - np.array(variable.value), 0.1 * found * gradient, rtol=2e-3)


def test_rules_have_the_limits_of_steepests_own() -> None:
    kinds = keras.optimizers
    limits = {
        2.0: kinds.SGD(),
        3.6: kinds.SGD(momentum=0.8),
        3.6 / 2.6: kinds.SGD(momentum=0.8, nesterov=True),
        38.0: kinds.Adam(),
        8.0 / 3: kinds.LossScaleOptimizer(kinds.AdamW(beta_1=1 / 7)),
    }
    for limit, optimizer in limits.items():
        assert stability(as_rule(optimizer)) == pytest.approx(limit)
    for unknown in (kinds.Lion(), kinds.Nadam(), kinds.RMSprop(momentum=0.5), kinds.RMSprop(centered=True)):
        assert stability(as_rule(unknown)) is None


def test_the_loss_of_rows_is_the_compiled_one() -> None:
    """Keras' own evaluation of the batch: weights, penalties, and moving averages included."""
    model = dense("sgd", 4, kernel_regularizer=keras.regularizers.L2(0.1))
    for other in (model, network(loss="mse")):
        steepest.keras.fit(other, X, Y, verbose=0)
        weights = np.linspace(0, 3, len(X), dtype="float32")
        batch = {"features": X, "target": Y, "weights": weights}
        losses = objective_of(other)(parameters_of(state_of(other)), batch)
        wanted = other.evaluate(X, Y, sample_weight=weights, batch_size=len(X), verbose=0, return_dict=True)
        trained = float(np.mean(losses))
        assert losses.shape == (len(X),)
        trainable, others, _, metrics = state_of(other)
        _, (loss, *_) = other.compute_loss_and_updates(trainable, others, metrics, X, Y, weights)
        assert trained == pytest.approx(float(loss), rel=1e-5)
        assert other is model or trained == pytest.approx(
            np.average((other.predict(X, verbose=0) - Y)[:, 0] ** 2 * weights), rel=1e-5
        )
        assert wanted["loss"] > 0


@pytest.mark.parametrize("name", among(["sgd", "adam"], "adam"))
def test_curvature_and_gradient_are_those_of_the_exact_hessian(name) -> None:
    optimizer = keras.optimizers.get({"class_name": name, "config": {"learning_rate": 0.02}})
    model = dense(optimizer, 2)
    start = parameters_of((model.trainable_variables, ()))["trainable"]
    evidence = fit(model).evidence

    def loss(values: Any) -> jax.Array:
        variables = [values[str(index)] for index in range(4)]
        return jnp.mean((model.stateless_call(variables, [], X)[0] - Y) ** 2)

    def largest(values: Any, scale: np.ndarray) -> float:
        flat, unravel = ravel_pytree(values)
        hessian = np.asarray(jax.hessian(lambda theta: loss(unravel(theta)))(flat), np.float64)
        return float(np.linalg.eigvalsh(np.sqrt(scale)[:, None] * hessian * np.sqrt(scale))[-1])

    end = parameters_of(state_of(model))["trainable"]
    scale = np.ones(11)
    if name == "adam":
        velocities = [v for v in model.optimizer.variables if v.path.endswith("_velocity")]
        flat = np.concatenate([np.ravel(each.value) for each in velocities])
        scale = 1 / (np.sqrt(flat / (1 - 0.999**24)) + 1e-7)
        assert "curvature" not in evidence["start"]
    else:
        assert evidence["start"]["curvature"] == pytest.approx(largest(start, scale), rel=1e-3)
    assert evidence["end"]["curvature"] == pytest.approx(largest(end, scale), rel=1e-3)
    limit = {"sgd": 2, "adam": 38}[name] / 0.02
    assert evidence["end"]["limit"] == pytest.approx(limit, rel=1e-5)
    norm = np.linalg.norm(ravel_pytree(jax.grad(loss)(end))[0])
    assert evidence["end"]["gradient_norm"] == pytest.approx(norm, rel=1e-3)
    first, last = evidence["end"]["layers"]
    gradient = jax.grad(loss)(end)
    assert first["gradient_norm"] == pytest.approx(np.linalg.norm(gradient["0"]), rel=1e-3)
    assert last["weights_norm"] == pytest.approx(np.linalg.norm(end["2"]), rel=1e-5)
    hidden = np.tanh(X @ end["0"] + end["1"])
    backward = (1 - hidden**2) * end["2"][:, 0]  # what the output, which is linear, sends back
    assert first["backward"] == pytest.approx(np.sqrt((backward**2).sum(axis=1).mean()), rel=1e-4)
    assert "backward" not in last
    assert [first["layer"], last["layer"]] == [each.path for each in model.layers]


def test_units_that_no_gradient_passes() -> None:
    """A ReLU of its own, a convolution and a saturated tanh, each with units lost by its bias."""
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((4, 4, 1)),
            layers.Conv2D(4, 2, activation="relu"),
            layers.Flatten(),
            layers.Dense(8),
            layers.ReLU(name="re_lu"),
            layers.Dense(5, activation="tanh"),
            layers.Dense(2, activation="sigmoid"),
        ]
    )
    model.compile("sgd", "mse")
    for layer, share in ((0, 3), (2, 2), (4, 1)):
        kernel, bias = (np.array(each) for each in model.layers[layer].get_weights())
        bias[:share] = 99.0 if layer == 4 else -99.0
        model.layers[layer].set_weights([kernel, bias])
    x = np.random.default_rng(0).normal(size=(20, 4, 4, 1)).astype("float32")
    parameters = parameters_of(state_of(model))
    size = ravel_pytree(parameters)[0].size
    seen = {each["layer"].rpartition("/")[2]: each for each in layers_of(
        model, parameters, np.zeros(size), {"features": x}
    )}  # fmt: skip
    names = [layer.name for layer in model.layers]
    assert seen[names[0]]["dead"] == 3 / 4
    assert "dead" not in seen[names[2]]
    assert seen[names[3]] == {"layer": "re_lu", "units": 8, "dead": 2 / 8}
    assert seen[names[4]]["saturated"] == 1 / 5
    assert "saturated" not in seen[names[5]]  # the model's output
    # What reaches a layer is counted from before the last activation.
    hidden = np.asarray(keras.Model(model.inputs[0], model.layers[4].output)(x))
    back = (1 - hidden**2) * np.asarray(model.layers[5].kernel).sum(axis=1)
    wanted = np.sqrt((back**2).sum(axis=1).mean())
    assert seen[names[4]]["backward"] == pytest.approx(wanted, rel=1e-4)
    assert names[1] not in seen


def test_a_diagnosis_changes_no_bit() -> None:
    x, y = table(rows=300)
    settings = {"batch_size": 8, "epochs": 35, "shuffle": False, "verbose": 0, "validation_split": 0.1}
    plain, ours = network(), network()
    keras.Model.fit(plain, x, y, **settings)
    history = steepest.keras.fit(ours, x, y, diagnose=True, **settings)
    assert_same(bits(plain), bits(ours))
    assert history.evidence["course"]["steps"] == 35 * 34
    assert history.evidence["course"]["validation"]["last"] == history.history["val_loss"][-1]
    without = steepest.keras.fit(network(), x, y, **settings)
    assert not hasattr(without, "findings")
    assert list(without.steps.columns) == ["epoch", "step", "loss"]
    steps = history.steps.drop(columns="loss").dropna()
    first = steps["step"].tolist()
    assert first == [30 * 34 + 1]  # the window that the 1024th step lies in
    twin = network()
    keras.Model.fit(twin, x, y, **(settings | {"epochs": 30}))
    before = [np.array(each.value) for each in twin.trainable_variables]
    twin.train_on_batch(x[:8], y[:8])  # the next step; its own bits of dropout
    moved = [np.array(each.value) - old for each, old in zip(twin.trainable_variables, before, strict=True)]
    norm = [np.sqrt(sum((each**2).sum() for each in arrays)) for arrays in (moved, before)]
    assert steps["update_ratio"].item() == pytest.approx(norm[0] / norm[1], rel=1e-4)
    dense, last = (ours.layers[index].path for index in (0, 3))
    part = np.linalg.norm(np.append(moved[4], moved[5])) / np.linalg.norm(np.append(before[4], before[5]))
    assert steps[f"update_ratio.{last}"].item() == pytest.approx(part, rel=1e-4)
    assert f"update_ratio.{dense}" in steps


def test_a_healthy_descent_has_no_findings() -> None:
    model = dense(keras.optimizers.Adam(0.02), 8, loss="mse")
    y = (X @ [1.0, -1.0, 0.5] + 0.1 * np.random.default_rng(0).normal(size=256)).astype("float32")
    assert found(fit(model, X, y, epochs=20)) == []


FAR_BELOW_ZERO = {"activation": "relu", "bias_initializer": keras.initializers.Constant(-50)}
FADING = {"activation": "sigmoid", "kernel_initializer": keras.initializers.RandomNormal(stddev=1e-3)}


@pytest.mark.parametrize(
    ("expected", "optimizer", "units", "more"),
    [
        ("rate_too_low", keras.optimizers.SGD(1e-5), (8, 8), {}),
        ("rate_too_high", keras.optimizers.SGD(5.0), (), {"loss": "mae"}),
        ("dead_units", keras.optimizers.SGD(0.001), (8, 8), FAR_BELOW_ZERO),
        ("vanishing_gradient", keras.optimizers.SGD(0.001), (8, 8), FADING),
    ],
)
def test_findings_of_descents_that_go_wrong(expected, optimizer, units, more) -> None:
    y = (X @ [1.0, -1.0, 0.5])[:, None].astype("float32")
    model = dense(optimizer, *units, **more)
    assert expected in found(fit(model, X, y, epochs=8, batch_size=256 if "low" in expected else 8))


def test_the_target_scale_is_looked_at_where_the_loss_takes_numbers() -> None:
    assert "target_scale" in found(fit(dense(keras.optimizers.Adam(), 4), X, 1e4 + 10 * Y, epochs=1))


def rates(model: keras.Model, **more: Any) -> list[float]:
    course = fit(model, **more).evidence["course"]
    return [course[f"rate_{name}"] for name in ("first", "highest", "last")]


def test_rates_that_callbacks_change_are_in_the_course() -> None:
    """Of a model whose measures need no compilation: these rates are read from the history."""
    falling = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    unmeasured = keras.losses.MeanSquaredError(reduction="sum")
    model = dense(keras.optimizers.SGD(), 2, loss=unmeasured)
    np.testing.assert_allclose(rates(model, callbacks=[falling]), [0.1, 0.1, 0.1 / 3], rtol=1e-6)
    decay = keras.optimizers.schedules.PiecewiseConstantDecay([11], [0.1, 0.01])
    model = dense(keras.optimizers.SGD(decay), 2, loss=unmeasured)
    np.testing.assert_allclose(rates(model, epochs=1), [0.1, 0.1, 0.1], rtol=1e-6)
    # The second call goes on where the first has ended.
    np.testing.assert_allclose(rates(model, epochs=1), [0.1, 0.1, 0.01], rtol=1e-6)


class Own(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.out = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.out(x)

    def train_step(self, state: Any, data: Any) -> Any:
        return super().train_step(state, data)


def test_what_cant_be_measured_has_its_course() -> None:
    def batches() -> Any:
        while True:
            yield X[:32], Y[:32]

    stream = steepest.keras.fit(
        dense("sgd", 2), batches(), steps_per_epoch=5, epochs=2, verbose=0, shuffle=False, diagnose=True
    )
    assert stream.evidence["unmeasured"] == "the rows are a stream"
    model = Own()
    model.compile("sgd", "mse")
    own = fit(model)
    assert own.evidence["unmeasured"] == "it has a train_step of its own"
    for history in (stream, own):
        assert history.evidence["course"]["losses"]
        assert history.findings == []
    none = fit(dense("sgd", 2), epochs=0)
    assert (none.evidence, none.findings) == ({}, [])

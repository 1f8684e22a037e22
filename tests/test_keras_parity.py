"""What a model learns is what it learns under `keras.Model.fit`, to the last bit: what can be compiled."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, optimizers
from keras.optimizers import schedules

from campaigns import among
from keras_twins import parity, rows

X, Y = rows()
WHOLE = X[:96], Y[:96]
"""Three whole batches: what has nothing to do with a short last batch compiles in half the time without."""


def classes(module, base):
    """Name all public classes of a kind, so that a new one in Keras is not missed."""
    found = (getattr(module, name) for name in dir(module))
    return {
        each.__name__: each
        for each in found
        if isinstance(each, type) and issubclass(each, base) and each is not base
    }


OPTIMIZERS = classes(optimizers, keras.optimizers.Optimizer)
SCHEDULES = classes(schedules, schedules.LearningRateSchedule)

NEEDS = {
    "LossScaleOptimizer": lambda kind: kind(optimizers.Adam(0.01), initial_scale=8.0, dynamic_growth_steps=3),
    "MultiOptimizer": lambda kind: kind(
        optimizers.OptimizerMap(optimizers.SGD(0.1, momentum=0.9), {".*bias": optimizers.Adam(0.01)})
    ),
    "Muon": lambda kind: kind(0.01, exclude_layers=["head"]),
}
"""Optimizers that do not make themselves."""

SCHEDULE_ARGUMENTS = {
    "CosineDecay": {
        "decay_steps": 4,
        "warmup_target": 0.2,
        "warmup_steps": 2,
        "alpha": 0.1,
    },  # Ftrl divides by the rate
    "CosineDecayRestarts": {"first_decay_steps": 3},
    "ExponentialDecay": {"decay_steps": 2, "decay_rate": 0.5, "staircase": True},
    "InverseTimeDecay": {"decay_steps": 2, "decay_rate": 0.5},
    "PiecewiseConstantDecay": {"boundaries": [2, 4], "values": [0.1, 0.03, 0.01]},
    "PolynomialDecay": {"decay_steps": 3, "power": 2.0, "cycle": True},
}


@pytest.fixture(autouse=True)
def _own_session():
    yield
    keras.backend.clear_session(free_memory=False)


def optimizer(name, **settings):
    kind = OPTIMIZERS[name]
    return NEEDS[name](kind) if name in NEEDS else kind(**settings)


def schedule(name):
    first = {} if name == "PiecewiseConstantDecay" else {"initial_learning_rate": 0.1}
    return SCHEDULES[name](**first, **SCHEDULE_ARGUMENTS[name])


def net(made_optimizer, **settings):
    """Compile a net with all that makes a step more than a gradient: noise, moving means, a penalty."""
    model = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(8, "relu", kernel_regularizer="l2"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(1, "sigmoid", name="head"),
        ]
    )
    model.compile(made_optimizer, "binary_crossentropy", **settings)
    return model


def small(made_optimizer, loss="binary_crossentropy", **settings):
    first = layers.Dense(3, "tanh", kernel_regularizer="l2")
    model = keras.Sequential([layers.Input((6,)), first, layers.Dense(1, "sigmoid", name="head")])
    model.compile(made_optimizer, loss, **settings)
    return model


# Optimizers


@pytest.mark.parametrize("name", among(OPTIMIZERS, "Adam", "SGD", *NEEDS))
def test_optimizers(name):
    parity(lambda: small(optimizer(name)), X, Y)


@pytest.mark.parametrize(
    "name",
    among(OPTIMIZERS, "Adam"),
)
def test_optimizers_with_noise_moving_means_and_penalties(name):
    parity(lambda: net(optimizer(name), metrics=["accuracy"]), X, Y)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    plain, _ = parity(lambda: small(optimizers.SGD(schedule(name))), *WHOLE)
    rates = {float(schedule(name)(step)) for step in range(6)}
    assert len(rates) > 2, "a rate that stays tests no schedule"
    assert int(plain.model.optimizer.iterations) == 6


OPTIONS = {
    "weight decay": {"weight_decay": 0.1},
    "clipnorm": {"clipnorm": 0.01},
    "clipvalue": {"clipvalue": 0.003},
    "global clipnorm": {"global_clipnorm": 0.01},
    "moving average": {"use_ema": True, "ema_momentum": 0.5},
    "moving average that overwrites": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 4},
    "accumulation": {"gradient_accumulation_steps": 4},
    "fixed loss scale": {"loss_scale_factor": 48.0},
    "all": {
        "weight_decay": 0.1,
        "global_clipnorm": 0.01,
        "use_ema": True,
        "ema_overwrite_frequency": 2,
        "gradient_accumulation_steps": 4,
        "loss_scale_factor": 48.0,
    },
}


@pytest.mark.parametrize("name", among(OPTIONS, "accumulation", "fixed loss scale", "all"))
def test_optimizer_options(name):
    parity(lambda: small(optimizers.Adam(0.01, **OPTIONS[name])), *WHOLE)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - set(NEEDS)))
@pytest.mark.parametrize("options", [*OPTIONS.values(), *SCHEDULES], ids=[*OPTIONS, *SCHEDULES])
def test_optimizers_with_options(name, options):
    chosen = {"learning_rate": schedule(options)} if isinstance(options, str) else options
    parity(lambda: net(optimizer(name, **chosen)), X, Y)


# Precision


def in_policy(policy, build):
    def built():
        keras.config.set_dtype_policy(policy)
        return build()

    return built


def test_half_precision_skips_steps_that_overflow():
    def build():
        return net(
            optimizers.LossScaleOptimizer(
                optimizers.Adam(0.01), initial_scale=2.0**19, dynamic_growth_steps=2
            )
        )

    _, ours = parity(in_policy("mixed_float16", build), *WHOLE)
    taken = int(ours.model.optimizer.iterations)
    assert 0 < taken < 6, "some steps overflow, and some do not"


def test_half_precision_goes_on_after_a_loss_that_is_not_finite():
    x = X.copy()
    x[40] = 60000  # overflows in the layer itself: the loss of the second batch is not a number
    _, ours = parity(in_policy("mixed_float16", lambda: small(optimizers.SGD(0.1), "mse")), x[:96], Y[:96])
    assert isinstance(ours.model.optimizer, optimizers.LossScaleOptimizer)


def test_bfloat16():
    parity(in_policy("mixed_bfloat16", lambda: net(optimizers.Adam(0.01))), *WHOLE)


@pytest.mark.slow
def test_float64(x64):
    parity(in_policy("float64", lambda: net(optimizers.Adam(0.01))), X, Y)


# Weights of rows and classes


WEIGHTS = np.linspace(0, 2, len(X), dtype=np.float32)


@pytest.mark.parametrize(
    "weights",
    [{"class_weight": {0: 0.3, 1: 2.0}}, {"sample_weight": WEIGHTS}],
    ids=["classes", "rows"],
)
def test_weights(weights):
    def build():
        return small(optimizers.Adam(0.01), metrics=["accuracy"], weighted_metrics=["accuracy", "mse"])

    held_out = X[:40], Y[:40], WEIGHTS[:40]
    parity(build, X, Y, **weights, validation_data=held_out, rounded=("weighted_accuracy",))


def test_class_weights_of_one_hot_targets():
    def build():
        model = keras.Sequential([layers.Input((6,)), layers.Dense(3, "softmax")])
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        return model

    targets = np.eye(3, dtype=np.float32)[np.arange(96) % 3]
    parity(build, X[:96], targets, class_weight={0: 1.0, 1: 3.0, 2: 0.5})

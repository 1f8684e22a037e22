"""What a model learns is what it learns under `keras.Model.fit`, to the last bit: what can be compiled."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, optimizers
from keras.optimizers import schedules
from keras_twins import parity, rows, train_twins

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
    "CosineDecay": {"decay_steps": 4, "warmup_target": 0.2, "warmup_steps": 2},
    "CosineDecayRestarts": {"first_decay_steps": 3},
    "ExponentialDecay": {"decay_steps": 2, "decay_rate": 0.5, "staircase": True},
    "InverseTimeDecay": {"decay_steps": 2, "decay_rate": 0.5},
    "PiecewiseConstantDecay": {"boundaries": [2, 5], "values": [0.1, 0.03, 0.01]},
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


def net(made_optimizer, loss="binary_crossentropy", metrics=(), **settings):
    """Compile a net with all that makes a step more than a gradient: noise, moving means, a penalty."""
    model = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(8, activation="relu", kernel_regularizer="l2"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(1, activation="sigmoid", name="head"),
        ]
    )
    model.compile(made_optimizer, loss, metrics=list(metrics), **settings)
    return model


def small(made_optimizer, loss="binary_crossentropy", **settings):
    model = keras.Sequential(
        [layers.Input((6,)), layers.Dense(3, "tanh"), layers.Dense(1, "sigmoid", name="head")]
    )
    model.compile(made_optimizer, loss, **settings)
    return model


# Optimizers


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    parity(lambda: net(optimizer(name)), X, Y)


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
    "moving average that overwrites": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
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


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_optimizer_options(options):
    parity(lambda: small(optimizers.Adam(0.01, **options)), *WHOLE)


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
                optimizers.Adam(0.01), initial_scale=2.0**21, dynamic_growth_steps=2
            )
        )

    _, ours = parity(in_policy("mixed_float16", build), X, Y)
    taken = int(ours.model.optimizer.iterations)
    assert 0 < taken < 8, "some steps overflow, and some do not"


def test_half_precision_goes_on_after_a_loss_that_is_not_finite():
    x = X.copy()
    x[40] = 60000  # overflows in the layer itself: the loss of the second batch is not a number
    _, ours = parity(in_policy("mixed_float16", lambda: small(optimizers.SGD(0.1), "mse")), x, Y)
    assert isinstance(ours.model.optimizer, optimizers.LossScaleOptimizer)


def test_bfloat16():
    parity(in_policy("mixed_bfloat16", lambda: net(optimizers.Adam(0.01))), X, Y)


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

    parity(
        build, X, np.eye(3, dtype=np.float32)[np.arange(len(X)) % 3], class_weight={0: 1.0, 1: 3.0, 2: 0.5}
    )


# Layers


def test_masked_words():
    words = np.random.Generator(np.random.Philox(2)).integers(0, 9, (len(X), 5))

    def build():
        model = keras.Sequential(
            [
                layers.Input((5,), dtype="int32"),
                layers.Embedding(9, 4, mask_zero=True),
                layers.LSTM(3),
                layers.Dense(1),
            ]
        )
        model.compile("adam", "mse", metrics=["mae"])
        return model

    parity(build, words, Y)


def test_masked_steps_whose_every_step_has_a_loss():
    series = np.random.Generator(np.random.Philox(2)).normal(size=(len(X), 5, 3)).astype(np.float32)
    series[::3, 3:] = 0

    def build():
        model = keras.Sequential(
            [layers.Input((5, 3)), layers.Masking(), layers.GRU(3, return_sequences=True), layers.Dense(1)]
        )
        model.compile("adam", "mse", metrics=["mae"], weighted_metrics=["mae"])
        return model

    parity(build, series, series.sum(2, keepdims=True))


def images(*filters):
    """Compile a net of filters for pictures of 6 x 6 points in two colours."""
    model = keras.Sequential([layers.Input((6, 6, 2)), *filters, layers.Flatten(), layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


PICTURES = np.random.Generator(np.random.Philox(2)).normal(size=(len(X), 6, 6, 2)).astype(np.float32)
LABELS = Y[:, 0].astype(int)


def test_images():
    def build():
        return images(
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.BatchNormalization(),
            layers.Conv2DTranspose(3, 2, strides=2),
            layers.SpatialDropout2D(0.2),
        )

    parity(build, PICTURES, LABELS, validation_split=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        lambda: layers.Conv2D(4, 3, strides=2, dilation_rate=1),
        lambda: layers.Conv2D(4, 3, dilation_rate=2, padding="same"),
        lambda: layers.Conv2D(4, 3, data_format="channels_first", padding="same"),
        lambda: layers.SeparableConv2D(4, 3),
        lambda: keras.Sequential([layers.Reshape((36, 2)), layers.Conv1D(3, 4, padding="causal")]),
        lambda: keras.Sequential([layers.Reshape((4, 3, 3, 2)), layers.Conv3D(3, 2)]),
        lambda: keras.Sequential([layers.Reshape((2, 6, 6, 1)), layers.ConvLSTM2D(2, 2)]),
    ],
    ids=["strides", "dilated", "channels first", "separable", "1d", "3d", "recurrent"],
)
def test_convolutions(kind):
    parity(lambda: images(kind()), PICTURES, LABELS)


def test_convolutions_in_groups():
    """XLA takes groups apart before it lays a convolution out, and so sums their gradients in another order."""

    def build():
        return images(layers.DepthwiseConv2D(3, depth_multiplier=2), layers.Conv2D(4, 2, groups=2))

    plain, ours = train_twins(build, lambda model, fit: fit(model, PICTURES, LABELS))
    for one, other in zip(*(each.variables["trainable_variables"] for each in (plain, ours)), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


def test_activity_regularizer_and_constraint():
    def build():
        model = keras.Sequential(
            [
                layers.Input((6,)),
                layers.Dense(4, activity_regularizer="l1", kernel_constraint=keras.constraints.MaxNorm(0.5)),
                layers.GaussianNoise(0.1),
                layers.ActivityRegularization(l2=0.01),
                layers.Dense(1, bias_regularizer=keras.regularizers.L1L2(0.01, 0.01)),
            ]
        )
        model.compile(optimizers.SGD(0.1, momentum=0.9, nesterov=True), "mse")
        return model

    parity(build, X, Y, validation_split=0.3)


def test_frozen_layers():
    def build():
        model = net("adam", metrics=["accuracy"])
        model.layers[0].trainable = model.layers[1].trainable = False
        model.compile("adam", "binary_crossentropy")
        return model

    _, ours = parity(build, X, Y)
    assert len(ours.variables["trainable_variables"]) == 2


# Models of every make


def test_nested_models():
    def build():
        part = keras.Sequential([layers.Input((6,)), layers.Dense(4, "relu"), layers.BatchNormalization()])
        inputs = keras.Input((6,))
        outputs = layers.Dense(1)(layers.Add()([part(inputs), part(-inputs)]))
        model = keras.Model(inputs, outputs)
        model.compile("adam", "mse", metrics=["mae"])
        return model

    parity(build, X, Y)


def two_heads(containers, loss, metrics, loss_weights):
    left, right = keras.Input((6,), name="left"), keras.Input((3,), name="right")
    both = layers.Dense(4, "relu")(layers.Concatenate()([left, right]))
    one, two = layers.Dense(1, "sigmoid", name="one")(both), layers.Dense(2, name="two")(both)
    named = {"left": left, "right": right}, {"one": one, "two": two}
    inputs, outputs = named if containers is dict else ([left, right], [one, two])
    model = keras.Model(inputs, outputs)
    model.compile("adam", loss, metrics=metrics, loss_weights=loss_weights)
    return model


def test_named_inputs_and_outputs():
    loss = {"one": "binary_crossentropy", "two": "mse"}
    metrics = {"one": ["accuracy"], "two": ["mae"]}
    plain, _ = parity(
        lambda: two_heads(dict, loss, metrics, {"one": 0.3, "two": 2.0}),
        {"left": X, "right": X[:, :3]},
        {"one": Y, "two": X[:, :2]},
        validation_data=({"left": X, "right": X[:, :3]}, {"one": Y, "two": X[:, :2]}),
    )
    assert "val_two_mae" in plain.histories[0]


def test_listed_inputs_and_outputs():
    parity(
        lambda: two_heads(list, ["binary_crossentropy", "mse"], [["accuracy"], ["mae"]], [0.3, 2.0]),
        [X, X[:, :3]],
        [Y, X[:, :2]],
        sample_weight=[WEIGHTS, WEIGHTS[::-1].copy()],
    )


class Plain(keras.Model):
    """A model that is built when it sees its first batch."""

    def __init__(self):
        super().__init__()
        self.hidden, self.noise, self.head = layers.Dense(4, "relu"), layers.Dropout(0.2), layers.Dense(1)

    def call(self, x, training=False):
        return self.head(self.noise(self.hidden(x), training=training))


class OwnStep(Plain):
    """A model with a step of its own: Keras' with half the gradient, and one figure more."""

    def train_step(self, state, data):
        import jax

        trainable, other, optimizer, metrics = state
        x, y = data[:2]
        gradient = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)
        (loss, (_, prediction, other, metrics)), gradients = gradient(
            trainable, other, metrics, x, y, None, training=True, optimizer_variables=optimizer
        )
        gradients = [each / 2 for each in gradients]
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        logs, metrics = self._update_metrics_variables(metrics, loss, x, y, prediction, None)
        return logs | {"steepness": abs(gradients[0]).max()}, (trainable, other, optimizer, metrics)


class OwnTestStep(Plain):
    def test_step(self, state, data):
        logs, state = super().test_step(state, data)
        return {"twice": 2 * logs["loss"]}, state


class OwnLoss(Plain):
    """A loss that needs the inputs, and counts in a variable how often it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = self.add_weight(shape=(), initializer="zeros", trainable=False, name="asked")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.asked.assign_add(1.0)
        return keras.ops.mean((y - y_pred) ** 2) + 0.1 * keras.ops.mean(y_pred * x[:, :1])


class OwnMetrics(Plain):
    def __init__(self):
        super().__init__()
        self.spread = keras.metrics.Mean(name="spread")

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        found = super().compute_metrics(x, y, y_pred, sample_weight)
        self.spread.update_state(keras.ops.std(y_pred))
        return found | {"spread": self.spread.result(), "ratio": found["loss"] / 2}


class OwnFigures(Plain):
    """A model that adds its penalty to the loss and leaves some figures out."""

    def call(self, x, training=False):
        self.add_loss(0.01 * keras.ops.sum(x**2))
        return super().call(x, training=training)

    def get_metrics_result(self):
        return {"only": 3 * super().get_metrics_result()["loss"]}


@pytest.mark.parametrize("kind", [Plain, OwnStep, OwnTestStep, OwnLoss, OwnMetrics, OwnFigures])
def test_subclassed_models(kind):
    def build():
        model = kind()
        model.compile("adam", "mse", metrics=["mae"])
        return model

    parity(build, X, Y, validation_split=0.25)


# Metrics


class Largest(keras.metrics.Metric):
    """The largest prediction so far."""

    def __init__(self, name="largest", **settings):
        super().__init__(name=name, **settings)
        self.value = self.add_variable(shape=(), initializer="zeros", name="value")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.value.assign(keras.ops.maximum(self.value, keras.ops.max(y_pred)))

    def result(self):
        return keras.ops.convert_to_tensor(self.value)


def closeness(y_true, y_pred):
    return keras.ops.exp(-keras.ops.abs(y_true - y_pred))


def test_many_metrics():
    def build():
        names = ["AUC", "Precision", "Recall", "BinaryAccuracy", "TruePositives", "R2Score", "KLDivergence"]
        made = [getattr(keras.metrics, name)() for name in names]
        return small(
            "adam", metrics=[*made, keras.metrics.F1Score(threshold=0.5), Largest(), closeness, "mse"]
        )

    plain, _ = parity(build, X, Y, validation_split=0.25)
    assert {"auc", "f1_score", "largest", "closeness", "val_precision"} <= set(plain.histories[0])

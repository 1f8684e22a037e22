"""What a model learns is what it learns under `keras.Model.fit`, to the last bit: layers, models, metrics."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, optimizers

from campaigns import among
from keras_twins import parity, rows, train_twins

X, Y = rows()
WHOLE = X[:96], Y[:96]
WEIGHTS = np.linspace(0, 2, len(X), dtype=np.float32)


@pytest.fixture(autouse=True)
def _own_session():
    yield
    keras.backend.clear_session(free_memory=False)


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

    parity(build, words[:96], Y[:96])


@pytest.mark.slow
def test_masked_steps_whose_every_step_has_a_loss():
    series = np.random.Generator(np.random.Philox(2)).normal(size=(len(X), 5, 3)).astype(np.float32)
    series[::3, 3:] = 0

    def build():
        model = keras.Sequential(
            [layers.Input((5, 3)), layers.Masking(), layers.GRU(3, return_sequences=True), layers.Dense(1)]
        )
        model.compile("adam", "mse", metrics=["mae"], weighted_metrics=["mae"])
        return model

    parity(build, series[:96], series[:96].sum(2, keepdims=True))


def images(*filters):
    """Compile a net of filters for pictures of 6 x 6 points in two colours."""
    model = keras.Sequential([layers.Input((6, 6, 2)), *filters, layers.Flatten(), layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


PICTURES = np.random.Generator(np.random.Philox(2)).normal(size=(len(X), 6, 6, 2)).astype(np.float32)
LABELS = Y[:, 0].astype(int)


def test_images():
    parity(lambda: images(layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D()), PICTURES, LABELS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        lambda: layers.Conv2D(4, 3, strides=2, dilation_rate=1),
        lambda: layers.Conv2D(4, 3, dilation_rate=2, padding="same"),
        lambda: layers.Conv2D(4, 3, data_format="channels_first", padding="same"),
        lambda: layers.SeparableConv2D(4, 3),
        lambda: layers.Conv2DTranspose(3, 2, strides=2),
        lambda: keras.Sequential([layers.Reshape((36, 2)), layers.Conv1D(3, 4, padding="causal")]),
        lambda: keras.Sequential([layers.Reshape((4, 3, 3, 2)), layers.Conv3D(3, 2)]),
        lambda: keras.Sequential([layers.Reshape((2, 6, 6, 1)), layers.ConvLSTM2D(2, 2)]),
    ],
    ids=["strides", "dilated", "channels first", "separable", "transposed", "1d", "3d", "recurrent"],
)
def test_convolutions(kind):
    parity(lambda: images(kind()), PICTURES, LABELS)


@pytest.mark.slow
def test_convolutions_in_groups():
    """XLA takes groups apart before it lays convolutions out, and sums gradients in another order."""

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

    parity(build, *WHOLE)


def test_frozen_layers():
    def build():
        frozen = layers.Dense(4, "relu", trainable=False), layers.BatchNormalization(trainable=False)
        model = keras.Sequential([layers.Input((6,)), *frozen, layers.Dense(4, "relu"), layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    _, ours = parity(build, X, Y)
    assert len(ours.variables["trainable_variables"]) == 4


# Models of every make


def test_nested_models():
    def build():
        part = keras.Sequential([layers.Input((6,)), layers.Dense(4, "relu"), layers.BatchNormalization()])
        inputs = keras.Input((6,))
        outputs = layers.Dense(1)(layers.Add()([part(inputs), part(-inputs)]))
        model = keras.Model(inputs, outputs)
        model.compile("adam", "mse", metrics=["mae"])
        return model

    parity(build, *WHOLE)


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
        [X[:96], X[:96, :3]],
        [Y[:96], X[:96, :2]],
        sample_weight=[WEIGHTS[:96], WEIGHTS[8:]],
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


@pytest.mark.parametrize(
    "kind", among([Plain, OwnStep, OwnTestStep, OwnLoss, OwnMetrics, OwnFigures], OwnStep, OwnMetrics)
)
def test_subclassed_models(kind):
    def build():
        model = kind()
        model.compile("adam", "mse", metrics=["mae"])
        return model

    parity(build, *WHOLE, validation_data=(X[:32], Y[:32]))


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
        made += [keras.metrics.F1Score(threshold=0.5), Largest()]
        model = keras.Sequential([layers.Input((6,)), layers.Dense(1, "sigmoid")])
        model.compile("adam", "binary_crossentropy", metrics=[*made, closeness, "mse"])
        return model

    plain, _ = parity(build, *WHOLE, validation_data=(X[:32], Y[:32]))
    assert {"auc", "f1_score", "largest", "closeness", "val_precision"} <= set(plain.histories[0])

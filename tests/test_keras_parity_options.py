"""What a model learns is what it learns under `keras.Model.fit`, to the last bit: what `fit` can be asked."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, optimizers

import steepest.data.blocks
import steepest.keras
from expecting import fails
from keras_twins import assert_same, born, parity, rows, same, train_twins, trained, values
from steepest.data.order import epoch_order, order_within_batches

X, Y = rows()
WHOLE = X[:96], Y[:96]
KERAS, OURS = keras.Model.fit, steepest.keras.fit


@pytest.fixture(autouse=True)
def _own_session():
    yield
    keras.backend.clear_session(free_memory=False)


def net(optimizer="adam", **settings):
    """Compile a net whose every step draws random numbers."""
    model = keras.Sequential(
        [layers.Input((6,)), layers.Dense(4, "relu"), layers.Dropout(0.2), layers.Dense(1)]
    )
    model.compile(optimizer, "mse", **settings)
    return model


def order(seed, epoch):
    return np.concatenate(list(epoch_order(seed, epoch, len(X))))


# Numbers of rows


@pytest.mark.parametrize("count", [20, 33], ids="{} rows".format)
def test_numbers_of_rows(count):
    parity(net, X[:count], Y[:count])


def test_windows(monkeypatch):
    monkeypatch.setattr(steepest.data.blocks, "WINDOW_BYTES", 5 * 4 * 7 * 8)  # five batches of eight rows
    parity(net, X[:100], Y[:100], batch_size=8)


# Order


def test_shuffled_rows():
    def permuted(model, fit):
        for epoch in range(2):
            members = order(7, epoch)
            fit(model, X[members], Y[members], epochs=1)

    plain = trained(net, permuted, KERAS)
    ours = trained(net, lambda model, fit: fit(model, X, Y, shuffle=True), OURS)
    apart = trained(
        net, lambda model, fit: [fit(model, X, Y, epochs=1, shuffle=True) for _ in range(2)], OURS
    )
    assert_same(plain, apart)
    assert [ours.histories[0]["loss"]] == [plain.histories[0]["loss"] + plain.histories[1]["loss"]]
    for group, expected in plain.variables.items():
        assert same(expected, ours.variables[group]), group


def test_rows_shuffled_within_batches():
    members = np.concatenate([*order_within_batches(7, 0, len(X), 32)])
    plain = trained(net, lambda model, fit: fit(model, X[members], Y[members], epochs=1), KERAS)
    assert_same(plain, trained(net, lambda model, fit: fit(model, X, Y, epochs=1, shuffle="batch"), OURS))


def test_a_pass_shuffled_over_several_epochs():
    members = order(7, 0)
    plain = trained(net, lambda model, fit: fit(model, X[members], Y[members], steps_per_epoch=2), KERAS)
    assert_same(
        plain, trained(net, lambda model, fit: fit(model, X, Y, steps_per_epoch=2, shuffle=True), OURS)
    )


def test_the_seed_decides_the_order():
    def weights(seed_of_model, **settings):
        def build():
            return net(optimizers.SGD(0.1))

        script = lambda model, fit: fit(model, X, Y, shuffle=True, **settings)  # noqa: E731
        return trained(build, script, OURS, seed_of_model).variables["trainable_variables"]

    given = weights(7)
    assert same(given, weights(7))
    assert same(given, weights(7, seed=7))
    assert not same(given, weights(7, seed=8))
    assert not same(given, weights(8))


# Steps


@pytest.mark.parametrize("steps", [3, 5])
def test_epochs_that_ask_for_more_than_there_is(steps):
    def script(model, fit):
        with pytest.warns(UserWarning, match="ran out of data"):
            fit(model, X, Y, steps_per_epoch=steps, epochs=3)

    assert_same(*train_twins(lambda: net(optimizers.SGD(0.1)), script))


def test_every_step_has_its_loss():
    """Keras keeps no loss of a step: its own `train_on_batch` tells it."""
    model = born(net)
    losses = []
    for _ in range(2):
        for first in range(0, len(X), 32):
            model.reset_metrics()
            losses.append(model.train_on_batch(X[first : first + 32], Y[first : first + 32]))
    ours = born(net)
    steps = steepest.keras.fit(ours, X, Y, batch_size=32, epochs=2, shuffle=False, verbose=0).steps
    assert same(values(model)["trainable_variables"], values(ours)["trainable_variables"])
    # Keras tells the mean over the batch's rows of the batch's loss, so it has rounded twice more.
    np.testing.assert_allclose(steps["loss"], losses, rtol=3e-7)


# Validation


def test_validation_with_weights_of_its_own_in_batches_of_its_own():
    weights = np.linspace(0, 1, 50)
    plain, _ = parity(
        lambda: net(metrics=["mae"]),
        *(X, Y),
        validation_data=(X[:50], Y[:50], weights),
        validation_batch_size=20,
        validation_steps=2,
        validation_freq=2,
        epochs=4,
    )
    assert len(plain.histories[0]["val_mae"]) == 2


def test_validation_at_chosen_epochs_from_a_later_epoch_on():
    plain, _ = parity(net, X, Y, validation_split=0.3, validation_freq=[3], initial_epoch=1, epochs=4)
    assert len(plain.histories[0]["loss"]) == 3


# Without compiling


@pytest.mark.parametrize("setting", [{"jit_compile": False}, {"run_eagerly": True}], ids=["not jit", "eager"])
def test_steps_that_are_not_compiled(setting):
    parity(lambda: net(optimizers.SGD(0.1), metrics=["mae"], **setting), X[:40], Y[:40], validation_split=0.2)


def test_several_steps_an_execution():
    parity(lambda: net(steps_per_execution=3), X, Y)


# One fit after another


def test_compile_again():
    """A second descent with another loss, optimizer and metrics shows nothing of the first."""

    def script(model, fit):
        fit(model, *WHOLE)
        model.compile(optimizers.SGD(0.1, momentum=0.9), "mae", metrics=["mse"])
        fit(model, *WHOLE, epochs=1, validation_split=0.2)

    assert_same(*train_twins(net, script))


class Scaled(keras.Model):
    """A model whose loss has a factor that its own `compile` takes."""

    def __init__(self):
        super().__init__()
        self.head = layers.Dense(1)

    def call(self, x):
        return self.head(x)

    def compile(self, factor, **settings):
        super().compile(**settings)
        self.factor = factor

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.factor * keras.ops.mean((y - y_pred) ** 2)


def test_compile_again_with_the_same_optimizer():
    def build():
        model = Scaled()
        model.compile(1.0, optimizer=optimizers.SGD(0.1))
        return model

    def script(model, fit):
        fit(model, *WHOLE)
        model.compile(0.0, optimizer=model.optimizer)
        before = values(model)["trainable_variables"]
        fit(model, *WHOLE)
        assert same(before, values(model)["trainable_variables"])

    assert_same(*train_twins(build, script))


def test_another_learning_rate():
    def script(model, fit):
        fit(model, *WHOLE, epochs=1)
        model.optimizer.learning_rate = 0.3
        fit(model, *WHOLE, epochs=1)

    assert_same(*train_twins(net, script))


def test_weights_that_are_set_between_fits():
    def script(model, fit):
        fit(model, *WHOLE, epochs=1)
        model.set_weights([each / 2 for each in values(model)["trainable_variables"]])
        fit(model, *WHOLE, epochs=1)

    assert_same(*train_twins(net, script))


def two_equal_layers():
    model = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(6, "tanh"),
            layers.Dense(6, "tanh"),
            layers.Dense(1, trainable=False),
        ]
    )
    model.layers[1].trainable = False
    model.compile(optimizers.Adam(0.01), "mse")
    return model


def freeze_the_other(model):
    model.layers[0].trainable, model.layers[1].trainable = False, True


def test_freeze_another_layer():
    def script(model, fit):
        fit(model, *WHOLE)
        freeze_the_other(model)
        model.compile(optimizers.Adam(0.01), "mse")
        kept = [np.array(weight.value) for weight in model.layers[0].weights]
        fit(model, *WHOLE)
        assert same(kept, [weight.value for weight in model.layers[0].weights])

    assert_same(*train_twins(two_equal_layers, script))


def freeze_one_more(model):
    model.layers[0].trainable = False


@pytest.mark.parametrize("freeze", [freeze_the_other, freeze_one_more])
def test_freeze_without_compiling(freeze):
    """Keras takes one layer's weights for the other's, or fails within the optimizer."""
    model = born(two_equal_layers)
    steepest.keras.fit(model, *WHOLE, verbose=0)
    before = values(model)
    freeze(model)
    with fails("trainable", "compile"):
        steepest.keras.fit(model, *WHOLE, verbose=0)
    freeze_the_other(model)
    model.layers[0].trainable, model.layers[1].trainable = True, False
    assert all(same(before[group], after) for group, after in values(model).items())

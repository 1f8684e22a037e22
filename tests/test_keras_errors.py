"""What cannot be trained is refused in words for a person, or in Keras' own, and leaves the model alone."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest

import steepest.data.blocks
import steepest.keras
from expecting import fails
from keras_manners import BATCH, FITS, STEPS, Pair, assert_same, bits, network, table
from steepest.errors import SteepestError


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair()


@pytest.fixture
def model(pair) -> keras.Model:
    pair.fit(epochs=1)
    return pair.models["ours"]


def train(model: keras.Model, x: Any, y: Any, **arguments: Any) -> keras.callbacks.History:
    arguments = {"batch_size": BATCH, "verbose": 0, "shuffle": False} | arguments
    return steepest.keras.fit(model, x, y, **arguments)


def works(model: keras.Model) -> None:
    """Expect that the model can be trained."""
    before = bits(model)
    history = train(model, *table(), epochs=2)
    assert np.isfinite(history.history["loss"]).all()
    assert not np.array_equal(before[0], bits(model)[0])


@pytest.mark.parametrize("empty", [np.zeros((0, 3)), [], {}], ids=["array", "list", "dict"])
def test_no_rows(model, empty):
    before = bits(model)
    with fails("no rows"):
        train(model, empty, np.zeros((0, 1)))
    assert_same(before, bits(model))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"batch_size": 0}, "batch_size is 0."),
        ({"batch_size": -1}, "batch_size is -1."),
        ({"batch_size": 2.5}, "batch_size is 2.5."),
        ({"batch_size": True}, "batch_size is True."),
        ({"batch_size": "many"}, "batch_size is 'many'."),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0."),
        ({"shuffle": "rows"}, "shuffle is 'rows'."),
    ],
)
def test_arguments(model, named, said):
    before = bits(model)
    with fails(said):
        train(model, *table(), **named)
    assert_same(before, bits(model))


def test_a_batch_size_of_numpy_is_one(model):
    train(model, *table(), batch_size=np.int64(BATCH))


def test_not_compiled():
    models = [keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)]) for _ in FITS]
    said = []
    for train_it, model in zip(FITS.values(), models, strict=True):
        with pytest.raises(ValueError, match="call `compile") as error:
            train_it(model, *table())
        said.append(str(error.value))
    assert said[0] == said[1]


def test_no_optimizer():
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer=None, loss="mse")
    with fails("without an optimizer"):
        train(model, *table())


X, Y = table()


@pytest.mark.parametrize(
    ("x", "y", "named"),
    [
        (X, Y[:-1], {}),
        (X[:, :2], Y, {}),
        (X, np.repeat(Y, 3, axis=1), {}),
        (X, Y[:, :, None, None], {}),
        (X, Y, {"sample_weight": np.ones(7)}),
        (X, Y, {"sample_weight": np.ones(90), "class_weight": {0: 1.0, 1: 2.0}}),
        (X, Y, {"validation_split": 0.999}),
        ("text", Y, {}),
        (X, None, {}),
        (X, Y, {"validation_data": (X[:, :2], Y)}),
        (X[:, 1:], Y, {}),
        (X, np.repeat(Y, 2, axis=1), {}),
    ],
    ids=[
        "rows",
        "width",
        "target",
        "target rank",
        "weights",
        "both",
        "split",
        "type",
        "none",
        "validation",
        "fitted width",
        "fitted target",
    ],
)
def test_errors_are_those_of_keras(x, y, named, request):
    """The same class and words; what Keras itself says of arrays in a program may be said of another one."""
    said = []
    for name, train_it in FITS.items():
        model = network()
        if "fitted" in request.node.name:
            train_it(model, X, Y, verbose=0)
        before = bits(model)
        with pytest.raises(Exception) as error:  # noqa: PT011 - compared below
            train_it(model, x, y, verbose=0, **named)
        said.append((type(error.value), str(error.value)))
        if name == "ours" and "validation_data" not in named:
            assert_same(before, bits(model))
    assert said[1] == said[0]
    assert "scan" not in said[1][1]


@pytest.mark.parametrize("bad", [3, 44, 89], ids=["first", "middle", "short last"])
@pytest.mark.parametrize(("name", "value"), [("y", np.nan), ("x", np.inf), ("sample_weight", np.nan)])
def test_data_that_is_not_finite(model, name, value, bad):
    x, y = table()
    data = {"x": x, "y": y, "sample_weight": np.ones(len(x), "float32")}
    data[name][bad] = value
    before = bits(model)
    with fails(f"step {bad // BATCH + 1} of epoch 1", f"because {name} is not: row {bad}."):
        train(model, **data, epochs=3)
    assert_same(before, bits(model))
    works(model)


def test_rows_are_named_in_their_own_numbers(model):
    x, y = table()
    y[[5, 50, 51]] = np.nan
    with fails("because y is not: row") as _:
        train(model, x, y, shuffle=True, seed=1, batch_size=1)
    with fails("because y is not: rows 5, 50, 51."):
        train(model, x, y, shuffle=True, batch_size=90)


@pytest.fixture(params=["one window", "several windows"])
def windows(request, monkeypatch) -> None:
    if request.param == "several windows":
        monkeypatch.setattr(steepest.data.blocks, "WINDOW_BYTES", 3 * BATCH * 4 * 4)


class Plain(keras.layers.Layer):
    """A linear layer whose ``call`` does not know of training."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 1))

    def call(self, inputs):
        return inputs @ self.kernel


def linear(optimizer: Any = "sgd") -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Input((3,)), Plain(name="plain")])
    model.compile(optimizer, "mse")
    return model


@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("at", [1, 4, STEPS - 1], ids=["early", "middle", "short last"])
def test_a_diverging_descent(windows, epoch, at):
    """A row is so large that the step after it has no finite loss, once there is a learning rate."""
    x, y = table()
    x[at * BATCH - 1] = 1e19
    model, twin = linear(), linear()
    rates = keras.callbacks.LearningRateScheduler(lambda now: 0.01 if now >= epoch else 0.0)
    train(twin, x[: at * BATCH], y[: at * BATCH])
    with fails(f"not finite at step {at + 1} of epoch {epoch + 1}:", "lower learning rate", "row"):
        train(model, x, y, epochs=4, callbacks=[rates])
    assert np.isfinite(model.get_weights()[0]).all()
    assert np.abs(model.get_weights()[0]).max() > 1e30
    np.testing.assert_array_equal(model.get_weights(), twin.get_weights())
    model.set_weights([np.zeros((3, 1))])
    works(model)


@pytest.mark.parametrize(
    ("rate", "x", "y", "weight", "said"),
    [
        (3e38, 1.0, 100.0, 1.0, "step 1 of epoch 1: the step makes 'sequential/plain/"),
        (0.1, 1e37, 1.0, 1e3, "step 1 of epoch 1: the output of layer "),
        (0.1, 1e25, 1.0, 1.0, "step 1 of epoch 1: the loss is inf, though every layer's output is finite"),
        (0.1, 1.0, 1.0, np.inf, "step 1 of epoch 1: the output of layer "),
    ],
    ids=["step", "output", "loss", "weights"],
)
def test_what_was_not_finite_is_named(rate, x, y, weight, said):
    keras.backend.clear_session(free_memory=False)
    model = linear(keras.optimizers.SGD(rate))
    model.set_weights([np.full((3, 1), weight)])
    with fails(said, "for rows 0, 1, 2, 3, 4 and 3 more"):
        train(model, np.full_like(X, x), Y + y, epochs=3)
    np.testing.assert_array_equal(model.get_weights()[0], np.full((3, 1), weight, "float32"))


def test_weights_that_no_loss_shows():
    """A row of an embedding is lost in the third step, and no later batch looks at it."""
    model = keras.Sequential(
        [keras.layers.Input((1,), dtype="int32"), keras.layers.Embedding(50, 1), keras.layers.Flatten()]
    )
    model.compile(keras.optimizers.SGD(1e30), lambda y, prediction: y * prediction)
    x, y = np.arange(48)[:, None], np.zeros((48, 1), "float32")
    y[17] = 3e38
    with fails("step 3 of epoch 1", "for rows 16, 17"):
        train(model, x, y)
    assert np.isfinite(model.get_weights()[0]).all()


def test_a_model_whose_steps_tell_no_loss():
    class Silent(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, inputs):
            return self.dense(inputs)

        def train_step(self, state, data):
            logs, state = super().train_step(state, data)
            return {"mine": logs["loss"]}, state

    def build() -> keras.Model:
        keras.utils.set_random_seed(1)
        model = Silent()
        model(X)
        model.compile("sgd", "mse")
        model.optimizer.build(model.trainable_variables)
        return model

    pair = Pair(build)
    assert list(pair.fit(epochs=2)["ours"].history) == ["mine"]


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode, done.stdout
    return done.stderr.splitlines()[-1]


def test_another_backend():
    said = run("import steepest.keras", KERAS_BACKEND="numpy")
    assert "SteepestError: Keras runs on numpy" in said
    assert 'KERAS_BACKEND to "jax"' in said


def test_without_keras():
    said = run("import sys; sys.modules['keras'] = None; import steepest.keras")
    assert "SteepestError" in said
    assert "steepest[keras]" in said


@pytest.mark.parametrize("own_step", [False, True])
def test_a_model_that_knows_nothing_of_training(own_step):
    """Its ``call`` takes no ``training``; what is not finite is found all the same."""

    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.out = keras.layers.Dense(1)

        def call(self, rows):
            return self.out(rows) * 1e30

    class OwnStep(Plain):
        def train_step(self, state, data):
            return super().train_step(state, data)

    model = (OwnStep if own_step else Plain)()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y = table()
    with pytest.raises(SteepestError, match=r"step 1 of epoch 1.*rows 0, 1, 2"):
        steepest.keras.fit(model, x, y, batch_size=8, shuffle=False, verbose=0)

"""Each kind of data trains a Keras model as it does under Keras, in an order that the seed decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse

import steepest.data.blocks
import steepest.keras
import steepest.keras.rows
from campaigns import among
from keras_manners import (
    BATCH,
    FITS,
    ROWS,
    STEPS,
    Pair,
    assert_close,
    assert_same,
    bits,
    network,
    table,
    variables,
)
from steepest.data.order import epoch_order, order_within_batches

X, Y = table()


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair()


def torch_tensors() -> tuple[Any, Any]:
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    return torch.tensor(X), torch.tensor(Y)


KINDS: dict[str, Any] = {
    "float64": lambda: (X.astype("float64"), Y.astype("float64")),
    "integers": lambda: ((X * 3).astype("int64"), Y.astype("int64")),
    "Fortran order": lambda: (np.asfortranarray(X), Y),
    "part of a table": lambda: (np.repeat(X, 2, axis=1)[:, ::2], Y),
    "pandas": lambda: (pd.DataFrame(X, columns=list("abc")), pd.Series(Y[:, 0])),
    "pandas mixed": lambda: (pd.DataFrame({"a": X[:, 0], "b": [1, 2, 3] * 30, "c": 0.5}), pd.DataFrame(Y)),
    "JAX": lambda: (jnp.asarray(X), jnp.asarray(Y)),
    "torch": torch_tensors,
}


@pytest.mark.parametrize("kind", KINDS)
def test_arrays(pair, kind):
    histories = pair.fit(lambda: [], *KINDS[kind](), epochs=2)
    assert_close(histories["ours"].history, histories["keras"].history)


def test_arrow(pair):
    arrow = pa.table({name: X[:, at] for at, name in enumerate("abc")})
    model = pair.models["ours"]
    ends = []
    for x, y in (
        (X, Y),
        (arrow, pa.table({"y": Y[:, 0]})),
        (arrow, pa.chunked_array([Y[:50, 0], Y[50:, 0]])),
    ):
        pair.fit()  # back to the start
        steepest.keras.fit(model, x, y, BATCH, epochs=2, verbose=0, validation_split=0.2)
        ends.append(bits(model))
    assert_same(ends[0], ends[1])
    assert_same(ends[0], ends[2])


def test_polars(pair):
    polars = pytest.importorskip("polars", reason="Polars is not installed here")
    steepest.keras.fit(pair.models["ours"], polars.DataFrame(X), polars.Series(Y[:, 0]), verbose=0)


def two_inputs() -> keras.Model:
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(2)
    image = keras.layers.Input((6, 6, 1), name="image")
    table = keras.layers.Input((3,), name="table")
    inner = keras.layers.Conv2D(2, 3)(keras.layers.Rescaling(1 / 255)(image))
    inner = keras.layers.Concatenate()([keras.layers.Flatten()(inner), table])
    model = keras.Model(
        {"image": image, "table": table},
        {
            "number": keras.layers.Dense(1, name="number")(inner),
            "kind": keras.layers.Dense(3, name="kind")(inner),
        },
    )
    losses = {"number": "mse", "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    model.compile(keras.optimizers.SGD(0.01), losses)
    model.optimizer.build(model.trainable_variables)
    return model


def test_nested_inputs_and_images():
    random = np.random.default_rng(0)
    x = {"image": random.integers(0, 256, (ROWS, 6, 6, 1), dtype="uint8"), "table": X}
    y = {"number": Y, "kind": random.integers(0, 3, ROWS)}
    pair = Pair(two_inputs)
    histories = pair.fit(lambda: [], x, y, epochs=2)
    arrow = x | {"table": pa.table({name: X[:, at] for at, name in enumerate("abc")})}
    again = pair.fit(lambda: [], x, y, epochs=2)
    assert again["ours"].history == histories["ours"].history
    assert np.isfinite(steepest.keras.fit(pair.models["ours"], arrow, y, verbose=0).history["loss"]).all()


def test_lists():
    def build() -> keras.Model:
        keras.backend.clear_session(free_memory=False)
        keras.utils.set_random_seed(2)
        inputs = [keras.layers.Input((3,)), keras.layers.Input((3,))]
        model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Add()(inputs)))
        model.compile("sgd", "mse")
        model.optimizer.build(model.trainable_variables)
        return model

    Pair(build).fit(lambda: [], [X, -2 * X], Y, epochs=2)


def sparse_model() -> keras.Model:
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.layers.Input((3,), sparse=True), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def test_sparse_arrays():
    """Few different numbers of values in a batch, because each is compiled."""
    dense = np.where(np.arange(ROWS)[:, None] % 2, X, [1.0, 0, 0]).astype("float32")
    sparse = scipy.sparse.csr_matrix(dense)
    Pair(sparse_model).fit(lambda: [], sparse, Y, epochs=2)
    ends = []
    for x, shuffle in ((sparse, True), (sparse, True), (sparse, False), (dense, True)):
        model = sparse_model()
        steepest.keras.fit(model, x, Y, batch_size=45, shuffle=shuffle, seed=4, verbose=0)
        ends.append(bits(model))
    assert_same(ends[0], ends[1])
    assert not np.array_equal(ends[0][0], ends[2][0])
    np.testing.assert_allclose(ends[0][0], ends[3][0], rtol=1e-5)


class Batches(keras.utils.PyDataset):
    """Batches of the table that tells what is asked of it."""

    def __init__(self, workers: int = 1) -> None:
        super().__init__(workers=workers)
        self.calls: list[Any] = []

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        self.calls.append(index)
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return X[rows], Y[rows]

    def on_epoch_begin(self) -> None:
        self.calls.append("begin")

    def on_epoch_end(self) -> None:
        self.calls.append("end")


@pytest.mark.parametrize("workers", among([0, 1, 2], 2))
def test_datasets(pair, workers):
    """Their hooks are called as by Keras, which looks at a model that is built already just the same."""
    asked = []
    for name, model in pair.models.items():
        data = Batches(workers)
        FITS[name](model, data, epochs=2, shuffle=False, verbose=0)
        asked.append(data.calls)
    hooks = [[each for each in calls if isinstance(each, str)] for calls in asked]
    assert hooks[0] == hooks[1]
    numbers = [each for each in asked[1] if isinstance(each, int)][-STEPS:]
    assert sorted(numbers) == list(range(STEPS))
    if workers < 2:  # two of them take turns as they like
        assert numbers == sorted(numbers)
        assert asked[0] == asked[1]
    pair.fit(lambda: [], Batches(workers), None, batch_size=None, epochs=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_seed_orders_datasets(pair, workers):
    orders = []
    for seed in (1, 1, 2):
        pair.fit()
        data = Batches(workers)
        steepest.keras.fit(pair.models["ours"], data, epochs=2, shuffle=True, verbose=0, seed=seed)
        orders.append((data.calls, bits(pair.models["ours"])))
    assert_same(orders[0][1], orders[1][1])
    assert not np.array_equal(orders[0][1][0], orders[2][1][0])
    numbers = [each for each in orders[0][0] if isinstance(each, int)]
    first, second = numbers[:STEPS], numbers[STEPS:]
    assert sorted(first) == sorted(second) == list(range(STEPS))
    assert first != second


def batches(times: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    made = 0
    while times is None or made < times:
        for start in range(0, ROWS, BATCH):
            yield X[start : start + BATCH], Y[start : start + BATCH]
        made += 1


def test_endless_generators(pair):
    pair.fit(x=lambda: batches(None), batch_size=None, steps_per_epoch=7, epochs=3)


def test_a_generator_that_runs_out(pair):
    with pytest.warns(UserWarning, match="Your input ran out of data"):
        histories = pair.fit(x=lambda: batches(1), batch_size=None, steps_per_epoch=20)
    assert len(histories["ours"].steps) == STEPS


def test_tensorflow(pair):
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed here")
    pair.fit(lambda: [], tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH), None, batch_size=None)


def test_epochs_that_are_parts_of_passes(pair):
    with pytest.warns(UserWarning, match="ran out of data"):
        histories = pair.fit(epochs=5, steps_per_epoch=5)
    assert histories["ours"].steps["epoch"].value_counts().tolist() == [5, 5, 5, 5, 2]


def rows_seen(shuffle: Any, seed: int, epochs: int = 2, rows: int = 20, batch_size: int = 6) -> np.ndarray:
    """The rows of each step, told by the losses of a model that cannot learn."""
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Flatten()])
    model.compile(keras.optimizers.SGD(0.0), lambda y, prediction: y - prediction)
    y = 2.0 ** np.arange(rows)[:, None]
    arguments = {"shuffle": shuffle, "seed": seed, "epochs": epochs, "verbose": 0}
    history = steepest.keras.fit(model, np.zeros((rows, 1)), y, batch_size=batch_size, **arguments)
    sizes = np.array(([batch_size] * (rows // batch_size) + [rows % batch_size]) * epochs)
    return np.round(history.steps["loss"].to_numpy("float64") * sizes)


def expected(order: np.ndarray, batch_size: int = 6) -> list[float]:
    return [float((2.0 ** order[at : at + batch_size]).sum()) for at in range(0, len(order), batch_size)]


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_which_rows_a_batch_holds(shuffle, seed):
    wanted = []
    for epoch in range(2):
        order = np.arange(20)
        if shuffle == "batch":
            order = np.concatenate([*order_within_batches(seed, epoch, 20, 6)])
        elif shuffle:
            order = np.concatenate(list(epoch_order(seed, epoch, 20)))
        wanted += expected(order)
    np.testing.assert_allclose(rows_seen(shuffle, seed), wanted, rtol=1e-6)
    if shuffle == "batch":
        np.testing.assert_allclose(rows_seen(shuffle, seed), rows_seen(False, seed), rtol=1e-6)


@pytest.mark.parametrize("shuffle", [True, False])
def test_windows_change_no_bit(pair, shuffle, monkeypatch):
    """Windows of three or four steps, and the held-out rows in several, too."""
    ends = []
    held_out = table(50, seed=2)
    for size in (2**25, 4 * BATCH * 4 * 4):
        monkeypatch.setattr(steepest.data.blocks, "WINDOW_BYTES", size)
        pair.fit()
        arguments = {"epochs": 3, "verbose": 0, "shuffle": shuffle, "validation_data": held_out}
        history = steepest.keras.fit(pair.models["ours"], X, Y, BATCH, **arguments)
        ends.append((bits(pair.models["ours"]), history))
    assert_same(ends[0][0], ends[1][0])
    assert ends[0][1].history == ends[1][1].history
    assert ends[0][1].steps.equals(ends[1][1].steps)


def test_windows_of_streams_change_no_bit(pair, monkeypatch):
    ends = []
    for size in (2**25, 3 * BATCH * 4 * 4):
        monkeypatch.setattr(steepest.keras.rows, "WINDOW_BYTES", size)
        pair.fit()
        steepest.keras.fit(pair.models["ours"], Batches(), epochs=2, verbose=0)
        ends.append(bits(pair.models["ours"]))
    assert_same(*ends)


def test_many_held_out_windows(monkeypatch):
    """No window is filled again while the model is measured on it."""
    x, y = table(4096, width=64)
    model = network(width=64)
    histories = []
    for size in (2**25, 2**16):
        monkeypatch.setattr(steepest.data.blocks, "WINDOW_BYTES", size)
        arguments = {"epochs": 6, "initial_epoch": 5, "verbose": 0, "shuffle": False}
        model.optimizer.learning_rate = 0.0
        histories.append(steepest.keras.fit(model, x[:64], y[:64], 64, **arguments, validation_data=(x, y)))
    plain, cut = (history.history["val_accuracy"] for history in histories)
    assert len(plain) == 1
    assert cut == plain


@pytest.mark.parametrize("sizes", among([(3, 8), (90, 1000), (8, 8), (1, 1), (9, 8)], (1, 1), (9, 8)))
def test_few_rows(pair, sizes):
    rows, batch_size = sizes
    histories = pair.fit(lambda: [], X[:rows], Y[:rows], batch_size=batch_size, epochs=2)
    assert len(histories["ours"].steps) == 2 * -(-rows // batch_size)


@pytest.mark.parametrize("split", among([0.25, 0.5], 0.25))
def test_validation_split(pair, split):
    pair.fit(epochs=2, validation_split=split, validation_batch_size=11)


def test_validation_of_any_kind(pair):
    pair.fit(epochs=3, validation_data=Batches(), validation_freq=2)
    ends = []
    for fit in FITS.values():
        arguments = {"validation_data": batches(None), "validation_steps": 5, "validation_freq": [1, 3]}
        ends.append(fit(network(), X, Y, BATCH, epochs=3, shuffle=False, verbose=0, **arguments).history)
    assert_close(ends[1], ends[0])
    assert len(ends[1]["val_loss"]) == 2


def test_every_steps_loss():
    """The first step's is the first model's on that batch; an epoch's is the mean over its rows."""
    model = network(loss="mse", metrics=[])
    model.layers[2].rate = 0.0
    untrained = float(np.mean((np.asarray(model(X[:BATCH], training=True)) - Y[:BATCH]) ** 2))
    history = steepest.keras.fit(model, X, Y, BATCH, epochs=3, shuffle=False, verbose=0)
    steps = history.steps
    assert list(steps) == ["epoch", "step", "loss"]
    assert steps["step"].tolist() == list(range(1, 3 * STEPS + 1))
    assert steps["epoch"].tolist() == [epoch for epoch in (1, 2, 3) for _ in range(STEPS)]
    assert steps["loss"][0] == pytest.approx(untrained, rel=1e-6)
    sizes = [BATCH] * (STEPS - 1) + [ROWS % BATCH]
    for epoch, loss in enumerate(history.history["loss"], start=1):
        losses = steps.loc[steps["epoch"] == epoch, "loss"]
        assert np.average(losses, weights=sizes) == pytest.approx(loss, rel=1e-5)


class Refilled(keras.utils.PyDataset):
    """Fills the same arrays for every batch."""

    def __init__(self):
        super().__init__()
        self.data = table(STEPS * BATCH)
        self.batch = tuple(np.empty((BATCH, each.shape[1]), "float32") for each in self.data)

    @property
    def num_batches(self):
        return STEPS

    def __getitem__(self, index):
        for whole, part in zip(self.data, self.batch, strict=True):
            part[:] = whole[index * BATCH : (index + 1) * BATCH]
        return self.batch


def test_a_dataset_that_fills_the_same_arrays_again(pair):
    pair.fit(lambda: [], *table(STEPS * BATCH), epochs=2)
    wanted = bits(pair.models["ours"])
    for variable, value in zip(variables(pair.models["ours"]), pair.start, strict=True):
        variable.assign(jnp.array(value))
    steepest.keras.fit(pair.models["ours"], Refilled(), epochs=2, shuffle=False, verbose=0)
    assert_same(bits(pair.models["ours"]), wanted)

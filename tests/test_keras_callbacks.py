"""Keras' callbacks are called by `steepest.keras.fit` as by `keras.Model.fit`, with the same effects."""

from __future__ import annotations

import logging
import re
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras.callbacks import Callback

import steepest.keras
from keras_manners import BATCH, FITS, STEPS, Pair, assert_close, network, table
from steepest.keras.rows import Rows

pytestmark = pytest.mark.filterwarnings(  # Keras' own callbacks, with NumPy 2
    "ignore:__array__ implementation:DeprecationWarning"
)

HOOKS = [name for name in dir(Callback) if name.startswith("on_")]
HELD_OUT = table(30, seed=1)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair()


def recorder(hooks: list[str]) -> Callback:
    """A callback that writes down each call of these hooks."""
    calls: list[tuple[str, Any, dict[str, float]]] = []

    def hook(name: str) -> Any:
        def write(self: Any, *arguments: Any, logs: Any = None) -> None:
            places = [each for each in arguments if isinstance(each, int)]
            logs = next((each for each in arguments if isinstance(each, dict)), logs)
            calls.append((name, places, dict(logs or {})))

        return write

    kind = type("Recorder", (Callback,), {name: hook(name) for name in hooks})
    recording = kind()
    recording.calls = calls
    return recording


@pytest.fixture
def strides(monkeypatch) -> list[int | None]:
    """After how many steps the callbacks are asked."""
    seen = []
    epoch = Rows.epoch

    def spy(self, stride, skip=0):
        seen.append(stride)
        return epoch(self, stride, skip)

    monkeypatch.setattr(Rows, "epoch", spy)
    return seen


@pytest.mark.parametrize(
    ("hooks", "each"),
    [(HOOKS, 1), (HOOKS, 4), (HOOKS, 7), (["on_batch_begin", "on_batch_end"], 4)],
    ids=["1", "4", "7", "aliases"],
)
def test_calls_and_logs_are_those_of_keras(hooks, each):
    pair = Pair(lambda: network(steps_per_execution=each))
    recorders: list[Any] = []

    def callbacks() -> list[Any]:
        recorders.append(recorder(hooks))
        return recorders[-1:]

    pair.fit(callbacks, epochs=2, validation_data=HELD_OUT, validation_batch_size=7)
    plain, ours = (each.calls for each in recorders)
    assert [call[:2] for call in ours] == [call[:2] for call in plain]
    for (_, _, expected), (_, _, logs) in zip(plain, ours, strict=True):
        assert_close(logs, expected)
    ends = [place for name, place, _ in ours if name in ("on_train_batch_end", "on_batch_end")]
    assert len(ends) == 2 * -(-STEPS // each)


def test_epoch_hooks_do_not_slow_the_descent(pair, strides, caplog):
    hooks = [name for name in HOOKS if "batch" not in name]
    recorders: list[Any] = []

    def callbacks() -> list[Any]:
        recorders.append(recorder(hooks))
        return [*recorders[-1:], keras.callbacks.EarlyStopping("loss", patience=5)]

    pair.fit(callbacks, epochs=3, validation_data=HELD_OUT)
    plain, ours = (each.calls for each in recorders)
    assert [call[:2] for call in ours] == [call[:2] for call in plain]
    assert len(ours) == 2 + 3 * 4
    assert strides
    assert set(strides) == {None}
    assert not caplog.records


def test_batch_hooks_are_logged_once(pair, strides, caplog):
    class Curious(Callback):
        def on_train_batch_end(self, batch, logs=None):
            pass

    pair.fit(lambda: [Curious()], epochs=3)
    assert set(strides) == {1}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name.startswith("steepest.keras")
    assert "Curious" in record.getMessage()


@pytest.mark.parametrize("hook", ["on_test_batch_begin", "on_test_batch_end"])
def test_test_hooks_slow_only_the_validation(pair, strides, hook):
    recorders: list[Any] = []

    def callbacks() -> list[Any]:
        recorders.append(recorder([hook]))
        return recorders[-1:]

    pair.fit(callbacks, validation_data=HELD_OUT)
    plain, ours = (each.calls for each in recorders)
    assert [call[:2] for call in ours] == [call[:2] for call in plain]
    assert len(ours) == -(-30 // BATCH)
    assert strides == [None, 1]


@pytest.mark.parametrize("best", [True, False])
def test_early_stopping(pair, best):
    def stop() -> list[Any]:
        return [keras.callbacks.EarlyStopping(patience=2, restore_best_weights=best)]

    histories = pair.fit(stop, epochs=12, validation_data=HELD_OUT)
    assert 3 <= len(histories["ours"].epoch) < 12


def test_reduce_learning_rate_on_plateau(pair):
    def reduce() -> list[Any]:
        return [keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1, cooldown=1)]

    history = pair.fit(reduce, epochs=7, validation_data=HELD_OUT)["ours"].history
    assert len(set(history["learning_rate"])) > 1


@pytest.mark.parametrize("schedule", [lambda epoch: 0.1 / (epoch + 1), lambda epoch, rate: rate * 0.7])
def test_learning_rate_scheduler(pair, schedule):
    history = pair.fit(lambda: [keras.callbacks.LearningRateScheduler(schedule)], epochs=3)["ours"].history
    assert len(set(history["learning_rate"])) == 3


def contents(folder: Any) -> dict[str, dict[str, np.ndarray]]:
    """All arrays in all HDF5 files of a folder."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for path in sorted(folder.iterdir()):
        arrays = found[path.name] = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item, arrays=arrays: (
                    arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
                )
            )
    return found


@pytest.mark.parametrize(
    "wish",
    [
        {"save_best_only": True, "monitor": "val_loss", "filepath": "best-{epoch}.weights.h5"},
        {"save_freq": "epoch", "filepath": "{epoch}-{val_loss:.4f}.weights.h5"},
        {"save_freq": 5, "filepath": "{epoch}-{batch}.weights.h5"},
    ],
    ids=["best", "epoch", "batches"],
)
def test_model_checkpoint(pair, wish, tmp_path):
    folders = iter([tmp_path / name for name in FITS])

    def keep() -> list[Any]:
        path = next(folders) / wish["filepath"]
        return [keras.callbacks.ModelCheckpoint(**wish | {"filepath": path}, save_weights_only=True)]

    pair.fit(keep, epochs=4, validation_data=HELD_OUT)
    plain, ours = (contents(tmp_path / name) for name in FITS)
    assert list(ours) == list(plain)
    assert len(ours) >= 2
    for name, arrays in plain.items():
        assert list(ours[name]) == list(arrays)
        for place, array in arrays.items():
            np.testing.assert_array_equal(ours[name][place], array)


def test_csv_logger(pair, tmp_path):
    paths = iter([tmp_path / name for name in FITS])
    pair.fit(lambda: [keras.callbacks.CSVLogger(next(paths))], epochs=3, validation_data=HELD_OUT)
    plain, ours = ((tmp_path / name).read_text() for name in FITS)
    assert ours == plain
    assert len(ours.splitlines()) == 4


def test_lambda_callback(pair, strides):
    heard: list[Any] = []

    def listen() -> list[Any]:
        return [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: heard.append((epoch, logs)))]

    pair.fit(listen, epochs=2)
    assert [epoch for epoch, _ in heard] == [0, 1, 0, 1]
    for (_, plain), (_, ours) in zip(heard[:2], heard[2:], strict=True):
        assert_close(ours, plain)
    assert set(strides) == {None}
    pair.fit(lambda: [keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)])
    assert strides[-1] == 1


@pytest.mark.parametrize("each_epoch", [False, True])
def test_swap_ema_weights(each_epoch):
    pair = Pair(lambda: network(keras.optimizers.SGD(0.3, use_ema=True, ema_momentum=0.8)))
    pair.fit(lambda: [keras.callbacks.SwapEMAWeights(each_epoch)], epochs=3, validation_data=HELD_OUT)


@pytest.mark.parametrize(("each", "bad"), [(1, 0), (1, 53), (1, 89), (4, 53)])
def test_terminate_on_nan(each, bad, capsys):
    pair = Pair(lambda: network(steps_per_execution=each))
    x, y = table()
    y[bad] = np.nan
    stopping = keras.callbacks.TerminateOnNaN
    histories = pair.fit(lambda: [stopping()], x, y, epochs=3)
    plain, ours = re.findall(r"Batch (\d+): Invalid loss", capsys.readouterr().out)
    assert ours == plain == str(bad // BATCH // each * each + each - 1)
    assert len(histories["ours"].epoch) == 1
    raised = {}
    for name, model in pair.models.items():
        with pytest.raises(RuntimeError, match="NaN or Inf loss") as error:
            FITS[name](model, x, y, batch_size=BATCH, verbose=0, shuffle=False, callbacks=[stopping(True)])
        raised[name] = str(error.value)
    if bad:
        assert raised["ours"] == raised["keras"]


def screen(text: str) -> list[str]:
    """What a terminal shows in the end, without the times."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).replace("\x08", "")
    lines = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [re.sub(r"\d+(s|ms|us)(/step|/epoch)?", "", line) for line in lines if line.strip()]


@pytest.mark.parametrize("verbose", [0, 1, 2, "auto"])
def test_progress(pair, verbose, capsys):
    x, y = table()
    shown = []
    for name, model in pair.models.items():
        FITS[name](model, x, y, batch_size=BATCH, epochs=2, verbose=verbose, validation_data=HELD_OUT)
        shown.append([re.sub(r": \d.*", "", line) for line in screen(capsys.readouterr().out)])
    plain, ours = shown
    ends = [line for line in plain if f"{STEPS}/{STEPS}" in line or "Epoch" in line]
    assert [line for line in ours if f"{STEPS}/{STEPS}" in line or "Epoch" in line] == ends
    assert bool(ends) == bool(verbose)
    if verbose != 1:
        assert ours == plain


@pytest.mark.parametrize(
    ("hook", "steps"),
    [
        ("on_epoch_begin", STEPS + 1),
        ("on_epoch_end", 2 * STEPS),
        ("on_train_batch_begin", 2),
        ("on_train_batch_end", 2),
    ],
)
def test_stop_training(pair, hook, steps):
    class Stop(Callback):
        pass

    def stop(self: Any, at: int, logs: Any = None) -> None:
        self.model.stop_training = at == 1

    setattr(Stop, hook, stop)
    histories = pair.fit(lambda: [Stop()], epochs=4, validation_data=HELD_OUT)
    assert len(histories["ours"].steps) == steps


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if "predict" not in hook])
@pytest.mark.parametrize("target", ["weights", "learning rate", "statistics"])
def test_a_callback_changes_the_model(pair, hook, target):
    class Change(Callback):
        pass

    def change(self: Any, *arguments: Any, **named: Any) -> None:
        if target == "weights":
            self.model.layers[0].kernel.assign(self.model.layers[0].kernel * 0.9)
        elif target == "statistics":
            self.model.layers[1].moving_mean.assign(self.model.layers[1].moving_mean + 0.1)
        else:
            self.model.optimizer.learning_rate = self.model.optimizer.learning_rate * 0.9

    setattr(Change, hook, change)
    pair.fit(lambda: [Change()], epochs=2, validation_data=HELD_OUT)


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end", "on_test_begin", "on_test_end"])
def test_a_callback_predicts(pair, hook):
    """Keras' own loops take the arrays of the model's variables over."""
    seen: list[np.ndarray] = []

    class Predict(Callback):
        pass

    def predict(self: Any, *arguments: Any, **named: Any) -> None:
        seen.append(self.model.predict(HELD_OUT[0], verbose=0))

    setattr(Predict, hook, predict)
    pair.fit(lambda: [Predict()], epochs=3, validation_data=HELD_OUT)
    assert len(seen) == 6
    np.testing.assert_array_equal(seen[3:], seen[:3])


def test_a_callback_evaluates(pair):
    seen: list[Any] = []

    class Evaluate(Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(self.model.evaluate(*HELD_OUT, verbose=0))

        on_epoch_begin = on_epoch_end

    pair.fit(lambda: [Evaluate()], epochs=3)
    assert len(seen) == 12
    np.testing.assert_allclose(seen[6:], seen[:6], rtol=1e-6)


def test_evaluate_stops_where_a_callback_says(pair):
    class Stop(Callback):
        def on_test_batch_end(self, batch, logs=None):
            self.model.stop_evaluating = batch == 1

    pair.fit(lambda: [Stop()], epochs=2, validation_data=HELD_OUT)


def test_a_list_of_callbacks_made_by_the_user(pair):
    x, y = table()
    calls = []
    for name, model in pair.models.items():
        recording = recorder(HOOKS)
        made = keras.callbacks.CallbackList([recording], add_history=True, model=model, epochs=2, steps=STEPS)
        FITS[name](model, x, y, batch_size=BATCH, epochs=2, shuffle=False, callbacks=made)
        calls.append([call[:2] for call in recording.calls])
    assert calls[0] == calls[1]


def test_tensorboard(pair, tmp_path):
    pytest.importorskip("tensorflow", reason="keras.callbacks.TensorBoard writes with tensorflow.summary")
    pair.fit(lambda: [keras.callbacks.TensorBoard(tmp_path)], epochs=2, validation_data=HELD_OUT)
    assert list(tmp_path.rglob("events.*"))


def test_an_error_in_a_callback_reaches_the_caller(pair):
    class Fail(Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("enough")

    x, y = table()
    with pytest.raises(RuntimeError, match="enough"):
        steepest.keras.fit(pair.models["ours"], x, y, callbacks=[Fail()], verbose=0)
    pair.fit(epochs=2)


@pytest.mark.parametrize("hook", ["on_test_begin", "on_test_end", "on_epoch_begin", "on_epoch_end"])
@pytest.mark.parametrize("use", ["predict", "evaluate", "set_weights"])
def test_a_model_is_used_by_another_name_than_the_callbacks_own(pair, hook, use):
    """As in a function that closes over it: then the callback can't be asked to bring it up to date first."""
    x = table()[0]

    def callbacks() -> list[Any]:
        model = next(unused)

        def act(*_: Any, **__: Any) -> None:
            if use == "predict":
                model.predict(x, verbose=0)
            elif use == "evaluate":
                model.evaluate(*table(), verbose=0)
            else:
                model.set_weights([0.9 * each for each in model.get_weights()])

        callback = Callback()
        setattr(callback, hook, act)
        return [callback]

    unused = iter(pair.models.values())
    histories = pair.fit(callbacks, epochs=3, validation_data=HELD_OUT)
    assert histories["ours"].history["loss"][0] != histories["ours"].history["loss"][-1]


def test_stopped_before_it_begins(pair):
    class Stop(Callback):
        def on_train_begin(self, logs=None):
            self.model.stop_training = True

    histories = pair.fit(lambda: [Stop()], epochs=3, validation_data=HELD_OUT)
    assert len(histories["ours"].steps) == 1


class Seen(keras.metrics.Metric):
    """Rows seen since the model was made: it is never reset."""

    def __init__(self):
        super().__init__(name="seen")
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(keras.ops.cast(keras.ops.shape(y_true)[0], "float32"))

    def result(self):
        return keras.ops.add(self.total, 0)

    def reset_state(self):
        pass


def test_a_metrics_own_way_to_be_reset():
    histories = Pair(lambda: network(metrics=[Seen()])).fit(epochs=3)
    assert histories["ours"].history["seen"] == [90.0, 180.0, 270.0]

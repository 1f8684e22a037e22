"""Descents that are interrupted anywhere, killed, and gone on with: they end with the same bytes."""

from __future__ import annotations

import logging
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from campaigns import among
from expecting import fails
from steepest import SGD, Adam, Callback, Momentum, StopDescent, feeding, minimize, schedules
from steepest.data import blocks
from steepest.descent.loop import Interrupted

DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(37, 3)).astype(np.float32)
Y = (X @ [1.0, -2.0, 0.5] + 0.1 * DRAWS.normal(size=37)).astype(np.float32)
BROKEN = np.where(np.arange(37) == 20, np.nan, Y).astype(np.float32)
WEIGHTS = np.where(np.arange(37) < 12, 0.0, np.arange(37) % 5)
MANY = 2 * 5 * 16
"""Bytes of a window of two batches of five rows: 37 rows are four windows."""


def squared_error(position, batch, key=None):
    features, targets = batch
    noise = 0.0 if key is None else 0.01 * jax.random.normal(key, targets.shape)
    return (features @ position + noise - targets) ** 2


def mean_squared_error(position, batch):
    return squared_error(position, batch).mean()


def bowl(position):
    return ((position - 1.0) ** 2).sum()


def valley(position):
    """Rosenbrock's function, and a bowl."""
    return (1 - position[0]) ** 2 + 100 * (position[1] - position[0] ** 2) ** 2 + position[2] ** 2


def absolute_error(position, batch):
    return abs(batch[0] @ position - batch[1])


def accuracy(position, batch):
    return absolute_error(position, batch) < 0.25


class Stop(Callback):
    def on_epoch_end(self, figures):
        if figures["epoch"] == 2:
            raise StopDescent("enough")


class Leave(Callback):
    """Leaves each descent at its second window: the first is over, and there is more to do."""

    def __init__(self, reason: type[BaseException] = Interrupted) -> None:
        self.windows, self.reason = 0, reason

    def on_window_end(self, epoch, rows, loss):
        self.windows += 1
        if self.windows == 2:
            raise self.reason


DATA = ((X, Y),)
VALIDATION = {"validation_data": (X, Y + 1), "validation_weights": WEIGHTS}
CASES = {
    "padded": ((squared_error, *DATA), {"optimizer": Adam(schedules.cosine(0.1, steps=20))}),
    "without padding": ((mean_squared_error, *DATA), {"optimizer": Adam(0.1)}),
    "in its own order": ((squared_error, *DATA), {"optimizer": "adagrad", "shuffle": False}),
    "without weight": (
        (squared_error, *DATA),
        {"optimizer": Adam(0.1), "weights": WEIGHTS, "shuffle": False},
    ),
    "penalties": ((squared_error, *DATA), {"optimizer": Momentum(0.01), "l1": 0.01, "l2": 0.1}),
    "plateau": (
        (squared_error, *DATA),
        {"optimizer": SGD(schedules.reduce_on_plateau(0.3, patience=1, minimum_change=0.5)), **VALIDATION},
    ),
    "patience": (
        (squared_error, *DATA),
        {
            "optimizer": Adam(0.3),
            "patience": 2,
            "epochs": 20,
            "metrics": {"error": absolute_error},
            **VALIDATION,
        },
    ),
    "patience at the end": (
        (squared_error, *DATA),
        {"optimizer": SGD(0.2), "patience": 9, "monitor": "loss"},
    ),
    "converged": ((squared_error, *DATA), {"optimizer": SGD(1e-9), "tolerance": 0.5, "epochs": 9}),
    "a callback's stop": ((squared_error, *DATA), {"callbacks": [Stop()]}),
    "fails in the second epoch": ((squared_error, *DATA), {"optimizer": SGD(20.0), "epochs": 9}),
    "fails for a row": ((squared_error, (X, BROKEN)), {}),
    "batch descent": ((squared_error, *DATA), {"batch_size": "all", "optimizer": SGD(0.4), "epochs": 9}),
    "a window an epoch": ((squared_error, *DATA), {"batch_size": 20, "epochs": 5, "shuffle": False}),
    "a function": ((bowl, None), {"optimizer": SGD(1e-4), "epochs": 300}),
    "a function that converges": ((bowl, None), {"optimizer": SGD(0.1), "epochs": 99, "tolerance": 1e-2}),
    "a function's plateau": (
        (bowl, None),
        {"optimizer": SGD(schedules.reduce_on_plateau(0.1, patience=1, minimum_change=9.0)), "epochs": 7},
    ),
    "optax": (
        (squared_error, *DATA),
        {"optimizer": optax.chain(optax.add_noise(0.1, 0.5, 3), optax.lion(0.01))},
    ),
    "rates in the state": ((squared_error, *DATA), {"optimizer": optax.inject_hyperparams(optax.adam)(0.1)}),
    "lbfgs": ((valley, None), {"optimizer": optax.lbfgs(), "epochs": 60, "tolerance": 1e-4}),
}


def run(case: str, folder: Path | None, *more: Callback, **changes):
    (objective, data), settings = CASES[case]
    start = jnp.zeros(3, changes.pop("dtype", None))
    given = {"batch_size": 5, "epochs": 3, "tolerance": 0.0, **settings, **changes}
    callbacks = [*given.pop("callbacks", []), *more]
    return minimize(objective, start, data, callbacks=callbacks, checkpoint=folder, **given)


def through_interruptions(case: str, folder: Path, leave=Interrupted, **changes):
    """Leave the descent again and again; return its result and how often it was left."""
    for left in range(200):
        try:
            return run(case, folder, Leave(leave), **changes), left
        except leave:
            pass
    raise AssertionError("it does not end")


def assert_same(found, expected) -> None:
    assert np.asarray(found.parameters).tobytes() == np.asarray(expected.parameters).tobytes()
    pd.testing.assert_frame_equal(found.history, expected.history, check_exact=True)
    times = ["seconds", "rows_per_second"]
    figures = [each.epochs.drop(columns=times, errors="ignore") for each in (found, expected)]
    pd.testing.assert_frame_equal(*figures, check_exact=True)
    for name in ("why_it_stopped", "converged", "steps", "best_epoch"):
        assert getattr(found, name) == getattr(expected, name)
    assert (found.failure is None) == (expected.failure is None)
    if found.failure:
        assert repr(found.failure) == repr(expected.failure)


@pytest.mark.parametrize("case", CASES)
def test_interrupted_at_every_window_it_ends_with_the_same_bytes(case, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "WINDOW_BYTES", MANY)
    monkeypatch.setattr(feeding, "CHUNK", 16)
    expected = run(case, None)
    found, left = through_interruptions(case, tmp_path)
    assert left > 0
    assert_same(found, expected)


EXPECTED = {
    "patience": "and has not improved in 2 epochs; the weights of epoch",
    "patience at the end": "the last epoch (3) was reached",
    "converged": "in 5 epochs running",
    "a callback's stop": "enough",
    "fails in the second epoch": "(epoch 2)",
    "fails for a row": "(epoch 1)",
    "a function that converges": "the gradient's norm",
}


@pytest.mark.parametrize("case", EXPECTED)
def test_the_cases_are_what_they_say(case, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "WINDOW_BYTES", MANY)
    assert EXPECTED[case] in run(case, None).why_it_stopped


@pytest.mark.parametrize("dtype", among(["bfloat16", "float16", "float32", "float64"], "bfloat16", "float64"))
def test_numbers_of_any_type(dtype, x64, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "WINDOW_BYTES", MANY)
    expected = run("patience", None, dtype=dtype)
    assert str(expected.parameters.dtype) == dtype
    found, left = through_interruptions("patience", tmp_path, dtype=dtype)
    assert left > 3
    assert_same(found, expected)
    assert found.history.loss.dtype == expected.history.loss.dtype


def test_random_keys_of_their_own_type(tmp_path) -> None:
    noise = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.sgd(0.01))
    expected = run("a function", None, optimizer=noise)
    found, left = through_interruptions("a function", tmp_path, optimizer=noise)
    assert left == 1
    assert_same(found, expected)


def test_ctrl_c_saves_and_is_passed_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "WINDOW_BYTES", MANY)

    class Press(Callback):
        def on_window_end(self, epoch, rows, loss):
            if epoch == 2:
                signal.raise_signal(signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # also where it is ignored
    with pytest.raises(KeyboardInterrupt):
        run("padded", tmp_path, Press())
    signal.signal(signal.SIGINT, handler)
    assert len(list(tmp_path.iterdir())) == 2
    seen = []

    class Watch(Callback):
        def on_window_end(self, epoch, rows, loss):
            seen.append((epoch, rows))

    assert_same(run("padded", tmp_path, Watch()), run("padded", None))
    assert seen[0] == (2, 10), "the second epoch's first window comes first"


def test_a_descent_that_has_ended_is_not_run_again(tmp_path) -> None:
    first = run("patience", tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir())

    class Never(Callback):
        def on_window_end(self, epoch, rows, loss):
            raise AssertionError

        on_epoch_end = on_window_end

    again = run("patience", tmp_path, Never())
    assert_same(again, first)
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    assert again.seconds >= first.epochs.seconds.sum()
    pd.testing.assert_frame_equal(again.epochs, first.epochs, check_exact=True)


def test_more_epochs_go_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "WINDOW_BYTES", MANY)
    run("padded", tmp_path, epochs=2)
    assert_same(run("padded", tmp_path, epochs=5), run("padded", None, epochs=5))
    with fails("beyond epoch 4"):
        run("padded", tmp_path, epochs=4)


def test_seconds_are_those_of_all_calls(tmp_path) -> None:
    class Slow(Callback):
        def on_epoch_end(self, figures):
            time.sleep(0.1)

    run("padded", tmp_path, Slow(), epochs=2)
    result = run("padded", tmp_path, Slow(), epochs=4)
    assert 0.4 <= result.seconds < 0.4 + 10
    assert 0.3 <= result.epochs.seconds.sum() <= result.seconds


OTHERS = {
    "seed": ({"seed": 1}, "its seed was 0 and is now 1"),
    "batch size": ({"batch_size": 6}, "its batch size was 5 and is now 6"),
    "order": ({"shuffle": False}, "its shuffle was True and is now False"),
    "rule": ({"optimizer": "sgd"}, "its optimizer was adam and is now sgd"),
    "rate": ({"optimizer": Adam(0.1)}, "its schedule was cosine and is now constant"),
    "rule's numbers": ({"optimizer": Adam(schedules.cosine(0.1, steps=20), epsilon=1.0)}, "epsilon"),
    "penalty": ({"l2": 0.5}, "its penalties was"),
    "tolerance": ({"tolerance": 0.5}, "its tolerance was 0.0 and is now 0.5"),
    "weights": ({"weights": WEIGHTS + 1}, "its data"),
    "validation": ({"validation_data": (X, Y)}, "its validation data"),
    "patience": ({"patience": 3, "monitor": "loss"}, "its patience was None and is now [3, 'loss']"),
    "type": ({"dtype": "bfloat16"}, "parameters was float32[3] and is now bfloat16[3]"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_descent_is_refused(case, tmp_path) -> None:
    changes, message = OTHERS[case]
    run("padded", tmp_path, epochs=1)
    with fails("of another descent", message):
        run("padded", tmp_path, **changes)


def test_other_rows_and_parameters_are_refused(tmp_path) -> None:
    minimize(squared_error, jnp.zeros(3), (X, Y), checkpoint=tmp_path)
    with fails("its data was"):
        minimize(squared_error, jnp.zeros(3), (X, Y + 1), checkpoint=tmp_path)
    with fails("its number of rows was 37 and is now 36"):
        minimize(squared_error, jnp.zeros(3), (X[:36], Y[:36]), checkpoint=tmp_path)
    with fails("state.parameters was float32[3] and is now float32[4]"):
        minimize(lambda p, b: squared_error(p[:3], b), jnp.zeros(4), (X, Y), checkpoint=tmp_path)


def test_a_damaged_checkpoint_is_told_of(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(blocks, "WINDOW_BYTES", MANY)
    expected = run("padded", tmp_path, checkpoint_every=0)
    newest = max(tmp_path.glob("checkpoint-*"))
    newest.write_bytes(newest.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert_same(run("padded", tmp_path), expected)
    assert f"The checkpoint {newest} can't be used" in caplog.text


# ---- kill -9

DESCENT = """
import hashlib, sys
import jax.numpy as jnp, numpy as np
import steepest
from steepest.data import blocks

blocks.WINDOW_BYTES = 50 * 16
X = np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32)
Y = (X @ [1.0, -2.0, 0.5]).astype(np.float32)

class Begun(steepest.Callback):
    def on_descent_begin(self, epochs, rows):
        print("begun", flush=True)

result = steepest.minimize(
    lambda p, b: (b[0] @ p - b[1]) ** 2, jnp.zeros(3), (X, Y), optimizer=steepest.Adam(1e-3), batch_size=10,
    epochs=int(sys.argv[2]), validation_data=(X, Y), patience=3, tolerance=0, callbacks=[Begun()],
    checkpoint=sys.argv[1] or None, checkpoint_every=0,
)
seal = hashlib.sha256(np.asarray(result.parameters).tobytes())
seal.update(result.history.to_numpy().tobytes())
seal.update(result.epochs.drop(columns=["seconds", "rows_per_second"]).to_numpy().tobytes())
print(seal.hexdigest())
"""


def seal_of(folder: str, epochs: int) -> str:
    command = [sys.executable, "-c", DESCENT, folder, str(epochs)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]


def kill(folder: str, epochs: int, after: float) -> bool:
    """Kill a descent some seconds after its begin; tell whether it still ran."""
    command = [sys.executable, "-c", DESCENT, folder, str(epochs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        time.sleep(after)
        process.kill()
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("kills", "epochs"), [(1, 10), pytest.param(100, 300, marks=pytest.mark.slow)], ids=["once", "often"]
)
def test_killed_at_any_moment_it_ends_with_the_same_bytes(kills, epochs, tmp_path) -> None:
    moments = random.Random(0)
    died = sum(kill(str(tmp_path), epochs, moments.uniform(0.05, 0.6)) for _ in range(kills))
    assert died == kills
    assert seal_of(str(tmp_path), epochs) == seal_of("", epochs)
    assert not list(tmp_path.glob(".*")), "what a kill left behind is gone"

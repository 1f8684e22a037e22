"""Keras models: `steepest.keras.fit` beside `keras.Model.fit`, on the network and the rows of `listing.py`.

All take the loss and the accuracy of training and of 4,000 more rows, but for the bare scan around
`stateless_call` and the contestant that is to be compared with it. Keras' nightly build, whose own trainer
scans, takes part from the folder that `make bench` installs it into.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import listing
from listing import (
    BATCH,
    FEATURES,
    KERAS_STEPS_PER_EXECUTION,
    STEPS,
    WARM_UP,
    Data,
    keras,
    keras_name,
    network,
)
from measure import Goal, Report, Standing, Train, Turn, clocked, enter, fitted, take_turns

OURS, LEAN, BARE = "Steepest", "Steepest, without metric and validation", "bare lax.scan, stateless_call"
NIGHTLY = Path(sys.prefix, "keras-nightly")


def steepest(data: Data, lean: bool = False) -> Train:
    model = network([] if lean else ["accuracy"])
    import steepest.keras

    settings = {} if lean else {"validation_data": data.validation}
    return fitted(partial(steepest.keras.fit, model), *data.rows, batch_size=BATCH, **settings)


def bare_scan(data: Data) -> Train:
    import jax
    import keras

    model = network([])
    model.optimizer.build(model.trainable_variables)
    loss_of = keras.losses.BinaryCrossentropy()
    x, y = data.rows
    batches = jax.device_put((x.reshape(STEPS, BATCH, FEATURES), y.reshape(STEPS, BATCH, 1)))

    def step(state: Any, batch: Any) -> tuple[Any, Any]:
        trainable, other, memory = state

        def loss(trainable: Any) -> tuple[Any, Any]:
            outputs, after = model.stateless_call(trainable, other, batch[0], training=True)
            return loss_of(batch[1], outputs), after

        (value, after), gradient = jax.value_and_grad(loss, has_aux=True)(trainable)
        trainable, memory = model.optimizer.stateless_apply(memory, gradient, trainable)
        return (trainable, after, memory), value

    @partial(jax.jit, donate_argnums=0)
    def run_epoch(state: Any, batches: Any) -> tuple[Any, Any]:
        return jax.lax.scan(step, state, batches)

    variables = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables)
    state = tuple([jax.numpy.array(each.value) for each in group] for group in variables)

    def epoch() -> float:
        nonlocal state
        state, losses = run_epoch(state, batches)
        return float(np.asarray(losses).mean())

    return partial(clocked, epoch)


def nightly(data: Data) -> Train:  # noqa: ARG001 - it makes its own, the same
    """Keras' nightly build with its best steps_per_execution, in a process of its own."""
    if not NIGHTLY.exists():
        raise ImportError(f"no folder {NIGHTLY}")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(NIGHTLY), *sys.path])}
    worker = subprocess.Popen(
        [sys.executable, __file__], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    def train(epochs: int) -> Turn:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(f"{epochs}\n")
        worker.stdin.flush()
        return Turn(*json.loads(worker.stdout.readline()))

    return train


def work() -> None:
    """Be the process of `nightly`: read a number of epochs, write a turn."""
    train = keras(listing.make_data(), steps_per_execution=STEPS)
    for line in sys.stdin:
        print(json.dumps(train(int(line))), flush=True)


def run(rounds: int) -> Report:
    data = listing.make_data()
    makers: dict[str, Callable[[], Train]] = {
        OURS: partial(steepest, data),
        LEAN: partial(steepest, data, lean=True),
        BARE: partial(bare_scan, data),
        **{
            keras_name(steps): partial(keras, data, steps_per_execution=steps)
            for steps in KERAS_STEPS_PER_EXECUTION
        },
        f"Keras' nightly, steps_per_execution={STEPS}": partial(nightly, data),
    }
    contestants, missing = enter(makers)
    standings = take_turns(contestants, rounds, WARM_UP)
    ours = standings[OURS]
    rows = [
        [name, each.seconds / STEPS * 1e6, each.over(ours), each.loss] for name, each in standings.items()
    ]
    columns = ("", "µs per step", "times Steepest", f"training loss, epoch {WARM_UP + 1}")
    return Report("A Keras model: time per step", columns, rows, _goals(standings), missing)


def _goals(standings: dict[str, Standing]) -> list[Goal]:
    ours = standings[OURS]
    scanned = min(each.over(ours) for name, each in standings.items() if "steps_per_execution" in name)
    return [
        Goal(
            "Keras' time per step, as it is, over Steepest's", 18, standings[keras_name(1)].over(ours), False
        ),
        Goal("Keras' best over Steepest's", 6, scanned, False),
        Goal("Steepest's over the bare scan's, metric and validation on", 1.2, ours.over(standings[BARE])),
        Goal("the same without metric and validation", 1.2, standings[LEAN].over(standings[BARE])),
    ]


if __name__ == "__main__":
    work()

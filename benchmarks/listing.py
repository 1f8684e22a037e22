"""Time per step of a small network, 20 → 64 relu → 1 sigmoid: Adam, batch 32, 20,000 rows.

All but the bare scan record the training loss and, after each epoch, the loss and the accuracy on 4,000
rows, and visit the rows in a new order each epoch. Steepest and Keras are timed from the end of one epoch
to the end of the next; so all that they do between two epochs is counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from measure import Goal, Report, Train, clocked, descending, enter, fitted, take_turns

ROWS, VALIDATION_ROWS, FEATURES, HIDDEN, BATCH, RATE = 20_000, 4_000, 20, 64, 32, 1e-3
STEPS = ROWS // BATCH
WARM_UP = 10
KERAS_STEPS_PER_EXECUTION = (1, 8, 32, 128, 625)


class Data(NamedTuple):
    rows: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]


def make_data() -> Data:
    """Rows whose class a small random network decides, with noise."""
    draws = np.random.default_rng(0)
    x = draws.normal(size=(ROWS + VALIDATION_ROWS, FEATURES)).astype(np.float32)
    teacher = np.tanh(x @ draws.normal(size=(FEATURES, 8))) @ draws.normal(size=8)
    y = (teacher + draws.normal(size=len(x)) > 0).astype(np.float32)
    return Data((x[:ROWS], y[:ROWS]), (x[ROWS:], y[ROWS:]))


def steepest(data: Data, **settings: Any) -> Train:
    import jax
    import jax.numpy as jnp

    from steepest import Adam, losses, models

    model, loss = models.multilayer(FEATURES, (HIDDEN,)), losses.binary_cross_entropy()

    def objective(parameters: Any, batch: Any) -> jax.Array:
        return loss.per_row(model.apply(parameters, batch[0]), batch[1])

    def accuracy(parameters: Any, batch: Any) -> jax.Array:
        return ((model.apply(parameters, batch[0]) > 0) == (batch[1] > 0.5)).astype(jnp.float32)

    return descending(
        objective,
        model.init(jax.random.key(0)),
        data.rows,
        optimizer=Adam(RATE),
        batch_size=BATCH,
        validation_data=data.validation,
        metrics={"accuracy": accuracy},
        **settings,
    )


def bare_scan(data: Data) -> Train:
    """What a person would write: rows on the device, one order for all epochs, no validation."""
    import jax
    import jax.numpy as jnp
    import optax

    keys = jax.random.split(jax.random.key(0))
    he, glorot = jax.nn.initializers.he_normal(), jax.nn.initializers.glorot_uniform()
    weights = he(keys[0], (FEATURES, HIDDEN)), glorot(keys[1], (HIDDEN, 1))
    parameters = [(each, jnp.zeros(each.shape[1])) for each in weights]
    optimizer = optax.adam(RATE)
    x, y = data.rows
    batches = jax.device_put((x.reshape(STEPS, BATCH, FEATURES), y.reshape(STEPS, BATCH)))

    def mean_loss(parameters: Any, batch: Any) -> jax.Array:
        (weights_1, bias_1), (weights_2, bias_2) = parameters
        x, y = batch
        logits = jax.nn.relu(x @ weights_1 + bias_1) @ weights_2 + bias_2
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], y).mean()

    def step(state: Any, batch: Any) -> tuple[Any, jax.Array]:
        parameters, optimizer_state = state
        loss, gradient = jax.value_and_grad(mean_loss)(parameters, batch)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, parameters)
        return (optax.apply_updates(parameters, updates), optimizer_state), loss

    @partial(jax.jit, donate_argnums=0)
    def run_epoch(state: Any, batches: Any) -> tuple[Any, jax.Array]:
        return jax.lax.scan(step, state, batches)

    state = (parameters, optimizer.init(parameters))

    def epoch() -> float:
        nonlocal state
        state, losses = run_epoch(state, batches)
        return float(np.asarray(losses).mean())

    return partial(clocked, epoch)


def network(metrics: list[str], steps_per_execution: int = 1) -> Any:
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    layers = [keras.Input((FEATURES,)), keras.layers.Dense(HIDDEN, "relu"), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential(layers)
    optimizer = keras.optimizers.Adam(RATE)
    model.compile(optimizer, "binary_crossentropy", metrics=metrics, steps_per_execution=steps_per_execution)
    return model


def keras(data: Data, steps_per_execution: int = 1) -> Train:
    model = network(["accuracy"], steps_per_execution)
    return fitted(model.fit, *data.rows, batch_size=BATCH, validation_data=data.validation)


def pytorch(data: Data) -> Train:
    """Eager PyTorch at its best: no DataLoader, and one thread, because two wait for each other."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    (x, y), (validation_x, validation_y) = (map(torch.from_numpy, part) for part in data)
    model = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    loss_of = torch.nn.BCEWithLogitsLoss()

    def epoch() -> float:
        losses = []
        order = torch.randperm(ROWS)
        for batch_x, batch_y in zip(x[order].split(BATCH), y[order].split(BATCH), strict=True):
            optimizer.zero_grad()
            loss = loss_of(model(batch_x)[:, 0], batch_y)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        with torch.no_grad():
            logits = model(validation_x)[:, 0]
            right = (logits > 0) == (validation_y > 0.5)
            _ = float(loss_of(logits, validation_y)), float(right.float().mean())
        return float(torch.stack(losses).mean())

    return partial(clocked, epoch)


def scikit_learn(data: Data) -> Train:
    from sklearn.metrics import log_loss
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier((HIDDEN,), batch_size=BATCH, learning_rate_init=RATE, alpha=0.0, random_state=0)

    def epoch() -> float:
        model.partial_fit(*data.rows, classes=(0.0, 1.0))
        x, y = data.validation
        probability = model.predict_proba(x)[:, 1]
        _ = log_loss(y, probability), ((probability > 0.5) == (y > 0.5)).mean()
        return float(model.loss_)

    return partial(clocked, epoch)


def keras_name(steps: int) -> str:
    return "Keras on JAX, fit as it is" if steps == 1 else f"Keras on JAX, steps_per_execution={steps}"


STEEPEST, BARE, PYTORCH = "Steepest", "bare lax.scan", "PyTorch eager, fused Adam"
CONTESTANTS: dict[str, Callable[[Data], Train]] = {
    STEEPEST: steepest,
    BARE: bare_scan,
    **{keras_name(steps): partial(keras, steps_per_execution=steps) for steps in KERAS_STEPS_PER_EXECUTION},
    PYTORCH: pytorch,
    "scikit-learn MLPClassifier": scikit_learn,
}


def run(rounds: int) -> Report:
    data = make_data()
    contestants, missing = enter({name: partial(make, data) for name, make in CONTESTANTS.items()})
    standings = take_turns(contestants, rounds, WARM_UP)
    ours = standings[STEEPEST]
    rows = [
        [name, each.seconds / STEPS * 1e6, each.over(ours), each.loss] for name, each in standings.items()
    ]
    goals = [Goal("Steepest's time per step over the bare scan's", 1.15, ours.over(standings[BARE]))]
    if default := standings.get(keras_name(1)):
        goals.append(Goal("Keras' time per step, as it is, over Steepest's", 20, default.over(ours), False))
    columns = ("", "µs per step", "times Steepest", f"training loss, epoch {WARM_UP + 1}")
    return Report("A small network: time per step", columns, rows, goals, missing)

"""Several processes that descend together: the batches and the weights of one process that has all rows."""

from __future__ import annotations

import itertools
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import steepest
from ranks import together
from steepest import minimization
from steepest.data.order import epoch_order
from steepest.data.shared import Shared, share_of

ROWS, FEATURES = 1_003, 7


def problem():
    draws = np.random.Generator(np.random.Philox(5))
    features = draws.normal(size=(ROWS, FEATURES)).astype(np.float32)
    target = (features @ np.arange(FEATURES) + draws.normal(size=ROWS) > 0).astype(np.float32)
    weights = draws.uniform(0.5, 2, ROWS).astype(np.float32)
    return {"features": features, "target": target}, weights


def objective(parameters, batch):
    hidden = jnp.tanh(batch["features"] @ parameters["in"] + parameters["bias"])
    score = hidden @ parameters["out"]
    return jnp.logaddexp(0, score) - batch["target"] * score


def start():
    draws = np.random.Generator(np.random.Philox(6))
    return {
        "in": draws.normal(size=(FEATURES, 5)).astype(np.float32),
        "bias": np.zeros(5, np.float32),
        "out": draws.normal(size=5).astype(np.float32),
    }


def accuracy(parameters, batch):
    score = jnp.tanh(batch["features"] @ parameters["in"] + parameters["bias"]) @ parameters["out"]
    return ((score > 0) == (batch["target"] > 0)).astype(jnp.float32)


def settings(case):
    rate = steepest.schedules.cosine(0.02, steps=320)
    common = {"optimizer": steepest.Adam(rate), "batch_size": 32, "epochs": 10, "seed": 3, "l2": 0.001}
    if case == "whole":
        return common | {"optimizer": steepest.SGD(0.3), "batch_size": "all"}
    if case == "line search":
        return common | {"optimizer": steepest.LBFGS(), "batch_size": "all", "epochs": 20}
    if case == "clipped":
        return common | {"optimizer": steepest.SGD(0.1, momentum=0.9, clip_norm=0.2), "l1": 0.001}
    return common


def minimised(case, share):
    data, weights = problem()
    held_out = {name: values[:300] for name, values in data.items()}
    return steepest.minimize(
        objective,
        start(),
        {name: share(values) for name, values in data.items()},
        weights=share(weights) if case != "whole" else None,
        validation_data={name: share(values, 300) for name, values in held_out.items()},
        metrics={"accuracy": accuracy},
        **settings(case),
    )


FIRSTS = {"even": (0.5, 1.0), "uneven": (0.9, 1.0), "empty": (0.0, 1.0), "four": (0.1, 0.15, 0.8, 1.0)}


def descend(group, folder, case, division):
    def share(values, rows=ROWS):
        firsts = (0, *(round(part * rows) for part in FIRSTS[division]))
        return Shared(values[firsts[group.rank] : firsts[group.rank + 1]], firsts, group)

    result = minimised(case, share)
    np.savez(folder / "parameters.npz", **result.parameters)
    result.history.to_parquet(folder / "history.parquet")
    result.epochs.drop(columns=["seconds", "rows_per_second"]).to_parquet(folder / "epochs.parquet")


@pytest.mark.parametrize(
    ("case", "division"),
    [
        pytest.param("plain", "even", marks=pytest.mark.slow),
        ("plain", "uneven"),
        pytest.param("plain", "four", marks=pytest.mark.slow),
        ("whole", "uneven"),
        ("clipped", "empty"),
        pytest.param("line search", "uneven", marks=pytest.mark.slow),
    ],
)
def test_the_same_descent_as_one_process(case, division, tmp_path):
    alone = minimised(case, lambda values, rows=ROWS: values)
    folders = together("test_process_group:descend", len(FIRSTS[division]), tmp_path, case, division)
    for folder in folders:
        parameters = np.load(folder / "parameters.npz")
        for name, values in alone.parameters.items():
            np.testing.assert_allclose(parameters[name], values, atol=1e-5)
        history = pd.read_parquet(folder / "history.parquet")
        pd.testing.assert_frame_equal(history, alone.history, rtol=1e-4, atol=1e-5)
        epochs = pd.read_parquet(folder / "epochs.parquet")
        pd.testing.assert_frame_equal(
            epochs, alone.epochs.drop(columns=["seconds", "rows_per_second"]), rtol=1e-4, atol=1e-5
        )
        assert folder.joinpath("parameters.npz").read_bytes() == (folders[0] / "parameters.npz").read_bytes()


def own_steps(group, folder):
    """Plain descent in batches of 8 over 35 rows, of which the first process has 20."""
    features, target, firsts = line()
    group = replace(group, local_steps=3)
    rows = [
        Shared(each[firsts[group.rank] : firsts[group.rank + 1]], firsts, group)
        for each in (features, target)
    ]
    result = slope_of(tuple(rows))
    assert result.seconds_alone is None, "it was soon over"
    minimization.LONG = 0.0  # in this process alone
    again = slope_of(tuple(rows))
    assert 0 < again.seconds_alone < 60
    np.testing.assert_array_equal(again.parameters, result.parameters)
    np.save(folder / "slope.npy", result.parameters)
    result.history.to_parquet(folder / "history.parquet")


def slope_of(rows):
    return steepest.minimize(
        lambda slope, batch: (batch[0] @ slope - batch[1]) ** 2, np.zeros(2, np.float32), rows,
        optimizer=steepest.SGD(0.05), batch_size=8, epochs=4, tolerance=0.0, seed=2,
    )  # fmt: skip


def line():
    draws = np.random.Generator(np.random.Philox(7))
    features = draws.normal(size=(35, 2)).astype(np.float32)
    return features, (features @ [1, -2] + draws.normal(size=35)).astype(np.float32), (0, 20, 35)


def test_processes_that_average_now_and_then(tmp_path):
    features, target, firsts = line()
    slope, losses = np.zeros(2), []
    for epoch in range(4):
        order = np.concatenate(list(epoch_order(2, epoch, 35)))
        own = [slope, slope]
        for step in range(5):
            batch = order[8 * step : 8 * step + 8]
            parts = [batch[(batch >= first) & (batch < end)] for first, end in itertools.pairwise(firsts)]
            errors = [features[part] @ each - target[part] for part, each in zip(parts, own, strict=True)]
            losses.append(np.concatenate(errors) @ np.concatenate(errors) / len(batch))
            own = [
                each - 0.05 * 2 * error @ features[part] / len(part) if len(part) else each
                for part, each, error in zip(parts, own, errors, strict=True)
            ]
            if step in (2, 4):  # after three steps, and at the window's end
                own = [sum(own) / 2] * 2
        slope = own[0]
    for folder in together("test_process_group:own_steps", 2, tmp_path):
        np.testing.assert_allclose(np.load(folder / "slope.npy"), slope, rtol=1e-4)
        np.testing.assert_allclose(pd.read_parquet(folder / "history.parquet")["loss"], losses, rtol=1e-4)


def messages(group, folder):
    parts = [b"", b"x" * 5, bytes(range(256)) * 300, b"end"][: group.size]
    assert group.exchange(parts[group.rank]) == parts
    whole = np.arange(10, dtype=np.float64) / 3
    part = np.where(np.arange(10) % group.size == group.rank, whole, 0)
    assert group.joined(part).tobytes() == whole.tobytes()


def test_processes_tell_each_other(tmp_path):
    together("test_process_group:messages", 4, tmp_path)


@given(st.data())
def test_every_row_has_one_place_in_its_step(data):
    runs = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=5))
    firsts = tuple(np.concatenate([[0], np.cumsum(runs)]).tolist())
    batch_size = data.draw(st.integers(1, 9))
    steps = -(-firsts[-1] // batch_size)
    rows = np.full(steps * batch_size, -1)
    rows[: firsts[-1]] = np.random.Generator(np.random.Philox(1)).permutation(firsts[-1])
    rows = rows.reshape(steps, batch_size)
    found = [[] for _ in range(steps)]
    for rank in range(len(runs)):
        share = share_of(rows, firsts, rank)
        assert (np.diff(share.places) > 0).all()
        for number, place in zip(share.numbers.tolist(), share.places.tolist(), strict=True):
            assert 0 <= number < runs[rank]
            found[place // share.width].append(number + firsts[rank])
    assert [sorted(each) for each in found] == [sorted(step[step >= 0].tolist()) for step in rows]

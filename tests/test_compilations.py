"""What compiles, counted: an epoch after the first nothing, and a second descent no epoch of its own."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import steepest
from steepest import Callback, minimize, schedules
from steepest.data import blocks
from steepest.descent import room
from steepest.descent.epoch import evaluate, run_window, try_window

COMPILED: list[str] = []


def programs() -> int:
    """Return how many versions of the compiled epoch there are."""
    return run_window._cache_size() + try_window._cache_size()


def count(event: str, seconds: float, **_: object) -> None:
    if event.endswith("backend_compile_duration"):
        COMPILED.append(event)


jax.monitoring.register_event_duration_secs_listener(count)

ROWS = np.arange(37.0, dtype=np.float32)


def distance(position, rows):
    return (rows - position) ** 2


def mean_distance(position, rows):
    return distance(position, rows).mean()


class Counter(Callback):
    """Programs compiled, and versions of the epoch, by the end of each epoch."""

    def __init__(self) -> None:
        self.epochs: list[tuple[int, int]] = []

    def on_epoch_end(self, figures: dict[str, float]) -> None:
        self.epochs.append((len(COMPILED), programs()))


def test_compilations_are_counted() -> None:
    before = len(COMPILED)
    jax.jit(lambda x: x * 3.25)(1.0)
    assert len(COMPILED) == before + 1


@pytest.mark.parametrize("window_bytes", [2**25, 100])
@pytest.mark.parametrize(
    ("objective", "batch_size"),
    [(distance, 1), (distance, 5), (distance, "all"), (mean_distance, 5), (mean_distance, "all")],
)
def test_an_epoch_after_the_first_compiles_nothing(objective, batch_size, window_bytes, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "WINDOW_BYTES", window_bytes)
    counter = Counter()
    minimize(
        objective,
        0.0,
        ROWS,
        optimizer=steepest.Adam(schedules.reduce_on_plateau(0.01, patience=1)),
        batch_size=batch_size,
        epochs=4,
        tolerance=0,
        l1=0.1,
        validation_data=ROWS,
        callbacks=[counter],
    )
    assert len(counter.epochs) == 4
    assert len(set(counter.epochs)) == 1, "nothing is compiled after the first epoch"


def test_steps_without_data_compile_once() -> None:
    counter = Counter()
    minimize(
        lambda p: (p - 1) ** 2,
        0.0,
        epochs=1000,
        tolerance=0,
        optimizer=steepest.SGD(1e-4),
        callbacks=[counter],
    )
    assert len(counter.epochs) == 4
    assert len(set(counter.epochs)) == 1


def versions(**settings) -> tuple[int, int]:
    """Run a descent; return how many versions of the epoch, and of the validation, there are after it."""
    start = settings.pop("start", jnp.zeros(()))
    minimize(distance, start, ROWS, **({"batch_size": 5, "epochs": 2, "validation_data": ROWS} | settings))
    return programs(), evaluate._cache_size()


def test_another_descent_of_the_same_kind_compiles_no_epoch() -> None:
    rule = steepest.Momentum
    first = versions(optimizer=rule(0.01), l2=0.1)
    assert versions(optimizer=rule(0.02), l2=0.1) == first
    assert versions(optimizer=rule(schedules.cosine(0.02, steps=9)), l2=0.1) == first
    assert versions(optimizer=rule(schedules.reduce_on_plateau(0.1)), l2=0.1) == first
    assert versions(optimizer=rule(0.01), l2=0.3, seed=7) == first
    clipped = versions(optimizer=rule(0.01, clip_norm=1.0), l2=0.1)
    assert versions(optimizer=rule(0.01, clip_norm=2.0), l2=0.1) == clipped
    first = clipped
    assert versions(optimizer=rule(0.01), l2=0.1, tolerance=1e-3, epochs=3) == first
    assert versions(optimizer=rule(0.01), l2=0.1, start=jnp.ones(())) == first
    assert versions(optimizer=rule(0.01), l2=0.1, weights=np.full(37, 2.0)) == first
    before = len(COMPILED)
    versions(optimizer=rule(0.01), l2=0.1, seed=3)
    versions(optimizer=rule(0.01), l2=0.1, shuffle=False)
    assert len(COMPILED) == before, "not even something small"


def test_another_program_compiles() -> None:
    """So that the test above can fail."""
    first = versions(optimizer=steepest.Momentum(0.01))
    assert versions(optimizer=steepest.Momentum(0.01, momentum=0.5))[0] == first[0] + 1
    assert versions(optimizer=steepest.Adam(0.01))[0] == first[0] + 2


def test_batch_sizes_are_one_program_of_different_shapes() -> None:
    """Stochastic, mini-batch and batch descent: equal programs, each compiled for its shapes and once."""
    before = programs()
    for size in (1, 5, "all", 1, 5, "all"):
        versions(optimizer=steepest.SGD(0.001, momentum=0.3), batch_size=size)
    assert programs() == before + 3


@pytest.mark.slow
def test_programs_are_forgotten_before_there_is_no_room_for_more(monkeypatch, tmp_path) -> None:
    def mapped() -> int:
        return len(room.MINE.read_text().splitlines())

    def descend(target: float) -> None:
        minimize(lambda p, row: (p - row * target) ** 2, 0.0, ROWS, batch_size=5, epochs=1)

    (tmp_path / "most").write_text("1000000000")
    monkeypatch.setattr(room, "MOST", tmp_path / "most")
    monkeypatch.setattr(room, "_descents", itertools.count())
    before = mapped()
    for number in range(2 * room.EVERY):
        descend(number)
    grown = mapped()
    assert grown > before + 2 * room.EVERY
    (tmp_path / "most").write_text(f"{grown}")
    descend(-1.0)
    assert mapped() < grown

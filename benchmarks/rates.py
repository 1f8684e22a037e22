"""The training loss that ``--learning-rate auto`` leads to, beside the best of a grid of 25 rates.

Each problem is prepared as ``steepest fit`` does it and descended on by `steepest.minimize` with the epochs
that a fit would take; the loss is that of all training rows at the end, without dropout. The grid has rates
from 1e-6 to 10, as the search begins with.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from measure import Goal, Report

GRID = np.geomspace(1e-6, 10, 25)
FLIGHTS_ROWS = 20_000
CLOSE, WANTED = 0.02, 11


class Problem(NamedTuple):
    data: str
    model: str
    optimizer: str

    @property
    def name(self) -> str:
        return f"{self.data}, {self.model}, {self.optimizer}"


PROBLEMS = (
    Problem("breast_cancer", "linear", "sgd"),
    Problem("breast_cancer", "mlp", "adam"),
    Problem("digits", "linear", "momentum"),
    Problem("digits", "mlp", "adam"),
    Problem("diabetes", "linear", "adam"),
    Problem("diabetes", "linear", "sgd"),
    Problem("diabetes", "mlp", "momentum"),
    Problem("iris", "linear", "momentum"),
    Problem("iris", "mlp", "sgd"),
    Problem("wine", "linear", "adam"),
    Problem("wine", "mlp", "momentum"),
    Problem("flights", "linear", "sgd"),
    Problem("flights", "linear", "adam"),
    Problem("flights", "mlp", "adam"),
)


def table(name: str) -> tuple[Any, str]:
    """Return a real table and its target."""
    if name != "flights":
        from sklearn import datasets

        return getattr(datasets, f"load_{name}")(as_frame=True).frame, "target"
    import pandas as pd

    from process import write_flights

    flights = pd.read_csv(write_flights())
    return flights[flights["late"].notna()].sample(FLIGHTS_ROWS, random_state=0), "late"


def reached(asked: Any, prepared: Any, parameters: Any) -> float:
    """Return the mean loss of all training rows."""
    rows = {"features": prepared.training.features[:], "target": np.asarray(prepared.training.target)}
    return float(np.asarray(asked.objective(parameters, rows), np.float64).mean())


def judge(problem: Problem) -> list[Any]:
    """Return a row of the table."""
    from steepest import networks
    from steepest.data.rows import MEMORY
    from steepest.descent.optimizers import optimizer_by_name
    from steepest.preparation import prepare
    from steepest.settings import Settings
    from steepest.training import epochs_of

    data, target = table(problem.data)
    settings = Settings(MEMORY, target, problem.model, optimizer=problem.optimizer)
    prepared = prepare(settings, data)
    epochs = epochs_of(settings, prepared)
    began = time.perf_counter()
    search = networks.search_rate(settings, prepared, epochs)
    seconds = time.perf_counter() - began
    asked = networks.problem(settings, prepared, epochs)

    def descend(rate: float) -> float:
        wanted = {**asked.descent, "optimizer": optimizer_by_name(problem.optimizer)(rate)}
        result = networks.descend(replace(asked, descent=wanted), validation=None)
        return float("nan") if result.failure else reached(asked, prepared, result.parameters)

    grid = np.array([descend(float(rate)) for rate in GRID])
    best = int(np.nanargmin(grid))
    rate = search.choice or float(asked.descent["optimizer"].schedule.settings["learning_rate"])
    found = descend(rate)
    close = found <= grid[best] + CLOSE * abs(grid[best])
    share = f"{search.steps:,} of {search.planned_steps:,}"
    return [
        problem.name,
        rate,
        found,
        float(GRID[best]),
        float(grid[best]),
        "yes" if close else "no",
        seconds,
        share,
    ]


def run(rounds: int) -> Report:  # noqa: ARG001 - the same each time
    rows = [judge(problem) for problem in PROBLEMS]
    close = sum(row[5] == "yes" for row in rows)
    columns = ("", "auto", "its loss", "best of 25", "its loss", "as good", "seconds", "steps")
    goals = [
        Goal(
            f"Of {len(rows)} problems those where auto is within 2% of the best of 25, or better",
            WANTED,
            close,
            False,
        )
    ]
    return Report("Learning rates found, beside the best of a grid", columns, rows, goals)

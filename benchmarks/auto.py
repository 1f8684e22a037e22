"""What finding the learning rate adds to a whole process: ``steepest fit`` with ``auto`` beside a number.

Ten epochs of the flights; the two take turns. The processors' seconds are those of all threads.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
from typing import Any

from measure import Goal, Report
from process import MOST_ROUNDS, ROOT, STEEPEST, seconds_of, write_flights

RATES = {"auto": "auto", "a number": "0.0003"}
MOST = 0.2


def cpu() -> float:
    """Return the processor's seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(rounds: int) -> Report:
    rows: list[list[Any]] = []
    goals = []
    with tempfile.TemporaryDirectory() as folder:
        data = str(write_flights().relative_to(ROOT))
        for model in ("linear", "mlp"):
            took: dict[str, list[tuple[float, float]]] = {name: [] for name in RATES}
            for _ in range(min(rounds, MOST_ROUNDS)):
                for name, rate in RATES.items():
                    began = cpu()
                    command = [*STEEPEST, "fit", data, "--target", "late", "--epochs", "10", "--model", model]
                    options = ["--learning-rate", rate, "--out", f"{folder}/run", "--overwrite"]
                    seconds, _ = seconds_of([*command, *options])
                    took[name].append((seconds, cpu() - began))
            medians = {
                name: [statistics.median(each) for each in zip(*all_, strict=True)]
                for name, all_ in took.items()
            }
            rows += [[f"{model}, {name}", *medians[name]] for name in RATES]
            added = medians["auto"][0] / medians["a number"][0] - 1
            goals.append(Goal(f"What auto adds to the time of ten epochs, {model}", MOST, added))
    columns = ("", "seconds", "processors' seconds")
    return Report("Finding the learning rate, whole processes", columns, rows, goals)

"""How long an epoch takes with more workers than these machines have: a model, calibrated here, and a figure.

    python benchmarks/scaling.py [--rows N] [--out scaling.png]

Calibrated by `together.py`: what a row costs a core, what a step costs however few rows it has, and what
drawing the order costs. Assumed of the network: the time of a message, and the bytes a second of a link. Of W
workers with batches of B rows and a gradient of P numbers, a step takes

    t = step + row · (B/V + √(2 ln V · B/V)) + reduce,
    reduce = 2 log₂W · message + 2 (1 - 1/W) · 4P / link,

because all wait for the worker that happens to have the most rows of the batch (a binomial's greatest), and a
sum by recursive halving and doubling sends 2 log₂W messages (R. Thakur, R. Rabenseifner and W. Gropp,
"Optimization of collective communication operations in MPICH", 2005). V is W, but at most 64: a window of the
order has a block from each of 64 parts of the rows, so that at any time only so many workers have some. With
``--local-steps H`` the sum comes at each H-th step only. An epoch is N/B steps, but no less than drawing its
order takes, which each worker does by itself for all N rows.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steepest.data.order import BLOCK, WINDOW, epoch_order

WORKERS = (1, 2, 4, 8, 10, 16, 32, 64, 100, 128, 256, 512, 1000)
BATCH = 4096
MESSAGE, LINK = 50e-6, 1.25e9
"""A message between two machines of a data centre, in seconds; 10 Gbit/s, in bytes a second."""

LOCAL = (1, 8, 64)


@dataclass(frozen=True)
class Costs:
    """What was measured here: seconds."""

    step: float
    row: float
    order: float
    parameters: int


def calibrated(hidden: int) -> Costs:
    """Measure this machine; a step's fixed cost and a row's are told apart by two sizes of a batch."""
    import together

    small, large = 64, BATCH
    seconds = {}
    for size in (small, large):
        together.BATCH = size
        seconds[size] = together.measure(None, hidden)
    row = (seconds[large]["descent"] - seconds[small]["descent"]) / (large - small)
    rows = 2**22
    began = time.perf_counter()
    for _ in epoch_order(0, 0, rows):
        pass
    order = (time.perf_counter() - began) / rows
    step = max(0.0, seconds[small]["descent"] - small * row)
    return Costs(step, row, order, int(seconds[small]["parameters"]))


def seconds_of_epoch(costs: Costs, rows: int, workers: int, local_steps: int, batch: int = BATCH) -> float:
    """Return the model's time of an epoch.

    >>> free = Costs(0.0, 1e-6, 0.0, 100)
    >>> round(seconds_of_epoch(free, 4096, 1, 1), 6)
    0.004096
    """
    busy = min(workers, WINDOW // BLOCK)
    mine = batch / busy
    mine += math.sqrt(2 * math.log(busy) * mine)
    reduce = 2 * math.log2(workers) * MESSAGE + 2 * (1 - 1 / workers) * 4 * costs.parameters / LINK
    step = costs.step + costs.row * min(mine, batch) + reduce / local_steps
    return max(rows / batch * step, rows * costs.order)


def knee(costs: Costs, rows: int, local_steps: int) -> int:
    """Return the most workers of those looked at for which twice as many save a quarter of the time."""
    for few, many in itertools.pairwise(WORKERS):
        before, after = (seconds_of_epoch(costs, rows, each, local_steps) for each in (few, many))
        if after > before * (few / many) ** 0.415:  # 2 ** -0.415 = 3/4
            return few
    return WORKERS[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10**9)
    parser.add_argument("--out", type=Path, default=Path("scaling.png"))
    given = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panes = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    for pane, hidden in zip(panes, (64, 2048), strict=True):
        costs = calibrated(hidden)
        print(
            f"50-{hidden}-1: {costs.parameters:,} parameters, {1e6 * costs.step:.0f} µs a step and "
            f"{1e9 * costs.row:.0f} ns a row; the order {1e9 * costs.order:.0f} ns a row"
        )
        for local in LOCAL:
            seconds = [seconds_of_epoch(costs, given.rows, workers, local) for workers in WORKERS]
            last = knee(costs, given.rows, local)
            pane.loglog(WORKERS, seconds, marker="o", markersize=3, label=f"--local-steps {local}")
            shown = ", ".join(f"{w}: {s:,.0f}" for w, s in zip(WORKERS, seconds, strict=True))
            print(f"  --local-steps {local}: seconds by workers {shown}; worth adding up to about {last}")
        ideal = seconds_of_epoch(costs, given.rows, 1, 1) / np.array(WORKERS)
        pane.loglog(WORKERS, ideal, color="0.6", linestyle="--", label="time of one, divided")
        pane.axhline(given.rows * costs.order, color="0.6", linestyle=":", label="drawing the order")
        pane.set_title(f"50-{hidden}-1, batches of {BATCH:,}", fontsize=10)
        pane.set_xlabel("workers, one core each")
        pane.grid(alpha=0.3)
        pane.legend(fontsize=8, frameon=False)
    panes[0].set_ylabel(f"seconds of an epoch of {given.rows:,} rows")
    figure.savefig(given.out, dpi=110)
    print(f"{given.out} assumes {1e6 * MESSAGE:.0f} µs a message and {8e-9 * LINK:.0f} Gbit/s a link")


if __name__ == "__main__":
    main()

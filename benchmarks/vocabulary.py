"""What a step costs as the vocabulary grows: the rows of `text`, looked up in tables of 2^10 to 2^26 weights.

A linear model by `steepest.minimize` with lookups. The rows' words are the same; of the longer tables they
look up more different rows, because fewer words share one. A step is timed within an epoch. Between two
epochs, rules with a memory that fades (Adam's) catch up with all rows of the table, which grows with it: that
stands apart. Figures are medians of the later epochs of a descent, and of the rounds.

    python benchmarks/vocabulary.py [--rows N] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from measure import Report
from text import BATCH, drawn

ROWS, EPOCHS, MOST_ROUNDS = 200_000, 5, 3
BITS = (10, 14, 18, 20, 22, 24, 26)
BASE = 20
"""The vocabulary that the others are compared with."""

HASH = 0x9E3779B97F4A7C15
"""An odd number: multiplying by it, and taking the highest bits, spreads words over places."""


def matrix(rows: int) -> tuple[Any, np.ndarray]:
    """Return the 64-bit hashes of the rows' words, with where each row begins; and the classes."""
    chunks = list(drawn(rows))
    words, lengths, classes = (np.concatenate([each[part] for each in chunks]) for part in range(3))
    hashes = words.astype(np.uint64) * np.uint64(HASH)
    return (hashes, np.concatenate([[0], np.cumsum(lengths)])), classes.astype(np.float32)


def hashed(words: Any, bits: int) -> Any:
    """Return the rows as a sparse matrix of 2^bits columns, each row at a length of about 1."""
    from scipy.sparse import csr_array

    hashes, begins = words
    places = (hashes >> np.uint64(64 - bits)).astype(np.int32)
    found = csr_array((np.ones(len(places), np.float32), places, begins.copy()), (len(begins) - 1, 1 << bits))
    found.sum_duplicates()
    found.data[:] = 1 / 9
    return found


def objective(parameters: Any, batch: Any) -> Any:
    import jax
    import jax.numpy as jnp

    x, y = batch["x"], batch["y"]
    weights = parameters["weights"].at[x.places].get(mode="fill", fill_value=0)
    sums = (weights * x.values).sum(axis=1)
    logits = jax.ops.segment_sum(sums, x.owners, num_segments=len(y)) + parameters["bias"]
    return jnp.logaddexp(0, logits) - y * logits


def touched(x: Any) -> float:
    """Return how many different places a batch looks up, on the average of its first ones."""
    counts = [
        len(np.unique(x.indices[x.indptr[first] : x.indptr[first + BATCH]]))
        for first in range(0, min(50 * BATCH, x.shape[0] - BATCH + 1), BATCH)
    ]
    return statistics.mean(counts)


class Took(NamedTuple):
    """Microseconds of a step, and milliseconds of what comes between two epochs."""

    step: float
    between: float


def descend(x: Any, y: np.ndarray, rule: Any) -> Took:
    """Descend, and return how long steps took after the first epoch."""
    import steepest

    class Clocked(steepest.Callback):
        def __init__(self) -> None:
            self.ends: list[tuple[int, int, float]] = []

        def on_window_end(self, epoch: int, rows: int, loss: float) -> None:  # noqa: ARG002
            self.ends.append((epoch, rows, time.perf_counter()))

    clocked = Clocked()
    steepest.minimize(
        objective,
        {"weights": np.zeros(x.shape[1], np.float32), "bias": np.float32(0)},
        {"x": x, "y": y},
        lookups={"x": "weights"}, optimizer=rule, batch_size=BATCH, epochs=EPOCHS, tolerance=0.0,
        callbacks=[clocked],
    )  # fmt: skip
    steps, firsts = [], []
    for (epoch, rows, end), (next_epoch, next_rows, next_end) in pairwise(clocked.ends):
        if next_epoch > epoch:
            firsts.append((next_rows / BATCH, next_end - end))
        elif epoch > 1:
            steps.append((next_end - end) / (next_rows - rows) * BATCH)
    one = statistics.median(steps)
    between = statistics.median(seconds - count * one for count, seconds in firsts)
    return Took(one * 1e6, between * 1e3)


def compare(rows: int, rounds: int) -> Report:
    import steepest

    rules = {"AdaGrad": steepest.AdaGrad(0.5), "Adam": steepest.Adam(0.01)}
    words, y = matrix(rows)
    took: dict[tuple[int, str], list[Took]] = {(bits, name): [] for bits in BITS for name in rules}
    looked_up = {}
    for _ in range(rounds):
        for bits in BITS:
            x = hashed(words, bits)
            looked_up[bits] = touched(x)
            for name, rule in rules.items():
                took[bits, name].append(descend(x, y, rule))

    def cells(bits: int, name: str) -> list[float]:
        mine = took[bits, name]
        ratios = [one.step / other.step for one, other in zip(mine, took[BASE, name], strict=True)]
        return [*(statistics.median(each) for each in zip(*mine, strict=True)), statistics.median(ratios)]

    table = [
        [f"2^{bits}", looked_up[bits], *(cell for name in rules for cell in cells(bits, name))]
        for bits in BITS
    ]
    columns = ["features", "different ones in a batch"]
    for name in rules:
        columns += [f"{name}, µs per step", "ms between epochs", f"step over 2^{BASE}'s"]
    return Report(f"Cost per step against vocabulary: batches of {BATCH} rows", tuple(columns), table)


def run(rounds: int) -> Report:
    return compare(ROWS, min(rounds, MOST_ROUNDS))


def main() -> None:
    from run import as_json, show

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS, help="at least 100,000: two windows an epoch")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    show(as_json(compare(given.rows, given.rounds), given.rounds))


if __name__ == "__main__":
    main()

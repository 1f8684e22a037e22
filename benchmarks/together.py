"""Steps of two processes on this machine, beside the same steps of one, and beside a bare sum over both.

The network is 50 - hidden - 1; a step is a batch of 4,096 rows, half of them each process's own. What is
measured calibrates `scaling.py`.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from measure import Report

COLUMNS, BATCH, STEPS = 50, 4096, 100
HIDDEN = (8, 64, 512, 2048)
TURNS = 3


def objective(parameters: Any, batch: Any, _: Any) -> Any:
    import jax.numpy as jnp

    hidden = jnp.maximum(batch[0] @ parameters["in"] + parameters["bias"], 0)
    score = hidden @ parameters["out"]
    return jnp.logaddexp(0, score) - batch[1] * score


def measure(group: Any | None, hidden: int) -> dict[str, float]:
    """Return seconds of a step: of the descent, and of a bare sum of a vector as long as its gradient."""
    import jax
    from jax.flatten_util import ravel_pytree
    from jax.sharding import PartitionSpec

    import steepest
    from steepest.descent.epoch import try_window
    from steepest.descent.ranks import RANKS
    from steepest.descent.state import start
    from steepest.descent.step import Batches, Constants, Program

    size = group.size if group else 1
    draws = np.random.Generator(np.random.Philox(group.rank if group else 0))
    features = draws.normal(size=(STEPS, BATCH // size, COLUMNS)).astype(np.float32)
    target = (features[..., 0] > 0).astype(np.float32)
    weights = np.ones(target.shape, np.float32)
    parameters = {
        "in": np.full((COLUMNS, hidden), 0.01, np.float32),
        "bias": np.zeros(hidden, np.float32),
        "out": np.full(hidden, 0.01, np.float32),
    }
    flat, unravel = ravel_pytree(parameters)
    rule = steepest.Adam()
    program = Program(objective, rule.transformation, rule.preconditioner, unravel)
    state, constants = start(flat, rule.transformation.init(flat)), Constants(jax.random.key(0), None)
    rates = np.full(STEPS, 1e-3, np.float32)
    if group:
        program = program._replace(mesh=group.mesh)
        state, constants = group.place(state), group.place(constants)
        features, target, weights = map(group.place_rows, (features, target, weights))
    batches = Batches((features, target), weights, rates)
    found = {
        "parameters": float(flat.size),
        "descent": timed(lambda: try_window(program, constants, state, batches)),
    }
    if group:
        one = group.place(flat)

        def sums(vector: Any) -> Any:
            return jax.lax.scan(lambda v, _: (jax.lax.psum(v, RANKS) / size, None), vector, None, STEPS)[0]

        same = PartitionSpec()
        bare = jax.jit(jax.shard_map(sums, mesh=group.mesh, in_specs=same, out_specs=same, check_vma=False))
        found["sum"] = timed(lambda: bare(one))
    return found


def timed(function: Any) -> float:
    import jax

    jax.block_until_ready(function())
    took = []
    for _ in range(TURNS):
        began = time.perf_counter()
        jax.block_until_ready(function())
        took.append((time.perf_counter() - began) / STEPS)
    return statistics.median(took)


def main() -> None:
    port, rank = sys.argv[1:]
    if port == "alone":
        print(json.dumps([measure(None, hidden) for hidden in HIDDEN]))
        return
    from steepest.process_group import join

    group = join(f"127.0.0.1:{port}", int(rank), 2)
    found = [measure(group, hidden) for hidden in HIDDEN]
    if int(rank) == 0:
        print(json.dumps(found))


def started(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)


def last_line(process: subprocess.Popen[str]) -> Any:
    said, _ = process.communicate()
    told = [line for line in said.splitlines() if line.startswith("[{")]  # gloo writes lines of its own
    return json.loads(told[-1]) if told else None


def figures() -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Return what one process and what two measured, for each network."""
    alone = last_line(started("alone", "0"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = [started(port, str(rank)) for rank in range(2)]
    told = [last_line(process) for process in both]
    return alone, told[0]


def run(_: int) -> Report:
    rows: list[list[Any]] = []
    alone, both = figures()
    for hidden, one, two in zip(HIDDEN, alone, both, strict=True):
        micro = [1e6 * seconds for seconds in (one["descent"], two["descent"], two["sum"])]
        rows.append([f"50-{hidden}-1", int(one["parameters"]), *micro, one["descent"] / two["descent"]])
    columns = ("", "parameters", "one process, µs", "two, µs", "a bare sum, µs", "speed-up")
    return Report(f"Steps of two processes: batches of {BATCH:,} rows", columns, rows)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()

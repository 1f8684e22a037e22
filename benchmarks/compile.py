"""Time to the end of the first epoch of the network of `listing.py`, compilation included; a process each.

Importing and building the model come before the call and are given apart.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import keras_fit
import listing
from measure import Goal, Report, enter
from process import seconds_of

OURS = "Steepest, the Keras model"
CONTESTANTS = listing.CONTESTANTS | {OURS: keras_fit.steepest}
NAMES = (listing.STEEPEST, listing.BARE, OURS, listing.keras_name(1), listing.PYTORCH)


def first_epoch(name: str) -> None:
    """Print the seconds that it takes to import and build, and those of the first epoch, as JSON."""
    data = listing.make_data()
    began = time.perf_counter()
    contestants, missing = enter({name: lambda: CONTESTANTS[name](data)})
    ready = time.perf_counter()
    if missing:
        print(json.dumps({"missing": missing}))
        return
    print(json.dumps({"ready": ready - began, "first": contestants[name](1).first}))


def run(rounds: int) -> Report:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    missing: list[str] = []
    for _ in range(rounds):
        for name in NAMES:
            said = json.loads(seconds_of([sys.executable, __file__, name])[1])
            if "missing" in said:
                missing += [each for each in said["missing"] if each not in missing]
            else:
                found[name].append(said)
    rows = [
        [name, *(statistics.median(each[part] for each in turns) for part in ("first", "ready"))]
        for name, turns in found.items()
        if turns
    ]
    columns = ("", "seconds, call to first epoch's end", "seconds, import and build")
    ours, keras = ([each["first"] for each in found[name]] for name in (OURS, listing.keras_name(1)))
    goals = [
        Goal(f"{OURS}: its first epoch over Keras'", 1, statistics.median(ours) / statistics.median(keras))
        for _ in range(bool(ours and keras))
    ]
    return Report("A small network: the first epoch", columns, rows, goals, missing)


if __name__ == "__main__":
    first_epoch(sys.argv[1])

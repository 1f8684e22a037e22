"""Time of whole processes: starting up, and from a CSV file to a judged model.

The scikit-learn script holds out days of its own drawing and prints one figure; Steepest also writes the
run's folder with its report.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import Goal, Report

ROOT = Path(__file__).parent.parent
FLIGHTS = ROOT / "data" / "flights.csv"
STEEPEST = [sys.executable, "-c", "from steepest.cli import main; main()"]
MOST_ROUNDS = 3
"""Rounds of the fits, which take seconds."""


def write_flights() -> Path:
    """Return the flights' file; write it if there is none."""
    if not FLIGHTS.exists():
        subprocess.run([sys.executable, ROOT / "examples" / "flights.py", FLIGHTS], check=True)
    return FLIGHTS


def seconds_of(command: list[str]) -> tuple[float, str]:
    """Run a command and return how long it took and the last line of what it printed."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{command} failed: {done.stderr.strip()[-1000:]}")
    return seconds, done.stdout.strip().rpartition("\n")[2]


def auc(line: str) -> float | None:
    """Return the held-out AUC that a command printed last, if it did: in Steepest's JSON, or as a number."""
    if line.startswith("{"):
        return json.loads(line)["figures"]["validation"]["scores"]["auc"]
    return float(line) if line.startswith("0.") else None


def run(rounds: int) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        data = str(write_flights().relative_to(ROOT))
        fit = [*STEEPEST, "fit", data, "--out", f"{folder}/run", "--overwrite", "--json"]
        script = [sys.executable, "benchmarks/flights_sklearn.py", data]
        fits = {
            "steepest fit, linear": [*fit, "--target", "late", "--split-by", "date"],
            "scikit-learn script, LogisticRegression": [*script, "linear"],
            "steepest fit, mlp": [*fit, "--settings", "examples/flights.toml"],
            "scikit-learn script, MLPClassifier": [*script, "mlp"],
        }
        starts = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "import steepest": [sys.executable, "-c", "import steepest"],
            "steepest --help": [*STEEPEST, "--help"],
        }
        took: dict[str, list[float]] = {name: [] for name in fits | starts}
        reached = {}
        for each in range(rounds):
            for name, command in (starts | fits if each < MOST_ROUNDS else starts).items():
                seconds, line = seconds_of(command)
                took[name].append(seconds)
                reached[name] = auc(line)
    medians = {name: statistics.median(all_) for name, all_ in took.items()}
    rows = [[name, seconds, reached[name]] for name, seconds in medians.items()]
    goals = [
        Goal("Seconds of a process that imports steepest", 0.2, medians["import steepest"]),
        Goal("Seconds of steepest --help", 0.5, medians["steepest --help"]),
    ]
    return Report("Whole processes", ("", "seconds", "held-out AUC"), rows, goals)

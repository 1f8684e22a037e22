"""Text: a million rows of some eighty words, hashed to 2^20 features, and who learns them fastest.

The words are drawn by Zipf's law; a row's class is drawn by a probability that the true weights of its words
decide, so that the least held-out log loss that anyone can reach is known. The last tenth of the rows is held
out. Each contestant is a process of its own and learns a linear model of the same rows, read from a Parquet
file or, by Vowpal Wabbit, from one of its own format; it goes over them the same number of times, once for
each of a few rates (or penalties, by which scikit-learn's rate goes), and the best by the held-out rows
counts. Rows a second are those of the passes after the first.

    python benchmarks/text.py [--rows N]

prints what each rate led to as well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from measure import Goal, Report

ROWS, WORDS, LENGTH = 1_000_000, 2_000_000, 80
"""Rows, different words (so many that Steepest hashes them unasked), and words of a row on the average."""

BITS, HELD, BATCH = 20, 0.1, 256
CHUNK = 50_000
"""Rows that are generated, and given to scikit-learn, at a time."""

COMMONEST = 50
"""So many words say nothing, as those of any language."""

SCALE = 4.0
"""By what a row's sum of weights is divided."""


class Case(NamedTuple):
    """How often a table is gone over, and the rates and penalties that are tried."""

    passes: int
    ours: tuple[float, ...]
    vowpal: tuple[float, ...]
    penalties: tuple[float, ...]


CASES = {
    "text": Case(3, (0.1, 0.2, 0.4), (0.1, 0.5, 1.5), (3e-5, 1e-5, 3e-6, 1e-6)),
    "mails": Case(20, (0.2, 0.4, 0.8, 1.6), (0.02, 0.1, 0.5, 1.5), (1e-5, 3e-6, 1e-6, 3e-7)),
}


class Drawn(NamedTuple):
    """Rows that are drawn: their words, how many each has, their classes, and the true probabilities."""

    words: np.ndarray
    lengths: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray


def drawn(rows: int, seed: int = 0) -> Iterator[Drawn]:
    """Yield rows, a chunk at a time."""
    draws = np.random.Generator(np.random.Philox(seed))
    shares = 1 / np.arange(1, WORDS + 1)
    ranks = np.cumsum(shares) / shares.sum()
    weights = draws.standard_normal(WORDS) / SCALE
    weights[:COMMONEST] = 0
    for first in range(0, rows, CHUNK):
        lengths = np.maximum(draws.poisson(LENGTH, min(CHUNK, rows - first)), 1)
        words = np.minimum(np.searchsorted(ranks, draws.random(lengths.sum())), WORDS - 1)
        sums = np.add.reduceat(weights[words], np.cumsum(lengths) - lengths)
        probabilities = 1 / (1 + np.exp(-sums))
        yield Drawn(words, lengths, draws.random(len(lengths)) < probabilities, probabilities)


def generate(folder: Path, rows: int) -> float:
    """Write the rows, those to learn from and those held out; return the log loss of the true weights."""
    held, losses = int(HELD * rows), []
    parts = {"part": rows - held, "held": held}
    names = pa.array([f"w{word}" for word in range(WORDS)])
    schema = pa.schema({"text": pa.string(), "y": pa.int8()})
    source = drawn(rows)
    rest = pa.table({"text": [], "y": []}, schema)
    for part, wanted in parts.items():
        written = 0
        with (
            pq.ParquetWriter(folder / f"{part}.parquet", schema) as parquet,
            Path(folder, f"{part}.vw").open("wb") as vw,
        ):
            while written < wanted:
                if not rest.num_rows:
                    rest, of_rows = _as_text(next(source), names, schema)
                    losses.append(of_rows)
                some, rest = rest.slice(0, wanted - written), rest.slice(wanted - written)
                written += some.num_rows
                parquet.write_table(some)
                labels = pc.if_else(pc.equal(some["y"], 1), "1 | ", "-1 | ")
                lines = pc.binary_join_element_wise(labels, some["text"], "").to_pylist()
                vw.write("".join(f"{line}\n" for line in lines).encode())
    return float(np.concatenate(losses)[-held:].mean())


def _as_text(rows: Drawn, names: pa.Array, schema: pa.Schema) -> tuple[pa.Table, np.ndarray]:
    """Return rows as text, and what each adds to the log loss of the true weights."""
    ends = np.concatenate([[0], np.cumsum(rows.lengths)])
    lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), names.take(pa.array(rows.words)))
    table = pa.table([pc.binary_join(lists, " "), rows.classes.astype(np.int8)], schema=schema)
    of_class = np.where(rows.classes, rows.probabilities, 1 - rows.probabilities)
    return table, -np.log(of_class)


def judged(truth: np.ndarray, probability: np.ndarray) -> tuple[float, float]:
    """Return the log loss and the accuracy."""
    from sklearn.metrics import log_loss

    return float(log_loss(truth, probability)), float(np.mean((probability > 0.5) == truth))


class Clock:
    """Seconds since it was made: by the clock, and of all threads of the process."""

    def __init__(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.began[0], time.process_time() - self.began[1]


Found = dict[str, Any]
"""``rows`` a second and ``processor`` seconds per million rows of later passes, and ``tried``: rate ->
held-out log loss and accuracy. Of all passes at one rate, with what comes before them: ``seconds``."""


def ours(folder: Path, case: Case) -> Found:
    """`steepest.fit`: AdaGrad on a column of words, hashed where they are very many."""
    import steepest

    os.environ["STEEPEST_CACHE"] = f"{folder}/cache"

    class Clocked(steepest.Callback):
        def on_descent_begin(self, epochs: int, rows: int) -> None:  # noqa: ARG002
            self.readings: list[tuple[float, float]] = []
            self.clock = Clock()

        def on_epoch_end(self, figures: dict[str, float]) -> None:  # noqa: ARG002
            self.readings.append(self.clock.read())

    def fit(rate: float, **settings: Any) -> tuple[Any, Clocked]:
        clocked = Clocked()
        run = steepest.fit(
            str(folder / "part.parquet"), "y", tolerance=0.0, kinds={"text": "words"}, hash_bits=BITS,
            optimizer="adagrad", learning_rate=rate, batch_size=BATCH, epochs=case.passes, overwrite=True,
            callbacks=[clocked], out=f"{folder}/run", **settings,
        )  # fmt: skip
        return run, clocked

    tried = {}
    clock = Clock()
    run, clocked = fit(0.2, validation=0)
    seconds, _ = clock.read()
    (column,) = run.plan.columns
    if column.sparse is None or column.sparse.bits != BITS:
        print(f"not hashed: {run.plan.layout.sparse:,} words", file=sys.stderr)
    for rate in case.ours:
        beside, _ = fit(rate, validation=str(folder / "held.parquet"))
        scores = beside.record["figures"]["validation"]["scores"]
        tried[rate] = scores["log_loss"], scores["accuracy"]
    return {
        "rows": statistics.median(run.epochs["rows_per_second"][1:]),
        "processor": statistics.median(np.diff([each[1] for each in clocked.readings]))
        / pq.read_metadata(folder / "part.parquet").num_rows
        * 1e6,
        "seconds": seconds,
        "tried": tried,
    }


def vowpal_wabbit(folder: Path, case: Case) -> Found:
    """Vowpal Wabbit with its own hashing, its cache and its adaptive, normalised, invariant rule."""
    import vowpalwabbit

    truth = pq.read_table(folder / "held.parquet", columns=["y"])["y"].to_numpy()
    count = pq.read_metadata(folder / "part.parquet").num_rows

    def train(rate: float, passes: int) -> tuple[float, float]:
        clock = Clock()
        vowpalwabbit.Workspace(
            f"-d {folder}/part.vw -b {BITS} --cache_file {folder}/part.cache --passes {passes} "
            f"--holdout_off --loss_function logistic -l {rate} --quiet -f {folder}/model"
        ).finish()
        return clock.read()

    def judge() -> tuple[float, float]:
        vowpalwabbit.Workspace(
            f"-d {folder}/held.vw -t -i {folder}/model --link logistic -p {folder}/said --quiet"
        ).finish()
        return judged(truth, np.loadtxt(folder / "said", usecols=0))

    tried = {}
    first = train(0.5, 1)  # writes the cache
    cached = train(0.5, 1)
    later = []
    for rate in case.vowpal:
        took = train(rate, case.passes)
        later.append([(whole - one) / (case.passes - 1) for whole, one in zip(took, cached, strict=True)])
        tried[rate] = judge()
    seconds, processor = (statistics.median(each) for each in zip(*later, strict=True))
    return {
        "rows": count / seconds,
        "processor": processor / count * 1e6,
        "seconds": first[0] + seconds * (case.passes - 1),
        "tried": tried,
    }


def scikit_learn(folder: Path, case: Case) -> Found:
    """HashingVectorizer and SGDClassifier by partial_fit; also over rows that are kept as hashed."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier

    vectorizer = HashingVectorizer(n_features=2**BITS, alternate_sign=False)

    def chunks(name: str) -> Iterator[tuple[Any, np.ndarray]]:
        with pq.ParquetFile(folder / f"{name}.parquet") as file:
            for batch in file.iter_batches(CHUNK):
                yield vectorizer.transform(batch["text"].to_pylist()), batch["y"].to_numpy()

    def learner(penalty: float) -> SGDClassifier:
        return SGDClassifier(loss="log_loss", alpha=penalty, random_state=0)

    def go_over(model: SGDClassifier, rows: Any) -> tuple[float, float]:
        clock = Clock()
        for x, y in rows:
            model.partial_fit(x, y, classes=[0, 1])
        return clock.read()

    count = pq.read_metadata(folder / "part.parquet").num_rows
    hashing = go_over(learner(1e-6), chunks("part"))  # each of its passes is alike
    kept, held = list(chunks("part")), list(chunks("held"))
    truth = np.concatenate([y for _, y in held])
    tried, memory = {}, []
    for penalty in case.penalties:
        model = learner(penalty)
        memory += [go_over(model, kept) for _ in range(case.passes)]
        tried[penalty] = judged(truth, np.concatenate([model.predict_proba(x)[:, 1] for x, _ in held]))
    seconds, processor = (statistics.median(each) for each in zip(*memory, strict=True))
    return {
        "rows": count / hashing[0],
        "processor": hashing[1] / count * 1e6,
        "seconds": case.passes * hashing[0],
        "tried": tried,
        "kept": {"rows": count / seconds, "processor": processor / count * 1e6},
    }


OURS, VOWPAL, SCIKIT = (
    "Steepest, later epochs",
    "Vowpal Wabbit, from its cache",
    "scikit-learn, hashing each pass",
)
KEPT = "scikit-learn, rows kept as hashed"

CONTESTANTS: dict[str, Callable[[Path, Case], Found]] = {
    OURS: ours,
    VOWPAL: vowpal_wabbit,
    SCIKIT: scikit_learn,
}


def in_a_process(name: str, folder: Path, case: str) -> Found:
    """Let a contestant run in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--contestant", name, "--folder", folder, "--case", case],
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    line = done.stdout.strip().rpartition("\n")[2]
    if done.returncode:
        raise SystemExit(f"{name} failed")
    found: Found = json.loads(line)
    if "missing" in found:
        raise ImportError(found["missing"])
    return found


def compare(title: str, case: str, make: Callable[[Path], float | None]) -> tuple[Report, dict[str, Found]]:
    """Return the report, and what each contestant found of the rows that ``make`` writes into a folder.

    That returns the log loss of the true weights, if there are such.
    """
    found: dict[str, Found] = {}
    missing = []
    with tempfile.TemporaryDirectory() as folder:
        least = make(Path(folder))
        for name in CONTESTANTS:
            try:
                found[name] = in_a_process(name, Path(folder), case)
            except ImportError as error:
                missing.append(f"{name} ({error})")
    table: list[list[Any]] = []
    speed, goals = found[OURS]["rows"], []
    for name, each in found.items():
        best = min(each["tried"].values())
        ratio = speed / each["rows"]
        table.append([name, each["rows"] / 1e6, ratio, each["processor"], each["seconds"], *best])
        if "kept" in each:
            kept = each["kept"]
            table.append([KEPT, kept["rows"] / 1e6, speed / kept["rows"], kept["processor"], None, *best])
        if name != OURS:
            ours_over = min(found[OURS]["tried"].values())[0] / best[0]
            goals += [
                Goal(f"Steepest's rows a second over those of {name}", 5.0, ratio, False),
                Goal(f"Steepest's held-out log loss over that of {name}", 1.0, ours_over),
            ]
    if least is not None:
        table.append(["The true weights", None, None, None, None, least, None])
    passes = f"{CASES[case].passes} passes"
    columns = (
        *("", "million rows a second", "Steepest's speed over this", "processors' seconds per million rows"),
        *(f"seconds of {passes}, with what comes before", f"held-out log loss, {passes}", "accuracy"),
    )
    return Report(title, columns, table, goals, missing), found


def generated(rows: int) -> tuple[Report, dict[str, Found]]:
    """Return the report of generated rows, and what each contestant found."""
    title = f"{rows:,} rows of about {LENGTH} words, 2^{BITS} hashed features"
    return compare(title, "text", lambda folder: generate(folder, rows))


def run(rounds: int) -> Report:  # noqa: ARG001 - a contestant's passes are its rounds
    return generated(ROWS)[0]


def tell(report: Report, found: dict[str, Found]) -> None:
    """Print the report, and what each rate led to."""
    from run import as_json, show

    show(as_json(report, 1))
    for name, each in found.items():
        print(name, each["tried"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contestant:
        try:
            print(json.dumps(CONTESTANTS[given.contestant](given.folder, CASES[given.case])))
        except ImportError as error:
            print(json.dumps({"missing": str(error)}))
        return
    tell(*generated(given.rows))


if __name__ == "__main__":
    main()

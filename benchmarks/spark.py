"""Whole jobs on Spark, beside Spark ML: from a DataFrame to a model, to the same training loss or lower.

All in one session of two executors with one core each. The losses are those of the models on the same sample
of training rows.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from measure import Goal, Report

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

ROWS, COLUMNS, FILES = 2_000_000, 50, 8
SAMPLE = 50_000
MOST_ROUNDS = 3
NAMES = [f"x{column}" for column in range(COLUMNS)]


def write(folder: Path) -> str:
    """Write rows whose target depends on a random network of two layers, with noise."""
    draws = np.random.Generator(np.random.Philox(0))
    first = draws.normal(size=(COLUMNS, 16)) / np.sqrt(COLUMNS)
    second = draws.normal(size=16)
    for number in range(FILES):
        rows = draws.normal(size=(ROWS // FILES, COLUMNS))
        score = 2 * np.tanh(2 * rows @ first) @ second + rows[:, 0]
        late = draws.uniform(size=len(rows)) < 1 / (1 + np.exp(-score))
        columns = dict(zip(NAMES, rows.T.astype(np.float32), strict=True)) | {"late": late.astype(np.float64)}
        (folder / "rows").mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), folder / "rows" / f"{number}.parquet", row_group_size=2**16)
    return str(folder / "rows")


def log_loss(model: Any, frame: Any) -> float:
    """Return a model's mean log loss on rows."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as F  # noqa: N812 - Spark's own name for it

    predicted = model.transform(frame).select("late", vector_to_array("probability")[1].alias("p"))
    p = F.least(F.greatest("p", F.lit(1e-7)), F.lit(1 - 1e-7))
    loss = F.when(F.col("late") == 1, -F.log(p)).otherwise(-F.log(1 - p))
    return float(predicted.select(F.mean(loss)).first()[0])


def contestants(session: Any, data: str) -> dict[str, tuple[Any, Any]]:
    """Return each job, and what its model is judged on."""
    from pyspark.ml.classification import LogisticRegression, MultilayerPerceptronClassifier
    from pyspark.ml.feature import VectorAssembler

    from steepest.spark import DescentClassifier

    frame = session.read.parquet(data)
    assembler = VectorAssembler(inputCols=NAMES, outputCol="features")
    vectors = assembler.transform(frame)
    sample = frame.limit(SAMPLE).cache()
    as_vectors = assembler.transform(sample)
    common = {"featuresCol": "features", "labelCol": "late"}
    network = {"hidden": [64], "batchSize": 8192, "learningRate": 0.03, "epochs": 3}
    # Spark ML has sigmoid units, which are tanh moved and scaled.
    network |= {
        "activation": "tanh",
        "schedule": "cosine",
    }
    batch = {"hidden": [], "optimizer": "lbfgs", "batchSize": "all", "epochs": 12}
    ours = {"labelCol": "late", "numWorkers": 2}
    computed = frame.where("late is not null")  # workers can't read it from the files themselves

    return {
        "MultilayerPerceptronClassifier, 50-64-2, 60 iterations": (
            lambda: MultilayerPerceptronClassifier(
                layers=[COLUMNS, 64, 2], maxIter=60, blockSize=1024, seed=1, **common
            ).fit(vectors),
            as_vectors,
        ),
        "DescentClassifier, 50-64-1, Adam, 3 epochs, rows through Arrow": (
            lambda: DescentClassifier(**ours, **network).fit(computed),
            sample,
        ),
        "the same, Parquet read directly": (lambda: DescentClassifier(**ours, **network).fit(frame), sample),
        "LogisticRegression": (lambda: LogisticRegression(**common).fit(vectors), as_vectors),
        "DescentClassifier, linear, L-BFGS, rows through Arrow": (
            lambda: DescentClassifier(**ours, **batch).fit(computed),
            sample,
        ),
        "the same, Parquet read directly, L-BFGS": (
            lambda: DescentClassifier(**ours, **batch).fit(frame),
            sample,
        ),
    }


def run(rounds: int) -> Report:
    from spark_sessions import spark

    took: dict[str, list[float]] = {}
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = write(Path(folder))
        with spark("local-cluster[2,1,3072]", **{"spark.executor.memory": "3g"}) as session:
            jobs = contestants(session, data)
            for _ in range(min(rounds, MOST_ROUNDS)):
                for name, (fit, rows) in jobs.items():
                    began = time.perf_counter()
                    model = fit()
                    took.setdefault(name, []).append(time.perf_counter() - began)
                    losses[name] = log_loss(model, rows)
                    print(name, took[name], losses[name], file=sys.stderr, flush=True)
    seconds = {name: statistics.median(each) for name, each in took.items()}
    mlp, ours, ours_direct, logistic, linear, linear_direct = seconds
    table = [[name, seconds[name], losses[name]] for name in seconds]

    def ratio(peer: str, own: str) -> float:
        return statistics.median(a / b for a, b in zip(took[peer], took[own], strict=True))

    goals = [
        Goal("MultilayerPerceptronClassifier's time over DescentClassifier's", 8, ratio(mlp, ours), False),
        Goal("and over that with Parquet read directly", 8, ratio(mlp, ours_direct), False),
        Goal("LogisticRegression's time over DescentClassifier's, L-BFGS", 1, ratio(logistic, linear), False),
        Goal("and over that with Parquet read directly", 2, ratio(logistic, linear_direct), False),
    ]
    title = f"Whole jobs on Spark: {ROWS:,} rows of {COLUMNS} columns, two workers"
    return Report(title, ("", "seconds", "training loss"), table, goals)

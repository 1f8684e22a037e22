"""What the tests of exports share: small runs on real tables, and what they predict."""

from __future__ import annotations

import atexit
import functools
import tempfile
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import real_data
import steepest
from steepest.prediction import open_rows, predictions
from steepest.run import Run, Shape
from steepest.training import NOT_JUDGED

ROWS = 3_000


def flights() -> pd.DataFrame:
    """Return departures with categories (tail numbers: very many), times and missing values."""
    found = real_data.flights().sample(ROWS, random_state=0).reset_index(drop=True)
    found["time_hour"] = pd.to_datetime(found["time_hour"]).dt.tz_localize(None)
    found["day"] = found["time_hour"].dt.date
    found["early"] = (found["dep_delay"] < 0).astype("boolean").mask(found["dep_delay"].isna())
    found["late"] = np.where(found["arr_delay"] > 15, "late", "in time")
    names = ["month", "dep_delay", "carrier", "tailnum", "origin", "distance", "time_hour", "day", "early"]
    return found[[*names, "late"]]


def adult() -> pd.DataFrame:
    """Return census records, in which "?" is missing."""
    found = real_data.adult()[0].sample(ROWS, random_state=0).reset_index(drop=True)
    return found.replace("?", None)


def diamonds() -> pd.DataFrame:
    """Return diamonds, whose price is to be predicted."""
    return real_data.plotnine("diamonds").sample(ROWS, random_state=0).reset_index(drop=True)


def departures() -> pd.DataFrame:
    """Return how many flights leave an airport in an hour: counts."""
    hours = real_data.flights().groupby(["time_hour", "origin", "hour"]).size()
    return hours.rename("flights").reset_index().sample(ROWS, random_state=0).reset_index(drop=True)


def mails() -> pd.DataFrame:
    """Return words of flights' own: a text, a large category of it, and their length."""
    found = flights()
    words = found["carrier"] + " from " + found["origin"] + " by " + found["tailnum"].fillna("none")
    return found[["distance", "tailnum", "late"]].assign(words=words)


RUNS = {
    "flights": (
        flights,
        "late",
        {
            "model": "mlp",
            "activation": "gelu",
            "hidden": (8, 4),
            "kinds": {"tailnum": "category"},
            "minimum_count": 2,
        },
    ),
    "adult": (adult, "income", {"kinds": {"hours_per_week": "category"}}),
    "diamonds": (diamonds, "price", {"model": "mlp", "hidden": (8,), "activation": "tanh", "loss": "huber"}),
    "penguins": (
        lambda: real_data.plotnine("penguins"),
        "species",
        {"model": "mlp", "hidden": (8,), "dropout": 0.1},
    ),
    "departures": (departures, "flights", {}),
    "stones": (diamonds, "price", {"loss": "quantile", "drop": ("cut", "color", "clarity")}),
    "mails": (
        mails,
        "late",
        {
            "model": "mlp",
            "hidden": (8,),
            "activation": "gelu",
            "kinds": {"words": "text", "tailnum": "category"},
            "minimum_count": 2,
        },
    ),
}
"""Name -> what gives the table, its target, and settings."""


@functools.cache
def run_of(name: str) -> tuple[Run, pd.DataFrame]:
    """Return one of `RUNS` and its table."""
    table, target, settings = RUNS[name]
    folder = tempfile.TemporaryDirectory(prefix="steepest-export-")
    atexit.register(folder.cleanup)
    return fitted(Path(folder.name), table(), target, **settings), table()


def fitted(folder: Path, table: pd.DataFrame, target: str, **settings) -> Run:
    """Return a run of one epoch, quickly made: neither judged nor examined, and without a report.

    Its descent begins where every parameter counts, tables of sparse features included.
    """
    settings = {"epochs": 1, "learning_rate": 0.01, "batch_size": 64, "validation": 0, **settings}
    settings = {name: value for name, value in settings.items() if value is not None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steepest.training._write_report", lambda *_: None)
        patch.setattr("steepest.networks._drawn", _drawn)
        patch.setattr("steepest.training._diagnose", lambda *_: {})
        patch.setattr("steepest.training._judge", lambda *_: NOT_JUDGED)
        return steepest.fit(table, target, out=str(folder / "run"), overwrite=True, **settings)


def _drawn(shape: Shape, output_bias: tuple[float, ...], seed: int):
    draws = np.random.default_rng(seed)
    leaves = jax.eval_shape(shape.build(output_bias).init, jax.random.key(seed))
    return jax.tree.map(lambda leaf: draws.normal(0, 0.3, leaf.shape).astype(np.float32), leaves)


def predicted(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """Return what ``steepest predict`` says."""
    return pa.concat_tables(predictions(run, open_rows(run.plan, table))).to_pandas()

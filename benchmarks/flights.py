"""Held-out AUC on the flights, whole days held out: Steepest's models beside gradient-boosted trees.

The trees are scikit-learn's HistGradientBoostingClassifier with its defaults, told which columns are
categories. All see the same columns and are judged by the same days: those that ``steepest fit --split-by
date --seed S`` holds out, and those of scikit-learn's GroupShuffleSplit with random_state=0, given to
Steepest as a file.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from measure import Goal, Report
from process import ROOT, write_flights

SEEDS = 5
LINEAR, NETWORK, TREES = "linear model", "mlp of flights.toml", "gradient-boosted trees"


def held_out(days: Any, seed: int) -> np.ndarray:
    """Return the flights that ``--split-by date --seed`` holds out."""
    from steepest.data.split import Groups

    groups = Groups(seed)
    groups.add(days)
    return groups.held_out(0.2)(days)


def run(rounds: int) -> Report:
    import pandas as pd
    import pyarrow as pa
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupShuffleSplit

    from steepest.combining import combine
    from steepest.settings import Settings
    from steepest.training import fit

    data = write_flights()
    table = pd.read_csv(data)
    labelled = table[table["late"].notna()]
    texts = labelled.select_dtypes("object").columns
    columns = labelled.astype(dict.fromkeys(texts, "category")).drop(columns=["late", "date"])
    late = labelled["late"].to_numpy(int)

    def trees(chosen: np.ndarray) -> float:
        model = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
        model.fit(columns[~chosen], late[~chosen])
        return roc_auc_score(late[chosen], model.predict_proba(columns[chosen])[:, 1])

    def ours(chosen: np.ndarray, settings: Settings) -> float:
        with tempfile.TemporaryDirectory() as folder:
            record = fit(replace(settings, out=f"{folder}/run")).record
        assert record["split"]["validation_rows"] == chosen.sum()
        return record["figures"]["validation"]["scores"]["auc"]

    given = {"data": (str(data),), "target": "late", "split_by": "date"}
    models = {
        LINEAR: combine(None, given),
        NETWORK: combine(str(ROOT / "examples" / "flights.toml"), given),
    }
    days = pa.array(pd.to_datetime(labelled["date"]))
    splits = {f"seed {seed}": held_out(days, seed) for seed in range(min(rounds, SEEDS))}
    found = {
        name: {
            split: ours(chosen, replace(settings, seed=seed))
            for seed, (split, chosen) in enumerate(splits.items())
        }
        for name, settings in models.items()
    } | {TREES: {split: trees(chosen) for split, chosen in splits.items()}}

    shuffled = next(GroupShuffleSplit(1, test_size=0.2, random_state=0).split(late, groups=labelled["date"]))
    chosen = np.isin(np.arange(len(late)), shuffled[1])
    with tempfile.TemporaryDirectory() as folder:
        training, validation = Path(folder, "training.csv"), Path(folder, "validation.csv")
        labelled[~chosen].to_csv(training, index=False)
        labelled[chosen].to_csv(validation, index=False)
        files = {"data": (str(training),), "validation": str(validation), "split_by": None, "drop": ("date",)}
        published = {name: ours(chosen, replace(settings, **files)) for name, settings in models.items()}
    published[TREES] = trees(chosen)

    rows = [
        [
            name,
            statistics.mean(each.values()),
            min(each.values()),
            max(each.values()),
            *each.values(),
            published[name],
        ]
        for name, each in found.items()
    ]
    goals = []
    for name, wanted in ((LINEAR, 0.70), (NETWORK, 0.74)):
        mean = statistics.mean(found[name].values())
        goals += [
            Goal(f"AUC of the {name}, mean over the seeds' days", wanted, mean, at_most=False),
            Goal(f"AUC of the {name}, GroupShuffleSplit's days", wanted, published[name], at_most=False),
        ]
    columns_ = ("", "mean", "least", "most", *splits, "GroupShuffleSplit")
    return Report("Flights with whole days held out: AUC", columns_, rows, goals)

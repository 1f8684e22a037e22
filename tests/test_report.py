"""The figures and the report: what they keep, what they escape, and that every edge can be drawn."""

from __future__ import annotations

import html.parser
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler

from steepest.diagnosis import plots
from steepest.diagnosis.report import number, verdict, write_report
from steepest.diagnosis.svg import clean, svg
from steepest.evaluation import evaluate

HOSTILE = """<script>alert("1")</script> & 'x' $\\frac$ id="axes_1" url(#a) ]]> -->"""


def generator() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([7])))


def history(count: int = 300, epoch_count: int = 10, *, validation: bool = True) -> tuple[pd.DataFrame, pd.DataFrame]:
    step = np.arange(1, count + 1)
    noise = generator()
    steps = pd.DataFrame(
        {
            "step": step,
            "epoch": (step - 1) * epoch_count // count + 1,
            "loss": 0.3 + 0.5 * np.exp(-step / 40) + 0.05 * noise.standard_normal(count),
            "gradient_norm": 2 * np.exp(-step / 60) * noise.uniform(0.5, 1.5, count) + 0.01,
            "learning_rate": 1e-3 * 0.5 * (1 + np.cos(np.pi * step / count)),
        }
    )
    epochs = steps.groupby("epoch", as_index=False)[["loss", "learning_rate"]].mean()
    epochs.insert(1, "rows", 400_000)
    epochs.insert(2, "seconds", 1.234)
    if validation:
        epochs["validation_loss"] = epochs["loss"] + 0.02 + 0.004 * epochs["epoch"]
        epochs["validation_accuracy"] = 0.9 - epochs["loss"] / 4
    return steps, epochs


def evaluations(kind: str) -> tuple[dict[str, Any], dict[str, Any], list[str], np.ndarray]:
    """Score a fitted scikit-learn model on even (training) and odd (held-out) rows of a real data set."""
    load = {"binary": load_breast_cancer, "classes": load_digits, "number": load_diabetes}[kind]
    features, truth = load(return_X_y=True)
    features = StandardScaler().fit_transform(features)
    if kind == "number":
        model = LinearRegression().fit(features[::2], truth[::2])
        predicted, baseline, labels = model.predict(features), truth[::2].mean(), []
    else:
        model = LogisticRegression(C=0.01).fit(features[::2], truth[::2])
        predicted = model.predict_proba(features)
        baseline = np.bincount(truth[::2]) / len(truth[::2])
        labels = ["malignant", "benign"] if kind == "binary" else [str(digit) for digit in range(10)]
        if kind == "binary":
            predicted, baseline = predicted[:, 1], baseline[1]
    parts = [
        evaluate(kind, truth[start::2], predicted[start::2], baseline=baseline, labels=labels)
        for start in (0, 1)
    ]
    return parts[0], parts[1], labels, features


def make_record(kind: str) -> dict[str, Any]:
    training, validation, labels, features = evaluations(kind)
    return {
        "steepest": "0.1.0",
        "created": "2025-11-22T18:12:00+00:00",
        "command": f"steepest fit {kind}.csv --target outcome --model mlp --hidden 64,32 --out runs/demo",
        "settings_toml": 'target = "outcome"\nmodel = "mlp"\nhidden = [64, 32]\nlearning_rate = 0.001\n',
        "data": {
            "files": [f"{kind}.csv", "a_second_file_with_a_long_name_of_many_words_and_years_2013.parquet"],
            "rows": validation["rows"] + training["rows"] + 8255,
            "left_out": [{"reason": "the target is missing", "rows": 8255}],
        },
        "split": {
            "training_rows": training["rows"],
            "validation_rows": validation["rows"],
            "how": "Every second row is held out.",
        },
        "target": {
            "name": "outcome",
            "kind": kind,
            "labels": labels,
            "why": "The target holds two values, so the loss is binary cross-entropy.",
        },
        "model": {"name": "mlp", "hidden": [64, 32], "activation": "relu", "parameters": 6337, "features": 64},
        "descent": {
            "loss": "binary cross-entropy",
            "optimizer": "adam",
            "learning_rate": 0.001,
            "schedule": "cosine",
            "batch_size": 32,
            "epochs": 10,
            "steps": 300,
            "seed": 0,
            "why_it_stopped": "It reached the last epoch.",
            "seconds": 83.2,
            "rows_per_second": 2_345_678.9,
        },
        "columns": [
            {"name": f"column_{i}", "kind": "number", "features": 1, "missing": i * 1000, "note": ""} for i in range(8)
        ]
        + [{"name": "a_rather_long_column_name_as_they_are", "kind": "category", "features": 105, "missing": 2512,
            "note": "12 rare values share one feature"}],
        "dropped": [{"name": "year", "reason": "it has one value only"}],
        "figures": {"validation": validation, "training": training},
        "importances": {
            "how": "By how much the held-out loss rises when a column's values are shuffled (3 times).",
            "kind": "increase of the loss when shuffled",
            "entries": [
                {"name": f"column_{i}", "value": 0.2 * 0.7**i, "spread": 0.01 * 0.8**i} for i in range(14)
            ],
        },
        "notes": ["8,255 rows were left out because their target is missing.", "year was dropped: one value only."],
    }


KINDS = ("binary", "classes", "number")

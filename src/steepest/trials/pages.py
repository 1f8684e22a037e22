"""The pages of `steepest tune` and `steepest compare`, each one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from steepest.diagnosis import plots
from steepest.diagnosis.landscape import Landscape
from steepest.diagnosis.pages import duration, number, render, sentence
from steepest.diagnosis.report import Picture, Tile
from steepest.diagnosis.svg import svg
from steepest.trials.telling import (
    COMPARED,
    TRIED,
    compared_rows,
    lowest,
    rate_rows,
    says_of_comparison,
    says_of_tuning,
    tried_rows,
)

Record = Mapping[str, Any]

AGAINST = {
    "step": ("Loss by step", "A step of a larger batch costs more and is less noisy."),
    "rows": ("Loss by rows seen", "What each variant has learned from the same number of rows."),
    "seconds": (
        "Loss by seconds",
        "The time of a step is the median over the descent, so compiling and validation are left out.",
    ),
}


def write_tuning(path: Path, record: Record) -> None:
    """Write what `steepest tune` found, in UTF-8; ``record`` is what ``tune.json`` holds."""
    pictures = []
    for each in record["tried"]:
        search = each["search"]
        if search["rates"]:
            table = pd.DataFrame(rate_rows(search), columns=["rate", "loss reached", "verdict"])
            pictures.append(_picture(each["name"], plots.rate_against_loss(search), _caption(search), table))
    page = render(
        "trials/tune.html.jinja",
        record=record,
        verdict=says_of_tuning(record),
        tiles=list(_tuning_tiles(record)),
        headers=TRIED,
        rows=tried_rows(record),
        pictures_of_rates=pictures,
    )
    path.write_text(page, encoding="utf-8", newline="\n")


def write_comparison(path: Path, record: Record, history: pd.DataFrame, above: Landscape) -> None:
    """Write what `steepest compare` found, in UTF-8.

    Parameters
    ----------
    path
        The file to write.
    record, history, above
        What ``compare.json``, ``history.parquet`` and ``landscape.json`` hold.
    """
    page = render(
        "trials/compare.html.jinja",
        record=record,
        verdict=says_of_comparison(record),
        tiles=list(_comparison_tiles(record)),
        headers=COMPARED,
        rows=compared_rows(record),
        loss_pictures=[*_loss_pictures(history)],
        above=_above(above),
        endings=[[each["name"], sentence(each["why_it_stopped"])] for each in record["variants"]],
        commands=[each["command"] for each in record["variants"]],
    )
    path.write_text(page, encoding="utf-8", newline="\n")


def _picture(title: str, figure: Figure, caption: str, table: pd.DataFrame) -> Picture:
    return Picture(title, Markup(svg(figure, title=title, description=caption)), caption, table)  # noqa: S704


def _caption(search: Record) -> str:
    return (
        f"{sentence(search['why'])} The shaded rates work; left of them the descent crawls, right of them it "
        "is not stable. Crosses at the upper edge diverged."
    )


def _tuning_tiles(record: Record) -> Iterator[Tile]:
    if record["best"] is None:
        return
    search = record["tried"][record["best"]]["search"]
    low, high = search["interval"]
    yield Tile("Learning rate", number(search["choice"]))
    yield Tile("Rates that work", f"{number(low)} to {number(high)}", tone="words")
    if search["limit"] is not None:
        yield Tile("Stable up to", number(search["limit"]), "by the curvature where it led")
    yield Tile("Loss at the start", number(search["start_loss"]))


def _comparison_tiles(record: Record) -> Iterator[Tile]:
    yield Tile("Rows trained on", number(record["split"]["training_rows"]), "the same for all")
    yield Tile("Parameters", number(record["model"]["parameters"]), "from the same start")
    yield Tile("Loss at the start", number(record["start_loss"]), f"on {number(record['sample_rows'])} rows")
    best = lowest(record)
    if best is not None:
        yield Tile("Lowest loss", number(best["loss"]), best["name"])
    quickest = min(record["variants"], key=lambda each: each["seconds"])
    yield Tile("Soonest at its end", duration(quickest["seconds"]), quickest["name"])


def _loss_pictures(history: pd.DataFrame) -> Iterator[Picture]:
    for against, (title, caption) in AGAINST.items():
        table = pd.concat(
            plots.by_bin(part[against], part["loss"], 12)
            .rename(columns={"step": against})
            .assign(variant=variant)
            for variant, part in plots.measured(history).groupby("variant", sort=False)
        )
        table = table[["variant", *(name for name in table if name != "variant")]]
        yield _picture(title, plots.loss_by(history, against), caption, table)


def _above(above: Landscape) -> Picture:
    caption = (
        "The lines join places of the same loss, in the plane in which the descents moved most. Each path "
        "runs from its ring, the start, to its disc."
    )
    if above.explained < 1:
        caption += f" The plane holds {above.explained:.1%} of the movement; the rest is not seen."
    table = pd.DataFrame(
        [
            [name, snapshot + 1, trail.x[snapshot], trail.y[snapshot], trail.loss[snapshot]]
            for name, trail in above.paths.items()
            for snapshot in range(len(trail.loss))
        ],
        columns=["variant", "snapshot", "x", "y", "loss"],
    )
    return _picture("The descent seen from above", plots.from_above(above), caption, table)

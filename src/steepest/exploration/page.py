"""What an exploration found, as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from steepest.diagnosis.pages import number, render
from steepest.diagnosis.report import Picture, Tile
from steepest.diagnosis.svg import svg
from steepest.errors import SteepestError
from steepest.evaluation import SCORE_NAMES
from steepest.exploration import pictures
from steepest.exploration.remarks import steps
from steepest.exploration.showing import by_signal, different, says_of_sample, says_of_target, values

MOST_BARS, MOST_SQUARES, MOST_DISTRIBUTIONS = 25, 30, 48
"""Columns in the picture of relations, in that of associations, and those whose distribution is drawn."""

Record = Mapping[str, Any]


def write_page(path: Path, record: Record) -> None:
    """Write the page, in UTF-8.

    Parameters
    ----------
    path
        The file to write; an existing one is replaced.
    record
        See `steepest.exploration.exploring.Exploration`.

    Raises
    ------
    SteepestError
        If it can't be written.
    """
    page = render(
        "exploration/page.html.jinja",
        record=record,
        verdict=f"{record['target']['why']}; {says_of_target(record['target'])}",
        sampled=says_of_sample(record["sample"]),
        tiles=list(_tiles(record)),
        columns=[_row(column, record) for column in by_signal(record)],
        score=SCORE_NAMES[record["target"]["score"]][0],
        relation_pictures=list(_relation_pictures(record)),
        target_pictures=list(_target_pictures(record["target"])),
        distribution_pictures=list(_distribution_pictures(record)),
        conditioning=_conditioning(record),
    )
    try:
        path.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise SteepestError(
            f"{path} can't be written: {error.strerror}.", hint="Choose another --out."
        ) from None


def _tiles(record: Record) -> Iterator[Tile]:
    columns, data = record["columns"], record["data"]
    left_out = sum(each["rows"] for each in data["left_out"])
    yield Tile("Rows", number(data["rows"]), f"{left_out:,} left out" if left_out else "all can be used")
    used = sum(column["unused"] is None for column in columns)
    yield Tile("Columns", number(len(columns)), f"a fit uses {used:,}")
    cells = record["sample"]["of"] * max(1, len(columns))
    yield Tile("Values missing", f"{sum(column['missing'] for column in columns) / cells:.1%}")
    scored = [column for column in columns if column["score"] is not None]
    if scored:
        best = max(scored, key=lambda column: column["signal"])
        title = f"{SCORE_NAMES[record['target']['score']][0]} of the best column alone"
        yield Tile(title, f"{best['score']:.3f}", best["name"])
    if record["conditioning"]:
        before, after = (record["conditioning"][when] for when in ("before", "after"))
        yield Tile("Condition number, scaled", f"{after['number']:.3g}", f"unscaled {before['number']:.3g}")
        yield Tile("Plain descent learns 90% in", steps(after["steps_to_learn"]), "on scaled columns")


def _row(column: Record, record: Record) -> list[Any]:
    missing = column["missing"] / record["sample"]["of"]
    return [
        column["name"],
        column["kind"],
        f"{missing:.1%}" if missing else "",
        different(column),
        values(column),
        "" if column["explained"] is None else f"{column['explained']:.1%}",
        "" if column["score"] is None else f"{column['score']:.3f}",
        column["unused"] or "",
    ]


def _picture(title: str, figure: Figure, caption: str, table: pd.DataFrame) -> Picture:
    return Picture(title, Markup(svg(figure, title=title, description=caption)), caption, table)  # noqa: S704


def _relation_pictures(record: Record) -> Iterator[Picture]:
    related = [column for column in by_signal(record) if column["explained"] is not None]
    if related:
        figures = ("name", "explained", "information", "score")
        table = pd.DataFrame([{name: column[name] for name in figures} for column in related])
        shown = table[:MOST_BARS]
        caption = (
            "Mutual information with the target over the target's entropy: 1 tells all of it, 0 nothing. "
            "Any kind of relation counts, straight or not, but only of one column at a time."
        )
        yield _picture(
            "What each column tells alone",
            pictures.relations([*shown["name"]], shown["explained"]),
            caption,
            table,
        )
    together = record["associations"]
    if len(together["columns"]) > 1:
        strength = pd.DataFrame(together["values"], together["columns"], together["columns"])
        tells = [column["name"] for column in by_signal(record) if column["name"] in strength.columns]
        most = set(tells[:MOST_SQUARES])
        chosen = [name for name in together["columns"] if name in most]
        strength = strength.loc[chosen, chosen]
        caption = (
            "The stronger the colour, the more two columns say the same: the size of the rank correlation of "
            "numbers, correlation ratio of a number and a category, Cramér's V of two categories."
        )
        table = strength.round(3).reset_index(names="column")
        yield _picture("Columns that go together", pictures.associations(chosen, strength), caption, table)


def _target_pictures(target: Record) -> Iterator[Picture]:
    if "rows" in target:
        table = pd.DataFrame({"value": map(str, target["labels"]), "rows": target["rows"]})
        table = table.sort_values("rows", ascending=False, kind="stable")
        shares = (table["rows"] / table["rows"].sum())[:MOST_BARS]
        figure = pictures.values([*table["value"][:MOST_BARS]], shares)
        yield _picture(target["name"], figure, "Share of the rows of each class.", table)
    else:
        figure = pictures.distribution(target["histogram"], "number")
        yield _picture(target["name"], figure, _says_of(target["histogram"]), _bins(target["histogram"]))


def _distribution_pictures(record: Record) -> Iterator[Picture]:
    drawn = 0
    for column in by_signal(record):
        if drawn == MOST_DISTRIBUTIONS:
            return
        if column["unused"] is not None:
            continue
        if column["top"]:
            table = pd.DataFrame(column["top"])
            figure = pictures.values([*table["value"]], table["share"])
            caption = f"{different(column)} different values; the most frequent are shown."
        elif column["histogram"]:
            table = _bins(column["histogram"])
            figure = pictures.distribution(column["histogram"], column["type"])
            caption = _says_of(column["histogram"], column["quantiles"])
        else:
            continue
        drawn += 1
        yield _picture(column["name"], figure, caption, table)


def _says_of(histogram: Record, quantiles: Record | None = None) -> str:
    beyond = histogram["below"] + histogram["above"]
    sentences = ["Rows by value."]
    if quantiles:
        middle = " to ".join(number(quantiles[each]) for each in ("25%", "75%"))
        sentences = [f"Median {number(quantiles['50%'])}; the middle half reaches from {middle}."]
    if beyond:
        sentences.append(f"{beyond:,} rows lie beyond the edges.")
    return " ".join(sentences)


def _bins(histogram: Record) -> pd.DataFrame:
    edges = histogram["edges"]
    return pd.DataFrame({"from": edges[:-1], "to": edges[1:], "rows": histogram["rows"]})


def _conditioning(record: Record) -> list[list[Any]]:
    """Lay out what the columns mean for a descent, as they are and scaled."""
    shape = record["conditioning"]
    if shape is None:
        return []
    return [
        [
            title,
            f"{shape[when]['number']:.4g}",
            steps(shape[when]["steps_to_learn"]),
            steps(shape[when]["steps"]),
            shape[when]["flat"],
            ", ".join(shape[when]["along"][:5]),
        ]
        for when, title in (("before", "as the columns are"), ("after", "scaled, as a fit does"))
    ]

"""What `steepest tune` and `steepest compare` found, in words and tables: for the terminal and the pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steepest.diagnosis.pages import DASH, duration, number

Record = Mapping[str, Any]

TRIED = ["", "epochs", "learning rate", "loss reached", "rates that work", "stable up to", "seconds"]
COMPARED = [
    *("", "learning rate", "loss", "held-out loss", "held-out score", "epochs", "steps", "rows seen"),
    *("µs per step", "seconds"),
]
"""The columns of the tables."""


def rate_rows(search: Record) -> list[list[Any]]:
    """Lay a search's rates out: rate, loss reached, verdict."""
    low, high = search["interval"] or (None, None)
    rows = []
    for rate, loss in zip(search["rates"], search["losses"], strict=True):
        if loss is None:
            verdict = "diverged"
        elif rate == search["choice"]:
            verdict = "the choice"
        elif low is not None and low <= rate <= high:
            verdict = "works"
        elif loss > search["start_loss"]:
            verdict = "above the start"
        else:
            verdict = "too low" if low is not None and rate < low else "too high" if low is not None else ""
        rows.append([rate, loss, verdict])
    return rows


def tried_rows(record: Record) -> list[list[Any]]:
    """Lay the searches out, a row each, as `TRIED` heads them."""
    rows = []
    for each in record["tried"]:
        search = each["search"]
        between = " to ".join(map(number, search["interval"])) if search["interval"] else DASH
        rows.append(
            [
                each["name"],
                each["epochs"],
                search["choice"],
                each["reached"],
                between,
                search["limit"],
                round(each["seconds"], 2),
            ]
        )
    return rows


def says_of_tuning(record: Record) -> str:
    """Say what was found in a sentence or two."""
    if record["best"] is None:
        reasons = dict.fromkeys(each["search"]["why"] for each in record["tried"])
        return f"No rate can be chosen: {'; '.join(reasons)}."
    best = record["tried"][record["best"]]
    search, among = best["search"], len(record["tried"])
    which = f" with {best['name']}, the best of {among}" if among > 1 else ""
    return f"A learning rate of {number(search['choice'])}{which}: {search['why']}."


def lowest(record: Record) -> Record | None:
    """Return the variant that ended with the lowest loss, if any has one."""
    ended = [each for each in record["variants"] if each["loss"] is not None and not each["diverged"]]
    return min(ended, key=lambda each: each["loss"]) if ended else None


def compared_rows(record: Record) -> list[list[Any]]:
    """Lay the variants out, a row each, as `COMPARED` heads them."""
    return [
        [
            each["name"] + (" (diverged)" if each["diverged"] else ""),
            each["learning_rate"],
            each["loss"],
            each["validation_loss"],
            each["validation_metric"],
            each["epochs"],
            each["steps"],
            each["rows_seen"],
            round(1e6 * each["seconds_per_step"], 1),
            round(each["seconds"], 2),
        ]
        for each in record["variants"]
    ]


def says_of_comparison(record: Record) -> str:
    """Say what was found in a sentence or two."""
    best = lowest(record)
    if best is None:
        return "Every variant diverged."
    others = [
        f"{each['name']} {'diverged' if each['diverged'] else number(each['loss'])}"
        for each in record["variants"]
        if each is not best
    ]
    held = [
        each for each in record["variants"] if each["validation_loss"] is not None and not each["diverged"]
    ]
    said = (
        f"{best['name'][:1].upper()}{best['name'][1:]} ended with the lowest loss, {number(best['loss'])} on "
        f"{number(record['sample_rows'])} training rows, after {number(best['steps'])} steps and "
        f"{duration(best['seconds'])}; {', '.join(others)}."
    )
    if held:
        wins = min(held, key=lambda each: each["validation_loss"])
        what = (
            "It is the best" if wins is best else f"{wins['name'][:1].upper()}{wins['name'][1:]} is the best"
        )
        said += f" {what} on the rows held out, too." if wins is best else f" {what} on the rows held out."
    return said

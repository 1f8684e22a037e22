"""The report: what a run recorded, as one HTML file that needs no network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from steepest.diagnosis import plots
from steepest.diagnosis.pages import DASH, TABLE_ROWS, duration, number, render, sentence
from steepest.diagnosis.svg import svg
from steepest.evaluation import SCORE_NAMES

STEPWISE: dict[str, tuple[str, Callable[[pd.DataFrame], Figure], str]] = {
    "learning_rate": ("Learning rate", plots.learning_rate, "How far the schedule let each step go."),
    "gradient_norm": (
        "Norm of the gradient",
        plots.gradient_norm,
        "Near zero the descent has settled; if it grows without end the descent diverges.",
    ),
}
QUALITY: dict[str, tuple[str, Callable[[Mapping[str, Any]], Figure], str]] = {
    "roc": (
        "ROC curve",
        plots.roc,
        "Lower the threshold and more positives are found, at the price of more false alarms. The further "
        "the curve bends to the upper left, the better; guessing runs along the dashed line.",
    ),
    "precision_recall": (
        "Precision and recall",
        plots.precision_recall,
        "Of those called positive, how many are, against how many of all positives were found. The table "
        "gives the threshold of each point: choose the one whose errors cost least.",
    ),
    "calibration": (
        "Calibration",
        plots.calibration,
        "Each point is about a tenth of the rows. On the dashed line, of rows given 30% indeed 30% are "
        "positive; the bars are 95% intervals.",
    ),
    "confusion": (
        "Confusion matrix",
        plots.confusion,
        "Rows by their true and their predicted class. The diagonal is right; a cell's shade is its share of "
        "the true class.",
    ),
    "predicted_against_true": (
        "Predicted and true",
        plots.predicted_against_true,
        "A sample of rows, and the mean of the true values where predictions are alike. Means along the "
        "dashed line are right on average; the spread around them is what is left to explain.",
    ),
    "residuals": (
        "Residuals",
        plots.residuals,
        "By how much rows were missed: right of zero the prediction was too low. Of large tables the picture "
        "shows the middle 99%; the table counts the rest.",
    ),
}
"""For each curve of an evaluation: the picture's title, its figure, and how to read it."""


MOST_WORD_PICTURES = 20
"""Columns, or classes of columns, whose words are drawn at most."""

WORDS = (
    "The words or values of the column with the largest weights. In a row that has one, its weight is added "
    "to the output; that of a word times the word's value in the row."
)
"""What is said of them."""


@dataclass(frozen=True)
class Picture:
    """A figure with how to read it and the numbers behind it."""

    title: str
    svg: Markup
    caption: str
    numbers: pd.DataFrame


@dataclass(frozen=True)
class Tile:
    """A key figure: its value, what to compare it with, and whether that is better or worse.

    ``tone`` is ``"better"``, ``"worse"``, ``"words"`` (the value is a sentence) or nothing.
    """

    title: str
    value: str
    note: str = ""
    tone: str = ""


def write_report(path: Path, record: Mapping[str, Any], steps: pd.DataFrame, epochs: pd.DataFrame) -> None:
    """Write a run's report as one HTML file, in UTF-8.

    Parameters
    ----------
    path
        The file to write; an existing one is replaced.
    record
        The run's record (plain JSON types). A part that is absent is left out of the page.
    steps, epochs
        The run's history, one row per step and per epoch, as `steepest.diagnosis.plots` describes them.
    """
    page = render(
        "diagnosis/report.html.jinja",
        record=record,
        verdict=verdict(record),
        tiles=list(_tiles(record)),
        notes=[*record.get("notes", []), *held_out(record).get("notes", [])],
        descent_pictures=[*_search_pictures(record), *_descent_pictures(record, steps, epochs)],
        quality_pictures=list(_quality_pictures(held_out(record))),
        scores=_scores(record),
        importance_pictures=list(_importance_pictures(record)),
        word_pictures=list(_word_pictures(record)),
        words_not_drawn=max(0, len(record.get("words") or []) - MOST_WORD_PICTURES),
        workers=_workers(record.get("workers", [])),
    )
    path.write_text(page, encoding="utf-8", newline="\n")


def verdict(record: Mapping[str, Any]) -> str:
    """Say in a sentence how good the model is beside its baseline.

    Examples
    --------
    >>> verdict({"figures": {"validation": {
    ...     "kind": "number", "rows": 1200, "scores": {"rmse": 6.0, "r2": 0.64},
    ...     "baseline": {"what": "always predicting the mean", "scores": {"rmse": 10.0}}}}})
    'On 1,200 held-out rows its root mean squared error is 6.000, 40.0% below the 10.00 of always predicting
    the mean. It explains 64.0% of the variance.'
    """
    evaluation, failure = held_out(record), record.get("descent", {}).get("failure")
    if failure:
        return (
            f"The descent diverged at step {failure['step']:,}, at a learning rate of "
            f"{number(failure['learning_rate'])}: the {failure['what']} was not finite. There is no model."
        )
    if not evaluation:
        return "No rows were scored, so nothing is known about how good it is."
    scores, baseline = evaluation["scores"], evaluation["baseline"]
    measure = "log_loss" if "log_loss" in scores else "rmse"
    ours, theirs = scores[measure], baseline["scores"][measure]
    change = (ours - theirs) / theirs if theirs else math.copysign(1, ours - theirs)
    if ours == theirs:
        compared = "the same as that"
    elif ours < theirs:
        compared = f"{-change:.1%} below the {number(theirs)}"
    else:
        compared = f"worse than the {number(theirs)}"
    apart = _is_held_out(record)
    rows = f"{evaluation['rows']:,} {'held-out' if apart else 'training'} rows"
    title = SCORE_NAMES[measure][0].lower()
    sentences = [
        f"On {rows} its {title} is {number(ours)}, {compared} of {baseline['what']}.",
        _in_plain_words(evaluation, record.get("target", {}).get("labels") or ["0", "1"]),
        "" if apart else "No rows were held out, so this says how well it fits, not how well it predicts.",
    ]
    return " ".join(filter(None, sentences))


def _in_plain_words(evaluation: Mapping[str, Any], labels: Sequence[str]) -> str:
    scores, kind = evaluation["scores"], evaluation["kind"]
    if kind == "binary" and scores.get("auc") is not None:
        low, high = map(str, labels)
        return f"It ranks a row of {high!r} above one of {low!r} in {scores['auc']:.1%} of pairs."
    if kind == "classes":
        usual = evaluation["baseline"]["scores"]["accuracy"]
        return f"It names the right class for {scores['accuracy']:.1%} of rows (the baseline: {usual:.1%})."
    if (scores.get("r2") or 0) > 0:
        return f"It explains {scores['r2']:.1%} of the variance."
    return ""


def _is_held_out(record: Mapping[str, Any]) -> bool:
    return bool(record.get("figures", {}).get("validation"))


def held_out(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the evaluation of the held-out rows, else of the training rows, else nothing."""
    figures = record.get("figures", {})
    return figures.get("validation") or figures.get("training") or {}


def _tiles(record: Mapping[str, Any]) -> Iterator[Tile]:
    evaluation = held_out(record)
    for name, value in evaluation.get("scores", {}).items():
        title, better = SCORE_NAMES[name]
        theirs = evaluation["baseline"]["scores"].get(name)
        tone = ""
        if value is not None and theirs is not None and value != theirs:
            tone = "better" if (value > theirs) == (better == "higher") else "worse"
        yield Tile(title, number(value), f"baseline {number(theirs)}", tone)
    split, descent = record.get("split", {}), record.get("descent", {})
    if "training_rows" in split:
        apart = split.get("validation_rows")
        note = f"{apart:,} held out" if apart else "none held out"
        yield Tile("Rows trained on", number(split["training_rows"]), note)
    if descent.get("rows_per_second") is not None:
        seconds = descent.get("seconds")
        note = f"{duration(seconds)} in all" if seconds is not None else ""
        yield Tile("Rows per second", f"{descent['rows_per_second']:,.0f}", note)
    if descent.get("why_it_stopped"):
        yield Tile("Why it stopped", sentence(descent["why_it_stopped"]), tone="words")


def _scores(record: Mapping[str, Any]) -> pd.DataFrame:
    """Lay the scores of held-out rows, training rows and the baseline side by side."""
    figures = record.get("figures", {})
    columns = {
        title: figures[part]["scores"]
        for title, part in (("held out", "validation"), ("training", "training"))
        if figures.get(part)
    }
    evaluation = held_out(record)
    if evaluation:
        columns["baseline"] = evaluation["baseline"]["scores"]
    rows = [
        [SCORE_NAMES[name][0], *(scores.get(name) for scores in columns.values()), SCORE_NAMES[name][1]]
        for name in evaluation.get("scores", {})
    ]
    return pd.DataFrame(rows, columns=["score", *columns, "better"], dtype=object)


def _workers(workers: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Lay out what each worker of a fit by several had to do."""
    rows = [
        [
            each["worker"],
            each["host"],
            each["rows"],
            None if each["rows_per_second"] is None else round(each["rows_per_second"]),
            DASH if each["waiting"] is None else f"{each['waiting']:.0%}",
        ]
        for each in workers
    ]
    columns = ["worker", "machine", "training rows", "rows per second", "time spent waiting"]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _picture(title: str, figure: Figure, caption: str, table: pd.DataFrame) -> Picture:
    return Picture(title, Markup(svg(figure, title=title, description=caption)), caption, table)  # noqa: S704


def _search_pictures(record: Mapping[str, Any]) -> Iterator[Picture]:
    """Yield the search for a learning rate, if there was one."""
    search = record.get("learning_rate")
    if search and search["rates"]:
        chosen = "" if search["choice"] is None else f"{number(search['choice'])} was chosen: "
        caption = sentence(chosen + search["why"])
        if search["interval"]:
            caption += " The shaded rates gained nearly as much as the best."
        if None in search["losses"]:
            caption += " Crosses at the upper edge diverged."
        table = pd.DataFrame({"rate": search["rates"], "loss reached": search["losses"]})
        yield _picture("Learning rates tried", plots.rate_against_loss(search), caption, table)


def _descent_pictures(
    record: Mapping[str, Any], steps: pd.DataFrame, epochs: pd.DataFrame
) -> Iterator[Picture]:
    if not epochs.empty:
        caption = (
            "Training that falls while held out rises is overfitting. The training loss is averaged while "
            "the epoch runs, so it may lie above the held-out one."
        )
        yield _picture("Loss by epoch", plots.loss_by_epoch(epochs), caption, epochs)
    if steps.empty:
        return
    loss = plots.by_bin(steps["step"], steps["loss"], TABLE_ROWS)
    caption = "The line is the mean over neighbouring steps, the band reaches from the lowest to the highest."
    yield _picture("Loss by step", plots.loss_by_step(steps, epochs), caption, loss)
    for column, (title, draw, caption) in STEPWISE.items():
        if column in steps and np.isfinite(steps[column]).any():
            table = plots.by_bin(steps["step"], steps[column], TABLE_ROWS)
            yield _picture(title, draw(steps), caption, table)
    if "update_ratio" in steps and np.isfinite(steps["update_ratio"]).any():
        caption = (
            "The norm of each measured update over the norm of the weights that it moved, by layer. A layer "
            "far below the others hardly learns; one far above them may forget what it learned."
        )
        names = [name for name in steps if name == "step" or str(name).startswith("update_ratio")]
        measured = steps.loc[np.isfinite(steps["update_ratio"]), names]
        yield _picture("Update ratio", plots.update_ratio(steps), caption, measured)
    if record.get("curvature"):
        caption = (
            "Above the dashed line the learning rate is too high for the steepest direction, and the loss "
            "may swing or rise. Networks hover at the limit and still improve."
        )
        table = pd.DataFrame(record["curvature"])
        yield _picture("Largest curvature", plots.curvature(record["curvature"]), caption, table)


def _quality_pictures(evaluation: Mapping[str, Any]) -> Iterator[Picture]:
    curves = evaluation.get("curves", {})
    for name, (title, draw, caption) in QUALITY.items():
        if name in curves:
            yield _picture(title, draw(curves), caption, _numbers(name, curves[name]))


def _numbers(name: str, curve: Mapping[str, Any]) -> pd.DataFrame:
    """Lay out the numbers of one of an evaluation's curves."""
    if name == "confusion":
        table = pd.DataFrame(curve["rows"], columns=[f"predicted {label}" for label in curve["labels"]])
        table.insert(0, "true", curve["labels"], allow_duplicates=True)
        return table
    if name == "residuals":
        edges = [-math.inf, *curve["edges"], math.inf]
        rows = [curve["below"], *curve["rows"], curve["above"]]
        return pd.DataFrame({"from": edges[:-1], "to": edges[1:], "rows": rows})
    return pd.DataFrame({key: values for key, values in curve.items() if key != "sample"})


def _importance_pictures(record: Mapping[str, Any]) -> Iterator[Picture]:
    importances = record.get("importances") or {}
    entries = importances.get("entries") or []
    if entries:
        kind = importances.get("kind", "permutation")
        title = "Largest weights" if kind == "weights" else "Importance of the columns"
        caption = sentence(importances.get("how", title))
        yield _picture(title, plots.importances(entries, kind), caption, pd.DataFrame(entries))


def _word_pictures(record: Mapping[str, Any]) -> Iterator[Picture]:
    """Yield for each column of words or many values those with the largest weights."""
    words, target = record.get("words") or [], record.get("target", {}).get("name", "the target")
    for each in words[:MOST_WORD_PICTURES]:
        column, label = each["column"], each["class"]
        titles = {
            "for": f"{column}: for {target} = {label}",
            "against": f"{column}: against {target} = {label}",
        }
        if label is None:
            titles = {"for": f"{column}: raises {target}", "against": f"{column}: lowers {target}"}
        for side, title in titles.items():
            if each[side]:
                yield _picture(
                    title, plots.importances(each[side], "weights"), WORDS, pd.DataFrame(each[side])
                )

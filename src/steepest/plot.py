"""Figures: `steepest.plot`.

Each function draws from what was stored and returns a `matplotlib.figure.Figure`; save it with
``figure.savefig("loss.png")`` or ``.svg``, or show it in a notebook. None needs a display or changes
Matplotlib's settings. ``of`` is a `steepest.Result`, a run (`steepest.fit` returns one) or the name of its
folder; a figure of something that was not recorded raises `SteepestError`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from steepest.diagnosis import plots
from steepest.diagnosis.animation import animate as write_animation
from steepest.diagnosis.landscape import Landscape, landscape, landscape_from_json
from steepest.diagnosis.svg import style
from steepest.errors import SteepestError
from steepest.run import Run, open_run

if TYPE_CHECKING:
    from steepest.diagnosis.rates import RateSearch
    from steepest.result import Result

    Course = Result | Run | str | os.PathLike[str]

__all__ = [
    "animate",
    "calibration",
    "confusion",
    "curvature",
    "from_above",
    "gradient_norm",
    "importances",
    "landscape",
    "learning_rate",
    "loss_by",
    "loss_by_epoch",
    "loss_by_step",
    "overview",
    "precision_recall",
    "predicted_against_true",
    "rate_against_loss",
    "residuals",
    "roc",
    "style",
    "update_ratio",
]


def overview(of: Course) -> Figure:
    """Draw loss, learning rate, gradient norm and update ratio in one figure, as far as they were recorded.

    Examples
    --------
    >>> import steepest
    >>> result = steepest.minimize(lambda p: (p - 3.0) ** 2, 0.0, optimizer=steepest.SGD(0.1), epochs=50)
    >>> figure = steepest.plot.overview(result)
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'learning rate', 'norm of the gradient']
    """
    return plots.overview(*_history(of))


def loss_by_step(of: Course) -> Figure:
    """Draw the training loss of every step, and the validation loss at the ends of epochs."""
    return plots.loss_by_step(*_history(of))


def loss_by_epoch(of: Course) -> Figure:
    """Draw each epoch's training and validation loss, and mark the lowest validation loss."""
    return plots.loss_by_epoch(_history(of)[1])


def learning_rate(of: Course) -> Figure:
    """Draw the learning rate of every step."""
    return plots.learning_rate(_history(of)[0])


def gradient_norm(of: Course) -> Figure:
    """Draw the norm of the gradient at every step."""
    return plots.gradient_norm(_history(of)[0])


def update_ratio(of: Course) -> Figure:
    """Draw how far each measured step moved the weights, by layer, above the learning rate.

    Raises
    ------
    SteepestError
        If it was not recorded.
    """
    steps = _history(of)[0]
    if "update_ratio" not in steps or not np.isfinite(steps["update_ratio"]).any():
        raise _missing("update ratio")
    return plots.update_ratio(steps)


def curvature(of: Run | str | os.PathLike[str] | Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the largest curvature against the limit beyond which the rate is not stable.

    Parameters
    ----------
    of
        A run, or ``{"step", "curvature", "limit_curvature"}`` at each place where it was measured.
    """
    points = _run(of).record.get("curvature") if isinstance(of, (Run, str, os.PathLike)) else of
    if not points:
        raise _missing("curvature")
    return plots.curvature(points)


def rate_against_loss(of: RateSearch | Run | str | os.PathLike[str] | Mapping[str, Any]) -> Figure:
    """Draw the loss that each learning rate reached, the interval of rates that work, and the choice.

    Parameters
    ----------
    of
        What `steepest.find_learning_rate` returned, its JSON, a run whose learning rate was searched for, or
        the folder that ``steepest tune`` wrote (of the best search, where it holds several).

    Raises
    ------
    SteepestError
        If no rate was tried.
    """
    from steepest.diagnosis.rates import RateSearch

    if isinstance(of, RateSearch):
        of = of.to_json()
    if isinstance(of, (str, os.PathLike)) and (file := Path(of) / "tune.json").is_file():
        tuning = json.loads(file.read_text("utf-8"))
        of = tuning["tried"][tuning["best"] or 0]["search"]
    search = of if isinstance(of, Mapping) else _recorded(of, "learning_rate", "search for a learning rate")
    if not search["rates"]:
        raise SteepestError(f"No learning rate was tried: {search['why']}")
    return plots.rate_against_loss(search)


def loss_by(of: str | os.PathLike[str] | pd.DataFrame, against: str = "step") -> Figure:
    """Draw the training loss of several variants of a descent against the same measure of effort.

    Parameters
    ----------
    of
        The folder that ``steepest compare`` wrote, or its history: a row for each step of each variant, in
        order, with ``variant``, ``loss`` (or ``sample_loss``, the loss on the same rows for all, where it was
        measured) and ``against``.
    against
        ``"step"``, ``"rows"`` (seen so far) or ``"seconds"``.
    """
    if not isinstance(of, pd.DataFrame):
        file = Path(of) / "history.parquet"
        if not file.is_file():
            raise SteepestError(f"There is no comparison {of}: {file} is not there.")
        of = pd.read_parquet(file)
    if missing := {"variant", "loss"} - set(of):
        raise SteepestError(
            f"The history has no column {min(missing)!r}, so it compares no variants.",
            hint="steepest compare writes one.",
        )
    return plots.loss_by(of, against)


def from_above(of: Landscape | str | os.PathLike[str]) -> Figure:
    """Draw contours of the loss, and each variant's path from its start (ring) to its end (disc).

    Parameters
    ----------
    of
        What `landscape` returned, a file that holds its ``to_json()``, or the folder that ``steepest
        compare`` wrote.

    Examples
    --------
    >>> import numpy as np, steepest
    >>> path = np.array([[3.0, 1.0], [1.5, -0.5], [0.7, 0.2], [0.3, 0.0]])
    >>> seen = steepest.plot.landscape(lambda p: p[0] ** 2 + 4 * p[1] ** 2, {"rate 0.2": path})
    >>> figure = steepest.plot.from_above(seen)
    """
    return plots.from_above(_landscape(of))


def animate(of: Landscape | str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write the paths' way through the landscape as a moving picture.

    Of more than 100 snapshots, 100 are shown, spread evenly from the first to the last. A path with fewer
    snapshots than others waits at its end.

    Parameters
    ----------
    of
        As `from_above` takes it.
    path
        The file to write: ``.gif``, or ``.html`` for one page with a slider and a button that plays it,
        which loads nothing, works by keyboard, in light and dark, and stands still for readers who prefer
        that.

    Raises
    ------
    SteepestError
        If the file's name ends otherwise, or there are more paths than can be told apart (8).
    """
    write_animation(_landscape(of), path)


def _landscape(of: Landscape | str | os.PathLike[str]) -> Landscape:
    if isinstance(of, Landscape):
        return of
    file = Path(of) / "landscape.json" if Path(of).is_dir() else Path(of)
    try:
        return landscape_from_json(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise SteepestError(f"{of} holds no landscape ({error}).") from None


def roc(of: Run | str | os.PathLike[str]) -> Figure:
    """Draw the share of positives found against the share of false alarms, over all thresholds."""
    return plots.roc(_curves(of, "roc"))


def precision_recall(of: Run | str | os.PathLike[str]) -> Figure:
    """Draw precision against recall, and the precision of guessing: the share of positives."""
    return plots.precision_recall(_curves(of, "precision_recall"))


def calibration(of: Run | str | os.PathLike[str]) -> Figure:
    """Draw the observed share of positives against the predicted one, with its 95 % interval."""
    return plots.calibration(_curves(of, "calibration"))


def confusion(of: Run | str | os.PathLike[str]) -> Figure:
    """Draw the confusion matrix; a cell's shade is its share of the rows of its true class."""
    return plots.confusion(_curves(of, "confusion"))


def residuals(of: Run | str | os.PathLike[str]) -> Figure:
    """Draw how many rows were missed by how much (true minus predicted)."""
    return plots.residuals(_curves(of, "residuals"))


def predicted_against_true(of: Run | str | os.PathLike[str]) -> Figure:
    """Draw a sample of rows, and the mean true value at each twentieth of the predictions."""
    return plots.predicted_against_true(_curves(of, "predicted_against_true"))


def importances(of: Run | str | os.PathLike[str]) -> Figure:
    """Draw the importances of the columns, or the largest weights, with their spread."""
    recorded = _recorded(of, "importances", "importances")
    return plots.importances(recorded["entries"], recorded.get("kind", "permutation"))


def _history(of: Course) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return every step's and every epoch's figures."""
    from steepest.result import Result

    if isinstance(of, Result):
        return of.history, of.epochs
    run = _run(of)
    return run.steps, run.epochs


def _run(of: object) -> Run:
    if isinstance(of, (str, os.PathLike)):
        return open_run(Path(of))
    if not isinstance(of, Run):
        raise SteepestError(
            f"There is no such figure of a {type(of).__name__}.", hint="Give a run or the name of its folder."
        )
    return of


def _recorded(of: object, part: str, words: str) -> Any:
    recorded = _run(of).record.get(part)
    if not recorded:
        raise _missing(words)
    return recorded


def _curves(of: object, name: str) -> Mapping[str, Any]:
    """Return the curves of the held-out rows, else of the training rows."""
    from steepest.diagnosis.report import held_out

    curves: Mapping[str, Any] = held_out(_run(of).record).get("curves", {})
    if name not in curves:
        raise SteepestError(
            f"The run has no {name.replace('_', ' ')}.",
            hint=f"It has: {', '.join(curves)}." if curves else "No rows were scored.",
        )
    return curves


def _missing(words: str) -> SteepestError:
    return SteepestError(f"The {words} can't be drawn: none was recorded.", hint="Descend once more.")

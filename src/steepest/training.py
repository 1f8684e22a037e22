"""`fit`: the way of a table from its files to a run's folder. Read it from top to bottom."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from steepest.callbacks import Callback, notifier, telling_of_failure
from steepest.checking import check
from steepest.continuing import Earlier, earlier
from steepest.descent.optimizers import LINE_SEARCH, default_rate
from steepest.diagnosing import evidence_of
from steepest.diagnosis.findings import findings
from steepest.importance import importances, words_of
from steepest.leading import account, asking, brought, lead
from steepest.prediction import figures_of, judged, naive_forecasts, outputs_of
from steepest.preparation import prepare
from steepest.prepared import Prepared
from steepest.process_group import ProcessGroup
from steepest.recording import record_of
from steepest.run import Run, write_history, write_json, write_model
from steepest.settings import AUTO, Settings, settings_to_json
from steepest.trained import MODELS, DivergenceError, Trained, trained_by
from steepest.unfinished import (
    CHECKPOINTS,
    check_out,
    folder_of,
    holds_checkpoint,
    in_the_making,
    keep_rate,
    kept,
    kept_rate,
    named,
)

NOT_JUDGED: dict[str, Any] = {
    "figures": {"training": None, "validation": None},
    "importances": None,
    "words": [],
}
"""What the record of a descent that diverged says of its model."""

WANTED_LATER = "sklearn.metrics", "steepest.diagnosis.report"
"""Modules that a fit needs when its descent is over."""

FEWEST_STEPS, MOST_EPOCHS, EPOCHS = 5_000, 500, 10
"""Unless told otherwise, a fit runs 10 epochs, or as many as 5,000 steps take, but at most 500."""


def fit(
    settings: Settings,
    data: Any = None,
    *,
    callbacks: Sequence[Callback] = (),
    say: Callable[[str], None] = lambda _: None,
    overwrite: bool = False,
    group: ProcessGroup | None = None,
    told: Settings | None = None,
    held_out: Any = None,
    before: Run | None = None,
) -> Run:
    """Train on data of any size and write a run's folder; go on where the same run was interrupted.

    Parameters
    ----------
    settings
        What to do.
    data
        What to train on instead of the files of ``settings.data``: see `steepest.data.source.open_source`.
    callbacks
        See `steepest.Callback`.
    say
        Is told, in a sentence each, what a reader would want to know on the way.
    overwrite
        Whether a run of the same name, complete or interrupted, may be replaced.
    group
        The processes among which the rows are divided; this one leads, and the others call
        `steepest.leading.follow`.
    told
        The settings as the record tells them; ``None``: as they are.
    held_out
        What to judge by instead of the file that ``settings.validation`` names.
    before
        The run that ``settings.from_`` names, if it is open already.

    Raises
    ------
    DivergenceError
        If a step is not finite: the run's folder shows how it came to that, but has no model to predict with.
    SteepestError
        If the input is bad; then no run is written.
    """
    began = time.perf_counter()
    check(settings)
    folder = folder_of(settings)
    check_out(folder, settings, overwrite)
    notify = notifier(callbacks)
    notify("settings", settings={"run": named(settings, folder), **settings_to_json(told or settings)})

    def seen(doing: str, rows: int, of: int | None) -> None:
        notify("rows_seen", doing=doing, rows=rows, of=of)

    from_ = earlier(settings, before)
    known = from_.known if from_ else None
    prepared = prepare(settings, data, held_out, known=known, say=say, seen=seen, group=group)
    from_ = from_ and from_.on(prepared.facts["data"])
    seconds = {"reading and encoding": time.perf_counter() - began}
    announce(prepared, say)
    if from_:
        say(from_.says)
    with (
        _importing_ahead(),
        telling_of_failure(notify),
        in_the_making(folder, settings, prepared.key, overwrite) as work,
        interruptible(named(settings, folder), partial(holds_checkpoint, work), say),
    ):
        trained, search = _train(settings, prepared, from_, callbacks, work, say, seconds)
        trained = _placed(trained, prepared)
        prepared = brought(prepared, settings.seed)
        workers = account(prepared, trained)
        record = record_of(told or settings, prepared, trained, epochs_of(settings, prepared))
        record |= {"learning_rate": search} | ({"workers": workers} if workers else {})
        judging = time.perf_counter()
        record |= NOT_JUDGED if trained.failure else _judge(settings, prepared, trained)
        seconds["evaluation"] = time.perf_counter() - judging
        record |= _diagnose(settings, prepared, trained, work)
        seconds["diagnosis"] = time.perf_counter() - judging - seconds["evaluation"]
        record["seconds"] = seconds
        write_model(work, trained.form, trained.arrays, prepared.task, prepared.plan)
        write_history(work, trained.history, trained.epochs)
        prepared.rejected(work)
        _write_report(work / "report.html", record, trained)
        write_json(work / "record.json", record)
    run = kept(settings, folder)
    notify("run_end", run=run)
    if trained.failure:
        raise _diverged(trained, (told or settings).out or run.name)
    return run


def _train(
    settings: Settings,
    prepared: Prepared,
    before: Earlier | None,
    callbacks: Sequence[Callback],
    work: Path,
    say: Callable[[str], None],
    seconds: dict[str, float],
) -> tuple[Trained, dict[str, Any] | None]:
    """Train, from the start, from where the run was interrupted, or from an earlier run.

    Return the search for the learning rate as well, if there was one.
    """
    epochs, start = epochs_of(settings, prepared), None
    if before:
        before.begin(work)
        epochs += before.epochs
        start = before.run.parameters
    began = time.perf_counter()
    settings, search = _settle_rate(settings, asking(prepared), epochs, start, before, work, say)
    seconds["finding the learning rate"] = time.perf_counter() - began
    lead(prepared, settings, epochs, work / CHECKPOINTS, start)
    by = trained_by(settings.model)
    trained = by.train(settings, prepared, epochs, callbacks, work / CHECKPOINTS, start)
    seconds["descent"] = trained.seconds
    return trained, search


def _settle_rate(
    settings: Settings,
    prepared: Prepared,
    epochs: int,
    start: Any,
    before: Earlier | None,
    work: Path,
    say: Callable[[str], None],
) -> tuple[Settings, dict[str, Any] | None]:
    """Return the settings with a rate for one that is to be found, and how it was found.

    An interrupted run, and one that goes on from another with the same rule, keep theirs.
    """
    if settings.learning_rate != AUTO or not _takes_rate(settings, prepared):
        return settings, None
    if before and before.run.record["descent"]["optimizer"] == settings.optimizer:
        rate = before.run.record["descent"]["learning_rate"]
        say(f"The learning rate is that of {before.run.name}, {rate:.3g}.")
        return replace(settings, learning_rate=rate), before.run.record.get("learning_rate")
    search = kept_rate(work)
    if search is None:
        search = trained_by(settings.model).search_rate(settings, prepared, epochs, start).to_json()
        keep_rate(work, search)
    return with_rate(settings, search, say), search


def with_rate(settings: Settings, search: Mapping[str, Any], say: Callable[[str], None]) -> Settings:
    """Return the settings with the rate that a search found, or else the rule's own, and say which."""
    if search["choice"] is None:
        rate = default_rate(settings.optimizer)
        say(f"No learning rate was found: {search['why']}. {settings.optimizer}'s own is used, {rate:g}.")
    else:
        rate = search["choice"]
        say(f"The learning rate is {rate:.3g}: {search['why']}.")
    return replace(settings, learning_rate=rate)


@contextmanager
def interruptible(run: str, holds: Callable[[], bool], say: Callable[[str], None]) -> Iterator[None]:
    """Say how to go on with a run that is interrupted, if something is kept."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if not holds():
            raise
        how = f"interrupted; what was reached is kept. Go on with: steepest resume {shlex.quote(run)}"
        if isinstance(stop, SystemExit):
            say(how)
            raise
        raise KeyboardInterrupt(how) from None


def announce(prepared: Prepared, say: Callable[[str], None]) -> None:
    """Say what is learned, and what was left out and why."""
    say(f"{prepared.task.why}.")
    if prepared.facts["selection"]:
        say(prepared.facts["selection"]["says"])
    for dropped in prepared.plan.dropped:
        say(f"Left out {dropped.name!r}: {dropped.reason}")
    for left_out in prepared.facts["data"]["left_out"]:
        say(f"Left out {left_out['rows']:,} rows: {left_out['reason']}.")


def _takes_rate(settings: Settings, prepared: Prepared) -> bool:
    """Tell whether the model leaves the learning rate to the settings."""
    if settings.optimizer == LINE_SEARCH:
        return False
    return settings.model in MODELS or bool(trained_by(settings.model).takes_rate(settings, prepared))


def epochs_of(settings: Settings, prepared: Prepared) -> int:
    """Return the most epochs that the descent may take."""
    return epochs_for(settings, len(prepared.descended.training.target))


def epochs_for(settings: Settings, rows: int) -> int:
    """Return the most epochs that a descent over so many rows may take."""
    steps = 1 if settings.batch_size == "all" else -(-rows // int(settings.batch_size))
    return settings.epochs or min(MOST_EPOCHS, max(EPOCHS, -(-FEWEST_STEPS // steps)))


@contextmanager
def _importing_ahead() -> Iterator[None]:
    """Import what judges and draws, which takes two seconds, while the descent leaves Python idle.

    It is waited for: a process that ends within an import in another thread may be aborted.
    """
    thread = threading.Thread(target=lambda: [import_module(name) for name in WANTED_LATER])
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _judge(settings: Settings, prepared: Prepared, trained: Trained) -> dict[str, Any]:
    """Return the figures on training and held-out rows, and what the model uses."""
    task = prepared.task
    figures: dict[str, Any] = {}
    for name, rows in (("validation", prepared.validation), ("training", prepared.training)):
        if rows is None:
            figures[name] = None
            continue
        features, target, notes = judged(rows, settings.seed)
        outputs = outputs_of(trained.model, trained.parameters, features)
        naive = naive_forecasts(task, prepared.plan, features)
        found = figures_of(task, outputs, target, naive)
        found["notes"] += notes
        if not any(figures.values()):
            used = importances(task, trained, prepared.plan, features, target, settings.seed)
        figures[name] = found
    return {
        "figures": {name: figures[name] for name in ("training", "validation")},
        "importances": used,
        "words": words_of(task, trained, prepared.plan),
    }


def _diagnose(settings: Settings, prepared: Prepared, trained: Trained, work: Path) -> dict[str, Any]:
    """Write the evidence and the findings down; return what the record says of them."""
    from steepest.diagnosis.plots import curvature_points

    evidence = evidence_of(settings, prepared, trained)
    found = findings(evidence)
    write_json(work / "evidence.json", evidence)
    write_json(work / "findings.json", found)
    return {"findings": found, "curvature": curvature_points(evidence, trained.history, trained.epochs)}


def _placed(trained: Trained, prepared: Prepared) -> Trained:
    """Return it with the places of the rows that a step that was not finite is blamed on."""
    if trained.failure is None:
        return trained
    failure = replace(trained.failure, places=tuple(prepared.places(trained.failure.cause.rows.tolist())))
    descended = trained.descended and replace(trained.descended, failure=failure.to_json())
    return replace(trained, failure=failure, descended=descended)


def _diverged(trained: Trained, run: str) -> DivergenceError:
    """Return the error for a descent that met a step that was not finite."""
    failure = trained.failure
    assert failure is not None  # noqa: S101 - the caller looked
    last, rate = trained.history["loss"].iloc[: failure.step - 1], failure.learning_rate
    grew = (
        f" The loss went from {last.iloc[0]:.4g} to {last.iloc[-1]:.4g} before that." if len(last) > 1 else ""
    )
    lower = f"Try --learning-rate {rate / 10:g}"
    return DivergenceError(
        f"The descent diverged at step {failure.step:,} (epoch {failure.epoch}): "
        f"the {failure.cause.what} was not finite at a learning rate of {rate:g}.{grew} "
        f"{run}/report.html shows how it came to that.",
        hint=f"{lower} or --clip-norm 1; a builder that compiles its model takes a lower rate itself."
        if "keras" in trained.form
        else f"{lower}, --on-divergence back-off, or --clip-norm 1.",
    )


def _write_report(path: Path, record: dict[str, Any], trained: Trained) -> None:
    from steepest.diagnosis.report import write_report

    write_report(path, record, trained.history, trained.epochs)

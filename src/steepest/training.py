"""`fit`: the way of a table from its files to a run's folder. Read it from top to bottom."""

from __future__ import annotations

import math
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import numpy as np

import steepest
from steepest import tasks
from steepest.callbacks import Callback
from steepest.descent.losses import loss_by_name
from steepest.descent.models import Model
from steepest.descent.optimizers import Optimizer, optimizer_by_name
from steepest.descent.schedules import schedule_by_name
from steepest.errors import SteepestError, nearest
from steepest.minimization import Result, minimize
from steepest.prediction import figures_of, importances, outputs_of
from steepest.preparation import Prepared, prepare
from steepest.run import (
    FORMAT,
    Run,
    Shape,
    check_out,
    free_name,
    write_history,
    write_json,
    write_model,
    written_aside,
)
from steepest.settings import NAMES, Settings, to_toml

MODELS = ("linear", "mlp")

MOST_SEED = 2**32 - 1
"""JAX makes its keys of 32 bits: with greater seeds, different ones would draw the same."""

FEWEST_STEPS, MOST_EPOCHS, EPOCHS = 5_000, 500, 10
"""Unless told otherwise, a fit runs 10 epochs, or as many as 5,000 steps take, but at most 500."""


def fit(
    settings: Settings,
    *,
    callbacks: Sequence[Callback] = (),
    say: Callable[[str], None] = lambda _: None,
    overwrite: bool = False,
) -> Run:
    """Train on files and write a run's folder.

    Parameters
    ----------
    settings
        What to do.
    callbacks
        See `steepest.Callback`.
    say
        Is told, in a sentence each, what a reader would want to know on the way.
    overwrite
        Whether a run of the same name may be replaced.

    Raises
    ------
    SteepestError
        If the input is bad or the descent fails; then nothing is written.
    """
    began = time.perf_counter()
    _check(settings)
    folder = Path(settings.out) if settings.out else None
    check_out(folder or free_name(settings.data[0]), overwrite)
    prepared = prepare(settings)
    seconds = {"reading and encoding": time.perf_counter() - began}
    _announce(prepared, say)
    shape, model = _model(settings, prepared)
    optimizer, epochs = _rule(settings, len(prepared.training.target))
    threading.Thread(target=_import_ahead, daemon=True).start()
    result = _descend(settings, prepared, model, optimizer, epochs, callbacks)
    seconds["descent"] = result.seconds
    record = _record(settings, prepared, shape, optimizer, result, epochs)
    judging = time.perf_counter()
    record |= _judge(settings, prepared, model, result)
    seconds["evaluation"] = time.perf_counter() - judging
    record["seconds"] = seconds
    folder = folder or free_name(settings.data[0])
    with written_aside(folder, overwrite) as aside:
        write_model(aside, shape, prepared.task, prepared.plan, result.parameters)
        write_history(aside, result.history, result.epochs)
        (aside / "settings.toml").write_text(to_toml(settings), "utf-8")
        write_json(aside / "record.json", record)
        _write_report(aside / "report.html", record, result)
    return Run(folder)


def _check(settings: Settings) -> None:
    """Refuse settings that can't work before anything is read."""
    if settings.model not in MODELS:
        raise SteepestError(f"There is no model {settings.model!r}.", hint=nearest(settings.model, MODELS))
    if settings.loss is not None:
        loss_by_name(settings.loss)
    optimizer_by_name(settings.optimizer)
    schedule_by_name(settings.schedule, 1.0, 1)
    rate = settings.learning_rate
    if rate is not None and not (rate > 0 and math.isfinite(rate)):
        raise SteepestError(
            f"A learning rate is a number above zero, not {rate}.", hint="Try --learning-rate 0.001."
        )
    if settings.batch_size != "all" and (isinstance(settings.batch_size, str) or settings.batch_size < 1):
        raise SteepestError(f"A batch size is a whole number from 1, or 'all', not {settings.batch_size!r}.")
    if settings.epochs is not None and settings.epochs < 1:
        raise SteepestError(f"A fit needs at least one epoch, not {settings.epochs}.")
    if not 0 <= settings.seed <= MOST_SEED:
        raise SteepestError(f"A seed is a whole number from 0 to {MOST_SEED}, not {settings.seed}.")
    if not settings.hidden or min(settings.hidden) < 1:
        asked = ",".join(map(str, settings.hidden))
        raise SteepestError(
            f"Each hidden layer needs at least one unit, and there is at least one; --hidden is {asked!r}.",
            hint="Try --hidden 64,32, or --model linear, which has none.",
        )


def _announce(prepared: Prepared, say: Callable[[str], None]) -> None:
    say(f"{prepared.task.why}.")
    for dropped in prepared.plan.dropped:
        say(f"Left out {dropped.name!r}: {dropped.reason}")
    for left_out in prepared.facts["data"]["left_out"]:
        say(f"Left out {left_out['rows']:,} rows: {left_out['reason']}.")


def _model(settings: Settings, prepared: Prepared) -> tuple[Shape, Model]:
    hidden = settings.hidden if settings.model == "mlp" else ()
    task = prepared.task
    shape = Shape(prepared.plan.width, hidden, task.outputs, settings.activation, settings.dropout)
    return shape, shape.build(tasks.output_bias(task))


def _rule(settings: Settings, rows: int) -> tuple[Optimizer, int]:
    """Return the update rule with its schedule, and the number of epochs."""
    make = optimizer_by_name(settings.optimizer)
    steps = 1 if settings.batch_size == "all" else -(-rows // int(settings.batch_size))
    epochs = settings.epochs or min(MOST_EPOCHS, max(EPOCHS, -(-FEWEST_STEPS // steps)))
    rate = settings.learning_rate or float(make().schedule.settings["learning_rate"])
    schedule = schedule_by_name(settings.schedule, rate, steps * epochs)
    return make(schedule, clip_norm=settings.clip_norm), epochs


def _descend(
    settings: Settings,
    prepared: Prepared,
    model: Model,
    optimizer: Optimizer,
    epochs: int,
    callbacks: Sequence[Callback],
) -> Result:
    """Minimise the task's loss over the training rows."""
    task, loss = prepared.task, tasks.loss_of(prepared.task)

    def objective(parameters: Any, batch: Any, key: jax.Array | None = None) -> jax.Array:
        return loss.per_row(model.apply(parameters, batch["features"], key), batch["target"])

    def measure(parameters: Any, batch: Any) -> jax.Array:
        return tasks.metric(task, model.apply(parameters, batch["features"]), batch["target"])

    start = jax.jit(model.init)(jax.random.key(settings.seed))
    penalised = jax.tree.map(lambda leaf: float(leaf.ndim > 1), start)  # weights, not biases
    validation = prepared.validation
    result = minimize(
        objective,
        start,
        prepared.training.data,
        optimizer=optimizer,
        batch_size=settings.batch_size,
        epochs=epochs,
        tolerance=settings.tolerance,
        seed=settings.seed,
        weights=prepared.training.weights,
        l1=jax.tree.map(lambda counted: settings.l1 * counted, penalised),
        l2=jax.tree.map(lambda counted: settings.l2 * counted, penalised),
        validation_data=validation.data if validation else None,
        validation_weights=validation.weights if validation else None,
        metrics={tasks.METRICS[task.kind]: measure} if validation else None,
        callbacks=callbacks,
    )
    if result.failure:
        raise _diverged(result)
    return result


def _diverged(result: Result) -> SteepestError:
    """Return the error for a descent that met a step that was not finite."""
    assert result.failure is not None  # noqa: S101 - the caller looked
    rate = result.failure.learning_rate
    last = result.history["loss"].iloc[: result.failure.step - 1]
    grew = (
        f" The loss went from {last.iloc[0]:.4g} to {last.iloc[-1]:.4g} before that." if len(last) > 1 else ""
    )
    return SteepestError(
        f"The descent diverged at step {result.failure.step:,} (epoch {result.failure.epoch}): "
        f"the loss or its gradient was not finite at a learning rate of {rate:g}.{grew}",
        hint=f"Try --learning-rate {rate / 10:g}, or --clip-norm 1.",
    )


def _import_ahead() -> None:
    """Import what judges and draws, which takes two seconds, while the descent leaves Python idle."""
    import_module("sklearn.metrics")
    import_module("steepest.diagnosis.report")


def _record(
    settings: Settings, prepared: Prepared, shape: Shape, optimizer: Optimizer, result: Result, epochs: int
) -> dict[str, Any]:
    """Return what the run's record says of the descent and before."""
    task = prepared.task
    rows = int(result.epochs["rows"].sum())
    spent = float(result.epochs["seconds"].sum())
    return {
        "format": FORMAT,
        "steepest": steepest.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(settings),
        "settings_toml": to_toml(settings),
        **prepared.facts,
        "target": {
            "name": task.target,
            "kind": task.kind,
            "labels": list(task.labels),
            "why": task.why,
            "baseline": list(task.baseline),
        },
        "model": {
            "name": settings.model,
            "hidden": list(shape.hidden),
            "activation": shape.activation,
            "features": shape.inputs,
            "parameters": int(sum(np.size(leaf) for leaf in jax.tree.leaves(result.parameters))),
        },
        "descent": {
            "loss": task.loss,
            "optimizer": optimizer.name,
            "learning_rate": optimizer.schedule.settings["learning_rate"],
            "schedule": optimizer.schedule.name,
            "batch_size": settings.batch_size,
            "epochs": len(result.epochs),
            "most_epochs": epochs,
            "steps": result.steps,
            "seed": settings.seed,
            "why_it_stopped": result.why_it_stopped,
            "converged": result.converged,
            "seconds": result.seconds,
            "rows_per_second": rows / spent,
        },
        "notes": _notes(result),
    }


def _notes(result: Result) -> list[str]:
    """Return what a reader should know of how the descent went."""
    notes = []
    losses = result.epochs["loss"].to_numpy()
    if losses[-1] > losses[0]:
        notes.append(
            f"The training loss rose from {losses[0]:.4g} (first epoch) to {losses[-1]:.4g} (last): "
            "the learning rate is too high. Try a tenth of it."
        )
    elif "validation_loss" in result.epochs:
        held_out = result.epochs["validation_loss"].to_numpy()
        best = int(held_out.argmin())
        if held_out[-1] > 1.02 * held_out[best] > 0:
            notes.append(
                f"The loss on held-out rows was lowest after epoch {best + 1} ({held_out[best]:.4g}) and is "
                f"{held_out[-1]:.4g} at the end: the model overfits. Try --epochs {best + 1}, --dropout or "
                "--l2."
            )
    return notes


def command(settings: Settings) -> str:
    """Return the command line that gives these settings.

    Examples
    --------
    >>> command(Settings(data=("my data.csv",), target="y", epochs=3))
    "steepest fit 'my data.csv' --target y --epochs 3"
    """
    default = Settings()
    words = ["steepest", "fit", *settings.data]
    for name in NAMES:
        value = getattr(settings, name)
        if name == "data" or value == getattr(default, name):
            continue
        option = f"--{name.replace('_', '-')}"
        if name == "drop":
            words += [word for column in value for word in (option, column)]
        else:
            words += [option, ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}"]
    return shlex.join(words)


def _judge(settings: Settings, prepared: Prepared, model: Model, result: Result) -> dict[str, Any]:
    """Return the figures on training and held-out rows, and what the model uses."""
    task = prepared.task
    figures = {}
    for name, rows in (("training", prepared.training), ("validation", prepared.validation)):
        figures[name] = rows and figures_of(
            task, outputs_of(model, result.parameters, rows.features), rows.target
        )
    judged = prepared.validation or prepared.training
    used = importances(
        task, model, result.parameters, prepared.plan, judged.features, judged.target, settings.seed
    )
    return {"figures": figures, "importances": used}


def _write_report(path: Path, record: dict[str, Any], result: Result) -> None:
    from steepest.diagnosis.report import write_report

    write_report(path, record, result.history, result.epochs)

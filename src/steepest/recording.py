"""What a run's record says of a descent, and the command that makes the run again."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Any

import numpy as np

import steepest
from steepest.data.rows import MEMORY
from steepest.preparation import Prepared
from steepest.run import FORMAT
from steepest.settings import NAMES, Settings, to_toml
from steepest.trained import Trained


def record_of(settings: Settings, prepared: Prepared, trained: Trained, most_epochs: int) -> dict[str, Any]:
    """Return what the run's record says of the descent and before, as plain JSON types."""
    task = prepared.task
    rows = int(trained.epochs["rows"].sum())
    spent = float(trained.epochs["seconds"].sum()) if rows else 0.0
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
            "features": prepared.plan.width,
            "parameters": int(sum(np.size(leaf) for leaf in trained.arrays.values())),
            **trained.layers,
        },
        "descent": {
            **trained.rule,
            "batch_size": settings.batch_size,
            "epochs": len(trained.epochs),
            "most_epochs": max(most_epochs, len(trained.epochs)),
            "steps": trained.steps,
            "seed": settings.seed,
            "why_it_stopped": trained.why_it_stopped,
            "converged": trained.converged,
            "seconds": trained.seconds,
            "rows_per_second": rows / spent if spent else None,
            "failure": trained.failure and trained.failure.to_json(),
            "setbacks": [setback._asdict() for setback in trained.setbacks],
        },
        "notes": _notes(trained),
    }


def _notes(trained: Trained) -> list[str]:
    """Return what a reader should know of how the descent went."""
    notes = [
        f"Step {setback.step:,} at a learning rate of {setback.learning_rate:g} was not finite; the descent "
        f"went back to step {setback.back_to:,} and on at a third of the rate."
        for setback in trained.setbacks
    ]
    losses = trained.epochs["loss"].to_numpy()
    if trained.descended or not len(losses):
        return notes
    if losses[-1] > losses[0]:
        notes.append(
            f"The training loss rose from {losses[0]:.4g} (first epoch) to {losses[-1]:.4g} (last): "
            "the learning rate is too high. Try a tenth of it."
        )
    elif "validation_loss" in trained.epochs:
        held_out = trained.epochs["validation_loss"].to_numpy()
        best = int(held_out.argmin())
        if held_out[-1] > 1.02 * held_out[best] > 0:
            notes.append(
                f"The loss on held-out rows was lowest after epoch {best + 1} ({held_out[best]:.4g}) and is "
                f"{held_out[-1]:.4g} at the end: the model overfits. Try --epochs {best + 1}, "
                + ("a Dropout layer." if "keras" in trained.form else "--dropout or --l2.")
            )
    return notes


def command(settings: Settings) -> str:
    """Return the command line, or the call, that gives these settings.

    Examples
    --------
    >>> command(Settings(data=("my data.csv",), target="y", epochs=3))
    "steepest fit 'my data.csv' --target y --epochs 3"
    >>> command(Settings(data=("memory",), target="y", epochs=3))
    "steepest.fit(data, 'y', epochs=3)"
    """
    default = Settings()
    words = ["steepest", "fit", *settings.data]
    given = {name: getattr(settings, name) for name in NAMES if name != "data"}
    given = {name: value for name, value in given.items() if value != getattr(default, name)}
    if settings.data == MEMORY:
        others = [f", {name}={value!r}" for name, value in given.items() if name != "target"]
        return f"steepest.fit(data, {settings.target!r}{''.join(others)})"
    for name, value in given.items():
        option = f"--{name.strip('_').replace('_', '-')}"
        if name == "drop":
            words += [word for column in value for word in (option, column)]
        elif value is True:
            words.append(option)
        else:
            words += [option, ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}"]
    return shlex.join(words)

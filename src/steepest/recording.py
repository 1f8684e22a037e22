"""What a run's record says of its data and of the descent, and the command that makes the run again."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

import steepest
from steepest.data.rejected import FILE, Rejects
from steepest.data.rows import MEMORY, SPARK
from steepest.dividing import Table
from steepest.merging import TRAINING, VALIDATION
from steepest.passes import Learned
from steepest.run import FORMAT
from steepest.selection import says
from steepest.settings import NAMES, Settings, to_toml
from steepest.trained import Trained

if TYPE_CHECKING:
    from steepest.prepared import Prepared


def facts_of(
    settings: Settings,
    table: Table,
    held: Table | None,
    learned: Learned,
    rejects: Rejects,
    roles: Mapping[str, str],
) -> dict[str, Any]:
    """Return what the record says of the data.

    Parameters
    ----------
    settings
        What was asked for.
    table, held
        The rows, and those of the file to judge by, if one was named.
    learned, rejects
        What the first pass found, and the rows that can't be used.
    roles
        Column that the settings name -> what for.
    """
    left_out = [
        {
            "reason": f"the target {settings.target!r} is missing{each.of}",
            "rows": learned.counts[part].unlabelled,
        }
        for part, each in ((TRAINING, table), (VALIDATION, held))
        if each and learned.counts[part].unlabelled
    ]
    if rejects.count:
        left_out.append({"reason": f"they can't be used: {FILE} says why", "rows": rejects.count})
    return {
        "data": {
            "files": list(table.source.names),
            "rows": learned.counts[TRAINING].rows + rejects.count,
            "left_out": left_out,
            "fingerprints": [each.source.fingerprint() for each in (table, held) if each],
        },
        "split": {
            "training_rows": learned.all_rows[TRAINING],
            "validation_rows": learned.all_rows[VALIDATION],
            "how": _how(settings, table),
        },
        "columns": _describe_columns(learned),
        "selection": learned.selection and {**learned.selection, "says": says(learned.selection)},
        "dropped": [{"name": each.name, "reason": each.reason} for each in learned.plan.dropped]
        + [{"name": name, "reason": "It was left out by --drop."} for name in settings.drop]
        + [
            {"name": name, "reason": f"It is the {role}."} for name, role in roles.items() if role != "target"
        ],
    }


def _how(settings: Settings, table: Table) -> str:
    """Return how the rows to judge by were chosen."""
    if settings.validation_column:
        return f"the rows are held out that {settings.validation_column!r} says"
    if settings.validation_file:
        return f"the rows of {settings.validation_file} are held out"
    if not settings.share:
        return "no rows are held out"
    if table.lags is not None:
        return f"the last {settings.share:.3g} of the rows are held out, {table.lags.says}"
    whole = f"whole values of {settings.split_by!r}, " if settings.split_by else ""
    return f"{settings.share:.3g} of the rows are held out, {whole}drawn with the seed {settings.seed}"


def _describe_columns(learned: Learned) -> list[dict[str, Any]]:
    """Return what the record says of each column that is used."""
    widths: Counter[str] = Counter()
    for groups in (learned.plan.groups, learned.plan.sparse_groups):
        widths.update({name: span.stop - span.start for name, span in groups.items()})
    return [
        {
            "name": column.name,
            "kind": column.kind,
            "features": widths[column.name],
            "missing": learned.missing.get(column.name, 0),
        }
        for column in learned.plan.columns
    ]


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
            "features": prepared.plan.width + prepared.plan.layout.sparse,
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
    return [
        f"Step {setback.step:,} at a learning rate of {setback.learning_rate:g} was not finite; the descent "
        f"went back to step {setback.back_to:,} and on at a third of the rate."
        for setback in trained.setbacks
    ]


def command(settings: Settings) -> str:
    """Return the command line, or the call, that gives these settings.

    Examples
    --------
    >>> command(Settings(data=("my data.csv",), target="y", epochs=3))
    "steepest fit 'my data.csv' --target y --epochs 3"
    >>> command(Settings(data=("memory",), target="y", epochs=3))
    "steepest.fit(data, 'y', epochs=3)"
    >>> command(Settings(data=SPARK, target="y", model="mlp", epochs=3, on="spark", workers=2))
    "steepest.spark.fit('mlp', frame, 'y', epochs=3, workers=2)"
    """
    default = Settings()
    words = ["steepest", "fit", *settings.data]
    given = {name: getattr(settings, name) for name in NAMES if name != "data"}
    given = {name: value for name, value in given.items() if value != getattr(default, name)}
    if settings.data == MEMORY:
        return _call("steepest.fit(data", settings.target, given, but=("target",))
    if settings.data == SPARK:
        call = f"steepest.spark.fit({settings.model!r}, frame"
        return _call(call, settings.target, given, but=("target", "model", "on"))
    for name, value in given.items():
        option = f"--{name.strip('_').replace('_', '-')}"
        if name in ("drop", "log"):
            words += [word for each in value for word in (option, each)]
        elif name == "kinds":
            words += [word for column, kind in value.items() for word in ("--kind", f"{column}={kind}")]
        elif name == "lags":
            words += [f for each in value.items() for f in (option, _lag(*each))]
        elif name == "cross":
            words += [word for columns in value for word in (option, ",".join(columns))]
        elif value is True:
            words.append(option)
        else:
            words += [option, ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}"]
    return shlex.join(words)


def _lag(column: str, rows: Sequence[int]) -> str:
    return f"{column}:{','.join(map(str, rows))}"


def _call(begin: str, target: str, given: Mapping[str, Any], but: tuple[str, ...]) -> str:
    others = [f", {name}={value!r}" for name, value in given.items() if name not in but]
    return f"{begin}, {target!r}{''.join(others)})"

"""`compare`: whole descents from one start over the same rows that differ in how they descend.

====================  =======================================================================
``compare.json``      the variants: settings, where each ended, how long it took
``history.parquet``   every step of every variant: variant, step, epoch, rows, seconds, loss (of its
                      batch), sample_loss (at snapshots: of the same rows for all), learning_rate
``path.safetensors``  snapshots of the parameters: ``NUMBER.LAYER.PART``, ``NUMBER.steps``
``landscape.json``    the loss on the plane of the paths
``animation.html``    the descent seen from above, moving
``report.html``       all of it for a person
====================  =======================================================================
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import steepest
from steepest import networks, tasks, training
from steepest.callbacks import Callback
from steepest.checking import check
from steepest.data.order import generator
from steepest.diagnosis.landscape import Landscape, landscape
from steepest.errors import SteepestError
from steepest.preparation import prepare
from steepest.prepared import Prepared
from steepest.recording import command
from steepest.result import Result
from steepest.run import write_json
from steepest.settings import AUTO, Settings
from steepest.trained import MODELS
from steepest.trials.variants import Variant, planned
from steepest.trials.whole import check_free, written_whole

if TYPE_CHECKING:
    import pandas as pd

FILE = "compare.json"

SNAPSHOTS = 100
"""Snapshots of each variant's parameters, at most."""

SNAPSHOT_BYTES = 2**28
"""Bytes of each variant's snapshots, about, at most."""

ROWS = 2**11
"""Training rows on which the landscape and where each variant ended are measured."""

COMPARING = 0xC09A
"""The purpose of the stream that draws them."""


@dataclass(frozen=True)
class Comparison:
    """A comparison that is complete, opened for reading."""

    path: Path
    record: dict[str, Any]


class _Clock(Callback):
    """Takes the time that each window's steps took."""

    def __init__(self, batch: int, rows: int) -> None:
        self.batch, self.rows = batch, rows
        self.speeds: list[float] = []
        self.last = (0, time.perf_counter())

    def on_window_end(self, epoch: int, rows: int, loss: float) -> None:  # noqa: ARG002
        """Note how long a step took on average since the window before."""
        per_epoch = -(-self.rows // self.batch)
        step, now = (epoch - 1) * per_epoch + -(-rows // self.batch), time.perf_counter()
        if step > self.last[0]:
            self.speeds.append((now - self.last[1]) / (step - self.last[0]))
        self.last = step, now

    @property
    def seconds_per_step(self) -> float:
        """The median over the windows: those that were compiled first count for little."""
        return statistics.median(self.speeds) if self.speeds else 0.0


@dataclass(frozen=True)
class _Descended:
    """A variant that has been run."""

    settings: Settings
    result: Result
    rate: float
    search: Mapping[str, Any] | None
    seconds_per_step: float
    seconds: float


def compare(
    settings: Settings,
    variants: Sequence[Variant] = (),
    data: Any = None,
    *,
    out: Path,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    say: Callable[[str], None] = lambda _: None,
    seen: Callable[[str, int, int | None], None] = lambda *_: None,
) -> Comparison:
    """Run each variant from the same start over the same rows, and write what came of it to a folder.

    Parameters
    ----------
    settings
        What the variants have in common. Where the learning rate is ``"auto"``, each variant's own is found.
    variants
        The settings in which they differ, by name; none: batch, mini-batch and stochastic descent.
    data
        See `steepest.training.fit`.
    out
        The folder to write.
    overwrite
        Whether another comparison may be replaced.
    callbacks, say, seen
        See `steepest.training.fit` and `steepest.preparation.prepare`.

    Raises
    ------
    SteepestError
        If the settings or the data can't be used; then nothing is written.
    """
    settings = replace(settings, from_=None, out=None)
    if settings.model not in MODELS:
        raise SteepestError(
            f"compare descends on Steepest's own models, not on {settings.model}.",
            hint="Try --model linear or --model mlp.",
        )
    plans = planned(settings, variants)
    for plan in plans.values():
        check(plan)
    check_free(out, FILE, overwrite)
    prepared = prepare(settings, data, say=say, seen=seen)
    if sparse := [*prepared.plan.sparse_groups]:
        raise SteepestError(
            f"A comparison follows all parameters; the features of {', '.join(sparse)} are too many for it.",
            hint=f"Leave them out: --drop {','.join(sparse)}.",
        )
    training.announce(prepared, say)
    descended = {name: _descend(name, plan, prepared, callbacks, say) for name, plan in plans.items()}
    objective = networks.problem(settings, prepared, 1).objective
    batch, rows = _sample(prepared, settings.seed)

    def loss(parameters: Any, sample: Any) -> jax.Array:
        return jnp.mean(objective(parameters, sample))

    seen_from_above = landscape(
        loss, {name: _path(each).parameters for name, each in descended.items()}, batch
    )
    ends = {name: seen_from_above.paths[name].loss[-1] for name in descended}
    record = {
        "steepest": steepest.__version__,
        **{name: prepared.facts[name] for name in ("data", "split")},
        "target": {"name": prepared.task.target, "why": prepared.task.why},
        "model": {"name": settings.model, "parameters": _size(descended)},
        "loss": prepared.task.loss,
        "start_loss": next(iter(seen_from_above.paths.values())).loss[0],
        "sample_rows": rows,
        "variants": [_entry(name, each, ends[name], prepared) for name, each in descended.items()],
    }
    with written_whole(out, FILE, overwrite) as work:
        _write(work, record, descended, seen_from_above, prepared)
    return Comparison(out, record)


def _descend(
    name: str,
    settings: Settings,
    prepared: Prepared,
    callbacks: Sequence[Callback],
    say: Callable[[str], None],
) -> _Descended:
    """Run a variant."""
    began, epochs = time.perf_counter(), training.epochs_of(settings, prepared)
    search = None
    if settings.learning_rate == AUTO:
        search = networks.search_rate(settings, prepared, epochs).to_json()
        settings = training.with_rate(settings, search, lambda said: say(f"{name}: {said}"))
    asked = networks.problem(settings, prepared, epochs)
    rows = len(prepared.training.target)
    clock = _Clock(rows if settings.batch_size == "all" else int(settings.batch_size), rows)
    size = sum(np.size(leaf) for leaf in jax.tree.leaves(asked.start))
    result = networks.descend(
        asked,
        validation=prepared.validation,
        callbacks=[clock, *callbacks],
        patience=settings.patience,
        monitor=settings.monitor,
        on_divergence=settings.on_divergence,
        snapshots=max(2, min(SNAPSHOTS, SNAPSHOT_BYTES // (4 * size))),
    )
    if result.failure:
        say(f"{name}: {result.why_it_stopped}.")
    seconds = time.perf_counter() - began
    rate = float(settings.learning_rate)
    return _Descended(settings, result, rate, search, clock.seconds_per_step, seconds)


def _sample(prepared: Prepared, seed: int) -> tuple[dict[str, Any], int]:
    """Return some training rows, and how many."""
    count = len(prepared.training.target)
    if count <= ROWS:
        chosen = np.arange(count)
    else:
        drawn = generator(seed, COMPARING).bit_generator.random_raw(ROWS) % np.uint64(count)
        chosen = np.unique(drawn).astype(np.int64)
    rows = prepared.training
    return {"features": rows.features[chosen], "target": rows.target[chosen]}, len(chosen)


def _path(descended: _Descended) -> Any:
    path = descended.result.path
    assert path is not None  # noqa: S101 - it was asked for
    return path


def _size(descended: Mapping[str, _Descended]) -> int:
    first = next(iter(descended.values())).result.parameters
    return int(sum(np.size(leaf) for leaf in jax.tree.leaves(first)))


def _entry(name: str, descended: _Descended, loss: float | None, prepared: Prepared) -> dict[str, Any]:
    """Return what the record says of a variant, as JSON's types."""
    result, settings = descended.result, descended.settings
    last: Mapping[Any, Any] = result.epochs.iloc[-1].to_dict() if len(result.epochs) else {}
    metric = f"validation_{tasks.METRICS[prepared.task.kind]}"
    measured = {key: float(last[key]) for key in ("validation_loss", metric) if key in last}
    measured = {key: value for key, value in measured.items() if math.isfinite(value)}
    given = asdict(settings)
    return {
        "name": name,
        "optimizer": settings.optimizer,
        "learning_rate": descended.rate,
        "schedule": settings.schedule,
        "batch_size": settings.batch_size,
        "loss": loss,
        "validation_loss": measured.get("validation_loss"),
        "metric": tasks.METRICS[prepared.task.kind],
        "validation_metric": measured.get(metric),
        "steps": result.steps,
        "epochs": len(result.epochs),
        "rows_seen": int(_rows_seen(np.array([result.steps]), settings, prepared)[0]),
        "seconds": descended.seconds,
        "seconds_per_step": descended.seconds_per_step,
        "why_it_stopped": result.why_it_stopped,
        "diverged": result.failure is not None,
        "search": descended.search,
        "settings": {key: value for key, value in given.items() if value is not None},
        "command": command(settings),
    }


def _rows_seen(steps: Any, settings: Settings, prepared: Prepared) -> Any:
    """Return how many rows the first so many steps visited; the last batch of an epoch may be short."""
    rows = len(prepared.training.target)
    size = rows if settings.batch_size == "all" else min(int(settings.batch_size), rows)
    whole, rest = np.divmod(steps, -(-rows // size))
    return whole * rows + np.minimum(rest * size, rows)


def _history(descended: Mapping[str, _Descended], above: Landscape, prepared: Prepared) -> pd.DataFrame:
    """Return every step of every variant, with the loss on the sample where there is a snapshot."""
    import pandas as pd

    parts = []
    for name, each in descended.items():
        steps = each.result.history
        if each.result.failure:
            steps = steps.iloc[: each.result.failure.step - 1]
        counted = steps["step"].to_numpy()
        measured = pd.Series(above.paths[name].loss, index=_path(each).steps, dtype=float)
        parts.append(
            pd.DataFrame(
                {
                    "variant": name,
                    "step": counted,
                    "epoch": steps["epoch"],
                    "rows": _rows_seen(counted, each.settings, prepared),
                    "seconds": counted * each.seconds_per_step,
                    "loss": steps["loss"],
                    "sample_loss": measured.reindex(counted).to_numpy(),
                    "learning_rate": steps["learning_rate"],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _write(
    work: Path,
    record: dict[str, Any],
    descended: Mapping[str, _Descended],
    above: Landscape,
    prepared: Prepared,
) -> None:
    """Write all files; the pictures are made of what the others hold."""
    from safetensors.numpy import save_file

    from steepest.diagnosis.animation import animate
    from steepest.trials.pages import write_comparison

    write_json(work / FILE, record)
    write_json(work / "landscape.json", above.to_json())
    history = _history(descended, above, prepared)
    history.to_parquet(work / "history.parquet", index=False)
    paths = {}
    for number, each in enumerate(descended.values()):
        path = _path(each)
        paths[f"{number}.steps"] = path.steps
        for layer, parts in path.parameters.items():
            paths |= {
                f"{number}.{layer}.{part}": np.ascontiguousarray(values) for part, values in parts.items()
            }
    save_file(paths, work / "path.safetensors")
    animate(above, work / "animation.html")
    write_comparison(work / "report.html", record, history, above)

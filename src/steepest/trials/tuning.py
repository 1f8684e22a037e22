"""`tune`: the loss that each learning rate reaches, for several update rules, batch sizes and schedules."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import steepest
from steepest import networks, training
from steepest.checking import check
from steepest.diagnosis.rates import RateSearch
from steepest.dividing import Seen
from steepest.errors import SteepestError
from steepest.preparation import prepare
from steepest.recording import command
from steepest.run import write_json
from steepest.settings import AUTO, Settings
from steepest.trained import MODELS
from steepest.trials.whole import check_free, written_whole

FILE = "tune.json"


@dataclass(frozen=True)
class Tried:
    """A search for the learning rate with some settings.

    Attributes
    ----------
    optimizer, batch_size, schedule, epochs
        The descent that is planned.
    seconds
        What the search took.
    search
        What it found.
    """

    optimizer: str
    batch_size: int | str
    schedule: str
    epochs: int
    seconds: float
    search: RateSearch

    @property
    def name(self) -> str:
        """What tells it from the others."""
        rows = "all rows" if self.batch_size == "all" else f"batches of {self.batch_size:,}"
        return f"{self.optimizer}, {rows}, {self.schedule}"

    @property
    def reached(self) -> float | None:
        """The loss that the choice reached, if there is one."""
        search = self.search
        return search.losses[search.rates.index(search.choice)] if search.choice is not None else None


@dataclass(frozen=True)
class Tuning:
    """What was tried.

    Attributes
    ----------
    settings
        What all have in common.
    tried
        The searches, in the order that was asked for.
    """

    settings: Settings
    tried: tuple[Tried, ...]

    @property
    def best(self) -> Tried | None:
        """The search whose choice reached the lowest loss; ``None`` where none has decided."""
        decided = [each for each in self.tried if each.reached is not None]
        return min(decided, key=lambda each: each.reached or 0.0) if decided else None

    @property
    def command(self) -> str | None:
        """The command that fits with the best of them."""
        best = self.best
        if best is None or best.search.choice is None:
            return None
        rate = float(f"{best.search.choice:.4g}")
        settings = replace(self.settings, optimizer=best.optimizer, batch_size=best.batch_size)
        return command(replace(settings, schedule=best.schedule, learning_rate=rate))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON's types; ``best`` counts from 0."""
        return {
            "steepest": steepest.__version__,
            "data": {"files": list(self.settings.data)},
            "target": {"name": self.settings.target},
            "tried": [
                asdict(each) | {"name": each.name, "reached": each.reached, "search": each.search.to_json()}
                for each in self.tried
            ],
            "best": self.tried.index(self.best) if self.best else None,
            "command": self.command,
        }


def tune(
    settings: Settings,
    data: Any = None,
    *,
    optimizers: Sequence[str] = (),
    batch_sizes: Sequence[int | str] = (),
    schedules: Sequence[str] = (),
    out: Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
    seen: Seen = lambda *_: None,
) -> Tuning:
    """Search for the learning rate with each combination of update rule, batch size and schedule.

    All start from the same parameters and see the same training rows.

    Parameters
    ----------
    settings
        Those of the fit that is planned; its learning rate is of no account.
    data
        See `steepest.training.fit`.
    optimizers, batch_sizes, schedules
        What to try; empty: that of the settings.
    out
        A folder to write ``tune.json`` and ``report.html`` to.
    overwrite
        Whether another such folder may be replaced.
    say, seen
        See `steepest.preparation.prepare`.

    Raises
    ------
    SteepestError
        If the settings or the data can't be used; then nothing is written.
    """
    settings = replace(settings, learning_rate=AUTO, from_=None, out=None)
    if settings.model not in MODELS:
        raise SteepestError(
            f"tune tries the rates of Steepest's own models, not of {settings.model}.",
            hint="Try --model linear or --model mlp.",
        )
    plans = [
        replace(settings, optimizer=optimizer, batch_size=batch_size, schedule=schedule)
        for optimizer in optimizers or [settings.optimizer]
        for batch_size in batch_sizes or [settings.batch_size]
        for schedule in schedules or [settings.schedule]
    ]
    for plan in plans:
        check(plan)
    if out is not None:
        check_free(out, FILE, overwrite)
    prepared = prepare(settings, data, say=say, seen=seen)
    training.announce(prepared, say)
    tried = []
    for plan in plans:
        epochs, began = training.epochs_of(plan, prepared), time.perf_counter()
        search = networks.search_rate(plan, prepared, epochs)
        seconds = time.perf_counter() - began
        tried.append(Tried(plan.optimizer, plan.batch_size, plan.schedule, epochs, seconds, search))
    found = Tuning(settings, tuple(tried))
    if out is not None:
        _write(found.to_json(), out, overwrite)
    return found


def _write(record: dict[str, Any], out: Path, overwrite: bool) -> None:
    from steepest.trials.pages import write_tuning

    with written_whole(out, FILE, overwrite) as work:
        write_json(work / FILE, record)
        write_tuning(work / "report.html", record)

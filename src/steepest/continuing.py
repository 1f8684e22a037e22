"""Going on from a complete run: what is taken over from it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from steepest.combining import read_settings
from steepest.errors import SteepestError
from steepest.passes import Known
from steepest.run import Run, open_model
from steepest.settings import NAMES, Settings
from steepest.unfinished import CHECKPOINTS, MAY_DIFFER

AT_THE_SAME_RATES = ("constant", "reduce_on_plateau")
"""Schedules whose rates do not depend on how many epochs there are to be."""


@dataclass(frozen=True)
class Earlier:
    """A complete run to go on from.

    Parameters
    ----------
    run
        The run.
    differs
        What else than the number of epochs is another; empty if nothing is. Then the descent goes on to the
        bytes that it would have had, were it longer from the start. Otherwise the parameters are where it
        starts, and the update rule begins anew.
    """

    run: Run
    differs: str

    @property
    def exact(self) -> bool:
        """Whether the descent goes on as if it had never ended."""
        return not self.differs

    @property
    def says(self) -> str:
        """How it goes on, for a person."""
        if self.exact:
            return f"Goes on from {self.run.name} after epoch {self.epochs:,}, as if it had not ended there."
        return f"Starts with the parameters of {self.run.name}, not where its descent ended: {self.differs}."

    def on(self, data: Mapping[str, Any]) -> Earlier:
        """Return how to go on with this data: the record's part about it."""
        same = data["fingerprints"] == self.run.record["data"].get("fingerprints")
        return self if self.differs or same else replace(self, differs="its data has changed")

    @property
    def known(self) -> Known:
        """What it has learned of the target and the columns."""
        return Known(self.run.task, self.run.plan)

    @property
    def epochs(self) -> int:
        """Epochs that count as taken already."""
        return len(self.run.epochs) if self.exact else 0

    def begin(self, work: Path) -> None:
        """Put the checkpoint to go on from where the new run's are."""
        if self.exact and not (work / CHECKPOINTS).exists():
            aside = work / f".{CHECKPOINTS}"
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(self.run.path / CHECKPOINTS, aside)
            aside.rename(work / CHECKPOINTS)


def earlier(settings: Settings, run: Run | None = None) -> Earlier | None:
    """Return the run that the settings go on from, if they name one.

    Parameters
    ----------
    settings
        Of the new run.
    run
        The run that they name, if it is open already.

    Raises
    ------
    SteepestError
        If there is no such run, or it has learned something else.
    """
    if settings.from_ is None:
        return None
    run = run or open_model(settings.from_)
    if run.plan.layout.sparse and not settings.wishes.sparse:
        raise SteepestError(
            f"The run {run.name} has sparse features, which neither fits on Spark have nor this model.",
            hint="Go on from it on this machine with the model that it has, or begin anew without --from.",
        )
    before = replace(Settings(), **read_settings(str(run.path / "settings.toml")))
    for name in ("target", "loss", "select", "lags"):
        was, now = getattr(before, name), getattr(settings, name)
        if was != now:
            raise SteepestError(
                f"The run {run.name} learned with the {name} {was or 'by default'}, and --{name} is {now}.",
                hint=f"Leave --{name} out to go on from it, or begin anew without --from.",
            )
    free = (*MAY_DIFFER, "epochs", "from_", "on")
    others = [name for name in NAMES if name not in free and getattr(before, name) != getattr(settings, name)]
    if others:
        return Earlier(run, f"another {', '.join(others)}".replace("_", "-"))
    if settings.schedule not in AT_THE_SAME_RATES:
        return Earlier(run, f"the schedule {settings.schedule} depends on the number of epochs")
    return Earlier(run, "" if (run.path / CHECKPOINTS).is_dir() else "it has no checkpoint")

"""Going on from a complete run: what is taken over from it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from steepest.passes import Known
from steepest.run import Run, open_run
from steepest.settings import NAMES, Settings, read_settings
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
    exact
        Whether nothing but the number of epochs is another: then the descent goes on to the bytes that it
        would have had, were it longer from the start. Otherwise the parameters are where it starts, and
        the update rule begins anew.
    """

    run: Run
    exact: bool

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


def earlier(settings: Settings) -> Earlier | None:
    """Return the run that the settings go on from, if they name one.

    Raises
    ------
    SteepestError
        If there is no such run.
    """
    if settings.from_ is None:
        return None
    run = open_run(settings.from_)
    before = replace(Settings(), **read_settings(str(run.path / "settings.toml")))
    free = (*MAY_DIFFER, "epochs", "from_")
    same = all(getattr(before, name) == getattr(settings, name) for name in NAMES if name not in free)
    exact = same and settings.schedule in AT_THE_SAME_RATES and (run.path / CHECKPOINTS).is_dir()
    return Earlier(run, exact)

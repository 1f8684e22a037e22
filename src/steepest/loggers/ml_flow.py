"""A log that MLflow keeps: a run there for each run, or descent, here."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steepest import __version__
from steepest.data.cache import key_of
from steepest.data.files import is_url
from steepest.loggers.logger import (
    Ending,
    Logged,
    Logger,
    is_interruption,
    kept,
    place_of,
    require,
    scores_of,
)

if TYPE_CHECKING:
    from steepest.descent.history import Figures
    from steepest.run import Run

EXPERIMENT = "steepest"

PARTS = ("report.html", "settings.toml", "findings.json")
"""What MLflow keeps of a run's folder."""

NO_METRICS = ("step", "rows")

SENT_EVERY = 1.0
"""Seconds between two messages to MLflow."""

MOST = 1000
"""Metrics of a message that MLflow takes."""

LONGEST = 500
"""Characters of a parameter that every version of MLflow takes."""

KEY, PLACE = "steepest.key", "steepest.run"
"""Tags: what a run that goes on is found by, and what a person calls it."""


class MLflow(Logger):
    """Logs a descent as a run of MLflow: settings as parameters, epochs as metrics.

    Each epoch's figures are metrics at its last step. They are sent once a second, and thinned: of the first
    1,024 epochs each is logged, up to 2,048 every second, up to 4,096 every fourth and so on. That of a fit
    also has its scores as metrics (``validation.auc``) and ``report.html``, ``settings.toml`` and
    ``findings.json`` as artifacts.

    It ends as FINISHED; as FAILED if the descent diverged or the fit failed; as KILLED if interrupted.
    A fit that goes on after that goes on in the same run of MLflow, if the store has it, and so does
    `steepest.minimize` with a checkpoint; else, as with ``--from``, a new one has all the epochs. Where a
    process is killed, what became known in its last second may be missing.

    Parameters
    ----------
    where
        A folder, in which ``mlflow.db`` (SQLite) and ``artifacts`` are then, or any tracking URI of MLflow;
        ``None`` is where MLflow is set up to log, by ``MLFLOW_TRACKING_URI`` for example.
    experiment
        Its name; ``None`` is ``MLFLOW_EXPERIMENT_NAME``, or else ``"steepest"``.

    Raises
    ------
    SteepestError
        If MLflow is not installed.
    """

    def __init__(self, where: str | Path | None = None, experiment: str | None = None) -> None:
        local = where is not None and not is_uri(str(where))
        require("mlflow", *(("alembic", "sqlalchemy") if local else ()), extra="mlflow")
        from mlflow.exceptions import MlflowException

        super().__init__("MLflow" if where is None else str(where), (OSError, MlflowException))
        self.folder = Path(where).absolute() if local else None  # type: ignore[arg-type]  # it is not None then
        self.uri = f"sqlite:///{self.folder}/mlflow.db" if local else where and str(where)
        self.experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        self._id = ""
        self._waiting: list[Any] = []
        self._sent = self._last_time = 0.0
        self._pending: Figures = {}

    def check(self) -> None:
        """Open the store."""
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
        with _quietly():
            self._experiment = self._open()

    def begin(self, most: int, rows: int, before: Sequence[Figures], step: int) -> Logged:  # noqa: ARG002
        """Create a run, or find the one that was interrupted."""
        self._waiting, self._pending, self._last_time = [], {}, 0
        place = place_of(self.settings)
        at = place if place is None or is_url(place) else str(Path(place).absolute())
        key = at and key_of({"place": at})
        self._id, logged = (self._found(key) if key and step else None) or ("", set())
        if not self._id:
            tags = {"steepest.version": __version__} | ({KEY: key, PLACE: place} if key and place else {})
            name = Path(place).name if place else None
            self._id = self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id
        self._client.update_run(self._id, status="RUNNING")
        self._send_settings({**self.settings, "most_epochs": most, "rows": rows})
        return logged

    def epoch(self, figures: Figures) -> None:
        """Send an epoch's figures, or let them wait for the next."""
        self._pending = figures
        if len(kept(int(figures["epoch"]), 1)):
            self._take()
        if time.monotonic() - self._sent > SENT_EVERY:
            self._send()

    def end(self, ending: Ending) -> None:
        """Send what is left, and why the descent stopped."""
        self._take()
        self._send()
        self._client.set_tag(self._id, "steepest.why_it_stopped", ending.why_it_stopped)
        if "run" not in self.settings:
            self._client.set_terminated(self._id, "FAILED" if ending.failure else "FINISHED")

    def complete(self, run: Run) -> None:
        """Send scores and artifacts."""
        for name, value in scores_of(run).items():
            self._client.log_metric(self._id, _allowed(name), value)
        for part in PARTS:
            self._client.log_artifact(self._id, str(run.path / part))
        failed = run.record["descent"]["failure"]
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")

    def failed(self, error: BaseException) -> None:
        """Send what is left, and why nothing follows."""
        self._take()
        self._send()
        self._client.set_tag(self._id, "steepest.why_it_stopped", str(error) or type(error).__name__)
        self._client.set_terminated(self._id, "KILLED" if is_interruption(error) else "FAILED")

    def _open(self) -> str:
        """Return the experiment."""
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(self.uri)
        known = self._client.get_experiment_by_name(self.experiment)
        if known:
            return str(known.experiment_id)
        location = (self.folder / "artifacts").as_uri() if self.folder else None
        return str(self._client.create_experiment(self.experiment, artifact_location=location))

    def _found(self, key: str) -> tuple[str, Logged] | None:
        """Return the run of this key that was interrupted last, and the epochs that it has."""
        found = self._client.search_runs(
            [self._experiment], f"tags.`{KEY}` = '{key}' and attributes.status != 'FINISHED'",
            order_by=["attributes.start_time DESC"], max_results=1,
        )  # fmt: skip
        if not found:
            return None
        run = found[0].info.run_id
        epochs = self._client.get_metric_history(run, "epoch")
        setbacks = {
            each.timestamp: int(each.value) for each in self._client.get_metric_history(run, "setbacks")
        }
        self._last_time = max((each.timestamp for each in epochs), default=0)
        return run, {(setbacks.get(each.timestamp, 0), int(each.value)) for each in epochs}

    def _send_settings(self, settings: Mapping[str, Any]) -> None:
        """Send the settings that MLflow does not have of this run: it lets none be changed."""
        from mlflow.entities import Param

        known = self._client.get_run(self._id).data.params
        params = {_allowed(name): str(value)[:LONGEST] for name, value in settings.items()}
        new = [Param(name, value) for name, value in params.items() if name not in known]
        self._client.log_batch(self._id, params=new)

    def _take(self) -> None:
        """Let the last epoch wait to be sent; each has a time of its own, by which it is known again."""
        from mlflow.entities import Metric

        figures, self._pending = self._pending, {}
        if not figures:
            return
        self._last_time = max(int(time.time() * 1000), self._last_time + 1)
        if self.setbacks:
            figures = {**figures, "setbacks": self.setbacks}
        self._waiting += [
            Metric(_allowed(name), float(value), self._last_time, int(figures["step"]))
            for name, value in figures.items()
            if name not in NO_METRICS
        ]

    def _send(self) -> None:
        while self._waiting:
            self._client.log_batch(self._id, metrics=self._waiting[:MOST])
            del self._waiting[:MOST]
        self._sent = time.monotonic()


def is_uri(where: str) -> bool:
    """Tell whether MLflow is to make of it what it will.

    Examples
    --------
    >>> is_uri("runs/mlflow"), is_uri("sqlite:///mlflow.db"), is_uri("databricks"), is_uri("file:mlruns")
    (False, True, True, True)
    """
    return where == "databricks" or re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:", where) is not None


def _allowed(name: str) -> str:
    """Return a name with the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /:]", "_", name, flags=re.ASCII)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep what MLflow says about making its tables from who fits."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)

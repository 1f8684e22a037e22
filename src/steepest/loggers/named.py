"""The loggers that ``--log`` names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steepest.errors import SteepestError
from steepest.loggers.logger import Logger

FORMS = "FILE.jsonl, tensorboard:FOLDER, mlflow:FOLDER or mlflow:URI"


def loggers_of(logs: Sequence[str]) -> list[Logger]:
    """Return a logger for each name.

    Parameters
    ----------
    logs
        ``FILE.jsonl``, ``tensorboard:FOLDER``, ``mlflow:FOLDER``, ``mlflow:URI``, or ``mlflow``, which logs
        where MLflow is set up to.

    Raises
    ------
    SteepestError
        If a name is none of these, or needs a package that is not installed.

    Examples
    --------
    >>> [logger.name for logger in loggers_of(["descent.jsonl"])]
    ['descent.jsonl']
    >>> loggers_of(["tensorbord:logs"])
    Traceback (most recent call last):
    steepest.errors.SteepestError: 'tensorbord:logs' is no log. A log is FILE.jsonl, tensorboard:FOLDER, ...
    """
    return [_logger_of(log) for log in logs]


def _logger_of(log: str) -> Logger:
    kind, colon, where = log.partition(":")
    if kind == "tensorboard" and where:
        from steepest.loggers.tensor_board import TensorBoard

        return TensorBoard(where)
    if kind == "mlflow" and bool(colon) == bool(where):
        from steepest.loggers.ml_flow import MLflow

        return MLflow(where or None)
    if Path(log).suffix == ".jsonl":
        from steepest.loggers.json_lines import JsonLines

        return JsonLines(log)
    raise SteepestError(f"{log!r} is no log.", hint=f"A log is {FORMS}.")

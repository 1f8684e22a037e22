"""Front end: `steepest.fit`, the command line's ``steepest fit`` for data of any kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from steepest import training
from steepest.callbacks import Callback
from steepest.combining import checked, combine
from steepest.data.rows import MEMORY
from steepest.errors import SteepestError
from steepest.loggers.named import loggers_of
from steepest.run import Run
from steepest.settings import HERE, Settings


def fit(
    data: Any,
    target: str,
    *,
    callbacks: Sequence[Callback] = (),
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
    **settings: Any,
) -> Run:
    """Train on data of any size and write a run's folder; go on where the same run was interrupted.

    Parameters
    ----------
    data
        Names of files, a DataFrame, a table, a stream, arrays, or a `steepest.RowSource`: whatever
        `steepest.open_source` takes. Names of files stand in the run's settings, so that ``steepest resume``
        and ``steepest verify`` find the rows again; for other data call `fit` again with it.
    target
        The column to predict.
    callbacks
        See `steepest.Callback`.
    overwrite
        Whether a run of the same name, complete or interrupted, may be replaced.
    say
        Is told, in a sentence each, what a reader would want to know on the way, such as `print`.
    **settings
        The options of ``steepest fit`` by name: ``model="mlp"``, ``epochs=5``, ``out="runs/flights"``. See
        `steepest.settings.Settings`.

    Returns
    -------
    Run
        What was written: the model, its history, the record and the report.

    Raises
    ------
    SteepestError
        If a setting or the data can't be used, or the descent fails; then no run is written.

    Examples
    --------
    >>> import tempfile, steepest
    >>> distance = [float(miles) for miles in range(100, 3100, 10)]
    >>> flights = {"distance": distance, "minutes": [20 + miles / 8 for miles in distance]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = steepest.fit(flights, "minutes", epochs=200, learning_rate=0.1, out=f"{folder}/run")
    ...     round(run.record["figures"]["validation"]["scores"]["r2"], 3)
    1.0
    """
    names = _names(data)
    given = checked(settings, "steepest.fit sets")
    wanted = combine(None, {**given, "data": names or MEMORY, "target": target})
    return carry_out(wanted, None if names else data, callbacks=callbacks, say=say, overwrite=overwrite)


def carry_out(
    settings: Settings,
    data: Any = None,
    *,
    callbacks: Sequence[Callback] = (),
    say: Callable[[str], None] = lambda _: None,
    overwrite: bool = False,
) -> Run:
    """Fit where the settings say: in this process, or on Spark.

    The parameters are those of `steepest.training.fit`.

    Raises
    ------
    SteepestError
        As that does, or if Spark can't be used.
    """
    if settings.on == HERE:
        everyone = [*callbacks, *loggers_of(settings.log)]
        return training.fit(settings, data, callbacks=everyone, say=say, overwrite=overwrite)
    if data is not None:
        raise SteepestError(
            "Workers on Spark can't reach rows that are in this process's memory.",
            hint="Name files, or fit a Spark DataFrame by steepest.spark.fit(model, frame, target, ...).",
        )
    from steepest.spark.fitting import fit_files
    from steepest.spark.sessions import session_for

    with session_for(settings) as session:
        return fit_files(session, settings, callbacks=callbacks, say=say, overwrite=overwrite)


def _names(data: Any) -> tuple[str, ...] | None:
    """Return the names of files that the data is, or None."""
    names = [data] if isinstance(data, (str, os.PathLike)) else data
    if not isinstance(names, (list, tuple)) or not all(
        isinstance(each, (str, os.PathLike)) for each in names
    ):
        return None
    return tuple(os.fspath(each) for each in names)

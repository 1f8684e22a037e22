"""Front end: `steepest.spark.fit`, what `steepest.fit` is, for the rows of a Spark DataFrame."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as sql

from steepest.combining import checked, combine
from steepest.data.rows import SPARK
from steepest.errors import SteepestError
from steepest.settings import ON_SPARK, Settings
from steepest.spark.fitting import fit_frame
from steepest.spark.frames import (
    FOLDS,
    require_columns,
    require_frame,
    require_learnable,
    vectors_of,
    with_arrays,
)

NOT_HERE = ("data", "on", "master")
"""Settings whose place the frame and its session take."""


def fit(
    model: Any,
    frame: DataFrame,
    target: str,
    *,
    workers: int,
    shared: str | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
    **settings: Any,
) -> Any:
    """Train on the rows of a DataFrame, on its cluster.

    A fit that was interrupted goes on when it is called again with the same frame and settings.

    Parameters
    ----------
    model
        ``"linear"``, ``"mlp"``, or ``"module:function"``, which builds a Keras model of a table; or any
        compiled Keras model, which then has the weights and the optimizer's state that `steepest.keras.fit`
        would give it, to rounding.
    frame
        The rows, with any columns that `steepest.fit` takes; an element of a column of Spark ML's vectors is
        a column of its own.
    target
        The column to predict.
    workers
        How many tasks descend together, all at the same time: at most one for each free core.
    shared
        A folder that all workers and the driver reach, for checkpoints; ``None`` is one in the user's home on
        the cluster's file system, and with a ``local`` master one on this machine.
    overwrite
        Whether a run of the same name, complete or interrupted, may be replaced.
    say
        Is told, in a sentence each, what a reader would want to know on the way, such as `print`.
    **settings
        The options of ``steepest fit`` by name: ``epochs=5``, ``out="hdfs://namenode:9000/runs/flights"``.
        See `steepest.settings.Settings`. A Keras model takes ``epochs`` (1), ``batch_size`` (32), ``seed``,
        ``weights`` or ``class_weight`` (also as Keras has it, ``{0: 1.0, 1: 5.0}``), ``drop``,
        ``validation`` (a share: the last rows; by default none), ``validation_column``, ``patience`` and
        ``monitor``.

    Returns
    -------
    Run or keras.callbacks.History
        The run, written to its folder, is the same as on one machine; its record has ``workers`` as well:
        what each had to do. Of a Keras model it is the history that `steepest.keras.fit` returns, and no run
        is written.

    Raises
    ------
    SteepestError
        If a setting, the frame or the cluster can't be used, or the descent fails.
    """
    network = _is_network(model)
    if not isinstance(model, str) and not network:
        raise SteepestError(
            f"On Spark there is no {type(model).__module__.partition('.')[0]} {type(model).__name__}.",
            hint="Name a model, 'linear', 'mlp' or 'module:function', or give a compiled Keras model.",
        )
    require_frame(frame)
    by_class = settings.get("class_weight")
    if network and isinstance(by_class, dict):
        settings["class_weight"] = ",".join(f"{label}={weight}" for label, weight in by_class.items())
    given = checked(settings, "steepest.spark.fit sets")
    for name in NOT_HERE:
        if name in given:
            raise SteepestError(
                f"steepest.spark.fit takes no {name!r}: the frame says it.", hint="Leave it out."
            )
    place = {"on": ON_SPARK, "workers": workers, "shared": shared}
    if network:
        from steepest.spark.networks import fit_network

        run = {"overwrite": overwrite} if overwrite else {}  # there is no run
        return fit_network(model, frame, target, {**given, **run, "workers": workers, "shared": shared}, say)
    wanted = combine(None, {**given, **place, "data": SPARK, "target": target, "model": model})
    chosen, vectors = _columns(frame, wanted)
    return fit_frame(chosen, wanted, vectors=vectors, say=say, overwrite=overwrite)


def _is_network(model: object) -> bool:
    """Tell whether this is a Keras model, without importing Keras for what is none."""
    keras: Any = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)


def _columns(frame: DataFrame, settings: Settings) -> tuple[DataFrame, dict[str, tuple[str, ...]]]:
    """Return the frame that workers get, and which of its columns were vectors.

    Columns that are dropped keep their name and nothing else, so that the record tells of them.
    """
    named = ("target", "weights", "split_by", "validation_column")
    roles = {name: getattr(settings, name) for name in named}
    require_columns(frame, {**roles, **{f"drop[{place}]": name for place, name in enumerate(settings.drop)}})
    others = [name for name in roles.values() if name is not None]
    dropped = [*settings.drop]
    features = [
        name for name in frame.columns if name not in (*others, *dropped) and not FOLDS.fullmatch(name)
    ]
    for name in features:
        require_learnable(frame, name, f"Turn it into a number first, or leave it out: drop=[{name!r}].")
    vectors = vectors_of(frame, features, [*others, *dropped])
    kept = [name for name in frame.columns if name in (*features, *others)]
    arrays = dict(zip(kept, with_arrays(frame, kept), strict=True))
    nothing = sql.lit(None).cast("boolean")
    chosen = [arrays.get(name, nothing.alias(name)) for name in frame.columns if name in (*kept, *dropped)]
    return frame.select(chosen), vectors

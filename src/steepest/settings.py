"""The settings of a run: one frozen record, written to and read from TOML."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from steepest.data.wishes import Wishes
from steepest.errors import SteepestError, nearest

AUTO = "auto"
"""The learning rate that is found before the descent."""

HERE, ON_SPARK = "here", "spark"
"""Where a fit runs: in this process, or as tasks of Spark."""

LAST = "last:"
"""What ``validation`` begins with where the last rows are held out."""

OF_SPARK = ("workers", "master", "shared", "stalled")
"""Settings that say how a fit on Spark is carried out; the run is the same without them."""

ONLY_SPARK = (*OF_SPARK, "local_steps")
"""Settings that are of no use elsewhere."""


@dataclass(frozen=True)
class Settings:
    """Everything that a fit needs to run again; the command line's options by the same names.

    Parameters
    ----------
    data
        Files or globs; together one table.
    target
        The column to predict.
    model
        ``"linear"``, ``"mlp"``, or ``"package.module:build"``, a function that returns a Keras model: see
        `steepest.keras.tables`.
    hidden
        Units of each hidden layer of the multilayer model.
    activation, dropout
        Of the hidden layers.
    embedding
        Numbers that stand for each sparse feature ahead of the hidden layers.
    loss
        A name; ``None`` lets the target's type decide.
    optimizer, clip_norm
        A name of `steepest.descent.optimizers.OPTIMIZERS`, and the norm of the largest gradient; ``None``
        does not clip.
    learning_rate
        The highest rate of the schedule; ``"auto"`` finds it before the descent, see
        `steepest.find_learning_rate`.
    schedule
        A name of `steepest.descent.schedules.SCHEDULES`.
    batch_size
        Rows of a step, or ``"all"``.
    epochs
        The most epochs; ``None`` is 10, or as many as 5,000 steps take, but at most 500.
    tolerance
        See `steepest.minimize`.
    l1, l2
        Penalties on the weights (never on the biases).
    validation
        The share of the rows to hold out, ``"last:SHARE"`` for the last of them, a file with such rows, or 0
        to hold none out. With lags a share is of the last rows, too.
    validation_column
        A column that says, true or false, which rows are held out; ``validation`` is of no use then.
    split_by
        A column whose values are held out whole.
    weights
        A column of row weights.
    class_weight
        ``"balanced"``, or ``"label=weight,label=weight"``.
    drop
        Columns to leave out; one that has lags is left out but for these.
    lags
        Column -> how many rows before: its values there are further columns. See `steepest.data.lags`.
    select
        How many columns to learn from at most, or ``"auto"``: see `steepest.selection`; ``None`` takes all.
    kinds
        Column -> its kind, where it is not the one that the rows decide: see `steepest.data.wishes.Wishes`.
    cross
        Columns of which each combination of values becomes a feature.
    hash_bits
        Hashed values have 2^hash_bits places.
    minimum_count
        In how many rows a value or a word occurs at least to have a feature of its own; ``None`` leaves it to
        the number of rows.
    max_rejected
        The greatest share of rows that may be unusable, such as lines with too many fields.
    patience
        Epochs running without a better ``monitor`` after which the descent stops, with the best epoch's
        parameters; ``None`` never stops it so.
    monitor
        The figure of an epoch that patience looks at: see `steepest.minimize`.
    curvature
        Whether the loss's curvature is measured after epochs: see `steepest.minimize`.
    on_divergence
        ``"stop"`` or ``"back-off"``: see `steepest.minimize`.
    local_steps
        On Spark, the steps that each worker takes on its own rows before all of them average where they
        stand; 1 adds up the gradients of each step, which is what one machine does.
    memory
        What the process may use, such as ``"4GB"``; ``None`` is a quarter of what is free.
    checkpoint_every
        Seconds between two checkpoints.
    log
        Where the descent is logged: see `steepest.loggers.named`.
    from_
        A complete run to go on from; what is not given otherwise is as it was there.
    seed
        Decides every random draw.
    out
        The run's folder; ``None`` names it after the data.
    on
        ``"here"``, or ``"spark"``.
    workers
        On Spark: how many tasks descend together.
    master
        On Spark: the cluster's address; ``None`` is what Spark is set to.
    shared
        On Spark: a folder that all workers and the driver reach; ``None`` chooses one.
    stalled
        On Spark: seconds without progress after which a worker is taken for stuck.
    """

    data: tuple[str, ...] = ()
    target: str = ""
    model: str = "linear"
    hidden: tuple[int, ...] = (64, 32)
    activation: str = "relu"
    dropout: float = 0.0
    embedding: int = 8
    loss: str | None = None
    optimizer: str = "adam"
    learning_rate: float | str = AUTO
    clip_norm: float | None = None
    schedule: str = "constant"
    batch_size: int | str = 32
    epochs: int | None = None
    tolerance: float = 1e-6
    l1: float = 0.0
    l2: float = 0.0
    validation: float | str = 0.2
    validation_column: str | None = None
    split_by: str | None = None
    weights: str | None = None
    class_weight: str | None = None
    drop: tuple[str, ...] = ()
    lags: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    select: int | str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    cross: tuple[tuple[str, ...], ...] = ()
    hash_bits: int = 20
    minimum_count: int | None = None
    max_rejected: float = 0.01
    patience: int | None = None
    monitor: str = "validation_loss"
    curvature: bool = False
    on_divergence: str = "stop"
    local_steps: int = 1
    memory: str | None = None
    checkpoint_every: float = 60.0
    log: tuple[str, ...] = ()
    from_: str | None = None
    seed: int = 0
    out: str | None = None
    on: str = HERE
    workers: int | None = None
    master: str | None = None
    shared: str | None = None
    stalled: float = 600.0

    @property
    def holds_out(self) -> bool:
        """Whether some rows are held out to judge by."""
        return bool(self.validation_column or self.validation_file or self.share)

    @property
    def in_order(self) -> bool:
        """Whether the order of the rows is that of time: what is held out comes last."""
        return bool(self.lags) or str(self.validation).startswith(LAST)

    @property
    def share(self) -> float:
        """The share of the rows to hold out; 0 where a file of such rows is named.

        Raises
        ------
        SteepestError
            If what stands after ``last:`` is no number.

        Examples
        --------
        >>> [Settings(validation=each).share for each in (0.3, "last:0.1", "held-out.csv")]
        [0.3, 0.1, 0.0]
        """
        if not isinstance(self.validation, str):
            return self.validation
        if not self.validation.startswith(LAST):
            return 0.0
        try:
            return float(self.validation.removeprefix(LAST))
        except ValueError:
            raise SteepestError(
                f"--validation {self.validation} names no share of the rows.",
                hint="Try --validation last:0.2.",
            ) from None

    @property
    def validation_file(self) -> str | None:
        """The file of rows to judge by, if one is named."""
        is_file = isinstance(self.validation, str) and not self.validation.startswith(LAST)
        return str(self.validation) if is_file else None

    @property
    def wishes(self) -> Wishes:
        """What is wanted of columns; not every Keras model has sparse features, and no fit on Spark.

        Raises
        ------
        SteepestError
            If that can't be had of any table.
        """
        here, is_keras = self.on == HERE, ":" in self.model
        # Keras is imported for its own models only.
        asks = not is_keras or import_module("steepest.keras.building").takes_sparse(self.model)
        if is_keras and asks and not here:
            raise SteepestError(
                f"{self.model} asks for sparse features, which fits on Spark don't have.",
                hint="Fit on this machine, or write it as build(columns), for the dense ones alone.",
            )
        if not (here and asks) and (self.kinds or self.cross):
            who = self.model if here else "A fit on Spark"
            raise SteepestError(
                f"{who} takes no sparse features, so that columns have no --kind and no --cross.",
                hint="Leave these out; or fit on this machine, a Keras model by build(columns, sparse).",
            )
        return Wishes(self.kinds, self.cross, self.hash_bits, self.minimum_count, here and asks)


NAMES = tuple(each.name for each in fields(Settings))

KINDS: dict[str, tuple[type, ...]] = {
    "data": (list, tuple),
    "hidden": (list, tuple),
    "drop": (list, tuple),
    "log": (list, tuple),
    "cross": (list, tuple),
    "kinds": (dict,),
    "lags": (dict,),
    "target": (str,),
    "model": (str,),
    "activation": (str,),
    "loss": (str,),
    "optimizer": (str,),
    "schedule": (str,),
    "split_by": (str,),
    "validation_column": (str,),
    "weights": (str,),
    "class_weight": (str,),
    "monitor": (str,),
    "curvature": (bool,),
    "on_divergence": (str,),
    "from_": (str,),
    "memory": (str,),
    "out": (str,),
    "on": (str,),
    "master": (str,),
    "shared": (str,),
    "batch_size": (int, str),
    "validation": (int, float, str),
    "select": (int, str),
    "epochs": (int,),
    "patience": (int,),
    "local_steps": (int,),
    "workers": (int,),
    "seed": (int,),
    "embedding": (int,),
    "hash_bits": (int,),
    "minimum_count": (int,),
    "dropout": (int, float),
    "learning_rate": (int, float, str),
    "clip_norm": (int, float),
    "tolerance": (int, float),
    "l1": (int, float),
    "l2": (int, float),
    "max_rejected": (int, float),
    "checkpoint_every": (int, float),
    "stalled": (int, float),
}
"""What each setting may be in a settings file."""

CALLED = {
    list: "a list",
    dict: "a table of names",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def to_toml(settings: Settings) -> str:
    """Return the settings as TOML; those that are ``None`` are left out.

    Examples
    --------
    >>> "batch_size = 32" in to_toml(Settings(data=("a.csv",), target="y"))
    True
    """
    import tomli_w

    return tomli_w.dumps({name: value for name, value in asdict(settings).items() if value not in (None, {})})


def settings_to_json(settings: Settings) -> dict[str, Any]:
    """Return settings as plain JSON."""
    return asdict(settings)


def settings_from_json(stored: Mapping[str, Any]) -> Settings:
    """Return the settings that `settings_to_json` wrote."""
    return replace(Settings(), **_with_tuples(stored))


def read_settings(path: str) -> dict[str, Any]:
    """Return what a settings file sets.

    Raises
    ------
    SteepestError
        If the file is missing, is no TOML, or sets something that there is not.
    """
    try:
        found = tomllib.loads(_text_of(path))
    except FileNotFoundError:
        raise SteepestError(
            f"There is no settings file {path}.", hint="Every run has one, as settings.toml."
        ) from None
    except IsADirectoryError:
        raise SteepestError(
            f"{path} is a folder.", hint=f"Did you mean {Path(path) / 'settings.toml'}?"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SteepestError(f"The settings file {path} is not valid TOML: {error}.") from None
    return checked(found, f"The settings file {path} sets")


def _text_of(path: str) -> str:
    from steepest.data.files import is_url

    if not is_url(path):
        return Path(path).read_text("utf-8")
    from steepest.storage import storage_of

    storage, name = storage_of(path)
    with tempfile.TemporaryDirectory() as folder:
        storage.get(name, Path(folder, name))
        return Path(folder, name).read_text("utf-8")


def checked(found: dict[str, Any], who: str) -> dict[str, Any]:
    """Return settings by name, lists as tuples, if there are such settings and they may be that.

    Parameters
    ----------
    found
        Name -> value.
    who
        What sets them, for messages: ``steepest.fit sets``.

    Raises
    ------
    SteepestError
        If there is no such setting, or it takes something else.
    """
    for name, value in found.items():
        if name not in NAMES:
            raise SteepestError(f"{who} {name!r}, which there is not.", hint=nearest(name, NAMES))
        if not isinstance(value, KINDS[name]) or isinstance(value, bool) != (KINDS[name] == (bool,)):
            takes = " or ".join(CALLED[kind] for kind in KINDS[name] if kind in CALLED)
            raise SteepestError(f"{who} {name} = {value!r}, but it takes {takes}.")
        items: tuple[Any, ...] = tuple(value) if isinstance(value, (list, tuple)) else ()
        if name in ("cross", "lags"):
            lists = tuple(found["lags"].values()) if name == "lags" else items
            if any(not isinstance(each, (list, tuple)) for each in lists):
                of = "columns" if name == "cross" else "numbers of rows"
                raise SteepestError(f"{who} {name} = {value!r}, but each of these is a list of {of}.")
            items = tuple(part for each in lists for part in each)
        elif name == "kinds":
            items = tuple(part for pair in found["kinds"].items() for part in pair)
        wanted = int if name in ("hidden", "lags") else str
        if any(not isinstance(item, wanted) or isinstance(item, bool) for item in items):
            raise SteepestError(f"{who} {name} = {value!r}, but each of these is {CALLED[wanted]}.")
    return _with_tuples(found)


def _with_tuples(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with lists, also those within lists and tables, as tuples."""
    return {name: _as_tuple(value) for name, value in found.items()}


def _as_tuple(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_tuple(each) for name, each in value.items()}
    return tuple(map(_as_tuple, value)) if isinstance(value, (list, tuple)) else value


def combine(path: str | None, given: dict[str, Any]) -> Settings:
    """Return the settings of a file, if there is one, overridden by those that were given.

    Raises
    ------
    SteepestError
        If the file is wrong, or if neither names data and a target.
    """
    named = (read_settings(path) if path else {}) | given
    if "from_" in named:
        before = read_settings(f"{named['from_'].rstrip('/')}/settings.toml")
        named = {name: value for name, value in before.items() if name not in ("from_", "out")} | named
    if given.get("on") == HERE:
        named = {name: value for name, value in named.items() if name in given or name not in ONLY_SPARK}
    settings = replace(Settings(), **named)
    _check_place(settings)
    if ":" not in settings.model or settings.kinds or settings.cross or settings.on == ON_SPARK:
        _ = settings.wishes  # which raises where they can't be had; of Keras models it imports the builder
    if not settings.data:
        raise SteepestError(
            "No data was named.", hint="Name one or more files: steepest fit DATA --target COLUMN."
        )
    if not settings.target:
        raise SteepestError("No target was named.", hint="Name the column to predict: --target COLUMN.")
    return settings


def _check_place(settings: Settings) -> None:
    """Refuse settings that have no meaning where the fit is to run."""
    if settings.on not in (HERE, ON_SPARK):
        raise SteepestError(
            f"A fit runs here or on spark, not on {settings.on!r}.",
            hint=nearest(settings.on, (HERE, ON_SPARK)),
        )
    without = Settings()
    for name in ONLY_SPARK if settings.on == HERE else ():
        if getattr(settings, name) != getattr(without, name):
            raise SteepestError(
                f"--{name.replace('_', '-')} is for a fit on Spark.", hint=f"Add --on {ON_SPARK}."
            )
    if settings.on == ON_SPARK and settings.in_order:
        raise SteepestError(
            "A fit on Spark knows no order of rows: there are no lags, and the last rows can't be held out.",
            hint="Fit on this machine, which reads a table of any size.",
        )
    if settings.on == ON_SPARK and settings.workers is None:
        raise SteepestError(
            "A fit on Spark needs to know how many workers are to take part.",
            hint="Say so: --workers 8; one for each free core is the most that helps.",
        )
    if not settings.stalled > 0:
        raise SteepestError(f"--stalled is a number of seconds above 0, not {settings.stalled:g}.")

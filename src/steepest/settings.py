"""The settings of a run: one frozen record, written to and read from TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import import_module
from typing import Any

from steepest.data.wishes import Wishes
from steepest.errors import SteepestError

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
    def asks_for_sparse(self) -> bool:
        """Whether the model takes sparse features, as all do but Keras models built of dense ones."""
        # Keras is imported for its own models only.
        return ":" not in self.model or import_module("steepest.keras.building").takes_sparse(self.model)

    @property
    def wishes(self) -> Wishes:
        """What is wanted of columns; on Spark there are no sparse features."""
        sparse = self.on == HERE and self.asks_for_sparse
        return Wishes(self.kinds, self.cross, self.hash_bits, self.minimum_count, sparse)


NAMES = tuple(each.name for each in fields(Settings))


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
    return replace(Settings(), **with_tuples(stored))


def with_tuples(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with lists, also those within lists and tables, as tuples."""
    return {name: _as_tuple(value) for name, value in found.items()}


def _as_tuple(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_tuple(each) for name, each in value.items()}
    return tuple(map(_as_tuple, value)) if isinstance(value, (list, tuple)) else value

"""A Keras model on Spark: what is checked and shipped, and what comes back into the user's own model."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.utils.rng_utils import get_random_seed
from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sql
from pyspark.sql.types import ArrayType, BooleanType, DataType, IntegralType, NumericType

from steepest.checking import check as check_settings
from steepest.combining import combine
from steepest.data.cache import key_of
from steepest.data.rows import SPARK
from steepest.errors import SteepestError
from steepest.keras.columns import Columns, Input
from steepest.keras.fitting import check
from steepest.keras.resume import FILE, Backup
from steepest.keras.rows import rows_of
from steepest.keras.shipping import pack
from steepest.keras.stored import gist
from steepest.keras.working import NETWORK
from steepest.settings import ON_SPARK, Settings, settings_to_json
from steepest.spark.attempts import attempted
from steepest.spark.checks import require_slots, require_spark
from steepest.spark.fitting import goes_on, stage_over, storage_for
from steepest.spark.frames import FOLDS, column, is_vector, require_columns, type_name
from steepest.spark.stage import Task, versions
from steepest.spark.telling import Listener
from steepest.storage import Storage
from steepest.worker import RUN

PLACE = ("workers", "shared", "stalled", "checkpoint_every")
"""Settings that do not change what a fit ends with."""

ASKED = (
    *("epochs", "batch_size", "seed", "weights", "class_weight", "drop", "validation", "validation_column"),
    "patience",
)
"""Settings that do."""

TAKEN = (*ASKED, "monitor", *PLACE)
"""All settings that a fit of a Keras model takes."""

CAST = "Cast it to a number, or leave it out: drop=[{!r}]. 'linear' and 'mlp' take any column."


def fit_network(
    model: keras.Model, frame: DataFrame, target: str, given: dict[str, Any], say: Callable[[str], None]
) -> keras.callbacks.History:
    """Train a compiled Keras model on a frame's rows; see `steepest.spark.fit`.

    Parameters
    ----------
    model
        Gets the weights, the optimizer's variables and the history of the fit.
    frame
        The rows.
    target
        The column to predict.
    given
        Settings by name.
    say
        Is told what a reader would want to know on the way.

    Returns
    -------
    keras.callbacks.History
        As `steepest.keras.fit` returns it.
    """
    for name in given:
        if name not in TAKEN:
            raise SteepestError(
                f"A fit of a Keras model takes no {name!r}.",
                hint=f"It takes {', '.join(TAKEN)}; the model itself says the rest, as it was compiled.",
            )
    settings = _settings(given, target)
    check(model)
    chosen, columns = _columns(model, frame, settings)
    _build(model, columns, chosen, settings)
    session = frame.sparkSession
    require_spark(session)
    require_slots(session, settings.workers or 0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, NETWORK)
        folder.mkdir()
        modules, made_of = pack(model, folder)
        decides = {name: getattr(settings, name) for name in (*ASKED, "monitor", "workers", "target")}
        key = key_of({"model": made_of, "columns": columns.to_json(), "settings": decides})
        storage = storage_for(session, settings, key)
        storage.require_writable()
        storage.put(folder, NETWORK, replace=True)
        asked = {"modules": modules, "columns": columns.to_json()}
        _attempted(chosen, settings, storage, asked, say)
        result = Backup(Path(place, "result"), None, keeps_previous=False, deletes=False)
        result.folder.mkdir()
        storage.get(f"{RUN}/{FILE}", result.folder / FILE)
        history = _taken_over(model, result)
    storage.remove("")
    return history


def _settings(given: dict[str, Any], target: str) -> Settings:
    """Return the settings, of which those that were not given are Keras' own."""
    seed = next(each for each in (get_random_seed(), 0) if each is not None)
    own = {"epochs": 1, "validation": 0.0, "seed": seed}
    settings = combine(None, {**own, **given, "data": SPARK, "target": target, "on": ON_SPARK})
    check_settings(settings)
    if settings.weights is not None and settings.class_weight is not None:
        raise SteepestError(
            "weights and class_weight are both set, and Keras takes one of them.",
            hint="Multiply them into one column of weights.",
        )
    share = settings.validation
    if settings.validation_column is None and (isinstance(share, str) or not 0 <= share < 1):
        raise SteepestError(
            f"validation is {share!r}; of a frame it is a share of the rows, below 1.",
            hint="Name a column that says which rows are held out: validation_column=...",
        )
    return settings


def _attempted(
    frame: DataFrame, settings: Settings, storage: Storage, asked: dict[str, Any], say: Callable[[str], None]
) -> None:
    """Run the attempts at a fit; what was reached is kept if none ends well."""
    workers = settings.workers or 1
    schema = frame.limit(0).toArrow().schema
    same = versions(keras=True)
    task = Task(settings_to_json(settings), storage.url, 0, settings.stalled, same, keras=asked)
    stage = stage_over(frame, {}, schema, workers)
    try:
        attempted(frame.sparkSession, storage, task, stage, workers, Listener((), say))
    except BaseException:
        goes_on(storage)
        raise


def _taken_over(model: keras.Model, result: Backup) -> keras.callbacks.History:
    """Give the model what the fit ended with; return its history."""
    history = keras.callbacks.History()
    history.set_model(model)
    restored = result.restore(model, [history])
    assert restored is not None  # noqa: S101 - the file is there
    history.steps = restored[1].table()
    model.history = history
    return history


def _columns(model: keras.Model, frame: DataFrame, settings: Settings) -> tuple[DataFrame, Columns]:
    """Return the columns that the workers get, as numbers, and what each is."""
    roles = {name: getattr(settings, name) for name in ("target", "weights", "validation_column")}
    require_columns(frame, {**roles, **{f"drop[{place}]": name for place, name in enumerate(settings.drop)}})
    others = {name for name in (*roles.values(), *settings.drop) if name is not None}
    features = [name for name in frame.columns if name not in others and not FOLDS.fullmatch(name)]
    types = dict.fromkeys(features, "float") | {settings.target: _target_type(frame, settings.target)}
    if settings.weights is not None:
        types[settings.weights] = "float"
    chosen = [_numbers(frame, name, kind).alias(name) for name, kind in types.items()]
    if settings.validation_column is not None:
        chosen.append(_said(frame, settings.validation_column))
    rows = frame.select(chosen)
    arrays = [field.name for field in rows.schema if isinstance(field.dataType, ArrayType)]
    widths = {name: _width(rows, name) for name in arrays}
    inputs = _inputs(model, features, widths)
    return rows, Columns(inputs, widths, settings.target, settings.weights, settings.validation_column)


def _target_type(frame: DataFrame, name: str) -> str:
    """Return the type of a target: whole numbers stay what they are, because they may be classes."""
    kind: DataType = frame.schema[name].dataType
    whole = isinstance(kind.elementType if isinstance(kind, ArrayType) else kind, (IntegralType, BooleanType))
    return "int" if whole else "float"


def _numbers(frame: DataFrame, name: str, to: str) -> Column:
    """Return a column as numbers, or as arrays of numbers."""
    kind: DataType = frame.schema[name].dataType
    if is_vector(frame, name):
        # vector_to_array fails where there is no vector, without saying in which column.
        return sql.when(column(name).isNotNull(), vector_to_array(column(name))).cast(f"array<{to}>")
    if isinstance(kind, (NumericType, BooleanType)):
        return column(name).cast(to)
    if isinstance(kind, ArrayType) and isinstance(kind.elementType, (NumericType, BooleanType)):
        return column(name).cast(f"array<{to}>")
    raise SteepestError(
        f"The column {name!r} holds {type_name(frame, name)} values, and a Keras model takes numbers.",
        hint=CAST.format(name),
    )


def _said(frame: DataFrame, name: str) -> Column:
    if not isinstance(frame.schema[name].dataType, BooleanType):
        raise SteepestError(
            f"The column {name!r} holds {type_name(frame, name)} values, and says which rows are held out.",
            hint="Give it true or false.",
        )
    return column(name)


def _width(rows: DataFrame, name: str) -> int:
    """Return how many elements the first array of a column has."""
    first = rows.where(column(name).isNotNull()).select(sql.size(column(name))).first()
    if first is None:
        raise SteepestError(f"No row has an array in the column {name!r}.")
    return int(first[0])


def _inputs(model: keras.Model, features: list[str], widths: dict[str, int]) -> tuple[Input, ...]:
    """Return what each input of the model takes: all columns of the only one, else the column of its name."""
    known = list(getattr(model, "inputs", None) or ())
    if not features:
        raise SteepestError("There is no column to learn from.")
    if len(known) < 2:
        count = sum(widths.get(name, 1) for name in features)
        shape = tuple(known[0].shape[1:]) if known else (count,)
        return (_input("", tuple(features), count, shape),)
    names = _names(model)
    for name in features:
        if name not in names:
            raise SteepestError(
                f"No input of the model is called {name!r}; they are {', '.join(map(repr, names))}.",
                hint=f"Leave the column out, drop=[{name!r}], or give it the name of an input.",
            )
    for name in names:
        if name not in features:
            raise SteepestError(f"The frame has no column for the model's input {name!r}.")
    return tuple(
        _input(name, (name,), widths.get(name, 1), tuple(tensor.shape[1:]))
        for name, tensor in zip(names, known, strict=True)
    )


def _names(model: keras.Model) -> list[str]:
    """Return what each input is called where several are given by name."""
    structure = getattr(model, "_inputs_struct", None)
    return sorted(structure) if isinstance(structure, dict) else [each.name for each in model.inputs]


def _input(name: str, columns: tuple[str, ...], count: int, shape: tuple[int | None, ...]) -> Input:
    """Return an input, whose open axis, if it has one, takes what there is."""
    if shape.count(None) == 1:
        rest = math.prod(size for size in shape if size is not None)
        shape = tuple(count // max(1, rest) if size is None else size for size in shape)
    sizes = tuple(size for size in shape if size is not None)
    if len(sizes) < len(shape) or math.prod(sizes) != count:
        shown = ", ".join(map(repr, columns[:5])) + (", ..." if len(columns) > 5 else "")
        called = f"input {name!r}" if name else "input"
        raise SteepestError(
            f"The model's {called} takes {' x '.join(map(str, shape))} numbers a row, and there are "
            f"{count:,} in {shown}.",
            hint="Leave columns out (drop=[...]), or build the model for as many.",
        )
    return Input(name, columns, sizes)


def _build(model: keras.Model, columns: Columns, rows: DataFrame, settings: Settings) -> None:
    """Let Keras make the variables, and say what of the columns does not go with the model."""
    if rows.isEmpty():
        raise SteepestError("The DataFrame has no rows.", hint="There is nothing to learn from.")
    size = 32 if settings.batch_size == "all" else int(settings.batch_size)
    x: Any = {each.name: np.zeros((size, *each.shape), np.float32) for each in columns.inputs}
    width = columns.widths.get(columns.target)
    kind = rows.select(column(columns.target)).schema[0].dataType.simpleString()
    y = np.zeros((size,) if width is None else (size, width), np.int32 if "int" in kind else np.float32)
    try:
        weighed = settings.weights or settings.class_weight
        like = rows_of(x.get("", x), y, np.ones(size, np.float32) if weighed else None)
        like.build(model)
    except (ValueError, TypeError) as error:
        raise SteepestError(
            f"The model does not go with the columns: {gist(error)}",
            hint="Look at the model's input, output and loss.",
        ) from error

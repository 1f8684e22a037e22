"""Settings from a file and from whoever asks, checked and put together."""

from __future__ import annotations

import tempfile
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from steepest.data.wishes import Wishes
from steepest.errors import SteepestError, nearest
from steepest.settings import HERE, NAMES, ON_SPARK, ONLY_SPARK, Settings, with_tuples

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
    return with_tuples(found)


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
    _check_sparse(settings)
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


def _check_sparse(settings: Settings) -> None:
    """Refuse wishes that no table fulfils, and sparse features where there are none."""
    Wishes(settings.kinds, settings.cross, settings.hash_bits, settings.minimum_count)
    on_spark, is_keras = settings.on == ON_SPARK, ":" in settings.model
    if on_spark and is_keras and settings.asks_for_sparse:
        raise SteepestError(
            f"{settings.model} asks for sparse features, which fits on Spark don't have.",
            hint="Fit on this machine, or write it as build(columns), for the dense ones alone.",
        )
    if (settings.kinds or settings.cross) and (on_spark or not settings.asks_for_sparse):
        who = "A fit on Spark" if on_spark else settings.model
        raise SteepestError(
            f"{who} takes no sparse features, so that columns have no --kind and no --cross.",
            hint="Leave these out; or fit on this machine, a Keras model by build(columns, sparse).",
        )

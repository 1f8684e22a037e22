"""A Keras model on its way to other processes: Keras' own file, and what else an exact start takes.

Keras' file holds the layers, how the model was compiled, the weights and the optimizer's variables. What the
random generators (of dropout) have drawn so far is not in it, and comes in a file of arrays.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors.numpy import load_file, save_file

from steepest.errors import SteepestError
from steepest.keras.program import GROUPS, state_of
from steepest.keras.stored import gist

MODEL, START = "model.keras", "start.safetensors"

REGISTER = (
    "Define its classes and functions in a module that the workers have (spark.sparkContext.addPyFile, or "
    "--py-files), each decorated with keras.saving.register_keras_serializable()."
)


def pack(model: keras.Model, folder: Path) -> tuple[list[str], str]:
    """Write a model that is built into a folder.

    Returns
    -------
    The modules that its own classes and functions are defined in, and what tells it from other models.

    Raises
    ------
    SteepestError
        If another process could not read it.
    """
    path = folder / MODEL
    try:
        with warnings.catch_warnings():  # of NumPy 2's and of lambdas: reading tells what is wrong
            warnings.simplefilter("ignore")
            model.save(path)
            keras.models.load_model(path, safe_mode=True)
    except Exception as error:
        raise SteepestError(
            f"Keras can't write the model down and read it again: {gist(error)}", hint=REGISTER
        ) from error
    arrays = {
        f"{group}/{place}": np.asarray(value, order="C")
        for group, values in zip(GROUPS[:-1], state_of(model), strict=False)
        for place, value in enumerate(values)
    }
    save_file(arrays, folder / START)
    with zipfile.ZipFile(path) as file:
        config = file.read("config.json")
    modules = sorted({*_modules(json.loads(config))})
    if "__main__" in modules:
        raise SteepestError(
            "A class or function of the model is defined in __main__, which is another one in a worker.",
            hint=REGISTER,
        )
    return modules, hashlib.blake2b(config + (folder / START).read_bytes(), digest_size=16).hexdigest()


def _modules(config: Any) -> Iterator[str]:
    """Yield the modules of the registered classes and functions that a configuration names."""
    if isinstance(config, dict):
        name = config.get("registered_name")
        found = keras.saving.get_registered_object(config["config"] if name == "function" else name)
        if found is not None:
            yield found.__module__
    for part in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from _modules(part)


def unpack(folder: Path, modules: list[str]) -> keras.Model:
    """Read the model that `pack` wrote.

    Raises
    ------
    SteepestError
        If it can't be read here.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise SteepestError(
                f"A worker can't import {module!r}, which the model needs ({error}).",
                hint="Ship it: spark.sparkContext.addPyFile(...), or spark-submit --py-files.",
            ) from error
    try:
        model = keras.models.load_model(folder / MODEL, safe_mode=True)
    except Exception as error:
        raise SteepestError(f"A worker can't read the model: {gist(error)}", hint=REGISTER) from error
    arrays = load_file(folder / START)
    for group in GROUPS[:-1]:
        variables = model.optimizer.variables if group == "optimizer_variables" else getattr(model, group)
        for place, variable in enumerate(variables):
            variable.assign(arrays[f"{group}/{place}"])
    return model

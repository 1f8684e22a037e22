"""`keras.models` with models that train by `steepest.keras.fit`.

A model made here *is* Keras' model, down to what is saved: only its ``fit`` is bound to ours. Classes derived
from `Sequential` and `Model` inherit our ``fit``.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import keras
from keras import models as _keras_models

from steepest.keras.fitting import fit


def adopt(model: keras.Model) -> keras.Model:
    """Return the model, its ``fit`` replaced by `steepest.keras.fit`."""
    model.__dict__["fit"] = MethodType(fit, model)  # past Keras, which would track it as a part of the model
    return model


class _Adopting(type(keras.Model)):  # type: ignore[misc]
    """Makes `Sequential(...)` and `Model(...)` return Keras' own models, adopted."""

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        plain = cls.__dict__.get("_plain")
        return adopt(plain(*arguments, **named)) if plain else super().__call__(*arguments, **named)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.__dict__.get("_plain", ())) or super().__instancecheck__(instance)


class Model(keras.Model, metaclass=_Adopting):  # type: ignore[misc]
    """`keras.Model`, trained by `steepest.keras.fit`."""

    _plain = keras.Model
    fit = fit


class Sequential(keras.Sequential, metaclass=_Adopting):  # type: ignore[misc]
    """`keras.Sequential`, trained by `steepest.keras.fit`."""

    _plain = keras.Sequential
    fit = fit


def clone_model(*arguments: Any, **named: Any) -> keras.Model:
    """`keras.models.clone_model`."""
    return adopt(_keras_models.clone_model(*arguments, **named))


def load_model(*arguments: Any, **named: Any) -> keras.Model:
    """`keras.models.load_model`."""
    return adopt(_keras_models.load_model(*arguments, **named))


def model_from_json(*arguments: Any, **named: Any) -> keras.Model:
    """`keras.models.model_from_json`."""
    return adopt(_keras_models.model_from_json(*arguments, **named))


def __getattr__(name: str) -> Any:
    return getattr(_keras_models, name)

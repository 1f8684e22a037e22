"""Keras models whose training loop is Steepest's: Keras' own names, and an epoch is one compiled program.

Everything here is Keras 3 on its JAX backend: ``steepest.keras.layers`` is ``keras.layers``. Only
`Sequential`, `Model` and the functions that make models return models whose ``fit`` is `steepest.keras.fit`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from steepest.errors import SteepestError


def _import_keras() -> Any:
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        import keras
    except ModuleNotFoundError as error:
        raise SteepestError(
            f"steepest.keras needs Keras ({error}).", hint="Install it: pip install 'steepest[keras]'."
        ) from error
    if keras.backend.backend() != "jax":
        raise SteepestError(
            f"Keras runs on {keras.backend.backend()}, and steepest.keras needs it on JAX.",
            hint='Set the environment variable KERAS_BACKEND to "jax" before Keras is first imported.',
        )
    return keras


keras = _import_keras()

from steepest.keras.fitting import fit  # noqa: E402 - after the backend is known
from steepest.keras.models import Model, Sequential  # noqa: E402
from steepest.keras.searching import find_learning_rate  # noqa: E402
from steepest.keras.sparse import SparseEmbedding  # noqa: E402

__all__ = ["Model", "Sequential", "SparseEmbedding", "find_learning_rate", "fit"]


def _share_modules() -> None:
    """Let ``steepest.keras.layers`` be ``keras.layers``, and so on for all that is public but models."""
    for name, module in list(sys.modules.items()):
        top, _, rest = name.partition(".")
        if top == "keras" and rest and rest.partition(".")[0] not in ("src", "_tf_keras", "models"):
            sys.modules[f"{__name__}.{rest}"] = module


_share_modules()


def __getattr__(name: str) -> Any:
    return getattr(keras, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(keras)})
